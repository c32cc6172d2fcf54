"""How much memory is too much, and until when."""

import pytest

from gateway.observability.memory import Watermark, is_measurable, resident_bytes

MIB = 1048576


def test_too_much_is_too_much_until_it_is_clearly_less() -> None:
    watermark = Watermark(100 * MIB)
    over = []
    for used in (99, 100, 99, 96, 94, 99, 101):
        watermark.note(used * MIB)
        over.append(watermark.trouble is not None)
    assert over == [False, True, True, True, False, False, True]


def test_it_is_said_how_much_there_is_and_which_setting_calls_it_too_much() -> None:
    watermark = Watermark(100 * MIB)
    watermark.note(130 * MIB)
    assert watermark.trouble == "130 MiB of memory are in use, health.memory_watermark is 100 MiB"


def test_nothing_is_too_much_before_it_is_measured() -> None:
    assert Watermark(1).trouble is None


@pytest.mark.skipif(not is_measurable(), reason="this system does not say")
def test_the_memory_of_this_process_is_what_it_allocates() -> None:
    before = resident_bytes()
    block = b"x" * (64 * MIB)
    assert resident_bytes() - before > 0.9 * len(block)
