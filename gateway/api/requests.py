"""What a request to the server API brings: a key, an error mode, and a body that is bounded and JSON.

All of it from the bare ASGI scope, since hot methods are served without a framework (tests/benchmarks/api).
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope

from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.json_codec import decode_repairing, has_deeper_nesting
from gateway.protocol.server_api import BatchCall, BatchCommand, PublishCall

KEY_HEADER: Final = "X-API-Key"
KEY_PARAMETER: Final = "api_key"
ERROR_MODE_HEADER: Final = "X-Centrifugo-Error-Mode"
_KEY_HEADER: Final = KEY_HEADER.lower().encode()
_ERROR_MODE_HEADER: Final = ERROR_MODE_HEADER.lower().encode()
_SCHEMES: Final = (b"apikey", b"bearer")


class Head(NamedTuple):
    """What the headers and the query say that the API cares about."""

    key: bytes
    """What was shown as a key, empty if nothing was."""
    wants_transport_errors: bool
    size: int
    """The body's length as announced, 0 if it is not."""


class UnreadableError(Exception):
    """A body that is no call; *status* says of what kind the fault is, the text is one line for whoever sent it."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


def read_head(scope: Scope) -> Head:
    """Read headers and query. `X-API-Key` goes before `Authorization`, and that before `?api_key=`."""
    key = authorization = b""
    wants_transport_errors, size = False, 0
    for name, value in scope["headers"]:
        if name == _KEY_HEADER:
            key = value
        elif name == b"authorization":
            authorization = value
        elif name == b"content-length":
            size = int(value) if value.isdigit() else 0
        elif name == _ERROR_MODE_HEADER:
            wants_transport_errors = value.strip().lower() == b"transport"
    if not key and authorization:
        scheme, _, rest = authorization.partition(b" ")
        key = rest.strip() if scheme.lower() in _SCHEMES else b""
    if not key and scope["query_string"]:
        # Bytes as they came, since a query may hold any, and is nobody's mistake but its sender's.
        query = parse_qsl(scope["query_string"].decode("latin-1"), encoding="latin-1")
        key = dict(query).get(KEY_PARAMETER, "").encode("latin-1")
    return Head(key, wants_transport_errors, size)


async def read_body(receive: Receive, *, announced: int, limit: int) -> bytes:
    """Read the whole body.

    Raises:
        UnreadableError: if it is longer than *limit*, or its sender has gone before its end.
    """
    if announced > limit:
        raise _too_long(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body", False) and len(body) <= limit:
        return body
    parts, size = [body], len(body)
    while message["type"] == "http.request" and message.get("more_body", False):
        if size > limit:
            raise _too_long(limit)
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    if message["type"] != "http.request":
        raise UnreadableError(HTTPStatus.BAD_REQUEST, "the request ended before its body did")
    if size > limit:
        raise _too_long(limit)
    return b"".join(parts)


def decode(body: bytes, decoder: "msgspec.json.Decoder[Any]", *, max_depth: int) -> Any:
    r"""Return the call that *body* holds; half a surrogate pair (`\ud83d`) in it counts as `\ufffd`.

    Raises:
        UnreadableError: if it is not JSON, or of other types than the call's.
    """
    if not body or body.isspace():
        raise UnreadableError(HTTPStatus.BAD_REQUEST, "the body is empty: send a JSON object, {} at least")
    try:
        body.isascii() or body.decode()
        call = decode_repairing(decoder, body)
    except UnicodeDecodeError as error:
        raise UnreadableError(HTTPStatus.BAD_REQUEST, f"not UTF-8: {error.reason} at byte {error.start}") from None
    except MalformedFrameError as error:
        raise UnreadableError(HTTPStatus.BAD_REQUEST, str(error)) from None
    payloads = (call.data,) if type(call) is PublishCall else _payloads(call)
    if any([has_deeper_nesting(bytes(each), limit=max_depth) for each in payloads]):  # noqa: C419 - mostly it is one
        raise UnreadableError(HTTPStatus.BAD_REQUEST, f"a payload is nested more than {max_depth} deep")
    return call


def _payloads(call: Any) -> Iterator[msgspec.Raw]:
    """Return all that goes on to somebody else as it came."""
    if isinstance(call, BatchCall):
        for command in call.commands:
            if command.publish is not None:  # nearly all of what comes in batches
                yield command.publish.data
            else:
                yield from _payloads(command)
        return
    for name in call.__struct_fields__:
        field = getattr(call, name)
        if isinstance(field, msgspec.Raw):
            yield field
        elif isinstance(call, BatchCommand) and field is not None:
            yield from _payloads(field)


def _too_long(limit: int) -> UnreadableError:
    text = f"the body is longer than {limit} bytes (http_api.body_size_limit)"
    return UnreadableError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
