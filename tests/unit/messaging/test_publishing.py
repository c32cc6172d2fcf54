from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from gateway.broker.contract import Published
from gateway.broker.memory.broker import MemoryBroker
from gateway.domain.channels import Channel, Channels, ChannelSettings, Namespace
from gateway.domain.counts import Counts
from gateway.domain.stream import HistoryRange
from gateway.messaging.processors import PROCESSORS, NotProcessableError, Processor
from gateway.messaging.publishing import Publisher
from gateway.protocol import codes
from gateway.protocol.messages import NOTHING, ClientInfo, Join, Leave, Publication

_NAMESPACES: dict[str, dict[str, Any]] = {
    "json": {"publication_data_format": "json"},
    "object": {"publication_data_format": "json_object"},
    "binary": {"publication_data_format": "binary"},
    "any": {"publication_data_format": "any"},
    "timed": {"processors": ["server_time"]},
    "timed_object": {"processors": ["server_time"], "publication_data_format": "json_object"},
    "measured": {"processors": ["server_time", "statistics"], "statistics_window": 2},
    "measured_stream": {"processors": ["statistics"], "history_size": 5, "history_ttl": 60},
    "guest": {"processors": ["guest"], "processor_options": {"guest": {"refused": "bad"}}},
}
CHANNELS = Channels(
    ChannelSettings(
        namespaces=[Namespace.model_validate({"name": name, **options}) for name, options in _NAMESPACES.items()]
    )
)


def guest(*, refused: str) -> Processor:
    """Make a processor that refuses one value, and fails at another."""

    def process(value: dict[str, Any], *, unix_s: float) -> dict[str, Any]:
        del unix_s
        if value["data"] == refused:
            raise NotProcessableError("refused")
        return {"length": len(value["data"])}

    return process


class _Bench:
    """A publisher and what its broker hands over."""

    def __init__(self, *channels: str, is_reporting: bool = True) -> None:
        self.counts = Counts()
        self.received: list[tuple[str, bytes, ClientInfo | None, float | None]] = []
        broker = MemoryBroker()
        broker.start(self)
        for channel in channels:
            broker.subscribe(channel)
        self.broker = broker
        self.reports: list[tuple[str, Exception]] = []
        self._publisher = Publisher(
            broker,
            self.counts,
            monotonic=lambda: 7.0,
            unix=lambda: 2.5,
            max_depth=4,
            processors={**PROCESSORS, "guest": guest},
            report=(lambda channel, error: self.reports.append((channel, error))) if is_reporting else None,
        )

    def receive(self, channel: str, publication: Publication, epoch: str, accepted_at_s: float | None) -> None:
        assert bool(epoch) == bool(publication.offset)
        self.received.append((channel, bytes(publication.data), publication.info, accepted_at_s))

    def receive_event(self, channel: str, event: Join | Leave) -> None:
        raise AssertionError(f"nobody joins or leaves here: {channel!r}, {event}")

    def resume(self, channels: Sequence[str], *, interrupted_s: float) -> None:
        raise AssertionError(f"nothing is interrupted here: {channels}, {interrupted_s}")

    def publish(self, name: str, data: bytes | msgspec.Raw, *, is_checked: bool, info: ClientInfo | None = None) -> Any:
        channel = CHANNELS.resolve(name)
        assert isinstance(channel, Channel)
        error = self._publisher.refuse(channel, data, is_checked=is_checked)
        return error or self._publisher.publish(channel, data, info)


# (channel, data, may a client publish it as unchecked text, may it as the payload of a valid command)
CASES: list[tuple[str, bytes, bool, bool]] = [
    ("a", b"{}", True, True),
    ("a", b" 1.0 ", True, True),
    ("a", b"null", True, True),
    ("a", b'"\\ud800"', True, True),
    ("a", b"[[[[1]]]]", True, True),
    ("json:a", b"1", True, True),
    ("object:a", b'{"x":1}', True, True),
    ("object:a", b' \t\r\n{"x":1}', True, True),
    ("object:a", b"[1]", False, False),
    ("object:a", b'"{"', False, False),
    ("object:a", b"null", False, False),
    ("any:a", b"1", True, True),
    ("binary:a", b"1", True, True),
]
UNCHECKED_ONLY: list[tuple[str, bytes, bool]] = [
    ("a", b"", False),
    ("a", b"{", False),
    ("a", b"1 2", False),
    ("a", b"\xff", False),
    ("a", b'"\xff"', False),
    ("a", b"[[[[[1]]]]]", False),
    ("json:a", b"{", False),
    ("object:a", b'{"x":', False),
    ("object:a", b"{} {}", False),
    ("any:a", b"\xff", True),
    ("any:a", b"", False),
    ("binary:a", b"\x00\xff", True),
    ("binary:a", b"", True),
]


@pytest.mark.parametrize(
    ("channel", "data", "is_checked", "is_taken"),
    [(channel, data, False, taken) for channel, data, taken, _ in CASES]
    + [(channel, data, True, taken) for channel, data, _, taken in CASES]
    + [(channel, data, False, taken) for channel, data, taken in UNCHECKED_ONLY],
)
def test_what_each_data_format_takes(channel: str, data: bytes, *, is_checked: bool, is_taken: bool) -> None:
    bench = _Bench(channel)
    outcome = bench.publish(channel, msgspec.Raw(data) if is_checked else data, is_checked=is_checked)
    if is_taken:
        assert outcome.result() == Published()
        assert bench.received == [(channel, data, None, 7.0)]
    else:
        assert outcome is codes.BAD_REQUEST
        assert bench.received == []
    namespace = channel.partition(":")[0] if ":" in channel else ""
    assert bench.counts.ledger(namespace).published == int(is_taken)


