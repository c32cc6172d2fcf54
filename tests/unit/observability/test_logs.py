"""Logs: one event, one line, in the form that its reader wants."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from gateway.observability.logs import Format, Level, LogSettings, is_adjustable, make_logger, set_level

_LEVELS = list(Level)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def logged(
    stream: io.StringIO, fields: dict[str, Any], *, level: str = "info", settings: LogSettings | None = None
) -> str:
    log = make_logger(settings or LogSettings(), node="n1", stream=stream)
    getattr(log, level)("event", **fields)
    return stream.getvalue()


def test_an_event_is_one_line_of_json_with_its_node_level_time_and_fields() -> None:
    line = logged(io.StringIO(), {"client": "c1", "code": 3001, "ok": True, "none": None, "list": [1, "a"]})
    assert line.endswith("\n")
    assert line.count("\n") == 1
    event = json.loads(line)
    age = datetime.now(UTC) - datetime.fromisoformat(event.pop("timestamp"))
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert event == {
        "event": "event",
        "level": "info",
        "node": "n1",
        "client": "c1",
        "code": 3001,
        "ok": True,
        "none": None,
        "list": [1, "a"],
    }


@pytest.mark.parametrize(
    "value",
    [
        'a "quoted" text',
        "two\nlines",
        "\x00\x1b[31m",
        "Zoë ☃ 😀",
        "\ud800",
        b"\xff",
        2**63,
        2**70,
        float("nan"),
        {"a": {1, 2}},
        {1: 2},
        object(),
        Level.INFO,
        ValueError("x"),
        ("a", 1),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_whatever_is_logged_is_one_line_of_json(value: Any) -> None:
    line = logged(io.StringIO(), {"value": value})
    assert line.count("\n") == 1
    assert set(json.loads(line)) == {"event", "level", "node", "timestamp", "value"}


def test_an_exception_is_told_within_its_line() -> None:
    stream = io.StringIO()
    log = make_logger(LogSettings(format=Format.JSON), node="n1", stream=stream)
    try:
        int("no\nnumber")
    except ValueError:
        log.exception("failed", client="c1")
    [line] = stream.getvalue().splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"], event["client"]) == ("failed", "error", "c1")
    assert event["exception"].startswith("Traceback")
    assert "ValueError: invalid literal" in event["exception"]


@pytest.mark.parametrize("level", _LEVELS)
def test_what_is_less_important_than_the_level_is_not_written(level: Level) -> None:
    stream = io.StringIO()
    log = make_logger(LogSettings(level=level, format=Format.JSON), node="n1", stream=stream)
    for each in _LEVELS:
        getattr(log, each)(f"it is {each}")
    written = [(event["event"], event["level"]) for event in map(json.loads, stream.getvalue().splitlines())]
    assert written == [(f"it is {each}", each) for each in _LEVELS[_LEVELS.index(level) :]]


def test_on_a_terminal_people_read_text_in_colour() -> None:
    text = logged(Terminal(), {"client": "c1"})
    assert text.count("\n") == 1
    assert "\x1b[" in text
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    for word in ("event", "info", "client", "c1", "n1"):
        assert word in text


def test_text_that_is_no_terminals_has_no_colours() -> None:
    text = logged(io.StringIO(), {"client": "c1"}, settings=LogSettings(format=Format.TEXT))
    assert "\x1b" not in text
    assert "client=c1" in text
    assert "node=n1" in text


def test_json_on_a_terminal_is_json() -> None:
    assert json.loads(logged(Terminal(), {}, settings=LogSettings(format=Format.JSON)))["event"] == "event"


@pytest.mark.parametrize("value", ["one\ntwo", "one\r\n[error] forged", "\x1b[31mred"])
def test_a_field_can_not_forge_lines_or_colours_of_the_text_form(value: str) -> None:
    text = logged(io.StringIO(), {"name": value}, settings=LogSettings(format=Format.TEXT))
    assert text.count("\n") == 1
    assert "\r" not in text
    assert "\x1b" not in text


def test_lines_are_utf_8_whatever_the_encoding_of_standard_error_is() -> None:
    written = io.BytesIO()
    with io.TextIOWrapper(written, encoding="ascii") as stream:
        make_logger(LogSettings(format=Format.JSON), node="n1", stream=stream).info("Zoë")
        assert json.loads(written.getvalue().decode())["event"] == "Zoë"


def test_fields_that_are_bound_stay_with_the_logger_that_they_were_bound_to() -> None:
    stream = io.StringIO()
    log = make_logger(LogSettings(format=Format.JSON), node="n1", stream=stream)
    log.bind(client="c1").info("first")
    log.info("second")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["client"] == "c1"
    assert "client" not in second


@pytest.mark.parametrize("first", _LEVELS)
@pytest.mark.parametrize("then", _LEVELS)
def test_the_level_can_be_changed_for_all_who_hold_the_logger_already(first: Level, then: Level) -> None:
    stream = io.StringIO()
    log = make_logger(LogSettings(level=first), node="n1", stream=stream)
    held, other = log.bind(part="held"), make_logger(LogSettings(level=first), node="n2", stream=stream)
    for level in _LEVELS:
        getattr(log, level)("before")
    stream.truncate(stream.seek(0))
    set_level(held.bind(more=1), then)
    for each in (log, held, other):
        for level in _LEVELS:
            getattr(each, level)("after")
    written = [json.loads(line) for line in stream.getvalue().splitlines()]
    allowed, as_before = _LEVELS[_LEVELS.index(then) :], _LEVELS[_LEVELS.index(first) :]
    assert [each["level"] for each in written] == [*allowed, *allowed, *as_before]


def test_a_logger_of_somebody_else_keeps_its_level() -> None:
    foreign = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger("info")).bind()
    ours = make_logger(LogSettings(), node="n1", stream=io.StringIO())
    assert [is_adjustable(each) for each in (foreign, ours, ours.bind(part="x"))] == [False, True, True]
    with pytest.raises(AssertionError, match="did not make"):
        set_level(foreign, Level.DEBUG)


@pytest.mark.parametrize("form", [Format.TEXT, Format.JSON])
def test_a_traceback_shows_no_local_variables_which_may_hold_tokens_and_payloads(form: Format) -> None:
    def check(token: str) -> None:
        raise ValueError(f"{len(token)} characters are too few")

    stream, secret = Terminal(), "planted-secret"
    log = make_logger(LogSettings(format=form), node="n1", stream=stream)
    try:
        check(secret)
    except ValueError:
        log.exception("command failed")
    assert "14 characters are too few" in stream.getvalue()
    assert secret not in stream.getvalue()
