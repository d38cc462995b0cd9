"""What stands readable in a frame, at every nesting."""

import struct
from collections.abc import Callable
from importlib import import_module
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab.packet import Kind, describe, dissect
from tests.unit.lab import frames as f

NODES4, NODES6 = ("10.250.0.11", "10.250.0.12"), ("fd00:250::11", "fd00:250::12")
PODS4, PODS6 = ("10.244.11.5", "10.244.12.7"), ("fd00:244:11::5", "fd00:244:12::7")
POD_PACKET4 = f.ip(*PODS4, f.UDP, f.udp(1000, 2000, b"hello"))
POD_PACKET6 = f.ip(*PODS6, f.TCP, f.tcp(1000, 2000, b"hello"))


# How a tunnel carries an IP packet: the packet -> (IP protocol, payload) of the outer one.
TUNNELS: dict[str, Callable[[bytes], tuple[int, bytes]]] = {
    "vxlan": lambda p: (f.UDP, f.vxlan(f.ethernet(p))),
    "vxlan-8472": lambda p: (f.UDP, f.vxlan(f.ethernet(p), 8472)),
    "vlan-in-vxlan": lambda p: (f.UDP, f.vxlan(f.ethernet(f.vlan(p, f.ether_type(p)), f.VLAN_TYPE))),
    "vxlan-gpe": lambda p: (f.UDP, f.vxlan_gpe(p)),
    "geneve": lambda p: (f.UDP, f.geneve(f.ethernet(p))),
    "geneve-options": lambda p: (f.UDP, f.geneve(f.ethernet(p), options=bytes(12))),
    "geneve-ip": lambda p: (f.UDP, f.geneve(p, f.ether_type(p))),
    "ip-in-ip": lambda p: (f.ip_in_ip(p), p),
    "gre": lambda p: (f.GRE, f.gre(p, f.ether_type(p))),
    "gre-options": lambda p: (f.GRE, f.gre(p, f.ether_type(p), key=True, sequence=True, checksum=True)),
    "gretap": lambda p: (f.GRE, f.gre(f.ethernet(p), f.TEB_TYPE, key=True)),
    "ah": lambda p: (f.AH, f.ah(f.ip_in_ip(p)) + p),
}


def ends(frame: bytes) -> list[tuple[str, str]]:
    return [(str(ip_address(a)), str(ip_address(b))) for a, b in dissect(frame).ends]


def extension(following: int, units: int = 0) -> bytes:
    return bytes((following, units)) + bytes(6 + 8 * units)


@pytest.mark.parametrize("inner", [POD_PACKET4, POD_PACKET6], ids=["inner4", "inner6"])
@pytest.mark.parametrize("outer", [NODES4, NODES6], ids=["outer4", "outer6"])
@pytest.mark.parametrize("wrapped", TUNNELS.values(), ids=TUNNELS)
def test_a_tunnel_hides_nothing(
    wrapped: Callable[[bytes], tuple[int, bytes]], outer: tuple[str, str], inner: bytes
) -> None:
    protocol, payload = wrapped(inner)
    frame = f.ethernet(f.ip(*outer, protocol, payload))
    assert ends(frame) == [outer, PODS4 if inner[0] >> 4 == 4 else PODS6]
    assert dissect(frame).kind is Kind.OTHER


def test_tunnels_within_tunnels() -> None:
    packet = f.ip(*NODES6, f.UDP, f.vxlan(f.ethernet(f.ip(*NODES4, f.GRE, f.gre(POD_PACKET6, f.IPV6_TYPE)))))
    assert ends(f.ethernet(packet)) == [NODES6, NODES4, PODS6]


@pytest.mark.parametrize("tags", [1, 2, 3])
def test_vlan_tags_are_passed(tags: int) -> None:
    packet, ethertype = POD_PACKET4, f.IPV4_TYPE
    for _ in range(tags):
        packet, ethertype = f.vlan(packet, ethertype), f.VLAN_TYPE
    assert ends(f.ethernet(packet, ethertype)) == [PODS4]