@pytest.mark.parametrize(
    ("channel", "is_taken"),
    [("a", False), ("json:a", False), ("object:a", False), ("any:a", False), ("binary:a", True)],
)
def test_a_command_without_data_is_refused_except_where_bytes_may_be_empty(channel: str, *, is_taken: bool) -> None:
    outcome = _Bench(channel).publish(channel, NOTHING, is_checked=True)
    assert (outcome is not codes.BAD_REQUEST) == is_taken


@pytest.mark.parametrize("is_checked", [False, True])
@pytest.mark.parametrize(
    ("channel", "data", "published"),
    [
        ("timed:a", b'{"x": 1.0}', b'{"x": 1.0,"server_time":2.5}'),
        ("timed:a", b"[1]", b'{"data":[1],"server_time":2.5}'),
        ("timed_object:a", b"{}", b'{"server_time":2.5}'),
        ("timed_object:a", b"[1]", None),
    ],
)
def test_processors_run_before_the_broker_sees_it(
    channel: str, data: bytes, published: bytes | None, *, is_checked: bool
) -> None:
    bench = _Bench(channel)
    outcome = bench.publish(channel, msgspec.Raw(data) if is_checked else data, is_checked=is_checked)
    if published is None:
        assert outcome is codes.BAD_REQUEST
    else:
        assert bench.received == [(channel, published, None, 7.0)]


def test_what_a_processor_can_not_work_on_is_a_bad_request() -> None:
    # JSON by its grammar, so the check lets it pass; no text, so nothing can be added to it.
    bench = _Bench("timed:a")
    assert bench.publish("timed:a", b'"\\ud800"', is_checked=False) is codes.BAD_REQUEST
    assert bench.received == []


def test_the_publisher_travels_along() -> None:
    bench, info = _Bench("a"), ClientInfo("42", "c", msgspec.Raw(b'{"name":"Alice"}'))
    bench.publish("a", b"1", is_checked=False, info=info)
    assert bench.received == [("a", b"1", info, 7.0)]


def test_statistics_are_made_of_what_was_published_to_the_channel() -> None:
    bench = _Bench("measured:a", "measured:b")
    for name, data in [("measured:a", b"1"), ("measured:b", b"9"), ("measured:a", b" 2.50 "), ("measured:a", b"3e0")]:
        assert bench.publish(name, data, is_checked=False).result() == Published()
    figures = [
        b'{"count":1}',
        b'{"count":1}',
        b'{"count":2,"mean":1.75,"std":0.75,"min":1.0,"max":2.5}',
        b'{"count":2,"mean":2.75,"std":0.25,"min":2.5,"max":3.0}',
    ]
    assert [data for _, data, _, _ in bench.received] == [
        b'{"data":%b,"server_time":2.5,"statistics":%b}' % pair
        for pair in zip((b"1", b"9", b"2.50", b"3e0"), figures, strict=True)
    ]


def test_statistics_of_a_stream_are_kept_with_it() -> None:
    bench, channel = _Bench(), CHANNELS.resolve("measured_stream:a")
    assert isinstance(channel, Channel)
    for data in (b'{"value":1}', b'{"value":3}'):
        bench.publish("measured_stream:a", data, is_checked=False)
    page = bench.broker.history("measured_stream:a", HistoryRange(limit=-1), meta_ttl_s=channel.meta_ttl_s).result()
    assert [(each.offset, bytes(each.data)) for each in page.publications] == [
        (1, b'{"value":1,"statistics":{"count":1}}'),
        (2, b'{"value":3,"statistics":{"count":2,"mean":2.0,"std":1.0,"min":1.0,"max":3.0}}'),
    ]


@pytest.mark.parametrize("data", [b"NaN", b'"1"', b"true", b"{}", b'{"value":"1"}', b"[1]", b"1e999"])
def test_what_is_no_number_is_a_bad_request_and_counts_nowhere(data: bytes) -> None:
    bench = _Bench("measured:a")
    assert bench.publish("measured:a", data, is_checked=False) is codes.BAD_REQUEST
    bench.publish("measured:a", b"1", is_checked=False)
    assert [data for _, data, _, _ in bench.received] == [b'{"data":1,"server_time":2.5,"statistics":{"count":1}}']


def test_a_processor_of_others_gets_its_options_and_may_refuse() -> None:
    bench = _Bench("guest:a")
    assert bench.publish("guest:a", b'"good"', is_checked=False).result() == Published()
    assert bench.publish("guest:a", b'"bad"', is_checked=False) is codes.BAD_REQUEST
    assert [data for _, data, _, _ in bench.received] == [b'{"length":4}']
    assert bench.reports == []


def test_a_processors_own_fault_is_error_100_and_reported() -> None:
    bench = _Bench("guest:a")
    assert bench.publish("guest:a", b"5", is_checked=False) is codes.INTERNAL_ERROR
    assert [(channel, type(error)) for channel, error in bench.reports] == [("guest:a", TypeError)]
    assert bench.received == []


def test_without_anybody_to_report_to_it_is_raised() -> None:
    with pytest.raises(TypeError, match="has no len"):
        _Bench(is_reporting=False).publish("guest:a", b"5", is_checked=False)
