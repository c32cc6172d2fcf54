"""Real Redis servers for tests: a process of the test's own on a free port of the loopback, ended by its id."""

import asyncio
import contextlib
import itertools
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
import trustme
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

# Generous, since it only bounds a failing test.
_START_TIMEOUT_S = 15
_numbers = itertools.count(1)
_QUIET = {"save": "", "daemonize": "no", "bind": "127.0.0.1", "protected-mode": "no", "loglevel": "notice"}
# With this, what was acknowledged survives a kill.
_PERSISTENT = {"appendonly": "yes", "appendfsync": "always"}

# Takes ARGV[2] milliseconds off the lifetime of every key that begins with ARGV[1], and off the scores of sorted sets.
_ADVANCE = """
local pattern = string.gsub(ARGV[1], '[%*%?%[%]%\\\\]', '\\\\%0') .. '*'
for _, key in ipairs(redis.call('KEYS', pattern)) do
    local left = redis.call('PTTL', key)
    if left >= 0 and left <= tonumber(ARGV[2]) then
        redis.call('DEL', key)
    else
        if left >= 0 then redis.call('PEXPIRE', key, left - ARGV[2]) end
        if redis.call('TYPE', key).ok == 'zset' then
            for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
                redis.call('ZINCRBY', key, -ARGV[2], member)
            end
        end
    end
end
"""


class RedisServer:
    """A `redis-server` with a directory of its own; made by `redis_server` or `running_redis`."""

    def __init__(
        self,
        *,
        password: str = "",
        users: Sequence[str] = (),
        tls: bool = False,
        persistent: bool = False,
        config: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a server; *users* are ACL rules (`"ann on >secret ~* &* +@all"`), *config* is laid over the rest."""
        self.password = password
        self.directory = Path(tempfile.mkdtemp(prefix="redis-test-"))
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._is_tls = tls
        self._config = _QUIET | {"dir": str(self.directory), "logfile": str(self.directory / "log")}
        self._config |= _PERSISTENT if persistent else {"appendonly": "no"}
        self._config |= {"requirepass": password} if password else {}
        self._config |= self._make_certificate() if tls else {}
        self._config |= dict(config or {})
        self._users = list(users)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return "127.0.0.1", self.port

    @property
    def location(self) -> str:
        """`host:port`, as settings have it."""
        return f"127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        """The certificate of the authority that signed the server's; with `tls` only."""
        return self.directory / "ca.pem"

    @property
    def log(self) -> str:
        """What it has logged."""
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "log").read_text(encoding="utf-8", errors="replace")
        return ""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    def start(self, *, is_awaited: bool = True) -> None:
        """Start it, on the port that it had before if it had one, and wait until it answers.

        With *is_awaited* false only until it takes connections, which it does while it still loads its data.
        """
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        is_new = not self.port
        while True:
            self.port = _free_port() if is_new else self.port
            self._process = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL)
            while self._process.poll() is None:
                if self._answers(is_awaited=is_awaited):
                    return
                if time.monotonic() > deadline_s:
                    self.kill()
                    raise AssertionError(f"redis-server does not answer; it wrote {self.log}")
                time.sleep(0.005)
            # Another process took the port in between, which only a new one may mend.
            if not is_new or time.monotonic() > deadline_s:
                raise AssertionError(f"redis-server ended with {self._process.returncode}; it wrote {self.log}")

    def kill(self) -> None:
        """End it at once, as a crash does."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None

    def freeze(self) -> None:
        """Stop its process: connections stay open, and nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._running().send_signal(signal.SIGCONT)

    def restart(self, *, keep_data: bool, is_awaited: bool = True) -> None:
        """Kill it if it runs and start it again on its port; its data are kept only by a persistent server."""
        if self._process is not None:
            self.kill()
        if not keep_data:
            shutil.rmtree(self.directory / "appendonlydir", ignore_errors=True)
            (self.directory / "dump.rdb").unlink(missing_ok=True)
        self.start(is_awaited=is_awaited)

    async def execute(self, *args: Any) -> Any:
        """Send one command on a connection of its own and return what redis-py makes of the answer."""
        async with self.client() as client:
            return await client.execute_command(*args)  # type: ignore[no-untyped-call]

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator["redis.asyncio.Redis"]:
        """Hand out a redis-py client until the block ends."""
        tls = {"ssl": True, "ssl_ca_certs": str(self.ca_file)} if self._is_tls else {}
        retry = Retry(NoBackoff(), 0)
        secret = {"password": self.password or None}
        given: dict[str, Any] = (
            {"host": "127.0.0.1", "port": self.port, "protocol": 2, "retry": retry} | secret | tls | options
        )
        client = redis.asyncio.Redis(**given)
        try:
            yield client
        finally:
            await client.aclose()

    async def advance(self, seconds: float, prefix: str) -> None:
        """Let time pass for the keys that begin with *prefix*: what would be over then is gone."""
        await self.execute("EVAL", _ADVANCE, 0, prefix, round(seconds * 1000))

    def release(self) -> None:
        """End it in any case and take its directory away."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _command(self) -> list[str]:
        ports = {"port": "0", "tls-port": str(self.port)} if self._is_tls else {"port": str(self.port)}
        command = ["redis-server"]
        for name, value in (self._config | ports).items():
            command += [f"--{name}", value]
        for rule in self._users:
            command += ["--user", *rule.split()]
        return command

    def _answers(self, *, is_awaited: bool) -> bool:
        try:
            with socket.create_connection(self.address, timeout=1) as connection:
                if not is_awaited or self._is_tls:
                    return True
                connection.sendall(b"PING\r\n")
                # "NOAUTH" is an answer, too.
                return not connection.recv(100).startswith((b"-LOADING", b"-MASTERDOWN")) or not is_awaited
        except OSError:
            return False

    def _make_certificate(self) -> dict[str, str]:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        own = self.directory / "server.pem"
        authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(str(own))
        files = {"tls-cert-file": str(own), "tls-key-file": str(own), "tls-ca-cert-file": str(self.ca_file)}
        return files | {"tls-auth-clients": "no"}

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise AssertionError("this redis-server does not run")
        return self._process


@contextmanager
def running_redis(**options: Any) -> Iterator[RedisServer]:
    """Run a server until the block ends; for fixtures that outlive one event loop."""
    server = RedisServer(**options)
    try:
        server.start()
        yield server
    finally:
        server.release()


@asynccontextmanager
async def redis_server(**options: Any) -> AsyncIterator[RedisServer]:
    """Run a server until the block ends."""
    server = RedisServer(**options)
    try:
        await asyncio.to_thread(server.start)
        yield server
    finally:
        server.release()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fresh_prefix() -> str:
    """Return a key prefix that no other test has on a shared server."""
    return f"t{next(_numbers)}"
