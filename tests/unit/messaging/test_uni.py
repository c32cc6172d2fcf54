"""Clients that only listen: they say how they connect, and are told all else."""

import asyncio
from typing import Any

import pytest

from gateway.auth.tokens import TokenRefusedError
from gateway.broker.contract import BrokerError
from gateway.config import load
from gateway.messaging.port import Terms
from gateway.messaging.uni import LISTENING, LISTENING_ON_WEBSOCKET
from gateway.protocol import codes
from tests.support.conversations import ANONYMOUS, Client, House, ManualBroker, at, house, token

STREAM = {
    "name": "st",
    "history_size": 10,
    "history_ttl": "1h",
    "force_recovery": True,
    "join_leave": True,
    "force_push_join_leave": True,
    "presence": True,
    "allow_subscribe_for_client": True,
    "allow_publish_for_client": True,
}
STREAMS = {"channel": {"namespaces": [STREAM, {"name": "closed"}]}}
TERMS = [LISTENING, LISTENING_ON_WEBSOCKET]


async def connected(node: House, user: str = "42", terms: Terms = LISTENING, **claims: Any) -> Client:
    client = node.open_uni(terms)
    told, *_ = await client.ask({"token": token(user, **claims)})
    assert told["connect"]["client"] == client.id
    return client


def goodbye(code: int, reason: str) -> dict[str, Any]:
    return {"disconnect": {"code": code, "reason": reason}}


async def test_it_is_told_who_it_is_how_often_it_is_pinged_and_a_secret_but_no_node() -> None:
    async with house() as node:
        client = node.open_uni()
        [told] = await client.ask({"token": token("42"), "name": "x"})
        session = client.conversation.session.session_id
        assert told == {"connect": {"client": client.id, "version": "v", "ping": 25, "session": session}}
        assert session not in {"", client.id}


async def test_subscriptions_come_from_the_token_and_from_what_it_asks_for_and_may() -> None:
    async with house(STREAMS) as node:
        client = node.open_uni()
        request = {"token": token("42", channels=["st:a", "plain"]), "subs": {"st:b": {}, "closed:x": {}}}
        told, *joins = await client.ask(request)
        assert set(told["connect"]["subs"]) == {"st:a", "plain", "st:b"}
        info = {"user": "42", "client": client.id}
        assert joins == [{"channel": f"st:{each}", "join": {"info": info}} for each in "ab"]
        node.publish("plain", b'{"n": 1}')
        await node.settle()
        assert client.take() == ['{"channel":"plain","pub":{"data":{"n": 1}}}']


async def test_it_recovers_what_it_missed() -> None:
    async with house(STREAMS) as node:
        publisher = await node.connect("7")
        for number in (1, 2):
            await publisher.ask({"id": number + 1, "publish": {"channel": "st:a", "data": number}})
        client = node.open_uni()
        told, _ = await client.ask({"token": token("42"), "subs": {"st:a": {"recover": True, "offset": 1}}})
        result = told["connect"]["subs"]["st:a"]
        assert (result["recovered"], [each["data"] for each in result["publications"]]) == (True, [2])


@pytest.mark.parametrize("terms", TERMS, ids=["stream", "WebSocket"])
async def test_pings_go_out_in_both_ways_and_only_a_socket_has_to_answer(terms: Terms) -> None:
    async with house() as node:
        client = await connected(node, terms=terms)
        await node.advance(13)
        assert (client.take(), client.transport.pings) == (["{}"], 1)
        client.conversation.frame_pong()
        client.conversation.frame_pong()
        await node.advance(25)
        assert (client.take(), client.transport.pings) == (["{}"], 2)
        await node.advance(9)
        if terms.expects_pongs:
            assert client.take_values() == [goodbye(3012, "no pong")]
            assert client.closing == (3012, "no pong")
        else:
            await node.advance(100)
            assert client.closing is None


@pytest.mark.parametrize("said", ["no JSON", '{"id":1,"connect":{"token":"x"}}{', "[]"])
async def test_what_is_no_request_is_a_bad_one(said: str) -> None:
    async with house() as node:
        client = node.open_uni()
        client.send(said)
        assert client.take_values() == [goodbye(3501, "bad request")]


async def test_whatever_comes_after_the_request_is_ignored_and_counted() -> None:
    async with house() as node:
        client = node.open_uni(LISTENING_ON_WEBSOCKET)
        client.send({"token": token("42")})
        client.send("no JSON at all")
        client.send({"token": "another"})
        await node.settle()
        assert [set(each) for each in client.take_values()] == [{"connect"}]
        assert client.conversation.traffic.messages_in == 3
        client.send({"id": 2, "subscribe": {"channel": "a"}})
        assert client.take() == []


