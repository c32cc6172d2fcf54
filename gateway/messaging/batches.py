"""The server API's methods as one table, and several calls at once (protocol.md 7, `batch`).

The publications of a batch are handed to the broker together, and what they came to is waited for afterwards: on Redis
they share a pipeline. They are published in the order of the batch all the same.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

from gateway.messaging.administration import Administration, broadcasted, published
from gateway.protocol import server_api as api
from gateway.protocol.server_api import BatchCall, BatchCommand, BatchReply, BatchResult, Refusal, Scope

MAX_PARALLEL: Final = 16
"""How many calls of one batch are worked on at the same time, publications aside."""

Operation = Callable[[Administration, Any], Awaitable[Any]]


class Method(NamedTuple):
    """A method of the API, but for `batch`: what it needs, what it takes, what it does."""

    name: str
    scope: Scope
    call: type[Any]
    carry_out: Operation


_ALL: Final = (
    Method("publish", Scope.PUBLISH, api.PublishCall, Administration.publish),
    Method("broadcast", Scope.PUBLISH, api.BroadcastCall, Administration.broadcast),
    Method("subscribe", Scope.ADMIN, api.SubscribeCall, Administration.subscribe),
    Method("unsubscribe", Scope.ADMIN, api.UnsubscribeCall, Administration.unsubscribe),
    Method("disconnect", Scope.ADMIN, api.DisconnectCall, Administration.disconnect),
    Method("refresh", Scope.ADMIN, api.RefreshCall, Administration.refresh),
    Method("presence", Scope.READ, api.PresenceCall, Administration.presence),
    Method("presence_stats", Scope.READ, api.PresenceStatsCall, Administration.presence_stats),
    Method("history", Scope.READ, api.HistoryCall, Administration.history),
    Method("history_remove", Scope.ADMIN, api.HistoryRemoveCall, Administration.history_remove),
    Method("info", Scope.READ, api.InfoCall, Administration.info),
    Method("channels", Scope.READ, api.ChannelsCall, Administration.channels),
    Method("rpc", Scope.ADMIN, api.RPCCall, Administration.rpc),
    Method("connections", Scope.READ, api.ConnectionsCall, Administration.connections),
    Method("drain", Scope.ADMIN, api.DrainCall, Administration.drain),
)
METHODS: Final[Mapping[str, Method]] = {method.name: method for method in _ALL}
BATCH: Final = "batch"


class _Entry(NamedTuple):
    """One call of a batch; *call* is `None` if it is none that this version knows."""

    name: str
    call: Any


class Batches:
    """Carries batches out, and calls *note* with the method and the error of each call, `None` where there is none."""

    def __init__(
        self,
        administration: Administration,
        *,
        note: Callable[[str, Refusal | None], None] = lambda _name, _error: None,
    ) -> None:
        self._administration = administration
        self._note = note

    async def carry_out(self, batch: BatchCall, *, may: Callable[[Scope], bool]) -> BatchResult:
        """Answer each call; *may* tells what the caller is allowed."""
        entries = [_read(command) for command in batch.commands]
        replies: list[BatchReply] = [BatchReply() for _ in entries]
        sending: list[tuple[int, _Entry, Any]] = []
        waiting: list[tuple[int, _Entry]] = []
        for index, entry in enumerate(entries):
            error = _refuse(entry, may)
            if error is not None:
                self._answer(replies, index, entry, error)
            elif entry.name == "publish":
                sending.append((index, entry, self._administration.begin_publish(entry.call)))
            elif entry.name == "broadcast":
                sending.append((index, entry, self._administration.begin_broadcast(entry.call)))
            elif batch.parallel:
                waiting.append((index, entry))
            else:
                await self._finish(replies, sending)
                sending = []
                self._answer(replies, index, entry, await self._call(entry))
        await self._finish(replies, sending)
        for start in range(0, len(waiting), MAX_PARALLEL):
            part = waiting[start : start + MAX_PARALLEL]
            async with asyncio.TaskGroup() as tasks:
                begun = [tasks.create_task(self._call(entry), name=f"batch {entry.name}") for _, entry in part]
            for (index, entry), task in zip(part, begun, strict=True):
                self._answer(replies, index, entry, task.result())
        return BatchResult(replies)

    async def _call(self, entry: _Entry) -> Any:
        return await METHODS[entry.name].carry_out(self._administration, entry.call)

    async def _finish(self, replies: list[BatchReply], sending: list[tuple[int, _Entry, Any]]) -> None:
        for index, entry, sent in sending:
            result = sent
            if isinstance(sent, list):
                result = await broadcasted(sent)
            elif not isinstance(sent, Refusal):
                result = await published(sent)
            self._answer(replies, index, entry, result)

    def _answer(self, replies: list[BatchReply], index: int, entry: _Entry, result: Any) -> None:
        if isinstance(result, Refusal):
            replies[index].error = result.error
            self._note(entry.name, result)
        else:
            setattr(replies[index], entry.name, result)
            self._note(entry.name, None)


def _read(command: BatchCommand) -> _Entry:
    for name in METHODS:
        call = getattr(command, name)
        if call is not None:
            return _Entry(name, call)
    return _Entry("", None)


def _refuse(entry: _Entry, may: Callable[[Scope], bool]) -> Refusal | None:
    if entry.call is None:
        return Refusal(api.NOT_FOUND, f"a command of a batch holds one of {', '.join(METHODS)}")
    scope = METHODS[entry.name].scope
    if not may(scope):
        return Refusal(api.PERMISSION_DENIED, f"{entry.name} needs the scope {scope.value!r}")
    return None
