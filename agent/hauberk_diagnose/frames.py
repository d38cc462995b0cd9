"""From captured frames to UDP datagrams: link layers, VLANs, IPv4 and IPv6, and packets that came in fragments.

What is no UDP over IP, or is cut off, is passed over without a word: captures are full of other things. Tunnels
(VXLAN, GRE) are not looked into.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import Final

from hauberk_diagnose.capture import Frame
from hauberk_ike import IpAddress, SocketAddress

# Link types (tcpdump.org's list).
_NULL: Final = frozenset({0, 108})
_ETHERNET: Final = 1
_RAW: Final = frozenset({12, 14, 101, 228, 229})
_LINUX_COOKED: Final = 113
_LINUX_COOKED_2: Final = 276

_IPV4_TYPE: Final = 0x0800
_IPV6_TYPE: Final = 0x86DD
_VLAN_TYPES: Final = frozenset({0x8100, 0x88A8, 0x9100})
_MAX_VLANS: Final = 4

_UDP: Final = 17
_FRAGMENT: Final = 44
# hop-by-hop, routing, destination options, mobility, HIP, shim6; all are (next header, length in units of 8 less one)
_EXTENSIONS: Final = frozenset({0, 43, 60, 135, 139, 140})
_MAX_EXTENSIONS: Final = 16

# source port, destination port, length, checksum
_UDP_HEADER: Final = Struct("!HHHH")
# next header, reserved, offset (13 bits) with flags, identification
_FRAGMENT_HEADER: Final = Struct("!BxHI")

MAX_PACKETS_IN_PIECES: Final = 256
MAX_PIECES: Final = 64
_MAX_PACKET: Final = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Udp:
    """A UDP datagram. `missing`: how many of its bytes the capture lacks."""

    source: SocketAddress
    destination: SocketAddress
    data: bytes
    missing: int = 0


@dataclass(slots=True)
class _Pieces:
    """What has come of a packet. `size` is known once its last piece has come."""

    data: dict[int, bytes] = field(default_factory=dict[int, bytes])
    size: int | None = None

    def whole(self) -> bytes | None:
        """All of it, once there is no gap. Pieces that overlap make no packet, as RFC 5722 has it."""
        if self.size is None:
            return None
        parts: list[bytes] = []
        at = 0
        for offset, piece in sorted(self.data.items()):
            if offset != at:
                return None
            parts.append(piece)
            at += len(piece)
        return b"".join(parts) if at == self.size else None


class Datagrams:
    """Remembers the pieces of packets, a bounded number of them."""

    def __init__(self) -> None:
        self._pieces: OrderedDict[tuple[bytes, bytes, int], _Pieces] = OrderedDict()

    def read(self, frame: Frame) -> Udp | None:
        """The UDP datagram that a frame carries, or completes."""
        found = _packet(frame)
        if found is None:
            return None
        version, packet = found
        return self._ipv4(packet) if version == 4 else self._ipv6(packet)

    def _ipv4(self, packet: bytes) -> Udp | None:
        header = 4 * (packet[0] & 0x0F)
        if len(packet) < 20 or header < 20:
            return None
        total = int.from_bytes(packet[2:4]) or len(packet)  # 0: left to the network card
        source, destination = packet[12:16], packet[16:20]
        flags = int.from_bytes(packet[6:8])
        if packet[9] != _UDP or total < header:
            return None
        payload, missing = packet[header:total], max(0, total - len(packet))
        offset, more = 8 * (flags & 0x1FFF), bool(flags & 0x2000)
        if offset or more:
            whole = self._gather((source, destination, int.from_bytes(packet[4:6])), offset, payload, more=more)
            if whole is None or missing:
                return None
            payload = whole
        return _udp(IPv4Address(source), IPv4Address(destination), payload, missing)

    def _ipv6(self, packet: bytes) -> Udp | None:
        if len(packet) < 40:
            return None
        total = 40 + int.from_bytes(packet[4:6])
        missing = max(0, total - len(packet))
        packet = packet[:total]
        source, destination = packet[8:24], packet[24:40]
        kind, at = packet[6], 40
        for _ in range(_MAX_EXTENSIONS):
            if kind == _UDP:
                return _udp(IPv6Address(source), IPv6Address(destination), packet[at:], missing)
            if len(packet) < at + 8:
                return None
            if kind == _FRAGMENT:
                kind, flags, identification = _FRAGMENT_HEADER.unpack_from(packet, at)
                key = (source, destination, identification)
                whole = self._gather(key, flags & 0xFFF8, packet[at + 8 :], more=bool(flags & 1))
                # What a fragment is of may have extension headers of its own; nobody sends IKE with them.
                if whole is None or missing or kind != _UDP:
                    return None
                return _udp(IPv6Address(source), IPv6Address(destination), whole, 0)
            if kind not in _EXTENSIONS:
                return None
            kind, at = packet[at], at + 8 * (packet[at + 1] + 1)
        return None

    def _gather(self, key: tuple[bytes, bytes, int], offset: int, piece: bytes, *, more: bool) -> bytes | None:
        pieces = self._pieces.setdefault(key, _Pieces())
        self._pieces.move_to_end(key)
        if len(self._pieces) > MAX_PACKETS_IN_PIECES:
            self._pieces.popitem(last=False)
        if offset + len(piece) > _MAX_PACKET or len(pieces.data) == MAX_PIECES:
            del self._pieces[key]
            return None
        pieces.data[offset] = piece
        if not more:
            pieces.size = offset + len(piece)
        whole = pieces.whole()
        if whole is not None:
            del self._pieces[key]
        return whole


def _packet(frame: Frame) -> tuple[int, bytes] | None:
    """The IP version, and the packet."""
    data = frame.data
    ethertype, at = 0, 0
    if frame.link_type == _ETHERNET and len(data) >= 14:
        ethertype, at = int.from_bytes(data[12:14]), 14
    elif frame.link_type == _LINUX_COOKED and len(data) >= 16:
        ethertype, at = int.from_bytes(data[14:16]), 16
    elif frame.link_type == _LINUX_COOKED_2 and len(data) >= 20:
        ethertype, at = int.from_bytes(data[:2]), 20
    elif frame.link_type in _NULL and len(data) >= 5:
        # An address family in the byte order of who captured: the packet itself says its version.
        return _by_version(data[4:])
    elif frame.link_type in _RAW:
        return _by_version(data)
    for _ in range(_MAX_VLANS):
        if ethertype not in _VLAN_TYPES or len(data) < at + 4:
            break
        ethertype, at = int.from_bytes(data[at + 2 : at + 4]), at + 4
    return _by_version(data[at:]) if ethertype in (_IPV4_TYPE, _IPV6_TYPE) else None


def _by_version(packet: bytes) -> tuple[int, bytes] | None:
    version = packet[0] >> 4 if packet else 0
    return (version, packet) if version in (4, 6) else None


def _udp(source: IpAddress, destination: IpAddress, payload: bytes, missing: int) -> Udp | None:
    if len(payload) < _UDP_HEADER.size:
        return None
    source_port, destination_port, length, _ = _UDP_HEADER.unpack_from(payload)
    if length < _UDP_HEADER.size:
        return None
    return Udp(
        source=SocketAddress(host=source, port=source_port),
        destination=SocketAddress(host=destination, port=destination_port),
        data=payload[_UDP_HEADER.size : length],
        missing=missing or max(0, length - len(payload)),
    )
