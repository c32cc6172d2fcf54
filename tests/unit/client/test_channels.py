"""Subscribing, recovering, refreshing: protocol.md 3.3 to 3.7 and 4.3, from the client's side."""

from typing import Any

import pytest

from gateway.client.endings import Ending, Kind
from gateway.client.errors import (
    ClientError,
    InvalidArgumentError,
    SubscribeRejectedError,
    UnauthorizedError,
    UnsubscribedError,
)
from gateway.client.events import (
    Connected,
    Joined,
    Left,
    Published,
    Resubscribing,
    Subscribed,
    SubscriptionState,
    Unsubscribed,
)
from gateway.client.settings import SubscriptionSettings
from gateway.protocol.messages import ClientInfo, StreamPosition
from tests.unit.client.dialogue import Dialogue, no_token

RESET = Ending(Kind.NETWORK, "reset", 1006)
EXPIRED: dict[str, Any] = {"code": 109, "message": "token expired"}
BUSY: dict[str, Any] = {"code": 100, "message": "internal server error", "temporary": True}
DENIED: dict[str, Any] = {"code": 103, "message": "permission denied"}


def connected() -> Dialogue:
    dialogue = Dialogue()
    dialogue.connect()
    return dialogue


def confirmed(position: StreamPosition, *, was_recovering: bool = False, recovered: bool = False) -> Subscribed:
    return Subscribed("news", position, was_recovering, recovered)


def test_it_asks_with_token_data_and_wishes_and_is_told() -> None:
    dialogue = connected()
    _, notes = dialogue.join("news", token="t", wishes=SubscriptionSettings(join_leave=True))
    (command,) = dialogue.sent()
    expected = {"channel": "news", "token": "t", "recoverable": True, "join_leave": True}
    assert command["subscribe"] == expected
    dialogue.say({"id": command["id"], "subscribe": {"recoverable": True, "epoch": "e", "offset": 7}})
    assert notes.events == [confirmed(StreamPosition(7, "e"))]


def test_publications_are_delivered_and_move_the_position() -> None:
    dialogue = connected()
    membership, notes = dialogue.subscribed("news")
    dialogue.push("news", pub={"data": {"n": 1}, "offset": 1, "epoch": "e"})
    dialogue.push("news", pub={"data": 2, "offset": 2})
    dialogue.push("other", pub={"data": 3, "offset": 9})
    assert notes.publications == [({"n": 1}, 1), (2, 2)]
    assert membership.position == StreamPosition(2, "e")


def test_publications_without_a_stream_have_no_position() -> None:
    dialogue = connected()
    membership, notes = dialogue.subscribed("news")
    dialogue.push("news", pub={"data": 1})
    assert (notes.publications, membership.position) == ([(1, 0)], StreamPosition())


def test_after_a_lost_connection_it_goes_on_where_it_was() -> None:
    dialogue = connected()
    membership, notes = dialogue.subscribed("news", recoverable=True, epoch="e", offset=5)
    dialogue.push("news", pub={"data": "six", "offset": 6})
    dialogue.lose(RESET)
    (_, command) = dialogue.connect()
    expected = {"channel": "news", "recover": True, "epoch": "e", "offset": 6, "recoverable": True}
    assert command["subscribe"] == expected
    reply = {"recoverable": True, "epoch": "e", "offset": 6, "recovered": True, "was_recovering": True}
    dialogue.say({"id": command["id"], "subscribe": reply | {"publications": [{"data": "seven", "offset": 7}]}})
    assert notes.events == [
        confirmed(StreamPosition(5, "e")),
        Resubscribing("news", 1006, "reset"),
        confirmed(StreamPosition(6, "e"), was_recovering=True, recovered=True),
    ]
    assert notes.publications == [("six", 6), ("seven", 7)]
    assert membership.position == StreamPosition(7, "e")


@pytest.mark.parametrize(
    ("reply", "may_miss", "asks_to_recover"),
    [
        ({"recoverable": True, "epoch": "new", "offset": 3, "was_recovering": True}, True, True),
        ({"recoverable": True, "epoch": "e", "offset": 9, "was_recovering": True}, True, True),
        ({}, True, False),
    ],
)
def test_what_could_not_be_recovered_is_told(reply: dict[str, Any], *, may_miss: bool, asks_to_recover: bool) -> None:
    dialogue = connected()
    membership, notes = dialogue.subscribed("news", recoverable=True, epoch="e", offset=5)
    dialogue.lose(RESET)
    (_, command) = dialogue.connect()
    dialogue.say({"id": command["id"], "subscribe": reply})
    told = notes.events[-1]
    assert isinstance(told, Subscribed)
    assert told.may_have_missed is may_miss
    assert membership.position == StreamPosition(reply.get("offset", 0), reply.get("epoch", ""))
    assert membership.request().recover is asks_to_recover


