import msgspec
import pytest

from loadtest.stamps import Stamp, decode, encode, now_us


def test_a_stamp_is_read_again_and_the_payload_has_the_size_that_was_asked_for() -> None:
    stamp = Stamp(2**31 - 1, 12, 345, now_us())
    payload = encode(stamp, size_bytes=100)
    assert len(payload) == 100
    assert decode(payload) == stamp
    assert msgspec.json.decode(payload).keys() == {"r", "p", "n", "t", "x"}


def test_a_payload_is_never_too_small_for_its_stamp() -> None:
    assert decode(encode(Stamp(1, 2, 3, 4), size_bytes=1)) == Stamp(1, 2, 3, 4)


def test_fields_that_a_processor_adds_do_no_harm() -> None:
    assert decode(b'{"r":1,"p":2,"n":3,"t":4,"x":"","server_time":1.5}') == Stamp(1, 2, 3, 4)


@pytest.mark.parametrize("payload", [b"", b"1", b'{"r":1}', b'{"r":1,"p":2,"n":3,"t":"4"}', b"\xff"])
def test_what_has_no_stamp_is_told(payload: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        decode(payload)
