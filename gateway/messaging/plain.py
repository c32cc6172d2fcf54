"""The plain protocol: a client that has nothing but a WebSocket (README, "The plain protocol").

The first message is `{"token": "<JWT>"}`, what follows is published as it is. Codes are the WebSocket's own.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import msgspec
from msgspec import UNSET

from gateway.auth.tokens import KEYS_UNAVAILABLE, TokenRefusedError
from gateway.broker.contract import BrokerError, Published
from gateway.broker.outcome import Outcome
from gateway.domain.channels import Channel, DataFormat
from gateway.domain.identity import Grant, Identity
from gateway.domain.permissions import refuse_publish, refuse_subscribe, subscribe_is_asked
from gateway.domain.ratelimit import RateLimit, Verdict
from gateway.domain.session import State, Subscription
from gateway.messaging.conversation import Conversation
from gateway.messaging.granting import granted, publish_if_granted
from gateway.messaging.handlers import Answer, Request
from gateway.messaging.joining import Joining, Room, join_all
from gateway.messaging.port import DUPLEX_WITH_OWN_PINGS, Transport
from gateway.messaging.services import Services
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect, ErrorCode, Unsubscribed
from gateway.protocol.json_codec import is_json
from gateway.protocol.messages import NOTHING, SubscribeRequest
from gateway.protocol.variants import PlainVariant, Variant
from gateway.proxies.headers import NO_HEADERS, ClientHeaders
from gateway.proxies.proxy import ProxyError

NORMAL_CLOSURE: Final = 1000
GOING_AWAY: Final = 1001
POLICY_VIOLATION: Final = 1008
INTERNAL_ERROR: Final = 1011
TRY_AGAIN_LATER: Final = 1013

AUTHENTICATION_TIMEOUT: Final = Disconnect(TRY_AGAIN_LATER, "authentication timeout")
TOKEN_MISSING: Final = Disconnect(POLICY_VIOLATION, "token missing")
TOKEN_INVALID: Final = Disconnect(POLICY_VIOLATION, "token invalid")
TOKEN_EXPIRED: Final = Disconnect(POLICY_VIOLATION, "token expired")
UNAVAILABLE: Final = Disconnect(TRY_AGAIN_LATER, "token can't be checked now")
RATE_LIMIT: Final = Disconnect(POLICY_VIOLATION, "rate limit")

_TRANSLATED: Final = {
    codes.SHUTDOWN: Disconnect(GOING_AWAY, "shutdown"),
    codes.SERVER_ERROR: Disconnect(INTERNAL_ERROR, "internal server error"),
    codes.CONNECTION_EXPIRED: TOKEN_EXPIRED,
    codes.STALE: AUTHENTICATION_TIMEOUT,
    codes.RATE_EXCEEDED: RATE_LIMIT,
}
_LAST_RECONNECT_CODE: Final = 3499
_PIECES_OVERHEAD: Final = 16384
"""More bytes than the headers of an answer's pieces take, and the pings between them."""


class _TokenMessage(msgspec.Struct):
    token: Any = UNSET


