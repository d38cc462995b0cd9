"""From UDP datagrams to IKE messages, decrypted where a key log has the keys, and put together where they came in
fragments (RFC 7383).

Nothing here raises for what a capture holds. What is remembered is bounded.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from struct import Struct
from typing import Any, Final

from hauberk_diagnose import names
from hauberk_diagnose.capture import Frame
from hauberk_diagnose.description import Fields, Setting, describe_payloads
from hauberk_diagnose.frames import Udp
from hauberk_diagnose.key_table import KeyTable
from hauberk_ike.errors import ProtocolError
from hauberk_ike.wire.header import HEADER, Header
from hauberk_ike.wire.message import GENERIC

IKE_PORT: Final = 500
NAT_PORT: Final = 4500
NON_ESP_MARKER: Final = bytes(4)
"""RFC 3948 section 2.2."""
_KEEPALIVE: Final = b"\xff"

# fragment number, total fragments (RFC 7383 section 2.5)
_FRAGMENT: Final = Struct("!HH")
MAX_MESSAGES_IN_FRAGMENTS: Final = 256
MAX_FRAGMENTS: Final = 1024
MAX_REMEMBERED: Final = 4096
"""Datagrams that a later one may repeat."""


@dataclass(slots=True)
class Counts:
    """What a capture held beside IKE."""

    messages: int = 0
    undecrypted: int = 0
    keepalives: int = 0
    esp: int = 0


@dataclass(slots=True)
class _Fragments:
    """Of one message: the first payload's type, and what has come, by number."""

    total: int
    first: int = 0
    parts: dict[int, bytes] = field(default_factory=dict[int, bytes])
    frames: list[int] = field(default_factory=list[int])


