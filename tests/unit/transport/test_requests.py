"""What a request says, and what of its body is read."""

import asyncio
from http import HTTPStatus
from typing import Any

import pytest

from gateway.transport.requests import Request, UnreadableError


def request(*messages: Any, **scope: Any) -> Request:
    """Build a request whose body comes as *messages*; after the last one nothing comes any more."""
    coming = list(messages)

    async def receive() -> Any:
        if not coming:
            await asyncio.Event().wait()
        return coming.pop(0)

    async def send(message: Any) -> None:
        raise AssertionError(f"nothing is answered here: {message}")

    return Request({"method": "POST", "http_version": "1.1", "headers": [], **scope}, receive, send)


def part(body: bytes, *, is_last: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": not is_last}


GONE = {"type": "http.disconnect"}


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (b"", None),
        (b"cf_connect", b""),
        (b"cf_connect=", b""),
        (b"cf_connect=%7B%22id%22:1%7D%0A%7B%7D", b'{"id":1}\n{}'),
        (b"a=1&cf_connect=x+y&cf_connect=z", b"x y"),
        (b"cf_connect=%C3%A9%FF\xe9", "é\ufffdé".encode()),
        (b"CF_CONNECT=x", None),
    ],
)
def test_a_parameter_is_the_first_of_its_name_and_decoded(query: bytes, value: bytes | None) -> None:
    assert request(query_string=query).parameter("cf_connect") == value


def test_a_server_need_not_give_a_query_or_a_client() -> None:
    bare = request()
    assert (bare.parameter("x"), bare.address, bare.origins, bare.is_binary) == (None, "", [], False)


@pytest.mark.parametrize(
    ("headers", "version", "is_persistent"),
    [
        ([], "1.1", True),
        ([(b"connection", b"keep-alive")], "1.1", True),
        ([(b"connection", b"Close")], "1.1", False),
        ([], "1.0", False),
        ([], "2", False),
    ],
)
def test_only_a_connection_of_http_1_1_is_said_to_live_on(headers: Any, version: str, *, is_persistent: bool) -> None:
    assert request(headers=headers, http_version=version).is_persistent is is_persistent


@pytest.mark.parametrize(
    ("kind", "is_binary"),
    [
        (b"application/octet-stream", True),
        (b"Application/Octet-Stream; charset=x", True),
        (b"application/octet-streams", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_one_kind_of_content_is_binary(kind: bytes, *, is_binary: bool) -> None:
    assert request(headers=[(b"content-type", kind)]).is_binary is is_binary


@pytest.mark.parametrize(
    ("messages", "announced", "outcome"),
    [
        ([part(b"12345", is_last=True)], b"5", b"12345"),
        ([part(b"12"), part(b""), part(b"345", is_last=True)], b"", b"12345"),
        ([{"type": "http.request"}], b"", b""),
        ([part(b"123456", is_last=True)], b"", HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        ([part(b"12345"), part(b"6")], b"", HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        ([], b"6", HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        ([part(b"12345", is_last=True)], b"x", b"12345"),
        ([GONE], b"", HTTPStatus.BAD_REQUEST),
        ([part(b"12"), GONE], b"5", HTTPStatus.BAD_REQUEST),
        ([part(b"12")], b"5", HTTPStatus.REQUEST_TIMEOUT),
    ],
)
async def test_a_body_is_read_up_to_its_limit_and_as_long_as_it_comes(
    messages: list[Any], announced: bytes, outcome: bytes | HTTPStatus
) -> None:
    headers = [(b"content-length", announced)] if announced else []
    reading = request(*messages, headers=headers).body(limit=5, timeout_s=0.01)
    if isinstance(outcome, bytes):
        assert await reading == outcome
    else:
        with pytest.raises(UnreadableError) as refused:
            await reading
        assert refused.value.status is outcome
