"""The images of a trial cluster, as one file that every node imports: nothing is pulled there."""

from pathlib import Path
from typing import Final

from tests.support.container_engine import container_engine
from tests.support.kubernetes.node_settings import PAUSE

GATEWAY: Final = ("docker.io/library/gateway:latest", "registry.example.com/gateway:0.1.0")
"""The gateway as the overlays name it: as `make image` makes it, and as a registry would have it."""
NEXT: Final = "registry.example.com/gateway:0.1.1"
"""A version after it, which is the same with another label."""
REDIS: Final = "docker.io/library/redis:8-alpine"
PROMETHEUS: Final = "localhost/gateway-tests/prometheus:latest"
_PAUSE_FILE: Final = 'FROM {base}\nUSER 65535\nENTRYPOINT ["sleep", "infinity"]\n'


def saved_images(path: Path) -> Path:
    """Make them, write them to *path*, and return it.

    Raises:
        UnavailableError: if there is no container engine and none can be started.
    """
    with container_engine() as engine:
        if not engine.images.services:
            engine.make_images()
        engine.build(GATEWAY[0])
        engine.run("tag", GATEWAY[0], GATEWAY[1])
        engine.build(NEXT, arguments={"VERSION": "0.1.1"})
        for name in (REDIS, PROMETHEUS):
            engine.run("tag", engine.images.services, name)
        engine.run("build", "--tag", PAUSE, "-", text=_PAUSE_FILE.format(base=engine.images.services))
        engine.run("save", "--output", str(path), *GATEWAY, NEXT, REDIS, PROMETHEUS, PAUSE)
    return path
