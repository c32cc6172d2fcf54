"""Admins at a node: what they may do, what nobody sees of it, and what they are counted as."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.domain.channels import Channels, ChannelSettings
from gateway.domain.counts import Ledger
from gateway.messaging.admins import MAX_ADMINS, Admins, Credentials
from gateway.messaging.control import DisconnectUser
from gateway.messaging.handlers import Request
from gateway.messaging.orders import LocalOrders
from gateway.protocol.framing import TEXT, WebSocketFraming
from gateway.protocol.tap_codec import SHOWN_BYTES
from gateway.protocol.variants import TapVariant
from tests.support.conversations import Client, FakeTransport, House, at, house

OPEN = {"allow_subscribe_for_client": True}
WATCHED = {"presence": True, "join_leave": True, "force_push_join_leave": True, "allow_presence_for_client": True}
TABLE: dict[str, Any] = {
    "channel": {
        "without_namespace": OPEN,
        "namespaces": [
            {"name": "watched", **OPEN, **WATCHED},
            {"name": "closed"},
            {"name": "limited", "allow_user_limited_channels": True},
            {"name": "binary", "publication_data_format": "binary"},
            {"name": "any", "publication_data_format": "any"},
            {"name": "stream", "history_size": 10, "history_ttl": 60, "force_recovery": True},
            {
                "name": "cache",
                "history_size": 10,
                "history_ttl": 60,
                "force_recovery": True,
                "force_recovery_mode": "cache",
                "auto_cache_recover": True,
            },
        ],
    }
}


class Office:
    """A house with admins in it."""

    def __init__(self, node: House) -> None:
        self.node = node
        self.sessions = {"s1", "s2"}
        self.admins = Admins(node.services, {"shout": _shout})
        self.variant = TapVariant(WebSocketFraming(TEXT), max_depth=128)

    def open(self, key: str = "ops", session: str = "s1", *, lasts_s: float = 3600.0) -> Client:
        transport = FakeTransport()
        credentials = Credentials(key, session, at(lasts_s), lambda: session in self.sessions)
        return Client(self.node, self.admins.converse(transport, self.variant, credentials), transport)

    async def log_in(self, *channels: str, **how: Any) -> Client:
        """Open a connection, connect, and tap *channels*."""
        admin = self.open(**how)
        replies = await admin.ask({"id": 1, "connect": {"token": "session"}})
        assert "connect" in replies[0], replies
        for number, channel in enumerate(channels, start=2):
            replies = await admin.ask({"id": number, "subscribe": {"channel": channel, "token": "tap"}})
            assert "subscribe" in replies[0], replies
        return admin


async def _shout(request: Request) -> str:
    return json.dumps({"by": request.user, "said": json.loads(request.data)["text"].upper()})


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    async with house(TABLE) as node:
        office = Office(node)
        yield office
        office.admins.send_away()


async def test_an_admin_is_who_its_session_says_until_that_ends(office: Office) -> None:
    admin = office.open("ops", lasts_s=90.0)
    [reply] = await admin.ask({"id": 1, "connect": {"token": "anything", "name": "admin page"}})
    assert reply["connect"]["expires"]
    assert reply["connect"]["ttl"] == 90
    assert admin.conversation.session.user == "ops"

    await office.node.advance(88)
    assert admin.closing is None or admin.closing[0] == 3012
    late = office.open("ops", lasts_s=89.0)
    await late.ask({"id": 1, "connect": {"token": "anything"}})
    await office.node.advance(2)
    assert late.closing == (3005, "connection expired")


@pytest.mark.parametrize(
    "channel",
    ["open", "$private", "closed:1", "$closed:1", "limited:#7", "binary:1", "any:1", "stream:1", "cache:1"],
)
async def test_an_admin_taps_any_channel(office: Office, channel: str) -> None:
    admin = await office.log_in(channel)
    office.node.publish(channel, b'{"n": 1.50}')
    await office.node.settle()
    [push] = admin.take_values()
    assert push["push"]["channel"] == channel
    assert push["push"]["pub"]["data"] == {"size": 11, "text": '{"n": 1.50}'}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        pytest.param(b"<b>no JSON", {"size": 10, "text": "<b>no JSON"}, id="text"),
        pytest.param(b"", {"size": 0}, id="nothing"),
        pytest.param(b"\xff\x00", {"size": 2, "b64": "/wA="}, id="bytes"),
        pytest.param(
            "é".encode() * SHOWN_BYTES, {"size": 2 * SHOWN_BYTES, "text": "é" * (SHOWN_BYTES // 2)}, id="long"
        ),
        pytest.param(
            b"x" + "é".encode() * SHOWN_BYTES,
            {"size": 2 * SHOWN_BYTES + 1, "text": "x" + "é" * (SHOWN_BYTES // 2 - 1)},
            id="cut inside a letter",
        ),
        pytest.param(b'"a\nb"', {"size": 5, "text": '"a\nb"'}, id="line ends"),
    ],
)
async def test_a_tap_shows_any_payload_as_it_was_written(
    office: Office, payload: bytes, expected: dict[str, Any]
) -> None:
    admin = await office.log_in("any:1")
    office.node.publish("any:1", payload)
    await office.node.settle()
    [push] = admin.take_values()
    assert push["push"]["pub"]["data"] == expected


async def test_nobody_in_the_channel_sees_a_tap(office: Office) -> None:
    client = await office.node.connect("ann")
    await client.ask({"id": 2, "subscribe": {"channel": "watched:1"}})
    admin = await office.log_in("watched:1")
    await admin.ask({"id": 9, "unsubscribe": {"channel": "watched:1"}})
    await admin.ask({"id": 10, "subscribe": {"channel": "watched:1", "token": "tap"}})

    [reply] = await client.ask({"id": 9, "presence": {"channel": "watched:1"}})
    assert set(reply["presence"]["presence"]) == {client.id}
    assert dict(LocalOrders(office.node.services).channels()) == {"watched:1": 1}
    assert client.take() == []


async def test_a_channel_that_is_only_tapped_is_no_active_channel(office: Office) -> None:
    await office.log_in("open", "stream:1")
    assert dict(LocalOrders(office.node.services).channels()) == {}


async def test_admins_are_no_connections_and_what_they_do_is_counted_apart(office: Office) -> None:
    await office.node.connect("ops", "open")
    before = office.node.counts.commands.copy(), office.node.counts.flow_of_all.messages_in
    admin = await office.log_in("open")
    assert len(office.node.services.connections) == 1
    assert (office.node.counts.commands, office.node.counts.flow_of_all.messages_in) == before
    assert office.admins.counts.commands == {"connect": 1, "subscribe": 1}
    assert len(office.admins.connections) == 1

    LocalOrders(office.node.services).disconnect(DisconnectUser("ops"))
    assert admin.closing is None, "a user of the key's name is somebody else"


async def test_the_books_add_up_with_a_tap_among_the_subscribers(office: Office) -> None:
    client = await office.node.connect("ann", "open")
    admin = await office.log_in("open")
    office.node.publish("open", b"1")
    await office.node.settle()
    admin.transport.is_full = True
    office.node.publish("open", b"2")
    await office.node.settle()

    ledger = office.node.counts.ledger("")
    assert (ledger.due, ledger.delivered, dict(ledger.dropped)) == (4, 3, {"slow": 1})
    assert isinstance(ledger, Ledger)
    assert admin.closing == (3008, "slow")
    assert [value["push"]["pub"]["data"] for value in client.take_values() if "pub" in value["push"]] == [1, 2]
    assert office.admins.counts.disconnects == {3008: 1}
    assert office.node.counts.disconnects == {}


async def test_an_admin_calls_what_there_is_to_call(office: Office) -> None:
    admin = await office.log_in()
    [reply] = await admin.ask({"id": 5, "rpc": {"method": "shout", "data": {"text": "hi"}}})
    assert reply == {"id": 5, "rpc": {"data": {"by": "ops", "said": "HI"}}}
    [reply] = await admin.ask({"id": 6, "rpc": {"method": "whisper", "data": {}}})
    assert reply["error"]["code"] == 104


async def test_an_admin_may_not_publish_as_a_client_where_clients_may_not(office: Office) -> None:
    admin = await office.log_in()
    [reply] = await admin.ask({"id": 5, "publish": {"channel": "closed:1", "data": {}}})
    assert reply["error"]["code"] == 103


async def test_who_logs_out_is_sent_away_and_nobody_else(office: Office) -> None:
    one, other = await office.log_in(session="s1"), await office.log_in(session="s2")
    office.admins.end("s1")
    assert one.closing == (3500, "invalid token")
    assert other.closing is None


async def test_a_session_that_is_no_more_is_found_out(office: Office) -> None:
    one, other = await office.log_in(session="s1"), await office.log_in(session="s2")
    office.sessions.discard("s1")
    office.admins.check()
    assert one.closing == (3500, "invalid token")
    assert other.closing is None


async def test_who_goes_by_rules_that_are_no_more_comes_back_under_the_new_ones(office: Office) -> None:
    admin = await office.log_in()
    office.admins.check()
    assert admin.closing is None
    office.node.services.channels = Channels(ChannelSettings())
    office.admins.check()
    assert admin.closing == (3011, "force reconnect")
    again = await office.log_in()
    office.admins.check()
    assert again.closing is None


async def test_who_stops_sends_everybody_away(office: Office) -> None:
    admins = [await office.log_in() for _ in range(3)]
    office.admins.send_away()
    assert [admin.closing for admin in admins] == [(3001, "shutdown")] * 3
    assert len(office.admins.connections) == 0
    assert not office.admins.is_open


async def test_there_is_a_limit_to_open_pages(office: Office) -> None:
    admins = [office.open() for _ in range(MAX_ADMINS - 1)]
    assert not office.admins.is_full
    admins.append(office.open())
    assert office.admins.is_full
    admins[0].go()
    assert not office.admins.is_full
