"""Capture files, one frame at a time: pcap and pcapng, as tcpdump and Wireshark write them.

Formats by draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng. A capture may be anybody's bytes, and is read from
pipes, too: lengths are checked before anything is allocated, and what can't be read ends the reading with a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import BinaryIO, Final

MAX_FRAME_BYTES: Final = 262_144
"""tcpdump's own limit; a longer record is garbage that would only ask for its memory."""
MAX_BLOCK_BYTES: Final = 1 << 20
"""Of pcapng: a frame with its options; others (name resolution, secrets) are skipped, if no longer than this."""
MAX_INTERFACES: Final = 4096

_PCAP_FRACTIONS: Final = {0xA1B2C3D4: 1_000, 0xA1B23C4D: 1}
"""Magic numbers in the file's own byte order, and how many nanoseconds a record's fractions are of."""
_GZIP: Final = b"\x1f\x8b"

_SECTION_HEADER: Final = 0x0A0D0D0A
_BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
_INTERFACE_DESCRIPTION: Final = 1
_OBSOLETE_PACKET: Final = 2
_SIMPLE_PACKET: Final = 3
_ENHANCED_PACKET: Final = 6
_OPTION_END: Final = 0
_OPTION_TSRESOL: Final = 9
_OPTION_TSOFFSET: Final = 14


class CaptureError(Exception):
    """The capture can't be read (any further); the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One captured frame. `number` counts from 1 as Wireshark does, `nanoseconds` since the epoch."""

    number: int
    nanoseconds: int
    link_type: int
    data: bytes
    wire_length: int


def read_frames(file: BinaryIO) -> Iterator[Frame]:
    """All frames. Raises CaptureError where it can't go on, after what it could read."""
    magic = file.read(4)
    if magic[:2] == _GZIP:
        raise CaptureError("the capture is compressed; gunzip it first")
    for order in "<>":
        if len(magic) == 4 and Struct(order + "I").unpack(magic)[0] in _PCAP_FRACTIONS:
            return _read_pcap(file, order, _PCAP_FRACTIONS[Struct(order + "I").unpack(magic)[0]])
    if magic == _SECTION_HEADER.to_bytes(4):
        return _Pcapng(file).frames()
    raise CaptureError("neither pcap nor pcapng")


