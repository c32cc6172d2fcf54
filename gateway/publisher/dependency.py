"""A publisher as a dependency of FastAPI's routes; nothing of FastAPI is needed for it."""

from collections.abc import AsyncIterator, Callable
from typing import Final

from starlette.exceptions import HTTPException
from starlette.status import HTTP_503_SERVICE_UNAVAILABLE

from gateway.publisher.asynchronous import AsyncPublisher
from gateway.publisher.errors import UnavailableError

_RETRY_AFTER_S: Final = 1


def publisher_of(publisher: AsyncPublisher) -> Callable[[], AsyncIterator[AsyncPublisher]]:
    """Return what `Depends` takes to hand *publisher* to a route.

        Realtime = Annotated[AsyncPublisher, Depends(publisher_of(publisher))]

    An `UnavailableError` that the route lets through becomes a 503 with `Retry-After`.
    """

    async def dependency() -> AsyncIterator[AsyncPublisher]:
        try:
            yield publisher
        except UnavailableError as error:
            headers = {"Retry-After": str(_RETRY_AFTER_S)}
            raise HTTPException(HTTP_503_SERVICE_UNAVAILABLE, "publishing is not available", headers) from error

    return dependency
