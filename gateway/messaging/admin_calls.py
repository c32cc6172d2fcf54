"""What the scripts of the admin page call, by `rpc` over their WebSocket: the server API, in the forms that are shown.

An answer is `{"result": …}` or `{"error": {"code", "message", "reason"}}`, as JSON.
"""

import base64
import re
from collections.abc import Awaitable, Callable, Mapping
from heapq import nsmallest
from typing import Any, Final, Protocol

import msgspec
import structlog

from gateway.messaging.administration import Administration
from gateway.messaging.batches import METHODS
from gateway.messaging.control import NodeInfo
from gateway.messaging.handlers import Handler, Request
from gateway.messaging.trends import KEPT_POINTS, Point, Trends
from gateway.protocol import server_api as api
from gateway.protocol import server_results
from gateway.protocol.messages import ClientInfo
from gateway.protocol.server_api import Refusal
from gateway.protocol.tap_codec import Shown, shown

_PASSED_ON: Final = ("publish", "presence_stats", "disconnect")
_ACTIONS: Final = ("publish", "disconnect")
"""What is logged, with who did it: the rest only looks."""
_MAX_CHANNELS: Final = 200
_USUAL_INTERVAL_S: Final = 3.0
_GLOB: Final = re.compile(r"[*?\[]")

_encode: Final = msgspec.json.Encoder().encode


class Nodes(Protocol):
    """The nodes of the system."""

    def announced_nodes(self) -> list[NodeInfo]:
        """Return all that are known, as they have announced themselves: cheap enough to be asked all the time."""

    def silent(self) -> list[tuple[NodeInfo, float]]:
        """Return those that went without a goodbye, and for how many seconds they have been silent."""


class OverviewCall(msgspec.Struct):
    """Ask how all nodes are doing; of the points of charts, for those with numbers above *after*."""

    after: int = 0


class Seen(msgspec.Struct):
    """A node, its zeros written, and the points of its charts."""

    node: dict[str, Any]
    points: list[Point]


class Silent(msgspec.Struct):
    """A node that is silent."""

    node: dict[str, Any]
    seconds: float


class Overview(msgspec.Struct):
    """How all nodes are doing, at *now_s* of the clock that points are on; charts reach *span_s* back."""

    now_s: float
    span_s: float
    nodes: list[Seen]
    silent: list[Silent]


class ChannelsFound(msgspec.Struct):
    """The busiest channels of a search, each with its connections, and how many there are in *total*."""

    channels: list[tuple[str, int]]
    total: int
    silent: list[server_results.SilentNode]


class ConnectionsFound(msgspec.Struct):
    """A page of connections, and the *names* of the nodes that they are on, by uid."""

    connections: list[server_results.ConnectionResult]
    cursor: str
    silent: list[server_results.SilentNode]
    names: dict[str, str]


class Kept(msgspec.Struct):
    """A publication of a stream, its payload as taps show it."""

    data: Shown
    offset: int
    info: ClientInfo | None
    tags: dict[str, str]


class HistoryShown(msgspec.Struct):
    """A page of a stream and the stream's top."""

    publications: list[Kept]
    epoch: str
    offset: int


class _Fault(msgspec.Struct):
    code: int
    message: str
    reason: str


