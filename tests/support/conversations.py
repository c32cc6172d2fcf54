"""Conversations without sockets: a node's services, a memory broker, fake transports, a clock that only the test moves.

Spawned commands run in the test's own loop. `House.settle` lets everything run that can run; no time passes meanwhile.
"""

import asyncio
import dataclasses
import functools
import io
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

import jwt
import msgspec

from gateway.auth.tokens import TokenVerifier
from gateway.broker.contract import DELIVERY_ONLY, BrokerError, Published, PublishOptions
from gateway.broker.memory.broker import MemoryBroker
from gateway.broker.memory.control import MemoryBus
from gateway.broker.memory.engine import MemoryEngine
from gateway.broker.memory.presence import MemoryPresence
from gateway.broker.outcome import Outcome
from gateway.config import load, merge
from gateway.domain.channels import Channel
from gateway.domain.connections import Connections
from gateway.domain.counts import Counts
from gateway.domain.hub import Hub
from gateway.messaging.commands import ClientConversation
from gateway.messaging.conversation import Conversation
from gateway.messaging.handlers import HANDLERS, Handler
from gateway.messaging.plain import PlainConversation
from gateway.messaging.port import DUPLEX, Terms
from gateway.messaging.processors import PROCESSORS, ProcessorFactory
from gateway.messaging.reconfiguring import put_in_force
from gateway.messaging.uni import LISTENING, UniConversation
from gateway.observability.logs import Format, Level, LogSettings, make_logger
from gateway.parts import Clock, Surroundings, make_rules, make_services
from gateway.protocol.codes import Disconnect
from gateway.protocol.framing import BINARY, TEXT, WebSocketFraming
from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.messages import Publication
from gateway.protocol.protobuf_codec import ProtobufCodec
from gateway.protocol.uni_codec import UniCodec
from gateway.protocol.variants import BinaryPlainVariant, PlainVariant, ProtocolVariant, UniVariant
from gateway.proxies.headers import NO_HEADERS, ClientHeaders
from tests.support.backends import FakeBackend

SECRET: Final = "a secret of the tests, 32 bytes or more"
STARTED_AT_S: Final = 1000.0
STARTED_AT_UNIX_S: Final = 1_800_000_000.0

ALLOW_ALL: Final[dict[str, Any]] = {
    "allow_subscribe_for_client": True,
    "allow_subscribe_for_anonymous": True,
    "allow_publish_for_client": True,
    "allow_publish_for_anonymous": True,
}
NAMESPACES: Final[list[dict[str, Any]]] = [
    {"name": "open", **ALLOW_ALL},
    {"name": "closed"},
    {"name": "users", "allow_subscribe_for_client": True, "allow_publish_for_client": True},
    {"name": "subscribers", "allow_subscribe_for_client": True, "allow_publish_for_subscriber": True},
    {"name": "limited", "allow_user_limited_channels": True},
    {"name": "regex", "allow_subscribe_for_client": True, "channel_regex": "^[a-z]+$"},
    {"name": "object", **ALLOW_ALL, "publication_data_format": "json_object"},
    {"name": "binary", **ALLOW_ALL, "publication_data_format": "binary"},
    {"name": "any", **ALLOW_ALL, "publication_data_format": "any"},
    {"name": "timed", **ALLOW_ALL, "processors": ["server_time"]},
    {"name": "echo", **ALLOW_ALL, "handler": "echo"},
]
ANONYMOUS: Final = {"client": {"allow_anonymous_connect_without_token": True}}
INSECURE: Final = {"client": {"insecure": True}}
_BASE: Final[dict[str, Any]] = {
    "client": {"token": {"hmac_secret_key": SECRET}, "command_rate": 0},
    "channel": {"without_namespace": ALLOW_ALL, "namespaces": NAMESPACES},
}

Held = Literal["publish", "subscribe"]


def token(user: Any = "42", *, key: str = SECRET, **claims: Any) -> str:
    """Return a token of *user*, connection or subscription; give times in Unix seconds of the house's clock."""
    return jwt.encode({"sub": user, **claims}, key, algorithm="HS256")


def at(seconds: float) -> int:
    """Return the Unix time that is *seconds* after the start of the house's clock."""
    return int(STARTED_AT_UNIX_S + seconds)