async def test_who_says_nothing_is_stale() -> None:
    async with house() as node:
        client = node.open_uni(LISTENING_ON_WEBSOCKET)
        await node.advance(11)
        assert client.take_values() == [goodbye(3502, "stale")]
        assert client.closing == (3502, "stale")


async def refused_with(node: House, error: codes.ErrorCode) -> tuple[int, str] | None:
    """Return how a client ends whose connect is answered with *error*."""

    async def refuse(*_: Any, **__: Any) -> Any:
        raise TokenRefusedError(error, "cause")

    object.__setattr__(node.services.connection_tokens, "connection", refuse)
    client = node.open_uni()
    client.send({"token": "x"})
    await node.settle()
    [told] = client.take_values()
    assert client.closing is not None
    assert told == goodbye(*client.closing)
    return client.closing


@pytest.mark.parametrize("error", codes.ERRORS, ids=lambda error: str(error.code))
async def test_an_error_becomes_a_disconnect(error: codes.ErrorCode) -> None:
    known = {
        109: (3005, "connection expired"),
        110: (3005, "connection expired"),
        111: (3013, "too many requests"),
        103: (3507, "permission denied"),
    }
    async with house() as node:
        assert await refused_with(node, error) == known.get(error.code, (3004, "internal server error"))
        assert node.counts.errors == {("connect", error.code): 1}


async def test_the_configuration_may_say_what_errors_become() -> None:
    pairs = [(103, 4903, "not yours"), (1000, 4000, "x")]
    transforms = [{"code": code, "to": {"code": to, "reason": reason}} for code, to, reason in pairs]
    mapping = {"client": {"connect_code_to_unidirectional_disconnect": {"enabled": True, "transforms": transforms}}}
    async with house(mapping) as node:
        assert await refused_with(node, codes.PERMISSION_DENIED) == (4903, "not yours")
        assert await refused_with(node, codes.ErrorCode(1000, "custom")) == (4000, "x")
        assert await refused_with(node, codes.EXPIRED) == (3005, "connection expired")
        node.reload({"client": {"connect_code_to_unidirectional_disconnect": {"enabled": False}}})
        assert await refused_with(node, codes.PERMISSION_DENIED) == (3507, "permission denied")


@pytest.mark.parametrize("reason", ["", "x" * 124, "{}", "1", '"x"', "null"])
def test_a_reason_that_sdks_would_take_for_something_else_is_refused(reason: str) -> None:
    transforms = [{"code": 103, "to": {"code": 4903, "reason": reason}}]
    with pytest.raises(Exception, match=r"transforms.0.to.reason = "):
        load(base={"client": {"connect_code_to_unidirectional_disconnect": {"transforms": transforms}}})


async def test_tokens_that_do_not_do_and_a_broker_that_is_gone_are_told_as_to_everybody() -> None:
    async with house(broker=ManualBroker("subscribe")) as node:
        for request, told in (
            ({}, goodbye(3501, "bad request")),
            ({"token": "a.b.c"}, goodbye(3500, "invalid token")),
            ({"token": token("42", exp=at(-1))}, goodbye(3005, "connection expired")),
            ({"token": token("42", channels=["nope:x"])}, goodbye(3004, "internal server error")),
        ):
            assert await node.open_uni().ask(request) == [told]
        client = node.open_uni()
        assert await client.ask({"token": token("42", channels=["a"])}) == []
        node.broker.settle(BrokerError("gone"))  # type: ignore[attr-defined]
        await node.settle()
        assert client.take_values() == [goodbye(3004, "internal server error")]


async def test_what_is_done_to_it_is_pushed() -> None:
    async with house(STREAMS) as node:
        client = await connected(node, channels=["plain"])
        client.conversation.unsubscribe("plain", codes.SERVER_UNSUBSCRIBE)
        told = {"channel": "plain", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}
        assert client.take_values() == [told]
        client.conversation.disconnect(codes.FORCE_DISCONNECT)
        assert client.take_values() == [goodbye(3503, "force disconnect")]
        assert client.closing == (3503, "force disconnect")


async def test_a_lost_position_ends_it_since_it_can_not_subscribe_again() -> None:
    async with house(STREAMS) as node:
        client = await connected(node, channels=["st:a"])
        client.take()
        client.transport.tell_gap("st:a")
        await asyncio.sleep(0)
        assert client.take_values() == [goodbye(3010, "insufficient state")]


async def test_its_token_runs_out_and_ends_it_since_it_can_not_refresh_it() -> None:
    async with house() as node:
        client = await connected(node, exp=at(60))
        await node.advance(60 + 26)
        assert client.take_values()[-1] == goodbye(3005, "connection expired")


async def test_an_anonymous_client_need_not_say_anything() -> None:
    async with house(ANONYMOUS) as node:
        client = node.open_uni()
        client.send("")
        await node.settle()
        assert [set(each) for each in client.take_values()] == [{"connect"}]
