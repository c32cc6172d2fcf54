import random
from typing import Any

import pytest
from msgspec import Raw

from gateway.client.endings import CLOSED_HERE, Ending, Fate, Kind
from gateway.client.errors import (
    ClosedError,
    DisconnectedError,
    InvalidArgumentError,
    ReplyTimeoutError,
    UnansweredError,
    UnauthorizedError,
)
from gateway.client.events import Connected, MessageReceived, State
from gateway.client.settings import ClientSettings
from gateway.protocol.client_codec import ServerMessage
from gateway.protocol.messages import Command, PublishRequest
from tests.unit.client.dialogue import PING_S, Dialogue, no_token

RESET = Ending(Kind.NETWORK, "reset", 1006)


def publish(data: bytes = b"1") -> Command:
    return Command(publish=PublishRequest("news", Raw(data)))


def test_it_greets_with_name_version_data_and_token() -> None:
    dialogue = Dialogue(ClientSettings(name="app", version="2"), token="t")
    (greeting,) = dialogue.connect(data={"hello": 1})
    assert greeting == {"id": 1, "connect": {"token": "t", "name": "app", "version": "2"}}
    assert dialogue.session.state is State.CONNECTED
    assert dialogue.session.client_id == "c1"
    (event,) = dialogue.events
    assert isinstance(event, Connected)
    assert (event.client, bytes(event.data)) == ("c1", b'{"hello": 1}')


@pytest.mark.parametrize(
    ("error", "source", "fate"),
    [
        ({"code": 100, "message": "internal server error", "temporary": True}, False, Fate.RETRY),
        ({"code": 12}, False, Fate.RETRY),
        ({"code": 109, "message": "token expired"}, True, Fate.RETRY_WITH_NEW_TOKEN),
        ({"code": 109, "message": "token expired"}, False, Fate.STOP),
        ({"code": 110, "message": "expired"}, True, Fate.STOP),
        ({"code": 102, "message": "unknown channel"}, True, Fate.STOP),
    ],
)
def test_an_error_to_connect_ends_the_connection_and_maybe_the_client(
    error: dict[str, Any], *, source: bool, fate: Fate
) -> None:
    dialogue = Dialogue(token="old", source=no_token if source else None)
    dialogue.session.connect(now_s=0)
    dialogue.sent()
    dialogue.say({"id": 1, "error": error})
    ending = Ending(Kind.ERROR, error.get("message", ""), error["code"], is_temporary=error.get("temporary", False))
    assert dialogue.session.agenda.ending == ending
    assert dialogue.lose(ending) is fate
    assert dialogue.session.token == ("" if fate is Fate.RETRY_WITH_NEW_TOKEN else "old")


# Pings (protocol.md 3.2).


def test_each_ping_is_answered() -> None:
    dialogue = Dialogue()
    dialogue.connect()
    dialogue.say({}, {})
    assert dialogue.sent() == [{}, {}]


def test_pings_are_not_answered_where_the_server_wants_no_pong() -> None:
    dialogue = Dialogue()
    dialogue.connect(pong=False)
    dialogue.say({})
    assert dialogue.sent() == []


def test_silence_for_ping_and_delay_ends_the_connection() -> None:
    dialogue = Dialogue(ClientSettings(max_ping_delay_s=10))
    dialogue.connect()
    assert dialogue.session.agenda.wake_at_s <= dialogue.now_s + PING_S + 10
    dialogue.pass_time(PING_S + 9.9)
    assert dialogue.session.agenda.ending is None
    dialogue.pass_time(0.1)
    assert dialogue.session.agenda.ending == Ending(Kind.NETWORK, "no ping")
    assert dialogue.lose(Ending(Kind.NETWORK, "no ping")) is Fate.RETRY


def test_whatever_comes_restarts_the_time_for_the_ping() -> None:
    dialogue = Dialogue()
    dialogue.connect()
    for _ in range(5):
        dialogue.pass_time(PING_S + 9)
        assert dialogue.session.agenda.ending is None
        dialogue.push("elsewhere", pub={"data": 1})
    assert dialogue.session.agenda.wake_at_s == dialogue.now_s + 1  # as reckoned at the last tick


def test_a_server_without_pings_may_be_silent() -> None:
    dialogue = Dialogue()
    dialogue.connect(ping=0)
    dialogue.pass_time(10_000)
    assert dialogue.session.agenda.ending is None


# Commands.


