"""Schemas say what the decoder does: no more, no less."""

from typing import Annotated

import pytest
from msgspec import Meta, Raw, Struct

from gateway.api.schemas import components, reference
from gateway.protocol.messages import NOTHING


class Inner(Struct):
    """Hold *names*."""

    names: list[str]
    numbers: dict[str, float] = {}


class Outer(Struct):
    """Hold an inner one,
    perhaps."""  # fmt: skip

    data: Raw
    more: Raw = NOTHING
    inner: Inner | None = None
    count: Annotated[int, Meta(ge=1, le=9)] = 3
    is_big: bool = False


def test_a_schema_holds_all_fields_and_all_that_they_hold() -> None:
    assert components([Outer]) == {
        "Inner": {
            "type": "object",
            "description": "Hold `names`.",
            "properties": {
                "names": {"type": "array", "items": {"type": "string"}},
                "numbers": {"type": "object", "additionalProperties": {"type": "number"}},
            },
            "required": ["names"],
        },
        "Outer": {
            "type": "object",
            "description": "Hold an inner one, perhaps.",
            "properties": {
                "data": {"description": "any JSON"},
                "more": {"description": "any JSON"},
                "inner": {"anyOf": [reference(Inner), {"type": "null"}]},
                "count": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
                "is_big": {"type": "boolean", "default": False},
            },
            "required": ["data"],
        },
    }


def test_a_field_of_a_kind_that_no_message_has_is_no_schema() -> None:
    class Odd(Struct):
        when: bytes

    with pytest.raises(KeyError):
        components([Odd])
