"""What one client knows of one channel that it is in: position, token, and when to ask again. Pure.

subscribing ──reply──▶ subscribed ──push ≥ 2500, lost connection──▶ subscribing
     └──────── error for good ────────┴── push < 2500, unsubscribe ──▶ unsubscribed
"""

import random
from collections.abc import Iterator
from typing import Final, Protocol

from msgspec import Raw

from gateway.client.agenda import NEVER
from gateway.client.backoff import Backoff, delays
from gateway.client.errors import ClientError
from gateway.client.events import (
    Resubscribing,
    Subscribed,
    SubscriptionEvent,
    SubscriptionState,
    Unsubscribed,
)
from gateway.client.patching import Patches
from gateway.client.settings import SubscriptionSettings, TokenSource
from gateway.protocol.client_codec import ClientCodec, ReceivedPublication, ReceivedSubscribeResult
from gateway.protocol.fossil import PatchError
from gateway.protocol.messages import NOTHING, StreamPosition, SubscribePush, SubscribeRequest

NO_EPOCH: Final = "_"
"""Matches no stream: what a client sends whose position is void (protocol.md 4.3, code 2502)."""
_RESUBSCRIBING: Final = Backoff(base_s=0.5, factor=2.0, cap_s=20.0)


class Sink(Protocol):
    """Takes what happens in a channel, in order, in the turn that brings it. Its methods must not raise."""

    def publish(self, publication: ReceivedPublication, /) -> None:
        """Take a publication."""

    def tell(self, event: SubscriptionEvent, /) -> None:
        """Take any other event."""

    def end(self, event: Unsubscribed, error: ClientError | None, /) -> None:
        """Take the last event; *error* where it is no more than a user's own leaving."""


class Membership:
    """One channel of one client."""

    __slots__ = (
        "_data",
        "_delays",
        "_has_been_in",
        "_is_patched",
        "_may_recover",
        "_patches",
        "_wishes",
        "channel",
        "epoch",
        "is_fetching",
        "is_server_side",
        "offset",
        "refresh_at_s",
        "retry_at_s",
        "sink",
        "source",
        "state",
        "token",
    )

    def __init__(
        self,
        channel: str,
        sink: Sink,
        *,
        wishes: SubscriptionSettings | None = None,
        data: Raw = NOTHING,
        token: str = "",
        source: TokenSource | None = None,
        is_server_side: bool = False,
        codec: ClientCodec | None = None,
    ) -> None:
        self.channel = channel
        self.sink = sink
        self.is_server_side = is_server_side
        self.token = token
        self.source = source
        """Fetches tokens, for whoever drives the session."""
        self.is_fetching = False
        self.state = SubscriptionState.SUBSCRIBING
        self.retry_at_s = NEVER
        self.refresh_at_s = NEVER
        since = wishes.since if wishes is not None else None
        self.offset = since.offset if since is not None else 0
        self.epoch = since.epoch if since is not None else ""
        self._wishes = wishes or SubscriptionSettings()
        self._patches = Patches(codec) if codec is not None and self._wishes.delta else None
        self._is_patched = False
        self._data = data
        self._may_recover = self._has_been_in = since is not None
        self._delays: Iterator[float] | None = None

    @property
    def position(self) -> StreamPosition:
        """How far the server has sent."""
        return StreamPosition(self.offset, self.epoch)

    @property
    def wants_token(self) -> bool:
        """Whether a token has to be fetched before it can subscribe."""
        return self.source is not None and not self.token

    def request(self) -> SubscribeRequest:
        """Build what asks the server to subscribe, or to go on."""
        request = SubscribeRequest(
            channel=self.channel,
            token=self.token,
            data=self._data,
            recoverable=self._wishes.recoverable,
            join_leave=self._wishes.join_leave,
            delta=self._wishes.delta if self._patches is not None else "",
        )
        if self._may_recover:
            request.recover, request.epoch, request.offset = True, self.epoch, self.offset
        return request

    def accept(self, result: ReceivedSubscribeResult, *, now_s: float) -> None:
        """Take the server's confirmation, and the publications that came with it.

        Raises:
            PatchError: as `published` does.
        """
        self._is_patched = result.delta and self._patches is not None
        if self._patches is not None and not result.recovered:
            self._patches.forget()
        self.state = SubscriptionState.SUBSCRIBED
        self.retry_at_s = NEVER
        self.refresh_at_s = now_s + result.ttl if result.expires and self.source is not None else NEVER
        self._delays = None
        was_recovering, self._has_been_in = self._has_been_in, True
        self._may_recover = result.recoverable
        self.offset, self.epoch = result.offset, result.epoch
        self.sink.tell(
            Subscribed(
                channel=self.channel,
                position=self.position,
                was_recovering=was_recovering,
                recovered=result.recovered,
                data=result.data,
            )
        )
        for publication in result.publications:
            if self.state is SubscriptionState.SUBSCRIBED:  # else its reader has left meanwhile
                self.published(publication)

    def accept_push(self, push: SubscribePush) -> None:
        """Take a subscription that the server made by itself."""
        result = ReceivedSubscribeResult(
            recoverable=push.recoverable, epoch=push.epoch, offset=push.offset, data=push.data
        )
        self._has_been_in = False
        self.accept(result, now_s=0.0)

    def published(self, publication: ReceivedPublication) -> None:
        """Take one publication.

        Raises:
            PatchError: if it can't be made whole. Interrupt it then; it goes on from where it was, and without patches.
        """
        if self._is_patched and self._patches is not None:
            try:
                publication = self._patches.whole(publication)
            except PatchError:
                self._patches = None
                raise
        if publication.offset:
            self.offset = publication.offset
        if publication.epoch:
            self.epoch = publication.epoch  # who knew none learns it here (protocol.md 2.3)
        self.sink.publish(publication)

    def interrupt(self, code: int, reason: str) -> None:
        """Note that the server no longer sends; it is to be asked again."""
        if self.state is SubscriptionState.SUBSCRIBED:
            self.sink.tell(Resubscribing(self.channel, code, reason))
        self.state = SubscriptionState.SUBSCRIBING
        self.retry_at_s = self.refresh_at_s = NEVER

    def put_off(self, chance: random.Random, *, now_s: float) -> float:
        """Ask again later; returns when."""
        if self._delays is None:
            self._delays = delays(_RESUBSCRIBING, chance)
        self.retry_at_s = now_s + next(self._delays)
        return self.retry_at_s

    def drop_token(self) -> None:
        """Use another token next time, if there is somebody to fetch one."""
        if self.source is not None:
            self.token = ""

    def void(self) -> None:
        """Forget token and position, as the server has asked."""
        self.drop_token()
        self.offset, self.epoch = 0, NO_EPOCH

    def end(self, code: int, reason: str, error: ClientError | None) -> None:
        """Leave for good."""
        self.state = SubscriptionState.UNSUBSCRIBED
        self.retry_at_s = self.refresh_at_s = NEVER
        self.sink.end(Unsubscribed(self.channel, code, reason), error)
