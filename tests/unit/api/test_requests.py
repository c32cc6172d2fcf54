"""What is read from a request, without a server."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec
import pytest

from gateway.api.requests import Head, UnreadableError, decode, read_body, read_head
from gateway.protocol.server_api import BatchCall, PublishCall

DECODER = msgspec.json.Decoder(PublishCall)


def head(*headers: tuple[bytes, bytes], query: bytes = b"") -> Head:
    return read_head({"headers": list(headers), "query_string": query})


@pytest.mark.parametrize(
    ("headers", "query", "key"),
    [
        ([], b"", b""),
        ([(b"x-api-key", b"k")], b"", b"k"),
        ([(b"authorization", b"apikey k")], b"", b"k"),
        ([(b"authorization", b"ApiKey  k ")], b"", b"k"),
        ([(b"authorization", b"Bearer k")], b"", b"k"),
        ([(b"authorization", b"Basic k")], b"", b""),
        ([(b"authorization", b"k")], b"", b""),
        ([], b"api_key=k", b"k"),
        ([], b"x=1&api_key=a%20b%2B", b"a b+"),
        ([], b"api_key=", b""),
        ([], b"API_KEY=k", b""),
        ([], b"api_key=k%C3%BC\xff", b"k\xc3\xbc\xff"),
        ([], b"\xc3\xbc=1&api_key=k", b"k"),
        ([(b"x-api-key", b"header"), (b"authorization", b"Bearer other")], b"api_key=third", b"header"),
        ([(b"authorization", b"Bearer other")], b"api_key=third", b"other"),
        ([(b"authorization", b"Basic other")], b"api_key=third", b"third"),
    ],
)
def test_a_key_is_found_where_it_may_be_shown(headers: list[tuple[bytes, bytes]], query: bytes, key: bytes) -> None:
    assert head(*headers, query=query) == Head(key, wants_transport_errors=False, size=0)


@pytest.mark.parametrize(
    ("value", "wants"), [(b"transport", True), (b" Transport ", True), (b"", False), (b"x", False)]
)
def test_the_error_mode_of_a_request_is_in_its_header(value: bytes, wants: bool) -> None:  # noqa: FBT001
    assert head((b"x-centrifugo-error-mode", value)).wants_transport_errors is wants


@pytest.mark.parametrize(("value", "size"), [(b"17", 17), (b"-1", 0), (b"x", 0), (b"", 0)])
def test_an_announced_length_is_a_number_or_nothing(value: bytes, size: int) -> None:
    assert head((b"content-length", value)).size == size


async def read(parts: Iterable[bytes], *, limit: int, announced: int = 0, is_whole: bool = True) -> bytes:
    chunks = list(parts)
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": not is_whole or n < len(chunks)}
        for n, part in enumerate(chunks, 1)
    ]
    messages.append({"type": "http.disconnect"})
    pending = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(pending)

    return await read_body(receive, announced=announced, limit=limit)


async def test_a_body_is_put_together_up_to_its_limit() -> None:
    assert await read([b"ab"], limit=2) == b"ab"
    assert await read([b"a", b"", b"b"], limit=2) == b"ab"
    assert await read([b""], limit=2) == b""


@pytest.mark.parametrize(
    ("parts", "announced", "status"),
    [
        ([b"abc"], 0, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        ([b"a", b"bc"], 0, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        ([b"ab", b"c", b""], 0, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        ([], 3, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        ([], 0, HTTPStatus.BAD_REQUEST),
    ],
)
async def test_a_body_beyond_its_limit_or_without_an_end_is_refused(
    parts: list[bytes], announced: int, status: HTTPStatus
) -> None:
    with pytest.raises(UnreadableError) as refused:
        await read(parts, limit=2, announced=announced)
    assert refused.value.status is status


async def test_a_sender_who_goes_before_the_end_is_refused() -> None:
    with pytest.raises(UnreadableError, match="ended before its body did"):
        await read([b"a"], limit=2, is_whole=False)


def test_half_a_surrogate_pair_costs_no_call() -> None:
    call = decode(b'{"channel":"a\\ud83d","data":"\\ude00"}', DECODER, max_depth=9)
    assert call == PublishCall("a\ufffd", msgspec.Raw(b'"\\ufffd"'))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the body is empty: send a JSON object, {} at least"),
        (b"{", "Input data was truncated"),
        (b'{"data":"\xff"}', "not UTF-8: invalid start byte at byte 9"),
        (b'{"data":[[[1]]]}', "a payload is nested more than 2 deep"),
        (b'{"channel":1}', "Expected `str`, got `int` - at `$.channel`"),
    ],
)
def test_what_is_no_call_is_refused_with_what_is_wrong(body: bytes, text: str) -> None:
    with pytest.raises(UnreadableError, match=r".") as refused:
        decode(body, DECODER, max_depth=2)
    assert (refused.value.status, str(refused.value)) == (HTTPStatus.BAD_REQUEST, text)


@pytest.mark.parametrize(
    "command",
    [
        '{"publish":{"data":[[[1]]]}}',
        '{"publish":{}},{"broadcast":{"data":[[[1]]]}}',
        '{"subscribe":{"info":[[[1]]]}}',
        '{"subscribe":{"data":[[[1]]]}}',
        '{"refresh":{"info":[[[1]]]}}',
        '{"rpc":{"params":[[[1]]]}}',
    ],
)
def test_no_payload_of_a_batch_is_nested_too_deep(command: str) -> None:
    decoder = msgspec.json.Decoder(BatchCall)
    body = f'{{"commands":[{command}]}}'.encode()
    assert isinstance(decode(body, decoder, max_depth=3), BatchCall)
    with pytest.raises(UnreadableError, match="nested more than 2 deep"):
        decode(body, decoder, max_depth=2)


def test_what_is_nested_without_an_end_is_refused() -> None:
    with pytest.raises(UnreadableError):
        decode(b'{"data":' + b"[" * 100_000, DECODER, max_depth=100)
