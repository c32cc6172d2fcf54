"""Filters on tags: which publications of a channel a subscriber wants (protocol.md 2.8, Tags filter)."""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from operator import ge, gt, le, lt
from typing import Any, Final

import msgspec

from gateway.protocol.messages import FilterNode, Publication
from gateway.protocol.variants import Variant

MAX_DEPTH: Final = 32
"""How deep conditions may nest, which bounds what reading them takes of the stack."""
_NUMBER: Final = re.compile(r"[+-]?(?:\d{1,64}(?:\.\d{0,64})?|\.\d{1,64})", re.ASCII)

Tags = Mapping[str, str]
Condition = Callable[[Tags], bool]


class InvalidFilterError(ValueError):
    """A filter that is none; the text says what is wrong with it."""


class TagsFilter:
    """Tells which tags are wanted. Two that were made of equal nodes are equal, so that they share what is encoded."""

    __slots__ = ("_identity", "wants")

    def __init__(self, node: FilterNode, *, limit: int) -> None:
        """*limit* bounds the conditions that it may have, values to compare with included.

        Raises:
            InvalidFilterError: for what protocol.md 2.8 calls one, and for more than *limit*, or `MAX_DEPTH`.
        """
        self.wants = _read(node, _Budget(limit), depth=1)
        """Tells whether a publication with these tags is wanted."""
        self._identity = msgspec.msgpack.encode(node)

    def __eq__(self, other: object) -> bool:
        """Tell whether *other* wants the same, by the same conditions."""
        return isinstance(other, TagsFilter) and self._identity == other._identity

    def __hash__(self) -> int:
        """Hash what equality goes by."""
        return hash(self._identity)


class FilteredVariant(msgspec.Struct, frozen=True):
    """A variant for those who want a part of what comes."""

    variant: Variant
    tags_filter: TagsFilter

    @property
    def name(self) -> str:
        """The variant's own."""
        return self.variant.name

    @property
    def transport(self) -> str:
        """The variant's own."""
        return self.variant.transport

    @property
    def needs_json(self) -> bool:
        """The variant's own."""
        return self.variant.needs_json

    @property
    def is_tap(self) -> bool:
        """The variant's own."""
        return self.variant.is_tap

    @property
    def is_numbered(self) -> bool:
        """The variant's own."""
        return self.variant.is_numbered

    @property
    def is_common(self) -> bool:
        """What one of its subscribers gets may be nothing to others."""
        return False

    def publications(self, channel: str | int, batch: Sequence[Publication]) -> bytes:
        """Encode all of *batch*, whether it is wanted or not."""
        return self.variant.publications(channel, batch)


class _Budget:
    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit

    def spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            message = f"more than {self._limit} conditions and values"
            raise InvalidFilterError(message)


def _read(node: FilterNode, budget: _Budget, *, depth: int) -> Condition:
    budget.spend(1 + len(node.vals))
    if depth > MAX_DEPTH:
        message = f"conditions nested more than {MAX_DEPTH} deep"
        raise InvalidFilterError(message)
    if not node.op:
        return _read_leaf(node)
    if node.op not in {"and", "or", "not"}:
        message = f"unknown op {node.op!r}"
        raise InvalidFilterError(message)
    inner = [_read(each, budget, depth=depth + 1) for each in node.nodes]
    if not inner or (node.op == "not" and len(inner) > 1):
        message = f"{node.op!r} with {len(inner)} nodes"
        raise InvalidFilterError(message)
    if node.op == "and":
        return lambda tags: all(wants(tags) for wants in inner)
    if node.op == "or":
        return lambda tags: any(wants(tags) for wants in inner)
    [only] = inner
    return lambda tags: not only(tags)


def _read_leaf(node: FilterNode) -> Condition:
    key, value = node.key, node.val
    match node.cmp:
        case "ex":
            return lambda tags: key in tags
        case "nex":
            return lambda tags: key not in tags
        case "in" | "nin":
            if not node.vals:
                message = f"{node.cmp!r} without vals"
                raise InvalidFilterError(message)
            values = frozenset(node.vals)
            if node.cmp == "in":
                return lambda tags: tags.get(key) in values
            return lambda tags: tags.get(key) not in values
        case cmp if not value and (cmp in _TEXTS or cmp in _NUMBERS):
            message = f"{cmp!r} without val"
            raise InvalidFilterError(message)
        case cmp if cmp in _TEXTS:
            has_absent, compare = _TEXTS[cmp]
            return lambda tags: compare(tags[key], value) if key in tags else has_absent
        case cmp if cmp in _NUMBERS:
            return _read_numeric(key, _NUMBERS[cmp], value)
        case cmp:
            message = f"unknown cmp {cmp!r}"
            raise InvalidFilterError(message)


def _read_numeric(key: str, compare: Callable[[Any, Any], bool], value: str) -> Condition:
    """Return a comparison of decimals, false for what is none on either side."""
    bound = _decimal(value)
    if bound is None:
        return lambda _: False

    def wants(tags: Tags) -> bool:
        number = _decimal(tags.get(key, ""))
        return number is not None and compare(number, bound)

    return wants


def _decimal(text: str) -> Decimal | None:
    return Decimal(text) if _NUMBER.fullmatch(text) else None


_TEXTS: Final[dict[str, tuple[bool, Callable[[str, str], bool]]]] = {
    "eq": (False, lambda tag, value: tag == value),
    "neq": (True, lambda tag, value: tag != value),
    "sw": (False, str.startswith),
    "ew": (False, str.endswith),
    "ct": (False, lambda tag, value: value in tag),
}
"""Comparisons of texts, and what each says of a tag that is not there."""
_NUMBERS: Final[dict[str, Callable[[Any, Any], bool]]] = {"lt": lt, "lte": le, "gt": gt, "gte": ge}
