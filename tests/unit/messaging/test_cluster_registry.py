"""Who is there: heard lately, and neither silent for too long nor gone with a goodbye."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.messaging.control import NodeInfo
from gateway.messaging.registry import Heard, Registry

ONE, TWO = NodeInfo("1", "one"), NodeInfo("2", "two")


def registry() -> Registry:
    return Registry(announce_interval_s=3.0)


def test_a_node_is_new_once_and_known_as_it_said_last() -> None:
    nodes = registry()
    assert nodes.hear(ONE, now_s=0)
    assert nodes.hear(TWO, now_s=0)
    later = NodeInfo("1", "one", num_clients=5)
    assert not nodes.hear(later, now_s=3)
    assert nodes.nodes() == [later, TWO]


def test_three_missed_announcements_and_a_bit_are_the_end() -> None:
    nodes = registry()
    nodes.hear(ONE, now_s=0)
    nodes.hear(TWO, now_s=3)
    assert nodes.sweep(now_s=10.5) == []
    assert nodes.sweep(now_s=10.6) == [ONE]
    assert nodes.nodes() == [TWO]
    assert nodes.hear(ONE, now_s=11), "it is new again"


def test_a_goodbye_is_the_end_at_once_and_comes_from_strangers_too() -> None:
    nodes = registry()
    nodes.hear(ONE, now_s=0)
    assert nodes.leave("1") == ONE
    assert nodes.leave("1") is None
    assert nodes.nodes() == []


@given(st.lists(st.tuples(st.sampled_from("hlsss"), st.sampled_from("123"), st.floats(0, 20)), max_size=30))
def test_known_is_who_was_heard_within_the_limit_and_not_gone_since(steps: list[tuple[str, str, float]]) -> None:
    nodes, heard_at_s, now_s = registry(), dict[str, float](), 0.0
    for step, uid, passed_s in steps:
        now_s += passed_s
        if step == "h":
            assert nodes.hear(NodeInfo(uid), now_s=now_s) is (uid not in heard_at_s)
            heard_at_s[uid] = now_s
        elif step == "l":
            assert (nodes.leave(uid) is None) is (heard_at_s.pop(uid, None) is None)
        else:
            silent = {uid for uid, at_s in heard_at_s.items() if now_s - at_s > 10.5}
            assert {node.uid for node in nodes.sweep(now_s=now_s)} == silent
            for gone in silent:
                del heard_at_s[gone]
        assert {node.uid for node in nodes.nodes()} == set(heard_at_s)


def test_who_fell_silent_is_named_until_it_or_its_successor_is_back() -> None:
    nodes = registry()
    nodes.hear(ONE, now_s=0)
    nodes.hear(TWO, now_s=0)
    nodes.sweep(now_s=11)
    assert nodes.silent() == [Heard(ONE, 0), Heard(TWO, 0)]

    nodes.hear(ONE, now_s=12)
    assert nodes.silent() == [Heard(TWO, 0)]
    nodes.hear(NodeInfo("9", "two"), now_s=12)
    assert nodes.silent() == [], "a node of that name has been started anew"


def test_who_said_goodbye_or_is_long_gone_is_not_named() -> None:
    nodes = registry()
    nodes.hear(ONE, now_s=0)
    nodes.hear(TWO, now_s=0)
    nodes.sweep(now_s=11)
    nodes.leave("1")
    assert nodes.silent() == [Heard(TWO, 0)]
    nodes.sweep(now_s=901)
    assert nodes.silent() == []
