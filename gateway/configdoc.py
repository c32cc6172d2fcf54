"""The configuration written out, from the settings classes: a reference in Markdown, the defaults in TOML."""

import json
import math
import types
import typing
from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

from pydantic.fields import FieldInfo

from gateway.config import Config
from gateway.environment import FILE_SUFFIX, PREFIX
from gateway.settings import Settings

_INTRODUCTION = f"""\
# Configuration reference

Made from the code by `make reference`; `gateway config doc` prints the same.

A node reads a file (`--config`, TOML or JSON), then environment variables, then flags; the later wins. A variable is
called `{PREFIX}<TABLE>__<KEY>`, with `__` between the parts:
`{PREFIX}CLIENT__TOKEN__HMAC_SECRET_KEY`. With `{FILE_SUFFIX}` behind that name, its value is a file that holds the
value, as secrets are mounted into containers. Lists are written as JSON or separated by commas. Durations are `"25s"`,
`"1h30m"`, `"500ms"`, or a number of seconds. Whatever is unknown, of the wrong type or contradictory stops the start
with a line that names it.
"""


def reference() -> str:
    """Return the reference of all keys as Markdown."""
    described: dict[type[Settings], str] = {}
    return _INTRODUCTION + "".join(_sections("", Config, described))


def as_toml(config: Config) -> str:
    """Return *config* as a TOML file that gives the same configuration."""
    lines: list[str] = []
    _write_table(lines, "", config)
    return "\n".join(lines).strip() + "\n"


def _sections(prefix: str, kind: type[Settings], described: dict[type[Settings], str]) -> Iterator[str]:
    """Describe all tables, depth first; where one has the same keys as another, it refers to that."""
    for attribute, field in kind.model_fields.items():
        name = f"{prefix}{field.alias or attribute}"
        inner = _settings_of(field)
        if inner is None:
            continue
        if inner in described:
            yield f"{_head(name, inner, field)}\nIts keys are those of `[{described[inner]}]`.\n"
        else:
            described[inner] = name
            yield _section(name, inner, field)
            yield from _sections(f"{name}.", inner, described)


def _settings_of(field: FieldInfo) -> type[Settings] | None:
    annotation = field.annotation
    if typing.get_origin(annotation) is list:
        annotation = typing.get_args(annotation)[0]
    return annotation if isinstance(annotation, type) and issubclass(annotation, Settings) else None


def _head(name: str, kind: type[Settings], field: FieldInfo) -> str:
    is_list = typing.get_origin(field.annotation) is list
    text = " ".join((field.description or (kind.__doc__ or "").strip().splitlines()[0]).split())
    return f"\n## `{'[[' if is_list else '['}{name}{']]' if is_list else ']'}`\n\n{text}\n"


def _section(name: str, kind: type[Settings], field: FieldInfo) -> str:
    rows = [
        f"| `{inner.alias or attribute}` | {_type_of(inner)} | {_default_of(inner)} | {_description_of(inner)} |"
        for attribute, inner in kind.model_fields.items()
        if _settings_of(inner) is None
    ]
    head = _head(name, kind, field)
    if not rows:
        return head
    return head + "\n| key | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _type_of(field: FieldInfo) -> str:
    annotation: Any = field.annotation
    if typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return ", ".join(f"`{str(member) or '(empty)'}`" for member in annotation)
    names = {float: "duration" if _is_duration(field) else "number", int: "integer", str: "text", bool: "true or false"}
    if annotation in names:
        return names[annotation]
    if typing.get_origin(annotation) is list:
        return "list of texts"
    if typing.get_origin(annotation) is dict:
        return "table of texts" if typing.get_args(annotation)[1] is str else "table of tables"
    if typing.get_origin(annotation) is types.UnionType:
        return "text or nothing"
    raise AssertionError(f"no words for {annotation}")


def _is_duration(field: FieldInfo) -> bool:
    return field.alias is not None and any("parse_duration" in repr(each) for each in field.metadata)


def _default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "(required)"
    return f"`{_toml_value(field.default, field)}`"


def _description_of(field: FieldInfo) -> str:
    return " ".join((field.description or "").split()).replace("|", "\\|")


def _toml_value(value: Any, field: FieldInfo) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value == math.inf:
        return '"never"'
    if isinstance(value, float):
        digits = format(Decimal(repr(value)).normalize(), "f")
        return f'"{digits}s"' if _is_duration(field) else digits
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        # A JSON string is a TOML basic string, but for the one control character that JSON does not escape.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {_toml_value(each, field)}" for name, each in value.items()) + "}"
    return "[" + ", ".join(_toml_value(each, field) for each in value) + "]"


def _write_table(lines: list[str], prefix: str, table: Settings, *, is_in_list: bool = False) -> None:
    fields = type(table).model_fields
    plain = [(name, field) for name, field in fields.items() if _settings_of(field) is None]
    if prefix and plain:
        lines += ["", f"[[{prefix}]]" if is_in_list else f"[{prefix}]"]
    lines += [f"{field.alias or name} = {_toml_value(getattr(table, name), field)}" for name, field in plain]
    for name, field in fields.items():
        value, key = getattr(table, name), f"{prefix}.{field.alias or name}".lstrip(".")
        if isinstance(value, Settings):
            _write_table(lines, key, value)
        elif _settings_of(field) is not None:
            for each in value:
                _write_table(lines, key, each, is_in_list=True)
