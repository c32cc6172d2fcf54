import itertools
import operator
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.domain.channels import Channel, Channels, ChannelSettings, Namespace
from gateway.domain.counts import Counts, Dropped, Flow
from gateway.domain.hub import Hub
from gateway.messaging.fanout import Fanout
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect
from gateway.protocol.framing import BINARY, TEXT, WebSocketFraming
from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.messages import Publication
from gateway.protocol.variants import PlainVariant, ProtocolVariant, Variant
from tests.support.conversations import read_frames

JSON = ProtocolVariant("json", JSONCodec(), WebSocketFraming(TEXT), needs_json=True)
PLAIN = PlainVariant("plain", text=WebSocketFraming(TEXT), binary=WebSocketFraming(BINARY))
CHANNELS = Channels(
    ChannelSettings(namespaces=[Namespace.model_validate({"name": "any", "publication_data_format": "any"})])
)


class Turn:
    """A hub and its fan-out in a loop whose turns the test ends."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.hub = Hub(ledger=self.counts.ledger)
        self.now_s = 0.0
        self.soon: list[Callable[[], None]] = []
        self.fanout = Fanout(self.hub, self.counts, monotonic=lambda: self.now_s, call_soon=self.soon.append)

    def end(self) -> None:
        while self.soon:
            due, self.soon[:] = list(self.soon), []
            for callback in due:
                callback()

    def publish(self, channel: str, *payloads: bytes, accepted_at_s: float | None = None) -> None:
        for payload in payloads:
            local = self.hub.get(channel)
            if local is not None:
                self.fanout.push(local, Publication(data=msgspec.Raw(payload)), accepted_at_s)

    def subscriber(self, *channels: str, variant: Variant = JSON, capacity: float = float("inf")) -> "Reader":
        reader = Reader(self, variant, capacity)
        for name in channels:
            reader.join(name)
        return reader


class Reader:
    """A subscriber that takes *capacity* writes; when dismissed it leaves all its channels, as a session does."""

    def __init__(self, turn: Turn, variant: Variant = JSON, capacity: float = float("inf")) -> None:
        self.turn = turn
        self.variant = variant
        self.capacity = capacity
        self.writes: list[bytes] = []
        self.dismissals: list[Disconnect] = []
        self.channels: list[str] = []

    def offer(self, data: bytes) -> bool:
        assert not self.dismissals, "offered after the dismissal"
        if len(self.writes) >= self.capacity:
            return False
        self.writes.append(data)
        return True

    def tell_gap(self, channel: str) -> None:
        raise AssertionError(channel)

    def dismiss(self, disconnect: Disconnect) -> None:
        self.dismissals.append(disconnect)
        for name in list(self.channels):
            self.leave(name, because=Dropped.DISCONNECTED)

    def join(self, name: str) -> None:
        self.channels.append(name)
        self.turn.hub.join(_channel(name), self, self.variant)

    def leave(self, name: str, *, because: Dropped = Dropped.UNSUBSCRIBED) -> None:
        self.channels.remove(name)
        self.turn.hub.leave(name, self, self.variant, because=because)

    @property
    def frames(self) -> list[list[Any]]:
        """Payloads of publications: one list for each frame."""
        if self.variant is PLAIN:
            return [[payload] for data in self.writes for payload in read_frames(data)]
        lines = [str(payload).split("\n") for data in self.writes for payload in read_frames(data)]
        return [[msgspec.json.decode(line)["push"]["pub"]["data"] for line in frame] for frame in lines]

    @property
    def received(self) -> list[Any]:
        return [payload for frame in self.frames for payload in frame]


def _channel(name: str) -> Channel:
    channel = CHANNELS.resolve(name)
    assert isinstance(channel, Channel)
    return channel


@pytest.fixture
def turn() -> Turn:
    return Turn()


def test_what_one_turn_brings_is_one_write_of_one_frame(turn: Turn) -> None:
    reader = turn.subscriber("a")
    turn.publish("a", b"1", b"2", b"3")
    assert reader.writes == []
    assert turn.fanout.queued == 3
    turn.end()
    assert len(reader.writes) == 1
    assert reader.frames == [[1, 2, 3]]
    assert turn.fanout.queued == 0


def test_all_subscribers_of_a_variant_get_the_same_bytes_object(turn: Turn) -> None:
    readers = [turn.subscriber("a") for _ in range(3)]
    turn.publish("a", b"1")
    turn.end()
    assert len({id(reader.writes[0]) for reader in readers}) == 1


def test_a_frame_holds_at_most_sixteen_messages_and_the_turn_is_still_one_write(turn: Turn) -> None:
    reader = turn.subscriber("a")
    turn.publish("a", *(b"%d" % number for number in range(40)))
    turn.end()
    assert len(reader.writes) == 1
    assert [len(frame) for frame in reader.frames] == [16, 16, 8]
    assert reader.received == list(range(40))


@pytest.mark.parametrize(
    ("sizes", "frames"),
    [
        # '{"push":{"channel":"a","pub":{"data":""}}}' is 42 bytes around the letters; a newline joins two.
        ([32725, 32726], [2]),
        ([32726, 32726], [1, 1]),
        ([100_000, 1, 1], [1, 2]),
        ([1, 100_000, 1], [1, 1, 1]),
    ],
    ids=["exactly 64 KiB", "one byte more", "a giant first", "a giant between"],
)
def test_a_frame_holds_at_most_64_kib_and_a_giant_travels_alone(
    turn: Turn, sizes: list[int], frames: list[int]
) -> None:
    reader = turn.subscriber("a")
    turn.publish("a", *(b'"' + b"x" * size + b'"' for size in sizes))
    turn.end()
    payloads = read_frames(reader.writes[0])
    assert [len(frame) for frame in reader.frames] == frames
    assert all(len(payload) <= 65536 for payload, count in zip(payloads, frames, strict=True) if count > 1)
    assert [len(text) for text in reader.received] == sizes


def test_each_turn_is_a_batch_of_its_own(turn: Turn) -> None:
    reader = turn.subscriber("a")
    for number in range(3):
        turn.publish("a", b"%d" % number)
        turn.end()
    assert reader.frames == [[0], [1], [2]]
    assert len(reader.writes) == 3


def test_a_plain_subscriber_gets_one_message_a_frame_byte_for_byte(turn: Turn) -> None:
    reader = turn.subscriber("any:a", variant=PLAIN)
    turn.publish("any:a", b'{"n": 1.0}', b"\xff\x00", "é".encode())
    turn.end()
    assert len(reader.writes) == 1
    assert read_frames(reader.writes[0]) == ['{"n": 1.0}', b"\xff\x00", "é"]


def test_a_newcomer_never_gets_a_part_of_a_batch(turn: Turn) -> None:
    early = turn.subscriber("a")
    turn.publish("a", b"1", b"2")
    late = turn.subscriber("a")
    turn.publish("a", b"3")
    turn.end()
    assert early.received == [1, 2, 3]
    assert late.received == [3]
    assert turn.counts.ledger("").due == turn.counts.ledger("").delivered == 4


def test_who_left_gets_nothing_of_the_batch(turn: Turn) -> None:
    staying, leaving = turn.subscriber("a"), turn.subscriber("a")
    turn.publish("a", b"1")
    leaving.leave("a")
    turn.end()
    assert staying.received == [1]
    assert leaving.writes == []


@pytest.mark.parametrize("because", Dropped)
def test_who_left_within_a_turn_is_in_the_books_with_its_reason(turn: Turn, because: Dropped) -> None:
    staying, leaving = turn.subscriber("a"), turn.subscriber("a")
    turn.publish("a", b"1", b"2")
    assert turn.fanout.queued_by_namespace() == {"": 4}
    leaving.leave("a", because=because)
    ledger = turn.counts.ledger("")
    assert turn.fanout.queued_by_namespace() == {"": 2}
    assert (ledger.due, ledger.delivered, ledger.dropped) == (2, 0, Counter({because: 2}))
    turn.end()
    assert staying.received == [1, 2]
    assert (ledger.due, ledger.delivered, ledger.dropped) == (4, 2, Counter({because: 2}))


def test_who_left_and_came_back_within_a_turn_starts_after_its_return(turn: Turn) -> None:
    reader = turn.subscriber("a")
    turn.publish("a", b"1")
    reader.leave("a")
    reader.join("a")
    turn.publish("a", b"2")
    turn.end()
    assert reader.received == [2]


def test_what_comes_for_a_channel_without_subscribers_is_not_due(turn: Turn) -> None:
    turn.publish("a", b"1")
    turn.end()
    assert turn.counts.ledgers == {}


def test_a_slow_reader_is_dismissed_and_harms_nobody_else(turn: Turn) -> None:
    first, slow, last = turn.subscriber("a"), turn.subscriber("a", "b", capacity=0), turn.subscriber("a")
    turn.publish("a", b"1", b"2")
    turn.end()
    assert slow.dismissals == [codes.SLOW]
    assert first.received == last.received == [1, 2]
    assert first.dismissals == last.dismissals == []
    ledger = turn.counts.ledger("")
    assert (ledger.due, ledger.delivered, ledger.dropped) == (6, 4, Counter({Dropped.SLOW: 2}))
    assert turn.hub.get("b") is None
    turn.publish("a", b"3")
    turn.end()
    assert first.received == [1, 2, 3]
    assert ledger.due == 8


def test_who_joins_while_the_only_other_subscriber_is_dismissed_as_slow_still_gets_what_follows(turn: Turn) -> None:
    slow = turn.subscriber("a", capacity=0)
    turn.publish("a", b"1")
    newcomer = turn.subscriber("a")
    assert slow.dismissals == [codes.SLOW]
    turn.publish("a", b"2")
    turn.end()
    assert newcomer.received == [2]


def test_what_a_turn_brings_in_several_channels_is_one_write_in_order_of_arrival(turn: Turn) -> None:
    both, one = turn.subscriber("a", "b"), turn.subscriber("b")
    turn.publish("a", b"1")
    turn.publish("b", b"2")
    turn.publish("a", b"3")
    turn.end()
    assert (len(both.writes), sorted(both.received)) == (1, [1, 2, 3])
    assert [number for number in both.received if number != 2] == [1, 3]
    assert one.received == [2]


def test_who_is_slow_in_a_turn_of_several_channels_loses_all_of_it_and_the_books_say_so(turn: Turn) -> None:
    slow, fine = turn.subscriber("a", "any:b", capacity=0), turn.subscriber("a", "any:b")
    turn.publish("a", b"1", b"2")
    turn.publish("any:b", b"3")
    turn.end()
    assert slow.dismissals == [codes.SLOW]
    assert sorted(fine.received) == [1, 2, 3]
    books = {name: (book.due, book.delivered, dict(book.dropped)) for name, book in turn.counts.ledgers.items()}
    assert books == {"": (4, 2, {"slow": 2}), "any": (2, 1, {"slow": 1})}


def test_only_who_is_slow_in_one_variant_is_dismissed(turn: Turn) -> None:
    slow = turn.subscriber("a", capacity=0)
    plain = turn.subscriber("a", variant=PLAIN)
    turn.publish("a", b"1")
    turn.end()
    assert (slow.dismissals, plain.received, plain.dismissals) == ([codes.SLOW], ["1"], [])


def test_json_subscribers_of_an_unchecked_namespace_are_dismissed_by_what_is_no_json(turn: Turn) -> None:
    reader, plain = turn.subscriber("any:a"), turn.subscriber("any:a", variant=PLAIN)
    turn.publish("any:a", b'{"fine":true}')
    turn.end()
    turn.publish("any:a", b"{not json")
    turn.end()
    assert reader.dismissals == [codes.INAPPROPRIATE_PROTOCOL]
    assert reader.received == [{"fine": True}]
    assert plain.received == ['{"fine":true}', "{not json"]
    ledger = turn.counts.ledger("any")
    assert (ledger.due, ledger.delivered, ledger.dropped) == (4, 3, Counter(not_json=1))


def test_who_is_to_be_dismissed_for_what_is_no_json_gets_nothing_that_came_after_it(turn: Turn) -> None:
    reader = turn.subscriber("any:a")
    turn.publish("any:a", b"{not json")
    turn.subscriber("any:a")  # ends the batch ahead of the turn
    turn.publish("any:a", b"1")
    turn.end()
    assert reader.dismissals == [codes.INAPPROPRIATE_PROTOCOL]
    assert reader.received == []


def test_the_latency_of_what_this_node_accepted_is_observed_and_of_nothing_else(turn: Turn) -> None:
    turn.subscriber("a")
    turn.publish("a", b"1", accepted_at_s=0.25)
    turn.publish("a", b"2")
    turn.now_s = 0.75
    turn.end()
    histogram = turn.counts.ledger("").publish_to_write
    assert (sum(histogram.buckets), histogram.total) == (1, 0.5)


def test_out_counters_count_what_was_taken(turn: Turn) -> None:
    readers = [turn.subscriber("a"), turn.subscriber("a"), turn.subscriber("a", capacity=0)]
    turn.publish("a", b"1", b"2")
    turn.end()
    written = sum(len(data) for reader in readers for data in reader.writes)
    assert turn.counts.flows == {"websocket": Flow(publications_out=4, bytes_out=written)}
    assert turn.counts.ledger("").delivered_bytes == written


def test_how_long_writing_took_is_observed_once_for_each_turn(turn: Turn) -> None:
    clock = iter([1.0, 1.5, 2.0, 2.25])
    fanout = Fanout(turn.hub, turn.counts, monotonic=lambda: next(clock), call_soon=turn.soon.append)
    turn.subscriber("a", "b")
    for _ in range(2):
        for name in ("a", "b"):
            local = turn.hub.get(name)
            assert local is not None
            fanout.push(local, Publication(data=msgspec.Raw(b"1")), None)
        turn.end()
    histogram = turn.counts.fanout
    assert (sum(histogram.buckets), histogram.total) == (2, 0.75)


def test_a_flush_of_nothing_is_no_turn(turn: Turn) -> None:
    turn.subscriber("a")
    turn.publish("a", b"1")
    turn.fanout.flush()  # ahead of the turn's end, as before a goodbye
    turn.fanout.flush()
    turn.end()
    assert sum(turn.counts.fanout.buckets) == 1


_NAMES = st.sampled_from(["a", "any:c"])
_STEPS = st.one_of(
    st.tuples(st.just("open"), st.integers(0, 3), _NAMES),
    st.tuples(st.just("join"), st.integers(0, 5), _NAMES),
    st.tuples(st.just("leave"), st.integers(0, 5), _NAMES),
    st.tuples(st.just("publish"), st.integers(1, 3), _NAMES),
    st.tuples(st.just("spoil"), st.just(1), st.just("any:c")),
    st.tuples(st.just("end"), st.just(0), st.just("")),
)
# Two who can take little are there from the start, so that overflows are common.
_FIRST = st.lists(st.tuples(st.just("open"), st.integers(0, 1), _NAMES), max_size=2)
_READERS: list[tuple[Variant, int]] = [(JSON, 0), (PLAIN, 1), (JSON, 99), (PLAIN, 99)]


class _Model:
    """A turn, and what each reader should get of each channel: all that comes between its join and its leave."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.wanted: dict[Reader, dict[str, list[str]]] = {}
        self.due: Counter[str] = Counter()
        self._numbers = itertools.count()

    def open(self, kind: int, name: str) -> None:
        variant, capacity = _READERS[kind]
        reader = self.turn.subscriber(name, variant=variant, capacity=capacity)
        self.wanted[reader] = {}

    def join(self, index: int, name: str) -> None:
        reader = self._living(index)
        if reader is not None and name not in reader.channels:
            reader.join(name)

    def leave(self, index: int, name: str) -> None:
        reader = self._living(index)
        if reader is not None and name in reader.channels:
            local = self.turn.hub.get(name)
            waiting = len(local.pending) if local else 0
            if waiting:  # the batch that waits is lost to who leaves
                del self.wanted[reader][name][-waiting:]
            reader.leave(name)

    def publish(self, count: int, name: str, template: str = "%d") -> None:
        texts = [template % next(self._numbers) for _ in range(count)]
        for reader, parts in self.wanted.items():
            if name in reader.channels:
                parts.setdefault(name, []).extend(texts)
                self.due[name.partition(":")[0] if ":" in name else ""] += count
        self.turn.publish(name, *(text.encode() for text in texts))

    def spoil(self, count: int, name: str) -> None:
        self.publish(count, name, "{%d")

    def end(self, _count: int, _name: str) -> None:
        self.turn.end()

    def _living(self, index: int) -> Reader | None:
        living = [reader for reader in self.wanted if not reader.dismissals]
        return living[index % len(living)] if living else None


