"""Reads capture files (the classic pcap format that tcpdump writes), one frame at a time, for the judge."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.lab.errors import LabError

# magic, version major and minor, time zone, accuracy, snapshot length, link type
_FILE_HEADER = struct.Struct("IHHiIII")
_LINK_TYPE_ETHERNET = 1
# Magic numbers read in the file's own byte order, and how many of the record's fractions make a second.
_FRACTIONS = {0xA1B2C3D4: 1_000_000, 0xA1B23C4D: 1_000_000_000}
# tcpdump's own limit. A longer record means that we read garbage, and would only ask for its memory.
_MAX_FRAME_BYTES = 262_144


class CaptureFileError(LabError):
    """The file is no Ethernet capture, or ends in the middle of a frame: it proves nothing."""


class Record(NamedTuple):
    """One captured frame: seconds since the epoch, bytes, and how long the frame was on the wire."""

    time: float
    frame: bytes
    wire_bytes: int


def read(path: Path) -> Iterator[Record]:
    """The frames of a pcap file in the order of capture. Raises CaptureFileError, OSError."""
    with path.open("rb", buffering=1 << 20) as file:
        start = file.read(_FILE_HEADER.size)
        order = next((o for o in "<>" if len(start) == 24 and struct.unpack(o + "I", start[:4])[0] in _FRACTIONS), None)
        if order is None:
            raise CaptureFileError(f"{path}: not a pcap file")
        magic, _, _, _, _, _, link_type = struct.unpack(order + _FILE_HEADER.format, start)
        if link_type & 0xFFFF != _LINK_TYPE_ETHERNET:
            raise CaptureFileError(f"{path}: link type {link_type & 0xFFFF}, not Ethernet")
        fractions = _FRACTIONS[magic]
        header = struct.Struct(order + "IIII")  # seconds, fractions, captured length, length on the wire
        while start := file.read(header.size):
            if len(start) < header.size:
                raise CaptureFileError(f"{path}: ends within a frame's header")
            seconds, fraction, captured, on_wire = header.unpack(start)
            if captured > _MAX_FRAME_BYTES:
                raise CaptureFileError(f"{path}: a frame of {captured} bytes")
            frame = file.read(captured)
            if len(frame) < captured:
                raise CaptureFileError(f"{path}: ends within a frame")
            yield Record(seconds + fraction / fractions, frame, on_wire)