class ManualBroker(MemoryBroker):
    """A memory broker that does what is *held* only when the test says so, oldest first."""

    def __init__(self, *held: Held) -> None:
        super().__init__()
        self.held: set[Held] = set(held)
        self.waiting: deque[tuple[str, Callable[[BrokerError | None], None]]] = deque()
        self.calls: list[tuple[str, str]] = []

    def publish(
        self, channel: str, publication: Publication, *, accepted_at_s: float, options: PublishOptions = DELIVERY_ONLY
    ) -> Outcome[Published]:
        self.calls.append(("publish", channel))
        publish = functools.partial(super().publish, channel, publication, accepted_at_s=accepted_at_s, options=options)
        return self._hold(channel, publish) if "publish" in self.held else publish()

    def subscribe(self, channel: str) -> Outcome[None]:
        self.calls.append(("subscribe", channel))
        if "subscribe" not in self.held:
            return super().subscribe(channel)
        subscribe = super().subscribe
        return self._hold(channel, lambda: subscribe(channel))

    def unsubscribe(self, channel: str) -> Outcome[None]:
        self.calls.append(("unsubscribe", channel))
        if not any(name == channel for name, _ in self.waiting):
            return super().unsubscribe(channel)
        unsubscribe = super().unsubscribe
        return self._hold(channel, lambda: unsubscribe(channel))

    def settle(self, error: BrokerError | None = None) -> None:
        """Do the oldest thing that waits, or fail it with *error*."""
        self.waiting.popleft()[1](error)

    async def stop(self) -> None:
        while self.waiting:
            self.settle(BrokerError("stopped"))
        await super().stop()

    def _hold(self, channel: str, carry_out: Callable[[], Outcome[Any]]) -> Outcome[Any]:
        outcome: Outcome[Any] = Outcome()

        def settle(error: BrokerError | None) -> None:
            if error is None:
                outcome.succeed(carry_out().result())
            else:
                outcome.fail(error)

        self.waiting.append((channel, settle))
        return outcome


class SlowVerifier(TokenVerifier):
    """Checks tokens when the test says so (`gate.set()`)."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self.__dict__.update(verifier.__dict__)
        self.gate = asyncio.Event()

    async def connection(self, token: str, *, unix_s: float) -> Any:
        await self.gate.wait()
        return await super().connection(token, unix_s=unix_s)


class FakeTransport:
    """Records what is written to it; a *full* one takes nothing. Writing after the close fails the test."""

    peer_address = "192.0.2.1"
    waiting = 0
    is_congested = False

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.pings = 0
        self.closing: Disconnect | None = None
        self.is_full = False
        self.is_reading = True
        self.peer: Conversation | None = None
        self.faults: list[str] = []
        self._taken = 0

    def offer(self, data: bytes) -> bool:
        if self.closing is not None:
            self.faults.append(f"offered after the close: {data!r}")
        if self.is_full:
            return False
        self.writes.append(data)
        return True

    def dismiss(self, disconnect: Disconnect) -> None:
        if self.peer is not None:
            self.peer.disconnect(disconnect)

    def ping(self) -> None:
        self.pings += 1

    def close(self, disconnect: Disconnect, last: bytes = b"") -> None:
        if self.closing is not None:
            self.faults.append(f"closed twice: {self.closing}, then {disconnect}")
            return
        if last:
            self.writes.append(last)
        self.closing = disconnect

    @property
    def room(self) -> int:
        return 0 if self.is_full else 1_048_576

    def tell_gap(self, channel: str) -> None:
        if self.peer is not None:
            self.peer.tell_gap(channel)

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def take_frames(self) -> list[list[str | bytes]]:
        """Return what was written since the last call: a list of frames' payloads for each write."""
        writes = self.writes[self._taken :]
        self._taken = len(self.writes)
        return [list(read_frames(data)) for data in writes]


def read_frames(data: bytes) -> list[str | bytes]:
    """Cut unmasked, unfragmented frames into payloads: `str` of text frames, `bytes` of binary ones."""
    payloads: list[str | bytes] = []
    position = 0
    while position < len(data):
        opcode, length = data[position], data[position + 1]
        position += 2
        extended = {126: 2, 127: 8}.get(length, 0)
        if extended:
            length = int.from_bytes(data[position : position + extended], "big")
            position += extended
        payload = data[position : position + length]
        assert len(payload) == length, f"a frame is cut short: {data!r}"
        position += length
        assert opcode in {TEXT, BINARY}, f"no whole data frame: {data!r}"
        payloads.append(payload.decode() if opcode == TEXT else payload)
    return payloads


