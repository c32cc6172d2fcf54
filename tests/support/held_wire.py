"""A connection to Redis of which the test is the other end."""

import hiredis

from gateway.broker.redis.counts import RedisCounts
from gateway.broker.redis.wire import Wire


class HeldWire(Wire):
    """Keeps what is written; what the server says comes by `data_received`."""

    def __init__(self, counts: RedisCounts) -> None:
        super().__init__(counts, lambda: 0.0)
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def commands(self) -> list[tuple[bytes, ...]]:
        """Return the commands that were written since the last time, each as its parts."""
        reader = hiredis.Reader()
        reader.feed(b"".join(self.written))
        self.written.clear()
        found = []
        while (command := reader.gets()) is not False:
            found.append(tuple(command))
        return found
