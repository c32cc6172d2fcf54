"""The one base of all settings: frozen, keyword-only, checked at birth, with the units in the name.

A settings class lives beside the code that obeys it. In a file and in the environment a key has the name that users of
the Centrifugo protocol know (`ping_interval`); in code the unit is part of the name (`ping_interval_s`).
"""

import math
import re
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.fields import FieldInfo

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_SortableT = TypeVar("_SortableT", str, int)


class Settings(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=lambda name: name.removesuffix("_s"),
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )


class ServerTLSSettings(Settings):
    """TLS to a server that this node is a client of."""

    enabled: bool = False
    """Speak TLS."""
    server_ca_pem_file: str = ""
    """Certificates of the authorities that may have signed the server's; empty: those of the system."""
    cert_pem_file: str = ""
    """This node's certificate, for a server that asks for one."""
    key_pem_file: str = ""
    """Its private key."""
    server_name: str = ""
    """The name in the server's certificate, if it is not the host that is connected to."""
    insecure_skip_verify: bool = False
    """Development only: take any certificate."""

    @model_validator(mode="after")
    def _need_both_files(self) -> Self:
        if bool(self.cert_pem_file) != bool(self.key_pem_file):
            message = "cert_pem_file and key_pem_file go together"
            raise ValueError(message)
        return self


def parse_duration(value: Any) -> Any:
    """Read `"25s"`, `"1h30m"`, `"250ms"`, or a number of seconds; anything else is handed on for pydantic to refuse.

    Raises:
        ValueError: for a text that is not a duration.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return value
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            message = "longer than can be counted"
            raise ValueError(message) from None
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        if math.isfinite(seconds):
            return seconds
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        message = 'a duration is a number of seconds or a text such as "25s", "10m", "1h30m", "500ms"'
        raise ValueError(message)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def repeated(values: Iterable[_SortableT]) -> list[_SortableT]:
    """Return what is among *values* more than once, in order."""
    counts = Counter(values)
    return sorted(value for value in counts if counts[value] > 1)


def one_of(members: type[StrEnum]) -> BeforeValidator:
    """Return a validator that takes the texts of *members*, and names them when it gets something else."""

    def read(value: Any) -> Any:
        if isinstance(value, str) and value in set(members):
            return members(value)
        allowed = ", ".join(repr(str(member)) for member in members)
        raise ValueError(f"must be one of {allowed}")

    return BeforeValidator(read)


Seconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0, allow_inf_nan=False),
    WithJsonSchema({"type": "string", "format": "duration"}),
]
"""A length of time in seconds, zero or more."""


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A regular expression, as text."""

Size = Annotated[int, Field(ge=1)]
"""A number of bytes or of things, at least one."""

Limit = Annotated[int, Field(ge=0)]
"""A number of things; 0 means no limit."""


def field_of(table: Any, key: str) -> FieldInfo | None:
    """Return the field of *table* that a file calls *key*; `None` where there is none, or no table."""
    fields: dict[str, FieldInfo] = getattr(table, "model_fields", {})
    return next((field for name, field in fields.items() if (field.alias or name) == key), None)
