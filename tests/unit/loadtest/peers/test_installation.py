import sys
from pathlib import Path

import pytest

from loadtest.peers import installation
from loadtest.peers.catalogue import GATEWAY, NodePackages, Peer, PythonPackages
from loadtest.peers.dialects import BARE
from loadtest.peers.installation import InstallationError, install


def _peer(requirements: tuple[str, ...]) -> Peer:
    return Peer(key="it", title="", needs=PythonPackages(requirements), script="", dialect=BARE)


def test_what_is_installed_is_left_alone_and_other_versions_get_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[str, ...]] = []
    monkeypatch.setattr(installation, "_call", lambda *command, **_: called.append(command))

    first = install(_peer(("a==1",)), tmp_path)
    assert install(_peer(("a==1",)), tmp_path) == first
    assert install(_peer(("a==2",)), tmp_path) != first
    assert called[0] == (sys.executable, "-m", "venv", "--without-pip", str(first))
    assert [command[-1] for command in called[1::2]] == ["a==1", "a==2"]


def test_what_was_interrupted_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_call", lambda *_, **__: None)
    folder = install(_peer(("a==1",)), tmp_path)
    (folder / "installed").unlink()
    (folder / "half").touch()
    assert list(install(_peer(("a==1",)), tmp_path).iterdir()) == [folder / "installed"]


def test_the_gateway_needs_nothing(tmp_path: Path) -> None:
    install(GATEWAY, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_why_something_can_not_be_had_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InstallationError, match=r"^.*file.*: not a directory$"):
        install(_peer(()), tmp_path / "file")
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(InstallationError, match=r"^`false -m venv --without-pip …` failed: it said nothing$"):
        install(_peer(()), tmp_path)
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(InstallationError, match=r"^it needs Node\.js and npm: apt-get install nodejs npm$"):
        install(Peer(key="n", title="", needs=NodePackages({}), script="", dialect=BARE), tmp_path)