def _read_pcap(file: BinaryIO, order: str, nanoseconds: int) -> Iterator[Frame]:
    # version major and minor, time zone, accuracy, snapshot length, link type (with FCS bits above)
    header = Struct(order + "HHiIII")
    # seconds, fractions, captured and original length
    record = Struct(order + "IIII")
    start = _read(file, header.size)
    link_type = header.unpack(start)[5] & 0xFFFF
    number = 0
    while start := file.read(record.size):
        if len(start) < record.size:
            raise CaptureError(f"the capture is cut off after frame {number}")
        seconds, fraction, captured, original = record.unpack(start)
        if captured > MAX_FRAME_BYTES:
            raise CaptureError(f"frame {number + 1} claims {captured} bytes: the capture is damaged")
        number += 1
        yield Frame(
            number=number,
            nanoseconds=seconds * 10**9 + fraction * nanoseconds,
            link_type=link_type,
            data=_read(file, captured),
            wire_length=original,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interface:
    """`ticks`: timestamp units a second."""

    link_type: int
    snapshot_length: int
    ticks: int
    offset_seconds: int


class _Pcapng:
    """A pcapng file: sections, each with its byte order and its interfaces, of blocks."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._order = "<"
        self._interfaces: list[_Interface] = []
        self._number = 0

    def frames(self) -> Iterator[Frame]:
        kind = _SECTION_HEADER
        while True:
            body = self._section_header() if kind == _SECTION_HEADER else self._body(*self._length())
            if kind == _INTERFACE_DESCRIPTION:
                self._describe_interface(body)
            elif kind in (_ENHANCED_PACKET, _OBSOLETE_PACKET, _SIMPLE_PACKET):
                self._number += 1
                yield self._frame(kind, body)
            start = self._file.read(4)
            if not start:
                return
            if len(start) < 4:
                raise CaptureError(f"the capture is cut off after frame {self._number}")
            kind = self._uint32(start)

    def _section_header(self) -> bytes:
        """The rest of the block whose type was read; its byte order is in it, behind its length."""
        start = _read(self._file, 8)
        for order in "<>":
            if Struct(order + "I").unpack_from(start, 4)[0] == _BYTE_ORDER_MAGIC:
                self._order = order
                self._interfaces.clear()
                return self._body(self._uint32(start[:4]), 12)
        raise CaptureError("a pcapng section without byte order")

    def _length(self) -> tuple[int, int]:
        return self._uint32(_read(self._file, 4)), 8

    def _body(self, length: int, consumed: int) -> bytes:
        """What is left of a block of `length` bytes, without the length's repetition at its end."""
        if length < consumed + 4 or length % 4 or length > MAX_BLOCK_BYTES:
            raise CaptureError(f"a pcapng block of {length} bytes after frame {self._number}: the capture is damaged")
        body = _read(self._file, length - consumed - 4)
        if self._uint32(_read(self._file, 4)) != length:
            raise CaptureError(f"a pcapng block after frame {self._number} whose two lengths differ")
        return body

    def _describe_interface(self, body: bytes) -> None:
        # link type, reserved, snapshot length; then options
        fixed = Struct(self._order + "HHI")
        if len(body) < fixed.size or len(self._interfaces) == MAX_INTERFACES:
            raise CaptureError("a pcapng interface that is cut off, or too many of them")
        link_type, _, snapshot_length = fixed.unpack_from(body)
        ticks, offset = 10**6, 0
        for code, value in self._options(body[fixed.size :]):
            if code == _OPTION_TSRESOL and len(value) == 1:
                ticks = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** (value[0] & 0x7F)
            elif code == _OPTION_TSOFFSET and len(value) == 8:
                (offset,) = Struct(self._order + "q").unpack(value)
        self._interfaces.append(
            _Interface(link_type=link_type, snapshot_length=snapshot_length, ticks=ticks, offset_seconds=offset)
        )

    def _options(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        option = Struct(self._order + "HH")
        at = 0
        while at + option.size <= len(data):
            code, length = option.unpack_from(data, at)
            if code == _OPTION_END:
                return
            at += option.size
            yield code, data[at : at + length]
            at += length + -length % 4

    def _frame(self, kind: int, body: bytes) -> Frame:
        interface_id = high = low = 0
        if kind == _SIMPLE_PACKET:
            # original length; how much of it there is follows from the block's length
            (original,), start = self._fixed("I", body)
            captured = min(original, len(body) - start)
        elif kind == _ENHANCED_PACKET:
            # interface, timestamp (high, low), captured and original length
            (interface_id, high, low, captured, original), start = self._fixed("IIIII", body)
        else:
            # the same with a count of drops beside the interface
            (interface_id, _, high, low, captured, original), start = self._fixed("HHIIII", body)
        if interface_id >= len(self._interfaces) or captured > len(body) - start or captured > MAX_FRAME_BYTES:
            raise CaptureError(f"frame {self._number} is not as long as it claims, or of no interface")
        interface = self._interfaces[interface_id]
        if kind == _SIMPLE_PACKET and interface.snapshot_length:
            captured = min(captured, interface.snapshot_length)
        return Frame(
            number=self._number,
            nanoseconds=(high << 32 | low) * 10**9 // interface.ticks + interface.offset_seconds * 10**9,
            link_type=interface.link_type,
            data=body[start : start + captured],
            wire_length=original,
        )

    def _fixed(self, layout: str, body: bytes) -> tuple[tuple[int, ...], int]:
        """A block's fixed part, and where it ends."""
        fixed = Struct(self._order + layout)
        if len(body) < fixed.size:
            raise CaptureError(f"frame {self._number} is cut off: the capture is damaged")
        return fixed.unpack_from(body), fixed.size

    def _uint32(self, data: bytes) -> int:
        (value,) = Struct(self._order + "I").unpack(data)
        return int(value)


def _read(file: BinaryIO, length: int) -> bytes:
    data = file.read(length)
    if len(data) < length:
        raise CaptureError("the capture is cut off in the middle of a frame")
    return data
