"""The comparison of peers: its load side against a server that errs on purpose, and short runs of the real peers."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve

from loadtest.cli import main
from loadtest.peers.catalogue import KEYS
from loadtest.peers.crowd import Crowd, CrowdError
from loadtest.peers.dialects import BARE
from loadtest.peers.findings import Findings
from loadtest.peers.reception import Faults
from tests.support.processes import run_program
from tests.support.waiting import until

CACHE = Path(sys.prefix) / "peers"
"""Beside the packages of the tests, so that `make clean` takes it away, too."""
QUICK = ("gateway", "picows", "websockets", "fastapi")
_INSTALLATION_S = 600
_SUBSCRIBERS = 20
_WARM_UP = 21
"""Publications that have a number before those of the first run."""


def _number(message: bytes) -> int:
    found = re.search(rb"@@(\d{8})", message)
    assert found
    return int(found[1])


@asynccontextmanager
async def _fan_out(errand: Callable[[int, str], Sequence[str]]) -> AsyncIterator[tuple[str, int]]:
    """Serve the peers' plainest dialect; *errand* says what the first subscriber gets for a publication."""
    subscribers: list[ServerConnection] = []

    async def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        if connection.request.path == BARE.subscriber_path:
            subscribers.append(connection)
            await connection.wait_closed()
            return
        async for message in connection:
            assert isinstance(message, str)
            for subscriber in subscribers[1:]:
                await subscriber.send(message)
            for each in errand(_number(message.encode()) - _WARM_UP + 1, message):
                await subscribers[0].send(each)

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        yield server.sockets[0].getsockname()[:2]


def _faithful(_: int, message: str) -> Sequence[str]:
    return [message]


def _loses(number: int, message: str) -> Sequence[str]:
    return [] if number == 5 else [message]


def _doubles(number: int, message: str) -> Sequence[str]:
    return [message, message] if number == 5 else [message]


class _Reorders:
    """Holds number 5 back until number 6 has gone."""

    def __init__(self) -> None:
        self._held: list[str] = []

    def __call__(self, number: int, message: str) -> Sequence[str]:
        if number == 5:
            self._held = [message]
            return []
        held, self._held = self._held, []
        return [message, *held]


