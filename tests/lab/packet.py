"""What a frame on the wire shows to whoever reads along: the addresses of every IP header that is not encrypted.

The judge (tests/lab/judge.py) calls `dissect` for each frame of a capture. The walk goes as deep as plaintext goes:
VLAN tags, IPv4, IPv6 with its extension headers, fragments, IP in IP, GRE, AH, VXLAN, VXLAN-GPE, Geneve, and the
packets that ICMP errors quote. It ends at ESP and at IKE, where the plaintext ends.

Written on offsets and `bytes` rather than on a packet library's objects: a capture has 200,000 frames, and frames come
truncated and as garbage, which must never raise. (The tests read the same frames with dpkt.)
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

# Deeper than any real stack of tunnels; it bounds the work that one hostile frame can ask for.
MAX_DEPTH = 16

_ETHERTYPE_IPV4 = 0x0800
_ETHERTYPE_TEB = 0x6558  # transparent Ethernet bridging: a whole frame inside GRE or Geneve
_ETHERTYPE_IPV6 = 0x86DD
_ETHERTYPES_VLAN = frozenset((0x8100, 0x88A8, 0x9100))

_ICMP, _IPIP, _TCP, _UDP, _IPV6, _ROUTING, _FRAGMENT, _GRE, _ESP, _AH, _ICMPV6 = 1, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58
# Hop-by-hop, routing, destination options, mobility, HIP, shim6: length in units of 8 bytes, not counting the first.
_EXTENSIONS = frozenset((0, _ROUTING, 60, 135, 139, 140))

_ICMP_ERRORS = frozenset((3, 4, 5, 11, 12))  # RFC 792: they quote the packet that they are about
_ICMPV6_ERRORS = frozenset((1, 2, 3, 4))  # RFC 4443
_ICMPV6_NEIGHBOUR_DISCOVERY = frozenset((133, 134, 135, 136, 137))  # RFC 4861

_PORT_IKE, _PORT_NATT = 500, 4500
_PORTS_VXLAN = frozenset((4789, 8472))  # IANA's, and the one that Linux had before
_PORT_VXLAN_GPE, _PORT_GENEVE = 4790, 6081

_LOWEST_SPI = 256  # RFC 4303 section 2.1: 0 is never on the wire, 1 to 255 are reserved

_PROTOCOL_NAMES = {
    _ICMP: "ICMP",
    _TCP: "TCP",
    _UDP: "UDP",
    _ESP: "ESP",
    _GRE: "GRE",
    _ICMPV6: "ICMPv6",
}


class Kind(StrEnum):
    """What the outermost IP packet of a frame is."""

    ESP = "esp"
    ESP_IN_UDP = "esp-in-udp"  # RFC 3948: UDP port 4500, no non-ESP marker
    IKE = "ike"  # UDP port 500; UDP port 4500 with the non-ESP marker, and NAT keepalives
    OTHER = "other"


@dataclass(slots=True)
class Dissection:
    """One frame.

    `ends` holds (source, destination) of every readable IP header, outermost first, as 4 or 16 bytes each. Headers of
    neighbour discovery are left out: like ARP it speaks about addresses and carries nobody's data.
    `protocol` is the innermost IP protocol that was reached (-1: none), `payload` its offset in the frame.
    """

    kind: Kind
    ends: list[tuple[bytes, bytes]]
    protocol: int
    payload: int


def _ipv6_upper_layer(frame: bytes, at: int) -> tuple[int, int, bool]:
    """Walk the extension headers of the IPv6 header at `at`: (protocol, its offset, whether it is a later fragment)."""
    protocol, at = frame[at + 6], at + 40
    # Each turn moves at least 8 bytes on, so the frame's length bounds the loop.
    while len(frame) >= at + 8:
        if protocol in _EXTENSIONS:
            protocol, at = frame[at], at + 8 * (frame[at + 1] + 1)
        elif protocol == _AH:
            protocol, at = frame[at], at + 4 * (frame[at + 1] + 2)
        elif protocol == _FRAGMENT:
            later = (frame[at + 2] << 8 | frame[at + 3]) >> 3 != 0
            protocol, at = frame[at], at + 8
            if later:
                return protocol, at, True
        else:
            break
    return protocol, at, False


def _gre_payload(frame: bytes, at: int) -> tuple[int, int]:
    """(ethertype, offset) of what the GRE header at `at` carries (RFC 2784, RFC 2890); ethertype 0 if unknown."""
    if len(frame) < at + 4 or frame[at] & 0x40 or frame[at + 1] & 0x07:  # source routes (RFC 1701), version 1 (PPTP)
        return 0, at
    optional = (frame[at] & 0x80 != 0) + (frame[at] & 0x20 != 0) + (frame[at] & 0x10 != 0)  # checksum, key, sequence
    return frame[at + 2] << 8 | frame[at + 3], at + 4 + 4 * optional


def _udp_payload(frame: bytes, at: int) -> tuple[int, int]:
    """(ethertype, offset) of what a tunnel over the UDP header at `at` carries; ethertype 0 if it is no tunnel."""
    port, at = frame[at + 2] << 8 | frame[at + 3], at + 8
    if len(frame) < at + 8:
        return 0, at
    if port in _PORTS_VXLAN:  # RFC 7348: always an Ethernet frame
        return _ETHERTYPE_TEB, at + 8
    if port == _PORT_GENEVE:  # RFC 8926: options in units of 4 bytes
        return frame[at + 2] << 8 | frame[at + 3], at + 8 + 4 * (frame[at] & 0x3F)
    if port == _PORT_VXLAN_GPE:  # draft-ietf-nvo3-vxlan-gpe: the next protocol is the header's fourth byte
        return {1: _ETHERTYPE_IPV4, 2: _ETHERTYPE_IPV6, 3: _ETHERTYPE_TEB}.get(frame[at + 3], 0), at + 8
    return 0, at


def _spi_at(frame: bytes, at: int) -> int:
    return int.from_bytes(frame[at : at + 4], "big") if len(frame) >= at + 8 else 0


def _udp_kind(frame: bytes, at: int) -> Kind:
    """Tell ESP in UDP, IKE and everything else apart by ports and non-ESP marker (RFC 3948 section 2)."""
    ports = (frame[at] << 8 | frame[at + 1], frame[at + 2] << 8 | frame[at + 3])
    if _PORT_NATT in ports:
        if _spi_at(frame, at + 8) >= _LOWEST_SPI:
            return Kind.ESP_IN_UDP
        if frame[at + 8 : at + 12] == b"\0\0\0\0" or frame[at + 8 : at + 9] == b"\xff":
            return Kind.IKE
        return Kind.OTHER
    return Kind.IKE if _PORT_IKE in ports else Kind.OTHER


def dissect(frame: bytes) -> Dissection:
    """Walk an Ethernet frame's headers as deep as they are readable. Never raises, whatever the bytes."""
    found = Dissection(Kind.OTHER, [], -1, len(frame))
    ethertype, at, size = _ETHERTYPE_TEB, 0, len(frame)
    for depth in range(MAX_DEPTH):
        if ethertype == _ETHERTYPE_TEB:
            if size < at + 14:
                return found
            ethertype, at = frame[at + 12] << 8 | frame[at + 13], at + 14
        while ethertype in _ETHERTYPES_VLAN and size >= at + 4:
            ethertype, at = frame[at + 2] << 8 | frame[at + 3], at + 4

        # The IP header.
        if ethertype == _ETHERTYPE_IPV4:
            if size < at + 20 or frame[at] >> 4 != 4:
                return found
            ends = (frame[at + 12 : at + 16], frame[at + 16 : at + 20])
            protocol, later = frame[at + 9], (frame[at + 6] & 0x1F or frame[at + 7]) != 0
            hops, at = frame[at + 8], at + 4 * max(frame[at] & 0x0F, 5)
            if protocol == _AH and not later and size >= at + 8:
                protocol, at = frame[at], at + 4 * (frame[at + 1] + 2)
        elif ethertype == _ETHERTYPE_IPV6:
            if size < at + 40 or frame[at] >> 4 != 6:
                return found
            ends, hops = (frame[at + 8 : at + 24], frame[at + 24 : at + 40]), frame[at + 7]
            protocol, at, later = _ipv6_upper_layer(frame, at)
        else:
            return found
        found.ends.append(ends)
        found.protocol, found.payload = protocol, at

        # What it carries. A later fragment has addresses and a protocol, but no header of that protocol.
        if protocol == _ESP:
            if depth == 0 and (later or _spi_at(frame, at) >= _LOWEST_SPI):
                found.kind = Kind.ESP
            return found
        if later or protocol == _TCP:
            return found
        if protocol == _UDP:
            if size < at + 8:
                return found
            if depth == 0:
                found.kind = _udp_kind(frame, at)
            ethertype, at = _udp_payload(frame, at)
        elif protocol == _IPIP:
            ethertype = _ETHERTYPE_IPV4
        elif protocol == _IPV6:
            ethertype = _ETHERTYPE_IPV6
        elif protocol == _GRE:
            ethertype, at = _gre_payload(frame, at)
        elif protocol == _ICMP and size > at and frame[at] in _ICMP_ERRORS:
            ethertype, at = _ETHERTYPE_IPV4, at + 8
        elif protocol == _ICMPV6 and size > at and frame[at] in _ICMPV6_ERRORS:
            ethertype, at = _ETHERTYPE_IPV6, at + 8
        else:
            # RFC 4861 section 7.1: hop limit 255, or it is no neighbour discovery and gets no exemption.
            if protocol == _ICMPV6 and size > at and frame[at] in _ICMPV6_NEIGHBOUR_DISCOVERY and hops == 255:
                found.ends.pop()
            return found
    return found


def describe(frame: bytes) -> str:
    """One line for people: every readable pair of addresses from the outside in, last protocol, ports, size."""
    found = dissect(frame)
    headers = [f"{ip_address(source)} > {ip_address(destination)}" for source, destination in found.ends]
    protocol = _PROTOCOL_NAMES.get(found.protocol, f"protocol {found.protocol}") if found.protocol >= 0 else "no IP"
    if found.protocol in (_TCP, _UDP) and len(frame) >= found.payload + 4:
        source, destination = (int.from_bytes(frame[found.payload + n : found.payload + n + 2], "big") for n in (0, 2))
        protocol += f" {source} > {destination}"
    return f"{' | '.join(headers) or 'no IP addresses'} {protocol}, {len(frame)} bytes"
