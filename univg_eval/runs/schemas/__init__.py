"""JSON Schema files of what this project writes, and the check of a value against one.

The files are JSON Schema 2020-12 and any validator reads them. `faults` checks the keywords that
they use, so that reading a record needs no further package: ``type``, ``enum``, ``minimum``,
``maximum``, ``minLength``, ``required``, ``properties``, ``additionalProperties`` (a schema),
``items``, ``prefixItems``, ``minItems``, ``maxItems``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["faults", "load_schema"]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list, tuple),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


@cache
def load_schema(name: str) -> dict[str, Any]:
    """The schema of this name, e.g. ``run_manifest``; not to be changed."""
    text = files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def faults(value: Any, schema: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """What is wrong with a value, each fault in words; nothing if it fits the schema.

    Args:
        value: as JSON gives it; a tuple counts as an array.
        schema: with the keywords that the module names.
        where: path of the value inside the whole, e.g. ``dataset.n``.
    """
    kinds = schema.get("type")
    if kinds is not None:
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not any(_is(value, kind) for kind in kinds):
            yield f"{where or 'the value'} is {_shown(value)}; expected {' or '.join(kinds)}"
            return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} is {_shown(value)}; expected one of: {', '.join(map(str, schema['enum']))}"
    elif isinstance(value, str) and len(value) < schema.get("minLength", 0):
        yield f"{where} is empty"
    elif isinstance(value, float) and not math.isfinite(value):
        # Python's JSON knows NaN and Infinity; JSON itself does not.
        yield f"{where} is {value}; expected a finite number"
    elif isinstance(value, (int, float)):
        low, high = schema.get("minimum"), schema.get("maximum")
        if (low is not None and value < low) or (high is not None and value > high):
            bounds = f"at least {low}" if high is None else f"{low} to {high}"
            yield f"{where} is {value}; expected {bounds}"
    elif isinstance(value, dict):
        yield from _faults_inside(value, schema, where)
    elif isinstance(value, (list, tuple)):
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        if len(value) < low or (high is not None and len(value) > high):
            number = low if low == high else f"at least {low}"
            yield f"{where} has {len(value)} items; expected {number}"
            return
        first = schema.get("prefixItems", ())
        for i, item in enumerate(value):
            inner = first[i] if i < len(first) else schema.get("items", {})
            if inner:
                yield from faults(item, inner, f"{where}[{i}]")


def _faults_inside(
    value: Mapping[str, Any], schema: Mapping[str, Any], where: str
) -> Iterator[str]:
    prefix = f"{where}." if where else ""
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{prefix}{name} is missing"
    known = schema.get("properties", {})
    others = schema.get("additionalProperties")
    for name, item in value.items():
        inner = known.get(name, others)
        if inner:
            yield from faults(item, inner, f"{prefix}{name}")


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
