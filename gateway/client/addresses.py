"""Where servers are: addresses as their users write them."""

import functools
from collections.abc import Sequence
from typing import Final

from websockets.exceptions import InvalidURI
from websockets.uri import WebSocketURI, parse_uri

from gateway.client.errors import InvalidArgumentError

_EXAMPLE: Final = "give one such as wss://example.com/connection/websocket"


def parse_addresses(addresses: str | Sequence[str]) -> tuple[WebSocketURI, ...]:
    """Read one address or several; raises `InvalidArgumentError`."""
    texts = (addresses,) if isinstance(addresses, str) else tuple(addresses)
    if not texts:
        raise InvalidArgumentError("no address", to_do=_EXAMPLE)
    try:
        return tuple(map(_parse, texts))
    except (InvalidURI, ValueError) as error:
        raise InvalidArgumentError(str(error), to_do=_EXAMPLE) from None


@functools.lru_cache(maxsize=256)
def _parse(text: str) -> WebSocketURI:
    """Read one address; thousands of clients of one server share what comes of it, 0.5 KB each."""
    return parse_uri(text)
