"""The oracle is right: it finds each planted fault, and nothing where there is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.oracle import (
    Disconnected,
    Entry,
    Fate,
    Joined,
    Journal,
    Publication,
    Refused,
    Sent,
    StreamAtEnd,
    Subscribed,
    Unsubscribed,
    Violation,
    faults_where_data_survived,
    faults_where_data_was_lost,
    violations_of_publishing,
)

STREAM = StreamAtEnd("a", 6, {offset: f"d{offset}" for offset in range(1, 7)})
NEW = StreamAtEnd("b", 2, {1: "n1", 2: "n2"})
AT_2, LOST, GAP = Subscribed("a", 2), Disconnected(1006), Unsubscribed(2500)


def publications(*offsets: int, letter: str = "d") -> list[Publication]:
    return [Publication(f"{letter}{offset}", offset) for offset in offsets]


def recovered(offset: int, epoch: str = "a") -> Subscribed:
    return Subscribed(epoch, offset, recovered=True)


def unrecovered(offset: int, epoch: str = "a") -> Subscribed:
    return Subscribed(epoch, offset)


@pytest.mark.parametrize(
    "journal",
    [
        [AT_2, *publications(3, 4, 5, 6)],
        [Subscribed("a", 6)],
        [Refused(100), Subscribed("a", 5), *publications(6)],
        [AT_2, *publications(3), LOST, recovered(3), *publications(4, 5, 6)],
        [AT_2, *publications(3), GAP, Refused(100), recovered(3), *publications(4, 5), Joined("x"), *publications(6)],
        [AT_2, *publications(3, 4), LOST, Refused(100), LOST, recovered(4), *publications(5, 6), GAP, recovered(6)],
        [Subscribed(""), Publication("d1", 1, "a"), *publications(2, 3, 4, 5, 6)],
    ],
)
def test_a_listener_that_got_all_is_faultless_whether_data_survived_or_not(journal: Journal) -> None:
    assert list(faults_where_data_survived(journal, STREAM)) == []
    assert list(faults_where_data_was_lost(journal, STREAM)) == []


@pytest.mark.parametrize(
    ("journal", "fault"),
    [
        ([AT_2, *publications(3, 5, 6)], "after 3 of 'a' came 5 of 'a' (told nothing)"),
        ([AT_2, *publications(3, 3, 4, 5, 6)], "after 3 of 'a' came 3 of 'a' (told nothing)"),
        (
            [AT_2, *publications(4), LOST, recovered(4), *publications(5, 6)],
            "after 2 of 'a' came 4 of 'a' (told nothing)",
        ),
        (
            [AT_2, *publications(3), LOST, recovered(3), *publications(5, 6)],
            "after 3 of 'a' came 5 of 'a' (told nothing)",
        ),
        (
            [AT_2, *publications(3), GAP, recovered(4), *publications(5, 6)],
            "after 3 of 'a' came 5 of 'a' (told that it is recovered)",
        ),
        (
            [AT_2, *publications(3, 4), LOST, recovered(2), *publications(3, 4, 5, 6)],
            "after 4 of 'a' came 3 of 'a' (told that it is recovered)",
        ),
        (
            [AT_2, *publications(3), LOST, *publications(4), recovered(4), *publications(5, 6)],
            "after 3 of 'a' came 4 of 'a' (not subscribed)",
        ),
        (
            [AT_2, *publications(3), Publication("d4", 4, "b"), unrecovered(4), *publications(5, 6)],
            "after 3 of 'a' came 4 of 'b' (told nothing)",
        ),
        (
            [AT_2, *publications(3, 4, 5)],
            "got to 5 of 'a', the top is 6 of 'a'; [Subscribed(epoch='a', offset=2, recovered=False)]",
        ),
        (
            [AT_2, *publications(3, 4, 5, 6), LOST],
            "is not subscribed at the end: [Subscribed(epoch='a', offset=2, recovered=False), Disconnected(code=1006)]",
        ),
        ([Refused(103)], "was never subscribed: [Refused(code=103)]"),
        (
            [AT_2, *publications(3), Publication("d5", 4), *publications(5, 6)],
            "got 'd5' as 4, where the stream holds 'd4'",
        ),
    ],
)
def test_a_loss_a_double_a_disorder_or_a_silent_gap_is_found_whether_data_survived_or_not(
    journal: Journal, fault: str
) -> None:
    assert fault in list(faults_where_data_survived(journal, STREAM))
    assert fault in list(faults_where_data_was_lost(journal, STREAM))


@pytest.mark.parametrize(
    ("journal", "stream", "fault"),
    [
        (
            [AT_2, *publications(3), GAP, unrecovered(5), *publications(6)],
            STREAM,
            "after 3 of 'a' came 6 of 'a' (told that it is not recovered)",
        ),
        (
            [AT_2, *publications(3), LOST, unrecovered(3), *publications(4, 5, 6)],
            STREAM,
            "after 3 of 'a' came 4 of 'a' (told that it is not recovered)",
        ),
        (
            [AT_2, *publications(3), Disconnected(3010), unrecovered(0, "b"), *publications(1, 2, letter="n")],
            NEW,
            "after 3 of 'a' came 1 of 'b' (told that it is not recovered)",
        ),
    ],
)
def test_a_break_that_was_told_is_a_fault_only_where_data_survived(
    journal: Journal, stream: StreamAtEnd, fault: str
) -> None:
    assert list(faults_where_data_survived(journal, stream)) == [fault]
    assert list(faults_where_data_was_lost(journal, stream)) == []


@pytest.mark.parametrize(
    ("journal", "fault"),
    [
        (
            [AT_2, *publications(3, 4, 5), GAP, unrecovered(4), *publications(5, 6)],
            "after 5 of 'a' came 5 of 'a' (told that it is not recovered)",
        ),
        (
            [AT_2, *publications(3), GAP, unrecovered(1, "b"), GAP, unrecovered(5), *publications(6)],
            "epoch 'a' came back: ['a', 'b', 'a']",
        ),
    ],
)
def test_a_step_back_is_a_fault_although_it_was_told(journal: Journal, fault: str) -> None:
    assert fault in list(faults_where_data_was_lost(journal, STREAM))


@given(st.data())
def test_whatever_one_entry_is_taken_out_doubled_or_swapped_among_publications_is_found(data: st.DataObject) -> None:
    journal: list[Entry] = [AT_2, *publications(3, 4), LOST, recovered(4), *publications(5, 6)]
    places = [index for index, entry in enumerate(journal) if isinstance(entry, Publication)]
    place = data.draw(st.sampled_from(places))
    match data.draw(st.sampled_from(["out", "double", "swap"])):
        case "out":
            del journal[place]
        case "double":
            journal.insert(place, journal[place])
        case _:
            other = data.draw(st.sampled_from([each for each in places if each != place]))
            journal[place], journal[other] = journal[other], journal[place]
    assert list(faults_where_data_survived(journal, STREAM))
    assert list(faults_where_data_was_lost(journal, STREAM))


def sent(number: int, fate: Fate = Fate.ACKNOWLEDGED, *, error: int = 0, sender: str = "p") -> Sent:
    return Sent("c", f"d{number}", sender, number, sent_at_s=float(number), fate=fate, error=error)


def stream(*numbers: int) -> dict[str, StreamAtEnd]:
    held = {offset: f"d{number}" for offset, number in enumerate(numbers, 1)}
    return {"c": StreamAtEnd("a", len(held), held)}


@pytest.mark.parametrize(
    ("all_sent", "streams", "violations"),
    [
        ([sent(1), sent(2)], stream(1, 2), []),
        ([sent(1), sent(2, Fate.REFUSED, error=100), sent(3, Fate.UNKNOWN)], stream(1), []),
        ([sent(1), sent(2, Fate.REFUSED, error=100), sent(3, Fate.UNKNOWN)], stream(1, 2, 3), []),
        ([sent(2, sender="p"), sent(1, sender="q")], stream(2, 1), []),
        ([sent(1), sent(2)], stream(1), [Violation("p", "c", "'d2' was acknowledged and is not in the stream")]),
        ([sent(1)], stream(1, 1), [Violation("the stream", "c", "'d1' is in it 2 times")]),
        ([sent(1)], stream(1, 2), [Violation("the stream", "c", "'d2' was sent by nobody")]),
        ([sent(1), sent(2)], stream(2, 1), [Violation("p", "c", "'d1' stands behind 'd2'")]),
        ([sent(1, Fate.REFUSED, error=103)], stream(), [Violation("p", "c", "'d1' was refused with error 103")]),
    ],
)
def test_what_publishers_know_is_held_against_the_stream(
    all_sent: list[Sent], streams: dict[str, StreamAtEnd], violations: list[Violation]
) -> None:
    assert violations_of_publishing(all_sent, streams) == violations


def test_what_was_acknowledged_before_the_data_were_lost_may_be_missing() -> None:
    assert violations_of_publishing([sent(1), sent(2)], stream(2), kept_since_s=1.5) == []
