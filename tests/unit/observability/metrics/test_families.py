"""Metrics: what is counted is told, under documented names, in a form that Prometheus reads."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.broker.redis.counts import RedisCounts, Trouble
from gateway.domain.connections import Census, Kind
from gateway.domain.counts import LATENCY_BOUNDS_S, Asked, Counts, Dropped, Flow, Histogram, Ledger, Lost, ProxyCounts
from gateway.observability.metrics import FAMILIES, NodeMetrics
from gateway.observability.metrics import snapshot as snapshots
from gateway.observability.metrics.text import render
from gateway.proxies.breaker import BreakerState


def spread() -> Histogram:
    latencies = Histogram()
    for value in (0.0001, 0.00025, 0.003, 2.0, 60.0):
        latencies.observe(value)
    return latencies


class FixedGauges:
    """Registries of a node that stands still."""

    build = ('1.0 "x"\n\\', "3.11.7", "uvloop")
    is_ready = True

    def connection_count(self) -> int:
        return 7

    def admin_connection_count(self) -> int:
        return 8

    def users(self) -> int:
        return 5

    def channels(self) -> int:
        return 3

    def subscriptions(self) -> Iterable[tuple[str, int]]:
        return [("", 2), ("lobby", 9)]

    def queued_by_namespace(self) -> Mapping[str, int]:
        return {"lobby": 4}

    def census(self) -> Census:
        return Census({Kind("websocket", "json", "js", ""): 4, Kind("websocket", "plain", "other", ""): 3}, 4096, 2)

    connection_limit = 5000
    loop_lags = spread()
    certificate_expires_at_unix_s = 1795206807.0

    def recent_loop_lag_s(self) -> float:
        return 0.75

    is_broker_up = True
    redis_counts = RedisCounts(
        connects=Counter(publish=2),
        commands=41,
        batches=42,
        bytes_out=43,
        bytes_in=44,
        messages=45,
        subscribe_commands=46,
        reads=47,
        read_batches=48,
        refused=49,
        errors=Counter({("read", Trouble.LOST): 66}),
        round_trips=defaultdict(Histogram, publish=spread()),
        repeated=50,
        undecodable=51,
    )

    def nodes(self) -> int:
        return 3

    def presence_entries(self) -> int:
        return 6

    draining = SimpleNamespace(is_active=True, clients=8, sent_away=9)
    proxies = ((("rpc", "shop"), SimpleNamespace(in_flight=67, waiting=68, breaker_state=BreakerState.OPEN)),)
    vitals = SimpleNamespace(dead_because=lambda: None, canary_age_s=lambda: 1.5, canary_round_trip_s=lambda: 0.25)


class NothingQueued(FixedGauges):
    def queued_by_namespace(self) -> Mapping[str, int]:
        return {}


def full_counts() -> Counts:
    return Counts(
        connections_accepted=Counter(websocket=11),
        connections_refused=Counter(origin=1, path=2),
        authenticated=Counter({"user": 2, "anonymous": 1}),
        subscribed=Counter({"chat": 6}),
        recoveries=Counter({("chat", "yes", "no"): 2, ("", "no", "no"): 1}),
        recovered_publications=Counter(chat=61),
        suppressed=Counter({("chat", "version"): 62}),
        command_durations=defaultdict(Histogram, publish=spread()),
        ping_pongs=defaultdict(Histogram, websocket=spread()),
        fanout=spread(),
        survey_durations=defaultdict(Histogram, channels=spread()),
        node_lag=spread(),
        control_ignored=64,
        requests=Counter({("internal", "/metrics", "GET", 200): 65}),
        outboxes_lost=Counter({Lost.TIMEOUT: 63}),
        disconnects=Counter({3001: 3, 1008: 4}),
        closes_by_peer=5,
        unsubscribes=Counter({2501: 6}),
        commands=Counter(publish=70, subscribe=8),
        errors=Counter({("publish", 103): 9, ("publish", 107): 10}),
        api_calls=Counter(publish=41, batch=2),
        api_errors=Counter({("publish", "102"): 42, ("info", "401"): 43}),
        api_durations={"publish": spread()},
        gaps=31,
        caught_up=32,
        positions_lost=33,
        interruptions=34,
        interrupted_s=3.5,
        presence_failures=36,
        flows={"websocket": Flow(12, 13, 14, 16, 37, 15)},
        token_failures=Counter(signature=16),
        admin_logins=Counter(accepted=65, wrong_key=66),
        key_set_failures=18,
        forwarded_malformed=19,
        limit_hits=Counter(command_rate=17),
        proxies={("rpc", "shop"): ProxyCounts(Counter({Asked.RESULT: 69, Asked.TIMEOUT: 70}), spread(), 71)},
        ledgers={
            "": Ledger(published=1, received=2, duplicates=6, due=3, delivered=3, delivered_bytes=99),
            "lobby": Ledger(
                published=20,
                received=21,
                due=22,
                delivered=15,
                filtered=3,
                patched=5,
                dropped=Counter({Dropped.SLOW: 4}),
                publish_to_write=spread(),
            ),
        },
    )


def families(counts: Counts, gauges: Any = None) -> dict[str, Metric]:
    text = render(NodeMetrics(counts, gauges or FixedGauges()).snapshot()).body.decode()
    found = list(text_string_to_metric_families(text))
    assert len({family.name for family in found}) == len(found)
    return {family.name: family for family in found}


def samples(family: Metric) -> dict[tuple[str, ...], float]:
    """Return the values of *family* by the values of its labels, in the order of the labels' names."""
    return {tuple(value for _, value in sorted(each.labels.items())): each.value for each in family.samples}


