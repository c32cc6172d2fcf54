"""Filters on tags: every comparison, every way to join them, and what is none."""

from typing import Any

import msgspec
import pytest

from gateway.domain.tags import MAX_DEPTH, InvalidFilterError, TagsFilter
from gateway.protocol.messages import FilterNode


def node(**fields: Any) -> FilterNode:
    return msgspec.convert(fields, FilterNode)


def wants(tags: dict[str, str], **fields: Any) -> bool:
    return TagsFilter(node(**fields), limit=100).wants(tags)


PRICED = {"price": "10.50", "name": "gold", "empty": ""}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"key": "name", "cmp": "eq", "val": "gold"}, True),
        ({"key": "name", "cmp": "eq", "val": "silver"}, False),
        ({"key": "none", "cmp": "eq", "val": "gold"}, False),
        ({"key": "name", "cmp": "neq", "val": "gold"}, False),
        ({"key": "name", "cmp": "neq", "val": "silver"}, True),
        ({"key": "none", "cmp": "neq", "val": "gold"}, True),
        ({"key": "name", "cmp": "in", "vals": ["silver", "gold"]}, True),
        ({"key": "name", "cmp": "in", "vals": ["silver"]}, False),
        ({"key": "none", "cmp": "in", "vals": ["gold"]}, False),
        ({"key": "name", "cmp": "nin", "vals": ["silver"]}, True),
        ({"key": "name", "cmp": "nin", "vals": ["gold"]}, False),
        ({"key": "none", "cmp": "nin", "vals": ["gold"]}, True),
        ({"key": "empty", "cmp": "in", "vals": [""]}, True),
        ({"key": "name", "cmp": "ex"}, True),
        ({"key": "empty", "cmp": "ex"}, True),
        ({"key": "none", "cmp": "ex"}, False),
        ({"key": "name", "cmp": "nex"}, False),
        ({"key": "none", "cmp": "nex"}, True),
        ({"key": "name", "cmp": "sw", "val": "go"}, True),
        ({"key": "name", "cmp": "sw", "val": "ld"}, False),
        ({"key": "none", "cmp": "sw", "val": "g"}, False),
        ({"key": "name", "cmp": "ew", "val": "ld"}, True),
        ({"key": "name", "cmp": "ew", "val": "go"}, False),
        ({"key": "name", "cmp": "ct", "val": "ol"}, True),
        ({"key": "name", "cmp": "ct", "val": "lo"}, False),
        ({"key": "price", "cmp": "lt", "val": "10.51"}, True),
        ({"key": "price", "cmp": "lt", "val": "10.5"}, False),
        ({"key": "price", "cmp": "lt", "val": "9"}, False),
        ({"key": "price", "cmp": "lte", "val": "10.5"}, True),
        ({"key": "price", "cmp": "gt", "val": "9"}, True),
        ({"key": "price", "cmp": "gt", "val": "-100"}, True),
        ({"key": "price", "cmp": "gt", "val": "10.5"}, False),
        ({"key": "price", "cmp": "gte", "val": "10.500"}, True),
        ({"key": "name", "cmp": "gt", "val": "1"}, False),
        ({"key": "none", "cmp": "lt", "val": "1"}, False),
        ({"key": "price", "cmp": "lt", "val": "many"}, False),
        ({"key": "price", "cmp": "gt", "val": "NaN"}, False),
        ({"key": "price", "cmp": "lt", "val": "Infinity"}, False),
        ({"key": "price", "cmp": "lt", "val": "1_000"}, False),
    ],
)
def test_a_comparison(fields: dict[str, Any], expected: bool) -> None:  # noqa: FBT001 - a table's column
    assert wants(PRICED, **fields) is expected


YES = {"key": "name", "cmp": "ex"}
NO = {"key": "name", "cmp": "nex"}


@pytest.mark.parametrize(
    ("op", "nodes", "expected"),
    [
        ("and", [YES, YES], True),
        ("and", [YES, NO], False),
        ("or", [NO, YES], True),
        ("or", [NO, NO], False),
        ("or", [YES], True),
        ("not", [NO], True),
        ("not", [YES], False),
        ("and", [{"op": "not", "nodes": [NO]}, {"op": "or", "nodes": [NO, YES]}], True),
    ],
)
def test_conditions_are_joined(op: str, nodes: list[Any], expected: bool) -> None:  # noqa: FBT001 - the same
    assert wants(PRICED, op=op, nodes=nodes) is expected


def nested(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = YES
    for _ in range(depth - 1):
        made = {"op": "not", "nodes": [made]}
    return made


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "unknown cmp ''"),
        ({"key": "a", "cmp": "like", "val": "x"}, "unknown cmp 'like'"),
        *(({"key": "a", "cmp": cmp}, f"'{cmp}' without val") for cmp in ("eq", "neq", "sw", "ew", "ct", "lt", "gte")),
        *(({"key": "a", "cmp": cmp, "val": "x"}, f"'{cmp}' without vals") for cmp in ("in", "nin")),
        ({"op": "xor", "nodes": [YES]}, "unknown op 'xor'"),
        ({"op": "and"}, "'and' with 0 nodes"),
        ({"op": "or"}, "'or' with 0 nodes"),
        ({"op": "not"}, "'not' with 0 nodes"),
        ({"op": "not", "nodes": [YES, YES]}, "'not' with 2 nodes"),
        ({"op": "and", "nodes": [YES, {}]}, "unknown cmp ''"),
        ({"op": "and", "nodes": [YES] * 100}, "more than 100 conditions and values"),
        ({"key": "a", "cmp": "in", "vals": ["x"] * 100}, "more than 100 conditions and values"),
        (nested(MAX_DEPTH + 1), f"conditions nested more than {MAX_DEPTH} deep"),
    ],
)
def test_what_is_no_filter_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidFilterError, match=reason):
        TagsFilter(node(**fields), limit=100)


def test_the_deepest_one_is_read() -> None:
    assert wants(PRICED, **nested(MAX_DEPTH)) is (MAX_DEPTH % 2 == 1)


def test_filters_of_equal_nodes_are_one() -> None:
    one, same, other = (TagsFilter(node(key="a", cmp="eq", val=value), limit=1) for value in "xxy")
    assert {one, same, other} == {one, other}
    assert one != other
    assert one != "x"