def test_a_channel_without_recovery_says_that_something_may_be_missing() -> None:
    dialogue = connected()
    _, notes = dialogue.subscribed("news")
    assert notes.events == [confirmed(StreamPosition())]
    dialogue.lose(RESET)
    (_, command) = dialogue.connect()
    assert "recover" not in command["subscribe"]
    dialogue.say({"id": command["id"], "subscribe": {}})
    assert notes.events[-1] == confirmed(StreamPosition(), was_recovering=True)


def test_a_stored_position_is_where_it_begins() -> None:
    dialogue = connected()
    _, notes = dialogue.join("news", wishes=SubscriptionSettings(since=StreamPosition(4, "e")))
    (command,) = dialogue.sent()
    assert command["subscribe"]["recover"] is True
    assert (command["subscribe"]["offset"], command["subscribe"]["epoch"]) == (4, "e")
    dialogue.say({"id": command["id"], "subscribe": {"epoch": "e", "offset": 4, "recovered": True}})
    assert notes.events == [confirmed(StreamPosition(4, "e"), was_recovering=True, recovered=True)]


# Unsubscribe pushes (protocol.md 4.3).


@pytest.mark.parametrize("code", [2000, 2100, 2499])
def test_below_2500_it_is_over(code: int) -> None:
    dialogue = connected()
    membership, notes = dialogue.subscribed("news")
    dialogue.push("news", unsubscribe={"code": code, "reason": "because"})
    assert dialogue.sent() == []
    assert notes.events[-1] == Unsubscribed("news", code, "because")
    (error,) = notes.errors
    assert isinstance(error, UnsubscribedError)
    assert (error.channel, error.code) == ("news", code)
    assert membership.state is SubscriptionState.UNSUBSCRIBED
    dialogue.join("news")  # it is free again


@pytest.mark.parametrize("code", [2500, 2600, 2999])
def test_from_2500_on_it_subscribes_again_at_once_and_recovers(code: int) -> None:
    dialogue = connected()
    _, notes = dialogue.subscribed("news", recoverable=True, epoch="e", offset=5)
    dialogue.push("news", unsubscribe={"code": code, "reason": "insufficient state"})
    (command,) = dialogue.sent()
    assert (command["subscribe"]["recover"], command["subscribe"]["offset"]) == (True, 5)
    assert notes.events[-1] == Resubscribing("news", code, "insufficient state")


def test_an_expired_subscription_gets_another_token_first() -> None:
    dialogue = connected()
    membership, _ = dialogue.join("news", token="old", source=no_token)
    dialogue.answer("subscribe", {"expires": True, "ttl": 100})
    dialogue.push("news", unsubscribe={"code": 2501, "reason": "subscription expired"})
    assert (dialogue.sent(), dialogue.session.agenda.wants_tokens) == ([], [membership])
    dialogue.session.take_token(membership, "new", now_s=dialogue.now_s)
    assert [each["subscribe"]["token"] for each in dialogue.sent()] == ["new"]


def test_invalidated_state_costs_token_and_position() -> None:
    dialogue = connected()
    membership, _ = dialogue.join("news", token="old", source=no_token)
    dialogue.answer("subscribe", {"recoverable": True, "epoch": "e", "offset": 5})
    dialogue.push("news", unsubscribe={"code": 2502, "reason": "state invalidated"})
    dialogue.session.take_token(membership, "new", now_s=dialogue.now_s)
    (command,) = dialogue.sent()
    expected = {"channel": "news", "token": "new", "recover": True, "epoch": "_", "recoverable": True}
    assert command["subscribe"] == expected


def test_a_disconnect_for_invalidated_state_costs_all_positions() -> None:
    dialogue = connected()
    dialogue.subscribed("news", recoverable=True, epoch="e", offset=5)
    dialogue.lose(Ending(Kind.CLOSE, "state invalidated", 3014))
    (_, command) = dialogue.connect()
    assert (command["subscribe"]["epoch"], command["subscribe"].get("offset")) == ("_", None)


# Errors of subscribe (protocol.md 4.1).


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DENIED, SubscribeRejectedError),
        ({"code": 102, "message": "unknown channel"}, SubscribeRejectedError),
        ({"code": 105, "message": "already subscribed"}, SubscribeRejectedError),
        ({"code": 106, "message": "limit exceeded"}, SubscribeRejectedError),
        (EXPIRED, UnauthorizedError),
    ],
)
def test_an_error_for_good_ends_it(error: dict[str, Any], kind: type[ClientError]) -> None:
    dialogue = connected()
    membership, notes = dialogue.join("news", token="t")
    dialogue.answer("subscribe", **error)
    assert [(type(each), each.code if each else 0) for each in notes.errors] == [(kind, error["code"])]
    assert notes.events == [Unsubscribed("news", error["code"], error["message"])]
    assert membership.state is SubscriptionState.UNSUBSCRIBED
    dialogue.pass_time(100)
    assert dialogue.sent() == []


