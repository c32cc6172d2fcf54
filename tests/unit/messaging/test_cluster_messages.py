"""What nodes tell each other, and whom an order concerns."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.identity import Overrides
from gateway.messaging.control import (
    Announce,
    DisconnectUser,
    Goodbye,
    Message,
    NodeInfo,
    Order,
    RefreshUser,
    SubscribeUser,
    SurveyAnswer,
    SurveyRequest,
    UnsubscribeUser,
    decode,
    encode,
)
from gateway.protocol.codes import FORCE_DISCONNECT, Disconnect
from gateway.protocol.messages import StreamPosition

FULL = SubscribeUser(
    "42",
    client="c",
    session="s",
    channel="a",
    info=b"\xff",
    data=b"{}",
    expires_at_s=1_700_000_000,
    overrides=Overrides(presence=True, force_recovery=False),
    recover_since=StreamPosition(7, "abc"),
)


@pytest.mark.parametrize(
    "message",
    [
        Announce(NodeInfo("uid")),
        Announce(NodeInfo("uid", "name", "1.2.3", 1, 2, 3, 4, 5.5)),
        Goodbye("uid"),
        DisconnectUser("42"),
        DisconnectUser("", client="c", session="s", whitelist=("x", "é"), disconnect=Disconnect(4000, "bye")),
        UnsubscribeUser("42", channel="é \x00"),
        SubscribeUser("42", channel="a"),
        FULL,
        RefreshUser("42"),
        RefreshUser("42", is_expired=True, expires_at_s=5, info=b"{}"),
        SurveyRequest("uid", 1, "channels", b"\x00"),
        SurveyAnswer("uid", 1, b""),
        SurveyAnswer("uid", 1, None),
    ],
    ids=repr,
)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    assert decode(encode(message)) == message


def pack(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def test_a_field_of_a_later_version_is_ignored() -> None:
    later = {"type": "goodbye", "uid": "u", "reason": {"code": 1, "more": [None]}}
    assert decode(pack(later)) == Goodbye("u")


def test_a_field_that_an_earlier_version_does_not_send_has_its_default() -> None:
    assert decode(pack({"type": "disconnect", "user": "42"})) == DisconnectUser("42", disconnect=FORCE_DISCONNECT)
    assert decode(pack({"type": "announce", "node": {"uid": "u"}})) == Announce(NodeInfo("u"))


@pytest.mark.parametrize(
    "message",
    [
        pack({"type": "emulate", "data": b""}),
        pack({"type": "disconnect"}),
        pack({"type": "goodbye", "uid": 7}),
        pack({"type": 5}),
        pack({}),
        pack([1]),
        pack({"type": "goodbye", "uid": "u"})[:-1],
        b"\x82\xa4type\xa7goodbye\xa3uid\xa2\xff\xfe",
        b"\x91" * 100_000,
        b"",
    ],
    ids=["unknown", "no user", "other type", "tag", "empty map", "list", "cut", "no UTF-8", "deep", "nothing"],
)
def test_what_this_version_does_not_know_is_nothing(message: bytes) -> None:
    assert decode(message) is None


@given(message=st.binary(max_size=60))
def test_no_bytes_do_harm(message: bytes) -> None:
    assert decode(message) is None


@pytest.mark.parametrize(
    ("order", "user", "expected"),
    [
        (UnsubscribeUser("1", channel="a"), "1", True),
        (UnsubscribeUser("1", channel="a"), "2", False),
        (UnsubscribeUser("1", channel="a"), "", False),
        (UnsubscribeUser("", channel="a"), "", True),
        (UnsubscribeUser("", channel="a"), "1", False),
        (SubscribeUser("1", channel="a", client="c"), "1", True),
        (SubscribeUser("1", channel="a", client="other"), "1", False),
        (SubscribeUser("2", channel="a", client="c"), "1", False),
        (RefreshUser("1", session="s"), "1", True),
        (RefreshUser("1", session="other"), "1", False),
        (RefreshUser("1", client="c", session="other"), "1", False),
        (DisconnectUser("1"), "1", True),
        (DisconnectUser("1", whitelist=("c",)), "1", False),
        (DisconnectUser("1", client="c", whitelist=("c",)), "1", False),
        (DisconnectUser("1", whitelist=("other",)), "1", True),
        (DisconnectUser("2", whitelist=("other",)), "1", False),
    ],
)
def test_an_order_concerns_the_users_connections_or_the_one_it_names(order: Order, user: str, expected: bool) -> None:  # noqa: FBT001 - a column of the table
    assert order.concerns(user, client="c", session="s") is expected