@example([("open", 0, "a"), ("publish", 1, "a"), ("open", 2, "a"), ("publish", 1, "a")])
@given(st.builds(operator.add, _FIRST, st.lists(_STEPS, max_size=50)))
@settings(max_examples=300, deadline=None)
def test_the_ledger_adds_up_and_each_gets_exactly_what_came_while_it_was_subscribed(
    steps: list[tuple[str, int, str]],
) -> None:
    model = _Model()
    for what, count, name in [*steps, ("end", 0, "")]:
        getattr(model, what)(count, name)
        queued = model.turn.fanout.queued_by_namespace()
        for namespace, book in model.turn.counts.ledgers.items():
            assert book.due == book.delivered + book.filtered + sum(book.dropped.values())
            assert book.due + queued.get(namespace, 0) == model.due[namespace]
    assert model.turn.fanout.queued == 0
    for reader, parts in model.wanted.items():
        got = [str(each) for each in reader.received]
        for part in parts.values():
            # In order; everybody got all of it, and who was dismissed as slow a beginning.
            of_part = [text for text in got if text in part]
            assert of_part == [text for text in part if text in got]
            assert of_part == (part[: len(of_part)] if codes.SLOW in reader.dismissals else of_part)
            assert of_part == (of_part if reader.dismissals else part)
        assert len(got) <= sum(len(part) for part in parts.values())
        assert set(reader.dismissals) <= {codes.SLOW, codes.INAPPROPRIATE_PROTOCOL}
        assert not reader.dismissals or reader.capacity < 99 or reader.variant is JSON
