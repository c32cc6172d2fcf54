from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st
from msgspec import Raw

from gateway.broker.redis.envelope import (
    JOIN,
    LEAVE,
    MEASURED,
    PLAIN,
    STREAM,
    Envelope,
    EnvelopeError,
    decode_entry,
    decode_info,
    encode_info,
)
from gateway.protocol.messages import ClientInfo, Join, Leave, Publication

texts = st.text(max_size=20)
payloads = st.binary(max_size=40).map(Raw)
infos = st.builds(ClientInfo, texts, texts, payloads, payloads)
publications = st.builds(
    Publication,
    data=payloads,
    info=st.none() | infos,
    tags=st.dictionaries(texts, texts, max_size=3),
    version=st.integers(0, 2**63 - 1),
)
offsets = st.integers(1, 2**53)
epochs = st.text("abcXYZ", min_size=8, max_size=8)
ours, theirs = Envelope("our node"), Envelope("their node")


def told(publication: Publication) -> tuple[Any, ...]:
    """Raw compares by identity of its message, so whole publications are compared by what they hold."""
    info = publication.info
    known = None if info is None else (info.user, info.client, bytes(info.conn_info), bytes(info.chan_info))
    data, tags = bytes(publication.data), publication.tags
    return data, known, publication.offset, tags, publication.epoch, publication.version


@hypothesis.given(publication=publications, at_s=st.floats(0, 1e9))
def test_a_publication_outside_a_stream_arrives_as_it_was_sent(publication: Publication, at_s: float) -> None:
    message = PLAIN + ours.encode(publication, at_s)
    received, epoch, accepted_at_s = ours.decode(message)
    assert isinstance(received, Publication)
    assert (told(received), epoch, accepted_at_s) == (told(publication), "", at_s)
    assert theirs.decode(message)[2] is None, "another node's clock says nothing here"


@hypothesis.given(publication=publications, offset=offsets, epoch=epochs)
def test_a_publication_of_a_stream_arrives_with_its_place(publication: Publication, offset: int, epoch: str) -> None:
    body = theirs.encode(publication, 1.0)
    received, in_epoch, accepted_at_s = ours.decode(STREAM + b"%d:%b:" % (offset, epoch.encode()) + body)
    first_tells = epoch if offset == 1 else ""
    expected = told(msgspec.structs.replace(publication, offset=offset, epoch=first_tells))
    assert isinstance(received, Publication)
    assert (told(received), in_epoch, accepted_at_s) == (expected, epoch, None)
    assert told(decode_entry(b"%d-0" % offset, body, epoch)) == expected, "and is kept so"


@hypothesis.given(info=infos)
def test_joins_and_leaves_arrive(info: ClientInfo) -> None:
    body = encode_info(info)
    assert ours.decode(JOIN + body) == (Join(info), "", None)
    assert ours.decode(LEAVE + body) == (Leave(info), "", None)
    assert decode_info(body) == info


@hypothesis.given(data=st.binary(max_size=60), kind=st.sampled_from([b"", b"p", b"s", b"j", b"l", b"s1:a:", b"s0:a:"]))
@hypothesis.example(data=b"", kind=b"")
@hypothesis.example(data=b"\x93\xc4\x00\xa1n\xcb" + bytes(8), kind=b"s-1:e:")
@hypothesis.example(data=b"\x93\xc4\x00\xa1n\xcb" + bytes(8), kind=b"s1:\xff:")
@hypothesis.example(data=b"\x91" * 100_000, kind=b"p")
def test_whatever_comes_is_read_or_refused(data: bytes, kind: bytes) -> None:
    try:
        content, epoch, _ = ours.decode(kind + data)
    except EnvelopeError:
        return
    assert isinstance(content, Publication | Join | Leave)
    assert (epoch != "") == (kind + data).startswith(b"s")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"p",
        b"hello",
        b'{"json": 1}',
        b"s",
        b"s1:",
        b"s1:epoch:",
        b"sx:epoch:\x93",
        b"j",
        b"l\x90",
        b"p\x92\xc4\x00\xa0",
    ],
)
def test_foreign_bytes_are_refused(message: bytes) -> None:
    with pytest.raises(EnvelopeError):
        ours.decode(message)


