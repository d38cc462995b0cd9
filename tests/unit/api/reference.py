"""Writes the tables of docs/reference/api.md from the schemas: `python -m tests.unit.api.reference`.

A table stands between the comments `<!-- fields of KIND.PART -->` and `<!-- end -->`; what is around them people write.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.unit.api.schema import Json, fields, schema

PAGE = Path(__file__).resolve().parent.parent.parent.parent / "docs" / "reference" / "api.md"

_TABLE = re.compile(r"<!-- fields of (\w+)\.(\w+) -->\n.*?<!-- end -->", re.DOTALL)


def page(text: str) -> str:
    """The page with all its tables as the schemas are now."""
    return _TABLE.sub(lambda found: _table(found[1], found[2]), text)


def tables(text: str) -> set[tuple[str, str]]:
    """Kind and part of the tables in a page."""
    return {(found[1], found[2]) for found in _TABLE.finditer(text)}


def _table(kind: str, part: str) -> str:
    lines = [f"<!-- fields of {kind}.{part} -->", "| field | type | default | meaning |", "|---|---|---|---|"]
    for path, field in fields(schema(kind, part)):
        if path.endswith(("[]", "{}")) and field["type"] != "object":
            continue  # what the list or map itself says is enough
        lines.append(f"| `{path[1:]}` | {_type(field)} | {_default(field)} | {field['description']} |")
    return "\n".join([*lines, "<!-- end -->"])


def _type(field: Json) -> str:
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    name: str = field["type"]
    if name == "array":
        name = f"list of {field['items']['type']}s"
        limits = (field.get("minItems"), field.get("maxItems"))
    elif "additionalProperties" in field:
        name = f"map of {field['additionalProperties']['type']}s"
        limits = (None, field.get("maxProperties"))
    else:
        limits = (field.get("minimum"), field.get("maximum"))
    low, high = limits
    if low is not None and high is not None:
        return f"{name}, {low} to {high}"
    if low is not None:
        return f"{name}, {low} or more"
    return name if high is None else f"{name}, at most {high}"


def _default(field: Json) -> str:
    return f"`{json.dumps(field['default'])}`" if "default" in field else ""


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
