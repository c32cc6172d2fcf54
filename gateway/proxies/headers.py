"""Headers of clients, as far as a backend may be told them.

A connection keeps those that some proxy forwards, and of these each proxy takes its own. What a client gave in its
connect command is apart from what its request had, since the latter may have passed a balancer that takes care of it.
"""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from gateway.proxies.port import Headers


class ClientHeaders(NamedTuple):
    """The headers of one client that may be forwarded; names are in lower case."""

    given: Headers = ()
    """Of its request."""
    emulated: Headers = ()
    """Of its connect command."""


NO_HEADERS: Final = ClientHeaders()


def of_request(headers: Iterable[tuple[str, str]], names: AbstractSet[str]) -> Headers:
    """Return those of *headers*, each byte of them a character, that are called one of *names* (in lower case)."""
    if not names:
        return ()
    found = ((name.lower(), value) for name, value in headers)
    return tuple(_sendable((name, _as_text(value)) for name, value in found if name in names))


def of_command(headers: Mapping[str, str], names: AbstractSet[str]) -> Headers:
    """Return those of the *headers* of a connect command that are called one of *names* (in lower case)."""
    if not names or not headers:
        return ()
    found = ((name.lower(), value) for name, value in headers.items())
    return tuple(_sendable((name, value) for name, value in found if name in names))


def forwarded(
    client: ClientHeaders, *, given: AbstractSet[str], emulated: AbstractSet[str], static: Mapping[str, str]
) -> Headers:
    """Return what one proxy sends: the request's headers win over emulated ones, and these over *static* ones."""
    sent = [each for each in client.given if each[0] in given]
    names = {name for name, _ in sent}
    added = [each for each in client.emulated if each[0] in emulated and each[0] not in names]
    names.update(name for name, _ in added)
    return [*sent, *added, *((name, value) for name, value in static.items() if name.lower() not in names)]


def _as_text(value: str) -> str | None:
    """Return what is written as the same bytes in UTF-8, which is how headers are sent; `None` if nothing is."""
    try:
        return value if value.isascii() else value.encode("latin-1").decode()
    except UnicodeError:
        return None


def _sendable(headers: Iterable[tuple[str, str | None]]) -> Iterator[tuple[str, str]]:
    """Leave out what can't be the value of a header (RFC 9110 5.5): it could begin another one."""
    for name, value in headers:
        if value is not None and not any(
            (character < " " and character != "\t") or character == "\x7f" for character in value
        ):
            yield name, value
