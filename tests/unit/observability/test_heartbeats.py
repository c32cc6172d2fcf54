"""Who is silent, in the loop's own time; a look a quarter of a second, unless a test holds the loop up."""

import pytest

from gateway.observability.heartbeats import LOOKS_EVERY_S, Heartbeats, LoopTime

LIMIT_S = 30.0


class Ward:
    """Two tasks that are watched, and the loop that they turn in."""

    def __init__(self, *, slowest_turn_s: float = 0.0) -> None:
        self.now_s = 1000.0
        self.turns = {"wheel": 0, "cluster": 0}
        self.silent: set[str] = set()
        self.ended: set[str] = set()
        self.heartbeats = Heartbeats(limit_s=LIMIT_S)
        self.heartbeats.watch(lambda: self.turns, lambda: slowest_turn_s)
        for name in self.turns:
            self.heartbeats.watch_end(name, lambda name=name: name in self.ended)  # type: ignore[misc]
        self._loop_time = LoopTime(now_s=self.now_s)
        self.look()

    def look(self) -> str | None:
        self.heartbeats.look(self._loop_time.advance(self.now_s))
        return self.heartbeats.fault()

    def live(self, seconds: float, *, step_s: float = LOOKS_EVERY_S) -> str | None:
        """Let *seconds* pass; the loop comes round every *step_s*, the look before the tasks."""
        fault = None
        for _ in range(round(seconds / step_s)):
            self.now_s += step_s
            fault = self.look()
            for name in self.turns.keys() - self.silent:
                self.turns[name] += 1
        return fault


def test_who_turns_is_alive() -> None:
    ward = Ward()
    assert ward.live(300.0) is None
    assert ward.heartbeats.states == {"wheel": "ok", "cluster": "ok"}


def test_who_stands_still_is_named_after_the_limit_and_forgiven_when_it_turns() -> None:
    ward = Ward()
    ward.silent = {"cluster"}
    assert ward.live(LIMIT_S) is None
    assert ward.live(1.0) == "cluster: silent for 31 s"
    assert ward.heartbeats.states == {"wheel": "ok", "cluster": "silent for 31 s"}
    ward.silent = set()
    assert ward.live(1.0) is None


def test_a_slow_turn_has_the_time_that_it_takes() -> None:
    ward = Ward(slowest_turn_s=60.0)
    ward.silent = {"cluster"}
    assert ward.live(LIMIT_S + 60.0) is None
    assert ward.live(1.0) == "cluster: silent for 91 s"


def test_who_has_ended_is_named_at_once() -> None:
    ward = Ward()
    ward.ended = {"wheel"}
    assert ward.live(0.25) == "wheel: has ended"
    ward.silent = {"cluster"}
    assert ward.live(LIMIT_S + 1) == "wheel: has ended; cluster: silent for 31 s"


@pytest.mark.parametrize("held_up_s", [40.0, 3600.0])
def test_a_loop_that_was_held_up_blames_nobody(held_up_s: float) -> None:
    """The first look comes before any task had its turn, and long after the limit."""
    ward = Ward()
    ward.live(10.0)
    ward.now_s += held_up_s
    assert ward.look() is None
    assert ward.live(60.0) is None


def test_a_loop_that_is_slow_at_all_times_blames_nobody() -> None:
    ward = Ward()
    assert ward.live(1800.0, step_s=20.0) is None


def test_a_slow_loop_still_finds_who_stands_still() -> None:
    ward = Ward()
    ward.silent = {"cluster"}
    assert ward.live(20.0 * 62, step_s=20.0) == "cluster: silent for 31 s"


def test_who_is_not_there_any_more_is_not_watched() -> None:
    ward = Ward()
    del ward.turns["cluster"]
    ward.turns["links"] = 0
    assert ward.live(60.0) is None
    assert ward.heartbeats.states == {"wheel": "ok", "cluster": "ok", "links": "ok"}


def test_the_time_of_the_loop_never_goes_back() -> None:
    loop_time = LoopTime(now_s=100.0)
    seen = [loop_time.advance(now_s) for now_s in (100.25, 100.5, 99.0, 99.25, 500.0)]
    assert seen == [0.25, 0.5, 0.5, 0.75, 1.25]
