"""Each row of a table is one subscriber's story; what it misses is settled against what publishers know."""

from collections.abc import Callable, Sequence

import pytest

from loadtest.reckoning import Missing, Reckoning, SentLog
from loadtest.watching import Counts, Last, Watch, Why

Step = Callable[[Watch], None]
A, B = 1, 2


def comes(*numbers: int, of: int = A) -> Step:
    def step(watch: Watch) -> None:
        for number in numbers:
            watch.take(of, number)

    return step


def joins(at: int) -> Step:
    return lambda watch: watch.confirmed(at)


def recovers(at: int) -> Step:
    return lambda watch: watch.confirmed(at, is_recovered=True, has_history=True)


def comes_back_with_a_gap(at: int) -> Step:
    return lambda watch: watch.confirmed(at, has_history=True)


def comes_back_without_history(at: int) -> Step:
    return lambda watch: watch.confirmed(at)


def is_told_of_a_gap(at: int) -> Step:
    return lambda watch: watch.gap_told(at)


def told(*steps: Step, sent: int = 10, stays: bool = True, is_cache: bool = False) -> tuple[Counts, Missing]:
    """Publisher A sends number n at 100 + 10 n; tell what the watch counts and what its gaps come to."""
    counts, log = Counts(), SentLog("c", A)
    for number in range(sent):
        log.begin(100 + 10 * number)
    watch = Watch("c", 7, counts, is_cache=is_cache)
    for step in steps:
        step(watch)
    lasts = [log.last] if log.last is not None and stays else []
    return counts, Reckoning([log.record()]).settle(watch.close(lasts))


_STORIES: list[tuple[str, Sequence[Step], dict[str, int]]] = [
    ("all comes", [joins(50), comes(*range(10))], {}),
    ("one is lost in the middle", [joins(50), comes(0, 1, 2, 4, 5, 6, 7, 8, 9)], {"lost": 1}),
    ("the first are lost", [joins(50), comes(*range(3, 10))], {"lost": 3}),
    ("the last are lost", [joins(50), comes(*range(8))], {"lost": 2}),
    ("all are lost", [joins(50)], {"lost": 10}),
    ("a late joiner gets the rest", [joins(135), comes(*range(4, 10))], {}),
    ("a late joiner misses one that it was there for", [joins(135), comes(*range(5, 10))], {"lost": 1}),
    ("one may overtake the confirmation", [joins(135), comes(*range(3, 10))], {}),
    ("one comes twice", [joins(50), comes(0, 1, 1, *range(2, 10))], {"duplicated": 1}),
    ("two change places", [joins(50), comes(0, 2, 1, *range(3, 10))], {"reordered": 1}),
    ("a late one that comes twice", [joins(50), comes(0, 2, 1, 1, *range(3, 10))], {"reordered": 1, "duplicated": 1}),
    (
        "several late ones of one gap",
        [joins(50), comes(0, 5, 3, 1, *range(6, 10))],
        {"reordered": 2, "lost": 2},
    ),
    (
        "a recovery brings what was missed",
        [joins(50), comes(0, 1), recovers(150), comes(*range(2, 10))],
        {"recovered": 1},
    ),
    (
        "one is lost in a recovery",
        [joins(50), comes(0, 1), recovers(150), comes(2, *range(4, 10))],
        {"recovered": 1, "lost": 1},
    ),
    (
        "one comes twice because of a recovery",
        [joins(50), comes(0, 1), recovers(150), comes(*range(1, 10))],
        {"recovered": 1, "duplicated": 1},
    ),
    (
        "a recovery changes the order",
        [joins(50), comes(0, 1), recovers(150), comes(3, 2, *range(4, 10))],
        {"recovered": 1, "reordered": 1},
    ),
    (
        "a gap is told, and what was sent before the new begin is not due",
        [joins(50), comes(0, 1), comes_back_with_a_gap(145), comes(*range(5, 10))],
        {"gaps_told": 1, "told": 3},
    ),
    (
        "a gap is told, and more is missing than that",
        [joins(50), comes(0, 1), comes_back_with_a_gap(145), comes(*range(6, 10))],
        {"gaps_told": 1, "told": 3, "lost": 1},
    ),
    (
        "a gap is told in the midst of a stay",
        [joins(50), comes(0, 1), is_told_of_a_gap(145), comes(*range(5, 10))],
        {"gaps_told": 1, "told": 3},
    ),
    (
        "a channel without history protects nobody who is away",
        [joins(50), comes(0, 1), comes_back_without_history(145), comes(*range(5, 10))],
        {"unprotected": 3},
    ),
    (
        "what came before an interruption comes again",
        [joins(50), comes(0, 1), comes_back_without_history(145), comes(1, *range(5, 10))],
        {"duplicated": 1, "unprotected": 3},
    ),
    (
        "nothing comes after a told gap",
        [joins(50), comes(0, 1), comes_back_with_a_gap(145)],
        {"gaps_told": 1, "told": 3, "lost": 5},
    ),
]


