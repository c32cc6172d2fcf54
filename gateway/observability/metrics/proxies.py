"""Families of what the user's backend is asked; `proxy` is `default` where a namespace names none of its own."""

from collections.abc import Callable
from typing import Final

from gateway.domain.counts import Histogram, ProxyCounts
from gateway.observability.metrics.family import Family, ProxyGauges, Sample, Scrape
from gateway.observability.metrics.snapshot import Joining, Kind

_LABELS: Final = ("event", "proxy")


def _calls(scrape: Scrape) -> list[Sample]:
    return [
        ((event, name, str(outcome)), number)
        for (event, name), counts in scrape.counts.proxies.items()
        for outcome, number in counts.calls.items()
    ]


def _counted(kind: Kind, name: str, text: str, read: Callable[[ProxyCounts], float | Histogram]) -> Family:
    """Return the family of one figure that each proxy counts."""

    def samples(scrape: Scrape) -> list[Sample]:
        return [(key, read(counts)) for key, counts in scrape.counts.proxies.items()]

    return Family(kind, name, text, _LABELS, samples)


def _gauge(name: str, text: str, read: Callable[[ProxyGauges], float], *, joining: Joining = Joining.SUM) -> Family:
    """Return the family of one figure that each proxy has now."""

    def samples(scrape: Scrape) -> list[Sample]:
        return [((str(event), proxy), read(gauges)) for (event, proxy), gauges in scrape.gauges.proxies]

    return Family(Kind.GAUGE, name, text, _LABELS, samples, joining)


PROXIES: Final = (
    Family(
        Kind.COUNTER,
        "gateway_proxy_calls",
        "Times that the backend was to be asked about an event of a client, by what became of it: `result`, `error`, "
        "`disconnect` and `nothing` are its answers; `status` (another than 200, and not mapped), `unusable`, "
        "`too_long`, `timeout` and `unreachable` its failures; `busy` (too many calls under way) and `refused` (by the "
        "breaker) never reached it; `cancelled`: the node stopped.",
        (*_LABELS, "outcome"),
        _calls,
    ),
    _counted(
        Kind.HISTOGRAM,
        "gateway_proxy_call_duration_seconds",
        "From sending an event to the whole answer, or to giving it up.",
        lambda counts: counts.durations,
    ),
    _gauge("gateway_proxy_calls_in_flight", "Calls that are with the backend.", lambda proxy: proxy.in_flight),
    _gauge(
        "gateway_proxy_calls_waiting",
        "Calls that wait for their turn, since as many as concurrency_limit says are with the backend.",
        lambda proxy: proxy.waiting,
    ),
    _gauge(
        "gateway_proxy_breaker_state",
        "0: calls are made. 2: the backend has failed and is left in peace; until the next call after the pause. 1: "
        "that one call is under way.",
        lambda proxy: proxy.breaker_state.value,
        joining=Joining.MAX,
    ),
    _counted(
        Kind.COUNTER,
        "gateway_proxy_breaker_openings",
        "Times that so many calls had failed that the backend was left in peace.",
        lambda counts: counts.openings,
    ),
)
