"""Patches, filters and both together: what subscribers put together of what they got is what was published."""

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.domain.channels import Channel, Channels, ChannelSettings, Namespace
from gateway.domain.counts import Counts, Dropped
from gateway.domain.hub import Hub
from gateway.domain.tags import FilteredVariant, TagsFilter
from gateway.messaging.fanout import Fanout
from gateway.protocol.client_codec import ClientJSONCodec, ReceivedPublication
from gateway.protocol.client_protobuf_codec import ClientProtobufCodec
from gateway.protocol.fossil import patch, patched, text_patch
from gateway.protocol.framing import BINARY, TEXT, WebSocketFraming
from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.messages import FilterNode, PatchablePublication, Publication
from gateway.protocol.protobuf_codec import ProtobufCodec
from gateway.protocol.variants import ProtocolVariant, Variant
from tests.support.conversations import read_frames

PIECES = st.sampled_from(["temperature", "é漢😀", " " * 30, "x" * 50, '"quoted" \\ \n', "0123456789" * 4, "ä"])
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=12).map("".join).map(str.encode)
BYTES = TEXTS | st.binary(max_size=200)


@given(BYTES, BYTES)
@settings(deadline=None, max_examples=500)
def test_a_patch_makes_the_target_of_the_source(source: bytes, target: bytes) -> None:
    made = patch(source, target)
    if made is not None:
        assert len(made) < len(target)
        assert patched(source, made) == target


@given(TEXTS, TEXTS)
@settings(deadline=None, max_examples=500)
def test_a_text_patch_is_text(source: bytes, target: bytes) -> None:
    made = text_patch(source, target)
    if made is not None:
        assert len(made.decode().encode()) < len(target)
        assert patched(source, made) == target


CHANNELS = Channels(ChannelSettings(namespaces=[Namespace(name="patched")]))
_JSON = ProtocolVariant("json", JSONCodec(), WebSocketFraming(TEXT), needs_json=True)
_PROTOBUF = ProtocolVariant("protobuf", ProtobufCodec(), WebSocketFraming(BINARY), needs_json=False)
_CLIENT, _JSON_CLIENT = ClientProtobufCodec(), ClientJSONCodec()
TAGS = ("1", "2", "3")


class Reader:
    """A subscriber that puts together what it gets, as SDKs do."""

    def __init__(self, variant: ProtocolVariant, wanted: str | None) -> None:
        self.protocol = variant
        self.wanted = wanted
        self.variant: Variant = variant
        if wanted is not None:
            self.variant = FilteredVariant(variant, TagsFilter(FilterNode(key="k", cmp="eq", val=wanted), limit=1))
        self.value = b""
        self.got: list[bytes] = []
        self.expected: list[bytes] = []
        self.messages_before = 0

    def offer(self, data: bytes) -> bool:
        for frame in read_frames(data):
            for place, publication in self._publications(frame):
                assert place == (self.number if self.protocol.is_numbered else "patched:a")
                payload = bytes(publication.data)
                if self.protocol.is_patched and self.protocol.needs_json:
                    payload = json.loads(payload).encode()
                self.value = patched(self.value, payload) if publication.delta else payload
                self.got.append(self.value)
        return True

    number = 0

    def _publications(self, frame: str | bytes) -> Iterator[tuple[str | int, ReceivedPublication]]:
        """Return what a frame brings, and where to; of a number that JSON names a channel by, the number."""
        lines: Iterable[bytes] = itertools.repeat(b"")
        if isinstance(frame, str):
            lines, found = frame.encode().split(b"\n"), _JSON_CLIENT.decode(frame.encode())
        else:
            found = _CLIENT.decode(frame)
        for line, message in zip(lines, found, strict=False):
            assert message.push is not None
            assert message.push.pub is not None
            number = json.loads(line)["push"].get("id", 0) if line else self.number
            yield message.push.channel or number, message.push.pub

    def dismiss(self, disconnect: object) -> None:
        raise AssertionError(disconnect)

    def tell_gap(self, channel: str) -> None:
        raise AssertionError(channel)


class Subscribers(RuleBasedStateMachine):
    """A channel whose subscribers come and go between publications and ends of turns."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()
        self.hub = Hub(ledger=self.counts.ledger)
        self.soon: list[Any] = []
        self.fanout = Fanout(self.hub, self.counts, monotonic=lambda: 0.0, call_soon=self.soon.append)
        found = CHANNELS.resolve("patched:a")
        assert isinstance(found, Channel)
        self.channel = found
        self.readers: list[Reader] = []
        self.gone: list[Reader] = []
        self.published = 0
        self.last: Publication | None = None

    @rule(
        base=st.sampled_from([_JSON, _PROTOBUF]),
        is_numbered=st.booleans(),
        is_patched=st.sampled_from([True, True, False]),
        wanted=st.sampled_from([None, None, *TAGS]),
        has_last=st.booleans(),
    )
    def join(
        self, *, base: ProtocolVariant, is_numbered: bool, is_patched: bool, wanted: str | None, has_last: bool
    ) -> None:
        reader = Reader(base.agreed(is_patched=is_patched, is_numbered=is_numbered), wanted)
        recovered = self.last if has_last and is_patched else None
        if recovered is not None:
            self.end_turn()
            reader.value = bytes(recovered.data)
        before = self.hub.join(self.channel, reader, reader.variant, recovered)
        reader.messages_before = before.messages
        local = self.hub.get("patched:a")
        assert local is not None
        reader.number = local.number
        self.readers.append(reader)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.readers:
            reader = self.readers.pop(data.draw(st.integers(0, len(self.readers) - 1)))
            sent = self.hub.leave("patched:a", reader, reader.variant, because=Dropped.UNSUBSCRIBED)
            assert sent.messages - reader.messages_before == len(reader.got)
            self.gone.append(reader)

    @rule(text=TEXTS, tag=st.sampled_from(TAGS), may_be_patched=st.sampled_from([True, True, False]))
    def publish(self, *, text: bytes, tag: str, may_be_patched: bool) -> None:
        # JSON subscribers get valid JSON alone, as the data format of their namespace has it.
        payload = json.dumps({"text": text.decode(), "n": self.published}, ensure_ascii=False).encode()
        make = PatchablePublication if may_be_patched else Publication
        self.published += 1
        self.last = make(data=msgspec.Raw(payload), tags={"k": tag}, offset=self.published)
        for reader in self.readers:
            if reader.wanted in (None, tag):
                reader.expected.append(payload)
        local = self.hub.get("patched:a")
        if local is not None:
            self.fanout.push(local, self.last, None)

    @rule()
    def end_turn(self) -> None:
        while self.soon:
            self.soon.pop(0)()
        for reader in self.readers:
            assert reader.got == reader.expected
        book = self.counts.ledger("patched")
        assert book.due == book.delivered + book.filtered + sum(book.dropped.values())

    @invariant()
    def who_is_here_is_counted(self) -> None:
        local = self.hub.get("patched:a")
        assert (0 if local is None else local.count_clients()) == len(self.readers)
        assert {*(local.subscribers() if local else [])} == set(self.readers)

    def teardown(self) -> None:
        self.end_turn()


Subscribers.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSubscribers = Subscribers.TestCase
