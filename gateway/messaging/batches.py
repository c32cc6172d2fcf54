"""The server API's methods as one table, and several calls at once (protocol.md 7, `batch`).

The publications of a batch are handed to the broker together, and what they came to is waited for afterwards: on Redis
they share a pipeline. They are published in the order of the batch all the same.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from gateway.messaging.administration import Administration, Sent, published
from gateway.protocol import server_api as api
from gateway.protocol.messages import NOTHING
from gateway.protocol.server_api import BatchCall, BatchCommand, PublishCall, Refusal, Scope
from gateway.protocol.server_results import BatchReply, BatchResult

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
    """Carries batches out."""

    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    async def carry_out(
        self, batch: BatchCall, *, may: Callable[[Scope], bool], note: Callable[[str, Any, Refusal | None], object]
    ) -> BatchResult:
        """Answer each call; *may* tells what the caller is allowed.

        *note* is told each call's method, the call, and why it was not carried out, if it was not. An unknown one has
        no method and is `None`.
        """
        work = _Work(self._administration, len(batch.commands), note)
        may_publish = may(METHODS["publish"].scope)
        waiting: list[tuple[int, _Entry]] = []
        for index, command in enumerate(batch.commands):
            if command.publish is not None and may_publish:  # nearly all of what comes in batches
                work.publish(index, command.publish)
                continue
            entry = _read(command)
            error = _refuse(entry, may)
            if error is not None:
                work.answer(index, entry, error)
            elif batch.parallel:
                waiting.append((index, entry))
            else:
                await work.published()
                await work.call([(index, entry)])
        await work.published()
        for start in range(0, len(waiting), MAX_PARALLEL):
            await work.call(waiting[start : start + MAX_PARALLEL])
        return BatchResult(work.replies)


class _Work:
    """One batch, as far as it has got."""

    def __init__(
        self, administration: Administration, size: int, note: Callable[[str, Any, Refusal | None], object]
    ) -> None:
        self.replies = [BatchReply() for _ in range(size)]
        self._administration = administration
        self._note = note
        self._publishing: list[tuple[int, PublishCall, Sent | Refusal]] = []

    def publish(self, index: int, call: PublishCall) -> None:
        """Hand a publication to the broker."""
        # A payload is a view of the whole batch, which must not live as long as a history.
        call.data = call.data.copy() if call.data is not NOTHING else NOTHING
        self._publishing.append((index, call, self._administration.begin_publish(call)))

    async def published(self) -> None:
        """Wait until the broker has all of them."""
        publishing, self._publishing = self._publishing, []
        for index, call, sent in publishing:
            result = await published(sent)
            if isinstance(result, Refusal):
                self.replies[index] = BatchReply(error=result.error)
                self._note("publish", call, result)
            else:
                self.replies[index] = BatchReply(publish=result)
                self._note("publish", call, None)

    async def call(self, part: Sequence[tuple[int, _Entry]]) -> None:
        """Carry out calls, all at the same time."""
        async with asyncio.TaskGroup() as tasks:
            begun = [tasks.create_task(self._carry_out(entry), name=f"batch {entry.name}") for _, entry in part]
        for (index, entry), task in zip(part, begun, strict=True):
            self.answer(index, entry, task.result())

    def answer(self, index: int, entry: _Entry, result: Any) -> None:
        """Take down what became of a call."""
        is_refused = isinstance(result, Refusal)
        if is_refused:
            self.replies[index].error = result.error
        else:
            setattr(self.replies[index], entry.name, result)
        self._note(entry.name, entry.call, result if is_refused else None)

    async def _carry_out(self, entry: _Entry) -> Any:
        return await METHODS[entry.name].carry_out(self._administration, entry.call)


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
