"""A channel's stream: its last publications under rising offsets, in an epoch (protocol.md 3.6).

Offsets start at 1 and never repeat within an epoch. The publications go `ttl` after the last publish; offset and
epoch, the meta, live longer, so that "nothing was missed" can still be told from "what was missed is gone". When the
meta goes too, a new epoch begins at 0.
"""

from collections import deque
from itertools import islice

import msgspec

from gateway.protocol.messages import Publication, StreamPosition


class StreamOptions(msgspec.Struct, frozen=True, gc=False):
    """How long and how far back a channel's stream is kept; *size* in publications, times in seconds."""

    size: int
    ttl_s: float
    meta_ttl_s: float


class HistoryRange(msgspec.Struct, frozen=True, gc=False):
    """Which publications are wanted (protocol.md 3.5, history).

    *limit* 0 wants the position alone, a negative one all. Forward: after *since*, or from the oldest kept; reverse:
    before *since*, or from the newest, newest first.
    """

    limit: int = 0
    since: StreamPosition | None = None
    is_reverse: bool = False


class StreamPage(msgspec.Struct, frozen=True):
    """What a read found, and the position of the stream's top at that moment."""

    publications: list[Publication]
    position: StreamPosition


class Stream:
    """The stream of one channel. *epoch* is drawn by the caller; times are of a monotonic clock."""

    __slots__ = ("_publications", "epoch", "expires_at_s", "meta_expires_at_s", "top", "version", "version_epoch")

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.top = 0
        self.version = 0
        self.version_epoch = ""
        self.expires_at_s = 0.0
        self.meta_expires_at_s = 0.0
        self._publications: deque[Publication] = deque()

    def __len__(self) -> int:
        return len(self._publications)

    @property
    def position(self) -> StreamPosition:
        """The top of the stream."""
        return StreamPosition(self.top, self.epoch)

    def is_outdated(self, version: int, version_epoch: str) -> bool:
        """Tell whether a publication of this version comes too late (protocol.md 7, `version`); 0 never does."""
        has_same_epoch = not version_epoch or version_epoch == self.version_epoch
        return bool(version) and has_same_epoch and version <= self.version

    def append(
        self, publication: Publication, options: StreamOptions, *, version_epoch: str = "", now_s: float
    ) -> Publication:
        """Give *publication* the next offset and keep it; returns it as it is delivered."""
        self.expire(now_s=now_s)
        self.top += 1
        if publication.version:
            self.version, self.version_epoch = publication.version, version_epoch
        # 2.3: only the first publication of a stream tells the epoch, for who subscribed before there was one.
        epoch = self.epoch if self.top == 1 else ""
        publication = msgspec.structs.replace(publication, offset=self.top, epoch=epoch)
        self._publications.append(publication)
        while len(self._publications) > options.size:
            self._publications.popleft()
        self.expires_at_s = now_s + options.ttl_s
        self.touch(options.meta_ttl_s, now_s=now_s)
        return publication

    def touch(self, meta_ttl_s: float, *, now_s: float) -> None:
        """Keep offset and epoch for another while; every publish and every read does."""
        self.meta_expires_at_s = max(self.meta_expires_at_s, now_s + meta_ttl_s)

    def read(self, wanted: HistoryRange, *, now_s: float) -> StreamPage:
        """Return what *wanted* asks for of what is kept; the epoch of `since` is the caller's to compare."""
        self.expire(now_s=now_s)
        return StreamPage(self._select(wanted), self.position)

    def remove(self) -> None:
        """Forget the publications; offset and epoch stay."""
        self._publications.clear()

    def expire(self, *, now_s: float) -> None:
        """Forget the publications once their time is over."""
        if now_s >= self.expires_at_s:
            self._publications.clear()

    def _select(self, wanted: HistoryRange) -> list[Publication]:
        if not wanted.limit or not self._publications:
            return []
        # What is kept is without holes, so an offset tells a place.
        oldest, count = self._publications[0].offset, len(self._publications)
        since = wanted.since.offset if wanted.since is not None else None
        if wanted.is_reverse:
            kept = min(max(since - oldest, 0), count) if since is not None else count
            found = list(islice(self._publications, kept))
            found.reverse()
        else:
            start = min(max(since - oldest + 1, 0), count) if since is not None else 0
            found = list(islice(self._publications, start, None))
        return found if wanted.limit < 0 else found[: wanted.limit]
