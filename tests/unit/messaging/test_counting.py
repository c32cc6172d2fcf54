"""What conversations count of commands, pings, recoveries and publishes, beside what the tests of each of them see."""

import dataclasses
import json
from typing import Any

import pytest

from gateway.broker.contract import BrokerError
from gateway.domain.counts import Flow, Histogram
from gateway.messaging.port import DUPLEX, DUPLEX_WITH_OWN_PINGS, Terms
from gateway.messaging.publishing import Extras
from tests.support.conversations import ALLOW_ALL, House, ManualBroker, house, token

STREAM = {"channel": {"namespaces": [{"name": "st", **ALLOW_ALL, "history_size": 100, "history_ttl": "1h"}]}}
RECOVERING = {**STREAM["channel"]["namespaces"][0], "force_recovery": True}


def counted(histograms: dict[str, Histogram]) -> dict[str, int]:
    return {name: sum(histogram.buckets) for name, histogram in histograms.items()}


async def test_commands_are_timed_and_of_publishes_one_in_sixteen() -> None:
    async with house() as node:
        client = await node.connect("42", "a")
        for number in range(33):
            await client.ask({"id": number + 5, "publish": {"channel": "a", "data": {}}})
        await client.ask({"id": 50, "unsubscribe": {"channel": "a"}})
        await client.ask({"id": 51, "history": {"channel": "a"}})
        durations = counted(node.counts.command_durations)
        assert durations == {"connect": 1, "subscribe": 1, "publish": 3, "unsubscribe": 1, "history": 1}


async def test_a_command_that_waits_is_timed_until_its_answer() -> None:
    broker = ManualBroker()
    async with house(broker=broker) as node:
        client = await node.connect("42", "a")
        broker.held = {"publish"}
        client.send({"id": 5, "publish": {"channel": "a", "data": {}}})
        await node.settle()
        node.now_s += 0.5
        broker.settle(BrokerError("gone"))
        await node.settle()
        assert node.counts.command_durations["publish"].total == 0.5


async def test_a_question_to_a_handler_of_the_plain_protocol_is_timed() -> None:
    space = {"name": "echo", **ALLOW_ALL, "handler": "echo"}
    async with house({"channel": {"namespaces": [space]}}) as node:
        client = await node.connect_plain("42", "echo:a")
        client.send(b"hello")
        await node.settle()
        assert client.take() == [b"hello"]
        assert counted(node.counts.command_durations) == {"handler": 1}


@pytest.mark.parametrize("terms", [DUPLEX, DUPLEX_WITH_OWN_PINGS], ids=["protocol", "transport"])
async def test_a_pong_is_timed_from_its_ping(terms: Terms) -> None:
    async with house() as node:
        client = node.open(terms)
        await client.ask({"id": 1, "connect": {"token": token("42")}})
        await node.advance(13)
        pinged_at_s = client.conversation.session.pinged_at_s
        node.now_s = pinged_at_s + 2.0
        if terms.uses_transport_pings:
            client.conversation.frame_pong()
            client.conversation.frame_pong()  # one that nobody asked for is legal, and no answer
        else:
            client.send("{}")
        pings = node.counts.ping_pongs["websocket"]
        assert (sum(pings.buckets), pings.total) == (1, pytest.approx(2.0))


async def test_what_goes_through_a_transport_is_counted_under_its_name() -> None:
    async with house() as node:
        client = await node.connect("42", "a")
        before = dataclasses.replace(node.counts.flow("websocket"))
        text = json.dumps({"id": 5, "publish": {"channel": "a", "data": {}}})
        client.send(text)
        await node.settle()
        written = sum(map(len, client.transport.writes[-2:]))
        assert node.counts.flow("websocket") == Flow(
            messages_in=before.messages_in + 1,
            bytes_in=before.bytes_in + len(text),
            publications_out=before.publications_out + 1,
            replies_out=before.replies_out + 1,
            bytes_out=before.bytes_out + written,
        )


async def recover(node: House, offset: int, epoch: str) -> dict[str, Any]:
    client = await node.connect("7")
    [reply] = await client.ask(
        {"id": 9, "subscribe": {"channel": "st:a", "recover": True, "offset": offset, "epoch": epoch}}
    )
    result: dict[str, Any] = reply["subscribe"]
    return result


async def test_recoveries_are_counted_by_whether_they_could_and_brought_anything() -> None:
    async with house({"channel": {"namespaces": [RECOVERING]}}) as node:
        first = await node.connect("42")
        [reply] = await first.ask({"id": 2, "subscribe": {"channel": "st:a"}})
        epoch = reply["subscribe"]["epoch"]
        for number in range(3):
            await first.ask({"id": number + 5, "publish": {"channel": "st:a", "data": number}})
        assert len((await recover(node, 1, epoch))["publications"]) == 2
        assert (await recover(node, 3, epoch))["recovered"]
        assert "recovered" not in await recover(node, 3, "another")
        assert node.counts.recoveries == {("st", "yes", "yes"): 1, ("st", "yes", "no"): 1, ("st", "no", "no"): 1}
        assert node.counts.recovered_publications == {"st": 2}


async def test_publishes_that_nobody_is_sent_are_counted_by_what_was_found() -> None:
    async with house(STREAM) as node:
        channel = node.channel("st:a")
        for extras in (
            Extras(idempotency_key="one", version=5),
            Extras(idempotency_key="one", version=6),
            Extras(idempotency_key="two", version=4),
            Extras(idempotency_key="two", version=9),
            Extras(version=5),
            Extras(version=7),
        ):
            node.services.publisher.publish(channel, b"1", None, extras)
        assert node.counts.suppressed == {("st", "idempotency_key"): 2, ("st", "version"): 2}
