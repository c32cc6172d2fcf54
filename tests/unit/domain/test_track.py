"""One node's place in a stream: what follows, what is known, what is astray, and who waits at which edge."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import track as track_module
from gateway.domain.subscriber import Traffic
from gateway.domain.track import NO_EDGE, Arrival, Held, Latecomer, Track
from gateway.protocol.codes import Disconnect
from gateway.protocol.framing import BINARY, TEXT, WebSocketFraming
from gateway.protocol.messages import Publication, StreamPosition
from gateway.protocol.variants import PlainVariant

VARIANT = PlainVariant("plain", text=WebSocketFraming(TEXT), binary=WebSocketFraming(BINARY))


@pytest.fixture(autouse=True)
def _payloads_alone_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds are easier to read in bytes of payload; that each publication counts for more has a test of its own."""
    monkeypatch.setattr(track_module, "OVERHEAD_BYTES", 0)


class Nobody:
    """A subscriber that is never spoken to."""

    def offer(self, data: bytes) -> bool:
        raise AssertionError(data)

    def dismiss(self, disconnect: Disconnect) -> None:
        raise AssertionError(disconnect)

    def tell_gap(self, channel: str) -> None:
        raise AssertionError(channel)


def publication(offset: int, size: int = 10) -> Publication:
    return Publication(data=msgspec.Raw(b"x" * size), offset=offset)


def held(offset: int, size: int = 10) -> Held:
    return Held(publication(offset, size), "e", None)


def at(offset: int, epoch: str = "e") -> Track:
    """Return a track that was delivered as much, without a read of the stream."""
    track = Track()
    track.offset, track.epoch = offset, epoch
    return track


def read_to(offset: int, epoch: str = "e") -> Track:
    track = Track()
    track.move(StreamPosition(offset, epoch))
    return track


def moved_on(track: Track, offset: int) -> Track:
    """Deliver up to *offset*, as the intake does for what has the next one."""
    track.offset = offset
    return track


@pytest.mark.parametrize(
    ("track", "offset", "epoch", "arrival", "position"),
    [
        (Track(), 1, "e", Arrival.FIRST, (1, "e")),
        (Track(), 7, "e", Arrival.FIRST, (7, "e")),
        (read_to(5), 5, "e", Arrival.KNOWN, (5, "e")),
        (read_to(5), 1, "e", Arrival.KNOWN, (5, "e")),
        (read_to(5), 7, "e", Arrival.ASTRAY, (5, "e")),
        (read_to(5), 5, "f", Arrival.ASTRAY, (5, "e")),
        (read_to(5), 6, "f", Arrival.ASTRAY, (5, "e")),
        (moved_on(read_to(5), 6), 5, "e", Arrival.ASTRAY, (6, "e")),
        (moved_on(read_to(5), 6), 6, "e", Arrival.ASTRAY, (6, "e")),
        (at(5), 5, "e", Arrival.ASTRAY, (5, "e")),
        (at(5), 4, "e", Arrival.ASTRAY, (5, "e")),
        (read_to(0), 2, "e", Arrival.ASTRAY, (0, "e")),
    ],
    ids=[
        "the first of all",
        "the first that this node sees",
        "the last that was read",
        "one before it",
        "a hole",
        "another epoch at a known offset",
        "another epoch at the next offset",
        "a step back, after something above what was read",
        "the same twice, above what was read",
        "the same twice, and nothing was read",
        "a step back, and nothing was read",
        "a hole at the beginning",
    ],
)
def test_what_does_not_follow_is_the_first_or_known_or_astray(
    track: Track, offset: int, epoch: str, arrival: Arrival, position: tuple[int, str]
) -> None:
    assert track.judge(offset, epoch) is arrival
    assert (track.offset, track.epoch) == position


def test_a_position_is_known_once_there_is_an_epoch() -> None:
    track = Track()
    assert (track.is_known, track.position) == (False, StreamPosition())
    track.move(StreamPosition(0, "e"))
    assert (track.is_known, track.position) == (True, StreamPosition(0, "e"))


def test_a_track_is_idle_when_nothing_has_come_since_the_last_look() -> None:
    track = at(3)
    looks = [track.is_idle(), track.is_idle()]
    track.offset = 4
    looks += [track.is_idle(), track.is_idle()]
    track.move(StreamPosition(4, "f"))
    looks += [track.is_idle(), track.is_idle(), track.is_idle()]
    assert looks == [False, True, False, True, False, True, True]


# What is held while the stream is read.


@pytest.mark.parametrize(
    ("sizes", "limit", "taken"),
    [
        ([10, 10, 10], 30, [True, True, True]),
        ([10, 10, 11], 30, [True, True, False]),
        ([31], 30, [True]),
        ([31, 1], 30, [True, False]),
        ([30, 0, 1], 30, [True, True, False]),
        ([20, 20, 10], 30, [True, False, True]),
    ],
    ids=["to the brim", "one too many", "one is always held", "but no second", "emptiness fits", "a smaller one fits"],
)
def test_what_is_held_is_bounded_but_one_publication_always_is(sizes: list[int], limit: int, taken: list[bool]) -> None:
    track = at(0)
    holding = track.begin_holding()
    publications = [held(offset, size) for offset, size in enumerate(sizes, start=1)]
    assert [track.hold(each, limit=limit) for each in publications] == taken
    kept = [each for each, is_taken in zip(publications, taken, strict=True) if is_taken]
    assert (holding, track.held_bytes) == (kept, sum(len(bytes(each.publication.data)) for each in kept))


