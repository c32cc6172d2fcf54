"""An array service: `{"shape": [1000, 1000]}` in, 8 MB of `.npy` bytes out.

`random_array` is a handler. A package that offers it has this in its pyproject.toml:

    [project.entry-points."gateway.handlers"]
    random_array = "array_service:random_array"
"""

import asyncio
import json
import math
from typing import Final

import numpy as np

from gateway.arrays import encode_array
from gateway.messaging.handlers import Request

MAX_NUMBERS: Final = 4_000_000


async def random_array(request: Request) -> bytes | str:
    """Answer a shape with random numbers in it, or say what is wrong with it."""
    try:
        shape = [int(length) for length in json.loads(request.data)["shape"]]
    except (ValueError, TypeError, KeyError):
        return json.dumps({"error": 'ask like this: {"shape": [2, 3]}'})
    if any(length < 1 for length in shape) or math.prod(shape) > MAX_NUMBERS:
        return json.dumps({"error": f"a shape has 1 to {MAX_NUMBERS} numbers"})
    # In a thread: meanwhile, the loop serves the others.
    return await asyncio.to_thread(_make, shape)


def _make(shape: list[int]) -> bytes:
    return encode_array(np.random.default_rng().random(shape))
