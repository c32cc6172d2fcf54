"""The plain protocol: first a token, then messages as they are."""

import asyncio
from typing import Any

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from gateway.broker.contract import BrokerError
from gateway.messaging.handlers import Request
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect
from gateway.protocol.framing import PIECE_BYTES
from tests.support.conversations import ANONYMOUS, INSECURE, Client, House, ManualBroker, at, house, token
from tests.support.waiting import until

POLICY = 1008
BAD_REQUEST = '{"error":{"code":107,"message":"bad request"}}'
DENIED = '{"error":{"code":103,"message":"permission denied"}}'
INTERNAL = '{"error":{"code":100,"message":"internal server error"}}'
TOO_MANY = '{"error":{"code":111,"message":"too many requests"}}'


async def say(client: Client, *messages: str | bytes) -> list[str | bytes]:
    """Send each of *messages* and return all that was written then."""
    for message in messages:
        client.send(message)
    await client.house.settle()
    return client.take()


def parse_frames(data: bytes) -> list[Frame]:
    """Read frames as a client of the websockets library does."""
    reader = StreamReader()
    reader.feed_data(data)
    frames = []
    while reader.buffer:
        parsing = Frame.parse(reader.read_exact, mask=False)
        with pytest.raises(StopIteration) as parsed:
            next(parsing)
        frames.append(parsed.value.value)
    return frames


# The first message.


async def test_the_first_message_authenticates_and_is_answered() -> None:
    async with house() as node:
        client = node.open_plain()
        assert await say(client, f'{{"token": "{token("42")}", "more": 1}}') == [
            '{"status":"authenticated","user":"42"}'
        ]
        assert client.channels == {"lobby"}
        assert client.closing is None


async def test_an_anonymous_token_authenticates_too() -> None:
    async with house() as node:
        client = node.open_plain("open:a")
        assert await say(client, f'{{"token":"{token("")}"}}') == ['{"status":"authenticated","user":""}']


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ("hello", "token missing"),
        ("", "token missing"),
        ("[1]", "token missing"),
        ('"token"', "token missing"),
        ("{}", "token missing"),
        ('{"data": 1}', "token missing"),
        ('{"token": null}', "token missing"),
        (b'{"token": "x"}', "token missing"),
        ("[" * 40_000, "token missing"),
        ('{"token": 5}', "token invalid"),
        ('{"token": {"a": 1}}', "token invalid"),
        ('{"token": "a.b.c"}', "token invalid"),
        (f'{{"token": "{token("42", key="x" * 32)}"}}', "token invalid"),
        (f'{{"token": "{token(42)}"}}', "token invalid"),
        (f'{{"token": "{token("42", channel="lobby")}"}}', "token invalid"),
        (f'{{"token": "{token("42", exp=at(0))}"}}', "token expired"),
        (f'{{"token": "{token("42", expire_at=at(-1))}"}}', "token expired"),
    ],
)
async def test_a_first_message_that_is_no_good_token_ends_the_connection(first: str | bytes, reason: str) -> None:
    async with house() as node:
        client = node.open_plain()
        assert await say(client, first) == []
        assert client.closing == (POLICY, reason)


async def test_a_client_that_says_nothing_is_dropped_at_the_deadline() -> None:
    async with house() as node:
        client = node.open_plain()
        await node.advance(9.9)
        assert client.closing is None
        await node.advance(0.3)
        assert client.closing == (1013, "authentication timeout")


@pytest.mark.parametrize(
    ("channel", "reason"),
    [
        ("nope:a", "unknown channel"),
        ("closed:a", "permission denied"),
        ("$a", "permission denied"),
        ("limited:room#43", "permission denied"),
        ("regex:ABC", "bad request"),
        ("é", "bad request"),
        ("x" * 256, "bad request"),
    ],
)
async def test_a_channel_that_may_not_be_ends_the_connection_with_the_reason(channel: str, reason: str) -> None:
    async with house() as node:
        client = node.open_plain(channel)
        assert await say(client, f'{{"token":"{token("42")}"}}') == []
        assert client.closing == (POLICY, reason)
        assert len(node.services.interest) == 0


@pytest.mark.parametrize("channel", ["closed:a", "limited:room#42", "regex:abc"])
async def test_a_channel_that_the_token_or_the_options_allow_is_joined(channel: str) -> None:
    async with house() as node:
        client = await node.connect_plain("42", channel, channels=["closed:a"])
        assert client.channels == {channel}