def test_a_command_has_its_reply() -> None:
    dialogue = Dialogue()
    dialogue.connect()
    dialogue.ask(publish())
    dialogue.answer("publish")
    (outcome,) = dialogue.outcomes
    assert isinstance(outcome, ServerMessage)
    assert outcome.publish is not None


def test_commands_of_a_client_that_is_not_connected_wait_and_then_go_behind_the_greeting() -> None:
    dialogue = Dialogue()
    dialogue.ask(publish())
    dialogue.join("news")
    assert dialogue.sent() == []
    sent = dialogue.connect()
    assert [max(each) for each in sent] == ["id", "subscribe", "publish"]
    assert [each["id"] for each in sent] == [1, 2, 3]


def test_a_client_that_does_not_wait_fails_at_once_while_offline() -> None:
    dialogue = Dialogue(ClientSettings(offline_wait_s=0))
    with pytest.raises(DisconnectedError, match="not connected"):
        dialogue.ask(publish())


def test_waiting_for_a_connection_has_an_end() -> None:
    dialogue = Dialogue(ClientSettings(offline_wait_s=3))
    dialogue.ask(publish())
    assert dialogue.session.agenda.wake_at_s == dialogue.now_s + 3
    dialogue.pass_time(3)
    assert [type(each) for each in dialogue.outcomes] == [DisconnectedError]
    assert [min(each) for each in dialogue.connect()] == ["connect"]


def test_a_lost_connection_leaves_a_publication_unknown_and_it_is_not_sent_again() -> None:
    dialogue = Dialogue()
    dialogue.connect()
    dialogue.ask(publish())
    dialogue.sent()
    assert dialogue.lose(RESET) is Fate.RETRY
    assert [type(each) for each in dialogue.outcomes] == [UnansweredError]
    assert len(dialogue.connect()) == 1


def test_a_reply_that_never_comes_is_a_timeout_and_the_connection_lives_on() -> None:
    dialogue = Dialogue(ClientSettings(reply_timeout_s=5))
    dialogue.connect()
    dialogue.ask(publish())
    dialogue.pass_time(5)
    assert [type(each) for each in dialogue.outcomes] == [ReplyTimeoutError]
    assert dialogue.session.agenda.ending is None


@pytest.mark.parametrize("method", ["connect", "subscribe", "refresh", "sub_refresh", "unsubscribe"])
def test_without_a_reply_to_what_matters_the_connection_is_no_good(method: str) -> None:
    dialogue = Dialogue(source=no_token, token="t")
    if method == "connect":
        dialogue.session.connect(now_s=dialogue.now_s)
    else:
        dialogue.connect()
        if method == "refresh":
            dialogue.session.take_token(None, "new", now_s=dialogue.now_s)
        else:
            membership, _ = dialogue.join("news", token="t", source=no_token)
            if method != "subscribe":
                dialogue.answer("subscribe")
            if method == "sub_refresh":
                dialogue.session.take_token(membership, "new", now_s=dialogue.now_s)
            if method == "unsubscribe":
                dialogue.session.leave(membership, now_s=dialogue.now_s)
    assert [method in each for each in dialogue.sent()] == [True]
    dialogue.pass_time(5)
    assert dialogue.session.agenda.ending == Ending(Kind.NETWORK, f"no reply to {method}")


@pytest.mark.parametrize("frame", [b"no json", b'{"id":"1"}', b"[]", b'{"push":{"pub":1}}'])
def test_what_is_no_message_ends_the_connection(frame: bytes) -> None:
    dialogue = Dialogue()
    dialogue.connect()
    dialogue.session.receive(frame, is_text=True, now_s=0)
    ending = dialogue.session.agenda.ending
    assert ending is not None
    assert (ending.kind, ending.reason[:28]) == (Kind.NETWORK, "the server sent what is no m")


def test_messages_and_pushes_of_the_future_harm_nobody() -> None:
    dialogue = Dialogue()
    dialogue.connect()
    dialogue.say({"push": {"message": {"data": [1]}}}, {"push": {"channel": "x", "novelty": {}}}, {"id": 77, "new": {}})
    assert dialogue.session.agenda.ending is None
    (_, event) = dialogue.events
    assert isinstance(event, MessageReceived)
    assert bytes(event.data) == b"[1]"


# Tokens (protocol.md 3.7).


