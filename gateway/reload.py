"""What becomes of a configuration that is read again while a node runs.

Theory of operation. A part that can change while it runs says so in one place: a `LivePart` names the keys that it
obeys and prepares the change. Every other key needs a restart and keeps its value until then, so what is in force is
made of both, and checked as a whole. All parts prepare first, which may fail and then changes nothing; then all changes
are made in one turn, which can't fail.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from gateway.config import Config, ConfigError
from gateway.settings import Settings

SettingsT = TypeVar("SettingsT", bound=Settings)

Commit = Callable[[], object]
"""Puts in force what was prepared; it must not fail."""


class LivePart(NamedTuple):
    """A part of a node that can change while it runs."""

    keys: tuple[str, ...]
    """The keys, or whole tables, that it obeys: `log.level`, `client`."""
    prepare: Callable[[Config], Commit | None]
    """Returns the change to a configuration, `None` if there is nothing to do; `ConfigError` if it can't be made."""
    reads_files: bool = False
    """Whether what its keys name are files, which may have changed although the keys have not."""


class Plan(NamedTuple):
    """What a new configuration means for a running node."""

    in_force: Config
    """The configuration from then on."""
    changed: list[str]
    """Keys that have changed and can do so now."""
    needs_restart: list[str]
    """Keys that have changed and keep their value until the node is started again."""
    concerned: list[LivePart]
    """The parts that have to prepare."""

    def prepare(self) -> list[Commit]:
        """Have the parts prepare and return what is to be done then, in their order.

        Keys whose files have changed count as changed from then on.

        Raises:
            ConfigError: with the faults that any of them found.
        """
        commits: list[Commit] = []
        faults: list[str] = []
        for part in self.concerned:
            try:
                commit = part.prepare(self.in_force)
            except ConfigError as error:
                faults += error.faults
                continue
            if commit is not None:
                commits.append(commit)
                if part.reads_files:
                    self.changed.extend(key for key in part.keys if key not in self.changed)
        if faults:
            raise ConfigError(faults)
        return commits


def plan(running: Config, wanted: Config, parts: Sequence[LivePart]) -> Plan:
    """Decide what of *wanted* can be put in force on a node that runs by *running*.

    Raises:
        ConfigError: if what can change now does not go together with what can't.
    """
    live = {key for part in parts for key in part.keys}
    changed: list[str] = []
    later: list[str] = []
    for key in _differences(running, wanted):
        (changed if _is_within(key, live) else later).append(key)
    in_force = _checked(_combined(running, wanted, live), later) if later else wanted
    concerned = [part for part in parts if part.reads_files or any(_is_within(key, part.keys) for key in changed)]
    return Plan(in_force, changed, later, concerned)


def _is_within(key: str, tables: Collection[str]) -> bool:
    return any(key == table or key.startswith((f"{table}.", f"{table}[")) for table in tables)


def _fields(table: Settings) -> Iterator[tuple[str, str]]:
    """Walk attributes, each with the name that a file has for it."""
    return ((attribute, field.alias or attribute) for attribute, field in type(table).model_fields.items())


def _differences(before: Settings, after: Settings, prefix: str = "") -> Iterator[str]:
    """Name the keys whose values differ; of named tables that are on one side only, the table."""
    for attribute, name in _fields(before):
        old, new, key = getattr(before, attribute), getattr(after, attribute), f"{prefix}{name}"
        if old == new:
            continue
        if isinstance(old, Settings) and isinstance(new, Settings):
            yield from _differences(old, new, f"{key}.")
        elif (named_old := _by_name(old)) is not None and (named_new := _by_name(new)) is not None:
            yield from _list_differences(key, named_old, named_new)
        else:
            yield key


def _by_name(tables: Any) -> dict[str, Settings] | None:
    """Return the tables of a list by their names, if that is what it holds."""
    if not isinstance(tables, list) or not all(isinstance(each, Settings) and hasattr(each, "name") for each in tables):
        return None
    return {each.name: each for each in tables}


def _list_differences(key: str, old: dict[str, Settings], new: dict[str, Settings]) -> Iterator[str]:
    for name in {**old, **new}:
        if name in old and name in new:
            yield from _differences(old[name], new[name], f"{key}[{name}].")
        else:
            yield f"{key}[{name}]"


def _combined(running: SettingsT, wanted: SettingsT, live: Collection[str], prefix: str = "") -> SettingsT:
    """Return *wanted*, but with what *running* has wherever that can't change."""
    kept: dict[str, Any] = {}
    for attribute, name in _fields(running):
        old, new, key = getattr(running, attribute), getattr(wanted, attribute), f"{prefix}{name}"
        if old != new and not _is_within(key, live):
            kept[attribute] = _combined(old, new, live, f"{key}.") if isinstance(old, Settings) else old
    return wanted.model_copy(update=kept)


def _checked(combined: Config, later: list[str]) -> Config:
    try:
        return Config.model_validate(combined.model_dump(by_alias=True), by_alias=True, by_name=False)
    except ValidationError as error:
        said = [line for fault in error.errors() for line in fault["msg"].removeprefix("Value error, ").splitlines()]
        kept = f"{', '.join(later)} can't change without a restart, and without that"
        raise ConfigError([f"{kept}: {line}" for line in said]) from None