def test_what_was_held_is_released_once_in_order_and_the_bound_begins_anew() -> None:
    track = at(0)
    track.begin_holding()
    track.has_to_read_again = True
    for offset in (1, 2):
        track.hold(held(offset), limit=20)
    assert track.release() == [held(1), held(2)]
    assert (track.held, track.held_bytes, track.has_to_read_again, track.release()) == (None, 0, False, [])
    assert track.begin_holding() == []
    assert track.hold(held(3, 20), limit=20)


def test_each_mending_has_a_place_of_its_own() -> None:
    """By it the answer to a read knows whether it still belongs to what is held."""
    track = at(0)
    first = track.begin_holding()
    track.release()
    assert track.begin_holding() is not first


def test_nothing_is_held_unless_the_stream_is_read() -> None:
    with pytest.raises(AssertionError, match="only a track that is being mended"):
        at(0).hold(held(1), limit=10)


# What newcomers have missed.


@pytest.mark.parametrize(
    ("track", "recent", "top", "missed"),
    [
        (Track(), [], (5, "e"), []),
        (at(5), [], (5, "e"), []),
        (at(5), [], (8, "e"), []),
        (at(7), [6, 7], (5, "e"), [6, 7]),
        (at(7), [4, 5, 6, 7], (5, "e"), [6, 7]),
        (at(7), [7], (5, "e"), None),
        (at(7), [], (6, "e"), None),
        (at(7), [6], (5, "e"), None),
        (at(7), [6, 7], (5, "f"), None),
        (at(0, "f"), [], (0, "e"), None),
    ],
    ids=[
        "the node knows nothing",
        "both are as far",
        "the page is ahead",
        "the node is ahead",
        "more was kept than needed",
        "one between was not kept",
        "nothing was kept",
        "the last one was not kept",
        "another epoch",
        "another epoch of nothing",
    ],
)
def test_what_newcomers_have_missed(
    track: Track, recent: list[int], top: tuple[int, str], missed: list[int] | None
) -> None:
    track.remember([publication(offset) for offset in recent], limit=1000)
    found = track.delivered_above(StreamPosition(*top))
    assert (None if found is None else [each.offset for each in found]) == missed


@given(
    batches=st.lists(st.lists(st.integers(0, 40), max_size=4), max_size=8),
    limit=st.integers(1, 120),
    behind=st.integers(0, 12),
)
def test_newcomers_get_what_they_missed_without_a_gap_or_nothing(
    batches: list[list[int]], limit: int, behind: int
) -> None:
    """*batches* are the sizes of what was delivered."""
    track = at(100)
    for sizes in batches:
        batch = [publication(offset, size) for offset, size in enumerate(sizes, start=track.offset + 1)]
        track.offset += len(batch)
        track.remember(batch, limit=limit)
    kept = [len(bytes(each.data)) for each in track.recent]
    assert sum(kept) <= limit or len(kept) == 1
    top = track.offset - behind
    missed = track.delivered_above(StreamPosition(top, "e"))
    wanted = list(range(top + 1, track.offset + 1))
    is_kept = len(kept) >= behind
    assert (None if missed is None else [each.offset for each in missed]) == (wanted if is_kept else None)


def test_what_has_no_offset_is_not_kept_for_newcomers() -> None:
    track = at(2)
    track.remember([publication(1), publication(0), publication(2)], limit=100)
    assert [each.offset for each in track.recent] == [1, 2]


@pytest.mark.parametrize(("epoch", "kept"), [("e", [1, 2]), ("f", [])])
def test_a_new_epoch_makes_forget_what_was_delivered_in_the_old_one(epoch: str, kept: list[int]) -> None:
    track = at(2)
    track.remember([publication(1), publication(2)], limit=100)
    track.move(StreamPosition(2, epoch))
    assert [each.offset for each in track.recent] == kept


def test_what_was_forgotten_takes_no_room() -> None:
    track = at(1)
    track.remember([publication(1, 100)], limit=100)
    track.forget_recent()
    track.remember([publication(2, 50), publication(3, 50)], limit=100)
    assert [each.offset for each in track.recent] == [2, 3]


# Latecomers.


def latecomer(after: int) -> Latecomer:
    def joined(sent: Traffic) -> None:
        raise AssertionError(sent)

    return Latecomer(after, Nobody(), VARIANT, joined)


def test_latecomers_arrive_at_their_edges_in_the_order_they_came() -> None:
    track = at(3)
    five, other_five, seven = (latecomer(after) for after in (5, 5, 7))
    for each in (five, other_five, seven):
        track.wait(each)
    assert (track.edge, track.arrived()) == (5, [])
    track.offset = 5
    assert track.arrived() == [five, other_five]
    assert (track.edge, track.arrived()) == (7, [])
    track.offset = 9
    assert track.arrived() == [seven]
    assert (track.edge, track.latecomers) == (NO_EDGE, [])


def test_a_latecomer_who_goes_takes_the_edge_along() -> None:
    track = at(3)
    five, seven = latecomer(5), latecomer(7)
    for each in (five, seven):
        track.wait(each)
    assert (track.drop(five.subscriber), track.edge, track.latecomers) == (True, 7, [seven])
    assert (track.drop(five.subscriber), track.edge, track.latecomers) == (False, 7, [seven])
    assert (track.drop(seven.subscriber), track.edge) == (True, NO_EDGE)


def test_publications_without_a_payload_take_room_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track_module, "OVERHEAD_BYTES", 300)
    track = at(0)
    track.begin_holding()
    assert [track.hold(held(offset, 0), limit=700) for offset in (2, 3, 4)] == [True, True, False]
    track.remember([publication(offset, 0) for offset in (1, 2, 3)], limit=700)
    assert [each.offset for each in track.recent] == [2, 3]
