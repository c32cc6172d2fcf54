"""What a user may get wrong is told in one sentence, before anything is started."""

from pathlib import Path

import pytest

from loadtest.cli import main

_TARGET = "ws://127.0.0.1:1/connection/websocket"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing"], "there is no scenario 'nothing'"),
        (["fanout", "--set", "size=3"], "has no parameter 'size'"),
        (["fanout", "--assert", "p99<50"], "needs a unit"),
        (["fanout", "--chaos", "kill:node1"], "is no chaos"),
        (["fanout", "--chaos", "kill:node1@99s"], "would come after the plateau"),
        (["fanout", "--target", "ws://example.com/x"], "is not this machine: add --i-own-this-target"),
        (["fanout", "--protocol", "plain", "--plain-target", "ws://10.0.0.1/{channel}"], "is not this machine"),
        (["fanout", "--target", _TARGET, "--api", "http://example.com/api"], "is not this machine"),
        (["fanout", "--target", "http://127.0.0.1:1"], "is no WebSocket address"),
        (["fanout", "--plain-target", "ws://127.0.0.1/ws"], "names where the channel goes"),
        (["fanout", "--target", _TARGET, "--cluster"], "--cluster starts servers"),
        (["fanout", "--workers", "-1"], "at least one worker"),
        (["fanout", "--protocol", "plain", "--set", "model=closed"], "the closed model does not fit"),
        (["fanout", "--file", "nowhere.toml"], "can't read nowhere.toml"),
        (["fanout", "--target", _TARGET, "--set", "clients=900000"], "900000 connections do not fit"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *arguments, "--quiet"]) == 2
    written = capsys.readouterr()
    assert sentence in written.err
    assert written.err.count("\n") == 1
    assert written.out == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("scenario = ", "Invalid value"),
        ("scenarios = 'x'", "unknown field `scenarios`"),
        ("[[servers]]\nname = 5", "Expected `str`"),
        ('[[servers]]\nname = "a"\n[[servers]]\nname = "a"', "two servers have the same name"),
        ('targets = ["ws://10.0.0.1/x"]', "is not this machine"),
    ],
)
def test_a_file_that_can_not_be_is_told_so(
    tmp_path: Path, text: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    assert main(["run", "--file", str(path), "--quiet"]) == 2
    assert sentence in capsys.readouterr().err


def test_scenarios_are_listed_with_their_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenarios"]) == 0
    assert "room_size=10" in capsys.readouterr().out
