"""The schemas in crds/*.yaml as tests read them, and the API server's defaulting, which is a few lines."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]

CRDS = Path(__file__).resolve().parent.parent.parent.parent / "crds"


@cache
def definitions() -> tuple[Json, ...]:
    """The CustomResourceDefinitions, by file name."""
    return tuple(yaml.safe_load(path.read_text()) for path in sorted(CRDS.glob("*.yaml")))


def definition(kind: str) -> Json:
    """The definition of one kind."""
    return next(found for found in definitions() if found["spec"]["names"]["kind"] == kind)


def schema(kind: str, *path: str) -> Json:
    """A kind's schema, or that of a field in it."""
    found: Json = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for name in path:
        found = found["properties"][name]
    return found


def completed(node: Json, value: Any) -> Any:
    """The value with the schema's defaults filled in, as apiextensions-apiserver does it (structural defaulting)."""
    if isinstance(value, dict):
        result: Json = dict(value)  # pyright: ignore[reportUnknownArgumentType]
        for name, field in node.get("properties", {}).items():
            if name not in result and "default" in field:
                result[name] = copy.deepcopy(field["default"])
            if name in result:
                result[name] = completed(field, result[name])
        return result
    return value


def without_empty(value: Any) -> Any:
    """The value without what says nothing: null, empty lists and objects, at every depth."""
    if isinstance(value, dict):
        entries: Json = {key: without_empty(part) for key, part in dict[str, Any](value).items()}  # pyright: ignore[reportUnknownArgumentType]
        return {key: part for key, part in entries.items() if part not in (None, [], {})}
    return value


def fields(node: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every field below a schema, with its path: properties, items (`[]`) and values of maps (`{}`)."""
    for name, field in node.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from fields(field, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in node:
            yield path + mark, node[key]
            yield from fields(node[key], path + mark)
