"""The session against a model that keeps a plain list of what is due.

All times are multiples of an eighth of a second, so that the model's sums are exact and can be compared for equality.
"""

from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.domain.channels import Channel, Channels, ChannelSettings
from gateway.domain.identity import Identity
from gateway.domain.session import (
    REFRESH_AGAIN_S,
    Action,
    RefreshDue,
    SendPing,
    Session,
    SessionSettings,
    State,
    Subscription,
    SubscriptionExpired,
    SubscriptionRefreshDue,
    monotonic_expiry,
)
from gateway.domain.wheel import NEVER
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect

CHANNELS = Channels(ChannelSettings())
UNIX_AHEAD_S = 1_700_000_000
EIGHTHS = st.integers(0, 400).map(lambda eighths: eighths / 8)
LIVES = st.one_of(st.just(0), st.integers(-5, 120))
NAMES = st.sampled_from(["a", "b", "c", "d"])
MANY = st.sampled_from([1, 3])


class Joined(NamedTuple):
    """A subscription: when it expires, and what then."""

    expires_at_s: float = NEVER
    is_server_side: bool = False
    is_refreshed_by_server: bool = False


class Model(RuleBasedStateMachine):
    """What must be due, and when: *waits* maps what is waited for to its time."""

    @initialize(
        interval_s=st.integers(1, 40),
        pong_share=st.sampled_from([0.0, 0.25, 0.5, 0.875]),
        stale_s=EIGHTHS,
        refused_s=EIGHTHS,
        expired_s=EIGHTHS,
        expired_sub_s=EIGHTHS,
    )
    def open(
        self,
        interval_s: int,
        pong_share: float,
        stale_s: float,
        refused_s: float,
        expired_s: float,
        expired_sub_s: float,
    ) -> None:
        self.settings = SessionSettings(
            ping_interval_s=float(interval_s),
            pong_timeout_s=interval_s * pong_share,
            stale_close_delay_s=stale_s,
            refused_close_delay_s=refused_s,
            expired_close_delay_s=expired_s,
            expired_sub_close_delay_s=expired_sub_s,
        )
        self.now_s = 1000.0
        self.session = Session("c", self.settings, now_s=self.now_s)
        self.waits: dict[str, float] = {"stale": self.now_s + stale_s}
        self.subscriptions: dict[str, Joined] = {}
        self.may_wake_early = False

    def is_in(self, *states: State) -> bool:
        return hasattr(self, "session") and self.session.state in states

    @property
    def unix_s(self) -> float:
        return self.now_s + UNIX_AHEAD_S

    def expiry(self, life_s: int) -> int:
        """Return an expiry in Unix seconds; a life of 0 is an endless one."""
        return int(self.unix_s) + life_s if life_s else 0

    def ends(self) -> dict[str, float]:
        """When each expiring subscription ends."""
        delay_s = self.settings.expired_sub_close_delay_s
        return {
            name: each.expires_at_s + (0 if each.is_refreshed_by_server else delay_s)
            for name, each in self.subscriptions.items()
            if each.expires_at_s != NEVER
        }

    @precondition(lambda self: self.is_in(State.OPENED))
    @rule()
    def authenticate(self) -> None:
        self.session.state = State.AUTHENTICATING

    @precondition(lambda self: self.is_in(State.AUTHENTICATING))
    @rule(life_s=LIVES, eighths=st.integers(0, 7), is_refreshed_by_server=st.booleans())
    def accept(self, life_s: int, eighths: int, *, is_refreshed_by_server: bool) -> None:
        self.session.is_refreshed_by_server = is_refreshed_by_server
        identity = Identity(user="42", expires_at_s=self.expiry(life_s))
        self.session.accept(identity, now_s=self.now_s, unix_s=self.unix_s, random=eighths / 8)
        interval_s = self.settings.ping_interval_s
        first_ping_s = interval_s / 2 + interval_s * eighths / 16
        assert interval_s / 2 <= first_ping_s < interval_s
        self.waits = {"ping": self.now_s + first_ping_s}
        self.expires(identity)

    def expires(self, identity: Identity) -> None:
        self.waits.pop("expiry", None)
        if identity.expires_at_s:
            left_s = identity.expires_at_s - self.unix_s
            delay_s = 0 if self.session.is_refreshed_by_server else self.settings.expired_close_delay_s
            self.waits["expiry"] = self.now_s + left_s + delay_s
        self.may_wake_early = False

    @precondition(lambda self: self.is_in(State.AUTHENTICATING))
    @rule()
    def refuse(self) -> None:
        self.session.refuse(now_s=self.now_s)
        self.waits["stale"] = min(self.waits["stale"], self.now_s + self.settings.refused_close_delay_s)

    @precondition(lambda self: self.is_in(State.CONNECTED))
    @rule(life_s=LIVES)
    def refresh(self, life_s: int) -> None:
        identity = Identity(user="42", expires_at_s=self.expiry(life_s))
        self.session.identify(identity, now_s=self.now_s, unix_s=self.unix_s)
        self.expires(identity)

    @precondition(lambda self: self.is_in(State.CONNECTED))
    @rule(name=NAMES, life_s=LIVES, is_server_side=st.booleans(), is_refreshed_by_server=st.booleans())
    def join(self, name: str, life_s: int, *, is_server_side: bool, is_refreshed_by_server: bool) -> None:
        refusal = self.session.refuse_joining(name, max_length=255)
        assert refusal == (codes.ALREADY_SUBSCRIBED if name in self.subscriptions else None)
        if refusal is not None:
            return
        channel = CHANNELS.resolve(name)
        assert isinstance(channel, Channel)
        at_s = monotonic_expiry(self.expiry(life_s), now_s=self.now_s, unix_s=self.unix_s)
        self.subscriptions[name] = joined = Joined(at_s, is_server_side, is_refreshed_by_server)
        self.session.join(Subscription(channel, info=self.session.info, **joined._asdict()))
        if at_s != NEVER:
            self.may_wake_early = False

    @precondition(lambda self: self.is_in(State.CONNECTED))
    @rule(name=NAMES)
    def leave(self, name: str) -> None:
        left = self.session.leave(name)
        assert (left is not None) == (name in self.subscriptions)
        if self.subscriptions.pop(name, Joined()).expires_at_s != NEVER:
            self.may_wake_early = True

    @precondition(lambda self: self.is_in(State.CONNECTED) and bool(self.subscriptions))
    @rule(data=st.data(), life_s=LIVES)
    def refresh_subscription(self, data: st.DataObject, life_s: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.subscriptions)))
        at_s = monotonic_expiry(self.expiry(life_s), now_s=self.now_s, unix_s=self.unix_s)
        self.session.refresh_subscription(self.session.subscriptions[name], at_s)
        self.subscriptions[name] = self.subscriptions[name]._replace(expires_at_s=at_s)
        self.may_wake_early = False

    @precondition(lambda self: self.is_in(*set(State) - {State.CLOSED}))
    @rule()
    def pong(self) -> None:
        was_asked_for = self.waits.pop("pong", None) is not None
        assert self.session.pong() == (None if was_asked_for else codes.PROTOCOL_VIOLATED)
        if was_asked_for:
            self.may_wake_early = False

    @precondition(lambda self: self.is_in(*State))
    @rule(eighths=st.one_of(st.integers(0, 8), st.integers(0, 400)))
    def wait(self, eighths: int) -> None:
        self.now_s += eighths / 8

    @precondition(lambda self: self.is_in(*set(State) - {State.CLOSED}))
    @rule(at_its_deadline=st.booleans(), times=MANY)
    def tick(self, times: int, *, at_its_deadline: bool) -> None:
        for _ in range(times):
            if self.session.state is State.CLOSED or (at_its_deadline and self.session.deadline_s == NEVER):
                return
            if at_its_deadline:
                self.now_s = max(self.now_s, self.session.deadline_s)
            expected = self.due()
            assert self.session.tick(now_s=self.now_s) == expected
            self.may_wake_early = False
            self.obey(expected)

    def due(self) -> list[Action]:
        over = {what for what, at_s in self.waits.items() if self.now_s >= at_s}
        for what, end in (
            ("stale", codes.STALE),
            ("pong", codes.NO_PONG),
            ("expiry", codes.CONNECTION_EXPIRED),
        ):
            if what in over and not (what == "expiry" and self.session.is_refreshed_by_server):
                return [end]
        ended = [name for name, at_s in self.ends().items() if self.now_s >= at_s]
        asked_about = {name for name in ended if self.subscriptions[name].is_refreshed_by_server}
        if any(self.subscriptions[name].is_server_side and name not in asked_about for name in ended):
            return [codes.SUBSCRIPTION_EXPIRED]
        due: list[Action] = [
            SubscriptionRefreshDue(name) if name in asked_about else SubscriptionExpired(name) for name in ended
        ]
        due += [RefreshDue()] if "expiry" in over else []
        return [*due, SendPing()] if "ping" in over else due

    def obey(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case SendPing():
                    self.waits["ping"] = self.now_s + self.settings.ping_interval_s
                    if self.settings.pong_timeout_s:
                        self.waits["pong"] = self.now_s + self.settings.pong_timeout_s
                case SubscriptionExpired(channel):
                    self.leave(channel)
                case RefreshDue():
                    self.waits["expiry"] = self.now_s + REFRESH_AGAIN_S
                case SubscriptionRefreshDue(channel):
                    again_s = self.now_s + REFRESH_AGAIN_S
                    self.subscriptions[channel] = self.subscriptions[channel]._replace(expires_at_s=again_s)
                case Disconnect():
                    self.close()

    @precondition(lambda self: self.is_in(*State))
    @rule()
    def close(self) -> None:
        self.session.close()
        self.waits, self.subscriptions = {}, {}

    @invariant()
    def waits_for_what_is_due_first(self) -> None:
        """Never for later; for earlier at most until the tick after a subscription was left."""
        if not hasattr(self, "session"):
            return
        earliest_s = min([*self.waits.values(), *self.ends().values()], default=NEVER)
        assert self.session.deadline_s <= earliest_s
        assert self.session.deadline_s == earliest_s or self.may_wake_early

    @invariant()
    def waits_for_nothing_once_closed(self) -> None:
        if self.is_in(State.CLOSED):
            assert self.session.deadline_s == NEVER

    @invariant()
    def is_in_the_channels_that_it_joined(self) -> None:
        if self.is_in(*set(State) - {State.CLOSED}):
            assert list(self.session.subscriptions) == list(self.subscriptions)


TestSession = Model.TestCase
TestSession.settings = settings(deadline=None, max_examples=200, stateful_step_count=40)
