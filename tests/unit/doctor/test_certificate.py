"""What the doctor says of a certificate: readable, fitting, for how long, for whom."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from gateway.doctor.certificate import check_certificate
from gateway.transport.certificate import TLSSettings

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def settings(folder: Path, *names: str, expires: datetime, mode: int = 0o600) -> TLSSettings:
    issued = trustme.CA().issue_cert(*names, not_before=NOW - timedelta(days=10), not_after=expires)
    certificate, key = folder / "server.pem", folder / "server.key"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    key.chmod(mode)
    return TLSSettings(enabled=True, cert_pem_file=str(certificate), key_pem_file=str(key))


@pytest.mark.parametrize(
    ("days", "now", "word", "text"),
    [
        (90, NOW, "ok", "a.example, 127.0.0.1: good for 90 days, 1 certificates in the chain"),
        (14, NOW, "ok", "a.example, 127.0.0.1: good for 14 days, 1 certificates in the chain"),
        (13, NOW, "warning", "/server.pem expires in 13 days"),
        (0.5, NOW, "warning", "/server.pem expires in 0 days"),
        (0, NOW, "error", "/server.pem has expired on 2026-06-01"),
        (90, NOW - timedelta(days=11), "error", "/server.pem is not valid before 2026-05-22"),
    ],
)
def test_how_long_a_certificate_is_good(tmp_path: Path, days: float, now: datetime, word: str, text: str) -> None:
    made = settings(tmp_path, "a.example", "127.0.0.1", expires=NOW + timedelta(days=days))
    (finding,) = check_certificate(made, now=now)
    assert (finding.verdict.word, finding.subject) == (word, "tls")
    assert finding.text.removeprefix(str(tmp_path)) == text
    assert bool(finding.advice) == (word != "ok")


def test_a_key_that_everybody_may_read_is_told_and_many_names_are_counted(tmp_path: Path) -> None:
    names = [f"{letter}.example" for letter in "abcdefg"]
    found = list(check_certificate(settings(tmp_path, *names, expires=NOW + timedelta(days=90), mode=0o644), now=NOW))
    assert [each.verdict.word for each in found] == ["ok", "warning"]
    assert found[0].text.startswith("a.example, b.example, c.example, d.example, e.example and 2 more: good")
    assert found[1].text == f"everybody on this machine may read {tmp_path}/server.key"


@pytest.mark.parametrize("spoilt", ["server.pem", "server.key"])
def test_files_that_do_not_do_are_an_error(tmp_path: Path, spoilt: str) -> None:
    made = settings(tmp_path, "a.example", expires=NOW + timedelta(days=90))
    for text in ("no PEM", None):
        if text is None:
            (tmp_path / spoilt).unlink()
        else:
            (tmp_path / spoilt).write_text(text, encoding="utf-8")
        (finding,) = check_certificate(made, now=NOW)
        assert finding.verdict.word == "error"
        assert spoilt in finding.text
        assert finding.advice


def test_without_tls_there_is_nothing_to_say() -> None:
    assert list(check_certificate(TLSSettings(), now=NOW)) == []
