"""A short run of the fuzzer; `make fuzz` makes a long one."""

from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.protobuf_codec import ProtobufCodec
from tests.fuzz.codecs import JSON_SEEDS, PROTOBUF_SEEDS, fuzz


def test_frames_that_are_nearly_right_are_read_or_refused() -> None:
    assert 0 < fuzz(6000, seed=7) < 6000


def test_what_the_fuzzer_starts_from_is_right() -> None:
    assert [len(JSONCodec().decode(seed)) for seed in JSON_SEEDS] == [1, 2, 3]
    assert [len(ProtobufCodec().decode(seed)) for seed in PROTOBUF_SEEDS] == [1, 2, 3]
