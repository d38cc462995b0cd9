"""Frames and captures made by hand, for the tests of the judge."""

import struct
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

ICMP, IPIP, TCP, UDP, IPV6, FRAGMENT, GRE, ESP, AH, ICMPV6 = 1, 4, 6, 17, 41, 44, 47, 50, 51, 58
IPV4_TYPE, ARP_TYPE, TEB_TYPE, VLAN_TYPE, IPV6_TYPE = 0x0800, 0x0806, 0x6558, 0x8100, 0x86DD


def ether_type(packet: bytes) -> int:
    """The ethertype of an IP packet."""
    return IPV4_TYPE if packet[0] >> 4 == 4 else IPV6_TYPE


def ip_in_ip(packet: bytes) -> int:
    """The protocol number of an IP packet inside an IP packet."""
    return IPIP if packet[0] >> 4 == 4 else IPV6


def ethernet(packet: bytes, ethertype: int | None = None) -> bytes:
    """A frame around an IP packet (the ethertype follows from its version) or around anything else."""
    kind = ethertype if ethertype is not None else ether_type(packet)
    return bytes.fromhex("02000000000b 02000000000c") + struct.pack("!H", kind) + packet


def vlan(packet: bytes, ethertype: int) -> bytes:
    return struct.pack("!HH", 42, ethertype) + packet


def ip(source: str, destination: str, protocol: int, payload: bytes, *, fragment: int = 0, hops: int = 64) -> bytes:
    """IPv4 or IPv6, as the addresses are. A `fragment` is an offset in bytes: not 0 means a later fragment."""
    ends = ip_address(source).packed + ip_address(destination).packed
    if len(ends) == 8:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, fragment // 8, hops, protocol, 0)
        return header + ends + payload
    if fragment:
        protocol, payload = FRAGMENT, struct.pack("!BBHI", protocol, 0, fragment, 7) + payload
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops) + ends + payload


def udp(source: int, destination: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", source, destination, 8 + len(payload), 0) + payload


def tcp(source: int, destination: int, payload: bytes = b"") -> bytes:
    return struct.pack("!HHIIBBHHH", source, destination, 1, 2, 5 << 4, 0x18, 65535, 0, 0) + payload


def icmp(kind: int, body: bytes) -> bytes:
    """An ICMP or ICMPv6 message; of an error, `body` is the quoted packet."""
    return struct.pack("!BBHI", kind, 0, 0, 0) + body


def esp(spi: int = 0xC0FFEE01, ciphertext: bytes = bytes(range(64))) -> bytes:
    return struct.pack("!II", spi, 1) + ciphertext


def ah(following: int) -> bytes:
    """An authentication header with an integrity check value of 12 bytes (RFC 4302)."""
    return struct.pack("!BBHII", following, 4, 0, 0x1000, 1) + bytes(12)


def vxlan(frame: bytes, port: int = 4789) -> bytes:
    return udp(51000, port, struct.pack("!BxxxI", 0x08, 7 << 8) + frame)


def vxlan_gpe(packet: bytes) -> bytes:
    return udp(51000, 4790, struct.pack("!BxxBI", 0x0C, 1 if packet[0] >> 4 == 4 else 2, 7 << 8) + packet)


def geneve(payload: bytes, ethertype: int = TEB_TYPE, options: bytes = b"") -> bytes:
    return udp(51000, 6081, struct.pack("!BBHI", len(options) // 4, 0, ethertype, 7 << 8) + options + payload)


def gre(payload: bytes, ethertype: int, *, key: bool = False, sequence: bool = False, checksum: bool = False) -> bytes:
    flags = checksum << 15 | key << 13 | sequence << 12
    return struct.pack("!HH", flags, ethertype) + bytes(4 * (key + sequence + checksum)) + payload


def capture_file(path: Path, frames: Iterable[bytes], *, start: float = 1000.0, step: float = 1.0) -> Path:
    """A pcap file with nanosecond timestamps, a frame each `step` seconds."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
        for number, frame in enumerate(frames):
            nanoseconds = round((start + number * step) * 1e9)
            file.write(struct.pack("<IIII", *divmod(nanoseconds, 10**9), len(frame), len(frame)) + frame)
    return path
