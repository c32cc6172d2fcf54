"""What a run shows while it goes on: live figures on a terminal, a line now and then elsewhere."""

import sys
from types import TracebackType
from typing import Any, Final, Protocol, Self, TextIO

from loadtest.results import Second
from loadtest.timeline import Timeline

_EVERY_S: Final = 5
_PERCENTILES: Final = (50.0, 99.0, 99.9)
_SHOWN_ERRORS: Final = 5


class Progress(Protocol):
    """Shows how a run is going."""

    @property
    def current(self) -> str:
        """The phase."""

    def say(self, sentence: str) -> None:
        """Tell something that happens once."""

    def expect(self, clients: int) -> None:
        """Tell how many clients are to be connected and subscribed."""

    def phase(self, name: str) -> None:
        """Tell that a phase begins."""

    def strike(self, action: str) -> None:
        """Tell that something is done to the servers."""

    def show(self, second: Second, timeline: Timeline) -> None:
        """Show a second, with all before it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class Lines:
    """A line each few seconds, for logs; none at all where it is quiet."""

    def __init__(self, stream: TextIO = sys.stderr, *, is_quiet: bool = False) -> None:
        self.current = ""
        self.expected = 0
        self._stream = stream
        self._is_quiet = is_quiet

    def say(self, sentence: str) -> None:
        """Write it."""
        if not self._is_quiet:
            self._stream.write(f"{sentence}\n")
            self._stream.flush()

    def expect(self, clients: int) -> None:
        """Keep it."""
        self.expected = clients

    def phase(self, name: str) -> None:
        """Write its name."""
        self.current = name
        self.say(f"-- {name}")

    def strike(self, action: str) -> None:
        """Write it."""
        self.say(f"-- {action}")

    def show(self, second: Second, timeline: Timeline) -> None:
        """Write the line of each fifth second."""
        if (second.at_s + 1) % _EVERY_S:
            return
        latency = ", ".join(f"p{percent:g} {_ms(timeline, percent)}" for percent in _PERCENTILES)
        self.say(
            f"{second.at_s + 1:>5} s  {second.connections:>6} connections  {second.published:>6} published/s  "
            f"{second.delivered:>7} delivered/s  {latency}  {timeline.errors.total()} errors"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del kind, error, traceback


class Table(Lines):
    """A table that is drawn anew each second (rich)."""

    def __init__(self, live: Any, make_table: Any) -> None:
        super().__init__()
        self._live = live
        self._make_table = make_table

    def say(self, sentence: str) -> None:
        """Write it above the table."""
        self._live.console.print(sentence, highlight=False)

    def phase(self, name: str) -> None:
        """Show its name in the table."""
        self.current = name

    def show(self, second: Second, timeline: Timeline) -> None:
        """Draw."""
        table = self._make_table(title=f"{self.current}, {second.at_s + 1} s", show_header=False)
        rows = [
            ("connections", f"{second.connections:,} of {self.expected:,}"),
            ("connects / reconnects", f"{timeline.totals['connects']:,} / {timeline.totals['reconnects']:,}"),
            ("published a second", f"{second.published:,}"),
            ("delivered a second", f"{second.delivered:,}"),
            ("delivered in all", f"{timeline.totals['delivered']:,}"),
            *((f"latency p{percent:g}", _ms(timeline, percent)) for percent in _PERCENTILES),
            ("latency max", f"{timeline.delivery.max_us / 1000:.1f} ms"),
            ("behind schedule", f"{second.behind_s * 1000:.1f} ms"),
            *((f"CPU of {name}", f"{used.cpu_s:.0%}") for name, used in second.servers.items()),
            ("CPU of the workers", " ".join(f"{used.cpu_s:.0%}" for used in second.workers)),
            *((error, f"{count:,}") for error, count in timeline.errors.most_common(_SHOWN_ERRORS)),
        ]
        for row in rows:
            table.add_row(*row)
        self._live.update(table)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, traceback)


def progress(*, is_quiet: bool, is_plain: bool) -> Progress:
    """Return what suits where standard error goes to."""
    if is_quiet or is_plain or not sys.stderr.isatty():
        return Lines(is_quiet=is_quiet)
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra: lines do without it
        from rich.live import Live  # noqa: PLC0415 - the same
        from rich.table import Table as RichTable  # noqa: PLC0415 - the same
    except ImportError:
        return Lines()
    return Table(Live(console=Console(stderr=True), refresh_per_second=4, transient=True), RichTable)


def _ms(timeline: Timeline, percent: float) -> str:
    return f"{timeline.delivery.percentile_us(percent) / 1000:.1f} ms" if timeline.delivery.count else "-"
