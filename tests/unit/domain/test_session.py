"""The session: its deadlines one by one, its decisions. tests/properties has it as a state machine."""

from collections.abc import Callable

import msgspec
import pytest
from pydantic import ValidationError

from gateway.domain.channels import Channel, Channels, ChannelSettings, Namespace
from gateway.domain.identity import Identity
from gateway.domain.session import (
    MAX_TTL_S,
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
    ttl,
)
from gateway.domain.wheel import NEVER
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect, ErrorCode
from gateway.protocol.messages import ClientInfo

NOW = 1000.0
UNIX = 1_700_000_000.0
SETTINGS = SessionSettings(
    ping_interval_s=20.0,
    pong_timeout_s=8.0,
    stale_close_delay_s=10.0,
    refused_close_delay_s=1.0,
    expired_close_delay_s=25.0,
    expired_sub_close_delay_s=30.0,
    channel_limit=3,
)
SETTINGS_WITHOUT_PINGS = SessionSettings(ping_interval_s=1e9, pong_timeout_s=0.0, expired_close_delay_s=25.0)
CHANNELS = Channels(ChannelSettings(namespaces=[Namespace(name="chat", channel_regex="^.*$")]))
BEFORE = 0.001


def opened(settings: SessionSettings = SETTINGS) -> Session:
    return Session("c1", settings, now_s=NOW)


def connected(
    settings: SessionSettings = SETTINGS, *, expires_in_s: int = 0, random: float = 0.0, user: str = "42"
) -> Session:
    session = opened(settings)
    session.state = State.AUTHENTICATING
    identity = Identity(user=user, expires_at_s=int(UNIX) + expires_in_s if expires_in_s else 0)
    session.accept(identity, now_s=NOW, unix_s=UNIX, random=random)
    return session


def joined(
    session: Session,
    name: str,
    *,
    expires_at_s: float = NEVER,
    is_server_side: bool = False,
    is_refreshed_by_server: bool = False,
) -> Subscription:
    channel = CHANNELS.resolve(name)
    assert isinstance(channel, Channel)
    subscription = Subscription(
        channel,
        info=session.info,
        is_server_side=is_server_side,
        expires_at_s=expires_at_s,
        is_refreshed_by_server=is_refreshed_by_server,
    )
    session.join(subscription)
    return subscription


def run(session: Session, *, until_s: float, answers: bool = True) -> list[tuple[float, list[Action]]]:
    """Tick at each deadline, as the wheel does, and answer pings if asked; return what was due and when."""
    due: list[tuple[float, list[Action]]] = []
    while session.deadline_s <= until_s:
        now_s = session.deadline_s
        actions = session.tick(now_s=now_s)
        assert actions or session.deadline_s > now_s, "a tick at a deadline did nothing and will be asked for again"
        if actions:
            due.append((now_s - NOW, actions))
        for action in actions:
            match action:
                case SendPing() if answers:
                    assert session.pong() is None
                case SendPing():
                    pass
                case SubscriptionExpired(channel):
                    session.leave(channel)
                case RefreshDue() | SubscriptionRefreshDue():
                    pass
                case Disconnect():
                    session.close()
    return due


# Opening.


def test_a_client_that_never_authenticates_is_dropped_at_the_deadline() -> None:
    session = opened()
    assert (session.state, session.deadline_s) == (State.OPENED, NOW + 10)
    assert session.tick(now_s=NOW + 10 - BEFORE) == []
    assert session.tick(now_s=NOW + 10) == [codes.STALE]


def test_a_client_whose_authentication_hangs_is_dropped_at_the_deadline() -> None:
    session = opened()
    session.state = State.AUTHENTICATING
    assert run(session, until_s=NOW + 100) == [(10.0, [codes.STALE])]


@pytest.mark.parametrize(("refused_after_s", "closes_after_s"), [(0.0, 1.0), (5.0, 6.0), (9.5, 10.0)])
def test_a_refused_client_is_closed_a_little_later_but_no_later_than_a_silent_one(
    refused_after_s: float, closes_after_s: float
) -> None:
    session = opened()
    session.refuse(now_s=NOW + refused_after_s)
    assert session.state is State.REFUSED
    assert run(session, until_s=NOW + 100) == [(closes_after_s, [codes.STALE])]


