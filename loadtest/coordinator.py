"""Runs one load test: servers, workers, phases, chaos, and what came of it."""

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

from gateway.client import Backoff, Client, ClientError, ClientSettings, PlainClient, PlainSettings
from loadtest import books, chaos, limits, usage
from loadtest.conclusion import Gathered, conclude
from loadtest.crew import Crew, crew
from loadtest.havoc import Havoc
from loadtest.messages import Access, Begin, Conclude, Drain, Job, Leave, Outcome, Publish, Ready, Report, Sent
from loadtest.options import Options
from loadtest.progress import Progress
from loadtest.reckoning import lasts_by_channel
from loadtest.results import Ledger, Phases, Results, Target, Usage
from loadtest.scenario import ClientPlan, parameters
from loadtest.servers import Process, Servers, own_servers
from loadtest.stamps import now_us
from loadtest.timeline import Timeline
from loadtest.tokens import connection_token

_PATIENCE_S: Final = 8.0
"""How long publications may stay unanswered at the end; clients give up on their own before."""
_HURRIED_S: Final = 2.0
"""The same, and how long a drain may take, when somebody wants to stop."""
_HEAD_START_S: Final = 0.3
"""Between an order to all workers and the moment that it is for."""
_PROBES: Final = Backoff(base_s=0.3, cap_s=1.0, max_retries=4)
_PROBE_TOKEN_S: Final = 60
_ZERO: Final = Usage()


class RunError(Exception):
    """Why a run can't be made, in one sentence."""