@pytest.mark.parametrize("counts", [Counts(), full_counts()], ids=["idle", "busy"])
def test_every_family_is_there_with_its_type_and_help_even_before_anything_happened(counts: Counts) -> None:
    found = families(counts)
    for family in FAMILIES:
        metric = found[family.name]
        assert (metric.type, metric.documentation) == (family.kind, family.help)
        for sample in metric.samples:
            assert sample.name.startswith(family.exposed_name)
            assert set(sample.labels) - {"le"} == set(family.labels)


VALUES: dict[str, dict[tuple[str, ...], float]] = {
    "gateway_build_info": {("uvloop", "3.11.7", '1.0 "x"\n\\'): 1},
    "gateway_connections_by_client": {("js", "json", "websocket", ""): 4, ("other", "plain", "websocket", ""): 3},
    "gateway_connection_limit": {(): 5000},
    "gateway_outbox_bytes": {(): 4096},
    "gateway_connections_congested": {(): 2},
    "gateway_event_loop_lag_recent_max_seconds": {(): 0.75},
    "gateway_tls_certificate_expiry_timestamp_seconds": {(): 1795206807.0},
    "gateway_control_messages_ignored": {(): 64},
    "gateway_http_requests": {("GET", "/metrics", "internal", "200"): 65},
    "gateway_ready": {(): 1},
    "gateway_alive": {(): 1},
    "gateway_broker_canary_age_seconds": {(): 1.5},
    "gateway_broker_canary_round_trip_seconds": {(): 0.25},
    "gateway_drain_active": {(): 1},
    "gateway_drain_clients": {(): 8},
    "gateway_drain_sent_away": {(): 9},
    "gateway_broker_up": {(): 1},
    "gateway_nodes": {(): 3},
    "gateway_presence_entries": {(): 6},
    "gateway_redis_connects": {("publish",): 2},
    "gateway_redis_commands": {(): 41},
    "gateway_redis_batches": {(): 42},
    "gateway_redis_sent_bytes": {(): 43},
    "gateway_redis_received_bytes": {(): 44},
    "gateway_redis_messages": {(): 45},
    "gateway_redis_subscribe_commands": {(): 46},
    "gateway_redis_reads": {(): 47},
    "gateway_redis_read_batches": {(): 48},
    "gateway_redis_refused": {(): 49},
    "gateway_redis_errors": {("lost", "read"): 66},
    "gateway_redis_repeated": {(): 50},
    "gateway_redis_undecodable": {(): 51},
    "gateway_connections": {(): 7},
    "gateway_admin_connections": {(): 8},
    "gateway_admin_logins": {("accepted",): 65, ("wrong_key",): 66},
    "gateway_users": {(): 5},
    "gateway_channels": {(): 3},
    "gateway_subscriptions": {("",): 2, ("lobby",): 9},
    "gateway_connections_accepted": {("websocket",): 11},
    "gateway_connections_refused": {("origin",): 1, ("path",): 2},
    "gateway_authenticated": {("user",): 2, ("anonymous",): 1},
    "gateway_subscribed": {("chat",): 6},
    "gateway_recoveries": {("chat", "no", "yes"): 2, ("", "no", "no"): 1},
    "gateway_recovered_publications": {("chat",): 61},
    "gateway_publishes_suppressed": {("chat", "version"): 62},
    "gateway_outboxes_lost": {("timeout",): 63},
    "gateway_disconnects": {("3001",): 3, ("1008",): 4},
    "gateway_closes_by_peer": {(): 5},
    "gateway_unsubscribes": {("2501",): 6},
    "gateway_commands": {("publish",): 70, ("subscribe",): 8},
    "gateway_api_calls": {("publish",): 41, ("batch",): 2},
    "gateway_api_errors": {("102", "publish"): 42, ("401", "info"): 43},
    "gateway_errors": {("103", "publish"): 9, ("107", "publish"): 10},
    "gateway_token_failures": {("signature",): 16},
    "gateway_stream_gaps": {(): 31},
    "gateway_caught_up": {(): 32},
    "gateway_positions_lost": {(): 33},
    "gateway_interruptions": {(): 34},
    "gateway_interrupted_seconds": {(): 3.5},
    "gateway_presence_failures": {(): 36},
    "gateway_duplicates": {("",): 6, ("lobby",): 0},
    "gateway_key_set_failures": {(): 18},
    "gateway_forwarded_malformed": {(): 19},
    "gateway_limit_hits": {("command_rate",): 17},
    "gateway_proxy_calls": {("rpc", "result", "shop"): 69, ("rpc", "timeout", "shop"): 70},
    "gateway_proxy_calls_in_flight": {("rpc", "shop"): 67},
    "gateway_proxy_calls_waiting": {("rpc", "shop"): 68},
    "gateway_proxy_breaker_state": {("rpc", "shop"): 2},
    "gateway_proxy_breaker_openings": {("rpc", "shop"): 71},
    "gateway_messages_received": {("websocket",): 12},
    "gateway_received_bytes": {("websocket",): 13},
    "gateway_messages_sent": {("publication", "websocket"): 14, ("reply", "websocket"): 16, ("event", "websocket"): 37},
    "gateway_sent_bytes": {("websocket",): 15},
    "gateway_publications_accepted": {("",): 1, ("lobby",): 20},
    "gateway_publications_received": {("",): 2, ("lobby",): 21},
    "gateway_deliveries_due": {("",): 3, ("lobby",): 26},
    "gateway_deliveries": {("",): 3, ("lobby",): 15},
    "gateway_deliveries_filtered": {("",): 0, ("lobby",): 3},
    "gateway_patches": {("",): 0, ("lobby",): 5},
    "gateway_delivered_bytes": {("",): 99, ("lobby",): 0},
    "gateway_deliveries_dropped": {("lobby", "slow"): 4},
    "gateway_deliveries_queued": {("",): 0, ("lobby",): 4},
}