@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
def test_an_icmp_error_shows_the_packet_that_it_quotes(kind: int) -> None:
    # Eight bytes after the quoted header are all that RFC 792 asks for.
    frame = f.ethernet(f.ip(*NODES4, f.ICMP, f.icmp(kind, POD_PACKET4[:28])))
    assert ends(frame) == [NODES4, PODS4]


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_an_icmpv6_error_shows_the_packet_that_it_quotes(kind: int) -> None:
    assert ends(f.ethernet(f.ip(*NODES6, f.ICMPV6, f.icmp(kind, POD_PACKET6)))) == [NODES6, PODS6]


def test_an_echo_is_no_error_and_quotes_nothing() -> None:
    assert ends(f.ethernet(f.ip(*NODES4, f.ICMP, f.icmp(8, POD_PACKET4)))) == [NODES4]
    assert ends(f.ethernet(f.ip(*NODES6, f.ICMPV6, f.icmp(128, POD_PACKET6)))) == [NODES6]


def test_ipv6_extension_headers_are_walked() -> None:
    chain = extension(60, 2) + extension(43) + extension(f.UDP, 1)  # hop-by-hop, destination options, routing
    frame = f.ethernet(f.ip(*NODES6, 0, chain + f.vxlan(f.ethernet(POD_PACKET4))))
    assert ends(frame) == [NODES6, PODS4]


@pytest.mark.parametrize("pods", [PODS4, PODS6])
def test_every_fragment_has_addresses(pods: tuple[str, str]) -> None:
    # A later fragment's payload is not a header: here it looks like VXLAN, and is not taken for it.
    payload = f.vxlan(f.ethernet(POD_PACKET4))
    assert ends(f.ethernet(f.ip(*pods, f.UDP, payload, fragment=1480))) == [pods]


def test_the_first_fragment_shows_what_it_carries() -> None:
    packet = struct.pack("!BBHI", f.UDP, 0, 1, 7) + f.vxlan(f.ethernet(POD_PACKET4))  # offset 0, more to come
    assert ends(f.ethernet(f.ip(*NODES6, f.FRAGMENT, packet))) == [NODES6, PODS4]


@pytest.mark.parametrize("nodes", [NODES4, NODES6])
@pytest.mark.parametrize(
    ("protocol", "payload", "kind"),
    [
        pytest.param(f.ESP, f.esp(), Kind.ESP, id="esp"),
        pytest.param(f.UDP, f.udp(4500, 4500, f.esp()), Kind.ESP_IN_UDP, id="esp-in-udp"),
        pytest.param(f.UDP, f.udp(61000, 4500, f.esp()), Kind.ESP_IN_UDP, id="esp-in-udp-behind-nat"),
        pytest.param(f.UDP, f.udp(500, 500, bytes(range(1, 80))), Kind.IKE, id="ike"),
        pytest.param(f.UDP, f.udp(4500, 4500, bytes(4) + bytes(range(1, 80))), Kind.IKE, id="ike-4500"),
        pytest.param(f.UDP, f.udp(4500, 4500, b"\xff"), Kind.IKE, id="keepalive"),
        pytest.param(f.UDP, f.udp(4500, 4500, f.esp(spi=255)), Kind.OTHER, id="reserved-spi-in-udp"),
        pytest.param(f.ESP, f.esp(spi=255), Kind.OTHER, id="reserved-spi"),
        pytest.param(f.ESP, b"", Kind.OTHER, id="no-esp-header"),
        pytest.param(f.UDP, f.udp(53, 53, b"x" * 40), Kind.OTHER, id="dns"),
        pytest.param(f.TCP, f.tcp(4500, 4500, f.esp()), Kind.OTHER, id="tcp-4500"),
    ],
)
def test_kinds(nodes: tuple[str, str], protocol: int, payload: bytes, kind: Kind) -> None:
    frame = f.ethernet(f.ip(*nodes, protocol, payload))
    assert dissect(frame).kind is kind
    assert ends(frame) == [nodes]


def test_a_later_fragment_of_esp_is_esp() -> None:
    for nodes in (NODES4, NODES6):
        assert dissect(f.ethernet(f.ip(*nodes, f.ESP, bytes(40), fragment=1480))).kind is Kind.ESP


