"""UDP datagrams out of frames of every kind that captures hold."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_diagnose.capture import Frame
from hauberk_diagnose.frames import MAX_PACKETS_IN_PIECES, Datagrams, Udp
from tests.unit.lab.frames import FRAGMENT, TCP, UDP, VLAN_TYPE, ether_type, ethernet, ip, tcp, udp, vlan

MESSAGE = b"an IKE message"
IPV4 = ip("192.0.2.1", "192.0.2.2", UDP, udp(500, 4500, MESSAGE))
IPV6 = ip("2001:db8::1", "2001:db8::2", UDP, udp(500, 4500, MESSAGE))


def frame(data: bytes, link_type: int = 1, *, number: int = 1) -> Frame:
    return Frame(number=number, nanoseconds=0, link_type=link_type, data=data, wire_length=len(data))


def read(data: bytes, link_type: int = 1) -> Udp | None:
    return Datagrams().read(frame(data, link_type))


def cooked(packet: bytes) -> bytes:
    return bytes(14) + struct.pack("!H", ether_type(packet)) + packet


def cooked_2(packet: bytes) -> bytes:
    return struct.pack("!H", ether_type(packet)) + bytes(18) + packet


@pytest.mark.parametrize("packet", [IPV4, IPV6])
def test_every_link_layer(packet: bytes) -> None:
    tagged = vlan(packet, ether_type(packet))
    for data, link_type in (
        (ethernet(packet), 1),
        (ethernet(tagged, VLAN_TYPE), 1),
        (ethernet(vlan(tagged, VLAN_TYPE), 0x88A8), 1),
        (cooked(packet), 113),
        (cooked_2(packet), 276),
        (bytes(4) + packet, 0),
        (packet, 101),
        (packet, 228),
    ):
        found = read(data, link_type)
        assert found is not None, link_type
        assert found.data == MESSAGE
        assert (found.source.port, found.destination.port, found.missing) == (500, 4500, 0)


def test_addresses() -> None:
    found = read(ethernet(IPV6))
    assert found is not None
    assert (str(found.source), str(found.destination)) == ("[2001:db8::1]:500", "[2001:db8::2]:4500")


def test_ethernet_padding_is_no_part_of_a_packet() -> None:
    found = read(ethernet(IPV4) + bytes(20))
    assert found is not None
    assert found.data == MESSAGE


def test_a_frame_that_is_cut_off_says_how_much_is_missing() -> None:
    for packet in (IPV4, IPV6):
        found = read(ethernet(packet)[:-4])
        assert found is not None
        assert (found.data, found.missing) == (MESSAGE[:-4], 4)


def test_extension_headers_are_passed() -> None:
    destination_options = struct.pack("!BB", UDP, 1) + bytes(14)
    packet = ip("2001:db8::1", "2001:db8::2", 60, destination_options + udp(500, 500, MESSAGE))
    found = read(ethernet(packet))
    assert found is not None
    assert found.data == MESSAGE


def ipv4_piece(whole: bytes, offset: int, size: int) -> bytes:
    piece = bytearray(ip("192.0.2.1", "192.0.2.2", UDP, whole[offset : offset + size]))
    more = offset + size < len(whole)
    piece[6:8] = struct.pack("!H", more << 13 | offset // 8)
    return ethernet(bytes(piece))


def ipv6_piece(whole: bytes, offset: int, size: int) -> bytes:
    more = offset + size < len(whole)
    header = struct.pack("!BBHI", UDP, 0, offset | more, 7)
    return ethernet(ip("2001:db8::1", "2001:db8::2", FRAGMENT, header + whole[offset : offset + size]))


@pytest.mark.parametrize("piece", [ipv4_piece, ipv6_piece])
def test_packets_in_pieces_are_put_together_in_any_order(piece: Callable[[bytes, int, int], bytes]) -> None:
    message = bytes(range(200))
    whole = udp(500, 500, message)
    datagrams = Datagrams()
    for offset in (160, 0):
        assert datagrams.read(frame(piece(whole, offset, 80))) is None
    found = datagrams.read(frame(piece(whole, 80, 80)))
    assert found is not None
    assert found.data == message
    assert datagrams.read(frame(piece(whole, 80, 80))) is None, "its packet is done"


def test_pieces_that_overlap_make_no_packet() -> None:
    whole = udp(500, 500, bytes(160))
    datagrams = Datagrams()
    assert datagrams.read(frame(ipv4_piece(whole, 0, 88))) is None
    assert datagrams.read(frame(ipv4_piece(whole, 80, 88))) is None


def test_memory_for_pieces_is_bounded() -> None:
    datagrams = Datagrams()
    for number in range(2 * MAX_PACKETS_IN_PIECES):
        piece = bytearray(ipv4_piece(bytes(160), 0, 80))
        piece[18:20] = number.to_bytes(2)  # the packet's identification
        datagrams.read(frame(bytes(piece)))
    assert len(datagrams._pieces) <= MAX_PACKETS_IN_PIECES  # pyright: ignore[reportPrivateUsage]


def test_what_is_no_udp_is_passed_over() -> None:
    assert read(ethernet(ip("192.0.2.1", "192.0.2.2", TCP, tcp(1, 2)))) is None
    assert read(ethernet(b"", 0x0806)) is None
    assert read(b"") is None
    assert read(IPV4, 999) is None


@given(st.binary(max_size=120), st.sampled_from([0, 1, 12, 101, 113, 228, 229, 276, 5]), st.integers(0, 60))
def test_any_bytes_are_a_datagram_or_nothing(data: bytes, link_type: int, kept: int) -> None:
    datagrams = Datagrams()
    for one in (data, ethernet(IPV4)[:kept] + data, ethernet(IPV6)[:kept] + data, IPV4[:kept] + data):
        datagrams.read(frame(one, link_type))