@pytest.mark.parametrize(
    ("entry_id", "body"), [(b"1-0", b"x"), (b"x-0", ours.encode(Publication(), 0.0)), (b"1-0", b"")]
)
def test_a_foreign_entry_is_refused(entry_id: bytes, body: bytes) -> None:
    with pytest.raises(EnvelopeError):
        decode_entry(entry_id, body, "epoch")


ENVELOPED = ours.encode(Publication(data=Raw(b'{"n":1}')), 2.5)


@pytest.mark.parametrize(
    ("statistics", "figures"),
    [
        (b"1", b'{"count":1}'),
        (
            b"3,0.10000000000000001,-0,-1e+300,5.0000000000000001e-324",
            b'{"count":3,"mean":0.1,"std":-0.0,"min":-1e300,"max":5e-324}',
        ),
    ],
)
@pytest.mark.parametrize(("place", "offset", "epoch"), [(b"0:", 0, ""), (b"7:abcdefgh", 7, "abcdefgh")])
def test_statistics_are_put_into_the_publication(
    statistics: bytes, figures: bytes, place: bytes, offset: int, epoch: str
) -> None:
    received, in_epoch, accepted_at_s = ours.decode(MEASURED + place + b":" + statistics + b":" + ENVELOPED)
    expected = b'{"n":1,"statistics":%b}' % figures
    assert isinstance(received, Publication)
    assert (told(received), in_epoch, accepted_at_s) == ((expected, None, offset, {}, "", 0), epoch, 2.5)
    assert theirs.decode(MEASURED + place + b":" + statistics + b":" + ENVELOPED)[2] is None
    entry = decode_entry(b"7-0", ENVELOPED, "abcdefgh", statistics)
    assert told(entry) == (expected, None, 7, {}, "", 0)


@pytest.mark.parametrize(
    "message",
    [
        b"t",
        b"t0::1",
        b"t0::1:",
        b"t0:::" + ENVELOPED,
        b"t0::x:" + ENVELOPED,
        b"t0::1,2:" + ENVELOPED,
        b"t0::1,2,3,4,x:" + ENVELOPED,
        b"t-1:abcdefgh:1:" + ENVELOPED,
        b"t1::1:" + ENVELOPED,
        b"t0:abcdefgh:1:" + ENVELOPED,
        b"t1:\xff:1:" + ENVELOPED,
    ],
)
def test_foreign_statistics_are_refused(message: bytes) -> None:
    with pytest.raises(EnvelopeError):
        ours.decode(message)


@pytest.mark.parametrize("body", [b"", b"x", b"\x90", b"\x94\xc0\xc0\xc0\xc0"])
def test_a_foreign_info_is_refused(body: bytes) -> None:
    with pytest.raises(EnvelopeError):
        decode_info(body)


def test_text_that_is_no_unicode_is_refused() -> None:
    for publication in (Publication(tags={"\ud800": ""}), Publication(info=ClientInfo("\ud800", ""))):
        with pytest.raises(EnvelopeError, match="no Unicode"):
            ours.encode(publication, 0.0)
    with pytest.raises(EnvelopeError, match="no Unicode"):
        encode_info(ClientInfo("\ud800", ""))


def test_what_a_later_version_adds_is_left_out() -> None:
    fields = msgspec.msgpack.decode(ours.encode(Publication(data=Raw(b"1")), 2.5))
    received, _, accepted_at_s = ours.decode(PLAIN + msgspec.msgpack.encode([*fields, "more", {"and": "more"}]))
    assert isinstance(received, Publication)
    assert (told(received), accepted_at_s) == (told(Publication(data=Raw(b"1"))), 2.5)