class AdminCalls:
    """Carries the calls out. *monotonic* is the clock that *trends* are on."""

    def __init__(
        self,
        administration: Administration,
        nodes: Nodes,
        trends: Trends,
        *,
        monotonic: Callable[[], float],
        announce_interval_s: float = _USUAL_INTERVAL_S,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._administration = administration
        self._nodes = nodes
        self._trends = trends
        self._monotonic = monotonic
        self._span_s = KEPT_POINTS * announce_interval_s
        self._log = log.bind(scope="admin")

    def handlers(self) -> Mapping[str, Handler]:
        """Return a handler for each method."""
        handlers = {name: self._passing_on(name) for name in _PASSED_ON}
        handlers["overview"] = _handler(OverviewCall, self.overview)
        handlers["channels"] = _handler(api.ChannelsCall, self.channels)
        handlers["connections"] = _handler(api.ConnectionsCall, self.connections)
        handlers["history"] = _handler(api.HistoryCall, self.history)
        return handlers

    async def overview(self, call: OverviewCall) -> Overview:
        """Tell how all nodes are doing."""
        return Overview(
            now_s=self._monotonic(),
            span_s=self._span_s,
            nodes=[
                Seen(_whole(node), self._trends.of(node.uid, after=call.after))
                for node in self._nodes.announced_nodes()
            ],
            silent=[Silent(_whole(node), seconds) for node, seconds in self._nodes.silent()],
        )

    async def channels(self, call: api.ChannelsCall) -> ChannelsFound | Refusal:
        """Find channels by a glob, or by a part of their names."""
        pattern = call.pattern if not call.pattern or _GLOB.search(call.pattern) else f"*{call.pattern}*"
        found = await self._administration.channels(api.ChannelsCall(pattern))
        if isinstance(found, Refusal):
            return found
        counted = ((name, result.num_clients) for name, result in found.channels.items())
        busiest = nsmallest(_MAX_CHANNELS, counted, key=lambda channel: (-channel[1], channel[0]))
        return ChannelsFound(busiest, len(found.channels), found.silent)

    async def connections(self, call: api.ConnectionsCall) -> ConnectionsFound | Refusal:
        """Find connections."""
        found = await self._administration.connections(call)
        if isinstance(found, Refusal):
            return found
        names = {node.uid: node.name for node in self._nodes.announced_nodes()}
        return ConnectionsFound(found.connections, found.cursor, found.silent, names)

    async def history(self, call: api.HistoryCall) -> HistoryShown | Refusal:
        """Show what a channel's stream keeps."""
        found = await self._administration.history(call)
        if isinstance(found, Refusal):
            return found
        kept = [Kept(_payload(each), each.offset, each.info, each.tags) for each in found.publications]
        return HistoryShown(kept, found.epoch, found.offset)

    def _passing_on(self, name: str) -> Handler:
        method = METHODS[name]

        async def carry_out(call: Any) -> Any:
            return await method.carry_out(self._administration, call)

        handle = _handler(method.call, carry_out)
        if name not in _ACTIONS:
            return handle

        async def log_and_handle(request: Request) -> str:
            answer = await handle(request)
            self._log.info("admin acted", action=name, user=request.user, **_concerned(request))
            return answer

        return log_and_handle


def _whole(node: NodeInfo) -> dict[str, Any]:
    return msgspec.structs.asdict(node) | {"figures": msgspec.structs.asdict(node.figures)}


def _payload(stored: server_results.StoredPublication) -> Shown:
    return shown(base64.b64decode(stored.b64data) if stored.b64data else bytes(stored.data))


class _Handle(Protocol):
    async def __call__(self, request: Request) -> str: ...


def _handler(kind: type[Any], carry_out: Callable[[Any], Awaitable[Any]]) -> _Handle:
    read = msgspec.json.Decoder(kind).decode

    async def handle(request: Request) -> str:
        try:
            call = read(request.data)
        except (msgspec.DecodeError, RecursionError) as error:
            return _written(Refusal(api.BAD_REQUEST, str(error)))
        return _written(await carry_out(call))

    return handle


def _written(result: Any) -> str:
    if isinstance(result, Refusal):
        fault = _Fault(result.error.code, result.error.message, result.reason)
        return _encode({"error": fault}).decode()
    return _encode({"result": result}).decode()


class _Concerned(msgspec.Struct):
    channel: str = ""
    user: str = ""
    client: str = ""


def _concerned(request: Request) -> dict[str, str]:
    """Return whom or what an action concerned, for the log: never its payload."""
    try:
        said = msgspec.json.decode(request.data, type=_Concerned)
    except (msgspec.DecodeError, RecursionError):
        return {}
    named = {"channel": said.channel, "whom": said.user, "client": said.client}
    return {name: value for name, value in named.items() if value}
