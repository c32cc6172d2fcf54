"""Who asks for too much is refused and counted; those beside it lose nothing, and see everything in order."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest

from tests.support.crowds import (
    Member,
    all_gone,
    all_heard,
    errors_of,
    gather_crowd,
    metrics,
    raise_descriptor_limit,
    text,
    upgrade,
)
from tests.support.nodes import SECRET
from tests.support.processes import ServingProcess, serving
from tests.support.waiting import until

CLIENT_PATH = "/connection/websocket"
ENVIRONMENT = {
    "GATEWAY_CLIENT__TOKEN__HMAC_SECRET_KEY": SECRET,
    "GATEWAY_CHANNEL__WITHOUT_NAMESPACE__ALLOW_SUBSCRIBE_FOR_CLIENT": "true",
    "GATEWAY_CHANNEL__WITHOUT_NAMESPACE__ALLOW_PUBLISH_FOR_CLIENT": "true",
}
SUBSCRIBERS = 5
pytestmark = pytest.mark.timeout(120)


def token(user: str) -> str:
    return jwt.encode({"sub": user}, SECRET, "HS256")


def hello(user: str, *channels: str) -> bytes:
    commands: list[dict[str, Any]] = [{"id": 1, "connect": {"token": token(user)}}]
    return text(*commands, *({"id": n, "subscribe": {"channel": channel}} for n, channel in enumerate(channels, 2)))


def numbers_of(member: Member) -> list[int]:
    """Return the numbers that the well-behaved publisher gave its messages, as they came."""
    found = [line["push"]["pub"]["data"] for line in member.lines if "push" in line]
    return [data["n"] for data in found if "n" in data]


class WellBehaved:
    """Five subscribers of "news" and a publisher that waits for each answer."""

    def __init__(self, subscribers: list[Member], publisher: Member) -> None:
        self.members = [*subscribers, publisher]
        self._subscribers = subscribers
        self._publisher = publisher
        self.published = 0

    async def publish(self) -> None:
        number = self.published
        self.published += 1
        reply = json.dumps({"id": number + 10, "publish": {}}, separators=(",", ":")).encode()
        self._publisher.payloads.clear()
        self._publisher.send(text({"id": number + 10, "publish": {"channel": "news", "data": {"n": number}}}))
        await all_heard([self._publisher], lambda each: bool(each.payloads), f"the answer to {number}")
        assert self._publisher.payloads == [reply]

    async def publish_while(self, is_going_on: Callable[[], bool], *, pace_s: float) -> None:
        while is_going_on():
            await self.publish()
            await asyncio.sleep(pace_s)

    async def have_everything_in_order(self) -> None:
        last = b'"n":%d}' % (self.published - 1)
        await all_heard(self._subscribers, lambda each: last in each.payloads[-1].replace(b" ", b""), "the last one")
        for each in self._subscribers:
            assert numbers_of(each) == list(range(self.published))
            assert (each.closing, each.error, each.gone.done()) == (None, None, False)


@contextlib.asynccontextmanager
async def well_behaved(**environment: str) -> AsyncIterator[tuple[ServingProcess, WellBehaved]]:
    """Run a node with the well-behaved on it; afterwards they are all that is left, and nothing went wrong."""
    raise_descriptor_limit(8000)
    async with serving(environment=ENVIRONMENT | environment) as process:
        openings = [(upgrade(CLIENT_PATH), hello("good", "news"))] * SUBSCRIBERS + [
            (upgrade(CLIENT_PATH), hello("good"))
        ]
        *subscribers, publisher = await gather_crowd(process, openings)
        await all_heard(subscribers, lambda each: b'"subscribe":{}' in b"".join(each.payloads), "its subscription")
        await all_heard([publisher], lambda each: bool(each.payloads), "its connection")
        good = WellBehaved(subscribers, publisher)
        await good.publish()
        yield process, good
        await good.publish()
        await good.have_everything_in_order()
        connections = -1.0
        deadline = time.monotonic() + 15
        while connections != SUBSCRIBERS + 1 and time.monotonic() < deadline:
            connections = (await metrics(process))["gateway_connections"]
        assert connections == SUBSCRIBERS + 1
        figures = await metrics(process)
        assert figures["gateway_users"] == 1
        assert figures['gateway_subscriptions{namespace=""}'] == SUBSCRIBERS
        for each in good.members:
            each.abort()
    assert errors_of(process) == []


async def test_two_thousand_sockets_that_never_speak_are_cut_and_the_others_feel_nothing() -> None:
    environment = {"GATEWAY_HTTP_SERVER__HEAD_TIMEOUT": "2s", "GATEWAY_CLIENT__STALE_CLOSE_DELAY": "2s"}
    openings = [(b"", b"")] * 1000 + [(upgrade(CLIENT_PATH), b""), (upgrade("/ws/news"), b"")] * 500
    async with well_behaved(**environment) as (process, good):
        opening = asyncio.create_task(gather_crowd(process, openings))
        await good.publish_while(lambda: not opening.done(), pace_s=0.01)
        silent = opening.result()
        gone = asyncio.create_task(all_gone(silent))
        await good.publish_while(lambda: not gone.done(), pace_s=0.01)
        await gone
        assert Counter((each.status, each.closing) for each in silent) == {
            (408, None): 1000,
            (101, (3502, "stale")): 500,
            (101, (1013, "authentication timeout")): 500,
        }
        assert [each.error for each in silent if each.error] == []
        figures = await metrics(process)
        assert figures['gateway_connections_refused_total{reason="head_timeout"}'] == 1000
        assert figures['gateway_disconnects_total{code="3502"}'] == 500
        assert figures['gateway_disconnects_total{code="1013"}'] == 500


async def test_a_flood_of_connects_beyond_the_rate_is_503_and_the_others_feel_nothing() -> None:
    count, rate = 1500, 20
    async with well_behaved(GATEWAY_CLIENT__CONNECTION_RATE_LIMIT=str(rate)) as (process, good):
        before = await metrics(process)
        statuses: Counter[tuple[int | None, bool]] = Counter()

        async def rush() -> None:
            for _ in range(count // 100):
                members = await gather_crowd(process, [(upgrade(CLIENT_PATH), b"")] * 100)
                await all_heard(members, lambda each: each.status is not None, "an answer")
                statuses.update((each.status, b"\r\nRetry-After: 1" in each.head) for each in members)
                for each in members:
                    each.abort()
                await all_gone(members)

        began_s = time.monotonic()
        rushing = asyncio.create_task(rush())
        await good.publish_while(lambda: not rushing.done(), pace_s=0.01)
        await rushing
        took_s = time.monotonic() - began_s
        refused, accepted = statuses[503, True], statuses[101, False]
        assert refused + accepted == count, statuses
        assert accepted <= rate + rate * took_s + 1  # a burst, and what has been filled up since
        after = await metrics(process)
        name = 'gateway_connections_refused_total{reason="connection_rate_limit"}'
        assert after[name] - before.get(name, 0) == refused
        name = 'gateway_connections_accepted_total{transport="websocket"}'
        assert after[name] - before[name] == accepted


async def test_a_hundred_publishers_far_over_their_rate_are_cut_and_the_others_feel_nothing() -> None:
    """Each flooder sends six times its burst at once; the clock may let some more pass, but never all."""
    burst, sent, half = 100, 600, 50
    environment = {"GATEWAY_CLIENT__COMMAND_RATE": "10", "GATEWAY_CLIENT__COMMAND_BURST": str(burst)}
    commands = [{"id": n, "publish": {"channel": "news", "data": {"flood": n}}} for n in range(2, sent + 2)]
    openings = [(upgrade(CLIENT_PATH), hello("bad") + text(*commands))] * half
    openings += [
        (upgrade(f"/ws/flood-{number}"), text({"token": token("bad")}, *range(sent))) for number in range(half)
    ]
    async with well_behaved(**environment) as (process, good):
        flooding = await gather_crowd(process, openings)

        async def publish_among_them() -> None:
            for number in range(0, 2 * half, 2):  # 50 messages, within the burst
                await until(lambda: sum(each.gone.done() for each in flooding) >= number, "flooders gone")  # noqa: B023
                await good.publish()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publish_among_them())
            tasks.create_task(all_gone(flooding))
        assert Counter(each.closing for each in flooding) == {
            (3013, "too many requests"): half,
            (1008, "rate limit"): half,
        }
        assert [each.error for each in flooding if each.error] == []
        accepted = refused = 0
        for each in flooding[:half]:
            replies = [line for line in each.lines if line.get("id", 0) > 1]
            assert [reply["id"] for reply in replies] == list(range(2, len(replies) + 2)), "in order, none left out"
            accepted += sum("publish" in reply for reply in replies)
            assert burst <= len(replies) - burst < sent / 2
            errors = [reply["error"] for reply in replies if "error" in reply]
            assert errors == [{"code": 111, "message": "too many requests", "temporary": True}] * len(errors)
            assert len(errors) >= burst
            refused += len(errors)
        for each in flooding[half:]:
            errors = [line for line in each.lines if isinstance(line, dict) and "error" in line]
            assert errors == [{"error": {"code": 111, "message": "too many requests"}}] * len(errors)
            assert len(errors) >= burst - 1
            refused += len(errors)
            passed = [line for line in each.lines if isinstance(line, int)]
            assert passed == sorted(passed)
        figures = await metrics(process)
        accepted_plain = figures['gateway_publications_accepted_total{namespace=""}'] - accepted - good.published
        assert half * (burst - 1) <= accepted_plain < half * sent / 2  # the token's message counts too
        assert figures['gateway_limit_hits_total{limit="command_rate"}'] == refused + 2 * half
        assert figures['gateway_disconnects_total{code="3013"}'] == half
        assert figures['gateway_disconnects_total{code="1008"}'] == half
