"""Families of the Redis engine; they have no samples on another engine."""

from typing import Any, Final

from gateway.observability.metrics.family import Family, Sample, Scrape, by_label, only
from gateway.observability.metrics.snapshot import Kind


def _redis(name: str, text: str, field: str, *labels: str) -> Family:
    """Return the family of one counter of `RedisCounts`."""

    def read(scrape: Scrape) -> list[Sample]:
        value = _read(scrape, field)
        if value is None:
            return []
        return by_label(value) if labels else only(value)

    return Family(Kind.COUNTER, f"gateway_redis_{name}", text, labels, read)


def _read(scrape: Scrape, field: str) -> Any:
    counts = scrape.gauges.redis_counts
    return None if counts is None else getattr(counts, field)


REDIS: Final = (
    _redis(
        "connects", "Connections to Redis that came up; all but the first of a link are reconnects.", "connects", "link"
    ),
    _redis("commands", "Commands on the publishing connection, probes included.", "commands"),
    _redis("batches", "Writes that carried them.", "batches"),
    _redis("sent_bytes", "Bytes written to the publishing and the subscribing connection.", "bytes_out"),
    _redis("received_bytes", "Bytes read from them.", "bytes_in"),
    _redis("messages", "Messages of all channels over the subscribing connection.", "messages"),
    _redis("subscribe_commands", "SUBSCRIBE and UNSUBSCRIBE commands, of many names each.", "subscribe_commands"),
    _redis("reads", "Requests through the reading connection: history and presence.", "reads"),
    _redis("read_batches", "Pipelines that carried them.", "read_batches"),
    _redis("refused", "Commands that Redis answered with an error.", "refused"),
    Family(
        Kind.COUNTER,
        "gateway_redis_errors",
        "What went wrong, by link: unreachable, lost, silent (no sign of life), overdue (an answer), down and overflow "
        "(a request that was not sent), refused (an error reply).",
        ("link", "kind"),
        lambda scrape: [((link, str(kind)), n) for (link, kind), n in (_read(scrape, "errors") or {}).items()],
    ),
    Family(
        Kind.HISTOGRAM,
        "gateway_redis_round_trip_seconds",
        "From sending to the answer: of one batch of commands at a time (publish), of the watchdog's PINGs "
        "(subscribe), of every pipeline (read).",
        ("link",),
        lambda scrape: by_label(_read(scrape, "round_trips") or {}),
    ),
    _redis("repeated", "Scripts sent again because Redis had forgotten them.", "repeated"),
    _redis("undecodable", "Messages and stream entries that no gateway has written.", "undecodable"),
)
