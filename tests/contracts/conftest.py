"""One Redis server for all contract suites; each test has a key prefix of its own on it."""

from collections.abc import Iterator

import pytest

from tests.support.redis_servers import RedisServer, running_redis


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """A server that no test stops, freezes or empties."""
    with running_redis() as server:
        yield server
