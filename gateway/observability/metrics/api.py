"""Families of the server API."""

from typing import Final

from gateway.observability.metrics.family import Family, count_by, histogram_by
from gateway.observability.metrics.snapshot import Kind

API: Final = (
    count_by("method", "gateway_api_calls", "Calls of the server API, those of batches included.", "api_calls"),
    Family(
        Kind.COUNTER,
        "gateway_api_errors",
        "Calls that were not carried out, by error code, or by HTTP status where it got no further.",
        ("method", "code"),
        lambda scrape: [(labels, n) for labels, n in scrape.counts.api_errors.items()],
    ),
    histogram_by("method", "gateway_api_duration_seconds", "From a request's body to its answer.", "api_durations"),
)
