"""Control through Redis: a pub/sub channel for all nodes and one for each. What travels names its sender first."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any, Final

from hiredis import pack_command

from gateway.broker.contract import BrokerError
from gateway.broker.outcome import Outcome
from gateway.broker.redis.keys import Keys
from gateway.broker.redis.link import Link
from gateway.broker.redis.subscriber import Subscriber

_SENDER_ENDS: Final = b"\n"
_ECHO: Final = b"echo %d"
"""What a node tells itself; no message of the cluster begins like that."""
_HELD_AT_MOST: Final = 1000
"""Messages that wait for this node to listen."""


class RedisControl:
    """Sends through *link*, hears through *subscriber*, and sends nothing before it can hear the answers."""

    def __init__(self, link: Link, subscriber: Subscriber, keys: Keys, node_id: str) -> None:
        self.node_id = node_id
        self._link = link
        self._subscriber = subscriber
        self._keys = keys
        self._own = node_id.encode()
        self._receive: Callable[[bytes], None] | None = None
        self._unheard = {keys.control, keys.control_of(node_id)}
        self._held: list[tuple[Outcome[None], bytes]] = []
        self._echo: Outcome[None] | None = None
        self._echoes = 0

    def start(self, receive: Callable[[bytes], None]) -> None:
        """Begin to hand over what other nodes send, once Redis can be reached."""
        self._receive = receive
        for name in sorted(self._unheard):
            self._listen(name)

    def send(self, message: bytes, *, to: str | None = None) -> Outcome[None]:
        """Publish *message*; settled when Redis has it."""
        name = self._keys.control if to is None else self._keys.control_of(to)
        command: tuple[Any, ...] = ("PUBLISH", name, self._own + _SENDER_ENDS + message)
        packed = pack_command(command)
        if not self._unheard:
            return self._link.call(packed, _taken)
        outcome: Outcome[None] = Outcome()
        if len(self._held) < _HELD_AT_MOST:
            self._held.append((outcome, packed))
        else:
            outcome.fail(BrokerError("too much waits for this node to hear the others"))
        return outcome

    def echo(self) -> Outcome[None]:
        """Publish to the name that this node alone listens to; settled when it is heard there."""
        echo: Outcome[None] = Outcome()
        before, self._echo = self._echo, echo
        if before is not None:
            before.fail(BrokerError("it did not come back before the next one was sent"))
        if self._unheard:
            self._fail_echo(echo, BrokerError("this node does not hear itself yet"))
            return echo
        self._echoes += 1
        name = self._keys.control_of(self.node_id)
        command: tuple[Any, ...] = ("PUBLISH", name, self._own + _SENDER_ENDS + _ECHO % self._echoes)
        sent = self._link.call(pack_command(command), _taken)
        sent.then(lambda sent: self._fail_echo(echo, sent.error) if sent.error is not None else None)
        return echo

    def _fail_echo(self, echo: Outcome[None], error: Exception) -> None:
        if echo is self._echo:
            self._echo = None
            echo.fail(error)

    def _take_echo(self, message: bytes) -> None:
        """Take a message of our own: the last echo, or one that was given up, or what all nodes are told."""
        if self._echo is not None and message == _ECHO % self._echoes:
            echo, self._echo = self._echo, None
            echo.succeed(None)

    def _listen(self, name: bytes) -> None:
        subscribing = self._subscriber.subscribe(name, self._deliver, is_patient=True)
        if subscribing.is_settled and subscribing.error is not None:
            # The engine has been stopped, so nothing is tried again, and the link fails what is sent from now on.
            self._unheard.clear()
            self._fail_held(subscribing.error)
        else:
            subscribing.then(lambda outcome: self._listened(name, outcome.error))

    def _listened(self, name: bytes, error: Exception | None) -> None:
        if error is None:
            self._unheard.discard(name)
            if not self._unheard:
                self._send_held()
        else:
            self._fail_held(error)
            # Not in this call, which is the subscriber's own clearing up.
            asyncio.get_running_loop().call_soon(self._listen, name)

    def _send_held(self) -> None:
        held, self._held = self._held, []
        for outcome, packed in held:
            self._link.call(packed, _taken).then(functools.partial(_settle_alike, outcome))

    def _fail_held(self, error: Exception) -> None:
        held, self._held = self._held, []
        for outcome, _ in held:
            outcome.fail(error)

    def _deliver(self, data: bytes) -> None:
        sender, separator, message = data.partition(_SENDER_ENDS)
        if sender == self._own:
            self._take_echo(message)
        elif separator and self._receive is not None:
            self._receive(message)


def _taken(_: str, reply: Any) -> None:
    """Take the number of nodes that heard it, which says nothing: who is not there gets nothing."""
    del reply


def _settle_alike(outcome: Outcome[None], sent: Outcome[None]) -> None:
    if sent.error is None:
        outcome.succeed(None)
    else:
        outcome.fail(sent.error)
