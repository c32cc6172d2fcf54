"""The client protocol: what each command does (protocol.md 3), in the order in which it must be decided."""

import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import msgspec

from gateway.auth.tokens import TokenRefusedError
from gateway.broker.contract import BrokerError, Published
from gateway.broker.outcome import Outcome
from gateway.domain.channels import Channel
from gateway.domain.permissions import refuse_publish
from gateway.domain.ratelimit import Verdict
from gateway.domain.session import State, Subscription
from gateway.messaging.connecting import connect
from gateway.messaging.conversation import Conversation
from gateway.messaging.granting import publish_if_granted
from gateway.messaging.lanes import MAX_WAITING
from gateway.messaging.methods import METHODS, OF_CHANNELS, Answer
from gateway.messaging.port import DUPLEX, Terms, Transport
from gateway.messaging.services import Services
from gateway.messaging.wishes import protocol_variant
from gateway.protocol import codes
from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.codes import Disconnect, ErrorCode, Unsubscribed
from gateway.protocol.messages import Command, Publication, PublishRequest, Push, Reply
from gateway.protocol.variants import ProtocolVariant
from gateway.proxies.headers import NO_HEADERS, ClientHeaders
from gateway.proxies.proxy import ProxyError

_UNTIMED: Final = 15
"""The bits of a publish's number that are all zero in one that is timed: one in sixteen is."""
# Looking a member up on its enum costs as much as a call; these are looked up for every command.
_CONNECTED: Final = State.CONNECTED
_WITHIN: Final = Verdict.WITHIN


class ServerCommand(Command):
    """What is carried out in the line of a client's commands although the client did not send it."""

    carry_out: Callable[[], Coroutine[Any, Any, None]] | None = None


