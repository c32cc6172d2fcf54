"""One Redis server for the tests that leave it alone; those that kill, freeze or fill one start their own."""

from collections.abc import Iterator

import pytest

from tests.support.redis_servers import RedisServer, running_redis


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """A server that no test stops, freezes or empties."""
    with running_redis() as server:
        yield server