async def test_an_anonymous_token_is_refused_where_they_are_disallowed() -> None:
    async with house({"client": {"disallow_anonymous_connection_tokens": True}}) as node:
        client = node.open_plain()
        assert await say(client, f'{{"token":"{token("")}"}}') == []
        assert client.closing == (POLICY, "permission denied")


async def test_what_is_sent_before_the_token_is_checked_waits_its_turn() -> None:
    async with house(makes_verifier_slow=True) as node:
        client = node.open_plain()
        assert await say(client, f'{{"token":"{token("42")}"}}', '"early"', "no JSON") == []
        node.verifier.gate.set()
        await node.settle()
        # Answers are written when they are made, what was published at the end of the turn.
        assert client.take() == ['{"status":"authenticated","user":"42"}', BAD_REQUEST, '"early"']


async def test_a_client_that_goes_while_its_channel_is_confirmed_leaves_nothing_behind() -> None:
    broker = ManualBroker("subscribe")
    async with house(broker=broker) as node:
        client = node.open_plain()
        await say(client, f'{{"token":"{token("42")}"}}')
        client.go()
        broker.settle()
        await node.settle()
        assert broker.calls == [("subscribe", "lobby"), ("unsubscribe", "lobby")]


async def test_a_broker_that_can_not_subscribe_is_no_fault_of_the_client() -> None:
    # 1008 would tell it never to come back.
    broker = ManualBroker("subscribe")
    async with house(broker=broker) as node:
        client = node.open_plain()
        await say(client, f'{{"token":"{token("42")}"}}')
        broker.settle(BrokerError("down"))
        await node.settle()
        assert client.closing == (1011, "internal server error")


async def test_a_user_over_the_connection_limit_is_sent_away() -> None:
    async with house({"client": {"user_connection_limit": 1}}) as node:
        await node.connect_plain("42")
        client = node.open_plain()
        assert await say(client, f'{{"token":"{token("42")}"}}') == []
        assert client.closing == (POLICY, "connection limit")


async def test_who_listens_anonymously_and_then_exceeds_a_user_limit_takes_nobody_else_along() -> None:
    broker = ManualBroker()
    async with house(ANONYMOUS, {"client": {"user_connection_limit": 1}}, broker=broker) as node:
        first = await node.connect_plain("42")
        client = node.open_plain()
        await node.settle()
        assert await say(client, f'{{"token":"{token("42")}"}}') == []
        assert client.closing == (POLICY, "connection limit")
        assert ("unsubscribe", "lobby") not in broker.calls
        node.publish("lobby", b"1")
        await node.settle()
        assert first.take() == ["1"]


# Anonymous clients.


async def test_an_anonymous_client_listens_at_once_and_what_it_says_first_is_published() -> None:
    async with house(ANONYMOUS) as node:
        listener, speaker = node.open_plain(), node.open_plain()
        await node.settle()
        node.publish("lobby", b'"news"')
        await node.settle()
        assert (listener.take(), speaker.take()) == (['"news"'], ['"news"'])
        assert await say(speaker, '{"data": 1}', '{"token": "later is data"}') == [
            '{"data": 1}',
            '{"token": "later is data"}',
        ]
        assert listener.take() == ['{"data": 1}', '{"token": "later is data"}']


async def test_an_anonymous_client_is_not_told_that_it_is_authenticated_and_never_stale() -> None:
    async with house(ANONYMOUS) as node:
        client = node.open_plain()
        await node.settle()
        assert client.take() == []
        await node.advance(11)
        assert client.closing is None


async def test_an_anonymous_client_may_show_a_token_as_its_first_message() -> None:
    async with house(ANONYMOUS) as node:
        client = node.open_plain("users:a")
        await node.settle()
        assert client.channels == set()
        assert await say(client, f'{{"token":"{token("42")}"}}', "1") == ['{"status":"authenticated","user":"42"}', "1"]
        listener = node.open_plain()
        await node.settle()
        assert await say(listener, f'{{"token":"{token("43")}"}}', "1") == [
            '{"status":"authenticated","user":"43"}',
            "1",
        ]
        assert len(listener.conversation.session.subscriptions) == 1


@pytest.mark.parametrize(
    ("first", "reason"), [('{"data":1}', "token missing"), ('{"token":"x"}', "token invalid"), ("x", "token missing")]
)
async def test_a_channel_closed_to_anonymous_clients_still_wants_a_token(first: str, reason: str) -> None:
    async with house(ANONYMOUS) as node:
        client = node.open_plain("users:a")
        assert await say(client, first) == []
        assert client.closing == (POLICY, reason)


async def test_a_channel_closed_to_anonymous_clients_waits_for_a_token_only_so_long() -> None:
    async with house(ANONYMOUS) as node:
        client = node.open_plain("users:a")
        await node.advance(10.2)
        assert client.closing == (1013, "authentication timeout")