@pytest.mark.parametrize("error", [BUSY, {"code": 111, "message": "too many requests", "temporary": True}, {"code": 5}])
def test_an_error_for_now_is_followed_by_another_attempt(error: dict[str, Any]) -> None:
    dialogue = connected()
    membership, notes = dialogue.join("news")
    waits = []
    for limit_s in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0):
        dialogue.answer("subscribe", **error)
        wait_s = membership.retry_at_s - dialogue.now_s
        assert dialogue.session.agenda.wake_at_s <= membership.retry_at_s
        assert 0 <= wait_s <= limit_s
        waits.append(wait_s)
        dialogue.pass_time(wait_s + 0.001)
    assert len(set(waits)) == len(waits), "they should be spread by chance"
    dialogue.answer("subscribe")
    assert notes.events == [confirmed(StreamPosition())]


def test_an_expired_token_is_replaced_and_another_attempt_made() -> None:
    dialogue = connected()
    membership, notes = dialogue.join("news", token="old", source=no_token)
    dialogue.answer("subscribe", **EXPIRED)
    dialogue.pass_time(0.5)
    assert dialogue.session.agenda.wants_tokens == [membership]
    dialogue.session.take_token(membership, "new", now_s=dialogue.now_s)
    dialogue.answer("subscribe")
    assert notes.events == [confirmed(StreamPosition())]


# Subscription tokens (protocol.md 3.7).


def test_a_token_is_fetched_before_it_subscribes_and_kept_for_the_next_time() -> None:
    dialogue = connected()
    membership, _ = dialogue.join("news", source=no_token)
    assert (dialogue.sent(), dialogue.session.agenda.wants_tokens) == ([], [membership])
    dialogue.session.take_token(membership, "t", now_s=dialogue.now_s)
    dialogue.answer("subscribe")
    dialogue.lose(RESET)
    assert [each["subscribe"]["token"] for each in dialogue.connect()[1:]] == ["t"]


def test_a_token_that_comes_after_the_connection_was_lost_is_for_the_next_one() -> None:
    dialogue = connected()
    membership, _ = dialogue.join("news", source=no_token)
    dialogue.lose(RESET)
    dialogue.session.take_token(membership, "t", now_s=dialogue.now_s)
    assert [each["subscribe"]["token"] for each in dialogue.connect()[1:]] == ["t"]


def test_while_a_token_is_being_fetched_no_other_is() -> None:
    dialogue = connected()
    membership, _ = dialogue.join("news", source=no_token)
    dialogue.lose(RESET)
    dialogue.connect()
    assert dialogue.session.agenda.wants_tokens == [membership]


def test_a_subscription_token_is_renewed_when_it_ends() -> None:
    dialogue = connected()
    membership, _ = dialogue.join("news", token="t", source=no_token)
    dialogue.answer("subscribe", {"expires": True, "ttl": 30})
    dialogue.pass_time(30)
    assert dialogue.session.agenda.wants_tokens == [membership]
    dialogue.session.agenda.wants_tokens.clear()
    dialogue.session.take_token(membership, "new", now_s=dialogue.now_s)
    dialogue.answer("sub_refresh", {"expires": True, "ttl": 20})
    dialogue.pass_time(20)
    assert dialogue.session.agenda.wants_tokens == [membership]


def test_a_renewal_that_fails_for_now_is_repeated_and_one_that_is_refused_ends_it() -> None:
    dialogue = connected()
    membership, notes = dialogue.join("news", token="t", source=no_token)
    dialogue.answer("subscribe", {"expires": True, "ttl": 30})
    dialogue.session.take_token(membership, "new", now_s=dialogue.now_s)
    dialogue.answer("sub_refresh", **BUSY)
    dialogue.pass_time(20)
    assert dialogue.session.agenda.wants_tokens == [membership]
    dialogue.session.take_token(membership, "newer", now_s=dialogue.now_s)
    dialogue.answer("sub_refresh", **DENIED)
    assert [sorted(each)[1] for each in dialogue.sent()] == ["unsubscribe"]
    assert [type(each) for each in notes.errors] == [SubscribeRejectedError]


