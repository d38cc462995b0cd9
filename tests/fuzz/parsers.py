"""The target `parsers`: any bytes as a chain of payloads are refused with ProtocolError, or read; and then are stable.

Stable: what was read can be built, and what was built reads and builds the same. Built bytes may differ from those read
first, as reserved fields, unknown attributes and traffic selectors of unknown types are not kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from hauberk_ike.errors import ProtocolError
from hauberk_ike.wire.header import Header
from hauberk_ike.wire.message import KnownPayload, Payload, build_payloads, parse_payloads
from hauberk_ike.wire.payloads import UnknownPayload


def run(data: bytes) -> None:
    """The target; the first byte is the first payload's type."""
    with contextlib.suppress(ProtocolError):
        Header.parse(data)
    try:
        payloads = parse_payloads(data[0] if data else 0, data, 1 if data else 0)
    except ProtocolError:
        return
    known = _known(payloads)
    first, chain = build_payloads(known)
    if build_payloads(_known(parse_payloads(first, chain))) != (first, chain):
        raise AssertionError(f"{known} was built, and reads otherwise")


def _known(payloads: Sequence[Payload]) -> list[KnownPayload]:
    return [
        payload
        for payload in payloads
        # A payload of which nothing was kept is none of ours to build.
        if not isinstance(payload, UnknownPayload) and getattr(payload, "selectors", True)
    ]
