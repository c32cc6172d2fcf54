"""The configuration written out: every key, and back again."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest

from gateway.config import Config, development, load
from gateway.configdoc import as_toml, reference
from gateway.settings import Settings


def keys_of(kind: type[Settings], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Walk the models on a way of its own: pairs of table and key."""
    for attribute, field in kind.model_fields.items():
        name = field.alias or attribute
        inner: Any = get_args(field.annotation)[0] if get_origin(field.annotation) is list else field.annotation
        if isinstance(inner, type) and issubclass(inner, Settings):
            yield from keys_of(inner, f"{prefix}{name}.")
        else:
            yield prefix.rstrip("."), name


KEYS = list(keys_of(Config))


def sections(text: str) -> dict[str, list[str]]:
    """Return the table rows of the reference by the table they describe."""
    found: dict[str, list[str]] = {}
    for part in text.split("\n## ")[1:]:
        heading, *lines = part.splitlines()
        found[heading.strip("`[]")] = [line for line in lines if line.startswith("| `")]
    return found


def test_the_reference_has_one_row_for_each_key_and_no_other() -> None:
    rows = [(table, row.split("`")[1]) for table, rows in sections(reference()).items() for row in rows]
    assert sorted(rows) == sorted(KEYS)
    assert len(KEYS) > 50


def test_each_key_has_a_type_a_default_and_a_meaning() -> None:
    for table, rows in sections(reference()).items():
        for row in rows:
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
            assert len(cells) == 4, f"{table}: {row}"
            assert all(cells), f"{table}: {row}"


@pytest.mark.parametrize(
    ("table", "row_start"),
    [
        ("client", '| `ping_interval` | duration | `"25s"` | Time between pings'),
        ("client", "| `allowed_origins` | list of texts | `[]` |"),
        ("client.token", '| `leeway` | duration | `"0s"` |'),
        ("http_server", "| `port` | integer | `8000` |"),
        ("http_server.tls", "| `enabled` | true or false | `false` |"),
        ("log", '| `level` | `debug`, `info`, `warning`, `error` | `"info"` |'),
        ("json", "| `max_depth` | integer | `128` |"),
        ("channel.namespaces", "| `name` | text | (required) |"),
    ],
)
def test_a_row_says_what_may_be_written(table: str, row_start: str) -> None:
    assert [row for row in sections(reference())[table] if row.startswith(row_start)], sections(reference())[table]


def test_the_reference_is_the_same_each_time() -> None:
    assert reference() == reference()


def test_the_reference_holds_no_trailing_blanks_and_ends_with_one_newline() -> None:
    text = reference()
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_the_defaults_as_toml_give_the_defaults() -> None:
    written = tomllib.loads(as_toml(Config()))
    assert load(base=written) == Config()


def test_the_defaults_as_toml_name_every_key_but_those_of_lists_of_tables() -> None:
    def walk(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
        for key, value in table.items():
            if isinstance(value, dict) and value:
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield prefix.rstrip("."), key

    written = list(walk(tomllib.loads(as_toml(Config()))))
    transforms = "client.connect_code_to_unidirectional_disconnect.transforms"
    lists = ("channel.namespaces", "http_api.keys", transforms, f"{transforms}.to")
    assert sorted(written) == sorted(pair for pair in KEYS if pair[0] not in lists)


@pytest.mark.parametrize(
    "values",
    [
        {"node": {"name": 'a "quoted" \\ name'}},
        {"node": {"name": "two\nlines"}},
        {"node": {"name": "\x7f\x00"}},
        {"client": {"ping_interval": "500ms", "pong_timeout": "250ms"}},
        {"client": {"expired_close_delay": "30d"}},
        {"client": {"expired_close_delay": 25.123456789}},
        {"client": {"allowed_origins": ["https://a", 'b"c']}},
        {"channel": {"namespaces": [{"name": "chat", "processors": ["server_time"]}, {"name": "echo"}]}},
        {"log": {"level": "debug", "format": "text"}},
        {"health": {"broker_grace": "never"}},
        development(),
    ],
)
def test_a_configuration_as_toml_gives_the_same_configuration(values: dict[str, Any]) -> None:
    config = load(base=values)
    assert load(base=tomllib.loads(as_toml(config))) == config