def test_a_token_function_that_fails_for_now_is_called_again() -> None:
    dialogue = connected()
    membership, notes = dialogue.join("news", source=no_token)
    dialogue.session.agenda.wants_tokens.clear()
    dialogue.session.miss_token(membership, OSError("down"), now_s=dialogue.now_s)
    dialogue.pass_time(0.5)
    assert dialogue.session.agenda.wants_tokens == [membership]
    dialogue.session.miss_token(membership, UnauthorizedError("no", to_do="ask"), now_s=dialogue.now_s)
    assert [type(each) for each in notes.errors] == [UnauthorizedError]


# Leaving.


def test_leaving_tells_the_server_and_ends_delivery() -> None:
    dialogue = connected()
    membership, notes = dialogue.subscribed("news")
    dialogue.session.leave(membership, now_s=dialogue.now_s)
    dialogue.session.leave(membership, now_s=dialogue.now_s)
    assert [each["unsubscribe"] for each in dialogue.sent()] == [{"channel": "news"}]
    dialogue.push("news", pub={"data": 1})
    dialogue.push("news", unsubscribe={"code": 2000, "reason": "late"})
    assert (notes.publications, notes.errors) == ([], [None])


def test_the_late_reply_to_a_channel_that_was_left_is_not_the_next_ones() -> None:
    dialogue = connected()
    first, _ = dialogue.join("news")
    (asked,) = dialogue.sent()
    dialogue.session.leave(first, now_s=dialogue.now_s)
    _, notes = dialogue.join("news")
    assert [sorted(each)[1] for each in dialogue.sent()] == ["unsubscribe", "subscribe"]
    dialogue.say({"id": asked["id"], "subscribe": {"offset": 9}})
    assert notes.events == []


def test_a_channel_is_joined_once() -> None:
    dialogue = connected()
    dialogue.join("news")
    with pytest.raises(InvalidArgumentError, match="subscribed already"):
        dialogue.join("news")


def test_a_reader_that_leaves_while_it_recovers_gets_no_more() -> None:
    dialogue = connected()
    membership, notes = dialogue.join("news", wishes=SubscriptionSettings(since=StreamPosition(0, "e")))

    def leave(event: object) -> None:
        del event
        dialogue.session.leave(membership, now_s=dialogue.now_s)

    notes.tell = leave  # type: ignore[method-assign]
    dialogue.answer("subscribe", {"recovered": True, "publications": [{"data": 1, "offset": 1}]})
    assert notes.publications == []


def test_joins_and_leaves_are_told() -> None:
    dialogue = connected()
    _, notes = dialogue.subscribed("news")
    info = {"user": "ann", "client": "c2"}
    dialogue.push("news", join={"info": info})
    dialogue.push("news", leave={"info": info})
    ann = ClientInfo("ann", "c2")
    assert notes.events[1:] == [Joined("news", ann), Left("news", ann)]


# Subscriptions that the server makes (protocol.md 3.3).


def test_server_side_subscriptions_are_told_with_the_clients_own_events() -> None:
    dialogue = Dialogue()
    dialogue.connect(subs={"mine": {"recoverable": True, "epoch": "e", "offset": 1}})
    dialogue.push("mine", pub={"data": "two", "offset": 2})
    dialogue.push("more", subscribe={})
    dialogue.push("more", unsubscribe={"code": 2000, "reason": "server unsubscribe"})
    connected_, subscribed, published, more, gone = dialogue.events
    assert isinstance(connected_, Connected)
    assert subscribed == Subscribed("mine", StreamPosition(1, "e"), was_recovering=False, recovered=False)
    assert isinstance(published, Published)
    assert (published.channel, published.publication.json()) == ("mine", "two")
    assert more == Subscribed("more", StreamPosition(), was_recovering=False, recovered=False)
    assert gone == Unsubscribed("more", 2000, "server unsubscribe")


def test_server_side_subscriptions_recover_with_the_greeting_and_may_be_gone() -> None:
    dialogue = Dialogue()
    dialogue.connect(subs={"mine": {"recoverable": True, "epoch": "e", "offset": 1}, "other": {}})
    dialogue.push("mine", pub={"data": "two", "offset": 2})
    dialogue.lose(RESET)
    dialogue.events.clear()
    reply = {"recoverable": True, "epoch": "e", "offset": 2, "recovered": True, "was_recovering": True}
    sent = dialogue.connect(subs={"mine": reply | {"publications": [{"data": "three", "offset": 3}]}})
    assert [each["connect"]["subs"] for each in sent] == [{"mine": {"recover": True, "epoch": "e", "offset": 2}}]
    _, gone, subscribed, published = dialogue.events
    assert gone == Unsubscribed("other", 2000, "server unsubscribe")
    assert subscribed == Subscribed("mine", StreamPosition(2, "e"), was_recovering=True, recovered=True)
    assert isinstance(published, Published)
    assert published.publication.json() == "three"
