import io
import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gateway import arrays
from gateway.arrays import Array, ArrayError, decode_array, encode_array

NUMBERS = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(endianness="?"),
    npst.unsigned_integer_dtypes(endianness="?"),
    npst.floating_dtypes(endianness="?"),
    npst.complex_number_dtypes(endianness="?"),
)
ARRAYS = npst.arrays(NUMBERS, npst.array_shapes(min_dims=0, min_side=0, max_dims=4, max_side=5))
GOOD = encode_array(np.arange(6.0).reshape(2, 3))


def saved(array: Any, *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def described(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + data


def same(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


@given(array=ARRAYS, form=st.sampled_from(["C", "F", "reversed", "every second"]))
def test_what_is_written_is_what_numpy_writes_and_is_read_back(array: Array, form: str) -> None:
    match form:
        case "F":
            array = np.asfortranarray(array)
        case "reversed" if array.ndim:
            array = array[::-1]
        case "every second" if array.ndim:
            array = array[..., ::2]
    data = encode_array(array)
    assert data == saved(array)
    assert same(decode_array(data), array)
    assert same(np.load(io.BytesIO(data), allow_pickle=False), array)


def test_what_is_read_is_a_view_that_can_not_be_written_to() -> None:
    array = decode_array(GOOD)
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1.0
    assert array.base is not None


def test_a_header_of_version_2_is_read() -> None:
    data = described("{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }", b"\1\0\0\0\2\0\0\0", (2, 0))
    assert decode_array(data).tolist() == [1, 2]


class Bomb:
    """Makes itself known when it is unpickled."""

    has_gone_off = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Bomb, "has_gone_off", True)


REFUSED: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "does not begin like one"),
    ("text", b'{"a": 1}', "does not begin like one"),
    ("the magic alone", b"\x93NUMPY", "does not begin like one"),
    ("a pickle", pickle.dumps(Bomb()), "does not begin like one"),
    ("an npz", b"PK\x03\x04" + bytes(100), "does not begin like one"),
    ("an object array", saved(np.array([Bomb(), 1], dtype=object), allow_pickle=True), "an array of object"),
    (
        "an object array without data",
        described("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"),
        "of object",
    ),
    ("texts", saved(np.array(["a", "b"])), "an array of <U1"),
    ("bytes", saved(np.array([b"a"])), "an array of |S1"),
    ("times", saved(np.array(["2026-01-01"], dtype="M8[D]")), "an array of datetime64"),
    ("records", saved(np.zeros(2, dtype=[("a", "<f8"), ("b", "<i4")])), "where only"),
    (
        "nested types",
        described("{'descr': ('<f8', (3,)), 'fortran_order': False, 'shape': (1,), }", bytes(24)),
        "where",
    ),
    ("version 3", b"\x93NUMPY\x03\x00" + GOOD[8:], "version 3.0"),
    ("version 9", b"\x93NUMPY\x09\x09" + GOOD[8:], "version 9.9"),
    ("a header that is cut", GOOD[:20], "header that can't be read"),
    ("one byte too few", GOOD[:-1], "47 bytes behind the header, where 48 are needed for (2, 3)"),
    ("one byte too many", GOOD + b"x", "49 bytes behind the header, where 48 are needed for (2, 3)"),
    ("no data", GOOD[:-48], "0 bytes behind the header"),
    (
        "a negative length",
        described("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -6), }", bytes(48)),
        "shape",
    ),
    ("a huge shape", described("{'descr': '<f8', 'fortran_order': False, 'shape': (2**62, 2**62), }"), "read"),
    (
        "a huge length",
        described(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({2**64}, {2**64}), }}"),
        "needed",
    ),
    ("a shape of texts", described("{'descr': '<f8', 'fortran_order': False, 'shape': ('a',), }"), "read"),
    ("no shape", described("{'descr': '<f8', 'fortran_order': False, }"), "read"),
    ("an unknown type", described("{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,), }", bytes(8)), "read"),
    ("code in the header", described("__import__('os').abort()"), "read"),
    ("a deep header", described("(" * 5000), "read"),
    ("a long header", described("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }" + " " * 60000), "read"),
    (
        "many dimensions",
        described(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {(1,) * 65}, }}", bytes(8)),
        "shape",
    ),
]


@pytest.mark.parametrize(("data", "said"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_no_array_of_numbers_is_refused_before_anything_runs(data: bytes, said: str) -> None:
    with pytest.raises(ArrayError) as refused:
        decode_array(data)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not Bomb.has_gone_off


@given(cut=st.integers(0, len(GOOD) - 1), at=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
def test_whatever_happens_to_the_bytes_is_read_or_refused(cut: int, at: int, byte: int) -> None:
    with pytest.raises(ArrayError):
        decode_array(GOOD[:cut])
    try:
        read = decode_array(GOOD[:at] + bytes([byte]) + GOOD[at + 1 :])
    except ArrayError:
        return
    assert read.nbytes == 48


def test_more_bytes_than_allowed_are_refused() -> None:
    assert decode_array(GOOD, max_bytes=len(GOOD)).shape == (2, 3)
    with pytest.raises(ArrayError, match=f"{len(GOOD)} bytes, where {len(GOOD) - 1} are allowed"):
        decode_array(GOOD, max_bytes=len(GOOD) - 1)


@pytest.mark.parametrize(
    "array",
    [
        np.array([Bomb()], dtype=object),
        np.array(["text"]),
        np.array([b"bytes"]),
        np.zeros(2, dtype=[("a", "<f8")]),
        np.array(["2026-01-01"], dtype="M8[D]"),
    ],
    ids=lambda array: str(array.dtype),
)
def test_what_would_be_refused_is_not_written(array: Array) -> None:
    with pytest.raises(ArrayError, match="where only booleans, integers, floats and complex numbers may be"):
        encode_array(array)
    assert not Bomb.has_gone_off


def test_without_numpy_the_import_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(arrays.__file__).read_text(encoding="utf-8")
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ImportError, match=r"needs NumPy: pip install 'gateway\[numpy\]'"):
        exec(compile(source, "arrays", "exec"), {"__name__": "arrays"})  # noqa: S102 - the module's own source