@pytest.mark.parametrize(("steps", "expected"), [story[1:] for story in _STORIES], ids=[story[0] for story in _STORIES])
def test_a_story_is_told_as_it_was(steps: Sequence[Step], expected: dict[str, int]) -> None:
    counts, missing = told(*steps)
    named = {name: getattr(counts, name) for name in ("duplicated", "reordered", "recovered", "gaps_told")}
    named |= {name: getattr(missing, name) for name in ("lost", "told", "unprotected", "in_doubt")}
    assert {name: count for name, count in named.items() if count} == expected


def test_who_has_left_misses_nothing_but_what_it_saw_a_later_one_of() -> None:
    _, missing = told(joins(50), comes(0, 1, 3), stays=False)
    assert missing.lost == 1


def test_a_recovery_of_the_last_value_alone_owes_the_last_value_alone() -> None:
    counts, missing = told(joins(50), comes(0, 1), recovers(150), comes(1, 5, 6, 7, 8, 9), is_cache=True)
    assert (counts.duplicated, missing.lost) == (0, 0)


def test_without_a_confirmation_nothing_is_due_before_the_first_delivery() -> None:
    counts, log = Counts(), SentLog("c", A)
    for number in range(5):
        log.begin(100 + number)
    watch = Watch("c", 7, counts)
    watch.confirmed(50, is_sure=False)
    comes(2, 4)(watch)
    assert Reckoning([log.record()]).settle(watch.close([Last(A, 4, 104)])).lost == 1


def test_refused_publications_are_due_nowhere_and_unanswered_ones_are_in_doubt() -> None:
    log = SentLog("c", A)
    for number in range(6):
        log.begin(100 + number)
    log.refused |= {1, 5}
    log.unanswered.add(2)
    watch = Watch("c", 7, Counts())
    watch.confirmed(50)
    comes(0)(watch)
    assert log.last == Last(A, 4, 104)
    reckoning = Reckoning([log.record()])
    missing = reckoning.settle(watch.close([Last(A, 4, 104)]))
    assert (missing.lost, missing.in_doubt) == (2, 1)
    assert (reckoning.acknowledged, reckoning.refused, reckoning.unanswered) == (3, 2, 1)


def test_offsets_tell_the_order_between_publishers() -> None:
    counts = Counts()
    watch = Watch("c", 7, counts)
    watch.confirmed(50)
    for publisher, number, offset in ((A, 0, 1), (B, 0, 3), (A, 1, 2), (A, 2, 4), (B, 1, 5)):
        watch.take(publisher, number, offset)
    assert counts.reordered == 1
    watch.confirmed(90, has_history=True)  # a new stay, perhaps of a new stream
    watch.take(A, 3, 1)
    assert counts.reordered == 1


def test_publishers_are_told_apart() -> None:
    counts = Counts()
    watch = Watch("c", 7, counts)
    watch.confirmed(50)
    for number in range(3):
        watch.take(A, number)
        watch.take(B, number)
    assert (counts.delivered, watch.close()) == (6, [])


def test_it_is_complete_when_the_last_of_each_has_come_or_was_sent_before_it_joined() -> None:
    watch = Watch("c", 7, Counts())
    watch.confirmed(200)
    comes(0, 1)(watch)
    assert watch.is_complete([Last(A, 1, 300), Last(B, 9, 150)])
    assert not watch.is_complete([Last(A, 2, 300)])
    assert not watch.is_complete([Last(B, 0, 250)])


def test_findings_name_the_place_and_are_bounded_while_all_are_counted() -> None:
    counts, missing = told(joins(50), comes(0, 1, 1, 4), comes(*[0] * 50), comes(*range(5, 10)))
    assert counts.duplicated == 51
    assert len(counts.findings) == 20
    first = counts.findings[0]
    assert (first.kind, first.channel, first.subscriber, first.publisher, first.first) == ("duplicated", "c", 7, A, 1)
    assert [(each.kind, each.first, each.last) for each in missing.findings] == [("lost", 2, 3)]


def test_a_gap_says_why_its_begin_may_not_be_due() -> None:
    watch = Watch("c", 7, Counts())
    watch.confirmed(10)
    comes(3, 5)(watch)
    assert [(gap.first, gap.end, gap.why) for gap in watch.close()] == [(0, 3, Why.JOINED), (4, 5, Why.NEVER)]