def test_a_session_begins_without_a_user() -> None:
    session = opened()
    assert (session.client_id, session.user, session.info) == ("c1", "", ClientInfo(user="", client="c1"))
    assert (session.subscriptions, session.granted, session.is_expiring) == ({}, frozenset(), False)


# Pings.


@pytest.mark.parametrize(
    ("random", "first_ping_s"), [(0.0, 10.0), (0.5, 15.0), (0.75, 17.5), (1 - 2**-20, 20 - 10 * 2**-20)]
)
def test_the_first_ping_comes_within_the_second_half_of_an_interval_and_then_one_each_interval(
    random: float, first_ping_s: float
) -> None:
    due = run(connected(random=random), until_s=NOW + 70)
    assert [actions for _, actions in due] == [[SendPing()]] * len(due)
    times_s = [time_s for time_s, _ in due]
    assert times_s == pytest.approx([first_ping_s + 20 * index for index in range(len(due))])
    assert 10 <= times_s[0] < 20


def test_a_client_that_leaves_a_ping_unanswered_is_dropped_after_the_pong_timeout() -> None:
    assert run(connected(), until_s=NOW + 100, answers=False) == [(10.0, [SendPing()]), (18.0, [codes.NO_PONG])]


def test_a_ping_that_was_late_gives_the_whole_time_for_its_pong() -> None:
    session = connected()
    assert session.tick(now_s=NOW + 19) == [SendPing()]
    assert session.deadline_s == NOW + 27
    assert session.pong() is None
    assert session.deadline_s == NOW + 39


def test_a_pong_that_nobody_asked_for_violates_the_protocol() -> None:
    assert opened().pong() == codes.PROTOCOL_VIOLATED
    session = connected()
    assert session.pong() == codes.PROTOCOL_VIOLATED
    session.tick(now_s=NOW + 10)
    assert [session.pong(), session.pong()] == [None, codes.PROTOCOL_VIOLATED]


def test_a_pong_is_not_owed_twice() -> None:
    session = connected()
    assert [session.tick(now_s=NOW + 10), session.pong()] == [[SendPing()], None]
    assert session.tick(now_s=NOW + 18) == []
    assert session.tick(now_s=NOW + 30) == [SendPing()]


def test_without_a_pong_timeout_pings_want_no_answer() -> None:
    settings = SessionSettings(ping_interval_s=20.0, pong_timeout_s=0.0)
    due = run(connected(settings), until_s=NOW + 60, answers=False)
    assert due == [(10.0, [SendPing()]), (30.0, [SendPing()]), (50.0, [SendPing()])]


def test_who_can_not_answer_is_pinged_all_the_same_and_its_pong_not_missed() -> None:
    session = Session("c", SessionSettings(ping_interval_s=20.0, pong_timeout_s=8.0), now_s=NOW, expects_pongs=False)
    session.accept(Identity(), now_s=NOW, unix_s=0.0, random=0.0)
    assert [session.tick(now_s=NOW + at_s) for at_s in (10, 18.5, 30, 50)] == [
        [SendPing()],
        [],
        [SendPing()],
        [SendPing()],
    ]
    assert session.pong() == codes.PROTOCOL_VIOLATED


@pytest.mark.parametrize(("pong_s", "ping_s"), [(8.0, 8.0), (9.0, 8.0), (25.0, 20.0)])
def test_a_pong_timeout_that_reaches_the_next_ping_is_refused(pong_s: float, ping_s: float) -> None:
    with pytest.raises(ValidationError, match=rf"pong_timeout \({pong_s:g}s\) must be shorter than ping_interval"):
        SessionSettings(pong_timeout_s=pong_s, ping_interval_s=ping_s)


@pytest.mark.parametrize(("ttl_s", "interval_s"), [(27.0, 27.0), (20.0, 27.0)])
def test_a_presence_that_would_expire_before_it_is_renewed_is_refused(ttl_s: float, interval_s: float) -> None:
    message = rf"presence_ttl \({ttl_s:g}s\) must be longer than presence_update_interval \({interval_s:g}s\)"
    with pytest.raises(ValidationError, match=message):
        SessionSettings(presence_ttl_s=ttl_s, presence_update_interval_s=interval_s)


