"""What many outcomes leave to be written goes out once, in the turn after."""

from collections.abc import Callable

from gateway.messaging.turn import Turn


class Writer:
    """Notes when it was flushed; *also* happens then."""

    def __init__(self, name: str, notes: list[str], also: Callable[[], None] = lambda: None) -> None:
        self._name = name
        self._notes = notes
        self._also = also

    def flush(self) -> None:
        self._notes.append(self._name)
        self._also()


def test_who_asks_is_flushed_in_order_when_the_turn_ends_and_the_loop_is_asked_once() -> None:
    soon: list[Callable[[], None]] = []
    turn, notes = Turn(call_soon=soon.append), list[str]()
    for name in ("a", "b", "c"):
        turn.flush_at_end(Writer(name, notes))
    assert (notes, len(soon)) == ([], 1)
    soon.pop()()
    assert (notes, soon) == (["a", "b", "c"], [])


def test_each_turn_flushes_those_of_its_own() -> None:
    soon: list[Callable[[], None]] = []
    turn, notes = Turn(call_soon=soon.append), list[str]()
    for name in ("a", "b"):
        turn.flush_at_end(Writer(name, notes))
        soon.pop()()
    assert (notes, soon) == (["a", "b"], [])


def test_who_asks_during_the_flush_is_flushed_in_the_next_turn() -> None:
    soon: list[Callable[[], None]] = []
    turn, notes = Turn(call_soon=soon.append), list[str]()
    late = Writer("late", notes)
    turn.flush_at_end(Writer("a", notes, also=lambda: turn.flush_at_end(late)))
    turn.flush_at_end(Writer("b", notes))
    soon.pop()()
    assert (notes, len(soon)) == (["a", "b"], 1)
    soon.pop()()
    assert (notes, soon) == (["a", "b", "late"], [])
