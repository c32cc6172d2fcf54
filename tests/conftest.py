"""Fixtures that every kind of test may ask for."""

from collections.abc import AsyncIterator

import pytest

from tests.support.nodes import RunningNode, running_node


@pytest.fixture
async def node() -> AsyncIterator[RunningNode]:
    """A running node in development mode."""
    async with running_node() as running:
        yield running
