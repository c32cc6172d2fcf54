from typing import Any

import pytest

from gateway.client.endings import CLOSED_HERE, Ending, Fate, Kind
from gateway.client.errors import ClosedError, DisconnectedError, InvalidArgumentError, UnauthorizedError
from gateway.client.events import Connected, State
from gateway.client.plain_session import Gap, PlainEvent, PlainMessage, PlainSession, PlainSettings, Refused
from tests.unit.client.dialogue import no_token


class Call:
    def __init__(self, *, token: str = "", is_fetched: bool = False) -> None:
        self.items: list[PlainMessage | PlainEvent] = []
        source = no_token if is_fetched else None
        self.session = PlainSession(PlainSettings(), deliver=self.items.append, token=token, source=source)

    def connect(self) -> list[tuple[bytes, bool]]:
        self.session.connect(now_s=0.0)
        return list(self.session.frames())

    def say(self, frame: bytes, *, is_text: bool = True) -> None:
        self.session.receive(frame, is_text=is_text, now_s=0.0)


def connected() -> Call:
    call = Call()
    call.connect()
    call.items.clear()
    return call


def test_without_a_token_it_is_connected_once_it_has_the_connection() -> None:
    call = Call()
    assert call.connect() == []
    assert (call.session.state, call.items) == (State.CONNECTED, [Connected("")])


def test_with_a_token_it_is_connected_when_the_gateway_says_so() -> None:
    call = Call(token="t")
    assert call.connect() == [(b'{"token":"t"}', True)]
    assert call.session.state is not State.CONNECTED
    call.say(b'{"status":"authenticated","user":"ann"}')
    assert (call.session.state, call.session.user, call.items) == (State.CONNECTED, "ann", [Connected("ann")])


def test_where_strangers_may_listen_messages_may_come_before_the_answer() -> None:
    call = Call(token="t")
    call.connect()
    call.say(b"[1]")
    call.say(b'{"status":"fine"}')
    call.say(b'{"status":"authenticated","user":"ann"}')
    first, second = PlainMessage(b"[1]", is_text=True), PlainMessage(b'{"status":"fine"}', is_text=True)
    assert call.items == [first, second, Connected("ann")]


@pytest.mark.parametrize(
    ("frame", "is_text", "expected"),
    [
        (b'{"a": 1}', True, PlainMessage(b'{"a": 1}', is_text=True)),
        (b"any text", True, PlainMessage(b"any text", is_text=True)),
        (b"\x00\xff", False, PlainMessage(b"\x00\xff", is_text=False)),
        (b'{"status":"gap"}', True, Gap()),
        (b'{"status":"gap"}', False, PlainMessage(b'{"status":"gap"}', is_text=False)),
        (b'{"status": "gap"}', True, PlainMessage(b'{"status": "gap"}', is_text=True)),
        (b'{"error":{"code":107,"message":"bad request"}}', True, Refused(107, "bad request")),
        (b'{"error":{"text":"ours"}}', True, PlainMessage(b'{"error":{"text":"ours"}}', is_text=True)),
        (b'{"error":{"code":1},"more":2}', True, PlainMessage(b'{"error":{"code":1},"more":2}', is_text=True)),
        (b'{"status":"authenticated"}', True, PlainMessage(b'{"status":"authenticated"}', is_text=True)),
    ],
)
def test_what_comes_is_a_message_unless_the_gateway_speaks_for_itself(
    frame: bytes, expected: object, *, is_text: bool
) -> None:
    call = connected()
    call.say(frame, is_text=is_text)
    assert call.items == [expected]


def test_a_message_is_read_as_its_reader_wants() -> None:
    message = PlainMessage(b'{"a": "\xc3\xbc"}', is_text=True)
    assert (message.text, message.json()) == ('{"a": "ü"}', {"a": "ü"})


@pytest.mark.parametrize(
    ("ending", "fate"),
    [
        (Ending(Kind.CLOSE, "token missing", 1008), Fate.STOP),
        (Ending(Kind.CLOSE, "token invalid", 1008), Fate.STOP),
        (Ending(Kind.CLOSE, "token expired", 1008), Fate.STOP),
        (Ending(Kind.CLOSE, "unknown channel", 1008), Fate.STOP),
        (Ending(Kind.CLOSE, "server unsubscribe", 1000), Fate.STOP),
        (Ending(Kind.CLOSE, "too big", 1009), Fate.STOP),
        (Ending(Kind.CLOSE, "invalid UTF-8", 1007), Fate.STOP),
        (Ending(Kind.CLOSE, "shutdown", 1001), Fate.RETRY),
        (Ending(Kind.CLOSE, "internal server error", 1011), Fate.RETRY),
        (Ending(Kind.CLOSE, "slow", 1013), Fate.RETRY),
        (Ending(Kind.CLOSE, "no reason given", 1005), Fate.RETRY),
        (Ending(Kind.NETWORK, "reset"), Fate.RETRY),
        (Ending(Kind.HTTP, "no upgrade", 503), Fate.RETRY),
        (Ending(Kind.HTTP, "no upgrade", 404), Fate.STOP),
    ],
    ids=str,
)
def test_it_comes_back_unless_the_gateway_or_the_user_does_not_want_it(ending: Ending, fate: Fate) -> None:
    call = connected()
    call.session.outgoing.append((b"1", True))
    assert call.session.lost(ending) is fate
    assert list(call.session.frames()) == []


def test_an_expired_token_is_replaced_where_somebody_can() -> None:
    call = Call(token="old", is_fetched=True)
    call.connect()
    assert call.session.lost(Ending(Kind.CLOSE, "token expired", 1008)) is Fate.RETRY_WITH_NEW_TOKEN
    assert call.session.token == ""


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (Ending(Kind.CLOSE, "token invalid", 1008), UnauthorizedError),
        (Ending(Kind.CLOSE, "server unsubscribe", 1000), DisconnectedError),
        (CLOSED_HERE, ClosedError),
    ],
)
def test_the_error_at_the_end_says_why(ending: Ending, kind: type[Exception]) -> None:
    call = connected()
    call.session.close(ending)
    assert type(call.session.error()) is kind
    assert ending.reason in str(call.session.error())


def test_a_long_silence_is_broken_by_a_ping_and_a_longer_one_is_the_end() -> None:
    call = connected()
    agenda = call.session.agenda
    assert agenda.wake_at_s == 30.0
    call.session.tick(now_s=30.0, heard_at_s=10.0)
    assert (agenda.wants_ping, agenda.wake_at_s) == (False, 40.0)
    call.session.tick(now_s=40.0, heard_at_s=10.0)
    assert (agenda.wants_ping, agenda.wake_at_s, agenda.ending) == (True, 50.0, None)
    call.session.tick(now_s=50.0, heard_at_s=10.0)
    assert agenda.ending == Ending(Kind.NETWORK, "no answer to a ping")


@pytest.mark.parametrize("wrong", [{"ping_after_s": 0}, {"buffer_max_bytes": 0}, {"offline_wait_s": -1}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        PlainSettings(**wrong)
