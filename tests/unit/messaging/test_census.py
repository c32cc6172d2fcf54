"""One look at all connections: their kinds, and what waits for them."""

from typing import Any

from gateway.domain.connections import Census, Kind
from gateway.messaging.census import take_census
from tests.support.conversations import ALLOW_ALL, house, token

LISTED = {"metrics": {"client_names": ["js"], "client_versions": ["5.3.0"]}}


async def test_connections_are_told_apart_by_transport_protocol_and_what_they_call_themselves() -> None:
    async with house(LISTED, {"channel": {"without_namespace": ALLOW_ALL}}) as node:
        for name, version in (("js", "5.3.0"), ("js", "5.3.0"), ("js", "1.0"), ("evil", "6.6.6")):
            client = node.open()
            connect: dict[str, Any] = {"token": token("42"), "name": name, "version": version}
            await client.ask({"id": 1, "connect": connect})
        await node.connect_plain("42")
        node.open()
        assert take_census(node.services.connections) == Census(
            {
                Kind("websocket", "json", "js", "5.3.0"): 2,
                Kind("websocket", "json", "js", "other"): 1,
                Kind("websocket", "json", "other", ""): 1,
                Kind("websocket", "plain", "other", ""): 1,
                Kind("websocket", "json", "", ""): 1,
            },
            waiting_bytes=0,
            congested=0,
        )


async def test_what_waits_is_added_up_and_those_it_waits_for_are_counted() -> None:
    async with house() as node:
        clients = [node.open() for _ in range(4)]
        for client, waiting in zip(clients, (0, 10, 0, 300), strict=True):
            client.transport.waiting, client.transport.is_congested = waiting, waiting > 0
        assert take_census(node.services.connections)[1:] == (310, 2)