def test_esp_is_no_plaintext_even_where_its_ciphertext_looks_like_a_packet() -> None:
    assert ends(f.ethernet(f.ip(*NODES4, f.ESP, f.esp(ciphertext=POD_PACKET4)))) == [NODES4]
    assert ends(f.ethernet(f.ip(*NODES4, f.UDP, f.udp(4500, 4500, f.esp(ciphertext=POD_PACKET4))))) == [NODES4]


def test_esp_inside_an_overlay_is_not_the_frame_being_esp() -> None:
    inner = f.ip(*PODS4, f.ESP, f.esp())
    found = dissect(f.ethernet(f.ip(*NODES4, f.UDP, f.vxlan(f.ethernet(inner)))))
    assert found.kind is Kind.OTHER


def test_neighbour_discovery_and_arp_show_no_data() -> None:
    solicitation = f.icmp(135, ip_address(PODS6[1]).packed)
    assert ends(f.ethernet(f.ip(PODS6[0], "ff02::1:ff00:7", f.ICMPV6, solicitation, hops=255))) == []
    arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + bytes(6) + ip_address(PODS4[0]).packed + bytes(10)
    assert ends(f.ethernet(arp, f.ARP_TYPE)) == []


def test_what_only_poses_as_neighbour_discovery_is_no_exception() -> None:
    # RFC 4861 section 7.1.1: routers don't pass on hop limit 255, so anything less came from afar.
    assert ends(f.ethernet(f.ip(*PODS6, f.ICMPV6, f.icmp(136, bytes(16)), hops=64))) == [PODS6]


def test_dpkt_reads_the_same_addresses() -> None:
    """Our own frames, seen through somebody else's eyes: the builders and the walk agree with dpkt."""
    dpkt: Any = import_module("dpkt")
    outer = dpkt.ethernet.Ethernet(f.ethernet(f.ip(*NODES4, f.UDP, f.vxlan(f.ethernet(POD_PACKET6)))))
    inner = dpkt.ethernet.Ethernet(outer.data.data.data[8:])
    assert (outer.data.src, outer.data.dst, outer.data.data.dport) == (*(ip_address(a).packed for a in NODES4), 4789)
    assert (inner.data.src, inner.data.dst) == tuple(ip_address(a).packed for a in PODS6)
    assert bytes(inner.data.data.data) == b"hello"


def test_a_line_for_people() -> None:
    frame = f.ethernet(f.ip(*NODES4, f.UDP, f.vxlan(f.ethernet(POD_PACKET6))))
    assert describe(frame) == (
        "10.250.0.11 > 10.250.0.12 | fd00:244:11::5 > fd00:244:12::7 TCP 1000 > 2000, "
        f"{len(frame)} bytes"
    )  # fmt: skip


NESTED = f.ethernet(
    f.ip(
        *NODES6,
        0,
        extension(f.UDP) + f.vxlan(f.ethernet(f.ip(*NODES4, f.GRE, f.gre(POD_PACKET4, f.IPV4_TYPE, key=True)))),
    )
)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame(garbage: bytes) -> None:
    dissect(garbage)
    describe(garbage)


@given(
    st.integers(0, len(NESTED)), st.lists(st.tuples(st.integers(0, len(NESTED) - 1), st.integers(0, 255)), max_size=4)
)
def test_truncated_and_corrupted_frames_never_raise(length: int, changes: list[tuple[int, int]]) -> None:
    frame = bytearray(NESTED)
    for at, value in changes:
        frame[at] = value
    for a, b in dissect(bytes(frame[:length])).ends:
        assert len(a) == len(b) in (4, 16)
    describe(bytes(frame[:length]))


@pytest.mark.parametrize(
    ("head", "protocols"), [(f.ethernet(b"", f.IPV4_TYPE), range(256)), (f.ethernet(b"", f.IPV6_TYPE), range(256))]
)
def test_every_protocol_with_every_short_payload(head: bytes, protocols: range) -> None:
    pair = PODS4 if head.endswith(b"\x08\x00") else PODS6
    for protocol in protocols:
        for size in range(24):
            dissect(head + f.ip(*pair, protocol, b"\xff" * size))


def test_endless_nesting_ends() -> None:
    packet = POD_PACKET4
    for _ in range(100):
        packet = f.ip(*NODES4, f.IPIP, packet)
    assert len(dissect(f.ethernet(packet)).ends) == 16
