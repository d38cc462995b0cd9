"""What happens, said at once: a line of text for people, a line of JSON for programs.

A JSON line is an object with `time` (UTC) and `event`, the name of the endpoint's event or one of our own; the other
members are that event's fields by their names, without the keys. An answer to a command has `answer` instead.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TextIO, cast

from hauberk_ike import (
    ChildSaDown,
    ChildSaFailed,
    ChildSaInfo,
    ChildSaUp,
    EspArrived,
    EspKey,
    Event,
    IkeSaDown,
    IkeSaInfo,
    IkeSaMoved,
    IkeSaRekeyed,
    IkeSaUp,
    PathProbed,
    PeerConfig,
    PeerRefused,
    ReauthenticationNeeded,
    RefusalsWithheld,
    TrafficSelector,
    UdpEncapsulation,
)


class Reporter:
    """Writes lines to standard output, and progress to standard error."""

    def __init__(self, *, as_json: bool, output: TextIO | None = None) -> None:
        self._as_json = as_json
        self._output = output or sys.stdout

    def event(self, event: Event) -> None:
        """Something that the endpoint reports."""
        if self._as_json:
            self._write({"event": type(event).__name__, **describe(event)})
        else:
            self._print(sentence(event))

    def note(self, name: str, text: str, **members: Any) -> None:
        """Something of our own: `name` for programs, `text` for people."""
        if self._as_json:
            self._write({"event": name, "message": text, **members})
        else:
            self._print(text)

    def answer(self, members: Mapping[str, Any], text: str) -> None:
        """What became of a command."""
        if self._as_json:
            self._write(members)
        else:
            self._print(text)

    def progress(self, text: str) -> None:
        """While nothing happens. For people, and never in the way of what programs read."""
        print(f"hauberk-ike: {text}", file=sys.stderr, flush=True)  # noqa: T201 - it is a command line

    def _write(self, members: Mapping[str, Any]) -> None:
        self._print(json.dumps({"time": _now(), **members}))

    def _print(self, line: str) -> None:
        print(line, file=self._output, flush=True)


def describe(thing: object) -> dict[str, Any]:
    """The fields of an event, or of what `established()` gives, as JSON takes them. Keys are left out."""
    if isinstance(thing, IkeSaInfo):
        members = _members(thing)
        members["children"] = [_members(child) for child in thing.children]
        return members
    return _members(thing)


def _members(thing: object) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for one in fields(thing):  # pyright: ignore[reportArgumentType] - events are dataclasses
        value = getattr(thing, one.name)
        if not isinstance(value, EspKey) and not one.name.startswith("keys_"):
            members[one.name] = _plain(one.name, value)
    return members


def _plain(name: str, value: Any) -> Any:
    match value:
        case PeerConfig():
            return value.name
        case UdpEncapsulation():
            return {"local_port": value.local_port, "remote_port": value.remote_port}
        case int() if name.startswith(("spi", "rekeyed_spi")):
            return f"{value:08x}"
        case int() if name == "certificate_serial":
            return f"{value:x}"
        case bytes():
            return value.hex()
        case Enum():
            return value.value
        case datetime():
            return value.isoformat()
        case tuple():
            return [_plain(name, item) for item in cast("tuple[Any, ...]", value)]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)


def sentence(event: Event) -> str:
    """An event for people."""
    match event:
        case IkeSaUp():
            who = "we" if event.initiator else "the peer"
            return (
                f"IKE SA {event.ike_sa} up: {event.identity} at {event.peer.remote}, {event.proposal}, {who} initiated,"
                f" SPIs {event.spi_i.hex()}_i {event.spi_r.hex()}_r{_nat(event)}"
            )
        case IkeSaMoved():
            way = "in UDP" if event.encapsulation is not None else "without UDP"
            return f"IKE SA {event.ike_sa} moved: {event.remote} to {event.local}, ESP {way}"
        case IkeSaRekeyed():
            who = "we" if event.initiator else "the peer"
            return (
                f"IKE SA {event.old} rekeyed: it is {event.new} now, {event.proposal}, {who} initiated,"
                f" SPIs {event.spi_i.hex()}_i {event.spi_r.hex()}_r"
            )
        case ReauthenticationNeeded():
            return f"IKE SA {event.ike_sa} can't be rekeyed: {event.reason}"
        case ChildSaUp():
            what = "up" if event.rekeyed_spi_in is None else f"up, for {event.rekeyed_spi_in:08x}"
            return (
                f"CHILD SA {event.label} {what}: {event.proposal}, {event.mode.value} mode,"
                f" SPIs {event.spi_in:08x} in, {event.spi_out:08x} out,{' in UDP,' if event.encapsulation else ''}"
                f" {_list(event.ts_local)} === {_list(event.ts_remote)}"
            )
        case ChildSaDown():
            who = "by the peer" if event.by_peer else "by us"
            return f"CHILD SA {event.label} down: {event.spi_in:08x} in, {event.spi_out:08x} out, {who}"
        case ChildSaFailed():
            return f"CHILD SA {event.label} failed: {event.reason}"
        case EspArrived():
            count = "an unknown number of" if event.packets is None else f"{event.packets}"
            return f"{count} packets have arrived on {event.spi_out:08x} out"
        case PathProbed():
            what = {True: "arrives whole", False: "does not arrive whole", None: "can't be probed"}[event.passes]
            return f"a packet of {event.packet_bytes} bytes {what}"
        case IkeSaDown():
            message = f": {event.message}" if event.message else ""
            return f"IKE SA {event.ike_sa} down: {event.reason.value}{message}"
        case PeerRefused():
            who = event.identity or "nobody known"
            return f"refused {who} at {event.remote}: {event.reason}: {event.message}"
        case RefusalsWithheld():
            return f"refused {event.count} more within {event.seconds:.0f} s: {event.summary}"


def child_line(child: ChildSaInfo) -> str:
    """A CHILD SA in `status`."""
    return (
        f"  {child.label}: {child.proposal}, {child.mode.value} mode, SPIs {child.spi_in:08x} in, {child.spi_out:08x}"
        f" out, {_list(child.ts_local)} === {_list(child.ts_remote)}"
    )


def _nat(event: IkeSaUp) -> str:
    places = [place for place, there in (("us", event.nat_local), ("the peer", event.nat_remote)) if there]
    return f", NAT before {' and '.join(places)}" if places else ""


def _list(selectors: tuple[TrafficSelector, ...]) -> str:
    return " ".join(map(str, selectors))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
