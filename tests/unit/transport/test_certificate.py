"""A certificate that is renewed: new handshakes get it, whatever was begun before goes on."""

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from gateway.transport.certificate import Certificate, ListenError, TLSSettings

AUTHORITY = trustme.CA()


def issue(folder: Path, name: str = "server", authority: trustme.CA = AUTHORITY) -> TLSSettings:
    """Write a new certificate and its key to the files that it has always been in."""
    issued = authority.issue_cert("localhost")
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    return TLSSettings(enabled=True, cert_pem_file=str(certificate), key_pem_file=str(key))


class Handshake:
    """Both sides of a TLS connection in memory."""

    def __init__(self, context: ssl.SSLContext, *, name: str | None = "localhost") -> None:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        AUTHORITY.configure_trust(client)
        client.check_hostname = name is not None
        self.server = context.wrap_bio(to_server, to_client, server_side=True)
        self.client = client.wrap_bio(to_client, to_server, server_hostname=name)

    def complete(self) -> int:
        """Finish it and return the serial number of the certificate that the client was shown."""
        waiting = [self.client, self.server]
        while waiting:
            for side in list(waiting):
                try:
                    side.do_handshake()
                    waiting.remove(side)
                except ssl.SSLWantReadError:
                    pass
        shown = self.client.getpeercert()
        assert shown is not None
        return int(str(shown["serialNumber"]), 16)

    def exchange(self) -> bytes:
        self.client.write(b"still here")
        return self.server.read()


@pytest.mark.parametrize("name", ["localhost", None])
def test_handshakes_after_a_renewal_get_the_new_certificate(tmp_path: Path, name: str | None) -> None:
    """Whether the client names a server (SNI) or not, as who connects to an address does not."""
    certificate = Certificate(issue(tmp_path))
    old = Handshake(certificate.context, name=name)
    first = old.complete()
    begun = Handshake(certificate.context, name=name)
    renew = certificate.prepare(issue(tmp_path))
    assert renew is not None
    assert Handshake(certificate.context, name=name).complete() == first, "prepared is not in force"
    renew()
    second = begun.complete()
    assert second != first
    assert Handshake(certificate.context, name=name).complete() == second
    assert old.exchange() == b"still here"


def test_both_contexts_speak_nothing_older_than_tls_1_2(tmp_path: Path) -> None:
    settings = issue(tmp_path)
    certificate = Certificate(settings)
    assert certificate.prepare(settings) is None
    renew = certificate.prepare(issue(tmp_path))
    assert renew is not None
    renew()
    assert certificate.prepare(settings) is None
    shaken = Handshake(certificate.context)
    shaken.complete()
    assert shaken.server.version() == "TLSv1.3"
    assert shaken.server.context.minimum_version is ssl.TLSVersion.TLSv1_2


def _mark_as_trusted(folder: Path) -> None:
    """Write the certificate in the form that OpenSSL alone reads."""
    server = folder / "server.pem"
    server.write_text(server.read_text().replace(" CERTIFICATE", " TRUSTED CERTIFICATE"))


def _encrypt(folder: Path) -> None:
    key = folder / "server.key"
    encryption = serialization.BestAvailableEncryption(b"secret")
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(loaded.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_mark_as_trusted, "is no chain of certificates"),
        (_encrypt, "server.key has a passphrase: give the key without one"),
        (lambda folder: (folder / "server.key").unlink(), "can't read .*server.key: No such file"),
        (lambda folder: (folder / "server.pem").write_text(""), "are no certificate and its key"),
        (lambda folder: (folder / "server.key").write_text("half of a k"), "are no certificate and its key"),
        (
            lambda folder: (folder / "server.key").write_bytes((folder / "other.key").read_bytes()),
            "KEY_VALUES_MISMATCH|do not|mismatch",
        ),
    ],
)
def test_files_that_do_not_do_leave_the_certificate_as_it_was(tmp_path: Path, spoil: object, words: str) -> None:
    settings = issue(tmp_path)
    issue(tmp_path, "other")
    certificate = Certificate(settings)
    serial = Handshake(certificate.context).complete()
    spoil(tmp_path)  # type: ignore[operator]  # one of the lambdas above
    with pytest.raises(ListenError, match=words):
        certificate.prepare(settings)
    with pytest.raises(ListenError, match=words):
        Certificate(settings)
    assert Handshake(certificate.context).complete() == serial


def test_a_file_that_goes_while_it_is_read_is_told_like_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = issue(tmp_path)
    certificate = Certificate(settings)
    issue(tmp_path)

    def vanish(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", vanish)
    with pytest.raises(ListenError, match="are no certificate and its key: No such file"):
        certificate.prepare(settings)