class ClientConversation(Conversation):
    """A client that speaks the client protocol, in any codec and framing."""

    __slots__ = ("_publishes", "_replies", "variant")

    variant: ProtocolVariant

    def __init__(
        self,
        transport: Transport,
        variant: ProtocolVariant,
        services: Services,
        *,
        terms: Terms = DUPLEX,
        headers: ClientHeaders = NO_HEADERS,
    ) -> None:
        self._replies: list[bytes] = []
        self._publishes: deque[tuple[int, Outcome[Published]]] | None = None
        super().__init__(transport, variant, services, terms=terms, headers=headers)

    # From and to the transport.

    def receive(self, payload: bytes, *, is_text: bool = True) -> None:
        """Take one frame's payload: one command or several (1.3). The opcode is not checked (1.2)."""
        del is_text
        self.note_received(len(payload))
        try:
            commands = self.variant.codec.decode(payload)
        except MalformedFrameError:
            self.disconnect(codes.PROTOCOL_VIOLATED)
            return
        if self._begun:
            self._waiting_bytes += len(payload)
        for command in commands:
            if command.id or command.send is not None:
                self.submit(command)
            else:
                self._take_pong()
        if self._replies:
            self._flush()

    def _take_pong(self) -> None:
        """Take a sign of life, ahead of commands that wait: the client is not slow because a broker is."""
        if self.session.state is State.OPENED:
            self.disconnect(codes.PROTOCOL_VIOLATED)  # the first command must be connect (3.1)
        elif self.session.state is not State.REFUSED and not self.has_gone():
            violation = self.note_pong()
            if violation is not None:
                self.disconnect(violation)

    def frame_pong(self) -> None:
        """Take a pong of the transport's own; one that nobody asked for is legal there (RFC 6455 5.5.3)."""
        if self.terms.uses_transport_pings:
            self.note_pong()

    def carry_out(self, command: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run *command* behind the client's commands that came before, ahead of those that come after.

        A client with too many of them in line is disconnected: nobody stops those who order, as it could be stopped.
        """
        if self._waiting() >= 2 * MAX_WAITING:
            self.disconnect(codes.SLOW)
        else:
            self.submit(ServerCommand(carry_out=command))

    def push_publications(self, channel: str, publications: Sequence[Publication]) -> None:
        """Send publications of *channel* that this client alone gets."""
        self._replies += [self.variant.codec.publication(channel, each) for each in publications]
        self._flush()

    def push(self, push: Push) -> None:
        """Say something unasked, after all replies that are ready."""
        self._replies.append(self.variant.codec.push(push))
        self._flush()

    def _flush(self) -> None:
        replies, self._replies = self._replies, []
        if not replies or self.has_gone():
            return
        data = self.variant.messages(replies)
        self.note_replied(len(data), messages=len(replies))
        if not self.transport.offer(data):
            self.disconnect(codes.SLOW)

    def _last_message(self, told: Disconnect) -> bytes:
        if not self.terms.tells_end:
            return b""
        data = self.variant.push(Push(disconnect=told))
        self.note_replied(len(data))
        return data

    def _ping(self) -> None:
        if self.terms.uses_transport_pings:
            self.transport.ping()
        else:
            self._replies.append(self.variant.codec.ping)
            self._flush()

    def _refuse(self, command_id: int, method: str, error: ErrorCode) -> None:
        self.services.counts.note_error(method, error.code)
        self._replies.append(self.variant.codec.reply(Reply(id=command_id, error=error)))

    # Commands.

    def _handle(self, command: Command) -> Coroutine[Any, Any, None] | None:
        if self.session.state is not _CONNECTED:
            return self._handle_first(command) if self.session.state is State.OPENED else None
        rate_limit = self.services.rate_limit
        if rate_limit is not None and command.id:
            verdict = self.session.bucket.take(rate_limit, now_s=self.services.monotonic())
            if verdict is not _WITHIN:
                self._refuse_rate(command, verdict)
                return None
        publish = command.publish
        # Publishing is tried first, since it is what clients do most; connect, subscribe and unsubscribe come before
        # it in the protocol's order (2.1) for a command that holds several requests, which no SDK sends.
        if publish is not None and command.id and not (command.connect or command.subscribe or command.unsubscribe):
            commands = self.services.counts.commands
            number = commands["publish"]
            commands["publish"] = number + 1
            # One in sixteen is timed, since that costs a twentieth of a publish.
            return self._publish(command.id, publish, began_s=None if number & _UNTIMED else self.services.monotonic())
        if self._publishes:
            return self._after_publishes(command)
        return self._dispatch(command)

    def _lane(self, command: Command) -> str | None:
        """Go by the channel; what is about the whole connection waits for all, and calls of a backend for none."""
        if self.services.session.concurrency <= 1:
            return None
        for method in OF_CHANNELS:
            request = getattr(command, method)
            if request is not None:
                channel: str = request.channel
                return channel or None
        return "" if command.rpc is not None else None

    def _handle_first(self, command: Command) -> Coroutine[Any, Any, None] | None:
        """Take the first command, which must be connect (3.1)."""
        if command.connect is None or not command.id:
            self.disconnect(codes.PROTOCOL_VIOLATED)
            return None
        self.services.counts.commands["connect"] += 1
        self.session.state = State.AUTHENTICATING
        return self._answer_later(command.id, "connect", connect, command.connect)

    def _refuse_rate(self, command: Command, verdict: Verdict) -> None:
        self.note_rate_exceeded()
        if verdict is Verdict.FAR_OVER:
            self.disconnect(codes.RATE_EXCEEDED)
        elif command.send is None:
            self._answer_in_order(command.id, "any", codes.TOO_MANY_REQUESTS)

    async def _after_publishes(self, command: Command) -> None:
        """Let replies of earlier publishes go first: replies come in command order (2.2)."""
        while self._publishes:
            with contextlib.suppress(BrokerError):  # its own reply tells
                await self._publishes[0][1].wait()
        rest = self._dispatch(command)
        if rest is not None:
            await rest

    def _dispatch(self, command: Command) -> Coroutine[Any, Any, None] | None:
        """Carry out the first request that is set, in the order of protocol.md 2.1."""
        began_s = self.services.monotonic()
        for method, at_once, later in METHODS:
            request = getattr(command, method)
            if request is not None:
                self.services.counts.commands[method] += 1
                answer = at_once(self, request) if at_once is not None else None
                if answer is None and later is not None:
                    return self._answer_later(command.id, method, later, request)
                self.note_duration(method, began_s)
                self._answer(command.id, method, answer)
                return None
        if isinstance(command, ServerCommand) and command.carry_out is not None:
            return command.carry_out()
        # A command that is none (2.2).
        self.disconnect(codes.PROTOCOL_VIOLATED)
        return None

    async def _answer_later(
        self,
        command_id: int,
        method: str,
        carry_out: Callable[[Conversation, Any], Coroutine[Any, Any, Answer]],
        request: msgspec.Struct,
    ) -> None:
        began_s = self.services.monotonic()
        try:
            answer = await carry_out(self, request)
        except TokenRefusedError as refusal:
            self.note_token_failure(refusal)
            answer = refusal.answer
        except (BrokerError, ProxyError):
            answer = codes.INTERNAL_ERROR
        self.note_duration(method, began_s)
        self._answer(command_id, method, answer)

    def _answer(self, command_id: int, method: str, answer: Answer) -> None:
        """Tell the client what became of its command; in the same turn, so that no publication overtakes the reply."""
        if self.has_gone() or answer is None:
            return
        if isinstance(answer, Disconnect):
            self.disconnect(answer)
        elif isinstance(answer, ErrorCode):
            self._refuse(command_id, method, answer)
            if method == "connect":
                # After an error reply the connection is dead (3.1, 5).
                self.session.refuse(now_s=self.services.monotonic())
                self.watch()
        else:
            result: dict[str, Any] = {method: answer}
            self._replies.append(self.variant.codec.reply(Reply(id=command_id, **result)))

    # Publish: the hot path.

    def _publish(
        self, command_id: int, request: PublishRequest, *, began_s: float | None
    ) -> Coroutine[Any, Any, None] | None:
        """Publish, and answer once that has succeeded or failed; returns what is left where the backend is asked first.

        With *began_s*, note how long it takes from then on.
        """
        services, session = self.services, self.session
        if not request.channel:
            self.disconnect(codes.PROTOCOL_VIOLATED)
            return None
        subscription = session.subscriptions.get(request.channel)
        channel = subscription.channel if subscription else services.channels.resolve(request.channel)
        outcome: Outcome[Published] | ErrorCode
        if isinstance(channel, ErrorCode):
            outcome = channel
        elif not channel.is_well_formed:
            outcome = codes.BAD_REQUEST
        else:
            refusal = services.publisher.refuse(channel, request.data, is_checked=self.variant.needs_json)
            if refusal is None and channel.options.publish_proxy_enabled:
                return self._publish_if_granted(command_id, channel, request.data, began_s)
            refusal = refusal or refuse_publish(
                channel,
                session.user,
                is_subscribed=subscription is not None,
                is_insecure=services.is_insecure,
            )
            info = subscription.info if subscription else session.info
            outcome = refusal or services.publisher.publish(channel, request.data, info)
        if began_s is not None:
            self._note_when_settled(outcome, began_s)
        if self._publishes is None and isinstance(outcome, Outcome):
            if not outcome.is_settled:
                self._publishes = deque(((command_id, outcome),))
                outcome.then(self._answer_publishes)
                return None
            if outcome.error is None:
                self._replies.append(self.variant.codec.published(command_id))
                return None
        self._answer_in_order(command_id, "publish", outcome)
        return None

    async def _publish_if_granted(
        self, command_id: int, channel: Channel, data: msgspec.Raw, began_s: float | None
    ) -> None:
        """Publish what the backend makes of it. Commands behind wait, so the reply keeps its place."""
        outcome = await publish_if_granted(self, channel, data)
        if isinstance(outcome, Disconnect):
            self.disconnect(outcome)
        elif outcome is not None:
            if began_s is not None:
                self._note_when_settled(outcome, began_s)
            self._answer_in_order(command_id, "publish", outcome)

    def _note_when_settled(self, outcome: Outcome[Published] | ErrorCode, began_s: float) -> None:
        if isinstance(outcome, Outcome):
            outcome.then(lambda _: self.note_duration("publish", began_s))
        else:
            self.note_duration("publish", began_s)

    def _answer_in_order(self, command_id: int, method: str, outcome: Outcome[Published] | ErrorCode) -> None:
        """Answer with what is refused, or not settled by the broker yet, behind the publishes that are not either."""
        if isinstance(outcome, ErrorCode):
            if self._publishes is None:
                self._refuse(command_id, method, outcome)
                return
            refused: Outcome[Published] = Outcome()
            refused.fail(_RefusedError(method, outcome))
            outcome = refused
        if self._publishes is None:
            self._publishes = deque()
        self._publishes.append((command_id, outcome))
        outcome.then(self._answer_publishes)
        self._regulate()

    def _answer_publishes(self, _: Outcome[Published]) -> None:
        """Answer the publishes that are settled, in their order; replies of one turn become one write."""
        publishes = self._publishes
        if publishes is None:
            return
        if not self._replies:
            self.services.turn.flush_at_end(self)
        while publishes and publishes[0][1].is_settled:
            command_id, outcome = publishes.popleft()
            if outcome.error is None:
                self._replies.append(self.variant.codec.published(command_id))
            elif isinstance(outcome.error, _RefusedError):
                self._refuse(command_id, outcome.error.method, outcome.error.error)
            else:
                self._refuse(command_id, "publish", codes.INTERNAL_ERROR)
        if not publishes:
            self._publishes = None
        if self.is_deaf and not self.has_gone():
            self._regulate()

    def _waiting(self) -> int:
        return super()._waiting() + (len(self._publishes) if self._publishes is not None else 0)

    def room(self) -> int:
        """Return what the transport takes, less what waits to be written."""
        return self.transport.room - sum(map(len, self._replies))

    def unsubscribe(self, channel: str, reason: Unsubscribed) -> None:
        """End a subscription and tell the client why; nothing is said where there is none."""
        if self.leave(channel):
            self.services.counts.unsubscribes[reason.code] += 1
            self.push(Push(channel=channel, unsubscribe=reason))

    def tell_gap(self, channel: str) -> None:
        """End a positioned subscription as protocol.md 3.6 says: the SDK comes back at once and recovers, or not."""
        subscription = self.session.subscriptions.get(channel)
        if subscription is None or not subscription.features.is_positioned:
            return
        if subscription.is_server_side:
            self.disconnect(codes.INSUFFICIENT_STATE)
        else:
            self.unsubscribe(channel, codes.UNSUBSCRIBED_INSUFFICIENT_STATE)

    def _watch_channel(self, subscription: Subscription) -> None:
        told = protocol_variant(subscription.variant) or self.variant  # events have no tags to go by
        self.services.hub.watch(subscription.channel.name, self.session.client_id, self.transport, told)


class _RefusedError(BrokerError):
    """Carries a refusal through the line of publishes that wait for the broker."""

    def __init__(self, method: str, error: ErrorCode) -> None:
        super().__init__(error.message)
        self.method = method
        self.error = error
