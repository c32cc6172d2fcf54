"""What the backend's answers mean, case by case."""

import base64
import json
from typing import Any

import pytest
from msgspec import Raw

from gateway.domain.identity import Grant, Identity, Overrides
from gateway.protocol.codes import Disconnect, ErrorCode
from gateway.proxies.answers import (
    CONNECT,
    PUBLISH,
    REFRESH,
    RPC,
    SUBSCRIBE,
    ConnectVerdict,
    PublishVerdict,
    Reader,
    RefreshVerdict,
    UnusableAnswerError,
)

READERS: dict[str, Reader[Any]] = {
    "connect": CONNECT,
    "refresh": REFRESH,
    "subscribe": SUBSCRIBE,
    "publish": PUBLISH,
    "rpc": RPC,
}
ALL = list(READERS)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def read(event: str, answer: Any) -> Any:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return READERS[event].read(body, max_depth=16)


def plain(value: Any) -> Any:
    """Return a payload as bytes, since payloads have no equality of their own."""
    return bytes(value) if isinstance(value, Raw) else value


def refusal(event: str, answer: Any) -> str:
    with pytest.raises(UnusableAnswerError) as caught:
        read(event, answer)
    return str(caught.value)


# Errors, disconnects, and neither: alike for all events.


@pytest.mark.parametrize("event", ALL)
@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        ({"error": {"code": 1000, "message": "custom", "temporary": True}}, ErrorCode(1000, "custom", temporary=True)),
        ({"error": {"code": 403, "message": "no"}}, ErrorCode(403, "no")),
        ({"error": {"code": 403}}, ErrorCode(403, "")),
        ({"error": {"code": 403, "message": None, "temporary": None}, "result": None}, ErrorCode(403, "")),
        ({"error": {"code": 4294967295, "message": "as is"}}, ErrorCode(4294967295, "as is")),
        ({"disconnect": {"code": 4501, "reason": "unauthorized"}}, Disconnect(4501, "unauthorized")),
        ({"disconnect": {"code": 4501}}, Disconnect(4501, "force disconnect")),
        ({"disconnect": {"code": 3012, "reason": None}}, Disconnect(3012, "no pong")),
        # What centrifuge-js would take for something else, or a Close frame can't hold (protocol.md 1.2).
        ({"disconnect": {"code": 4501, "reason": '{"reconnect":true}'}}, Disconnect(4501, "force disconnect")),
        ({"disconnect": {"code": 4501, "reason": "x" * 124}}, Disconnect(4501, "force disconnect")),
        ({"disconnect": {"code": 4501, "reason": "a"}, "error": {"code": 1}, "result": {}}, Disconnect(4501, "a")),
        ({"error": {"code": 403, "message": "no"}, "result": {}}, ErrorCode(403, "no")),
    ],
)
def test_an_error_or_a_disconnect_is_told_as_it_is(event: str, answer: Any, meaning: ErrorCode | Disconnect) -> None:
    assert read(event, answer) == meaning


@pytest.mark.parametrize("event", ["connect", "refresh"])
@pytest.mark.parametrize("answer", [{}, {"result": None}, {"results": {}}, {"error": None, "disconnect": None}])
def test_no_result_has_a_meaning_of_its_own_where_somebody_wants_to_stay_or_come_in(event: str, answer: Any) -> None:
    assert read(event, answer) is None


@pytest.mark.parametrize("event", ["subscribe", "publish", "rpc"])
@pytest.mark.parametrize("answer", [{}, {"result": None}, {"status": "ok"}])
def test_no_result_allows_nothing(event: str, answer: Any) -> None:
    assert refusal(event, answer) == "it has no result, error or disconnect"


@pytest.mark.parametrize("event", ALL)
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "no answer to this event"),
        (b"<html>It works!</html>", "no answer to this event"),
        (b"[]", "no answer to this event"),
        (b"null", "no answer to this event"),
        (b'{"result":{}}{"result":{}}', "no answer to this event"),
        (b'{"result":[]}', "no answer to this event"),
        (b'{"result":{"info":"\xff"}}', "it is not UTF-8"),
        ({"error": {"message": "no code"}}, "its error has no code"),
        ({"error": {"code": -1}}, "no answer to this event"),
        ({"error": {"code": "403"}}, "no answer to this event"),
        ({"disconnect": {"reason": "no code"}}, "disconnect.code is 0"),
        ({"disconnect": {"code": 403, "reason": "no"}}, "disconnect.code is 403"),
        (b'{"result":{"data":' + b"[" * 21 + b"]" * 21 + b"}}", "nested more than 16 deep"),
        (b'{"result":{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}}", "nested more than 16 deep"),
    ],
)
def test_anything_else_is_no_answer_and_the_reason_holds_nothing_of_it(event: str, answer: Any, reason: str) -> None:
    said = refusal(event, answer)
    assert reason in said
    assert "It works" not in said


@pytest.mark.parametrize(
    ("event", "result"),
    [
        ("connect", {"user": 56}),
        ("connect", {"channels": "news"}),
        ("connect", {"subs": {"news": 1}}),
        ("connect", {"expire_at": "tomorrow"}),
        ("connect", {"expire_at": 2**64}),
        ("connect", {"b64info": "?"}),
        ("connect", {"b64info": b64(b"no JSON")}),
        ("connect", {"b64data": "*"}),
        ("connect", {"subs": {"news": {"b64data": "*"}}}),
        ("refresh", {"expired": "yes"}),
        ("subscribe", {"override": {"presence": True}}),
        ("subscribe", {"b64info": b64(b"{")}),
        ("publish", {"tags": {"k": 1}}),
        ("publish", {"version": -1}),
        ("publish", {"version": 2**64}),
        ("publish", {"b64data": "="}),
        ("rpc", {"b64data": 5}),
    ],
)
def test_a_field_that_is_not_what_it_should_be_makes_the_answer_unusable(event: str, result: Any) -> None:
    assert refusal(event, {"result": result})


