"""The channels that one client is in: subscribing, again and again, until it leaves or may not stay. Pure."""

import random
from collections.abc import Callable
from functools import partial
from typing import Final

from gateway.client.agenda import NEVER, Agenda
from gateway.client.endings import Ending, Kind, is_retriable
from gateway.client.errors import (
    ClientError,
    InvalidArgumentError,
    SubscribeRejectedError,
    UnauthorizedError,
    UnsubscribedError,
    advice,
)
from gateway.client.events import (
    ClientEvent,
    Joined,
    Left,
    Published,
    SubscriptionEvent,
    SubscriptionState,
    Unsubscribed,
)
from gateway.client.membership import Membership
from gateway.client.requests import Request, Requests
from gateway.protocol import codes
from gateway.protocol.client_codec import (
    ReceivedPublication,
    ReceivedPush,
    ReceivedSubscribeResult,
    ServerMessage,
)
from gateway.protocol.fossil import PatchError
from gateway.protocol.messages import Command, SubRefreshRequest, SubscribeRequest, UnsubscribeRequest

REFRESH_AGAIN_S: Final = (5.0, 20.0)
"""When a failed refresh is repeated (protocol.md 4.1)."""


class Channels:
    """All memberships of one client. What it sends, it sends only while the client is connected."""

    __slots__ = ("_agenda", "_chance", "_memberships", "_notify", "_requests", "get", "is_connected")

    def __init__(
        self, requests: Requests, agenda: Agenda, *, notify: Callable[[ClientEvent], None], chance: random.Random
    ) -> None:
        """*notify* takes what happens in channels that the server puts the client into."""
        self.is_connected = False
        self._memberships: dict[str, Membership] = {}
        self.get: Final[Callable[[str], Membership | None]] = self._memberships.get
        """Return the membership of a channel, if there is one; the dict's own method, asked for each publication."""
        self._requests = requests
        self._agenda = agenda
        self._notify = notify
        self._chance = chance

    # What the user wants.

    def join(self, membership: Membership) -> None:
        """Subscribe, now or when there is a connection; raises `InvalidArgumentError` for a channel it is in."""
        if membership.channel in self._memberships:
            raise InvalidArgumentError(
                "subscribed already", to_do=advice(codes.ALREADY_SUBSCRIBED.code), channel=membership.channel
            )
        self._memberships[membership.channel] = membership
        self._ask(membership)

    def leave(self, membership: Membership, error: ClientError | None = None) -> None:
        """Unsubscribe; nothing of the channel is delivered any more. Has no effect the second time."""
        if not self._has(membership):
            return
        del self._memberships[membership.channel]
        # Also when the subscribe is still unanswered: the server takes them in order.
        if self.is_connected:
            leaving = Command(unsubscribe=UnsubscribeRequest(membership.channel))
            # Without a reply the server may go on sending, and the next subscribe would be its second.
            self._requests.send(Request("unsubscribe", leaving, _ignore, channel=membership.channel, is_vital=True))
        membership.end(0, "unsubscribed", error)

    def leave_all(self) -> None:
        """Unsubscribe from all channels that the user has chosen."""
        for each in [each for each in self._memberships.values() if not each.is_server_side]:
            self.leave(each)

    # A connection's life.

    def positions(self) -> dict[str, SubscribeRequest]:
        """Return where the server-side subscriptions want to go on (protocol.md 3.3)."""
        asked = (each.request() for each in self._memberships.values() if each.is_server_side)
        return {
            request.channel: SubscribeRequest(recover=True, epoch=request.epoch, offset=request.offset)
            for request in asked
            if request.recover
        }

    def connected(self, server_side: dict[str, ReceivedSubscribeResult]) -> None:
        """Restore all subscriptions over a new connection."""
        self.is_connected = True
        for each in [each for each in self._memberships.values() if each.is_server_side]:
            if each.channel not in server_side:
                del self._memberships[each.channel]
                each.end(codes.SERVER_UNSUBSCRIBE.code, codes.SERVER_UNSUBSCRIBE.reason, None)
        for channel, subscribed in server_side.items():
            self._server_side(channel).accept(subscribed, now_s=self._agenda.now_s)
        for each in list(self._memberships.values()):
            if each.state is SubscriptionState.SUBSCRIBING:
                self._ask(each)

    def interrupt(self, ending: Ending, *, is_afresh: bool) -> None:
        """Note that the connection is lost; *is_afresh*: and that tokens and positions are void."""
        self.is_connected = False
        for each in list(self._memberships.values()):
            if is_afresh:
                each.void()
            each.interrupt(ending.code, ending.reason)

    def close(self, ending: Ending, error: Callable[[str], ClientError]) -> None:
        """End all of them, for good, each with the *error* for its channel."""
        memberships = list(self._memberships.values())
        self._memberships.clear()
        for each in memberships:
            each.end(ending.code, ending.reason, error(each.channel))

    def tick(self) -> None:
        """Do what is due."""
        agenda = self._agenda
        for each in list(self._memberships.values()):
            if each.retry_at_s <= agenda.now_s:
                each.retry_at_s = NEVER
                self._ask(each)
            if each.refresh_at_s <= agenda.now_s:
                each.refresh_at_s = NEVER
                self._fetch(each)
            agenda.wake_by(min(each.retry_at_s, each.refresh_at_s))

    # What the server says.

    def take_push(self, push: ReceivedPush) -> None:
        """Take a push about a channel that is no publication."""
        if push.subscribe is not None:
            self._server_side(push.channel).accept_push(push.subscribe)
            return
        membership = self._memberships.get(push.channel)
        if membership is None:
            return  # it was on its way while this side left, or it is of a kind that is not known here
        if push.join is not None:
            membership.sink.tell(Joined(push.channel, push.join.info))
        elif push.leave is not None:
            membership.sink.tell(Left(push.channel, push.leave.info))
        elif push.unsubscribe is not None:
            self._unsubscribed(membership, push.unsubscribe)

    def _unsubscribed(self, membership: Membership, why: codes.Unsubscribed) -> None:
        if why.code < codes.UNSUBSCRIBED_INSUFFICIENT_STATE.code or membership.is_server_side:
            del self._memberships[membership.channel]
            error = UnsubscribedError(
                f"the server unsubscribed this client: {why.reason}",
                to_do="subscribe again, if it may",
                channel=membership.channel,
                code=why.code,
            )
            membership.end(why.code, why.reason, error)
            return
        if why.code == codes.UNSUBSCRIBED_STATE_INVALIDATED.code:
            membership.void()
        elif why.code == codes.UNSUBSCRIBED_EXPIRED.code:
            membership.drop_token()
        membership.interrupt(why.code, why.reason)
        self._ask(membership)

    def _subscribed(self, membership: Membership, outcome: ServerMessage | ClientError) -> None:
        if isinstance(outcome, ClientError) or not self._has(membership):
            return  # without a reply the connection is lost, and the next one asks again
        error, agenda = outcome.error, self._agenda
        if outcome.subscribe is not None:
            try:
                membership.accept(outcome.subscribe, now_s=agenda.now_s)
            except PatchError as misfitting:
                agenda.ending = misfit(membership, misfitting)
            agenda.wake_by(membership.refresh_at_s)
        elif error is None:
            agenda.ending = Ending(Kind.NETWORK, "the server answered another question")
        elif is_retriable(error) or (error.code == codes.TOKEN_EXPIRED.code and membership.source is not None):
            if error.code == codes.TOKEN_EXPIRED.code:
                membership.drop_token()
            agenda.wake_by(membership.put_off(self._chance, now_s=agenda.now_s))
        else:
            self._refuse(membership, error)

    def _refuse(self, membership: Membership, error: codes.ErrorCode) -> None:
        """End a subscription that the server does not allow, for good."""
        kind = UnauthorizedError if error.code == codes.TOKEN_EXPIRED.code else SubscribeRejectedError
        channel = membership.channel
        reason = kind(f"subscribe: {error.message}", to_do=advice(error.code), channel=channel, code=error.code)
        if membership.state is SubscriptionState.SUBSCRIBED:
            self.leave(membership, reason)
        else:
            del self._memberships[channel]
            membership.end(error.code, error.message, reason)

    def _server_side(self, channel: str) -> Membership:
        membership = self._memberships.get(channel)
        if membership is None:
            sink = ServerSideSink(channel, self._notify)
            membership = self._memberships[channel] = Membership(channel, sink, is_server_side=True)
        return membership

    # Tokens.

    def take_token(self, membership: Membership, token: str) -> None:
        """Use the *token* that was fetched for *membership*."""
        membership.is_fetching = False
        membership.token = token
        if not self._has(membership) or not self.is_connected:
            return
        if membership.state is SubscriptionState.SUBSCRIBING:
            self._ask(membership)
            return
        command = Command(sub_refresh=SubRefreshRequest(membership.channel, token))
        answered = partial(self._refreshed, membership)
        self._requests.send(Request("sub_refresh", command, answered, channel=membership.channel, is_vital=True))

    def miss_token(self, membership: Membership, error: Exception) -> None:
        """Note that no token could be fetched: for good if it is `UnauthorizedError`, else it is tried again."""
        membership.is_fetching = False
        if not self._has(membership):
            return
        if isinstance(error, UnauthorizedError):
            self.leave(membership, error)
        elif membership.state is SubscriptionState.SUBSCRIBING:
            self._agenda.wake_by(membership.put_off(self._chance, now_s=self._agenda.now_s))
        else:
            self._refresh_later(membership)

    def _refreshed(self, membership: Membership, outcome: ServerMessage | ClientError) -> None:
        if isinstance(outcome, ClientError) or not self._has(membership):
            return
        result, error = outcome.sub_refresh, outcome.error
        if result is not None:
            membership.refresh_at_s = self._agenda.now_s + result.ttl if result.expires else NEVER
            self._agenda.wake_by(membership.refresh_at_s)
        elif error is None:
            self._agenda.ending = Ending(Kind.NETWORK, "the server answered another question")
        elif is_retriable(error):
            self._refresh_later(membership)
        else:
            self._refuse(membership, error)

    def _refresh_later(self, membership: Membership) -> None:
        membership.refresh_at_s = self._agenda.now_s + self._chance.uniform(*REFRESH_AGAIN_S)
        self._agenda.wake_by(membership.refresh_at_s)

    # The rest.

    def _has(self, membership: Membership) -> bool:
        return self._memberships.get(membership.channel) is membership

    def _ask(self, membership: Membership) -> None:
        if not self.is_connected:
            return  # `connected` comes back to it
        if membership.wants_token:
            self._fetch(membership)
            return
        answered = partial(self._subscribed, membership)
        command = Command(subscribe=membership.request())
        self._requests.send(Request("subscribe", command, answered, channel=membership.channel, is_vital=True))

    def _fetch(self, membership: Membership) -> None:
        if not membership.is_fetching:
            membership.is_fetching = True
            self._agenda.wants_tokens.append(membership)


class ServerSideSink:
    """Tells what happens in a channel that the server chose; the client's own events carry it."""

    __slots__ = ("_channel", "_notify")

    def __init__(self, channel: str, notify: Callable[[ClientEvent], None]) -> None:
        self._channel = channel
        self._notify = notify

    def publish(self, publication: ReceivedPublication) -> None:
        """Pass on a publication."""
        self._notify(Published(self._channel, publication))

    def tell(self, event: SubscriptionEvent) -> None:
        """Pass on an event."""
        self._notify(event)

    def end(self, event: Unsubscribed, error: ClientError | None) -> None:
        """Pass on the last event."""
        del error  # nobody waits here
        self._notify(event)


def misfit(membership: Membership, error: PatchError) -> Ending:
    """Say that the connection has to be made anew, since a patch can't be applied."""
    return Ending(Kind.NETWORK, f"the server sent a patch that does not fit in {membership.channel!r}: {error}")


def _ignore(outcome: ServerMessage | ClientError) -> None:
    """Take a reply that nobody waits for."""
    del outcome
