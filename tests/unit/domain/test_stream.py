"""The stream of one channel (protocol.md 3.5 history, 3.6), against a plain list as its model."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.stream import HistoryRange, Stream, StreamOptions
from gateway.protocol.messages import Publication, StreamPosition

OPTIONS = StreamOptions(size=5, ttl_s=60.0, meta_ttl_s=600.0)
NOW = 1000.0


def filled(count: int, options: StreamOptions = OPTIONS) -> Stream:
    stream = Stream("epoch")
    for number in range(1, count + 1):
        stream.append(Publication(data=msgspec.Raw(b"%d" % number)), options, now_s=NOW)
    return stream


def offsets(stream: Stream, wanted: HistoryRange, *, now_s: float = NOW) -> list[int]:
    return [publication.offset for publication in stream.read(wanted, now_s=now_s).publications]


def since(offset: int) -> StreamPosition:
    return StreamPosition(offset, "epoch")


def test_offsets_rise_from_one_and_only_the_first_tells_the_epoch() -> None:
    page = filled(3).read(HistoryRange(limit=-1), now_s=NOW)
    assert page.publications == [
        Publication(data=page.publications[0].data, offset=1, epoch="epoch"),
        Publication(data=page.publications[1].data, offset=2),
        Publication(data=page.publications[2].data, offset=3),
    ]
    assert [bytes(each.data) for each in page.publications] == [b"1", b"2", b"3"]
    assert page.position == StreamPosition(3, "epoch")


# Nine were published, and five are kept: 5 to 9 (protocol.md 9, 19 and 22).
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (HistoryRange(), []),
        (HistoryRange(limit=-1), [5, 6, 7, 8, 9]),
        (HistoryRange(limit=2), [5, 6]),
        (HistoryRange(limit=99), [5, 6, 7, 8, 9]),
        (HistoryRange(limit=2, is_reverse=True), [9, 8]),
        (HistoryRange(limit=-1, since=since(6)), [7, 8, 9]),
        (HistoryRange(limit=1, since=since(6)), [7]),
        (HistoryRange(limit=-1, since=since(0)), [5, 6, 7, 8, 9]),
        (HistoryRange(limit=-1, since=since(2)), [5, 6, 7, 8, 9]),
        (HistoryRange(limit=-1, since=since(9)), []),
        (HistoryRange(limit=-1, since=since(50)), []),
        (HistoryRange(limit=-1, since=since(8), is_reverse=True), [7, 6, 5]),
        (HistoryRange(limit=2, since=since(8), is_reverse=True), [7, 6]),
        (HistoryRange(limit=-1, since=since(5), is_reverse=True), []),
        (HistoryRange(limit=-1, since=since(3), is_reverse=True), []),
        (HistoryRange(limit=-1, since=since(50), is_reverse=True), [9, 8, 7, 6, 5]),
        (HistoryRange(limit=0, since=since(6)), []),
    ],
    ids=str,
)
def test_what_a_range_finds(wanted: HistoryRange, found: list[int]) -> None:
    assert offsets(filled(9), wanted) == found


@given(
    published=st.integers(0, 40),
    size=st.integers(1, 20),
    limit=st.integers(-1, 30),
    offset=st.none() | st.integers(0, 60),
    is_reverse=st.booleans(),
)
def test_a_range_is_what_a_list_would_give(
    published: int, size: int, limit: int, offset: int | None, *, is_reverse: bool
) -> None:
    stream = filled(published, StreamOptions(size=size, ttl_s=60.0, meta_ttl_s=600.0))
    kept = list(range(1, published + 1))[-size:]
    if is_reverse:
        expected = [each for each in reversed(kept) if offset is None or each < offset]
    else:
        expected = [each for each in kept if offset is None or each > offset]
    wanted = HistoryRange(limit=limit, since=None if offset is None else since(offset), is_reverse=is_reverse)
    assert offsets(stream, wanted) == (expected if limit < 0 else expected[:limit])


def test_publications_go_when_their_time_is_over_and_the_position_stays() -> None:
    stream = filled(3)
    assert offsets(stream, HistoryRange(limit=-1), now_s=NOW + 59.9) == [1, 2, 3]
    page = stream.read(HistoryRange(limit=-1), now_s=NOW + 60.0)
    assert (page.publications, page.position) == ([], StreamPosition(3, "epoch"))


def test_the_last_publish_keeps_them_all() -> None:
    stream = filled(2)
    stream.append(Publication(), OPTIONS, now_s=NOW + 50)
    assert offsets(stream, HistoryRange(limit=-1), now_s=NOW + 100) == [1, 2, 3]


def test_what_had_expired_does_not_come_back_with_the_next_publish() -> None:
    stream = filled(2)
    stream.append(Publication(), OPTIONS, now_s=NOW + 60)
    assert offsets(stream, HistoryRange(limit=-1), now_s=NOW + 60) == [3]


def test_removing_forgets_the_publications_and_keeps_the_position() -> None:
    stream = filled(3)
    stream.remove()
    assert stream.read(HistoryRange(limit=-1), now_s=NOW).position == StreamPosition(3, "epoch")
    stream.append(Publication(), OPTIONS, now_s=NOW)
    assert offsets(stream, HistoryRange(limit=-1)) == [4]


def test_the_meta_is_renewed_and_never_shortened() -> None:
    stream = filled(1)
    assert stream.meta_expires_at_s == NOW + 600
    stream.touch(60.0, now_s=NOW + 100)
    assert stream.meta_expires_at_s == NOW + 600
    stream.touch(600.0, now_s=NOW + 100)
    assert stream.meta_expires_at_s == NOW + 700


# (last version and its epoch, then a version with its epoch, is it outdated)
@pytest.mark.parametrize(
    ("last", "last_epoch", "version", "epoch", "is_outdated"),
    [
        (0, "", 0, "", False),
        (5, "", 0, "", False),
        (5, "", 6, "", False),
        (5, "", 5, "", True),
        (5, "", 4, "", True),
        (5, "a", 5, "a", True),
        (5, "a", 4, "b", False),
        (5, "a", 4, "", True),
        (2**63, "", 2**63 - 1, "", True),
        (2**63 - 1, "", 2**63, "", False),
    ],
)
def test_which_version_comes_too_late(
    last: int, last_epoch: str, version: int, epoch: str, *, is_outdated: bool
) -> None:
    stream = Stream("epoch")
    stream.append(Publication(version=last), OPTIONS, version_epoch=last_epoch, now_s=NOW)
    assert stream.is_outdated(version, epoch) is is_outdated
