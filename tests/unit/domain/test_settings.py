"""The base of all settings: durations, names, strictness."""

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.settings import Limit, Seconds, Settings, Size, parse_duration


class Table(Settings):
    """A table like those of the configuration."""

    wait_s: Seconds = 1.0
    """How long."""
    size: Size = 1
    limit: Limit = 0
    name: str = ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (0, 0.0),
        (25, 25.0),
        (0.25, 0.25),
        ("0", 0.0),
        ("25", 25.0),
        ("0.5", 0.5),
        ("0s", 0.0),
        ("25s", 25.0),
        (" 25s ", 25.0),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("10m", 600.0),
        ("1h", 3600.0),
        ("30d", 2592000.0),
        ("720h", 2592000.0),
        ("1h30m", 5400.0),
        ("1m30s", 90.0),
        ("1d1h1m1s500ms", 90061.5),
        ("2s500ms", 2.5),
    ],
    ids=repr,
)
def test_a_duration_is_read(text: float | str, seconds: float) -> None:
    assert Table.model_validate({"wait": text}).wait_s == seconds
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "s",
        "5 s",
        "5S",
        "5sec",
        "5min",
        "1h 30m",
        "1h30",
        "30m1",
        "-5s",
        "+5s",
        "-1",
        "1..5s",
        ".5s",
        "5us",
        "1w",
        "five",
        "nan",
        "inf",
        "1e999",
        "9" * 400 + "s",
        -1,
        -0.001,
        float("nan"),
        float("inf"),
        True,
        None,
        [],
        {},
        b"5s",
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_duration_is_refused_by_name(value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        Table.model_validate({"wait": value})
    assert [error["loc"] for error in refused.value.errors()] == [("wait",)]


def test_a_number_too_large_for_a_float_is_refused_by_name() -> None:
    with pytest.raises(ValidationError) as refused:
        Table.model_validate({"wait": 10**400})
    assert [error["loc"] for error in refused.value.errors()] == [("wait",)]


def test_a_text_that_is_no_duration_is_answered_with_what_one_looks_like() -> None:
    with pytest.raises(ValidationError, match='a text such as "25s", "10m", "1h30m", "500ms"'):
        Table.model_validate({"wait": "5 minutes"})


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"size": 0}, "size"),
        ({"size": -1}, "size"),
        ({"size": 1.0}, "size"),
        ({"size": "1"}, "size"),
        ({"size": True}, "size"),
        ({"limit": -1}, "limit"),
        ({"limit": None}, "limit"),
        ({"name": 1}, "name"),
        ({"wiat": "5s"}, "wiat"),
        ({"Wait": "5s"}, "Wait"),
    ],
    ids=repr,
)
def test_a_bad_value_or_an_unknown_key_is_named(table: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Table.model_validate(table)
    assert [error["loc"] for error in refused.value.errors()] == [(named,)]


def test_a_key_is_written_without_its_unit_and_a_field_with_it() -> None:
    assert Table.model_validate({"wait": "5s"}) == Table(wait_s=5.0) == Table.model_validate({"wait_s": 5})
    assert [field.alias for field in Table.model_fields.values()] == ["wait", "size", "limit", "name"]


def test_settings_do_not_change() -> None:
    table = Table()
    with pytest.raises(ValidationError, match="frozen"):
        table.size = 2  # type: ignore[misc]
    assert table.size == 1


def test_what_a_field_is_for_is_its_docstring() -> None:
    assert Table.model_fields["wait_s"].description == "How long."
