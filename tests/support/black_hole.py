"""A TCP proxy that can stop forwarding without a word, as a network does that has lost one of its ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


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
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def location(self) -> str:
        """`host:port`, as settings have it."""
        return f"{self.address[0]}:{self.address[1]}"

    def swallow(self) -> None:
        """Take everything, from now on and on new connections too, and pass on nothing; all stay open."""
        self._is_swallowing = True

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
        self._tasks.create_task(self._forward(reader, onward, writer), name="to the target")
        self._tasks.create_task(self._forward(there, writer, onward), name="from the target")

    async def _forward(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        """Forward until either side ends, then end both."""
        try:
            while data := await source.read(65536):
                if self._is_swallowing:
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
