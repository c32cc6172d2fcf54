"""A TCP proxy that can stop forwarding without a word, as a network does that has lost one of its ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

_FIRST_WORDS = 1000


class BlackHole:
    """Forwards to *target* until told otherwise. Made by `black_hole`."""

    def __init__(self, target: tuple[str, int], tasks: asyncio.TaskGroup) -> None:
        self.address = ("", 0)
        """Where it listens."""
        self.swallowed_bytes = 0
        self.is_closed = False
        """Whether it forwards nothing new, since its block has ended."""
        self._target = target
        self._tasks = tasks
        self._is_swallowing = False
        self._whose = b""
        self._is_lost: Callable[[bytes], bool] = lambda _: False
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def location(self) -> str:
        """`host:port`, as settings have it."""
        return f"{self.address[0]}:{self.address[1]}"

    def swallow(self, whose: bytes = b"") -> None:
        """Take everything, from now on and on new connections too, and pass on nothing; all stay open.

        With *whose* only on connections whose first words had that in them.
        """
        self._is_swallowing = True
        self._whose = whose

    def lose(self, is_lost: Callable[[bytes], bool]) -> None:
        """Lose what comes from the target in one piece and *is_lost*, from now on; all else passes."""
        self._is_lost = is_lost

    def heal(self) -> None:
        """Forward everything again, on the connections that are open, too."""
        self._is_swallowing = False
        self._is_lost = lambda _: False

    def cut(self) -> None:
        """Close what is open, and forward what comes after that."""
        self._is_swallowing = False
        for writer in self._open:
            writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; its tasks live as long as the proxy does."""
        try:
            there, onward = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()  # as the target would have refused it
            return
        if self.is_closed:
            writer.transport.abort()
            onward.transport.abort()
            return
        self._open |= {writer, onward}
        said = bytearray()
        self._tasks.create_task(self._forward(reader, onward, writer, said, is_answer=False), name="to the target")
        self._tasks.create_task(self._forward(there, writer, onward, said, is_answer=True), name="from the target")

    async def _forward(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        said: bytearray,
        *,
        is_answer: bool,
    ) -> None:
        """Forward until either side ends, then end both."""
        try:
            while data := await source.read(65536):
                if not is_answer and len(said) < _FIRST_WORDS:
                    said += data
                is_swallowed = self._is_swallowing and self._whose in said
                if is_swallowed or (is_answer and self._is_lost(data)):
                    self.swallowed_bytes += len(data)
                else:
                    sink.write(data)
                    await sink.drain()
        except ConnectionError:
            pass  # one side was cut: so is the other, below
        finally:
            sink.transport.abort()
            back.transport.abort()
            self._open -= {sink, back}


@asynccontextmanager
async def black_hole(target: tuple[str, int]) -> AsyncIterator[BlackHole]:
    """Run a proxy on a free port of the loopback until the block ends."""
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        proxy = BlackHole(target, tasks)
        server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
        proxy.address = server.sockets[0].getsockname()[:2]
        try:
            yield proxy
        except Exception as error:  # noqa: BLE001 - raised below: the group would wrap what a test has to say
            failure = error
        finally:
            proxy.is_closed = True
            server.close()
            proxy.cut()
            await server.wait_closed()
    if failure is not None:
        raise failure