def test_a_connection_token_is_fetched_and_shown_when_the_old_one_ends() -> None:
    dialogue = Dialogue(token="old", source=no_token)
    dialogue.connect(expires=True, ttl=60)
    dialogue.pass_time(59)
    assert dialogue.session.agenda.wants_tokens == []
    dialogue.pass_time(1)
    assert dialogue.session.agenda.wants_tokens == [None]
    dialogue.session.take_token(None, "new", now_s=dialogue.now_s)
    dialogue.answer("refresh", {"expires": True, "ttl": 30})
    dialogue.session.agenda.wants_tokens.clear()
    dialogue.pass_time(30)
    assert dialogue.session.agenda.wants_tokens == [None]
    assert dialogue.session.token == "new"


@pytest.mark.parametrize("reply", [{}, {"expires": False}])
def test_a_token_that_does_not_end_is_not_fetched_again(reply: dict[str, Any]) -> None:
    dialogue = Dialogue(token="t", source=no_token)
    dialogue.connect(expires=True, ttl=60)
    dialogue.pass_time(60)
    dialogue.session.agenda.wants_tokens.clear()
    dialogue.session.take_token(None, "eternal", now_s=dialogue.now_s)
    dialogue.answer("refresh", reply)
    dialogue.say({})
    dialogue.pass_time(30)
    assert dialogue.session.agenda.wants_tokens == []


def test_a_refresh_that_fails_for_now_is_repeated_in_5_to_20_seconds() -> None:
    dialogue = Dialogue(token="t", source=no_token)
    dialogue.connect(expires=True, ttl=60)
    after_s = random.Random(7).uniform(5, 20)
    dialogue.session.take_token(None, "new", now_s=dialogue.now_s)
    dialogue.answer("refresh", code=100, message="internal server error", temporary=True)
    dialogue.pass_time(after_s - 0.01)
    assert dialogue.session.agenda.wants_tokens == []
    dialogue.pass_time(0.02)
    assert dialogue.session.agenda.wants_tokens == [None]


def test_a_token_function_that_fails_for_now_is_called_again_in_5_to_20_seconds() -> None:
    dialogue = Dialogue(token="t", source=no_token)
    dialogue.connect(expires=True, ttl=60)
    dialogue.session.miss_token(None, OSError("down"), now_s=dialogue.now_s)
    dialogue.pass_time(4.9)
    assert dialogue.session.agenda.wants_tokens == []
    dialogue.pass_time(15.1)
    assert dialogue.session.agenda.wants_tokens == [None]


def test_a_refresh_that_is_refused_ends_the_client() -> None:
    dialogue = Dialogue(token="t", source=no_token)
    dialogue.connect(expires=True, ttl=60)
    dialogue.session.take_token(None, "new", now_s=dialogue.now_s)
    dialogue.answer("refresh", code=103, message="permission denied")
    ending = dialogue.session.agenda.ending
    assert ending == Ending(Kind.ERROR, "permission denied", 103)
    assert dialogue.lose(ending) is Fate.STOP


def test_a_user_without_a_token_is_unauthorized_for_good() -> None:
    dialogue = Dialogue(token="t", source=no_token)
    dialogue.connect(expires=True, ttl=60)
    dialogue.session.miss_token(None, UnauthorizedError("logged out", to_do="log in"), now_s=dialogue.now_s)
    ending = dialogue.session.agenda.ending
    assert ending is not None
    assert dialogue.lose(ending) is Fate.STOP
    assert isinstance(dialogue.session.error(), UnauthorizedError)


@pytest.mark.parametrize(("code", "token"), [(3005, ""), (3014, ""), (3001, "t"), (3012, "t")])
def test_some_endings_cost_the_token(code: int, token: str) -> None:
    dialogue = Dialogue(token="t", source=no_token)
    dialogue.connect()
    dialogue.lose(Ending(Kind.CLOSE, "x", code))
    assert dialogue.session.token == token


# The end.


def test_at_the_end_everybody_is_told_and_nothing_begins_any_more() -> None:
    dialogue = Dialogue()
    dialogue.connect()
    _, notes = dialogue.subscribed("news")
    dialogue.ask(publish())
    dialogue.sent()
    dialogue.session.close(CLOSED_HERE)
    dialogue.session.close(RESET)
    assert dialogue.session.state is State.CLOSED
    assert [type(each) for each in dialogue.outcomes] == [UnansweredError]
    assert [type(each) for each in notes.errors] == [ClosedError]
    with pytest.raises(ClosedError):
        dialogue.ask(publish())
    with pytest.raises(ClosedError):
        dialogue.join("other")


def test_a_publication_above_the_limit_is_refused_at_once() -> None:
    dialogue = Dialogue(ClientSettings(send_max_bytes=100))
    with pytest.raises(InvalidArgumentError, match="100 may be sent"):
        dialogue.ask(publish(b"1" * 100))
