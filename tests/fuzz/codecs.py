"""Feed both codecs frames that are nearly right: `python tests/fuzz/codecs.py COUNT [SEED]`.

Whatever comes, a codec answers with commands or `MalformedFrameError`, within a bound of time. What the fast way of
Protobuf's publish reads must be what the general way reads.
"""

import random
import sys
import time
from typing import Final

from gateway.protocol.codec import Codec, MalformedFrameError
from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.protobuf_codec import ProtobufCodec

PATIENCE_S: Final = 0.5
"""Of CPU. Frames here are below a kilobyte, which takes microseconds."""
JSON_SEEDS: Final = [
    b'{"id":1,"connect":{"token":"t","subs":{"a":{"recover":true,"offset":3,"epoch":"e"}},"headers":{"h":"v"}}}',
    b'{"id":2,"publish":{"channel":"c","data":{"a":[1,2.50,"\\ud83d\\ude00",null]}}}\n{"id":3,"history":{"limit":-1}}',
    '{}\n{}\n{"send":{"data":"κόσμε"}}'.encode(),
]
PROTOBUF_SEEDS: Final = [
    b"\x21\x08\x01\x22\x1d\x0a\x01t\x1a\x0e\x0a\x01a\x12\x09\x18\x01\x32\x01e\x38\x03\x70\x02\x32\x06\x0a\x01h\x12\x01v\x38\x02",
    b"\x0d\x08\x01\x3a\x09\x0a\x01c\x12\x04\xff\x00{}\x00",
    b"\x14\x08\x03\x52\x10\x0a\x01c\x38\xff\xff\xff\xff\x0f\x42\x05\x08\x05\x12\x01e\x00\x00",
]
TELLING: Final = b'\x00\x01\x7f\x80\xff\x08\x0a\x12\x22\x3a{}[]"\\\n,:'


def mutated(seed: bytes, dice: random.Random) -> bytes:
    """Change, cut, double or put in some bytes."""
    frame = bytearray(seed)
    for _ in range(dice.randint(0, 4)):
        at = dice.randint(0, len(frame))
        byte = dice.choice(TELLING) if dice.random() < 0.5 else dice.randrange(256)
        match dice.randrange(5):
            case 0:
                frame[at : at + 1] = bytes((byte,))
            case 1:
                frame.insert(at, byte)
            case 2:
                del frame[at : at + dice.randint(1, 4)]
            case 3:
                frame[at:at] = frame[at : at + dice.randint(1, 16)]
            case _:
                frame[at:at] = bytes((byte,)) * dice.randint(1, 16)
    return bytes(frame)


def decoded(codec: Codec, frame: bytes) -> object:
    began_s = time.process_time()
    try:
        commands = codec.decode(frame)
    except MalformedFrameError:
        return None
    finally:
        assert time.process_time() - began_s < PATIENCE_S, (codec.name, frame)
    return commands


def fuzz(count: int, *, seed: int) -> int:
    """Decode *count* frames, half of each encoding, and return how many were accepted."""
    dice = random.Random(seed)
    json, protobuf = JSONCodec(), ProtobufCodec()
    accepted = 0
    for number in range(count):
        if number % 2:
            frame = mutated(dice.choice(JSON_SEEDS), dice)
            accepted += decoded(json, frame) is not None
            continue
        frame = mutated(dice.choice(PROTOBUF_SEEDS), dice)
        commands = decoded(protobuf, frame)
        accepted += commands is not None
        # With a pong before it, the frame takes the general way.
        general = decoded(protobuf, b"\x00" + frame) if frame else None
        assert commands == (general[1:] if isinstance(general, list) else None), frame
    return accepted


if __name__ == "__main__":
    frames, start = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    taken = fuzz(frames, seed=start)
    sys.stdout.write(f"{frames} frames from seed {start}: {taken} read, {frames - taken} refused, none broke a codec\n")
