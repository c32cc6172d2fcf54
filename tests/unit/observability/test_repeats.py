"""Floods of one event: the first lines of each second are there, then one that counts the rest."""

import asyncio
import io
import json
from typing import Any

import pytest
import structlog

from gateway.observability.logs import Format, Level, LogSettings, make_logger
from gateway.observability.repeats import Repeats


class Written:
    """A log that is limited, on a clock that the test moves."""

    def __init__(self, limit: int = 2) -> None:
        self.now_s = 100.0
        self.lines: list[tuple[str, dict[str, Any]]] = []
        repeats = Repeats(limit, monotonic=lambda: self.now_s)
        self.log = structlog.wrap_logger(
            structlog.ReturnLogger(),
            processors=[repeats, self._take],
            wrapper_class=structlog.make_filtering_bound_logger("debug"),
        )
        repeats.log = self.log

    def _take(self, _logger: Any, method: str, event: Any) -> str:
        self.lines.append((method, dict(event)))
        return ""

    @property
    def events(self) -> list[str]:
        return [f"{event.get('of', '')}{event.get('lines', '')}" or event["event"] for _, event in self.lines]


def test_of_a_flood_the_first_lines_of_each_second_are_written_and_the_rest_is_counted() -> None:
    written = Written(limit=2)
    for _ in range(5):
        written.log.info("refused", reason="path")
    assert written.events == ["refused", "refused"]
    written.now_s += 1.0
    for _ in range(3):
        written.log.info("refused", reason="path")
    assert written.events == ["refused", "refused", "refused3", "refused", "refused"]
    written.now_s += 1.0
    written.log.info("other")
    assert written.events[-2:] == ["refused1", "other"]
    assert [event for _, event in written.lines if "of" in event] == [
        {"event": "repeats not written", "of": "refused", "lines": 3},
        {"event": "repeats not written", "of": "refused", "lines": 1},
    ]


def test_one_event_does_not_drown_another() -> None:
    written = Written(limit=1)
    for name in ("refused", "refused", "token refused", "token refused", "broker lost"):
        written.log.warning(name)
    assert written.events == ["refused", "token refused", "broker lost"]


def test_the_count_is_told_at_the_level_of_what_it_counts() -> None:
    written = Written(limit=1)
    for method in ("info", "warning", "error"):
        for _ in range(2):
            getattr(written.log, method)(f"it is {method}")
    written.now_s += 1.0
    written.log.debug("next")
    counts = [(method, event["of"]) for method, event in written.lines if "of" in event]
    assert counts == [("info", "it is info"), ("warning", "it is warning"), ("error", "it is error")]


@pytest.mark.parametrize("user", ["42", ""])
def test_steps_of_known_clients_are_all_written(user: str) -> None:
    written = Written(limit=2)
    for _ in range(50):
        written.log.info("subscribed", user=user, channel="a")
    assert written.events == ["subscribed"] * 50


def test_what_goes_wrong_for_a_known_client_is_limited_all_the_same() -> None:
    written = Written(limit=2)
    for _ in range(50):
        written.log.error("command failed", user="42")
    assert written.events == ["command failed"] * 2


def test_a_library_that_words_each_line_anew_is_one_source() -> None:
    written = Written(limit=2)
    for wording in (f"socket {number} is odd" for number in range(50)):
        written.log.warning(wording, source="asyncio")
    assert written.events == ["socket 0 is odd", "socket 1 is odd"]


def test_without_a_limit_everything_is_written() -> None:
    written = Written(limit=0)
    for _ in range(50):
        written.log.info("refused")
    assert len(written.lines) == 50


async def test_a_flood_that_ends_is_counted_although_nothing_follows() -> None:
    stream = io.StringIO()
    log = make_logger(LogSettings(level=Level.INFO, format=Format.JSON, repeat_limit=3), node="n1", stream=stream)
    for _ in range(10):
        log.info("refused", reason="path")
    async with asyncio.timeout(20):
        while len(stream.getvalue().splitlines()) < 4:  # noqa: ASYNC110 - nothing here could set an event
            await asyncio.sleep(0.05)
    last = json.loads(stream.getvalue().splitlines()[-1])
    del last["timestamp"]
    assert last == {"event": "repeats not written", "level": "info", "node": "n1", "of": "refused", "lines": 7}


def test_bound_fields_do_not_divide_a_flood() -> None:
    stream = io.StringIO()
    log = make_logger(LogSettings(format=Format.JSON, repeat_limit=1), node="n1", stream=stream)
    for number in range(5):
        log.bind(client=str(number)).info("token refused", cause="signature")
    assert len(stream.getvalue().splitlines()) == 1