class Coordinator:
    """One run."""

    def __init__(self, options: Options, progress: Progress) -> None:
        self._options = options
        self._progress = progress
        self._timeline = Timeline(options.workers)
        self._stopping = asyncio.Event()
        self._begin_us = 0
        self._phases = Phases()
        self._notes: list[str] = []
        self._readings: dict[str, float] = {}
        self._memory_before: dict[str, int] = {}
        self._processes: dict[str, Process] = {}
        self._most_connections = 0

    def stop(self) -> None:
        """End the run early, with a report of what was measured so far."""
        self._stopping.set()

    async def run(self) -> Results:
        """Run it to its end.

        Raises:
            RunError: if no server answers, or none can be started, or this machine can't open as many connections.
        """
        options = self._options
        plans = [options.scenario.plan(number, options.seed) for number in range(options.scenario.clients)]
        started_at = datetime.now(tz=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        load_before = os.getloadavg()[0]
        limits.raise_descriptor_limit()
        async with AsyncExitStack() as stack:
            servers = await self._servers(stack)
            chaos.check(options.chaos, servers=servers.processes, links=servers.links, commands=options.commands)
            addresses = self._addresses(servers)
            jobs = self._jobs(plans, addresses, self._access(servers))
            await self._probe(jobs[0])
            pages = {name: await self._page(process) for name, process in servers.processes.items()}
            version = next((page.version for page in pages.values() if page), "")
            self._processes = servers.processes
            self._note_memory()
            workers = await stack.enter_async_context(crew(jobs, self._take))
            havoc = Havoc(options.chaos, servers, options.commands, self._progress.strike)
            self._progress.expect(sum(_counts_as_connected(plan, jobs[0].access) for plan in plans))
            sent, outcomes = await self._through_phases(workers, havoc)
            ledger = await self._ledger(servers, pages, outcomes)
            workers.tell(Leave(0.0 if self._stopping.is_set() else options.scenario.ramp_down_s))
            await workers.end()
            self._phases = _at(self._phases, end_s=self._elapsed_s)
            target = Target(
                addresses=addresses,
                protocol=options.protocol,
                is_own=servers.is_own,
                servers=servers.described,
                version=version,
            )
        return conclude(
            self._gathered(sent, outcomes, havoc, plans),
            started_at=started_at,
            load_before=load_before,
            is_interrupted=self._stopping.is_set(),
            target=target,
            ledger=ledger,
        )

    # Before.

    async def _servers(self, stack: AsyncExitStack) -> Servers:
        options = self._options
        if not options.targets and not options.plain_targets:
            self._progress.say("Starting three nodes and Redis" if options.is_cluster else "Starting a node")
            return await stack.enter_async_context(own_servers(is_cluster=options.is_cluster))
        return Servers([Process(each.server, start=each.start) for each in options.servers])

    def _addresses(self, servers: Servers) -> list[str]:
        options = self._options
        addresses = options.targets or servers.addresses
        if options.protocol != "plain":
            return list(addresses)
        return options.plain_targets or [_plain(address) for address in addresses]

    def _access(self, servers: Servers) -> Access:
        access = self._options.access
        if not servers.is_own:
            return access
        return Access(hmac_secret=servers.hmac_secret, api_urls=servers.api_urls, api_key=servers.api_key)

    def _jobs(self, plans: Sequence[ClientPlan], addresses: list[str], access: Access) -> list[Job]:
        options = self._options
        machine = limits.this_machine()
        connections = sum(_connections(plan, options.protocol) for plan in plans)
        limits.check_descriptors(connections, workers=options.workers, machine=machine)
        local_addresses = limits.local_addresses(connections, addresses, machine)
        run = secrets.randbits(31)
        return [
            Job(
                index=index,
                workers=options.workers,
                scenario=options.scenario_name,
                parameters=parameters(options.scenario),
                seed=options.seed,
                run=run,
                suffix="" if options.has_exact_channels else f"-{run:x}",
                addresses=addresses,
                protocol=options.protocol,
                access=access,
                shares=sum(plan.share for plan in plans if plan.publish),
                local_addresses=local_addresses,
            )
            for index in range(options.workers)
        ]

    async def _probe(self, job: Job) -> None:
        """See whether each target answers; raises `RunError` for one that does not, after some retries."""
        for address in job.addresses:
            shown = address.replace("{channel}", self._probe_channel(job))
            self._progress.say(f"Asking {shown}")
            token = _probe_token(job.access)
            try:
                if job.protocol == "plain":
                    async with PlainClient(shown, token=token, settings=PlainSettings(backoff=_PROBES)):
                        pass
                else:
                    async with Client(shown, token=token, settings=ClientSettings(backoff=_PROBES)):
                        pass
            except (ClientError, OSError) as error:
                raise RunError(f"no server lets the load test in at {shown}: {error}") from None

    def _probe_channel(self, job: Job) -> str:
        """Return a channel that the scenario uses: only there the plain protocol lets anybody in."""
        scenario = self._options.scenario
        plan = scenario.plan(scenario.clients - 1, self._options.seed)
        name = next(iter((*plan.subscribe, *plan.publish)), "")
        namespace = f"{scenario.namespace}:" if scenario.namespace else ""
        return quote(f"{namespace}{name}{job.suffix}", safe=":")

    async def _page(self, process: Process) -> books.Page | None:
        if not process.server.metrics:
            return None
        page = await books.read(process.server.metrics)
        if page is None:
            self._notes.append(f"No metrics could be read at {process.server.metrics}.")
        return page

    # The phases.

    async def _through_phases(self, workers: Crew, havoc: Havoc) -> tuple[list[Sent], list[Outcome]]:
        scenario = self._options.scenario
        async with asyncio.TaskGroup() as tasks:
            self._begin_us = now_us() + int(_HEAD_START_S * 1e6)
            sampling = tasks.create_task(self._sample(), name="usage of the servers")
            doing: asyncio.Task[None] | None = None
            workers.tell(Begin(self._begin_us))
            self._progress.phase("ramp-up")
            await self._ramp_up(workers)
            if not self._stopping.is_set():
                begin_us = now_us() + int(_HEAD_START_S * 1e6)
                self._phases = _at(self._phases, plateau_s=(begin_us - self._begin_us) / 1e6)
                workers.tell(Publish(begin_us, begin_us + int(scenario.plateau_s * 1e6)))
                self._progress.phase("plateau")
                doing = tasks.create_task(havoc.wreak(begin_us), name="chaos")
                await self._pause((begin_us - now_us()) / 1e6 + scenario.plateau_s)
            self._phases = _at(self._phases, drain_s=self._elapsed_s)
            self._progress.phase("drain")
            if doing is not None:
                doing.cancel()
            is_hurried = self._stopping.is_set()
            workers.tell(Conclude(_HURRIED_S if is_hurried else _PATIENCE_S))
            sent = await workers.answers(Sent)
            lasts = lasts_by_channel(each.lasts for each in sent)
            workers.tell(Drain(lasts, min(scenario.drain_s, _HURRIED_S) if is_hurried else scenario.drain_s))
            outcomes = await workers.answers(Outcome)
            self._phases = _at(self._phases, ramp_down_s=self._elapsed_s)
            self._progress.phase("ramp-down")
            sampling.cancel()
        await havoc.undo()
        return sent, outcomes

    async def _ramp_up(self, workers: Crew) -> None:
        scenario = self._options.scenario
        ready = asyncio.ensure_future(workers.answers(Ready))
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait(
            {ready, stopping},
            timeout=_HEAD_START_S + scenario.ramp_up_s + scenario.settle_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        stopping.cancel()
        if ready.done():
            ready.result()
            return
        ready.cancel()
        if not self._stopping.is_set():
            self._notes.append(
                f"Not all clients were connected and subscribed {scenario.settle_s:g} s after the ramp-up; "
                "the plateau began with those that were."
            )

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), max(0.0, seconds))

    @property
    def _elapsed_s(self) -> float:
        return max(0.0, (now_us() - self._begin_us) / 1e6)

    def _take(self, worker: int, report: Report) -> None:
        if self._timeline.add(worker, report):
            second = self._timeline.second(report.second, self._progress.current)
            self._most_connections = max(self._most_connections, second.connections)
            self._progress.show(second, self._timeline)

    def _note_memory(self) -> None:
        for name, process in self._processes.items():
            reading = usage.read(process.pid) if process.pid is not None else None
            if reading is not None:
                self._readings[name] = reading.cpu_s
                self._memory_before[name] = reading.memory_bytes

    async def _sample(self) -> None:
        """Read what the servers use, at the end of each second."""
        second = 0
        while True:
            await asyncio.sleep((self._begin_us - now_us()) / 1e6 + second + 1)
            found = {}
            for name, process in self._processes.items():
                reading = usage.read(process.pid) if process.pid is not None else None
                if reading is None:
                    found[name] = _ZERO
                    continue
                before_s = self._readings.get(name, 0.0)
                used_s = reading.cpu_s - before_s if reading.cpu_s >= before_s else reading.cpu_s
                self._readings[name] = reading.cpu_s
                found[name] = Usage(cpu_s=round(used_s, 4), memory_bytes=reading.memory_bytes)
            self._timeline.add_servers(second, found)
            second += 1

    # After.

    async def _ledger(
        self, servers: Servers, before: dict[str, books.Page | None], outcomes: Sequence[Outcome]
    ) -> Ledger:
        found, silent = [], []
        for name, process in servers.processes.items():
            if before[name] is None:
                continue
            page = await books.read(process.server.metrics)
            if page is None:
                silent.append(name)
            else:
                found.append(books.book(name, before[name], page))
        return books.compare(
            found,
            silent=silent,
            received=sum(outcome.counts.delivered + outcome.counts.foreign for outcome in outcomes),
            recovered=sum(outcome.counts.recovered for outcome in outcomes),
            endings=sum(outcome.endings for outcome in outcomes),
        )

    def _gathered(
        self, sent: Sequence[Sent], outcomes: Sequence[Outcome], havoc: Havoc, plans: Sequence[ClientPlan]
    ) -> Gathered:
        return Gathered(
            options=self._options,
            phases=self._phases,
            begin_us=self._begin_us,
            timeline=self._timeline,
            sent=sent,
            outcomes=outcomes,
            done=havoc.done,
            plans=plans,
            most_connections=self._most_connections,
            memory_before=self._memory_before,
            gateways=[name for name, process in self._processes.items() if process.server.address],
            notes=[*self._notes, *havoc.notes],
        )


def _plain(address: str) -> str:
    """Return where the plain protocol is on the server of *address*."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc, "/ws/{channel}", "", ""))


def _connections(plan: ClientPlan, protocol: str) -> int:
    return len({*plan.subscribe, *plan.publish}) if protocol == "plain" else 1


def _counts_as_connected(plan: ClientPlan, access: Access) -> bool:
    """Whether a client shows among the connections once it is there: who never reads does not, nor who only calls."""
    return plan.reads and not (plan.by_api and access.api_urls and not plan.subscribe)


def _at(phases: Phases, **times_s: float) -> Phases:
    return msgspec.structs.replace(phases, **{name: round(at_s, 3) for name, at_s in times_s.items()})


def _probe_token(access: Access) -> str:
    if not access.hmac_secret:
        return access.token
    expires_s = int(time.time()) + _PROBE_TOKEN_S
    return connection_token("load-probe", secret=access.hmac_secret, expires_unix_s=expires_s)
