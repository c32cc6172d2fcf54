"""Publish from where no client is: a web application, a Celery task, a script.

What is published here arrives as a node's own publications do: the same checks, processors and options of the
namespace, the same scripts in Redis, so offsets, history and idempotency keys are one with theirs.

    with Publisher.from_config("gateway.toml") as publisher:
        publisher.publish("news:today", {"text": "hello"})

`AsyncPublisher` is the same on an event loop. Each holds one connection, made when it is first needed.
"""

from gateway.publisher.asynchronous import AsyncPublisher
from gateway.publisher.dependency import publisher_of
from gateway.publisher.desk import Receipt
from gateway.publisher.errors import PublisherError, PublishRejectedError, UnavailableError, UnsuitableEngineError
from gateway.publisher.synchronous import Publisher

__all__ = [
    "AsyncPublisher",
    "PublishRejectedError",
    "Publisher",
    "PublisherError",
    "Receipt",
    "UnavailableError",
    "UnsuitableEngineError",
    "publisher_of",
]