class PlainConversation(Conversation):
    """A client of the plain protocol: one connection, one channel."""

    __slots__ = ("_awaits_token", "_binary", "_channel_name", "_handler")

    variant: PlainVariant

    def __init__(
        self,
        transport: Transport,
        variant: PlainVariant,
        services: Services,
        *,
        channel: str,
        binary: PlainVariant,
        headers: ClientHeaders = NO_HEADERS,
    ) -> None:
        self._channel_name = channel
        self._binary = binary
        self._handler = ""
        self._awaits_token = True
        super().__init__(transport, variant, services, terms=DUPLEX_WITH_OWN_PINGS, headers=headers)
        # Who has no token is asked about where there is a connect proxy, and this protocol's clients say nothing that
        # could be asked with.
        if services.proxies.connect is None and (services.is_anonymous_allowed or services.is_insecure):
            self.submit(_Open())

    # From and to the transport.

    def receive(self, payload: bytes, *, is_text: bool) -> None:
        """Take one message."""
        self.note_received(len(payload))
        self.submit(_Message(payload, is_text))

    def frame_pong(self) -> None:
        """Take a WebSocket pong."""
        self.note_pong()

    def variant_for(self, channel: Channel) -> Variant:
        """Return the binary variant for a namespace of binary publications."""
        return self._binary if channel.options.publication_data_format is DataFormat.BINARY else self.variant

    def _write(self, data: bytes) -> None:
        self.note_replied(len(data))
        if not self.transport.offer(data):
            self.disconnect(codes.SLOW)

    def _answer(self, value: dict[str, Any]) -> None:
        self._write(self.variant.message(msgspec.json.encode(value)))

    def _refuse(self, error: ErrorCode) -> None:
        self.services.counts.note_error("plain", error.code)
        self._answer({"error": {"code": error.code, "message": error.message}})

    def _ping(self) -> None:
        self.transport.ping()

    def _flush(self) -> None:
        """Do nothing: every answer is written when it is made."""

    def unsubscribe(self, channel: str, reason: Unsubscribed) -> None:
        """End the connection, if *channel* is its one channel."""
        if channel in self.session.subscriptions:
            self.disconnect(Disconnect(NORMAL_CLOSURE, reason.reason))

    def room(self) -> int:
        """Return what the transport takes."""
        return self.transport.room

    def tell_gap(self, channel: str) -> None:
        """Say that something is missing; there is no recovery in this protocol."""
        del channel  # it has only one
        self._answer({"status": "gap"})

    def _watch_channel(self, subscription: Subscription) -> None:
        """Do nothing: this protocol has no words for who comes and goes."""

    def _closing(self, disconnect: Disconnect) -> Disconnect:
        if disconnect.code < codes.CONNECTION_CLOSED.code:
            return disconnect
        code = TRY_AGAIN_LATER if disconnect.code <= _LAST_RECONNECT_CODE else POLICY_VIOLATION
        return _TRANSLATED.get(disconnect, Disconnect(code, disconnect.reason))

    # Messages.

    def _handle(self, command: "_Open | _Message") -> Coroutine[Any, Any, None] | None:
        if self.has_gone():
            return None
        if isinstance(command, _Open):
            return self._open()
        if self.services.rate_limit is not None and not self._is_within_rate(self.services.rate_limit):
            return None
        if self._awaits_token:
            self._awaits_token = False
            token = _token_of(command)
            if token is not UNSET:
                return self._authenticate(token)
            if self.session.state is State.OPENED:
                self.disconnect(TOKEN_MISSING)
                return None
        if self._handler:
            return self._call(self._handler, command)
        return self._publish(command)

    def _is_within_rate(self, limit: RateLimit) -> bool:
        verdict = self.session.bucket.take(limit, now_s=self.services.monotonic())
        if verdict is not Verdict.WITHIN:
            self.note_rate_exceeded()
        if verdict is Verdict.FAR_OVER:
            self.disconnect(RATE_LIMIT)
        elif verdict is Verdict.OVER:
            self._refuse(codes.TOO_MANY_REQUESTS)
        return verdict is Verdict.WITHIN

    async def _open(self) -> None:
        """Let an anonymous client listen at once, where it may; else it still has to show a token."""
        await self._listen_or_leave(Identity(), tolerated=codes.PERMISSION_DENIED)

    async def _listen_or_leave(self, identity: Identity, *, tolerated: ErrorCode | None = None) -> None:
        try:
            refusal = await self._listen(identity)
        except (BrokerError, ProxyError):
            self.disconnect(codes.SERVER_ERROR)
            return
        if refusal is not None and refusal is not tolerated:
            self.disconnect(Disconnect(POLICY_VIOLATION, refusal.message))

    async def _authenticate(self, token: Any) -> None:
        services = self.services
        if not isinstance(token, str) or not token:
            self.disconnect(TOKEN_MISSING if token in (None, "") else TOKEN_INVALID)
            return
        try:
            identity = await services.connection_tokens.connection(token, unix_s=services.unix())
        except TokenRefusedError as error:
            self.note_token_failure(error)
            if error.cause == KEYS_UNAVAILABLE:
                self.disconnect(UNAVAILABLE)
                return
            self.disconnect(TOKEN_EXPIRED if error.has_expired else TOKEN_INVALID)
            return
        if not identity.user and services.refuses_anonymous_tokens:
            self.disconnect(codes.ANONYMOUS_REFUSED)
            return
        if services.is_insecure:
            identity = identity.without_expiry()
        await self._listen_or_leave(identity)

    async def _listen(self, identity: Identity) -> ErrorCode | None:
        """Become *identity* and join the channel, or say why not; a client that listens already stays joined."""
        services, session = self.services, self.session
        channel = services.channels.resolve(self._channel_name)
        refusal = channel if isinstance(channel, ErrorCode) else self._refuse_channel(channel, identity)
        if refusal is not None or isinstance(channel, ErrorCode):
            return refusal
        if self.has_gone() or not self.admit(identity):
            return None
        is_new = not channel.options.handler and channel.name not in session.subscriptions
        session.is_refreshed_by_server = services.proxies.refresh is not None
        session.identify(identity, now_s=services.monotonic(), unix_s=services.unix())
        grant = await self._grant(channel, identity)
        if not isinstance(grant, Grant):
            return grant
        self._handler = channel.options.handler
        joining = None
        if is_new:
            joining = Joining(self, channel, SubscribeRequest(), grant, is_server_side=False)
            if not await join_all(self, [joining]):
                return None
        session.accept(identity, now_s=services.monotonic(), unix_s=services.unix(), random=services.random())
        self.watch()
        self.note_authenticated(name="plain")
        begun = None
        if joining is not None:
            begun = joining.result(Room(self.room()))
            if begun is None:
                raise AssertionError("only a client that rejects it gets an error")
            joining.enter(begun)
        if not self._awaits_token:
            self._answer({"status": "authenticated", "user": identity.user})
        if begun is not None and begun.publications and not self.has_gone():  # auto_cache_recover
            self._write(self.variant_for(channel).publications(channel.name, begun.publications))
        return None

    def _refuse_channel(self, channel: Channel, identity: Identity) -> ErrorCode | None:
        if channel.is_private:
            return codes.PERMISSION_DENIED  # needs a subscription token, which this protocol has no place for
        if not channel.is_well_formed:
            return codes.BAD_REQUEST
        if _is_granted(channel, identity) or subscribe_is_asked(channel):
            return None
        return refuse_subscribe(channel, identity.user, is_insecure=self.services.is_insecure)

    async def _grant(self, channel: Channel, identity: Identity) -> Grant | ErrorCode | None:
        """Have the backend decide where it does; `None` if the client has gone, or is sent away by it."""
        if not subscribe_is_asked(channel) or _is_granted(channel, identity):
            return Grant(channel.name)
        answer = await granted(self, channel, NOTHING)
        if self.has_gone():
            return None
        if isinstance(answer, Disconnect):
            self.disconnect(answer)
            return None
        # The backend's own codes and words have no place in this protocol.
        return codes.PERMISSION_DENIED if isinstance(answer, ErrorCode) else answer

    def _publish(self, message: "_Message") -> Coroutine[Any, Any, None] | None:
        services, session = self.services, self.session
        services.counts.commands["publish"] += 1
        subscription = session.subscriptions.get(self._channel_name)
        if subscription is None:
            raise AssertionError("a connected plain client without a handler is subscribed")
        channel = subscription.channel
        if _fits(message, channel.options.publication_data_format):
            error = services.publisher.refuse(channel, message.payload, is_checked=False)
        else:
            error = codes.BAD_REQUEST
        if error is None and channel.options.publish_proxy_enabled:
            return self._publish_if_granted(channel, message.payload)
        error = error or refuse_publish(channel, session.user, is_subscribed=True, is_insecure=services.is_insecure)
        self._answer_when_settled(error or services.publisher.publish(channel, message.payload, subscription.info))
        return None

    async def _publish_if_granted(self, channel: Channel, data: bytes) -> None:
        outcome = await publish_if_granted(self, channel, data)
        if isinstance(outcome, Disconnect):
            self.disconnect(outcome)
        elif outcome is not None:
            self._answer_when_settled(outcome)

    def _answer_when_settled(self, outcome: Outcome[Published] | ErrorCode) -> None:
        if isinstance(outcome, ErrorCode):
            self._refuse(outcome)
        elif not outcome.is_settled or outcome.error is not None:
            outcome.then(self._answer_publish)

    def _answer_publish(self, outcome: Outcome[Published]) -> None:
        if outcome.error is not None and not self.has_gone():
            self._refuse(codes.INTERNAL_ERROR)

    async def _call(self, handler: str, message: "_Message") -> None:
        self.services.counts.commands["handler"] += 1
        data = message.payload.decode() if message.is_text else message.payload
        request = Request(self._channel_name, self.session.user, self.session.client_id, data)
        began_s = self.services.monotonic()
        answer = await self.services.handlers.call(handler, request)
        self.note_duration("handler", began_s)
        if self.has_gone() or answer is None:
            return
        if isinstance(answer, ErrorCode):
            self._refuse(answer)
        else:
            await self._write_paced(answer)

    async def _write_paced(self, answer: Answer) -> None:
        """Write an answer piece by piece, one in a loop turn, so that a large one holds up nobody.

        One that the transport has no room for is written at once, since an empty queue takes any one message.
        """
        if len(answer.data) > self.room() - _PIECES_OVERHEAD:
            self._write(self.variant.text(answer.data) if answer.is_text else self.variant.binary(answer.data))
            return
        is_first = True
        for piece in self.variant.pieces(answer.data, is_text=answer.is_text):
            if not is_first:
                await asyncio.sleep(0)
            is_first = False
            if self.has_gone():
                return
            self._write(piece)


class _Open(msgspec.Struct, frozen=True):
    """The moment after the handshake, as a command, so that what the client sends meanwhile waits its turn."""


class _Message(msgspec.Struct, frozen=True):
    payload: bytes
    is_text: bool


def _token_of(message: _Message) -> Any:
    """Return the value of `token` if *message* is a JSON object that has one, else `UNSET`."""
    if not message.is_text:
        return UNSET
    try:
        return msgspec.json.decode(message.payload, type=_TokenMessage).token
    except (msgspec.MsgspecError, RecursionError):
        return UNSET


def _is_granted(channel: Channel, identity: Identity) -> bool:
    """Tell whether the token names *channel*."""
    return any(grant.channel == channel.name for grant in identity.grants)


def _fits(message: _Message, data_format: DataFormat) -> bool:
    """Tell whether the opcode suits the namespace: bytes only where bytes are published, text always as JSON."""
    if not message.is_text:
        return data_format is DataFormat.BINARY
    return data_format not in {DataFormat.BINARY, DataFormat.ANY} or is_json(message.payload)
