"""What the operator or the user's backend may close connections with (protocol.md 1.2, 4.2)."""

from typing import Final

from gateway.protocol import codes
from gateway.protocol.codes import Disconnect
from gateway.protocol.json_codec import is_json

_CODES: Final = range(3000, 5000)
MAX_REASON_BYTES: Final = 123
_REASONS: Final = {disconnect.code: disconnect.reason for disconnect in codes.DISCONNECTS}


def closing_with(code: int, reason: str) -> Disconnect:
    """Return what clients are told; without a *reason*, the one that goes with the code.

    Raises:
        ValueError: for a code or a reason that a client could not make sense of; its words name the field.
    """
    if code not in _CODES:
        raise ValueError(f"disconnect.code is {code}, and {_CODES[0]} to {_CODES[-1]} are codes")
    told = reason or _REASONS.get(code, codes.FORCE_DISCONNECT.reason)
    if not is_tellable(told):
        raise ValueError(f"disconnect.reason is a text of at most {MAX_REASON_BYTES} bytes, and nothing that is JSON")
    return Disconnect(code, told)


def is_tellable(reason: str) -> bool:
    """Tell whether a Close frame has room for *reason*, and SDKs can't take it for anything but a text."""
    text = reason.encode()
    return len(text) <= MAX_REASON_BYTES and not is_json(text)
