"""Reads of streams, shared by all who want the same at the same time.

A crowd that comes back after an outage wants the same page a thousand times. While one read is under way, those who ask
wait for the next one, which then serves them all: nobody gets a page that is older than the question, and the broker is
asked as often as it can answer, however many clients there are.
"""

from collections.abc import Callable, Hashable
from functools import partial

from gateway.broker.contract import Broker
from gateway.broker.outcome import Outcome
from gateway.domain.channels import Channel
from gateway.domain.stream import HistoryRange, StreamPage
from gateway.protocol.messages import StreamPosition

Page = Outcome[StreamPage]


class StreamReader:
    """Reads pages of streams. Every outcome fails with `BrokerError` if the broker can't be read."""

    def __init__(self, broker: Broker, *, recovery_limit: int) -> None:
        self._broker = broker
        self.recovery_limit = recovery_limit
        """How many publications a subscriber may have missed; a read under way keeps to what it was."""
        self._pages: dict[Hashable, list[Page]] = {}
        self._recoveries: dict[str, list[tuple[int, Page]]] = {}

    def page(self, channel: Channel, wanted: HistoryRange) -> Page:
        """Read what *wanted* asks for."""
        key = channel.name, wanted
        page: Page = Outcome()
        waiting = self._pages.get(key)
        if waiting is not None:
            waiting.append(page)
        else:
            self._pages[key] = []
            self._read_page(channel, wanted, [page])
        return page

    def since(self, channel: Channel, offset: int) -> Page:
        """Read what follows *offset*; a page that does not reach the top if more than may be recovered do.

        Those who ask for one channel share a read, wherever each of them is.
        """
        page: Page = Outcome()
        waiting = self._recoveries.get(channel.name)
        if waiting is not None:
            waiting.append((offset, page))
        else:
            self._recoveries[channel.name] = []
            self._read_since(channel, [(offset, page)])
        return page

    def _read_page(self, channel: Channel, wanted: HistoryRange, served: list[Page]) -> None:
        def settle(outcome: Page) -> None:
            next_served = self._pages[channel.name, wanted]
            if next_served:
                self._pages[channel.name, wanted] = []
            else:
                del self._pages[channel.name, wanted]
            _settle_all(served, outcome)
            if next_served:
                self._read_page(channel, wanted, next_served)

        self._history(channel, wanted, settle)

    def _read_since(self, channel: Channel, served: list[tuple[int, Page]]) -> None:
        lowest = min(offset for offset, _ in served)
        wanted = HistoryRange(limit=self.recovery_limit, since=StreamPosition(lowest))
        self._history(channel, wanted, partial(self._settle_since, channel, served, wanted.limit))

    def _settle_since(self, channel: Channel, served: list[tuple[int, Page]], limit: int, outcome: Page) -> None:
        again: list[tuple[int, Page]] = []
        if outcome.error is None:
            served, again = _within(outcome.result(), served, limit=limit)
        # Those who are to be served once more come by themselves, or somebody far behind could keep them from it for
        # ever; who has come meanwhile waits for the read after.
        next_served = again or self._recoveries[channel.name]
        if not next_served:
            del self._recoveries[channel.name]
        elif not again:
            self._recoveries[channel.name] = []
        if outcome.error is not None:
            _settle_all([page for _, page in served], outcome)
        else:
            _serve(outcome.result(), served)
        if next_served:
            self._read_since(channel, next_served)

    def _history(self, channel: Channel, wanted: HistoryRange, settle: Callable[[Page], None]) -> None:
        self._broker.history(channel.name, wanted, meta_ttl_s=channel.meta_ttl_s).then(settle)


def _settle_all(pages: list[Page], outcome: Page) -> None:
    for page in pages:
        if outcome.error is not None:
            page.fail(outcome.error)
        else:
            page.succeed(outcome.result())


def _within(
    page: StreamPage, asked: list[tuple[int, Page]], *, limit: int
) -> tuple[list[tuple[int, Page]], list[tuple[int, Page]]]:
    """Part those whom *page* answers from those whom it would serve short, though not too much has passed them by."""
    found, top = page.publications, page.position.offset
    if not found or found[-1].offset == top:
        return asked, []
    lowest = found[-1].offset - len(found)  # from there on the page answers in full measure
    answered = [each for each in asked if each[0] <= lowest or top - each[0] > limit]
    return answered, [each for each in asked if each[0] > lowest and top - each[0] <= limit]


def _serve(page: StreamPage, asked: list[tuple[int, Page]]) -> None:
    """Give everyone what follows the offset that they asked from; those with the same offset share one page."""
    cut: dict[int, StreamPage] = {}
    for offset, waiting in asked:
        if offset not in cut:
            found = page.publications
            is_whole = not found or found[0].offset > offset
            after = found if is_whole else [each for each in found if each.offset > offset]
            cut[offset] = StreamPage(after, page.position)
        waiting.succeed(cut[offset])