@pytest.mark.parametrize(
    ("errand", "faults"),
    [
        (_faithful, Faults()),
        (_loses, Faults(lost=1)),
        (_doubles, Faults(duplicated=1)),
        (_Reorders(), Faults(reordered=1)),
    ],
)
async def test_one_message_that_a_server_loses_doubles_or_reorders_is_noticed(
    errand: Callable[[int, str], Sequence[str]], faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadtest.peers.crowd._STALL_S", 1)
    async with _fan_out(errand) as address:
        crowd = Crowd(address, BARE, payload_bytes=100)
        await crowd.connect(_SUBSCRIBERS)
        await crowd.warm_up()
        outcome = await crowd.run(20, in_flight=4)
        crowd.close()

    assert outcome.faults == faults
    assert outcome.deliveries == _SUBSCRIBERS * 20 + faults.duplicated - faults.lost
    assert len(outcome.latencies_ns) == outcome.deliveries
    assert min(outcome.latencies_ns) > 0


async def test_what_comes_after_it_was_given_up_harms_no_subscriber(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a late number raised KeyError, which closed all subscribers: a slow server had "lost" 45,000 messages."""
    monkeypatch.setattr("loadtest.peers.crowd._STALL_S", 0.5)
    held: list[str] = []

    def late(number: int, message: str) -> Sequence[str]:
        if number == 5:
            held.append(message)
            return []
        return [message, *held] if number == 6 else [message]

    async with _fan_out(late) as address:
        crowd = Crowd(address, BARE, payload_bytes=100)
        await crowd.connect(2)
        await crowd.warm_up()
        first = await crowd.run(5, in_flight=5)
        second = await crowd.run(5, in_flight=1)
        crowd.close()

    assert (first.deliveries, first.faults) == (9, Faults(lost=1))
    assert second.faults == Faults(duplicated=1)


async def test_connections_that_a_server_closes_are_no_lost_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.peers.crowd._STALL_S", 0.5)
    subscribers: list[ServerConnection] = []

    async def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        if connection.request.path == BARE.subscriber_path:
            subscribers.append(connection)
            await connection.wait_closed()
            return
        async for message in connection:
            if _number(str(message).encode()) == _WARM_UP + 2:
                await subscribers[0].close(1011, "too slow")
                continue
            for subscriber in subscribers:
                await subscriber.send(message)

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        crowd = Crowd(server.sockets[0].getsockname()[:2], BARE, payload_bytes=100)
        await crowd.connect(2)
        await crowd.warm_up()
        with pytest.raises(
            CrowdError,
            match=r"^1 connections ended while it ran; of the first, the server closed it with 1011 too slow$",
        ):
            await crowd.run(5, in_flight=1)
        crowd.close()


async def test_a_server_that_refuses_a_connection_is_told_in_a_sentence() -> None:
    async def refuse(connection: ServerConnection) -> None:
        await connection.close()

    async with serve(
        refuse, "127.0.0.1", 0, process_request=lambda connection, _: connection.respond(503, "")
    ) as server:
        crowd = Crowd(server.sockets[0].getsockname()[:2], BARE, payload_bytes=100)
        with pytest.raises(
            CrowdError, match=r"^a connection failed: the server answered 'HTTP/1\.1 503 Service Unavailable'$"
        ):
            await crowd.connect(2)
        crowd.close()


async def test_subscribers_that_hear_nothing_are_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.peers.crowd._CONNECT_TIMEOUT_S", 1)
    async with _fan_out(lambda *_: []) as address:
        crowd = Crowd(address, BARE, payload_bytes=100)
        await crowd.connect(3)
        with pytest.raises(CrowdError, match=r"^1 of 3 subscribers hear nothing$"):
            await crowd.warm_up()
        crowd.close()


def _is_running(server: Path) -> bool:
    return server.exists() and (server / "stat").read_text().rpartition(")")[2].split()[0] != "Z"


def _compare(tmp_path: Path, *arguments: str) -> tuple[int, Findings]:
    sizes = ["--subscribers", "20", "--deliveries", "400", "--in-flight", "1,4"]
    code = main(["compare-peers", *sizes, "--cache", str(CACHE), "--output", str(tmp_path), *arguments])
    return code, msgspec.json.decode((tmp_path / "peers.json").read_bytes(), type=Findings)


def _assert_all_verified(findings: Findings, keys: Sequence[str], table: str) -> None:
    assert [(trouble.peer, trouble.reason) for trouble in findings.troubles] == []
    assert [run.peer for run in findings.runs] == list(keys)
    for run in findings.runs:
        assert [(case.in_flight, case.messages, case.deliveries) for case in run.cases] == [(1, 20, 400), (4, 20, 400)]
        assert findings.is_verified(run.peer), findings.faults(run.peer)
        assert all(case.server_us > 0 and case.p99_ms >= case.p50_ms > 0 for case in run.cases)
    assert len([line for line in table.splitlines() if line.endswith("| yes |")]) == len(keys)


@pytest.mark.timeout(_INSTALLATION_S)
def test_the_quickly_installed_peers_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, findings = _compare(tmp_path, "--peers", ",".join(QUICK))
    assert code == 0
    _assert_all_verified(findings, QUICK, capsys.readouterr().out)


@pytest.mark.long
@pytest.mark.timeout(3 * _INSTALLATION_S)
def test_all_peers_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, findings = _compare(tmp_path)
    assert code == 0
    _assert_all_verified(findings, KEYS, capsys.readouterr().out)


def test_a_peer_that_can_not_be_had_is_named_and_the_others_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadtest.peers.processes.shutil.which", lambda _: None)
    code, findings = _compare(tmp_path, "--peers", "gateway-redis,gateway")
    assert code == 0
    assert [run.peer for run in findings.runs] == ["gateway"]
    reason = "not measured in round 1: it needs redis-server: apt-get install redis-server"
    assert [(trouble.peer, trouble.reason) for trouble in findings.troubles] == [("gateway-redis", reason)]
    assert f"- **gateway**, Redis: {reason}.\n" in capsys.readouterr().out


def test_where_nothing_could_be_measured_the_exit_code_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "no-such-python")
    code, findings = _compare(tmp_path, "--peers", "gateway")
    assert code == 1
    assert [trouble.reason for trouble in findings.troubles] == [
        "not measured in round 1: no-such-python: no such file or directory"
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--peers", "gateway,other"], "'other' is none of gateway, gateway-redis, "),
        (["--subscribers", "0"], "'0' is no number from 1 to 50000"),
        (["--in-flight", "1,x"], "'x' is no number from 1 to 10000"),
        (["--output", "/dev/null/below"], "can't write into /dev/null/below: Not a directory."),
    ],
)
async def test_bad_input_is_one_sentence_and_exit_code_2(arguments: list[str], sentence: str) -> None:
    finished = await run_program(sys.executable, "-m", "loadtest", "compare-peers", *arguments)
    assert (finished.code, finished.out) == (2, "")
    assert sentence in finished.err
    assert "Traceback" not in finished.err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_whoever_ends_it_gets_what_was_measured_and_nothing_is_left_running(
    signum: signal.Signals, tmp_path: Path
) -> None:
    many = ["--subscribers", "20", "--in-flight", "1", "--deliveries", "400", "--rounds", "100", "--peers", "gateway"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadtest", "compare-peers", *many, "--output", str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    while b"round 1, gateway:" not in await process.stderr.readline():
        assert process.returncode is None
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    servers = [Path("/proc", pid) for pid in await asyncio.to_thread(lambda: children.read_text().split())]
    process.send_signal(signum)
    out, err = await process.communicate()

    assert process.returncode == 130
    assert b"Interrupted; what follows is what was measured so far." in err
    assert b"| **gateway**, in memory |" in out
    # One that was being started when it ended may still have to be reaped, by whoever reaps orphans here.
    await until(lambda: not any(map(_is_running, servers)))
    findings = msgspec.json.decode((tmp_path / "peers.json").read_bytes(), type=Findings)
    assert 1 <= len(findings.runs) < 100
