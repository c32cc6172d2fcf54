"""The nodes as one system: who is there, what is done everywhere, what is asked of all.

Built on `Control` alone, which may lose messages: announcements are repeated, a question has a time-out and names who
did not answer, and an order that a node missed is not repeated, so `carry_out` fails if it did not get out.
"""

import asyncio
import contextlib
import fnmatch
import itertools
import re
import time
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, NamedTuple, Protocol, assert_never

import structlog
from pydantic import Field

from gateway.broker.contract import BrokerError, Control
from gateway.broker.outcome import Outcome
from gateway.domain.counts import Counts
from gateway.messaging import control as messages
from gateway.messaging import survey as surveys
from gateway.messaging.control import (
    NO_FIGURES,
    Announce,
    DisconnectUser,
    Figures,
    Goodbye,
    Message,
    NodeInfo,
    Order,
    RefreshUser,
    SubscribeUser,
    SurveyAnswer,
    SurveyRequest,
    UnsubscribeUser,
)
from gateway.messaging.registry import Registry
from gateway.messaging.survey import ActiveChannels, AnswerT, ConnectedClients, OpenSurvey, Survey
from gateway.protocol.messages import ClientInfo
from gateway.settings import Seconds, Settings

_RETRIES_AN_INTERVAL: Final = 10
"""How many times an interval an announcement that did not get out is tried again."""


_GOODBYE_TIMEOUT_S: Final = 0.5
"""How long a node that stops waits for its goodbye to get out."""


class ClusterSettings(Settings):
    """How a node deals with the others."""

    announce_interval_s: Annotated[Seconds, Field(gt=0)] = 3.0
    """How often the node tells the others that it is there, with its counts; alike on all nodes of a system."""
    survey_timeout_s: Annotated[Seconds, Field(gt=0)] = 1.0
    """How long a question to all nodes waits for those that do not answer."""


class LocalCounts(NamedTuple):
    """How much is on this node."""

    clients: int
    users: int
    subscriptions: int
    channels: int


class LocalSessions(Protocol):
    """The connections of this node. Orders are carried out, or begun, in the call; one that concerns nobody is none."""

    def disconnect(self, order: DisconnectUser) -> None:
        """End connections."""

    def unsubscribe(self, order: UnsubscribeUser) -> None:
        """End subscriptions, with code 2000."""

    def subscribe(self, order: SubscribeUser) -> None:
        """Make server-side subscriptions."""

    def refresh(self, order: RefreshUser) -> None:
        """Change when connections expire."""

    def channels(self) -> Iterable[tuple[str, int]]:
        """Return the channels with subscribers on this node, and how many connections each has."""

    def clients(self, channel: str) -> Iterable[ClientInfo]:
        """Return who is subscribed to *channel* on this node."""

    def counts(self) -> LocalCounts:
        """Return how much is on this node."""


