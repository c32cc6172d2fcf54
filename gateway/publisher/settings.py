"""The configuration of the nodes, as a publisher reads it."""

from collections.abc import Mapping
from pathlib import Path

from gateway.config import Config, load
from gateway.publisher.errors import UnsuitableEngineError
from gateway.tables import BrokerType


def read(path: Path | str, environment: Mapping[str, str] | None) -> Config:
    """Read the configuration of nodes that others can publish into.

    Raises:
        ConfigError: for a file that can't be used.
        UnsuitableEngineError: if what is published stays inside a node's process.
    """
    config = load(Path(path), environment=environment)
    if config.broker.type is not BrokerType.REDIS:
        raise UnsuitableEngineError(
            f"{path}: broker.type is {config.broker.type.value!r}, and what is published there stays inside the node's "
            'process; set broker.type = "redis" for the nodes and for this program'
        )
    return config
