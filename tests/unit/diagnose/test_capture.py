"""Capture files of all kinds, whole and damaged."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_diagnose.capture import CaptureError, Frame, read_frames

RECORDED = Path(__file__).parent / "recorded" / "handshake.pcap"
FRAMES = [b"first", b"second frame"]


def read(data: bytes) -> list[Frame]:
    return list(read_frames(io.BytesIO(data)))


def pcap(order: str, magic: int, frames: Sequence[bytes], *, link_type: int = 1) -> bytes:
    records = [
        struct.pack(order + "IIII", 1000 + number, 5, len(frame), len(frame) + 1) + frame
        for number, frame in enumerate(frames)
    ]
    return struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link_type) + b"".join(records)


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, link_type: int, *options: tuple[int, bytes]) -> bytes:
    body = struct.pack(order + "HHI", link_type, 0, 65535)
    for code, value in options:
        body += struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)
    return block(order, 1, body)


def packet(order: str, interface_id: int, time: int, frame: bytes) -> bytes:
    return block(
        order, 6, struct.pack(order + "IIIII", interface_id, time >> 32, time & 0xFFFFFFFF, len(frame), 99) + frame
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "nanoseconds"), [(0xA1B2C3D4, 5000), (0xA1B23C4D, 5)])
def test_pcap_in_both_byte_orders_and_resolutions(order: str, magic: int, nanoseconds: int) -> None:
    frames = read(pcap(order, magic, FRAMES, link_type=113))
    assert [frame.data for frame in frames] == FRAMES
    assert [frame.number for frame in frames] == [1, 2]
    assert frames[1].nanoseconds == 1001 * 10**9 + nanoseconds
    assert {frame.link_type for frame in frames} == {113}
    assert frames[0].wire_length == len(FRAMES[0]) + 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_with_two_interfaces_and_blocks_of_no_interest(order: str) -> None:
    data = b"".join(
        (
            section(order),
            interface(order, 1),
            block(order, 4, bytes(8)),  # name resolution
            interface(order, 276, (9, b"\x09"), (14, struct.pack(order + "q", 100))),
            packet(order, 0, 7_000_000, FRAMES[0]),
            packet(order, 1, 7, FRAMES[1]),
            block(order, 3, struct.pack(order + "I", 3) + b"abc"),  # a simple packet, of the first interface
        )
    )
    first, second, third = read(data)
    assert (first.link_type, first.nanoseconds, first.data) == (1, 7 * 10**9, FRAMES[0])
    assert (second.link_type, second.nanoseconds, second.data) == (276, 100 * 10**9 + 7, FRAMES[1])
    assert (third.link_type, third.nanoseconds, third.data) == (1, 0, b"abc")


def test_a_second_section_begins_anew() -> None:
    data = section("<") + interface("<", 1) + packet("<", 0, 0, FRAMES[0])
    data += section(">") + interface(">", 101) + packet(">", 0, 0, FRAMES[1])
    assert [(frame.number, frame.link_type) for frame in read(data)] == [(1, 1), (2, 101)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither pcap nor pcapng"),
        (b"\x1f\x8b\x08\x00", "gunzip it first"),
        (b"nonsense", "neither pcap nor pcapng"),
        (pcap("<", 0xA1B2C3D4, FRAMES)[:-1], "in the middle of a frame"),
        (pcap("<", 0xA1B2C3D4, []) + b"\0" * 7, "cut off after frame 0"),
        (pcap("<", 0xA1B2C3D4, []) + struct.pack("<IIII", 0, 0, 1 << 31, 0), "claims 2147483648 bytes"),
        (section("<")[:12], "cut off"),
        (b"\x0a\x0d\x0d\x0a" + bytes(24), "without byte order"),
        (section("<") + packet("<", 0, 0, b"x"), "of no interface"),
        (section("<") + interface("<", 1) + struct.pack("<II", 6, 1 << 30), "a pcapng block of 1073741824 bytes"),
        (section("<") + block("<", 1, b""), "interface that is cut off"),
        (section("<") + interface("<", 1)[:-4] + struct.pack("<I", 99), "two lengths differ"),
    ],
)
def test_damage_is_named(data: bytes, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        read(data)


def test_what_comes_before_the_damage_is_read() -> None:
    frames = read_frames(io.BytesIO(pcap("<", 0xA1B2C3D4, FRAMES)[:-1]))
    assert next(frames).data == FRAMES[0]
    with pytest.raises(CaptureError):
        next(frames)


@given(st.binary(max_size=200), st.sampled_from(["pcap", "pcapng"]))
def test_any_bytes_are_frames_or_damage(rest: bytes, kind: str) -> None:
    start = pcap("<", 0xA1B2C3D4, []) if kind == "pcap" else section("<") + interface("<", 1)
    for data in (rest, start + rest):
        try:
            read(data)
        except CaptureError:
            continue


@given(st.data())
def test_any_damage_to_a_real_capture_is_read_or_named(data: st.DataObject) -> None:
    capture = bytearray(RECORDED.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        capture[data.draw(st.integers(0, len(capture) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(capture))
    except CaptureError:
        return
