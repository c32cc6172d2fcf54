"""Whether new connections should be sent to a node: what it says of itself, and what its engine does."""

import math
from collections.abc import Mapping
from enum import Enum, auto
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from gateway.observability.memory import is_measurable
from gateway.settings import Limit, Seconds, Settings, parse_duration

_WORTH_TELLING_S: Final = 0.5
"""How long an engine must be in trouble before anybody is told: a start, or a link that is replaced, is none."""


def parse_duration_or_never(value: Any) -> Any:
    """Read a duration, or the text `"never"`: one that does not end."""
    return math.inf if value == "never" else parse_duration(value)


Grace = Annotated[
    float,
    BeforeValidator(parse_duration_or_never),
    Field(ge=0),
    WithJsonSchema({"type": "string", "format": "duration"}),
]
"""A length of time in seconds that may be without an end."""


class HealthSettings(Settings):
    """`health`: when a node says that it is not ready, and when that it is not alive."""

    broker_grace_s: Grace = 10.0
    """How long the broker may be out of reach, or give back nothing of what the node sends to itself through it, before
    `/readyz` says 503; connections are never cut for it. `"never"`: it never does once the broker has worked."""
    memory_watermark: Limit = 0
    """Bytes of memory from which on `/readyz` says 503, until it is 5 % less; 0: any amount will do. Needs Linux."""
    heartbeat_timeout_s: Annotated[Seconds, Field(gt=0)] = 30.0
    """How long one of the tasks that a node lives by may stand still before `/livez` says 503 and names it. What the
    event loop is late with does not count, so load restarts nobody."""

    @model_validator(mode="after")
    def _need_a_measure(self) -> Self:
        if self.memory_watermark and not is_measurable():
            message = "memory_watermark: this system does not say how much memory a process takes; leave it at 0"
            raise ValueError(message)
        return self


class Change(Enum):
    """What an operator should hear about the engine."""

    LOST = auto()
    BACK = auto()


class Readiness:
    """Why a node is not ready, decided from what is noted here; times are of one monotonic clock.

    An engine in trouble makes a node unready at once before it has ever worked, and after a grace later on: connections
    that are there stay in any case, and a short outage should not send everybody to nodes with the same outage.
    """

    def __init__(self, reason: str, *, grace_s: float) -> None:
        self.own_reason: str | None = reason
        """What the node itself has against new connections: it starts, or drains."""
        self.trouble: str | None = None
        """What keeps the engine from working, as last noted."""
        self.memory_trouble: str | None = None
        """What is to be said about the memory that the process takes."""
        self.grace_s = grace_s
        """How long trouble is no reason once the engine has worked."""
        self._has_worked = False
        self._is_told = False
        self.since_s = 0.0
        """Since when the engine is, or was last, in trouble."""

    def note(self, trouble: str | None, *, now_s: float, for_s: float = 0.0) -> Change | None:
        """Take note of what is said of the engine, a few times a second; returns what is worth telling.

        Trouble that is new may have been there *for_s* already.
        """
        was_in_trouble, self.trouble = self.trouble is not None, trouble
        if trouble is None:
            self._has_worked = True
            was_told, self._is_told = self._is_told, False
            return Change.BACK if was_told else None
        if not was_in_trouble:
            self.since_s = now_s - for_s
        if self._is_told or now_s - self.since_s < _WORTH_TELLING_S:
            return None
        self._is_told = True
        return Change.LOST

    def reason(self, *, now_s: float) -> str | None:
        """Say why no new connections should come, `None` if they should."""
        own = self.own_reason or self.memory_trouble
        return own if own is not None or self._tolerated_for_s(now_s) > 0 else self.trouble

    def checks(self, *, now_s: float) -> Mapping[str, str]:
        """Say of each check `ok` or what is wrong, and if that is tolerated, how much longer."""
        broker, left_s = self.trouble or "ok", self._tolerated_for_s(now_s)
        if self.trouble is not None and left_s > 0:
            length = "for ever" if math.isinf(left_s) else f"for another {left_s:.1f} s"
            broker = f"tolerated {length}: {self.trouble}"
        return {"node": self.own_reason or "ok", "memory": self.memory_trouble or "ok", "broker": broker}

    def _tolerated_for_s(self, now_s: float) -> float:
        """Return how much longer the trouble is no reason."""
        if self.trouble is None or not self._has_worked:
            return 0.0
        return self.grace_s - (now_s - self.since_s)
