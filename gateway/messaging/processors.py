"""Stream processors: small functions that change what is published, in the order in which a namespace names them.

`statistics` is none of them, though it is named among them: its window is the channel's, for all nodes, so the broker
keeps it (`gateway.broker.contract.PublishOptions`). A pipeline finds the number that goes into it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import orjson

from gateway.domain.channels import ChannelOptions
from gateway.domain.windows import STATISTICS
from gateway.messaging.extensions import ExtensionError, Extensions, one_line

SERVER_TIME: Final = "server_time"
SCALE: Final = "scale"
_WRAPPED: Final = "data"
"""Under which name a value that is no object is put into one."""
_MISSING: Final = object()


class NotProcessableError(ValueError):
    """A value that a processor can't work on: error 107 for its publisher."""


class Processor(Protocol):
    """Changes one value, on the node that took it, before it is published.

    What it remembers from one value to the next is this node's alone: the other nodes see other values of the channel.
    """

    def __call__(self, value: dict[str, Any], *, unix_s: float) -> dict[str, Any]:
        """Return what is published instead of *value*, which you may change. It is called on the event loop: be quick.

        A value that was no object comes as `{"data": value}`. Members that you leave alone keep the publisher's own
        text (`1.50` stays `1.50`). *unix_s* is when this node accepted the publication.

        Raises:
            NotProcessableError: for a value that the processor does not understand; any other error is a fault of the
                processor, logged, and error 100 for the publisher.
        """


ProcessorFactory = Callable[..., Processor]
"""What an entry point names: called with a namespace's `processor_options.<name>` as keyword arguments, it makes a
processor. It may be called more than once, and raises for options that are none."""


def server_time() -> Processor:
    """Make the processor that adds `server_time`: Unix seconds with microseconds, when the gateway accepted it."""

    def add_server_time(value: dict[str, Any], *, unix_s: float) -> dict[str, Any]:
        value[SERVER_TIME] = round(unix_s, 6)
        return value

    return add_server_time


def scale(*, factor: float) -> Processor:
    """Make the processor that turns objects with a numeric `value` into `source`, `value` x *factor*, `processed`."""

    def scale_value(value: dict[str, Any], *, unix_s: float) -> dict[str, Any]:
        del unix_s
        scaled = _number(value.get("value")) * factor
        if not math.isfinite(scaled):
            raise NotProcessableError("the scaled value is beyond the range of numbers")
        return {"source": value.get("source", "unknown"), "value": scaled, "processed": True}

    return scale_value


PROCESSORS: Final[Mapping[str, ProcessorFactory]] = {SERVER_TIME: server_time, SCALE: scale}
"""What is built in; `statistics` is known beside them."""


def installed_processors() -> Extensions[ProcessorFactory]:
    """Return what is built in and what the entry points `gateway.processors` offer."""
    return Extensions(
        "gateway.processors", PROCESSORS, refuse=lambda found: None if callable(found) else "makes no processors"
    )


def make_processor(name: str, options: ChannelOptions, factories: Mapping[str, ProcessorFactory]) -> Processor:
    """Return the processor *name* of a namespace.

    Raises:
        KeyError: if there is none of that name.
        ExtensionError: if it can't be made.
    """
    factory, own = factories[name], options.processor_options.get(name, {})
    if own and name in PROCESSORS:
        raise ExtensionError("has no options of its own, its keys are the namespace's")
    given = {"factor": options.scale_factor} if name == SCALE else own
    try:
        processor = factory(**given)
    except Exception as error:
        raise ExtensionError(f"can't be made: {one_line(error)}") from error
    if not callable(processor):
        raise ExtensionError(f"made {type(processor).__name__}, which is no function")
    return processor


class Processed(NamedTuple):
    """What is to be published, and the number in it that statistics are made of, if they are."""

    data: bytes
    number: float | None


class Pipeline:
    """The processors of one namespace, in order."""

    def __init__(self, options: ChannelOptions, factories: Mapping[str, ProcessorFactory]) -> None:
        """Make them.

        Raises:
            KeyError: for a name that nobody knows.
            ExtensionError: for a processor that can't be made.
        """
        # None stands for statistics.
        self._steps = [
            None if name == STATISTICS else make_processor(name, options, factories) for name in options.processors
        ]
        self._has_guests = any(name not in PROCESSORS and name != STATISTICS for name in options.processors)
        self._field = options.statistics_field

    def run(self, data: bytes, *, unix_s: float) -> Processed:
        """Pass one JSON value through; one that is no object becomes `{"data": value, …}` first.

        Raises:
            NotProcessableError: for what is not JSON that fits into numbers and strings, or what a processor refuses.
        """
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise NotProcessableError(str(error)) from None
        text, is_wrapped = data.strip(), not isinstance(value, dict)
        if is_wrapped:
            value, text = {_WRAPPED: value}, b'{"%b":%b}' % (_WRAPPED.encode(), text)
        before, number = value.copy(), None
        for step in self._steps:
            if step is None:
                number = _number(value.get(self._field, value.get(_WRAPPED) if is_wrapped else None))
                continue
            value = step(value, unix_s=unix_s)
            if not isinstance(value, dict):
                raise TypeError(f"a processor returned {type(value).__name__}, no dict")
        if number is not None:
            value.pop(STATISTICS, None)  # that name is ours
        return Processed(_write(text, before, value, may_be_altered=self._has_guests), number)


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise NotProcessableError("no number where one is expected")
    try:
        number = float(value) + 0.0  # never -0.0
    except OverflowError:
        raise NotProcessableError("beyond the range of numbers") from None
    if not math.isfinite(number):
        raise NotProcessableError("not a finite number")
    return number


_read_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _write(text: bytes, before: dict[str, Any], after: dict[str, Any], *, may_be_altered: bool) -> bytes:
    """Write *after*; *text* is the publisher's text of *before*, and what is still the same is taken from it.

    With *may_be_altered*, what is inside of lists and objects is compared, too.
    """
    added = {name: value for name, value in after.items() if before.get(name, _MISSING) is not value}
    is_whole = len(after) - len(added) == len(before)
    if is_whole and not (may_be_altered and any(isinstance(value, list | dict) for value in before.values())):
        if not added:
            return text
        return b"%b,%b" % (text[:-1], orjson.dumps(added)[1:]) if before else orjson.dumps(added)
    members = _read_members(text)
    parts = []
    for name, value in after.items():
        if not isinstance(name, str):
            raise TypeError(f"a processor called a member {name!r}")
        raw = bytes(members[name]) if name in members and name not in added else None
        written = orjson.dumps(value) if raw is None or not _is_still(raw, value) else raw
        parts.append(b"%b:%b" % (orjson.dumps(name), written))
    return b"{%b}" % b",".join(parts)


def _is_still(raw: bytes, value: Any) -> bool:
    """Tell whether *value*, which was read from *raw*, has not been changed inside."""
    if not isinstance(value, list | dict):
        return True
    try:
        return orjson.dumps(orjson.loads(raw)) == orjson.dumps(value)
    except orjson.JSONEncodeError as error:  # nested deeper than it writes
        raise NotProcessableError(str(error)) from None
