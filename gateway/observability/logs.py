"""Structured logs: events with fields, one line for each step of a life, never a payload or a token."""

import sys
from collections.abc import MutableMapping
from enum import StrEnum
from typing import Annotated, Any, TextIO

import orjson
import structlog
from pydantic import BeforeValidator

from gateway.settings import Settings


class Level(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Format(StrEnum):
    """What a line looks like."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


def _member(kind: type[StrEnum]) -> BeforeValidator:
    return BeforeValidator(lambda value: kind(value) if isinstance(value, str) and value in set(kind) else value)


class LogSettings(Settings):
    """`log`: what is written to standard error."""

    level: Annotated[Level, _member(Level)] = Level.INFO
    """Least important events that are written: `debug`, `info`, `warning`, `error`."""
    format: Annotated[Format, _member(Format)] = Format.AUTO
    """`text` for people, `json` for machines, `auto`: text on a terminal, else JSON."""


def make_logger(
    settings: LogSettings, *, node: str, stream: TextIO | None = None
) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of a node; every line of it names *node*."""
    stream = stream or sys.stderr
    is_json = settings.format is Format.JSON or (settings.format is Format.AUTO and not stream.isatty())
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    factory: Any
    if is_json:
        processors += [structlog.processors.format_exc_info, _render_json]
        factory = structlog.BytesLogger(stream.buffer) if hasattr(stream, "buffer") else structlog.PrintLogger(stream)
    else:
        processors.append(structlog.dev.ConsoleRenderer(colors=stream.isatty()))
        factory = structlog.PrintLogger(stream)
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        factory,
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(settings.level.value),
        cache_logger_on_first_use=True,
    )
    return logger.bind(node=node)


def _render_json(logger: Any, _name: str, event: MutableMapping[str, Any]) -> Any:
    line = orjson.dumps(event, default=repr)
    return line if isinstance(logger, structlog.BytesLogger) else line.decode()
