"""One container engine and one image for all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.support.container_engine import ContainerEngine, container_engine
from tests.support.go_programs import UnavailableError

_IMAGE = "localhost/gateway-tests/gateway"


@pytest.fixture(scope="session")
def engine() -> Iterator[ContainerEngine]:
    """A container engine; where none is to be had, the tests that ask for it are skipped and say why."""
    try:
        with container_engine() as found:
            yield found
    except UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def image(engine: ContainerEngine) -> str:
    """The gateway's image, built from this checkout."""
    engine.build(_IMAGE, arguments={"VERSION": "1.2.3", "REVISION": "abc"})
    return _IMAGE