@pytest.mark.parametrize(("channel", "reason"), [("nope:a", "unknown channel"), ("é", "bad request")])
async def test_an_impossible_channel_ends_an_anonymous_connection_at_once(channel: str, reason: str) -> None:
    async with house(ANONYMOUS) as node:
        client = node.open_plain(channel)
        await node.settle()
        assert client.closing == (POLICY, reason)


async def test_an_insecure_server_lets_anybody_listen_and_publish_but_not_in_private_channels() -> None:
    async with house(INSECURE) as node:
        client, private = node.open_plain("closed:a"), node.open_plain("$a")
        assert await say(client, "1") == ["1"]
        assert await say(private, "1") == []
        assert private.closing == (POLICY, "token missing")


# Messages.


@pytest.mark.parametrize(
    "message", ['{"t": "<b>&é"  , "n":1.0}', "1", "null", '"x"', " [1 ,2]\n", '{"a":1,"a":2}', '"\\ud800"', "1e400"]
)
async def test_text_that_is_json_reaches_everybody_byte_for_byte(message: str) -> None:
    async with house() as node:
        client, other = await node.connect_plain("42"), await node.connect_plain("43")
        assert await say(client, message) == [message]
        assert other.take() == [message]


@pytest.mark.parametrize("message", ["hello", "", "{", "1 2", "{}\n{}", "'x'", "NaN", "[" * 200 + "]" * 200])
async def test_text_that_is_no_json_is_refused_and_the_connection_lives_on(message: str) -> None:
    async with house() as node:
        client, other = await node.connect_plain("42"), await node.connect_plain("43")
        assert await say(client, message, "1") == [BAD_REQUEST, "1"]
        assert other.take() == ["1"]
        assert client.closing is None


@pytest.mark.parametrize(
    ("channel", "message", "answers"),
    [
        ("object:a", '{"x":1}', ['{"x":1}']),
        ("object:a", "[1]", [BAD_REQUEST]),
        ("any:a", "1", ["1"]),
        ("any:a", "hello", [BAD_REQUEST]),
        ("any:a", b"\xff", [BAD_REQUEST]),
        ("lobby", b"1", [BAD_REQUEST]),
        ("binary:a", b"\x93NUMPY\xff", [b"\x93NUMPY\xff"]),
        ("binary:a", b"", [b""]),
        ("binary:a", "[1]", [b"[1]"]),
        ("binary:a", "hello", [BAD_REQUEST]),
        ("subscribers:a", "1", ["1"]),
        ("regex:abc", "1", [DENIED]),
        ("regex:abc", "hello", [BAD_REQUEST]),
        ("timed:a", '{"x":1}', ['{"x":1,"server_time":1800000000.0}']),
        ("timed:a", "[1]", ['{"data":[1],"server_time":1800000000.0}']),
    ],
)
async def test_what_a_channel_takes(channel: str, message: str | bytes, answers: list[str | bytes]) -> None:
    async with house() as node:
        client = await node.connect_plain("42", channel)
        assert await say(client, message) == answers
        assert client.closing is None


async def test_each_message_is_a_frame_of_its_own() -> None:
    async with house() as node:
        client = await node.connect_plain()
        client.transport.take_frames()
        client.send("1")
        client.send("2")
        await node.settle()
        assert client.transport.take_frames() == [["1", "2"]]


async def test_plain_clients_and_sdk_clients_share_channels() -> None:
    async with house() as node:
        plain, sdk = await node.connect_plain("42"), await node.connect("43", "lobby")
        await say(plain, '{"n": 1.0}')
        info = f'"info":{{"user":"42","client":"{plain.id}"}}'
        assert sdk.take() == [f'{{"push":{{"channel":"lobby","pub":{{"data":{{"n": 1.0}},{info}}}}}}}']
        await sdk.ask('{"id":3,"publish":{"channel":"lobby","data":{"m": 2.0}}}')
        assert plain.take() == ['{"m": 2.0}']


async def test_a_publish_that_the_broker_fails_is_answered_with_error_100() -> None:
    broker = ManualBroker("publish")
    async with house(broker=broker) as node:
        client = await node.connect_plain()
        assert await say(client, "1", "2") == []
        broker.settle(BrokerError("down"))
        broker.settle()
        await node.settle()
        assert client.take() == [INTERNAL, "2"]


