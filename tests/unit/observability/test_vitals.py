"""All that a node's health is read from, as its looks find it; the test looks, and moves the clock."""

import errno
from collections.abc import Callable
from typing import Any

import pytest

from gateway.observability.health import Change, HealthSettings
from gateway.observability.heartbeats import LOOKS_EVERY_S
from gateway.observability.vitals import Back, Vitals

MIB = 1048576
NOT_BACK = "what this node publishes does not come back to it"


class Patient:
    """A node's vitals, an engine that does as the test says, and a loop whose timer the test fires."""

    def __init__(self, **settings: Any) -> None:
        self.now_s = 1000.0
        self.used: int | None = 100 * MIB
        self.trouble: str | None = None
        self.is_deaf = False
        self.sent: list[Back] = []
        self.changes: list[Change] = []
        self.timer: Callable[[], None] | None = None
        self.vitals = Vitals(
            HealthSettings(**settings),
            monotonic=lambda: self.now_s,
            changed=self.changes.append,
            measure=self._measure,
        )
        self.vitals.start(self, self._echo, self._call_later)
        self.vitals.begin_serving()

    def live(self, seconds: float) -> str | None:
        """Let *seconds* pass and return why the node is not ready then."""
        for _ in range(round(seconds / LOOKS_EVERY_S)):
            self.now_s += LOOKS_EVERY_S
            timer, self.timer = self.timer, None
            assert timer is not None
            timer()
        return self.vitals.unready_because()

    def cancel(self) -> None:
        self.timer = None

    def _measure(self) -> int:
        if self.used is None:
            raise OSError(errno.EMFILE, "Too many open files")
        return self.used

    def _echo(self, back: Back) -> None:
        self.sent.append(back)
        if not self.is_deaf:
            back(None)

    def _call_later(self, delay_s: float, call: Callable[[], None]) -> "Patient":
        assert delay_s == LOOKS_EVERY_S
        self.timer = call
        return self


def test_a_node_whose_messages_come_back_is_ready_and_sends_a_few_in_a_grace() -> None:
    patient = Patient()
    assert patient.vitals.unready_because() is None
    sent = len(patient.sent)
    assert patient.live(10.0) is None
    assert len(patient.sent) - sent == 4
    assert patient.changes == []


def test_a_deaf_link_makes_a_node_unready_after_the_grace_and_an_answer_ready_again() -> None:
    patient = Patient()
    patient.live(2.25)
    patient.is_deaf = True
    assert patient.live(10.0) is None
    assert patient.changes == [Change.LOST]
    assert patient.live(1.0) == NOT_BACK
    patient.sent[-1](None)
    assert patient.vitals.unready_because() is None
    assert patient.changes == [Change.LOST, Change.BACK]


def test_before_the_first_message_is_back_a_node_is_unready_at_once() -> None:
    patient = _deaf_from_birth(broker_grace_s=3600.0)
    assert patient.vitals.unready_because() == "its first message to itself has not come back yet"
    patient.sent[-1](None)
    assert patient.vitals.unready_because() is None


def _deaf_from_birth(**settings: Any) -> Patient:
    class Deaf(Patient):
        def _echo(self, back: Back) -> None:
            self.sent.append(back)

    return Deaf(**settings)


def test_while_a_link_is_down_no_canary_is_sent_and_the_link_says_why() -> None:
    patient = Patient()
    patient.trouble = "redis 127.0.0.1:6379: connection refused"
    sent = len(patient.sent)
    assert patient.live(9.75) is None
    assert patient.live(0.5) == patient.trouble
    assert len(patient.sent) == sent
    patient.trouble = None
    assert patient.live(0.25) is None


def test_a_canary_that_can_not_be_sent_says_why() -> None:
    patient = Patient(broker_grace_s=0.0)
    patient.is_deaf = True
    patient.live(1.0)
    patient.sent[-1]("too much waits for Redis to answer")
    assert patient.vitals.unready_because() == f"{NOT_BACK}: too much waits for Redis to answer"


def test_a_loop_that_was_held_up_neither_misses_its_canary_nor_blames_its_tasks() -> None:
    patient = Patient()
    patient.vitals.heartbeats.watch(lambda: {"wheel": 1}, lambda: 0.0)
    patient.live(2.0)
    patient.is_deaf = True
    patient.live(0.5)  # one is sent, and its answer waits to be read
    patient.now_s += 60.0
    assert patient.live(0.25) is None
    patient.sent[-1](None)
    patient.is_deaf = False
    assert (patient.live(5.0), patient.vitals.dead_because(), patient.changes) == (None, None, [])


def test_above_the_watermark_a_node_is_unready_until_it_is_clearly_below() -> None:
    patient = Patient(memory_watermark=200 * MIB)
    found = []
    for used in (199, 200, 195, 189):
        patient.used = used * MIB
        found.append(patient.live(0.25) is None)
    assert found == [True, False, False, True]


def test_a_node_that_has_no_descriptor_left_to_measure_with_still_notices_that_its_broker_is_deaf() -> None:
    patient = Patient(memory_watermark=200 * MIB)
    patient.used, patient.is_deaf = None, True
    patient.live(14.0)
    assert patient.vitals.unready_because() == NOT_BACK


def test_without_a_watermark_nothing_is_measured() -> None:
    patient = Patient()
    patient.used = 10**15
    assert patient.live(1.0) is None


def test_a_changed_configuration_counts_at_once() -> None:
    patient = Patient()
    patient.vitals.heartbeats.watch(lambda: {"wheel": 1}, lambda: 0.0)
    assert (patient.live(20.0), patient.vitals.dead_because()) == (None, None)
    patient.vitals.change(HealthSettings(memory_watermark=50 * MIB, heartbeat_timeout_s=10.0, broker_grace_s=0.0))
    assert patient.live(0.25) == "100 MiB of memory are in use, health.memory_watermark is 50 MiB"
    assert patient.vitals.dead_because() == "wheel: silent for 20 s"
    patient.vitals.change(HealthSettings(broker_grace_s=0.0))
    patient.is_deaf = True
    assert patient.live(1.0) == NOT_BACK


def test_a_node_has_started_once_it_has_served_whatever_comes_later() -> None:
    vitals = Vitals(HealthSettings(), monotonic=lambda: 0.0, changed=lambda _: None)
    said = [vitals.unstarted_because()]
    vitals.begin_serving()
    vitals.readiness.own_reason = "draining"
    said += [vitals.unstarted_because(), vitals.unready_because()]
    assert said == ["starting", None, "draining"]


def test_who_has_stopped_looks_no_more() -> None:
    patient = Patient()
    patient.vitals.stop()
    assert patient.timer is None


def test_a_report_has_every_check_and_how_the_canary_is() -> None:
    patient = Patient()
    patient.live(2.25)
    patient.is_deaf = True
    patient.live(6.0)
    assert patient.vitals.report() == {
        "broker": NOT_BACK,
        "canary": {"age_s": 8.25, "round_trip_s": 0.0},
        "checks": {"node": "ok", "memory": "ok", "broker": f"tolerated for another 4.2 s: {NOT_BACK}"},
    }


@pytest.mark.parametrize("value", ["sometimes", -1, "-1s", float("nan")])
def test_a_grace_is_a_duration_or_never(value: object) -> None:
    with pytest.raises(ValueError, match="broker_grace"):
        HealthSettings(broker_grace=value)  # type: ignore[call-arg]
