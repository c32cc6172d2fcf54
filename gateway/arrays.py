"""NumPy arrays as messages: `.npy` bytes in, `.npy` bytes out, and nothing that could run on the way.

It needs the extra `numpy` (`pip install 'gateway[numpy]'`). The format is NumPy's own (NEP 1, versions 1.0 and 2.0):
what `numpy.save` writes, `decode_array` reads; what `encode_array` writes, `numpy.load(…, allow_pickle=False)` reads.
"""

import io
import math
from typing import Any, Final

try:
    import numpy as np
except ImportError as error:
    raise ImportError("gateway.arrays needs NumPy: pip install 'gateway[numpy]'") from error

DEFAULT_MAX_BYTES: Final = 64 * 1024 * 1024
KINDS: Final = "biufc"
"""What an array may hold, in NumPy's letters: booleans, integers, floats, complex numbers."""
_MAX_HEADER: Final = 10_000
_MAX_DIMENSIONS: Final = 32
_READERS: Final = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

Array = np.ndarray[Any, np.dtype[Any]]


class ArrayError(ValueError):
    """Bytes that are no array that may be read, or an array that may not be written; the text says why."""


def encode_array(array: Array) -> bytes:
    """Return *array* as `.npy` bytes.

    Raises:
        ArrayError: for anything but numbers and booleans: objects would be written as a pickle.
    """
    array = np.asarray(array)
    _check_type(array.dtype)
    file = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(file, header)
    # In one copy, where `numpy.save` into memory makes three.
    flat = np.ascontiguousarray(array.T if header["fortran_order"] else array).reshape(-1)
    return b"".join((file.getvalue(), flat.view(np.uint8).data))


def decode_array(data: bytes, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Array:
    """Return the array in *data*: a read-only view of it, so nothing is copied.

    Everything is checked before the array is made: the size, the header, the type, and that there are as many bytes as
    the shape says. Nothing is ever unpickled.

    Raises:
        ArrayError: for what is no `.npy`, is larger than *max_bytes*, is cut short or has something behind it, or holds
            anything but numbers and booleans.
    """
    if len(data) > max_bytes:
        raise ArrayError(f"{len(data)} bytes, where {max_bytes} are allowed")
    file = io.BytesIO(data)
    shape, is_fortran, dtype = _read_header(file)
    _check_type(dtype)
    if len(shape) > _MAX_DIMENSIONS or any(length < 0 for length in shape):
        raise ArrayError(f"no array has the shape {shape}")
    offset, expected = file.tell(), math.prod(shape) * dtype.itemsize
    if len(data) - offset != expected:
        raise ArrayError(f"{len(data) - offset} bytes behind the header, where {expected} are needed for {shape}")
    flat = np.frombuffer(data, dtype=dtype, count=math.prod(shape), offset=offset)
    return flat.reshape(shape, order="F" if is_fortran else "C")


def _read_header(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
    except ValueError:
        raise ArrayError("not an .npy array: it does not begin like one") from None
    read = _READERS.get(version)
    if read is None:
        raise ArrayError(f"an .npy array of version {version[0]}.{version[1]}, where 1.0 and 2.0 are read")
    try:
        return read(file, max_header_size=_MAX_HEADER)
    except Exception as error:  # whatever its parsers make of foreign bytes: a TokenError, a RecursionError
        raise ArrayError(f"an .npy header that can't be read: {type(error).__name__}") from error


def _check_type(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in KINDS:
        raise ArrayError(f"an array of {dtype}, where only booleans, integers, floats and complex numbers may be")
