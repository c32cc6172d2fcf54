"""The configuration that environment variables hold, or files that they name.

`GATEWAY_CLIENT__TOKEN__HMAC_SECRET_KEY` is the key `client.token.hmac_secret_key`. With `_FILE` behind it a variable
names a file whose text is the value, as secrets are mounted into containers: so no secret is among the variables, where
whoever looks at the container sees it.
"""

import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from pydantic import TypeAdapter, ValidationError

from gateway.settings import field_of

PREFIX: Final = "GATEWAY_"
FILE_SUFFIX: Final = "_FILE"
_LONGEST_FILE: Final = 65536

Keys = tuple[str, ...]


class Environment(NamedTuple):
    """What the variables say."""

    values: Mapping[Keys, Any]
    origins: Mapping[Keys, str]
    """Which variable each key comes from."""
    faults: list[str]
    """One line for each variable that can't be used."""


def read(environment: Mapping[str, str], table: Any) -> Environment:
    """Read the variables that concern *table*, a settings class.

    Those are the ones with `__` in their names, and those that are called as one of its lists: Kubernetes injects
    `GATEWAY_PORT` and the like for a service of that name.
    """
    values: dict[Keys, Any] = {}
    origins: dict[Keys, str] = {}
    faults: list[str] = []
    for name, given in sorted(environment.items()):
        if not name.startswith(PREFIX):
            continue
        keys = tuple(name.removeprefix(PREFIX).lower().split("__"))
        if len(keys) == 1 and not _is_list(table, keys):
            continue
        is_file = name.endswith(FILE_SUFFIX) and _annotation(table, keys) is None
        if is_file:
            keys = (*keys[:-1], keys[-1].removesuffix(FILE_SUFFIX.lower()))
        if keys in origins:
            faults.append(f"{name}: {origins[keys]} says it, too; set one of them")
            continue
        origins[keys] = name
        try:
            values[keys] = _parse(table, keys, _text_of(given) if is_file else given)
        except ValueError as error:
            faults.append(f"{name}: {error}")
    return Environment(values, origins, faults)


def _text_of(path: str) -> str:
    """Return what the file holds, without the line's end that editors leave.

    Raises:
        ValueError: if there is no such text.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LONGEST_FILE + 1)
        if len(data) > _LONGEST_FILE:
            raise ValueError(f"{path}: longer than {_LONGEST_FILE} bytes")
        return data.decode().rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None


def _parse(table: Any, keys: Keys, text: str) -> Any:
    """Turn *text* into what its key takes; lists and tables are written as JSON."""
    found = _annotation(table, keys)
    if found is None:
        return text  # an unknown key: the check of the whole says so
    annotation, metadata = found
    origin = typing.get_origin(annotation)
    if origin in (list, dict, types.UnionType) or hasattr(annotation, "model_fields"):
        if origin is list and not text.lstrip().startswith("["):
            return [part.strip() for part in text.split(",") if part.strip()]
        return json.loads(text)
    if annotation in (int, float, bool):
        try:
            kind: Any = Annotated[annotation, *metadata] if metadata else annotation
            return TypeAdapter(kind).validate_strings(text)
        except ValidationError as error:
            raise ValueError(f"{text!r}: {error.errors()[0]['msg']}") from None
    return text


def _is_list(table: Any, keys: Keys) -> bool:
    found = _annotation(table, keys)
    return found is not None and typing.get_origin(found[0]) is list


def _annotation(table: Any, keys: Keys) -> tuple[Any, list[Any]] | None:
    """Return the type of a key and what else is asked of it, `None` if *table* has no such key."""
    annotation: Any = table
    metadata: list[Any] = []
    for key in keys:
        field = field_of(annotation, key)
        if field is None:
            return None
        annotation, metadata = field.annotation, field.metadata
    return annotation, metadata