# Results.


def test_all_fields_of_a_connect_result() -> None:
    verdict = read(
        "connect",
        b"""{"result": {"user": "77", "expire_at": 1795195485, "info": {"nm" : "Bob"}, "data": {"hello":
        1.0}, "channels": ["plain", "news"], "meta": {"m": 1}, "unknown": 1,
        "subs": {"news": {"info": 1, "data": {"d": 2}, "expire_at": 1795195486, "cache_recover": true,
        "override": {"presence": {"value": true}, "force_recovery": {"value": false}}}, "more": null}}}""",
    )
    assert verdict == ConnectVerdict(
        Identity(
            user="77",
            info=Raw(b'{"nm" : "Bob"}'),
            expires_at_s=1795195485,
            grants=(
                Grant("plain"),
                Grant(
                    "news",
                    info=Raw(b"1"),
                    data=Raw(b'{"d": 2}'),
                    expires_at_s=1795195486,
                    overrides=Overrides(presence=True, force_recovery=False),
                    recovers_cache=True,
                ),
                Grant("more"),
            ),
            meta=Raw(b'{"m": 1}'),
        ),
        Raw(b'{"hello":        1.0}'),
    )


@pytest.mark.parametrize(
    "result",
    [{}, dict.fromkeys(("user", "expire_at", "info", "b64info", "data", "b64data", "channels", "subs", "meta"))],
    ids=["absent", "null"],
)
def test_a_connect_result_without_anything_is_an_anonymous_client(result: Any) -> None:
    assert read("connect", {"result": result}) == ConnectVerdict(Identity())


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        ({}, RefreshVerdict()),
        (dict.fromkeys(("expired", "expire_at", "info", "b64info", "meta")), RefreshVerdict()),
        ({"expired": True}, RefreshVerdict(is_expired=True)),
        (
            {"expire_at": 1565436268, "info": {"a": 1}, "meta": [2]},
            RefreshVerdict(expires_at_s=1565436268, info=Raw(b'{"a": 1}'), meta=Raw(b"[2]")),
        ),
        ({"info": 1, "b64info": b64(b'{"b":\n2}')}, RefreshVerdict(info=Raw(b'{"b":2}'))),
    ],
)
def test_a_refresh_result(result: Any, verdict: RefreshVerdict) -> None:
    assert read("refresh", {"result": result}) == verdict


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        ({}, Grant("")),
        (dict.fromkeys(("expire_at", "info", "b64info", "data", "b64data", "override")), Grant("")),
        (
            {"info": {"role": "admin"}, "data": [1], "expire_at": 5, "override": {"join_leave": {"value": True}}},
            Grant("", Raw(b'{"role": "admin"}'), Raw(b"[1]"), 5, Overrides(join_leave=True)),
        ),
        ({"b64data": b64(b"\x00\n\xff"), "data": 1}, Grant("", data=Raw(b"\x00\n\xff"))),
        ({"override": {"presence": None, "join_leave": {}}}, Grant("", overrides=Overrides(join_leave=False))),
    ],
)
def test_a_subscribe_result(result: Any, verdict: Grant) -> None:
    assert read("subscribe", {"result": result}) == verdict


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        ({}, PublishVerdict()),
        (
            dict.fromkeys(
                ("data", "b64data", "skip_history", "tags", "idempotency_key", "delta", "version", "version_epoch")
            ),
            PublishVerdict(),
        ),
        (
            {
                "data": {"a": 1},
                "skip_history": True,
                "tags": {"k": "v"},
                "idempotency_key": "once",
                "delta": True,
                "version": 2**64 - 1,
                "version_epoch": "e",
            },
            PublishVerdict(
                Raw(b'{"a": 1}'),
                tags={"k": "v"},
                skips_history=True,
                idempotency_key="once",
                version=2**64 - 1,
                version_epoch="e",
                is_patchable=True,
            ),
        ),
        ({"b64data": b64(b"\x00\xff")}, PublishVerdict(Raw(b"\x00\xff"))),
    ],
)
def test_a_publish_result(result: Any, verdict: PublishVerdict) -> None:
    assert read("publish", {"result": result}) == verdict


@pytest.mark.parametrize(
    ("answer", "data"),
    [
        (b'{"result":{}}', b""),
        (b'{"result":{"data":{"answer": "2019" , "n":1.0}}}', b'{"answer": "2019" , "n":1.0}'),
        (b'{"result":{"data":null}}', b"null"),
        (b'{"result":{"data":[1,\r\n 2]}}', b"[1, 2]"),
        (b'{"result":{"b64data":"AP8="}}', b"\x00\xff"),
        (b'{"result":{"data":"\\ud83d cut"}}', b'"\\ufffd cut"'),
        ('{"result":{"data":"é€😀"}}'.encode(), '"é€😀"'.encode()),
        (b'\n {"result" : {"data" : 1}}\r\n', b"1"),
    ],
)
def test_an_rpc_result_is_its_text_on_one_line(answer: bytes, data: bytes) -> None:
    assert plain(read("rpc", answer)) == data
