"""Decoded messages for people: one paragraph for a message, a line for each payload, and what is in it beneath."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast

from hauberk_diagnose.description import Fields

_INDENT: Final = "  "
_LONGEST_HEX: Final = 32
"""Bytes that are shown of a value, unless all are asked for."""

# Fields that a payload's line begins with, without their names.
_TITLES: Final = ("payload", "attribute", "number", "notify", "protocol", "name", "identity", "proposal")
_TROUBLES: Final = ("problem", "hex")


def list_message(fields: Fields, *, full: bool = False) -> str:
    """The paragraph, without a newline at its end. full: show long values whole."""
    kind = "response" if fields.get("response") else "request"
    parts = [f"{fields['frame']}  {fields['time']}  {fields['source']} > {fields['destination']}"]
    if "exchange" in fields:
        parts.append(f"{fields['exchange']} {kind} {fields['message_id']}, {fields['bytes']} bytes")
    if "repeats_frame" in fields:
        parts.append(f"(repeats frame {fields['repeats_frame']})")
    lines = ["  ".join(parts)]
    if "spi_i" in fields:
        sender = "the initiator's" if fields["from_initiator"] else "the responder's"
        lines.append(f"{_INDENT}{fields['spi_i']}_i {fields['spi_r']}_r, {sender}, version {fields['version']}")
    lines += (f"{_INDENT}{name}: {_value(name, fields[name], full=full)}" for name in _TROUBLES if name in fields)
    lines += _payloads(fields.get("payloads", []), _INDENT, full=full)
    return "\n".join(lines)


def _payloads(payloads: list[Fields], indent: str, *, full: bool) -> Iterator[str]:
    for payload in payloads:
        yield from _item(payload, indent, full=full)
        inside = payload.get("payloads")
        if inside is not None:
            yield from _payloads(inside, indent + _INDENT, full=full)


def _item(item: Fields, indent: str, *, full: bool) -> Iterator[str]:
    """A dictionary: its title and plain fields in one line, its lists beneath."""
    title = " ".join(str(item[name]) for name in _TITLES if name in item and item[name] != "")
    if "number" in item:
        title = f"proposal {title}"
    plain = [
        f"{name.replace('_', ' ')} {_value(name, value, full=full)}"
        for name, value in item.items()
        if not isinstance(value, list) and name not in _TITLES and value is not False and value != ""
    ]
    yield indent + ", ".join((title, *plain))
    for name, value in item.items():
        if not isinstance(value, list) or name == "payloads":
            continue
        values = cast("list[Any]", value)
        if values and isinstance(values[0], dict):
            for inner in values:
                yield from _item(inner, indent + _INDENT, full=full)
        elif values:
            yield f"{indent}{_INDENT}{name.replace('_', ' ')}: {', '.join(map(str, values))}"


def _value(name: str, value: object, *, full: bool) -> str:
    if value is True:
        return "yes"
    text = str(value)
    if name == "hex" and not full and len(text) > 2 * _LONGEST_HEX:
        return f"{text[: 2 * _LONGEST_HEX]}... ({len(text) // 2} bytes)"
    return text
