"""Finds scenarios by what the command line calls them, and makes them with their parameters."""

import difflib
import importlib
import importlib.util
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadtest.scenario import Scenario
from loadtest.scenarios import SCENARIOS


class ScenarioError(Exception):
    """Why there is no such scenario, or not with these parameters, in one sentence."""


def find(name: str) -> type[Scenario]:
    """Return the scenario *name*: one that comes along, `package.module:Class`, or `path/to/file.py:Class`.

    Raises:
        ScenarioError: if there is none.
    """
    if name in SCENARIOS:
        return SCENARIOS[name]
    module_name, colon, class_name = name.rpartition(":")
    if not colon:
        close = difflib.get_close_matches(name, SCENARIOS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(SCENARIOS)}"
        raise ScenarioError(f"there is no scenario {name!r}: {hint}, and path/to/file.py:Class for one of your own")
    kind = getattr(_module(module_name), class_name, None)
    if not (isinstance(kind, type) and issubclass(kind, Scenario)):
        raise ScenarioError(f"{module_name} has no scenario {class_name!r}: it must be a class made from Scenario")
    return kind


def make(kind: type[Scenario], values: Mapping[str, Any]) -> Scenario:
    """Return the scenario with *values* over its defaults.

    Raises:
        ScenarioError: for a parameter that it does not have, or a value that can't be.
    """
    names = kind.__struct_fields__
    for name in values:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names)}"
            raise ScenarioError(f"{kind.__name__} has no parameter {name!r}: {hint}")
    try:
        return msgspec.convert(dict(values), kind, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        raise ScenarioError(f"{kind.__name__}: {error}") from None


def parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """Read `name=value` of each text; a value is TOML, or a text where it is none.

    Raises:
        ScenarioError: for what has no name.
    """
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ScenarioError(f"{text!r} is no parameter: write name=value")
        try:
            values[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            values[name.strip()] = value.strip()
    return values


def _module(name: str) -> Any:
    try:
        if name.endswith(".py"):
            return _from_file(Path(name))
        return importlib.import_module(name)
    except ImportError as error:
        raise ScenarioError(f"can't import {name}: {error}") from None
    except OSError as error:
        raise ScenarioError(f"can't read {name}: {error.strerror}") from None
    except Exception as error:  # noqa: BLE001 - the user's own code; its mistake is told, without our traceback
        raise ScenarioError(f"{name} failed when it was imported: {type(error).__name__}: {error}") from None


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise ScenarioError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"loadtest_scenario_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ScenarioError(f"can't import {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # annotations are looked up there
    spec.loader.exec_module(module)
    return module
