"""The peer "channels": a group of Django Channels with channels_redis; called with the port and Redis' port.

After https://github.com/django/channels_redis: the layer on Redis' pub/sub, the newer of its two, asks Redis once for
each publication; the other one writes to every member's own queue. On uvicorn with uvloop and httptools, no access log,
no compression. The layer's queues are made long enough to hold all that is in flight: at the default of 100 messages,
what does not fit is dropped.
"""

import sys

import django
import uvicorn
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path

GROUP = "bench"

settings.configure(
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [("127.0.0.1", int(sys.argv[2]))], "capacity": 10_000},
        }
    }
)
django.setup()


class Subscriber(AsyncWebsocketConsumer):
    """One who listens."""

    groups = [GROUP]  # noqa: RUF012 - Channels' way to say it

    async def bench_message(self, event: dict[str, str]) -> None:
        """Hand a message of the group on."""
        await self.send(text_data=event["text"])


class Publisher(AsyncWebsocketConsumer):
    """One whose words are handed on."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:  # noqa: ARG002
        """Send a message to the group."""
        await self.channel_layer.group_send(GROUP, {"type": "bench.message", "text": text_data})


app = ProtocolTypeRouter(
    {"websocket": URLRouter([path("subscribe", Subscriber.as_asgi()), path("publish", Publisher.as_asgi())])}
)

uvicorn.run(
    app,
    host="127.0.0.1",
    port=int(sys.argv[1]),
    lifespan="off",
    loop="uvloop",
    http="httptools",
    ws="websockets-sansio",
    ws_per_message_deflate=False,
    backlog=4096,
    log_level="warning",
    access_log=False,
)