async def test_a_publish_that_fails_after_its_client_has_gone_is_told_to_nobody() -> None:
    broker = ManualBroker("publish")
    async with house(broker=broker) as node:
        client = await node.connect_plain()
        await say(client, "1")
        client.go()
        broker.settle(BrokerError("down"))
        await node.settle()
        assert client.take() == []


# Handlers.


async def test_a_handler_answers_its_sender_alone_whatever_is_sent() -> None:
    async with house() as node:
        client, other = await node.connect_plain("42", "echo:a"), await node.connect_plain("43", "echo:a")
        assert await say(client, "no JSON", b"\xff\x00", "", b"") == ["no JSON", b"\xff\x00", "", b""]
        assert other.take() == []
        assert client.channels == set()


async def test_a_handler_learns_who_asks_what_and_where_and_may_be_silent() -> None:
    requests: list[Request] = []

    async def remember(request: Request) -> None:
        requests.append(request)

    async with house(handlers={"echo": remember}) as node:
        client = await node.connect_plain("42", "echo:a")
        assert await say(client, "é", b"\xff") == []
        assert requests == [Request("echo:a", "42", client.id, "é"), Request("echo:a", "42", client.id, b"\xff")]


async def test_messages_to_a_slow_handler_are_answered_in_order() -> None:
    proceed = asyncio.Event()

    async def slow(request: Request) -> str | bytes:
        if request.data == "first":
            await proceed.wait()
        return request.data

    async with house(handlers={"echo": slow}) as node:
        client = await node.connect_plain("42", "echo:a")
        assert await say(client, "first", "second") == []
        proceed.set()
        await node.settle()
        assert client.take() == ["first", "second"]


async def test_a_handler_that_raises_is_error_100_for_its_sender_and_a_line_in_the_log() -> None:
    async def fail(request: Request) -> str:
        raise RuntimeError(f"about {request.user}")

    async with house(handlers={"echo": fail}) as node:
        node.expected_errors = 2
        client = await node.connect_plain("42", "echo:a")
        assert await say(client, "1", "2") == [INTERNAL, INTERNAL]
        assert client.closing is None
        assert [(each["event"], each["client"], each["channel"]) for each in node.errors] == [
            ("handler failed", client.id, "echo:a")
        ] * 2
        assert "about 42" in node.errors[0]["exception"]


async def test_a_handler_that_is_too_slow_is_error_100() -> None:
    async def slow(_: Request) -> str:
        await asyncio.Event().wait()
        return "never"

    async with house({"handlers": {"timeout": 0.01}}, handlers={"echo": slow}) as node:
        client = await node.connect_plain("42", "echo:a")
        client.transport.writes.clear()
        client.send("1")
        await until(lambda: bool(client.transport.writes))
        assert [bytes(frame.data).decode() for frame in parse_frames(client.transport.writes[0])] == [INTERNAL]


LARGE = bytes(range(256)) * 2000


@pytest.mark.parametrize("answer", [LARGE, "é" * 200_000], ids=["binary", "text"])
async def test_a_large_answer_goes_out_piece_by_piece_and_others_are_served_meanwhile(answer: str | bytes) -> None:
    async def handler(request: Request) -> str | bytes:
        return answer if request.data == "large" else "small"

    async with house(handlers={"echo": handler}) as node:
        client, other = await node.connect_plain("42", "echo:a"), await node.connect_plain("43", "echo:a")
        client.transport.writes.clear()
        client.send("large")
        while not client.transport.writes:  # noqa: ASYNC110 - each turn is one step of all tasks
            await asyncio.sleep(0)
        seen_before = len(client.transport.writes)
        other.send("x")
        while other.transport.writes[-1][-5:] != b"small":  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        meanwhile = len(client.transport.writes)
        await node.settle()
        assert (seen_before, meanwhile < len(client.transport.writes)) == (1, True)
        assert max(map(len, client.transport.writes)) <= PIECE_BYTES + 10
        frames = [each for data in client.transport.writes for each in parse_frames(data)]
        payload = b"".join(bytes(frame.data) for frame in frames)
        assert payload == (answer if isinstance(answer, bytes) else answer.encode())
        assert [frame.opcode for frame in frames] == [
            Opcode.BINARY if isinstance(answer, bytes) else Opcode.TEXT,
            *[Opcode.CONT] * (len(frames) - 1),
        ]
        assert [frame.fin for frame in frames] == [*[False] * (len(frames) - 1), True]


async def test_a_client_that_goes_in_the_middle_of_an_answer_gets_no_more_of_it() -> None:
    async def handler(_: Request) -> bytes:
        return LARGE

    async with house(handlers={"echo": handler}) as node:
        client = await node.connect_plain("42", "echo:a")
        client.transport.writes.clear()
        client.send("x")
        while not client.transport.writes:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        client.go()
        await node.settle()
        assert len(client.transport.writes) == 1


