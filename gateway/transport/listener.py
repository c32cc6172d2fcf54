"""Listening sockets and the HTTP server on them: uvicorn owns both, and hands upgrades over through its `ws=` seam."""

import asyncio
import contextlib
import errno
import resource
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from pydantic import Field

from gateway.settings import Size
from gateway.transport.certificate import ListenError, TLSSettings
from gateway.transport.forwarded import Proxies, ProxySettings
from gateway.transport.front import Make, ProxyFront
from gateway.transport.http import GuardedHTTPProtocol, Refused, RequestHeadSettings

Port = Annotated[int, Field(ge=0, le=65535)]


class HTTPServerSettings(RequestHeadSettings, ProxySettings):
    """`http_server`: addresses."""

    address: str = "0.0.0.0"  # noqa: S104 - a server is there to be reached; `--dev` listens on loopback only
    """Where clients connect to: an IPv4 or IPv6 address, `::` for both, or `unix:/path`."""
    port: Port = 8000
    """Public port; 0 takes a free one, which the log names."""
    internal_address: str = "127.0.0.1"
    """Where health checks and metrics are served; keep it away from the public."""
    internal_port: Port = 9000
    """Internal port; 0 takes a free one."""
    backlog: Size = 4096
    """Connections that the kernel keeps until they are accepted; `net.core.somaxconn` caps it."""
    tls: TLSSettings = TLSSettings()


def bind(address: str, port: int, *, backlog: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        ListenError: if the address can't be had.
    """
    try:
        if address.startswith("unix:"):
            return _bind_unix(Path(address.removeprefix("unix:")), backlog)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        is_dual = address == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((address, port), family=family, backlog=backlog, dualstack_ipv6=is_dual)
    except OSError as error:
        where = address if address.startswith("unix:") else f"{address}:{port}"
        raise ListenError(f"can't listen on {where}: {error.strerror or error}") from error


def _bind_unix(path: Path, backlog: int) -> socket.socket:
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()  # left behind by a node that is gone
            else:
                raise OSError(errno.EADDRINUSE, "another process listens there")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def raise_descriptor_limit() -> int:
    """Raise the limit of open files to the hard one, since each connection takes one; return what it is now."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says "unlimited" and means less
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Listener:
    """An HTTP server for an ASGI *app* on one listening socket.

    It is stopped in two steps: take no new connections, then end the rest.
    """

    def __init__(
        self,
        sock: socket.socket,
        app: Any,
        *,
        head: RequestHeadSettings,
        refused: Refused,
        context: ssl.SSLContext | None = None,
        make_connection: Callable[[str], asyncio.Protocol] | None = None,
        proxies: Proxies | None = None,
        has_proxy_headers: bool = False,
    ) -> None:
        """*make_connection* is given the client's address where it is not the socket's, else "".

        With *has_proxy_headers* connections from *proxies* begin with one of the PROXY protocol.
        """
        self._socket = sock
        self.address = sock.getsockname()
        config = uvicorn.Config(
            app,
            http=_http_seam(head, refused, proxies),
            ws=_seam(make_connection) if make_connection else "none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ssl_context_factory=(lambda _config, _default: context) if context else None,
            timeout_graceful_shutdown=1,
        )
        if not has_proxy_headers or proxies is None:
            self._server = _Server(config)
            return

        def front(listening: socket.socket, make: Make) -> ProxyFront:
            return ProxyFront(
                listening,
                make,
                trusts=proxies.trusts,
                timeout_s=head.head_timeout_s,
                refused=lambda reason, address: refused(reason, None, address),
                context=context,
            )

        self._server = _FrontedServer(config, front)

    async def serve(self) -> None:
        """Serve until `stop` is called, and a little longer for requests under way."""
        await self._server.serve(sockets=[self._socket])

    async def started(self) -> None:
        """Wait until connections are taken."""
        await self._server.is_listening.wait()

    def stop_accepting(self) -> None:
        """Take no new connections; those that are open live on."""
        for server in self._server.servers:
            server.close()

    def stop(self) -> None:
        """Have `serve` return."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.is_listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the node, which has two servers and more to stop."""
        yield


class _FrontedServer(_Server):
    """Takes connections from a front instead of a server of the event loop's."""

    def __init__(self, config: uvicorn.Config, front: Callable[[socket.socket, Make], ProxyFront]) -> None:
        super().__init__(config)
        self._front = front
        self._fronts: list[ProxyFront] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does (0.54), but for who listens."""

        def make(source: str | None) -> asyncio.Protocol:
            protocol: Any = self.config.http_protocol_class
            return protocol(  # type: ignore[no-any-return]  # the seam makes them
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state, source=source
            )

        await self.lifespan.startup()
        self._fronts = [self._front(each, make) for each in sockets or ()]
        servers: Any = self._fronts
        self.servers = servers
        self.started = True
        self.is_listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop as uvicorn does, once nobody is on the way in any more."""
        for each in self._fronts:
            each.close()
            await each.wait_closed()
        await super().shutdown(sockets)


def _http_seam(head: RequestHeadSettings, refused: Refused, proxies: Proxies | None) -> Any:
    """Dress the guarded protocol as what uvicorn calls for a connection."""

    def make(**given: Any) -> asyncio.Protocol:
        return GuardedHTTPProtocol(head=head, refused=refused, proxies=proxies, **given)

    return make


def _seam(make_connection: Callable[[str], asyncio.Protocol]) -> Any:
    """Dress a factory as what uvicorn, or our protocol for it, calls on an upgrade."""

    def make(*, address: str = "", **_uvicorns_own: Any) -> asyncio.Protocol:
        return make_connection(address)

    return make