class Decoder:
    """Reads datagrams in the order of a capture."""

    def __init__(self, keys: KeyTable, *, ports: frozenset[int] = frozenset()) -> None:
        """ports: UDP ports where IKE is looked for, beside 500 and 4500."""
        self._keys = keys
        self._ports = ports
        self._fragments: OrderedDict[tuple[bytes, bytes, int, int], _Fragments] = OrderedDict()
        self._seen: OrderedDict[bytes, int] = OrderedDict()
        self.counts = Counts()

    def read(self, frame: Frame, udp: Udp) -> Fields | None:
        """The message in a datagram, as plain fields; None for what is no IKE."""
        data = self._ike(udp)
        if data is None:
            return None
        self.counts.messages += 1
        fields: Fields = {
            "frame": frame.number,
            "time": _time(frame.nanoseconds),
            "source": str(udp.source),
            "destination": str(udp.destination),
        }
        repeats = self._remember(frame, udp)
        if repeats is not None:
            fields["repeats_frame"] = repeats
        if udp.missing:
            fields["problem"] = f"the capture lacks the last {udp.missing} bytes"
        self._message(frame, udp, data, fields)
        return fields

    def _ike(self, udp: Udp) -> bytes | None:
        """What is IKE in a datagram, by its ports and by RFC 3948's rules."""
        ports = {udp.source.port, udp.destination.port}
        data = udp.data
        if NAT_PORT in ports or (ports & self._ports and data.startswith(NON_ESP_MARKER)):
            if data.startswith(NON_ESP_MARKER):
                return data[len(NON_ESP_MARKER) :]
            if data == _KEEPALIVE:
                self.counts.keepalives += 1
            else:
                self.counts.esp += 1
            return None
        if data == _KEEPALIVE:
            self.counts.keepalives += 1
            return None
        return data if IKE_PORT in ports or ports & self._ports else None

    def _remember(self, frame: Frame, udp: Udp) -> int | None:
        """The number of the frame that had the same datagram before."""
        text = f"{udp.source} {udp.destination} ".encode() + udp.data
        digest = hashlib.blake2b(text, digest_size=16).digest()
        first = self._seen.setdefault(digest, frame.number)
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)
        return None if first == frame.number else first

    def _message(self, frame: Frame, udp: Udp, data: bytes, fields: Fields) -> None:
        if len(data) < HEADER.size:
            fields["problem"] = f"{len(data)} bytes, which is shorter than an IKE header"
            fields["hex"] = data.hex()
            return
        # Without its checks: what is wrong with it is to be shown.
        header = Header.read(data)
        fields.update(_describe_header(header))
        if header.major_version != 2:
            fields["problem"] = f"IKE version {header.major_version}: only version 2 is decoded"
            return
        if header.length != len(data) and not udp.missing:
            fields["problem"] = f"the header says {header.length} bytes, there are {len(data)}"
        setting = Setting(header=header, source=udp.source, destination=udp.destination)
        payloads = describe_payloads(header.next_payload, data, HEADER.size, setting)
        fields["payloads"] = payloads
        if payloads and payloads[-1]["payload"] in ("SK", "SKF") and "problem" not in payloads[-1]:
            start = _offset_of_last(data, len(payloads))
            if payloads[-1]["payload"] == "SK":
                self._encrypted(header, data, start, payloads[-1], setting)
            else:
                self._fragment(frame, header, data, start, payloads[-1], setting)

    def _encrypted(self, header: Header, data: bytes, start: int, fields: Fields, setting: Setting) -> None:
        chain = self._open(header, data, start + GENERIC.size, fields)
        if chain is not None:
            fields["payloads"] = describe_payloads(data[start], chain, 0, setting)

    def _fragment(
        self, frame: Frame, header: Header, data: bytes, start: int, fields: Fields, setting: Setting
    ) -> None:
        body = start + GENERIC.size
        if len(data) < body + _FRAGMENT.size:
            fields["problem"] = "a fragment that is cut off"
            return
        number, total = _FRAGMENT.unpack_from(data, body)
        fields["fragment"], fields["of"] = number, total
        if not 1 <= number <= total <= MAX_FRAGMENTS:
            fields["problem"] = "a fragment with an impossible number"
            return
        chain = self._open(header, data, body + _FRAGMENT.size, fields)
        if chain is None:
            return
        key = (header.spi_i, header.spi_r, header.message_id, header.flags)
        fragments = self._fragments.get(key)
        if fragments is None or fragments.total < total:
            # Its sender may have begun anew with smaller fragments (section 2.5.2).
            fragments = self._fragments[key] = _Fragments(total)
        elif fragments.total > total:
            fields["problem"] = "of an attempt with fewer fragments than another one seen before"
            return
        if number == 1:
            fragments.first = data[start]
        fragments.parts[number] = chain
        fragments.frames.append(frame.number)
        self._fragments.move_to_end(key)
        if len(fragments.parts) == total:
            del self._fragments[key]
            fields["reassembled_from_frames"] = sorted(set(fragments.frames))
            whole = b"".join(fragments.parts[index] for index in range(1, total + 1))
            fields["payloads"] = describe_payloads(fragments.first, whole, 0, setting)
        elif len(self._fragments) > MAX_MESSAGES_IN_FRAGMENTS:
            self._fragments.popitem(last=False)

    def _open(self, header: Header, data: bytes, start: int, fields: Fields) -> bytes | None:
        try:
            chain = self._keys.open(
                header.spi_i, header.spi_r, data[: header.length], start, from_initiator=header.from_initiator
            )
        except ProtocolError as error:
            fields["problem"] = str(error)
            return None
        if chain is None:
            self.counts.undecrypted += 1
            known = self._keys.knows(header.spi_i, header.spi_r)
            fields["undecrypted"] = "no key in the key log opens it" if known else "no keys for these SPIs"
        return chain


def _describe_header(header: Header) -> dict[str, Any]:
    return {
        "exchange": names.name_of(header.exchange_type, names.EXCHANGES),
        "response": header.is_response,
        "from_initiator": header.from_initiator,
        "message_id": header.message_id,
        "spi_i": header.spi_i.hex(),
        "spi_r": header.spi_r.hex(),
        "version": f"{header.major_version}.{header.version & 0x0F}",
        "bytes": header.length,
    }


def _offset_of_last(data: bytes, count: int) -> int:
    """Where the generic header of the `count`th payload is; those before it have been walked through already."""
    offset = HEADER.size
    for _ in range(count - 1):
        offset += GENERIC.unpack_from(data, offset)[2]
    return offset


def _time(nanoseconds: int) -> str:
    """UTC with microseconds; a time that no calendar has as it is."""
    try:
        moment = datetime.fromtimestamp(nanoseconds // 10**9, UTC)
    except (ValueError, OverflowError, OSError):
        return str(nanoseconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 10**9 // 1000:06d}Z"