class Cluster:
    """This node among the others. `start` it, and `run` it beside the control's engine, which ends after it.

    *figures* is asked how this node is doing, for its announcements. What it sees of the others goes into `counts`.
    """

    def __init__(
        self,
        control: Control,
        sessions: LocalSessions,
        settings: ClusterSettings,
        *,
        name: str,
        version: str,
        log: structlog.typing.FilteringBoundLogger,
        monotonic: Callable[[], float] = time.monotonic,
        figures: Callable[[], Figures] = lambda: NO_FIGURES,
    ) -> None:
        self.uid = control.node_id
        self.turns = 0
        """How often `run` has looked whether to announce this node."""
        self.announced: Callable[[NodeInfo], object] = lambda _: None
        """Gets the announcements of all nodes, this one's too."""
        self.counts = Counts()
        """Where it counts; a node gives it its own."""
        self.unix: Callable[[], float] = time.time
        """What stamps announcements and reads the stamps of others."""
        self._control = control
        self._sessions = sessions
        self._settings = settings
        self._name = name
        self._version = version
        self._log = log
        self._monotonic = monotonic
        self._figures = figures
        self._started_at_s = monotonic()
        self._registry = Registry(announce_interval_s=settings.announce_interval_s)
        self._announced_info: NodeInfo | None = None
        self._stopping = asyncio.Event()
        self._numbers = itertools.count(1)
        self._open: dict[int, OpenSurvey[Any]] = {}
        self._handlers: dict[str, Callable[[bytes], bytes]] = {
            "channels": self._answer_channels,
            "clients": self._answer_clients,
        }

    # Life.

    def start(self) -> None:
        """Begin to listen to the others. Call it once, before anything else."""
        self._control.start(self._receive)

    async def run(self) -> None:
        """Announce this node at once and at intervals until `stop` is called; then say goodbye."""
        while not self._stopping.is_set():
            announced = self._announce()
            retry_s = self._settings.announce_interval_s / _RETRIES_AN_INTERVAL
            for _ in range(_RETRIES_AN_INTERVAL):
                self.turns += 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(retry_s):
                        await self._stopping.wait()
                if self._stopping.is_set() or announced.error is not None:
                    break  # soon after the broker is back, or there for the first time, all know each other again
            self._forget_silent()
        # Who does not hear it forgets this node a little later.
        with contextlib.suppress(BrokerError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_TIMEOUT_S):
                await self._send(Goodbye(self.uid)).wait()

    def stop(self) -> None:
        """Let `run` end; a second time does nothing."""
        self._stopping.set()

    # What is done everywhere.

    async def carry_out(self, order: Order) -> None:
        """Carry out *order* here and on every other node; there it is on its way when this returns.

        Raises:
            BrokerError: if it was carried out here alone.
        """
        sent = self._send(order)
        self._obey(order)
        await sent.wait()

    # What is asked of all.

    def info(self) -> list[NodeInfo]:
        """Return all nodes that are known, this one with its counts of now, in the order of their names."""
        self._forget_silent()
        return sorted([self._own_info(), *self._registry.nodes()], key=lambda node: (node.name, node.uid))

    def announced_nodes(self) -> list[NodeInfo]:
        """Return the same, this node as it has announced itself last: nothing is counted for it."""
        self._forget_silent()
        own = self._announced_info or self._own_info()
        return sorted([own, *self._registry.nodes()], key=lambda node: (node.name, node.uid))

    def size(self) -> int:
        """Count the nodes that are known, this one included."""
        self._forget_silent()
        return 1 + len(self._registry.nodes())

    def node(self, uid: str) -> NodeInfo | None:
        """Return another node that is known, `None` if there is none of that uid."""
        self._forget_silent()
        return self._registry.node(uid)

    def silent(self) -> list[tuple[NodeInfo, float]]:
        """Return the nodes that went without a goodbye and did not come back, and for how long each has been silent.

        They are named for 300 intervals.
        """
        self._forget_silent()
        now_s = self._monotonic()
        return [(node, now_s - at_s) for node, at_s in self._registry.silent()]

    async def channels(self, pattern: str = "") -> ActiveChannels:
        """Return the channels with subscribers whose names match the glob *pattern*, if there is one."""
        return surveys.sum_channels(await self.survey("channels", pattern.encode(), read=surveys.read_channels))

    async def clients(self, channel: str) -> ConnectedClients:
        """Return who is subscribed to *channel*, from the nodes themselves and so without a presence store."""
        return surveys.join_clients(await self.survey("clients", channel.encode(), read=surveys.read_clients))

    def register(self, op: str, handler: Callable[[bytes], bytes]) -> None:
        """Answer the question *op* with what *handler* makes of its params."""
        if op in self._handlers:
            raise AssertionError(f"two handlers for {op!r}")
        self._handlers[op] = handler

    async def survey(
        self, op: str, params: bytes, *, read: Callable[[bytes], AnswerT], of: NodeInfo | None = None
    ) -> Survey[AnswerT]:
        """Ask all known nodes, this one included, or the node *of* alone; return answers as *read* understands them.

        It takes at most `survey_timeout_s`, and no longer than until all have answered. Who did not answer in time,
        does not know *op*, or sent what *read* refuses with a `msgspec.DecodeError`, is named; who said goodbye
        meanwhile is not.
        """
        self._forget_silent()
        is_over = asyncio.Event()
        number = next(self._numbers)
        asked = [self._own_info(), *self._registry.nodes()] if of is None else [of]
        began_s = self._monotonic()
        question = OpenSurvey(asked, read=read, ended=is_over.set)
        self._open[number] = question
        try:
            sent = Outcome.of(None)
            if of is None or of.uid != self.uid:
                sent = self._send(SurveyRequest(self.uid, number, op, params), to=of.uid if of is not None else None)
            if of is None or of.uid == self.uid:
                question.take(self.uid, self._answer(op, params))
            sent.then(lambda sent: question.cut_short() if sent.error is not None else None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.survey_timeout_s):
                    await is_over.wait()
        finally:
            del self._open[number]
            self.counts.survey_durations[op].observe(self._monotonic() - began_s)
        return question.result()

    def _answer(self, op: str, params: bytes) -> bytes | None:
        handler = self._handlers.get(op)
        if handler is None:
            return None
        try:
            return handler(params)
        except Exception:  # noqa: BLE001 - whoever asks learns that this node could not
            self._log.exception("survey failed", op=op)
            return None

    def _answer_channels(self, params: bytes) -> bytes:
        pattern = params.decode()
        matches = re.compile(fnmatch.translate(pattern)).match if pattern else lambda _: True
        return surveys.encode_answer({name: count for name, count in self._sessions.channels() if matches(name)})

    def _answer_clients(self, params: bytes) -> bytes:
        return surveys.encode_clients(self._sessions.clients(params.decode()))

    # Messages.

    def _send(self, message: Message, *, to: str | None = None) -> Outcome[None]:
        return self._control.send(messages.encode(message), to=to)

    def _receive(self, data: bytes) -> None:
        message = messages.decode(data)
        if message is None:
            self.counts.control_ignored += 1
            return
        try:
            self._take(message)
        except Exception:  # noqa: BLE001 - it must not harm the link that it came over
            self._log.exception("control message failed", kind=type(message).__name__)

    def _take(self, message: Message) -> None:
        match message:
            case Announce(node, sent_at_unix_s):
                if sent_at_unix_s:
                    # Where this node's clock is behind the other's, the lag seems to be negative.
                    self.counts.node_lag.observe(max(0.0, self.unix() - sent_at_unix_s))
                self._hear(node)
            case Goodbye(uid):
                self._let_go(uid)
            case SurveyRequest(sender, number, op, params):
                self._send(SurveyAnswer(self.uid, number, self._answer(op, params)), to=sender)
            case SurveyAnswer(sender, number, answer):
                question = self._open.get(number)
                if question is not None:
                    question.take(sender, answer)
            case _:
                self._obey(message)

    def _obey(self, order: Order) -> None:
        match order:
            case DisconnectUser():
                self._sessions.disconnect(order)
            case UnsubscribeUser():
                self._sessions.unsubscribe(order)
            case SubscribeUser():
                self._sessions.subscribe(order)
            case RefreshUser():
                self._sessions.refresh(order)
            case _:
                assert_never(order)

    # Who is there.

    def _own_info(self) -> NodeInfo:
        counts = self._sessions.counts()
        return NodeInfo(
            uid=self.uid,
            name=self._name,
            version=self._version,
            num_clients=counts.clients,
            num_users=counts.users,
            num_subs=counts.subscriptions,
            num_channels=counts.channels,
            uptime_s=self._monotonic() - self._started_at_s,
            figures=self._figures(),
        )

    def _announce(self, *, to: str | None = None) -> Outcome[None]:
        node = self._own_info()
        self._announced_info = node
        self.announced(node)
        return self._send(Announce(node, self.unix()), to=to)

    def _hear(self, node: NodeInfo) -> None:
        self.announced(node)
        if self._registry.hear(node, now_s=self._monotonic()):
            self._log.info("node joined", uid=node.uid, name=node.name, version=node.version)
            # It learns of us at once, and not at our next interval; but who has said goodbye keeps quiet.
            if not self._stopping.is_set():
                self._announce(to=node.uid)

    def _let_go(self, uid: str) -> None:
        node = self._registry.leave(uid)
        if node is not None:
            self._log.info("node left", uid=uid, name=node.name)
        for question in list(self._open.values()):
            question.excuse(uid)

    def _forget_silent(self) -> None:
        for node in self._registry.sweep(now_s=self._monotonic()):
            self._log.warning("node silent", uid=node.uid, name=node.name)
