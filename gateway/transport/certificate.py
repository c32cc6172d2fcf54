"""The certificate of the public port, which may be renewed while clients are connected.

Theory of operation. The listener keeps one TLS context for as long as it lives. When a client says hello, that context
hands the handshake over to the newest one (OpenSSL's server name callback, which is called whether the client names a
server or not). So a renewed certificate is a fresh context: it is complete before anybody sees it, a file that is half
written breaks nothing, and connections that are open never notice.
"""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Self

from cryptography import x509
from pydantic import model_validator

from gateway.settings import Settings


class ListenError(Exception):
    """An address, a certificate or a key that can't be used; the message is one sentence for the operator."""


class TLSSettings(Settings):
    """`http_server.tls`: certificates of the public port."""

    enabled: bool = False
    """Speak TLS (1.2 or newer) on the public port."""
    cert_pem_file: str = ""
    """The certificate chain; read again on a reload."""
    key_pem_file: str = ""
    """Its private key; the same."""

    @model_validator(mode="after")
    def _need_both_files(self) -> Self:
        if self.enabled and not (self.cert_pem_file and self.key_pem_file):
            message = "TLS needs cert_pem_file and key_pem_file"
            raise ValueError(message)
        return self


class Certificate:
    """What the public port shows to clients: *settings* name its files."""

    def __init__(self, settings: TLSSettings) -> None:
        """Read the files.

        Raises:
            ListenError: if one can't be read, or the two do not match.
        """
        self._content = _read(settings)
        self.context = tls_context(settings)
        """The context for the listener; it follows what `prepare` puts in force."""
        self.expires_at_unix_s = _expiry(settings, self._content[0])
        """When the one in force expires."""
        self._newest = self.context
        self.context.sni_callback = self._hand_over

    def prepare(self, settings: TLSSettings) -> Callable[[], None] | None:
        """Read the files of *settings* and return what has handshakes use them from then on; `None` if they do already.

        Raises:
            ListenError: as at birth; the certificate stays what it was.
        """
        content = _read(settings)
        if content == self._content:
            return None
        fresh, expires_at_unix_s = tls_context(settings), _expiry(settings, content[0])

        def renew() -> None:
            self._newest, self._content = fresh, content
            self.expires_at_unix_s = expires_at_unix_s

        return renew

    def _hand_over(self, handshake: ssl.SSLObject, _server_name: str | None, _first: ssl.SSLContext) -> None:
        handshake.context = self._newest


def _expiry(settings: TLSSettings, chain: bytes) -> float:
    """Return when the certificate of *settings* expires; the server's own is the first in the *chain* of its file."""
    try:
        [own, *_] = x509.load_pem_x509_certificates(chain)
    except ValueError as error:
        raise ListenError(f"{settings.cert_pem_file} is no chain of certificates: {error}") from error
    return own.not_valid_after_utc.timestamp()


def tls_context(settings: TLSSettings) -> ssl.SSLContext:
    """Return a TLS context with the certificate of *settings*.

    Raises:
        ListenError: if a file can't be read, the key needs a passphrase, or the two do not match.
    """

    def refuse_passphrase() -> str:  # else OpenSSL asks for one at the terminal, and the node waits
        raise ListenError(f"{settings.key_pem_file} has a passphrase: give the key without one")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _read(settings)
    try:
        context.load_cert_chain(settings.cert_pem_file, settings.key_pem_file, password=refuse_passphrase)
    except OSError as error:  # of OpenSSL, or a file that has gone in between, as when it is being renewed
        files = f"{settings.cert_pem_file} and {settings.key_pem_file}"
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise ListenError(f"{files} are no certificate and its key: {reason or error}") from error
    return context


def _read(settings: TLSSettings) -> tuple[bytes, bytes]:
    """Return what the files hold, since only this tells which of them can't be read."""
    found = []
    for name in (settings.cert_pem_file, settings.key_pem_file):
        try:
            found.append(Path(name).read_bytes())
        except OSError as error:
            raise ListenError(f"can't read {name}: {error.strerror}") from error
    chain, key = found
    return chain, key
