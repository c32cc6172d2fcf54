"""JSON Schema of the server API's messages, as OpenAPI 3.1 wants it.

msgspec makes schemas itself, but not of payloads (`Raw`), which are most of what this API carries.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import NODEFAULT, inspect

Schema = dict[str, Any]

_REFERENCE: Final = "#/components/schemas/"
_PLAIN: Final[dict[type[inspect.Type], Schema]] = {
    inspect.RawType: {"description": "any JSON"},
    inspect.StrType: {"type": "string"},
    inspect.BoolType: {"type": "boolean"},
    inspect.FloatType: {"type": "number"},
    inspect.NoneType: {"type": "null"},
}


def reference(kind: type[Any]) -> Schema:
    """Return what stands for *kind* in another schema."""
    return {"$ref": f"{_REFERENCE}{kind.__name__}"}


def components(kinds: Iterable[type[Any]]) -> dict[str, Schema]:
    """Return the schemas of *kinds*, and of all that they hold, by name."""
    found: dict[str, Schema] = {}
    for kind in inspect.multi_type_info(kinds):
        _schema(kind, found)
    return dict(sorted(found.items()))


def _schema(kind: inspect.Type, found: dict[str, Schema]) -> Schema:
    match kind:
        case inspect.StructType():
            _add(kind, found)
            return reference(kind.cls)
        case inspect.IntType():
            bounds = {"minimum": kind.ge, "maximum": kind.le}
            return {"type": "integer"} | {name: bound for name, bound in bounds.items() if bound is not None}
        case inspect.ListType():
            return {"type": "array", "items": _schema(kind.item_type, found)}
        case inspect.DictType():
            return {"type": "object", "additionalProperties": _schema(kind.value_type, found)}
        case inspect.UnionType():
            return {"anyOf": [_schema(each, found) for each in kind.types]}
        case _:
            return dict(_PLAIN[type(kind)])


def _add(kind: inspect.StructType, found: dict[str, Schema]) -> None:
    name = kind.cls.__name__
    if name in found:
        return
    schema: Schema = {"type": "object", "description": " ".join((kind.cls.__doc__ or "").split()).replace("*", "`")}
    found[name] = schema
    properties = {}
    for field in kind.fields:
        properties[field.encode_name] = _schema(field.type, found)
        if _has_plain_default(field):
            properties[field.encode_name]["default"] = field.default
    schema["properties"] = properties
    required = [field.encode_name for field in kind.fields if field.required]
    if required:
        schema["required"] = required


def _has_plain_default(field: inspect.Field) -> bool:
    return field.default not in (NODEFAULT, None, "") and not isinstance(field.default, msgspec.Raw | msgspec.Struct)
