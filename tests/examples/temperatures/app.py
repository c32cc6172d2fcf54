"""Temperatures: sensors post readings by REST, dashboards see them at once. One process, FastAPI and the gateway in it.

    .venv/bin/uvicorn tests.examples.temperatures.app:app
    curl -X POST 127.0.0.1:8000/readings -H 'Content-Type: application/json' -d '{"sensor": "roof", "celsius": 21.5}'

The dashboard is at http://127.0.0.1:8000/. Each worker of the server is a node of its own, so run it with several
workers, or behind a balancer, only with GATEWAY_BROKER__TYPE=redis and GATEWAY_REDIS__ADDRESS=host:port.
"""

import os
from pathlib import Path
from typing import Annotated, Final

from fastapi import Depends, FastAPI, Header
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from gateway.asgi import GatewayApp, create_app
from gateway.config import load
from gateway.publisher import AsyncPublisher, publisher_of

HERE: Final = Path(__file__).parent
CHANNEL: Final = "sensors:all"


class Reading(BaseModel):
    """What a sensor has measured."""

    sensor: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    celsius: Annotated[float, Field(ge=-90, le=60, allow_inf_nan=False)]


class Accepted(BaseModel):
    """Where a reading went: its place among all readings."""

    offset: int
    is_repeated: bool


def make_app(gateway: GatewayApp) -> FastAPI:
    """Return the application around *gateway*."""
    app = FastAPI(title="Temperatures", lifespan=gateway.lifespan)
    Realtime = Annotated[AsyncPublisher, Depends(publisher_of(gateway.publisher))]  # noqa: N806 - a type

    @app.get("/", include_in_schema=False)
    async def show_dashboard() -> FileResponse:
        return FileResponse(HERE / "dashboard.html")

    @app.post("/readings", status_code=202)
    async def take_reading(
        reading: Reading, publisher: Realtime, idempotency_key: Annotated[str, Header()] = ""
    ) -> Accepted:
        """Take a reading; a sensor that is not sure whether it got through sends it again with the same key."""
        receipt = await publisher.publish(CHANNEL, reading, idempotency_key=idempotency_key)
        return Accepted(offset=receipt.offset, is_repeated=receipt.is_suppressed)

    app.mount("/realtime", gateway)
    return app


app = make_app(create_app(load(HERE / "gateway.toml", environment=os.environ)))
