"""Structured logs: events with fields, one line for each step of a life, never a payload or a token."""

import contextlib
import json
import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, TextIO

import orjson
import structlog

from gateway.observability.repeats import Repeats
from gateway.settings import Limit, Settings, one_of


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


class LogSettings(Settings):
    """`log`: what is written to standard error."""

    level: Annotated[Level, one_of(Level)] = Level.INFO
    """Least important events that are written: `debug`, `info`, `warning`, `error`."""
    format: Annotated[Format, one_of(Format)] = Format.AUTO
    """`text` for people, `json` for machines, `auto`: text on a terminal, else JSON."""
    repeat_limit: Limit = 20
    """Lines of one event that are written in a second; one more says how many were not (0: no limit). Steps in the life
    of clients who were let in, by a token or as anonymous, are always written."""


def make_logger(
    settings: LogSettings, *, node: str, stream: TextIO | None = None
) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of a node; every line of it names *node*. `set_level` changes its level later."""
    stream = stream or sys.stderr
    is_json = settings.format is Format.JSON or (settings.format is Format.AUTO and not stream.isatty())
    repeats = Repeats(settings.repeat_limit)
    processors: list[structlog.typing.Processor]
    if is_json:
        # One step instead of four: a connection writes three lines, and they show in what a connect costs.
        processors = [repeats, _render_json]
    else:
        processors = [
            repeats,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _escape_controls,
            # Not by rich, which structlog takes where it is installed: it shows local variables, tokens among them.
            structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback),
        ]
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        _Sink(stream),
        processors=processors,
        # A class of this logger's own, which all that are bound from it share.
        wrapper_class=type("NodeLogger", (_Levelled, _kind(settings.level)), {}),
        cache_logger_on_first_use=True,
    )
    repeats.log = logger.bind(node=node)
    return repeats.log


def set_level(log: structlog.typing.FilteringBoundLogger, level: Level) -> None:
    """Write what is at least as important as *level* from now on, by *log* and all that share its origin.

    You must know that its level is adjustable. What is not written costs what it always did, a call of an empty method,
    since structlog's levels are classes, and another one takes the place of the base.
    """
    if not is_adjustable(log):
        raise AssertionError("the level of a logger that make_logger did not make can't be changed")
    type(log).__bases__ = (_Levelled, _kind(level))


def is_adjustable(log: structlog.typing.FilteringBoundLogger) -> bool:
    """Tell whether the level of *log* can be changed: it comes from `make_logger`, directly or by `bind`."""
    return isinstance(log, _Levelled)


class _Levelled:
    """Marks the classes whose level may be changed, since nobody else has them."""


def _kind(level: Level) -> type:
    return structlog.make_filtering_bound_logger(level.value)


class _Sink:
    """Writes lines as UTF-8, and never lets a full disk or a reader that has gone reach who only wanted to log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._buffer = getattr(stream, "buffer", None)

    def msg(self, line: str) -> None:
        """Write one line and flush it."""
        with contextlib.suppress(OSError, ValueError):
            if self._buffer is None:
                self._stream.write(line + "\n")
            else:
                self._buffer.write(line.encode(errors="backslashreplace") + b"\n")
                self._buffer.flush()

    debug = info = warning = error = critical = exception = msg


def _render_json(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    event["level"] = "error" if method == "exception" else method
    event["timestamp"] = datetime.now(tz=UTC)
    if "exc_info" in event:
        structlog.processors.format_exc_info(logger, method, event)
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_UTC_Z).decode()
    except TypeError:  # half a surrogate pair, an integer beyond 64 bits, a key that is no text
        return json.dumps({str(key): value for key, value in event.items()}, default=str)


def _escape_controls(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write control characters as escapes: what a client calls itself must not steer the operator's terminal."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable() and key != "exception":
            event[key] = value.encode("unicode_escape").decode()
    return event


class _Forwarding(logging.Handler):
    def __init__(self, log: structlog.typing.FilteringBoundLogger) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        log = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        log(record.getMessage(), source=record.name, exc_info=record.exc_info or None)


def forward_library_logs(log: structlog.typing.FilteringBoundLogger) -> None:
    """Write warnings and errors of libraries as events of ours, so that every line has one form."""
    logging.basicConfig(handlers=[_Forwarding(log)], level=logging.WARNING, force=True)
    # It warns of each malformed request, which anybody can send; those are refused, counted and logged by us.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
