"""Fossil's patches: what they say, what they cost in bytes, and what is refused."""

import struct

import pytest

from gateway.protocol.fossil import PatchError, checksum, patch, patched, text_patch

STATE = b"".join(b'"sensor-%d": {"value": %d.25, "unit": "C"}, ' % (number, number * 7) for number in range(60))


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (STATE, STATE, b"em\nem@0,"),
        (STATE, STATE[:1000] + b"<new>" + STATE[1000:], b"Fd@0,5:<new>"),
        (STATE, STATE[:1000] + STATE[1100:], b"Fd@0,"),
        (STATE, STATE + b"<new>", b"5:<new>"),
        (STATE, b"<new>" + STATE, b"5:<new>"),
        (STATE, STATE[1500:] + STATE[:1500], b"NS@0,"),
        (STATE, STATE[:500] + b"1" + STATE[501:1500] + b"2" + STATE[1501:], b"7p@0,1:1"),
    ],
    ids=["unchanged", "inserted", "deleted", "appended", "put before", "moved", "changed in two places"],
)
def test_what_both_have_is_told_by_its_place(source: bytes, target: bytes, expected: bytes) -> None:
    made = patch(source, target)
    assert made is not None
    assert expected in made
    assert len(made) < len(target) / 20
    assert patched(source, made) == target


@pytest.mark.parametrize(
    ("source", "target"),
    [(b"", b""), (b"", STATE), (b"abc", b"abd"), (STATE, b"x" * 500), (STATE, b'{"a": 1}')],
)
def test_a_patch_that_is_not_shorter_is_none(source: bytes, target: bytes) -> None:
    assert patch(source, target) is None
    assert text_patch(source, target) is None


@pytest.mark.parametrize("cut", range(8))
def test_no_character_is_cut_in_a_text(cut: int) -> None:
    before, after = "ä漢😀 " * 20 + "x" * cut + "é" + "y" * 60, "ä漢😀 " * 20 + "x" * cut + "è" + "y" * 60
    made = text_patch(before.encode(), after.encode())
    assert made is not None
    assert "è" in made.decode()
    assert patched(before.encode(), made) == after.encode()


def test_bytes_may_be_cut_anywhere() -> None:
    before, after = ("x" * 40 + "é" + "y" * 40).encode(), ("x" * 40 + "è" + "y" * 40).encode()
    made = patch(before, after)
    assert made is not None
    with pytest.raises(UnicodeDecodeError):
        made.decode()
    assert patched(before, made) == after


@pytest.mark.parametrize("target", [b"", b"a", b"abcd", b"abcde", STATE, b"\xff" * 4096])
def test_the_checksum_is_the_sum_of_its_words(target: bytes) -> None:
    padded = target + bytes(-len(target) % 4)
    assert checksum(target) == sum(word for (word,) in struct.iter_unpack(">I", padded)) % 2**32


GOOD = patch(STATE, STATE[:1000] + b"<new>" + STATE[1000:]) or b""


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\n",
        b"3",
        b"3\n",
        b"3\n3:abc",
        b"3\n3:abc;",
        b"3\n3:abcX;",
        b"3\n4:abcd0;",
        b"3\n3:ab",
        b"3\n3@0",
        b"3\n3@~~~,0;",
        b"3\n3$0,0;",
        b"zzzzzzzzzzzzzzzz\n0;",
        b"~~~~~~~\n0;",
        GOOD[:-1],
        GOOD + b"x",
        GOOD.replace(b"<new>", b"<now>"),
    ],
)
def test_what_is_no_patch_of_this_source_is_refused(bad: bytes) -> None:
    with pytest.raises(PatchError):
        patched(STATE, bad)


def test_a_patch_of_another_source_is_refused() -> None:
    with pytest.raises(PatchError, match="not a patch of this source"):
        patched(STATE.replace(b"C", b"F"), GOOD)


def test_what_is_made_of_a_patch_is_bounded() -> None:
    bomb = b"~~~\n" + b"~@0," * 4096 + b"0;"
    with pytest.raises(PatchError, match="more than 1000"):
        patched(STATE, bomb, max_size=1000)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (STATE * 30, bytes(range(256)) * 256),
        (b"a" * 65536, b"b".join(b"a" * 17 for _ in range(3640))),
        (STATE * 30, b"!".join(STATE[at : at + 17] for at in range(0, len(STATE) - 17, 16)) * 30),
        (b"ab" * 32768, b"ba" * 32768),
    ],
    ids=["unlike", "all blocks alike", "a piece every 17 bytes", "periodic"],
)
def test_hostile_pairs_take_few_instructions_and_are_right(source: bytes, target: bytes) -> None:
    lines = 0

    def count(*_: object) -> None:
        nonlocal lines
        lines += 1

    import sys  # noqa: PLC0415 - only here, to count what is carried out

    def trace(_frame: object, event: str, _arg: object) -> object:
        if event == "line":
            count()
        return trace

    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        made = patch(source, target)
    finally:
        sys.settrace(None)
    assert lines < 60_000
    assert made is None or patched(source, made) == target
