"""Rates out of announcements, and no more of them than are wanted."""

import msgspec

from gateway.messaging.control import Figures, NodeInfo
from gateway.messaging.trends import KEPT_POINTS, Point, Trends


def node(uid: str, uptime_s: float, *, moved: int = 0, clients: int = 0) -> NodeInfo:
    figures = Figures(
        messages_in=moved,
        bytes_in=10 * moved,
        messages_out=2 * moved,
        bytes_out=20 * moved,
        dropped=moved // 2,
        cpu_s=moved / 100,
        outbox_bytes=7,
        loop_lag_s=0.25,
    )
    return NodeInfo(uid, num_clients=clients, uptime_s=uptime_s, figures=figures)


def test_a_point_is_what_changed_for_each_second_of_the_node_s_own_clock() -> None:
    trends = Trends()
    trends.note(node("a", 100.0, moved=100), now_s=1.0)
    assert trends.of("a") == [], "one announcement is no change"

    trends.note(node("a", 104.0, moved=180, clients=3), now_s=9.0)

    expected = Point(
        number=1,
        at_s=9.0,
        clients=3,
        messages_in=20.0,
        messages_out=40.0,
        bytes_in=200.0,
        bytes_out=400.0,
        dropped=10.0,
        cpu=0.2,
        outbox_bytes=7,
        loop_lag_s=0.25,
    )
    assert trends.of("a") == [expected]


def test_who_knows_some_points_is_given_those_that_came_after() -> None:
    trends = Trends()
    for second in range(4):
        trends.note(node("a", second, moved=1 + second), now_s=second)
        trends.note(node("b", second, moved=1 + second), now_s=second)

    assert [point.number for point in trends.of("a")] == [1, 3, 5]
    assert [point.number for point in trends.of("b", after=2)] == [4, 6]
    assert trends.of("b", after=6) == []
    assert trends.of("nobody") == []


def test_an_announcement_out_of_turn_makes_no_point_and_loses_nothing() -> None:
    trends = Trends()
    trends.note(node("a", 0.0, moved=1), now_s=0.0)
    trends.note(node("a", 0.1, moved=1001), now_s=0.1)
    trends.note(node("a", 2.0, moved=2001), now_s=2.0)

    assert [point.messages_in for point in trends.of("a")] == [1000.0]


def test_a_node_of_an_older_version_has_no_points() -> None:
    trends = Trends()
    for second in range(3):
        trends.note(msgspec.structs.replace(NodeInfo("a"), uptime_s=float(second)), now_s=second)

    assert trends.of("a") == []


def test_points_and_nodes_are_bounded() -> None:
    trends = Trends()
    for second in range(KEPT_POINTS + 50):
        trends.note(node("a", second, moved=1 + second), now_s=second)
    assert len(trends.of("a")) == KEPT_POINTS

    for number in range(300):
        trends.note(node(f"n{number}", 1.0, moved=1), now_s=0.0)
        trends.note(node("a", 1000.0 + number, moved=1000), now_s=0.0)
    assert len(trends.of("a")) == KEPT_POINTS, "who is heard is kept"
    trends.note(node("n0", 3.0, moved=2), now_s=0.0)
    assert trends.of("n0") == [], "who was not is forgotten"
