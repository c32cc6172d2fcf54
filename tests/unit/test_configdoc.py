"""The configuration written out: every key, and back again."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from gateway.config import Config, development, load
from gateway.configdoc import as_toml, reference
from gateway.settings import Settings


def tables_of(kind: type[Settings], prefix: str = "") -> Iterator[tuple[str, type[Settings]]]:
    """Walk the models on a way of its own: the tables, depth first."""
    yield prefix.rstrip("."), kind
    for attribute, field in kind.model_fields.items():
        inner = settings_of(field)
        if inner is not None:
            yield from tables_of(inner, f"{prefix}{field.alias or attribute}.")


def settings_of(field: FieldInfo) -> type[Settings] | None:
    inner: Any = get_args(field.annotation)[0] if get_origin(field.annotation) is list else field.annotation
    return inner if isinstance(inner, type) and issubclass(inner, Settings) else None


def keys_of(kind: type[Settings]) -> list[str]:
    fields = kind.model_fields.items()
    return [field.alias or attribute for attribute, field in fields if settings_of(field) is None]


TABLES = list(tables_of(Config))
KEYS = [(table, key) for table, kind in TABLES for key in keys_of(kind)]
LISTS = {
    *("channel.namespaces", "http_api.keys", "proxies", "rpc.namespaces"),
    "client.connect_code_to_unidirectional_disconnect.transforms",
}


def sections(text: str) -> dict[str, list[str]]:
    """Return the table rows of the reference by the table they describe."""
    found: dict[str, list[str]] = {}
    for part in text.split("\n## ")[1:]:
        heading, *lines = part.splitlines()
        found[heading.strip("`[]")] = [line for line in lines if line.startswith("| `")]
    return found


def test_the_reference_has_one_row_for_each_key_of_each_kind_of_table_and_no_other() -> None:
    first = {kind: table for table, kind in reversed(TABLES)}
    rows = [(table, row.split("`")[1]) for table, rows in sections(reference()).items() for row in rows]
    assert sorted(rows) == sorted((table, key) for kind, table in first.items() for key in keys_of(kind))
    assert len(rows) > 150


def test_a_table_with_the_keys_of_another_refers_to_it() -> None:
    text = reference()
    assert "## `[channel.proxy.subscribe]`\n\nWhether a client may subscribe (" in text
    assert (
        "## `[channel.proxy.publish]`\n\nWhether a client may publish, and what (`publish_proxy_enabled`).\n\n"
        "Its keys are those of `[channel.proxy.subscribe]`.\n"
    ) in text


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
    assert sorted(written) == sorted(pair for pair in KEYS if not is_in_a_list(pair[0]))


def is_in_a_list(table: str) -> bool:
    return "status_to_code_transforms" in table or any(f"{table}.".startswith(f"{each}.") for each in LISTS)


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
        {
            "proxies": [
                {
                    "name": "shop",
                    "endpoint": "https://shop.example.com/events",
                    "http": {
                        "static_headers": {"X-Key": "1"},
                        "status_to_code_transforms": [{"status_code": 404, "to_error": {"code": 404}}],
                    },
                }
            ],
            "rpc": {"namespaces": [{"name": "shop", "proxy_enabled": True, "proxy_name": "shop"}]},
        },
        {"health": {"broker_grace": "never"}},
        development(),
    ],
)
def test_a_configuration_as_toml_gives_the_same_configuration(values: dict[str, Any]) -> None:
    config = load(base=values)
    assert load(base=tomllib.loads(as_toml(config))) == config
