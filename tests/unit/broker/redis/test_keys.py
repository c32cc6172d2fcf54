import hypothesis
import pytest
from hypothesis import strategies as st
from redis.crc import key_slot

from gateway.broker.redis.keys import BUCKETS, Keys

# Any text, braces, blanks, NUL and lone surrogates included.
texts = st.text(st.characters(), max_size=60) | st.sampled_from(["", "}x{", "{a}", "{}", "a b", "\0", "é" * 127, "a:b"])
keys = Keys("gateway")


def names_of(channel: str, idempotency_key: str = "k") -> list[bytes]:
    of = keys.of(channel)
    return [of.name, of.stream, of.meta, of.presence, of.clients, of.users, of.result(idempotency_key)]


@hypothesis.given(channel=texts, key=texts)
def test_all_of_a_channel_is_in_one_slot_and_its_bucket_is_one_of_a_few(channel: str, key: str) -> None:
    names = names_of(channel, key)
    tags = {name.partition(b"{")[2].partition(b"}")[0] for name in names}
    assert len(tags) == 1
    assert 0 <= int(tags.pop()) < BUCKETS
    assert len({key_slot(name) for name in names}) == 1


@hypothesis.given(channel=texts)
def test_a_name_tells_its_channel(channel: str) -> None:
    assert keys.channel_of(keys.of(channel).name) == channel


@pytest.mark.parametrize("name", [b"", b"other:{1}:a", b"gateway:a", b"gateway2:{1}:a", b"gateway:control"])
def test_a_name_of_somebody_else_tells_no_channel(name: bytes) -> None:
    assert keys.channel_of(name) is None


@hypothesis.given(first=st.tuples(texts, texts), second=st.tuples(texts, texts))
@hypothesis.example(first=("a:b", "c"), second=("a", "b:c"))
@hypothesis.example(first=("1:a", ""), second=("", "1:a"))
def test_what_differs_is_kept_apart(first: tuple[str, str], second: tuple[str, str]) -> None:
    hypothesis.assume(first != second)
    one, other = keys.of(first[0]).result(first[1]), keys.of(second[0]).result(second[1])
    assert one != other
    if first[0] != second[0]:
        assert not set(names_of(first[0])) & set(names_of(second[0]))


def test_the_layout_is_the_documented_one() -> None:
    # The last byte of the channel's CRC-32; a change would lose every stream at an upgrade.
    head = b"gateway:{128}:"
    text = "chat:é".encode()
    marks = [b"", b"s:", b"m:", b"p:", b"c:", b"u:"]
    assert names_of("chat:é") == [*(head + mark + text for mark in marks), head + b"i:7:" + text + b":k"]
    assert keys.control == b"gateway:control"
    assert keys.control_of("n1") == b"gateway:control:n1"


@hypothesis.given(channel=texts, kind=st.sampled_from([b"p", b"j"]), body=st.binary(max_size=50))
def test_a_publish_is_packed_as_redis_reads_it(channel: str, kind: bytes, body: bytes) -> None:
    name = keys.of(channel).name
    packed = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(kind + body), kind + body)
    assert keys.of(channel).pack_publish(kind, body) == packed