def test_the_defaults_are_those_of_the_protocol() -> None:
    assert SessionSettings() == SessionSettings(
        ping_interval_s=25.0,
        pong_timeout_s=8.0,
        stale_close_delay_s=10.0,
        expired_close_delay_s=25.0,
        expired_sub_close_delay_s=25.0,
        channel_limit=128,
    )


# Expiry of the connection.


def test_a_connection_ends_when_its_expiry_and_the_delay_have_passed() -> None:
    session = connected(expires_in_s=60)
    assert session.is_expiring
    assert session.tick(now_s=NOW + 85 - BEFORE) == [SendPing()]
    session.pong()
    assert session.tick(now_s=NOW + 85) == [codes.CONNECTION_EXPIRED]


@pytest.mark.parametrize(
    ("expires_in_s", "ends_after_s"), [(100, 125.0), (60, 85.0), (-1000, 50.0), (0, None)], ids=str
)
def test_a_refresh_sets_a_new_expiry_or_none(expires_in_s: int, ends_after_s: float | None) -> None:
    session = connected(expires_in_s=60)
    expires_at_s = int(UNIX) + expires_in_s if expires_in_s else 0
    session.tick(now_s=NOW + 50)
    session.pong()
    session.identify(Identity(user="42", expires_at_s=expires_at_s), now_s=NOW + 50, unix_s=UNIX + 50)
    assert session.is_expiring is bool(expires_in_s)
    if ends_after_s is None:
        assert all(actions == [SendPing()] for _, actions in run(session, until_s=NOW + 500))
    elif ends_after_s == 50.0:
        assert session.tick(now_s=NOW + 50) == [codes.CONNECTION_EXPIRED]
    else:
        assert run(session, until_s=NOW + 500)[-1] == (ends_after_s, [codes.CONNECTION_EXPIRED])


def test_a_refresh_renews_what_is_told_of_the_client_and_keeps_what_a_channel_knows() -> None:
    session = connected()
    subscription = joined(session, "x")
    subscription.info = ClientInfo("42", "c1", chan_info=msgspec.Raw(b'"chan"'))
    plain = joined(session, "y")
    session.identify(Identity(user="42", info=msgspec.Raw(b'"conn"')), now_s=NOW, unix_s=UNIX)
    told = [session.info, subscription.info, plain.info]
    assert [(each.user, each.client, bytes(each.conn_info), bytes(each.chan_info)) for each in told] == [
        ("42", "c1", b'"conn"', b""),
        ("42", "c1", b'"conn"', b'"chan"'),
        ("42", "c1", b'"conn"', b""),
    ]


def test_news_of_a_client_reach_all_its_channels_and_change_no_expiry() -> None:
    session = connected(expires_in_s=100)
    subscription = joined(session, "x")
    subscription.info = ClientInfo("42", "c1", msgspec.Raw(b"1"), msgspec.Raw(b"2"))
    before_s = session.deadline_s
    session.inform(msgspec.Raw(b"3"))
    assert session.info == ClientInfo("42", "c1", msgspec.Raw(b"3"))
    assert subscription.info == ClientInfo("42", "c1", msgspec.Raw(b"3"), msgspec.Raw(b"2"))
    assert session.deadline_s == before_s


def test_an_expiry_that_is_given_later_ends_the_connection_then() -> None:
    session = connected(SETTINGS_WITHOUT_PINGS)
    for expires_in_s in (50.0, 20.0):
        session.expire_at(NOW + expires_in_s)
        assert (session.is_expiring, session.deadline_s) == (True, NOW + expires_in_s + 25.0)
    assert session.tick(now_s=NOW + 45.0) == [codes.CONNECTION_EXPIRED]
    session.expire_at(NEVER)
    assert (session.is_expiring, session.tick(now_s=NOW + 100.0)) == (False, [])


