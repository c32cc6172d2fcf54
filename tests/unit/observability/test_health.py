"""When new connections should be sent to a node; times are seconds after the start of a monotonic clock."""

import pytest

from gateway.observability.health import Change, HealthSettings, Readiness

GRACE_S = 10.0
LOST, BACK = Change.LOST, Change.BACK

# A time, what the engine says then, what is worth telling, and why the node is not ready.
Said = tuple[float, str | None, Change | None, str | None]


def serving(*, grace_s: float = GRACE_S) -> Readiness:
    readiness = Readiness("starting", grace_s=grace_s)
    readiness.own_reason = None
    return readiness


@pytest.mark.parametrize(
    "said",
    [
        [(0.0, None, None, None), (9.0, None, None, None)],
        [
            (0.0, "down", None, "down"),
            (0.4, "down", None, "down"),
            (0.5, "down", LOST, "down"),
            (1, "down", None, "down"),
        ],
        [(0.0, "down", None, "down"), (0.4, None, None, None), (0.5, "down", None, None), (1.0, "down", LOST, None)],
        [(0.0, "down", None, "down"), (5.0, "down", LOST, "down"), (6.0, None, BACK, None), (7.0, None, None, None)],
        [(0.0, None, None, None), (1.0, "down", None, None), (10.9, "down", LOST, None), (11.0, "down", None, "down")],
        [(0.0, None, None, None), (1.0, "a", None, None), (9.0, "b", LOST, None), (11.0, "c", None, "c")],
        [(0.0, None, None, None), (1.0, "a", None, None), (1.25, None, None, None), (1.5, "b", None, None)],
        [(0.0, None, None, None), (1.0, "a", None, None), (9.0, None, None, None), (11.0, "b", None, None)],
        [(0.0, None, None, None), (1.0, "a", None, None), (50.0, "a", LOST, "a"), (51.0, None, BACK, None)],
    ],
    ids=[
        "an engine that works",
        "one that has never worked has no grace, and is told of after half a second",
        "one that was quick to start is not told of, and has a grace later on",
        "its end is told once",
        "a short outage is passed over, a long one is not",
        "an outage that changes its reason is still one",
        "two outages do not add up to one that is told",
        "each outage has a grace of its own",
        "also one that nobody looked at meanwhile is told",
    ],
)
def test_an_engine_in_trouble_makes_a_node_unready_and_is_told(said: list[Said]) -> None:
    readiness = serving()
    found: list[Said] = []
    for now_s, trouble, _, _ in said:
        change = readiness.note(trouble, now_s=now_s)
        found.append((now_s, readiness.trouble, change, readiness.reason(now_s=now_s)))
    assert found == said


def test_what_began_when_is_known_until_the_next_trouble() -> None:
    readiness = serving()
    since_s: list[float] = []
    for now_s, trouble in ((1.0, "a"), (2.0, "b"), (3.0, None), (4.0, None), (5.0, "a")):
        readiness.note(trouble, now_s=now_s)
        since_s.append(readiness.since_s)
    assert since_s == [1.0, 1.0, 1.0, 1.0, 5.0]


@pytest.mark.parametrize(("grace_s", "ready_until_s"), [(0.0, 1.0), (10.0, 11.0)])
def test_the_grace_ends_although_nobody_notes_anything(grace_s: float, ready_until_s: float) -> None:
    readiness = serving(grace_s=grace_s)
    readiness.note(None, now_s=0.0)
    readiness.note("down", now_s=1.0)
    times_s = (1.0, 5.0, 10.9, 11.0, 99.0)
    ready = [now_s for now_s in times_s if readiness.reason(now_s=now_s) is None]
    assert ready == [now_s for now_s in times_s if now_s < ready_until_s]


def test_a_node_that_is_to_stay_ready_stays_so_once_its_engine_has_worked() -> None:
    readiness = serving(grace_s=HealthSettings(broker_grace="never").broker_grace_s)  # type: ignore[call-arg]
    readiness.note("not connected yet", now_s=0.0)
    reasons = [readiness.reason(now_s=0.0)]
    readiness.note(None, now_s=1.0)
    readiness.note("down", now_s=2.0)
    reasons.append(readiness.reason(now_s=10.0**9))
    assert reasons == ["not connected yet", None]
    assert readiness.checks(now_s=3.0)["broker"] == "tolerated for ever: down"


def test_trouble_counts_from_when_it_began_and_not_from_when_it_was_seen() -> None:
    readiness = serving()
    readiness.note(None, now_s=0.0)
    assert readiness.note("silent", now_s=12.5, for_s=2.5) is LOST
    assert [readiness.reason(now_s=now_s) for now_s in (19.9, 20.0)] == [None, "silent"]


def test_too_much_memory_is_a_reason_and_no_trouble_of_the_engine() -> None:
    readiness = serving()
    readiness.note(None, now_s=0.0)
    readiness.memory_trouble = "too much"
    assert (readiness.reason(now_s=1.0), readiness.trouble) == ("too much", None)
    readiness.memory_trouble = None
    assert readiness.reason(now_s=1.0) is None


def test_every_check_is_reported_with_how_long_it_is_tolerated() -> None:
    readiness = Readiness("starting", grace_s=GRACE_S)
    readiness.note("down", now_s=0.0)
    readiness.memory_trouble = "too much"
    reported = [readiness.checks(now_s=0.0)]
    readiness.own_reason = readiness.memory_trouble = None
    readiness.note(None, now_s=1.0)
    reported.append(readiness.checks(now_s=1.0))
    readiness.note("down", now_s=2.0)
    reported += [readiness.checks(now_s=5.0), readiness.checks(now_s=12.0)]
    assert reported == [
        {"node": "starting", "memory": "too much", "broker": "down"},
        {"node": "ok", "memory": "ok", "broker": "ok"},
        {"node": "ok", "memory": "ok", "broker": "tolerated for another 7.0 s: down"},
        {"node": "ok", "memory": "ok", "broker": "down"},
    ]


@pytest.mark.parametrize("trouble", [None, "down"])
def test_what_a_node_has_against_connections_itself_comes_first(trouble: str | None) -> None:
    readiness = Readiness("starting", grace_s=GRACE_S)
    readiness.note(trouble, now_s=0.0)
    reasons = [readiness.reason(now_s=1.0)]
    readiness.own_reason = "draining"
    reasons.append(readiness.reason(now_s=99.0))
    assert reasons == ["starting", "draining"]