class Client:
    """What is on the other side of a fake transport."""

    def __init__(self, house: "House", conversation: Conversation, transport: FakeTransport) -> None:
        self.house = house
        self.conversation = conversation
        self.transport = transport
        transport.peer = conversation

    @property
    def id(self) -> str:
        return self.conversation.session.client_id

    @property
    def closing(self) -> tuple[int, str] | None:
        """Code and reason of the Close frame, once there is one."""
        told = self.transport.closing
        return None if told is None else (told.code, told.reason)

    @property
    def channels(self) -> set[str]:
        return set(self.conversation.session.subscriptions)

    def send(self, *messages: str | bytes | Mapping[str, Any]) -> None:
        """Send *messages* in one frame; bytes go as a binary frame."""
        texts = [each if isinstance(each, str | bytes) else json.dumps(each) for each in messages]
        is_text = not any(isinstance(each, bytes) for each in texts)
        payload = b"\n".join(each if isinstance(each, bytes) else each.encode() for each in texts)
        self.conversation.receive(payload, is_text=is_text)

    def take(self) -> list[str | bytes]:
        """Return the lines (client protocol) or messages (plain) that were written since the last call."""
        payloads = [payload for frames in self.transport.take_frames() for payload in frames]
        if isinstance(self.conversation, PlainConversation):
            return payloads
        return [line for payload in payloads if isinstance(payload, str) for line in payload.split("\n")]

    def take_values(self) -> list[Any]:
        """Return the same as values instead of JSON text."""
        return [json.loads(line) for line in self.take()]

    async def ask(self, *messages: str | Mapping[str, Any]) -> list[Any]:
        """Send *messages* in one frame, let all run that can, and return what was answered."""
        self.send(*messages)
        await self.house.settle()
        return self.take_values()

    def go(self) -> None:
        """Go without a word, as a cut network does."""
        if self.transport.closing is None:
            self.conversation.closed(code=1006, reason="", by="network")
        self.transport.peer = None


