"""Where this node is in one channel's stream: one position for all its subscribers, so a gap is seen and mended once.

Theory of operation. A track follows the stream by what the broker hands over:

    next offset ───────────▶ delivered, the position moves
    not above what was read from the stream ──▶ known already, dropped
    anything else (a hole, a step back, another epoch) ──▶ astray: the track holds what comes and the stream is read
    from the position on; then what was missed is delivered, and what was held goes the same way as if it came now

Who subscribes reads the stream for itself, and meanwhile the node goes on receiving. So a newcomer announces itself
first; as long as one is on its way, what is delivered is also kept (`recent`), and what lies between the newcomer's
page and the node's position is taken from there. If the page is ahead of the node instead, the newcomer waits as a
latecomer at the edge, the offset of its page, and joins when the position reaches it.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, NamedTuple

from gateway.domain.subscriber import Subscriber, Traffic
from gateway.protocol.messages import Publication, StreamPosition
from gateway.protocol.variants import Variant

NO_EDGE: Final = 2**63
"""Above every offset."""
OVERHEAD_BYTES: Final = 300
"""What a publication counts beside its payload, where what waits is bounded in bytes."""


class Arrival(Enum):
    """What a publication that is not the next one is."""

    FIRST = auto()
    """The position was not known; now it is."""
    KNOWN = auto()
    """Read from the stream before it came; to be dropped."""
    ASTRAY = auto()
    """It does not follow: something was missed, or the broker lost something."""


class Latecomer(NamedTuple):
    """A subscriber who knows more of the stream than this node has received; *joined* is told when it is in.

    *base* is the last publication that it has.
    """

    after: int
    subscriber: Subscriber
    variant: Variant
    joined: Callable[[Traffic], None]
    base: Publication | None = None


class Held(NamedTuple):
    """A publication that came while the stream was being read."""

    publication: Publication
    epoch: str
    accepted_at_s: float | None


def _size(publication: Publication) -> int:
    """Return what a publication takes in memory, roughly; one without a payload takes something, too."""
    return len(publication.data) + OVERHEAD_BYTES


class Track:
    """The position of this node in one stream; *epoch* is "" until it is known."""

    __slots__ = (
        "_checked",
        "_fetched_to",
        "_recent_bytes",
        "edge",
        "epoch",
        "has_to_read_again",
        "held",
        "held_bytes",
        "interruptions",
        "latecomers",
        "newcomers",
        "offset",
        "recent",
    )

    def __init__(self) -> None:
        self.epoch = ""
        self.offset = 0
        self.held: list[Held] | None = None
        """What has come since the stream began to be read; `None` when it is not being read."""
        self.held_bytes = 0
        self.has_to_read_again = False
        """Whether something may have been missed since the read that is under way began."""
        self.interruptions = 0
        """How often the broker's link was lost: who read the stream before has to read it again."""
        self.newcomers = 0
        """How many are about to join, and have read the stream or will."""
        self.recent: deque[Publication] = deque()
        self._recent_bytes = 0
        self.latecomers: list[Latecomer] = []
        self.edge = NO_EDGE
        """The lowest offset that a latecomer waits for."""
        self._fetched_to = 0
        self._checked = StreamPosition()

    @property
    def position(self) -> StreamPosition:
        """The last publication that was delivered here."""
        return StreamPosition(self.offset, self.epoch)

    @property
    def is_known(self) -> bool:
        """Whether there is a position at all."""
        return bool(self.epoch)

    def judge(self, offset: int, epoch: str) -> Arrival:
        """Say what a publication is that does not have the next offset in the same epoch; moves on a first one."""
        if not self.epoch:
            self.epoch, self.offset = epoch, offset
            return Arrival.FIRST
        # The broker keeps the order. So once a publication above what was read has come, no older one can be on its way
        # any more, and a step back means that the broker has lost what it had handed over.
        if epoch == self.epoch and offset <= self._fetched_to == self.offset:
            return Arrival.KNOWN
        return Arrival.ASTRAY

    def move(self, position: StreamPosition) -> None:
        """Be at *position*, as read from the stream; what comes with a lower offset is known from now on."""
        if position.epoch != self.epoch:
            self.forget_recent()
        self.offset, self.epoch = position.offset, position.epoch
        self._fetched_to = position.offset

    def is_idle(self) -> bool:
        """Tell whether nothing has come since the last call."""
        position = self.position
        was_idle, self._checked = position == self._checked, position
        return was_idle

    def begin_holding(self) -> list[Held]:
        """Hold from now on what comes; returns where it is kept, which stays the same until `release`."""
        self.held = []
        return self.held

    def hold(self, held: Held, *, limit: int) -> bool:
        """Keep *held* until the stream was read; false when more than *limit* bytes would wait: it was not kept."""
        if self.held is None:
            raise AssertionError("only a track that is being mended holds what comes")
        size = _size(held.publication)
        if self.held and self.held_bytes + size > limit:
            return False
        self.held.append(held)
        self.held_bytes += size
        return True

    def release(self) -> list[Held]:
        """Hold nothing any more; returns what was held."""
        held, self.held, self.held_bytes = self.held or [], None, 0
        self.has_to_read_again = False
        return held

    def remember(self, publications: list[Publication], *, limit: int) -> None:
        """Keep what is delivered now for the newcomers, the last *limit* bytes of it."""
        for publication in publications:
            if publication.offset:
                self.recent.append(publication)
                self._recent_bytes += _size(publication)
        while self._recent_bytes > limit and len(self.recent) > 1:
            self._recent_bytes -= _size(self.recent.popleft())

    def delivered_above(self, top: StreamPosition) -> list[Publication] | None:
        """Return what newcomers, whose page of the stream ended at *top*, have missed of what was delivered meanwhile.

        `None` if that can't be told without a gap; the stream has to be read once more then.
        """
        if not self.epoch:
            return []
        if self.epoch != top.epoch:
            return None
        missed = [each for each in self.recent if each.offset > top.offset]
        return missed if len(missed) == max(self.offset - top.offset, 0) else None

    def forget_recent(self) -> None:
        """Keep nothing of what was delivered: nobody is about to join."""
        self.recent.clear()
        self._recent_bytes = 0

    def wait(self, latecomer: Latecomer) -> None:
        """Let *latecomer* join once the position has reached its own."""
        self.latecomers.append(latecomer)
        self.edge = min(self.edge, latecomer.after)

    def arrived(self) -> list[Latecomer]:
        """Take out the latecomers whose edge the position has reached."""
        arrived = [each for each in self.latecomers if each.after <= self.offset]
        if arrived:
            self._keep([each for each in self.latecomers if each.after > self.offset])
        return arrived

    def drop(self, subscriber: Subscriber) -> bool:
        """Take *subscriber* out of the latecomers; false if it was none."""
        left = [each for each in self.latecomers if each.subscriber is not subscriber]
        is_there = len(left) < len(self.latecomers)
        self._keep(left)
        return is_there

    def _keep(self, latecomers: list[Latecomer]) -> None:
        self.latecomers = latecomers
        self.edge = min((each.after for each in latecomers), default=NO_EDGE)