@pytest.mark.parametrize(
    ("expires_at_s", "monotonic_s"),
    [(0, NEVER), (UNIX, NOW), (UNIX + 60, NOW + 60), (UNIX - 60, NOW - 60), (UNIX + 0.5, NOW + 0.5)],
)
def test_an_expiry_moves_to_the_monotonic_clock(expires_at_s: float, monotonic_s: float) -> None:
    assert monotonic_expiry(expires_at_s, now_s=NOW, unix_s=UNIX) == monotonic_s


@pytest.mark.parametrize(
    ("left_s", "told_s"),
    [(600.0, 600), (599.6, 600), (599.4, 599), (1.4, 1), (0.4, 1), (0.0, 1), (-5.0, 1), (1e9, MAX_TTL_S)],
)
def test_a_ttl_is_whole_seconds_at_least_one_at_most_a_year(left_s: float, told_s: int) -> None:
    assert ttl(UNIX + left_s, unix_s=UNIX) == told_s
    assert MAX_TTL_S == 31_536_000


# Expiry of subscriptions.


def test_what_the_backend_decides_it_is_asked_at_the_expiry_and_each_minute_while_it_says_nothing() -> None:
    session = opened(SETTINGS_WITHOUT_PINGS)
    session.is_refreshed_by_server = True
    session.accept(Identity(user="42", expires_at_s=int(UNIX) + 100), now_s=NOW, unix_s=UNIX, random=0)
    due = run(session, until_s=NOW + 250)
    assert due == [(100, [RefreshDue()]), (160, [RefreshDue()]), (220, [RefreshDue()])]
    session.expire_at(NEVER)
    assert run(session, until_s=NOW + 1e6) == []


@pytest.mark.parametrize("is_server_side", [True, False])
def test_so_it_is_about_subscriptions_each_by_itself(*, is_server_side: bool) -> None:
    session = connected(SETTINGS_WITHOUT_PINGS)
    refreshed = joined(session, "a", expires_at_s=NOW + 10, is_server_side=is_server_side, is_refreshed_by_server=True)
    joined(session, "b", expires_at_s=NOW + 20)
    ask = SubscriptionRefreshDue("a")
    assert run(session, until_s=NOW + 80) == [(10, [ask]), (45, [SubscriptionExpired("b")]), (70, [ask])]
    session.refresh_subscription(refreshed, NOW + 500)
    assert run(session, until_s=NOW + 500) == [(500, [ask])]


def test_a_client_side_subscription_ends_alone_when_it_was_not_refreshed() -> None:
    session = connected(SessionSettings(ping_interval_s=1000.0, expired_sub_close_delay_s=30.0))
    joined(session, "stays")
    joined(session, "late", expires_at_s=NOW + 60)
    joined(session, "early", expires_at_s=NOW + 20)
    assert run(session, until_s=NOW + 400) == [
        (50.0, [SubscriptionExpired("early")]),
        (90.0, [SubscriptionExpired("late")]),
    ]
    assert list(session.subscriptions) == ["stays"]


def test_a_server_side_subscription_takes_the_connection_along() -> None:
    session = connected()
    joined(session, "own", expires_at_s=NOW + 5)
    joined(session, "given", expires_at_s=NOW + 5, is_server_side=True)
    assert session.tick(now_s=NOW + 35) == [codes.SUBSCRIPTION_EXPIRED]


def test_subscriptions_that_expire_together_end_together_before_the_ping() -> None:
    session = connected()
    for name in ("a", "b"):
        joined(session, name, expires_at_s=NOW + 1)
    assert session.tick(now_s=NOW + 31) == [SubscriptionExpired("a"), SubscriptionExpired("b"), SendPing()]


@pytest.mark.parametrize(("expires_at_s", "ends_after_s"), [(NOW + 100, 130.0), (NOW + 10, 40.0), (NEVER, None)])
def test_a_refreshed_subscription_lives_to_its_new_end(expires_at_s: float, ends_after_s: float | None) -> None:
    session = connected(SessionSettings(ping_interval_s=1000.0, expired_sub_close_delay_s=30.0))
    subscription = joined(session, "x", expires_at_s=NOW + 60)
    session.refresh_subscription(subscription, expires_at_s)
    due = run(session, until_s=NOW + 400)
    assert due == ([(ends_after_s, [SubscriptionExpired("x")])] if ends_after_s else [])