class House:
    """The messaging part of one node."""

    def __init__(
        self,
        *tables: Mapping[str, Any],
        broker: MemoryBroker,
        handlers: Mapping[str, Handler] = HANDLERS,
        processors: Mapping[str, ProcessorFactory] = PROCESSORS,
        backend: FakeBackend | None = None,
        makes_verifier_slow: bool = False,
        bus: MemoryBus | None = None,
        node_id: str = "node",
    ) -> None:
        values = _BASE
        for table in tables:
            values = merge(values, table)
        config = load(base=values)
        self._values = values
        self.now_s = STARTED_AT_S
        self.random = 0.0
        self.broker = broker
        self.counts = Counts()
        self.hub = Hub(ledger=self.counts.ledger)
        self.tasks: set[asyncio.Task[None]] = set()
        self.key_set_failures: list[str] = []
        self.singles: list[tuple[str, tuple[float, str]]] = []
        """Users whose older connections were to end, and the age of the one that stays."""
        self.expected_errors = 0
        self._log = io.StringIO()
        self._clients: list[Client] = []
        ids = itertools.count(1)
        loop = asyncio.get_running_loop()
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.engine = MemoryEngine(bus or MemoryBus(), node_id=node_id, monotonic=self.monotonic)
        self.engine.broker = broker
        self.engine.presence = MemoryPresence(broker, monotonic=self.monotonic)
        self._around = Surroundings(
            counts=self.counts,
            hub=self.hub,
            connections=Connections(),
            log=make_logger(LogSettings(level=Level.DEBUG, format=Format.JSON), node="test", stream=self._log),
            clock=Clock(self.monotonic, self.unix),
            random=lambda: self.random,
            new_id=lambda: f"client-{next(ids)}" if bus is None else f"{node_id}-client-{next(ids)}",
            spawn=self._spawn,
            call_soon=loop.call_soon,
            call_later=lambda delay_s, call: self.later.append((self.now_s + delay_s, call)),
            report_key_set=self.key_set_failures.append,
            disconnect_others=lambda user, age: self.singles.append((user, age)),
            handlers=handlers,
            processors=processors,
            make_backend=(backend or FakeBackend()).make,
        )
        services = make_services(config, self.engine, self._around)
        self.verifier = SlowVerifier(services.connection_tokens)
        if makes_verifier_slow:
            services = dataclasses.replace(services, connection_tokens=self.verifier)
        self.services = dataclasses.replace(services, version="v")
        self.fanout, self.intake = services.fanout, services.intake
        broker.start(self.intake)
        self._json = ProtocolVariant("json", JSONCodec(), WebSocketFraming(TEXT), needs_json=True)
        self._protobuf = ProtocolVariant("protobuf", ProtobufCodec(), WebSocketFraming(BINARY), needs_json=False)
        text, binary = WebSocketFraming(TEXT), WebSocketFraming(BINARY)
        self._uni = UniVariant("json", UniCodec(), text, joins_messages=False)
        self._plain = PlainVariant("plain", text=text, binary=binary)
        self._plain_binary = BinaryPlainVariant("plain-binary", text=text, binary=binary)

    def reload(self, *tables: Mapping[str, Any]) -> None:
        """Go on by the configuration that the house began with, and *tables* over it."""
        values = self._values
        for table in tables:
            values = merge(values, table)
        put_in_force(make_rules(load(base=values), self._around, before=self.services), self.services)

    # Clients.

    def open(self, terms: Terms = DUPLEX, *, headers: ClientHeaders = NO_HEADERS, is_protobuf: bool = False) -> Client:
        """Open a connection of the client protocol."""
        transport = FakeTransport()
        conversation = ClientConversation(
            transport,
            self._protobuf if is_protobuf else self._json,
            self.services,
            terms=terms,
            headers=headers,
        )
        return self._enter(conversation, transport)

    def open_uni(self, terms: Terms = LISTENING) -> Client:
        """Open a connection of a client that only listens."""
        transport = FakeTransport()
        return self._enter(UniConversation(transport, self._uni, self.services, terms=terms), transport)

    def open_plain(self, channel: str = "lobby") -> Client:
        """Open a connection of the plain protocol."""
        transport = FakeTransport()
        conversation = PlainConversation(
            transport, self._plain, self.services, channel=channel, binary=self._plain_binary
        )
        return self._enter(conversation, transport)

    async def connect(self, user: str = "42", *channels: str, **claims: Any) -> Client:
        """Open a connection, authenticate as *user* (no token if empty), and subscribe to *channels*."""
        client = self.open()
        request = {"token": token(user, **claims)} if user or claims else {}
        replies = await client.ask({"id": 1, "connect": request})
        assert [reply.get("id") for reply in replies] == [1], replies
        assert "connect" in replies[0], replies
        for number, channel in enumerate(channels, start=2):
            replies = await client.ask({"id": number, "subscribe": {"channel": channel}})
            assert replies == [{"id": number, "subscribe": {}}]
        return client

    async def connect_plain(self, user: str = "42", channel: str = "lobby", **claims: Any) -> Client:
        """Open a plain connection and authenticate."""
        client = self.open_plain(channel)
        assert await client.ask({"token": token(user, **claims)}) == [{"status": "authenticated", "user": user}]
        return client

    def publish(self, channel: str, data: bytes = b"{}") -> None:
        """Publish as another node or the server API would: nothing is checked."""
        self.broker.publish(channel, Publication(data=msgspec.Raw(data)), accepted_at_s=self.now_s)

    def channel(self, name: str) -> Channel:
        channel = self.services.channels.resolve(name)
        assert isinstance(channel, Channel)
        return channel

    def _enter(self, conversation: Conversation, transport: FakeTransport) -> Client:
        client = Client(self, conversation, transport)
        self._clients.append(client)
        return client

    # Time and turns.

    def monotonic(self) -> float:
        return self.now_s

    def unix(self) -> float:
        return STARTED_AT_UNIX_S + self.now_s - STARTED_AT_S

    async def settle(self) -> None:
        """Let everything run that can run."""
        for _ in range(30):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        """Let *seconds* pass, in ticks of a tenth."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s = min(self.now_s + 0.1, until_s)
            for conversation in list(self.services.wheel.advance(self.now_s)):
                conversation.tick()
            due = [call for at_s, call in self.later if at_s <= self.now_s]
            self.later = [each for each in self.later if each[0] > self.now_s]
            for call in due:
                call()
        await self.settle()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.result()

    # What was noted.

    @property
    def events(self) -> list[dict[str, Any]]:
        """What has been logged so far."""
        return [json.loads(line) for line in self._log.getvalue().splitlines()]

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["level"] == "error"]

    async def leave_nothing(self) -> None:
        """Send everybody away, and check that nothing is left of anybody."""
        for client in self._clients:
            client.go()
        await self.settle()
        await self.broker.stop()
        self.verifier.gate.set()
        await self.settle()
        left = {
            "connections": len(self.services.connections),
            "users": self.services.connections.users,
            "channels": len(self.hub),
            "interest": len(self.services.interest),
            "deadlines": len(self.services.wheel),
            "tasks": len(self.tasks),
            "calls": sum(proxy.in_flight + proxy.waiting for _, proxy in self.services.proxies),
        }
        assert not any(left.values()), left
        faults = [fault for client in self._clients for fault in client.transport.faults]
        assert not faults, faults
        assert len(self.errors) == self.expected_errors, self.errors


@asynccontextmanager
async def house(*tables: Mapping[str, Any], broker: MemoryBroker | None = None, **parts: Any) -> AsyncIterator[House]:
    """Build a `House`; what is left behind at the end fails the test."""
    built = House(*tables, broker=broker or MemoryBroker(), **parts)
    yield built
    await built.leave_nothing()
