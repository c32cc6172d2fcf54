"""Joining loses nothing and stays within its limits; frames are what another library reads."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from gateway.protocol.framing import MAX_JOINED_BYTES, MAX_JOINED_MESSAGES, DeflateFraming, WebSocketFraming, batches

SIZES = st.one_of(
    st.integers(0, 40),
    st.sampled_from([4095, 4096, 8192, 21845, 32767, 32768, 65534, 65535, 65536, 65537]),
    st.integers(0, 70_000),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(SIZES, max_size=60))
def test_joining_keeps_order_loses_nothing_and_uses_no_more_frames_than_it_must(sizes: list[int]) -> None:
    messages = [b"x" * size for size in sizes]
    runs = [list(run) for run in batches(messages)]
    assert [message for run in runs for message in run] == messages
    for run in runs:
        assert 1 <= len(run) <= MAX_JOINED_MESSAGES
        assert len(run) == 1 or len(b"\n".join(run)) <= MAX_JOINED_BYTES
    for run, following in pairwise(runs):
        assert len(run) == MAX_JOINED_MESSAGES or len(b"\n".join([*run, following[0]])) > MAX_JOINED_BYTES


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from([0, 100, 65_400]))
def test_a_frame_is_the_one_that_another_library_builds(payload: bytes, padding: int) -> None:
    payload += bytes(padding)
    assert WebSocketFraming().frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


@settings(deadline=None)
@given(st.binary(max_size=2000), st.integers(1, 60), st.integers(9, 15))
def test_what_was_compressed_is_what_another_library_unpacks(piece: bytes, repeats: int, window_bits: int) -> None:
    payload = piece * repeats
    framed = DeflateFraming(window_bits=window_bits, min_bytes=0).frame(payload)
    header = 2 if framed[1] < 126 else 4 if framed[1] == 126 else 10
    decoder = PerMessageDeflate(True, True, window_bits, 15)  # noqa: FBT003
    frame = decoder.decode(Frame(Opcode.TEXT, framed[header:], rsv1=bool(framed[0] & 0x40)))
    assert bytes(frame.data) == payload