def test_each_count_appears_under_its_labels() -> None:
    found = families(full_counts())
    counted = [family.name for family in FAMILIES if family.kind is not snapshots.Kind.HISTOGRAM]
    assert {name: samples(found[name]) for name in counted} == VALUES


@pytest.mark.parametrize("name", [field.name for field in fields(Counts)])
def test_no_count_is_forgotten(name: str) -> None:
    busy = full_counts()
    one = replace(Counts(), **{name: getattr(busy, name)})
    assert {each: samples(family) for each, family in families(one).items() if each.startswith("gateway_")} != {
        each: samples(family) for each, family in families(Counts()).items() if each.startswith("gateway_")
    }


@pytest.mark.parametrize("name", [field.name for field in fields(Ledger) if field.type == "int" or field.type is int])
def test_no_column_of_the_ledger_is_forgotten(name: str) -> None:
    values: dict[str, Any] = {name: 77}
    found = families(Counts(ledgers={"lobby": replace(Ledger(), **values)}), NothingQueued())
    assert [each for each in VALUES if samples(found[each]).get(("lobby",)) == 77]


def test_the_ledger_of_the_metrics_adds_up() -> None:
    found = {name: samples(family) for name, family in families(full_counts()).items() if name in VALUES}
    for (namespace,), due in found["gateway_deliveries_due"].items():
        dropped = sum(n for labels, n in found["gateway_deliveries_dropped"].items() if labels[0] == namespace)
        decided = found["gateway_deliveries"][namespace,] + found["gateway_deliveries_filtered"][namespace,] + dropped
        assert due == decided + found["gateway_deliveries_queued"][namespace,]


def test_latencies_are_cumulated_into_their_buckets() -> None:
    name = "gateway_fanout_duration_seconds"
    family = families(full_counts())[name]
    buckets = {each.labels["le"]: each.value for each in family.samples if each.name == f"{name}_bucket"}
    expected = [2.0, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4, 5]
    assert list(buckets.values()) == expected
    assert [float(bound) for bound in buckets] == [*LATENCY_BOUNDS_S, float("inf")]
    rest = {each.name: each.value for each in family.samples if "le" not in each.labels}
    assert rest == {f"{name}_count": 5, f"{name}_sum": pytest.approx(62.00335)}


def test_a_scrape_reads_what_is_counted_by_then() -> None:
    counts = Counts()
    metrics = NodeMetrics(counts, FixedGauges())
    assert b"gateway_closes_by_peer_total 0.0" in render(metrics.snapshot()).body
    counts.closes_by_peer += 3
    assert b"gateway_closes_by_peer_total 3.0" in render(metrics.snapshot()).body


def test_an_unready_node_says_zero() -> None:
    class Unready(FixedGauges):
        is_ready = False

    assert samples(families(Counts(), Unready())["gateway_ready"]) == {(): 0}


def test_the_process_and_its_garbage_collector_are_measured_too() -> None:
    found = families(Counts())
    assert {"python_info", "python_gc_collections"} <= set(found)


def test_names_are_in_base_units_prefixed_and_unique() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    for name in names:
        assert name.startswith("gateway_")
        assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_ms"))