async def test_an_answer_that_the_queue_has_no_room_for_is_offered_whole() -> None:
    async def handler(_: Request) -> bytes:
        return LARGE * 3

    async with house(handlers={"echo": handler}) as node:
        client = await node.connect_plain("42", "echo:a")
        assert client.transport.room < len(LARGE * 3)
        assert await say(client, "x") == [LARGE * 3]


async def test_a_handler_whose_client_has_gone_answers_nobody() -> None:
    proceed = asyncio.Event()

    async def slow(request: Request) -> str | bytes:
        await proceed.wait()
        return request.data

    async with house(handlers={"echo": slow}) as node:
        client = await node.connect_plain("42", "echo:a")
        await say(client, "1", "2")
        client.go()
        proceed.set()
        await node.settle()
        assert client.take() == []


# Limits, time, the end.


async def test_a_client_over_its_rate_is_refused_and_far_over_it_disconnected() -> None:
    async with house(ANONYMOUS, {"client": {"command_rate": 10, "command_burst": 2}}) as node:
        client = node.open_plain()
        await node.settle()
        assert sorted(map(str, await say(client, "1", "2", "3", "4"))) == ["1", "2", TOO_MANY, TOO_MANY]
        assert client.closing is None
        assert await say(client, "5") == []
        assert client.closing == (POLICY, "rate limit")


async def test_a_client_is_pinged_by_the_transport_and_dropped_when_it_does_not_answer() -> None:
    async with house() as node:
        client = await node.connect_plain()
        await node.advance(12.7)
        assert (client.transport.pings, client.take()) == (1, [])
        client.conversation.frame_pong()
        client.conversation.frame_pong()
        await node.advance(25)
        assert (client.transport.pings, client.closing) == (2, None)
        await say(client, "1")
        await node.advance(8.2)
        assert client.closing == (1013, "no pong")


async def test_a_connection_ends_when_its_token_has_been_over_for_the_grace() -> None:
    async with house({"client": {"ping_interval": "1h"}}) as node:
        client = await node.connect_plain("42", exp=at(100))
        await node.advance(124.8)
        assert client.closing is None
        await node.advance(0.4)
        assert client.closing == (POLICY, "token expired")


@pytest.mark.parametrize(
    ("disconnect", "told"),
    [
        (codes.SHUTDOWN, (1001, "shutdown")),
        (codes.SERVER_ERROR, (1011, "internal server error")),
        (codes.CONNECTION_EXPIRED, (1008, "token expired")),
        (codes.STALE, (1013, "authentication timeout")),
        (codes.RATE_EXCEEDED, (1008, "rate limit")),
        (codes.SLOW, (1013, "slow")),
        (codes.FORCE_RECONNECT, (1013, "force reconnect")),
        (codes.NO_PONG, (1013, "no pong")),
        (codes.FORCE_DISCONNECT, (1008, "force disconnect")),
        (codes.CONNECTION_LIMIT, (1008, "connection limit")),
        (Disconnect(4001, "bye"), (1008, "bye")),
        (Disconnect(1009, "message too big"), (1009, "message too big")),
    ],
)
async def test_a_plain_client_is_told_the_websockets_own_codes(disconnect: Disconnect, told: tuple[int, str]) -> None:
    async with house() as node:
        client = await node.connect_plain()
        client.transport.dismiss(disconnect)
        assert client.closing == told
        assert dict(node.counts.disconnects) == {told[0]: 1}


async def test_every_disconnect_of_the_protocol_becomes_a_code_of_the_websocket() -> None:
    async with house() as node:
        for disconnect in codes.DISCONNECTS:
            client = await node.connect_plain()
            client.transport.dismiss(disconnect)
            assert client.closing is not None
            assert 1000 <= client.closing[0] <= 1013, disconnect


async def test_a_slow_plain_reader_is_dismissed_alone() -> None:
    async with house() as node:
        slow, fine = await node.connect_plain("1"), await node.connect_plain("2")
        slow.transport.is_full = True
        assert await say(fine, "1") == ["1"]
        assert slow.closing == (1013, "slow")


async def _flood(node: House, client: Client, *, count: int) -> list[Any]:
    for number in range(count):
        client.send(str(number))
    await node.settle()
    return client.take()


async def test_a_burst_within_a_turn_keeps_its_order() -> None:
    async with house() as node:
        client = await node.connect_plain()
        assert await _flood(node, client, count=100) == [str(number) for number in range(100)]
