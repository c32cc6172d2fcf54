"""The certificate of the public port: whether it can be used, for how long, and for which names."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from gateway.doctor.finding import Finding, error, ok, warning
from gateway.transport.certificate import ListenError, TLSSettings, tls_context

_SOON_DAYS: Final = 14
_READABLE_BY_ALL: Final = 0o004
_MOST_NAMES: Final = 5


def check_certificate(settings: TLSSettings, *, now: datetime) -> Iterator[Finding]:
    """Look at the files of *settings* as they are at *now*."""
    if not settings.enabled:
        return
    try:
        tls_context(settings)
        chain = x509.load_pem_x509_certificates(Path(settings.cert_pem_file).read_bytes())
    except (ListenError, OSError, ValueError) as fault:
        yield error("tls", str(fault), "give the chain, the server's own first, and the key that belongs to it")
        return
    first = chain[0]
    left = first.not_valid_after_utc - now
    if now < first.not_valid_before_utc:
        advice = "mend the clock, or wait"
        yield error("tls", f"{settings.cert_pem_file} is not valid before {_day(first.not_valid_before_utc)}", advice)
    elif left.total_seconds() <= 0:
        advice = "renew it, then kill -HUP: nobody is cut"
        yield error("tls", f"{settings.cert_pem_file} has expired on {_day(first.not_valid_after_utc)}", advice)
    elif left.days < _SOON_DAYS:
        advice = "renew it, then kill -HUP: nobody is cut"
        yield warning("tls", f"{settings.cert_pem_file} expires in {left.days} days", advice)
    else:
        yield ok("tls", f"{_names(first)}: good for {left.days} days, {len(chain)} certificates in the chain")
    if Path(settings.key_pem_file).stat().st_mode & _READABLE_BY_ALL:
        yield warning(
            "tls", f"everybody on this machine may read {settings.key_pem_file}", "chmod 600, owned by the node"
        )


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat()


def _names(certificate: x509.Certificate) -> str:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return "no names"
    names = [str(each.value) for each in extension.value]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
