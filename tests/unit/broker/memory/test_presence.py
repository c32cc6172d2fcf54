"""Presence in memory, where it differs from its contract: what it lets go of."""

from gateway.broker.contract import PresenceStats
from gateway.broker.memory.broker import MemoryBroker
from gateway.broker.memory.presence import MemoryPresence
from gateway.protocol.messages import ClientInfo

TTL_S = 60.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_channels_that_nobody_renews_are_let_go() -> None:
    """10,000 channels that are entered once each do not stay; whoever enters next lets a few of them go."""
    clock = Clock()
    presence = MemoryPresence(MemoryBroker(), monotonic=clock)
    for number in range(10_000):
        presence.add(f"channel {number}", ClientInfo("42", "c"), ttl_s=TTL_S)
        clock.now_s += 1
    # What is left is renewed within two lifetimes.
    assert len(presence._channels) <= 125  # noqa: SLF001


def test_a_channel_that_is_renewed_is_not_let_go_and_an_empty_one_is_at_once() -> None:
    clock = Clock()
    presence = MemoryPresence(MemoryBroker(), monotonic=clock)
    renewed, brief = ClientInfo("1", "renewed"), ClientInfo("2", "brief")
    for number in range(1000):
        presence.renew("renewed", [renewed], ttl_s=TTL_S, is_told=True)
        presence.add(f"brief {number}", brief, ttl_s=TTL_S)
        presence.remove(f"brief {number}", brief, is_told=True)
        clock.now_s += 30
    assert presence.presence("renewed").result() == {"renewed": renewed}
    assert list(presence._channels) == ["renewed"]  # noqa: SLF001


def test_a_sweep_leaves_the_counts_quick_and_right() -> None:
    clock = Clock()
    presence = MemoryPresence(MemoryBroker(), monotonic=clock)
    presence.add("a", ClientInfo("1", "old"), ttl_s=10)
    presence.add("a", ClientInfo("2", "new"), ttl_s=100)
    clock.now_s += 20
    assert presence.stats("a").result() == PresenceStats(1, 1)
    presence.renew("a", [], ttl_s=TTL_S, is_told=False)
    assert presence.stats("a").result() == PresenceStats(1, 1)
    clock.now_s += 80
    assert presence.stats("a").result() == PresenceStats(0, 0)