def test_a_subscription_that_was_left_does_not_expire() -> None:
    session = connected()
    joined(session, "x", expires_at_s=NOW + 1)
    session.leave("x")
    assert session.tick(now_s=NOW + 31) == [SendPing()]


def test_a_subscription_that_was_left_costs_one_idle_tick_and_no_more() -> None:
    session = connected(SessionSettings(ping_interval_s=1000.0))
    joined(session, "x", expires_at_s=NOW + 1)
    assert session.deadline_s == NOW + 26
    session.leave("x")
    assert session.tick(now_s=NOW + 26) == []
    assert session.deadline_s == NOW + 500


# What ends a connection, when several things are due.


def test_of_several_ends_the_gravest_is_told() -> None:
    session = connected(expires_in_s=1)
    session.tick(now_s=NOW + 10)
    joined(session, "given", expires_at_s=NOW + 1, is_server_side=True)
    assert session.tick(now_s=NOW + 1000) == [codes.NO_PONG]
    session.pong()
    assert session.tick(now_s=NOW + 1000) == [codes.CONNECTION_EXPIRED]
    session.identify(Identity(), now_s=NOW + 1000, unix_s=UNIX + 1000)
    assert session.tick(now_s=NOW + 1000) == [codes.SUBSCRIPTION_EXPIRED]


# Closing.


LATE: dict[str, Callable[[Session], object]] = {
    "nothing": lambda _: None,
    "a pong": lambda session: session.pong(),
    "a tick": lambda session: session.tick(now_s=NOW + 12),
    "an unsubscribe": lambda session: session.leave("x"),
    "a second close": lambda session: session.close(),
}


@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
def test_a_closed_session_waits_for_nothing_whatever_comes_late(late: Callable[[Session], object]) -> None:
    session = connected(expires_in_s=60)
    joined(session, "x", expires_at_s=NOW + 60)
    assert session.tick(now_s=NOW + 10) == [SendPing()]
    session.close()
    late(session)
    assert (session.state, session.deadline_s) == (State.CLOSED, NEVER)


def test_for_a_closed_session_nothing_is_due() -> None:
    session = connected(expires_in_s=60)
    session.close()
    assert session.tick(now_s=NOW + 1000) == []


# Joining.


@pytest.mark.parametrize(
    ("channel", "decision"),
    [
        ("", codes.PROTOCOL_VIOLATED),
        ("x" * 255, None),
        ("x" * 256, codes.BAD_REQUEST),
        ("chat:" + "ä" * 125, None),
        ("chat:" + "ä" * 125 + "x", codes.BAD_REQUEST),
        ("in", codes.ALREADY_SUBSCRIBED),
        ("given", codes.ALREADY_SUBSCRIBED),
        ("new", None),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_the_first_step_of_a_subscribe(channel: str, decision: ErrorCode | Disconnect | None) -> None:
    """Protocol.md 3.4, 1: the limit is 255 bytes."""
    session = connected()
    joined(session, "in")
    joined(session, "given", is_server_side=True)
    assert session.refuse_joining(channel, max_length=255) == decision


def test_the_channel_limit_counts_server_side_subscriptions_and_comes_last() -> None:
    session = connected()
    assert SETTINGS.channel_limit == 3
    for name in ("a", "b"):
        joined(session, name)
    assert session.refuse_joining("new", max_length=255) is None
    joined(session, "given", is_server_side=True)
    names = ["new", "a", "x" * 256, ""]
    assert [session.refuse_joining(name, max_length=255) for name in names] == [
        codes.LIMIT_EXCEEDED,
        codes.ALREADY_SUBSCRIBED,
        codes.BAD_REQUEST,
        codes.PROTOCOL_VIOLATED,
    ]
    session.leave("b")
    assert session.refuse_joining("new", max_length=255) is None


def test_leaving_returns_what_was_left_once() -> None:
    session = connected()
    subscription = joined(session, "x")
    assert session.subscriptions == {"x": subscription}
    assert [session.leave("x"), session.leave("x"), session.subscriptions] == [subscription, None, {}]
