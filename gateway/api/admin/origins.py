"""Whether a request was made by a page of this very server: what keeps other sites from acting as the admin."""

from typing import Final, Protocol
from urllib.parse import urlsplit

CROSS_SITE_TEXT: Final = (
    "This request was not made by the admin page itself: its Origin and Host headers name different servers, or one of "
    "them is missing. A proxy in between must pass Host on as it came.\n"
)


class RequestHeaders(Protocol):
    """The headers of a request, by name in any case."""

    def get(self, key: str, /) -> str | None:
        """Return the one header of that name, `None` if there is none."""


def is_from_own_page(headers: RequestHeaders) -> bool:
    """Tell whether a browser says that a page of this server made the request; who says nothing is not believed.

    Every browser sends `Origin` with a POST and with a WebSocket's handshake, and no script can change it.
    """
    origin, host = headers.get("origin"), headers.get("host")
    if headers.get("sec-fetch-site") not in (None, "same-origin") or not origin or not host:
        return False
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def is_secure(headers: RequestHeaders, *, scheme: str) -> bool:
    """Tell whether the browser speaks TLS, be it to a proxy before this server."""
    return scheme in {"https", "wss"} or (headers.get("origin") or "").startswith("https://")
