import pytest

from loadtest.peers.reception import Faults, Reception, total


@pytest.mark.parametrize(
    ("received", "faults"),
    [
        ([1, 2, 3, 4], Faults()),
        ([1, 2, 4], Faults(lost=1)),
        ([2, 3, 4], Faults(lost=1)),
        ([1, 2], Faults(lost=2)),
        ([], Faults(lost=4)),
        ([1, 2, 2, 3, 4], Faults(duplicated=1)),
        ([1, 3, 2, 4], Faults(reordered=1)),
        ([4, 1, 2, 3], Faults(reordered=3)),
        ([1, 3, 2, 2, 4], Faults(duplicated=1, reordered=1)),
        ([1, 4, 1], Faults(lost=2, duplicated=1)),
    ],
)
def test_what_is_wrong_is_told_apart(received: list[int], faults: Faults) -> None:
    reception = Reception()
    reception.take(received)
    assert reception.faults(4) == faults


def test_a_later_run_begins_later_and_stragglers_of_the_one_before_count_as_duplicates() -> None:
    reception = Reception(first=10)
    reception.take([9, 10, 11])
    assert reception.faults(11) == Faults(duplicated=1)


def test_faults_add_up_by_kind() -> None:
    assert total([Faults(1, 2, 3), Faults(lost=1), Faults()]) == Faults(2, 2, 3)
    assert total([]) == Faults()
