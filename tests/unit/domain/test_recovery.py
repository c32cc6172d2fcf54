"""What a subscriber has missed: the rules of protocol.md 3.6 as tables, and against a brute-force statement."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.recovery import Recovered, RecoveryMode, extend, recover, wanted_range
from gateway.domain.stream import Stream, StreamOptions
from gateway.protocol.messages import Publication, StreamPosition

NOW = 1000.0


def stream(top: int, size: int = 100) -> Stream:
    made = Stream("epoch")
    for _ in range(top):
        made.append(Publication(), StreamOptions(size, 60.0, 600.0), now_s=NOW)
    return made


def outcome(
    of: Stream, offset: int, epoch: str = "epoch", *, mode: RecoveryMode = RecoveryMode.STREAM, limit: int = 300
) -> tuple[bool, int, list[int]]:
    since = StreamPosition(offset, epoch)
    found = recover(mode, since, of.read(wanted_range(mode, since, limit=limit), now_s=NOW))
    assert found.position.epoch == "epoch"
    return found.is_recovered, found.position.offset, [each.offset for each in found.publications]


# (kept of how many, the client's offset and epoch, recovered, the offset that it is told, what it gets)
@pytest.mark.parametrize(
    ("size", "top", "offset", "epoch", "expected"),
    [
        (5, 3, 1, "epoch", (True, 1, [2, 3])),
        (5, 3, 3, "epoch", (True, 3, [])),
        (5, 3, 0, "", (True, 0, [1, 2, 3])),
        (5, 3, 0, "epoch", (True, 0, [1, 2, 3])),
        (5, 3, 1, "", (True, 1, [2, 3])),
        (5, 3, 1, "other", (False, 3, [])),
        (5, 3, 3, "other", (False, 3, [])),
        (5, 3, 50, "epoch", (False, 3, [])),
        (5, 9, 4, "epoch", (True, 4, [5, 6, 7, 8, 9])),
        (5, 9, 3, "epoch", (False, 9, [])),
        (5, 9, 0, "", (False, 9, [])),
        (5, 0, 0, "", (True, 0, [])),
        (5, 0, 0, "epoch", (True, 0, [])),
        (5, 0, 1, "epoch", (False, 0, [])),
        (5, 0, 0, "_", (False, 0, [])),
        (500, 301, 1, "epoch", (True, 1, list(range(2, 302)))),
        (500, 302, 1, "epoch", (False, 302, [])),
    ],
)
def test_what_recovers(size: int, top: int, offset: int, epoch: str, expected: tuple[bool, int, list[int]]) -> None:
    assert outcome(stream(top, size), offset, epoch) == expected


@pytest.mark.parametrize(
    ("top", "offset", "epoch", "expected"),
    [
        (2, 0, "", (True, 0, [2])),
        (2, 2, "epoch", (True, 2, [])),
        (2, 1, "epoch", (True, 1, [2])),
        (2, 2, "other", (True, 0, [2])),
        (2, 50, "epoch", (True, 0, [2])),
        (2, 0, "epoch", (True, 0, [2])),
        (0, 0, "", (False, 0, [])),
        (0, 0, "epoch", (True, 0, [])),
        (0, 3, "epoch", (False, 0, [])),
    ],
)
def test_what_recovers_in_cache_mode(top: int, offset: int, epoch: str, expected: tuple[bool, int, list[int]]) -> None:
    assert outcome(stream(top), offset, epoch, mode=RecoveryMode.CACHE) == expected


@pytest.mark.parametrize(("offset", "expected"), [(3, True), (2, False)])
def test_removed_history_recovers_only_at_the_top(offset: int, *, expected: bool) -> None:
    made = stream(3)
    made.remove()
    assert outcome(made, offset) == (expected, 3, [])


@given(
    size=st.integers(1, 12),
    top=st.integers(0, 30),
    offset=st.integers(0, 40),
    epoch=st.sampled_from(["", "epoch", "other"]),
    limit=st.integers(1, 10),
)
def test_recovery_leaves_no_gap_and_no_double(size: int, top: int, offset: int, epoch: str, limit: int) -> None:
    kept = set(range(1, top + 1)[-size:])
    missed = list(range(offset + 1, top + 1))
    may = epoch != "other" and offset <= top and len(missed) <= limit and kept.issuperset(missed)
    expected = (True, offset, missed) if may else (False, top, [])
    assert outcome(stream(top, size), offset, epoch, limit=limit) == expected


# What came on this node between the read and the joining.


def told(found: Recovered) -> tuple[bool, int, str, list[int]]:
    return found.is_recovered, found.position.offset, found.position.epoch, [each.offset for each in found.publications]


@pytest.mark.parametrize(
    ("mode", "recovered", "offset", "publications", "delivered", "expected"),
    [
        (RecoveryMode.STREAM, True, 3, [4, 5], [], (True, 3, "epoch", [4, 5])),
        (RecoveryMode.STREAM, True, 3, [4, 5], [6, 7], (True, 3, "epoch", [4, 5, 6, 7])),
        (RecoveryMode.STREAM, True, 5, [], [6], (True, 5, "epoch", [6])),
        (RecoveryMode.STREAM, False, 5, [], [], (False, 5, "epoch", [])),
        (RecoveryMode.STREAM, False, 5, [], [6, 7], (False, 7, "epoch", [])),
        (RecoveryMode.CACHE, True, 3, [5], [], (True, 3, "epoch", [5])),
        (RecoveryMode.CACHE, True, 3, [5], [6, 7], (True, 3, "epoch", [7])),
        (RecoveryMode.CACHE, True, 5, [], [6], (True, 5, "epoch", [6])),
        (RecoveryMode.CACHE, False, 0, [], [], (False, 0, "epoch", [])),
        (RecoveryMode.CACHE, False, 0, [], [1], (True, 0, "epoch", [1])),
    ],
)
def test_what_came_after_the_read_is_added(
    mode: RecoveryMode,
    *,
    recovered: bool,
    offset: int,
    publications: list[int],
    delivered: list[int],
    expected: tuple[bool, int, str, list[int]],
) -> None:
    found = Recovered(recovered, StreamPosition(offset, "epoch"), [Publication(offset=each) for each in publications])
    assert told(extend(mode, found, [Publication(offset=each) for each in delivered])) == expected


@given(
    mode=st.sampled_from(RecoveryMode),
    top=st.integers(0, 12),
    later=st.integers(0, 6),
    offset=st.integers(0, 20),
    epoch=st.sampled_from(["", "epoch", "other"]),
)
def test_it_makes_no_difference_whether_something_came_before_or_after_the_read(
    mode: RecoveryMode, top: int, later: int, offset: int, epoch: str
) -> None:
    since, made = StreamPosition(offset, epoch), stream(top)
    early = recover(mode, since, made.read(wanted_range(mode, since, limit=300), now_s=NOW))
    delivered = [made.append(Publication(), StreamOptions(100, 60.0, 600.0), now_s=NOW) for _ in range(later)]
    late = recover(mode, since, made.read(wanted_range(mode, since, limit=300), now_s=NOW))
    extended = extend(mode, early, delivered)
    if offset > top and epoch != "other":
        # That offset did not exist when the stream was read.
        assert [each.offset for each in extended.publications] in ([], [top + later])
    elif mode is RecoveryMode.STREAM:
        assert told(extended) == told(late)
    else:
        # The client walks forward to the latest one, from wherever it is told to begin.
        assert (extended.is_recovered, extended.publications) == (late.is_recovered, late.publications)
        assert extended.position.offset <= top
