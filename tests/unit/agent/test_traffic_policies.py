"""The policies of the classes of traffic beside the pod network, as tables of packets.

A reqid is 1000 times the tunnel's place in the plan, 100 times the flow's index, and the peer's number, in hexadecimal.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_network
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_agent.narrowing import masked, narrowed
from hauberk_agent.ownership import PRIORITIES, owns_policy
from hauberk_agent.policy import desired_policies
from hauberk_agent.reqid import ChildKey
from hauberk_agent.roster import Roster
from hauberk_api.mesh import NonMembers
from hauberk_api.names import NodeUid, TunnelUid
from hauberk_api.node import Role
from hauberk_api.plan import Phase
from hauberk_api.tunnel import PortRange, Topology, Traffic, TrafficType
from hauberk_xfrm import Direction, Mode, Policy, ReqId
from tests.unit.agent.mesh import HOST, POD_NETWORK, VXLAN, node, plan, roster, tunnel
from tests.unit.agent.packets import ICMP6, TCP, UDP, Packet, outcome, tcp, udp

IN, OUT, FWD = Direction.IN, Direction.OUT, Direction.FWD
N1, N2, N3, N1_6, N2_6 = "10.250.0.1", "10.250.0.2", "10.250.0.3", "fd00:250::1", "fd00:250::2"
POD1, POD2, POD3, UNKNOWN_POD, WORLD = "10.244.1.5", "10.244.2.5", "10.244.3.5", "10.244.9.5", "192.0.2.80"
PODS = ("10.244.0.0/16", "fd00:244::/32")
TUNNELS = ("t0", "t1", "t2")


def reqid(key: ChildKey) -> ReqId:
    return ReqId(0x48000000 + 0x1000 * TUNNELS.index(key.tunnel) + 0x100 * key.index + int(key.peer[len("uid-") :]))


def policies(found: Roster, sendable: Collection[ChildKey] = (), first_client_port: int = 32768) -> tuple[Policy, ...]:
    made = desired_policies(found, reqid, sendable=sendable, first_client_port=first_client_port)
    assert all(owns_policy(policy) and policy.priority in PRIORITIES for policy in made)
    return made


def fate(found: Roster, direction: Direction, packet: Packet, sendable: Collection[ChildKey] = ()) -> str:
    return outcome(policies(found, sendable), direction, packet).replace(" 4800", " ")


def mesh(
    *traffic: Traffic, size: int = 2, non_members: NonMembers = NonMembers.DENY, phase: Phase = Phase.BLOCK
) -> Roster:
    """n1's view; n9 is known, and in no tunnel."""
    tunnels = [tunnel(uid, traffic=each, phase=phase) for uid, each in zip(TUNNELS, traffic, strict=False)]
    uids = [each.uid for each in tunnels]
    nodes = {f"n{number}": node(number, tunnels=uids) for number in range(1, size + 1)}
    return roster("n1", plan(*tunnels, pod_networks=PODS, non_members=non_members), n9=node(9, tunnels=()), **nodes)


# Overlay


@pytest.mark.parametrize(
    ("direction", "packet", "expected"),
    [
        # Flow 0 is what n1, the lower name, sends to the port, flow 1 what n2 sends; 2 and 3 in the other family.
        (OUT, udp(N1, N2, 51000, 4789), "protect 0002"),
        (IN, udp(N2, N1, 52000, 4789), "protect 0102"),
        (OUT, udp(N1_6, N2_6, 51000, 4789), "protect 0202"),
        (IN, udp(N2_6, N1_6, 51000, 4789), "protect 0302"),
        # Both ports the overlay's: where it is sent to counts.
        (OUT, udp(N1, N2, 4789, 4789), "protect 0002"),
        (IN, udp(N2, N1, 4789, 4789), "protect 0102"),
        # From and to anybody else.
        (OUT, udp(N1, "10.250.0.77", 51000, 4789), "block"),
        (IN, udp("10.250.0.77", N1, 51000, 4789), "block"),
        (IN, udp(WORLD, N1, 51000, 4789), "block"),
        (OUT, udp(N1_6, "fd00:250::77", 51000, 4789), "block"),
        (OUT, udp(N1, "10.250.0.9", 51000, 4789), "block"),
        # Whatever else there is, and pods' own.
        (OUT, udp(N1, N2, 51000, 4790), "clear"),
        (OUT, udp(N1, N2, 4789, 51000), "clear"),
        (OUT, tcp(N1, N2, 51000, 4789), "clear"),
        (OUT, udp(POD1, POD2, 51000, 8080), "clear"),
        (FWD, udp(POD1, WORLD, 51000, 4789), "clear"),
        (OUT, udp(POD1, UNKNOWN_POD, 51000, 8080), "clear"),
    ],
)
def test_overlay(direction: Direction, packet: Packet, expected: str) -> None:
    assert fate(mesh(VXLAN), direction, packet) == expected


def test_an_overlay_goes_in_transport_mode_between_the_outer_addresses() -> None:
    modes = {
        (policy.selector.source.version, template.mode)
        for policy in policies(mesh(VXLAN))
        for template in policy.templates
    }
    assert modes == {(4, Mode.TRANSPORT), (6, Mode.TUNNEL)}


def test_a_nodes_overlay_with_a_non_member_follows_the_mesh_s_setting() -> None:
    allowed = mesh(VXLAN, non_members=NonMembers.ALLOW)
    for direction, packet in ((OUT, udp(N1, "10.250.0.9", 1, 4789)), (IN, udp("10.250.0.9", N1, 1, 4789))):
        assert fate(allowed, direction, packet) == "clear"
    assert fate(allowed, OUT, udp(N1, "10.250.0.77", 1, 4789)) == "block"


def test_two_overlays_are_two_classes() -> None:
    geneve = Traffic.from_object({"type": "Overlay", "overlay": {"protocol": "Geneve", "port": 6081}})
    found = mesh(VXLAN, geneve)
    assert fate(found, OUT, udp(N1, N2, 51000, 4789)) == "protect 0002"
    assert fate(found, OUT, udp(N1, N2, 51000, 6081)) == "protect 1002"


@pytest.mark.parametrize(
    ("phase", "outbound", "inbound", "unknown"),
    [
        (Phase.ACCEPT, "clear", "may protect 0102", "clear"),
        (Phase.ESTABLISH, "clear", "may protect 0102", "clear"),
        (Phase.PROTECT, "protect 0002 or clear", "may protect 0102", "clear"),
        (Phase.REQUIRE, "protect 0002", "protect 0102", "clear"),
        (Phase.BLOCK, "protect 0002", "protect 0102", "block"),
    ],
)
def test_phases_of_an_overlay(phase: Phase, outbound: str, inbound: str, unknown: str) -> None:
    found = mesh(VXLAN, phase=phase)
    packet = udp(N1, N2, 51000, 4789)
    with_sa, _, without_sa = outbound.partition(" or ")
    sending = ChildKey(tunnel=TunnelUid("t0"), peer=NodeUid("uid-2"))
    assert fate(found, OUT, packet, {sending}) == with_sa
    assert fate(found, OUT, packet) == (without_sa or with_sa)
    assert fate(found, IN, udp(N2, N1, 51000, 4789)) == inbound
    assert fate(found, OUT, udp(N1, WORLD, 51000, 4789)) == unknown


# Host


@pytest.mark.parametrize(
    ("direction", "packet", "expected"),
    [
        (OUT, udp(N1, N2, 51000, 51000), "protect 0002"),
        (IN, tcp(N2, N1, 51000, 9100), "protect 0002"),
        (OUT, tcp(N1_6, N2_6, 51000, 9100), "protect 0102"),
        (IN, Packet(source=N2_6, destination=N1_6, protocol=ICMP6, ports=(128, 0)), "protect 0102"),
        (OUT, udp(N1, "10.250.0.9", 51000, 51000), "block"),
        (IN, udp("10.250.0.9", N1, 51000, 51000), "block"),
        # The world, and pods, are not Host's.
        (OUT, tcp(N1, WORLD, 51000, 443), "clear"),
        (IN, tcp(WORLD, N1, 51000, 443), "clear"),
        (OUT, tcp(N1, POD2, 51000, 443), "clear"),
        (FWD, tcp(POD1, POD2, 51000, 443), "clear"),
    ],
)
def test_host(direction: Direction, packet: Packet, expected: str) -> None:
    assert fate(mesh(HOST), direction, packet) == expected


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("other", [N2, "10.250.0.9"])
@pytest.mark.parametrize("port", [22, 6443, 10250, 2379, 2380])
def test_nobody_is_locked_out_in_any_phase_whatever_the_other_end_is(port: int, other: str, phase: Phase) -> None:
    found = mesh(HOST, VXLAN, phase=phase)
    for packet in (tcp(N1, other, 51000, port), tcp(other, N1, 51000, port)):
        answer = tcp(packet.destination, packet.source, packet.ports[1], packet.ports[0])
        for each in (packet, answer):
            assert fate(found, OUT if each.source == N1 else IN, each) == "clear"


@pytest.mark.parametrize("kind", [133, 134, 135, 136, 137])
def test_neighbour_discovery_never_needs_the_tunnel(kind: int) -> None:
    for direction, ends in ((OUT, (N1_6, N2_6)), (IN, (N2_6, N1_6))):
        packet = Packet(source=ends[0], destination=ends[1], protocol=ICMP6, ports=(kind, 0))
        assert fate(mesh(HOST), direction, packet) == "clear"


def test_dhcp_never_needs_the_tunnel() -> None:
    for direction, ends, ports in (
        (OUT, (N1, N2), (68, 67)), (IN, (N2, N1), (67, 68)), (OUT, (N1, N2), (67, 68)), (IN, (N2, N1), (68, 67)),
        (OUT, (N1_6, N2_6), (546, 547)), (IN, (N2_6, N1_6), (547, 546)),
    ):  # fmt: skip
        assert fate(mesh(HOST), direction, udp(*ends, *ports)) == "clear"


def test_an_exempt_port_as_source_opens_clients_ports_and_nothing_else() -> None:
    found = mesh(HOST)
    assert fate(found, IN, tcp(N2, N1, 22, 32768)) == "clear"
    assert fate(found, IN, tcp(N2, N1, 22, 30080)) == "protect 0002", "a NodePort"
    assert fate(found, IN, tcp(N2, N1, 6443, 9100)) == "protect 0002"
    # A node whose clients have lower ports can still be answered.
    low = policies(found, first_client_port=15000)
    assert outcome(low, IN, tcp(N2, N1, 6443, 15000)) == "clear"
    assert outcome(low, IN, tcp(N2, N1, 6443, 14999)) == "protect 48000002"


def test_exempt_ports_open_no_pod() -> None:
    found = mesh(HOST, POD_NETWORK)
    assert fate(found, OUT, tcp(N1, POD2, 51000, 10250)) == "protect 1002"
    assert fate(found, IN, tcp(POD2, N1, 51000, 22)) == "protect 1002"
    assert fate(found, OUT, tcp(N1, UNKNOWN_POD, 51000, 10250)) == "block"
    assert fate(found, IN, tcp(UNKNOWN_POD, N1, 51000, 22)) == "block"
    assert fate(found, OUT, tcp(N1, N2, 51000, 10250)) == "clear"


def test_a_pod_range_that_holds_the_nodes_locks_nobody_out() -> None:
    tunnels = [tunnel(uid, traffic=traffic) for uid, traffic in (("t0", HOST), ("t1", POD_NETWORK))]
    nodes = {f"n{number}": node(number, tunnels=("t0", "t1")) for number in (1, 2)}
    found = roster("n1", plan(*tunnels, pod_networks=("10.0.0.0/8",)), **nodes)
    assert fate(found, OUT, tcp(N1, N2, 51000, 6443)) == "clear"
    assert fate(found, OUT, tcp(N1, N2, 51000, 9100)) == "protect 0002"


def test_the_overlay_s_frames_are_the_overlay_tunnel_s_and_host_s_where_there_is_none() -> None:
    frame = udp(N1, N2, 51000, 4789)
    assert fate(mesh(HOST, VXLAN), OUT, frame) == "protect 1002"
    assert fate(mesh(HOST), OUT, frame) == "protect 0002"


def test_fellow_spokes_are_blocked_but_for_the_lifeline() -> None:
    nodes = {"n1": node(1, tunnels=("t0",), role=Role.SPOKE), "n2": node(2, tunnels=("t0",), role=Role.SPOKE)}
    found = roster("n1", plan(tunnel("t0", traffic=HOST)), **nodes)
    assert fate(found, OUT, udp(N1, N2, 51000, 51000)) == "block"
    assert fate(found, OUT, tcp(N1, N2, 51000, 22)) == "clear"


# Subnets


def gateway(
    *, of: str = "n1", networks: tuple[str, ...] = ("192.168.0.0/16", "fd00:168::/32"), hubs: int = 1
) -> Roster:
    """n1 is a spoke, n3 its gateway, n4 and so on further hubs."""
    traffic = Traffic(type=TrafficType.SUBNETS, subnets=networks)
    the_tunnel = tunnel("t0", traffic=traffic).model_copy(update={"topology": Topology.HUB_AND_SPOKE})
    nodes = {f"n{number}": node(number, tunnels=("t0",), role=Role.SPOKE) for number in (1, 2)}
    nodes |= {f"n{number}": node(number, tunnels=("t0",), role=Role.HUB) for number in range(3, 3 + hubs)}
    return roster(of, plan(the_tunnel), **nodes)


@pytest.mark.parametrize(
    ("of", "direction", "packet", "expected"),
    [
        ("n1", OUT, tcp(POD1, "192.168.7.7", 51000, 80), "protect 0003"),
        ("n1", FWD, tcp("192.168.7.7", POD1, 80, 51000), "protect 0003"),
        ("n1", OUT, tcp(N1, "192.168.7.7", 51000, 80), "protect 0003"),
        ("n1", IN, tcp("192.168.7.7", N1, 80, 51000), "protect 0003"),
        ("n1", OUT, tcp("fd00:244:1::5", "fd00:168::7", 51000, 80), "protect 0003"),
        ("n1", OUT, tcp(POD1, POD2, 51000, 80), "clear"),
        ("n1", OUT, tcp(N1, N3, 51000, 80), "clear"),
        ("n1", OUT, tcp(POD1, WORLD, 51000, 80), "clear"),
        ("n3", FWD, tcp(POD1, "192.168.7.7", 51000, 80), "protect 0001"),
        ("n3", OUT, tcp("192.168.7.7", POD1, 80, 51000), "protect 0001"),
        ("n3", OUT, tcp("192.168.7.7", POD2, 80, 51000), "protect 0002"),
        ("n3", OUT, tcp("192.168.7.7", WORLD, 80, 51000), "clear"),
    ],
)
def test_subnets_behind_a_hub(of: str, direction: Direction, packet: Packet, expected: str) -> None:
    assert fate(gateway(of=of), direction, packet) == expected


def test_of_several_hubs_both_ends_choose_one() -> None:
    packet, answer = tcp(POD1, "192.168.7.7", 51000, 80), tcp("192.168.7.7", POD1, 80, 51000)
    assert fate(gateway(hubs=3), OUT, packet) == "protect 0003"
    assert fate(gateway(of="n3", hubs=3), OUT, answer) == "protect 0001"
    assert fate(gateway(of="n4", hubs=3), OUT, answer) == "clear", "it has nothing to do with it"


def test_without_a_gateway_what_is_for_it_is_blocked() -> None:
    found = gateway(hubs=0)
    assert fate(found, OUT, tcp(POD1, "192.168.7.7", 51000, 80)) == "block"
    assert fate(found, FWD, tcp("192.168.7.7", POD1, 80, 51000)) == "block"
    assert fate(found, OUT, tcp(N1, "192.168.7.7", 51000, 80)) == "block"
    assert fate(found, OUT, tcp(N1, N2, 51000, 80)) == "clear"


def test_a_gateway_s_network_that_holds_the_nodes_locks_nobody_out() -> None:
    found = gateway(networks=("10.0.0.0/8",))
    assert fate(found, OUT, tcp(N1, N3, 51000, 6443)) == "clear"
    assert fate(found, OUT, tcp(N1, N2, 51000, 51000)) == "clear"
    assert fate(found, OUT, tcp(POD1, "10.1.1.1", 51000, 80)) == "protect 0003"
    assert fate(found, OUT, tcp(POD1, "10.244.1.6", 51000, 80)) == "clear", "its own pods"


def test_between_equals_a_node_holds_of_the_networks_what_is_its_own() -> None:
    traffic = Traffic(type=TrafficType.SUBNETS, subnets=("10.244.0.0/17", "10.250.0.0/24"))
    nodes = {
        "n1": node(1, tunnels=("t0",)),
        "n2": node(2, tunnels=("t0",), pod_cidrs=("10.244.2.0/24", "10.244.200.0/24")),
        "n3": node(3, tunnels=()),
    }
    found = roster("n1", plan(tunnel("t0", traffic=traffic)), **nodes)
    for direction, packet, expected in (
        (OUT, tcp(POD1, POD2, 51000, 80), "protect 0002"),
        (FWD, tcp(POD2, POD1, 80, 51000), "protect 0002"),
        (OUT, tcp(POD1, N2, 51000, 80), "protect 0002"),
        (IN, tcp(POD2, N1, 51000, 80), "protect 0002"),
        (OUT, tcp(POD1, "10.244.200.5", 51000, 80), "clear"),
        (OUT, tcp(POD1, "10.244.1.6", 51000, 80), "clear"),
        (OUT, tcp(POD1, POD3, 51000, 80), "clear"),
        (OUT, tcp(POD1, UNKNOWN_POD, 51000, 80), "block"),
        (FWD, tcp(UNKNOWN_POD, POD1, 80, 51000), "block"),
        (OUT, tcp(N1, N2, 51000, 80), "clear"),
        (OUT, tcp(N1, "10.250.0.254", 51000, 53), "clear"),
    ):
        assert fate(found, direction, packet) == expected, packet


def test_a_subnets_exemption_opens_no_pod() -> None:
    """n3 is of the pod network and not of the subnets."""
    traffic = Traffic(type=TrafficType.SUBNETS, subnets=("10.244.0.0/16",))
    nodes = {"n1": node(1, tunnels=("t0", "t1")), "n2": node(2, tunnels=("t0", "t1")), "n3": node(3, tunnels=("t1",))}
    found = roster("n1", plan(tunnel("t0", traffic=traffic), tunnel("t1"), pod_networks=PODS), **nodes)
    assert fate(found, OUT, tcp(POD1, POD2, 51000, 80)) == "protect 0002"
    assert fate(found, OUT, tcp(POD1, POD3, 51000, 80)) == "protect 1003"
    assert fate(found, OUT, tcp(POD1, UNKNOWN_POD, 51000, 80)) == "block"


# Narrowed to a protocol and ports


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (tcp(POD1, POD2, 51000, 8080), "protect 0002"),
        (tcp(POD1, POD2, 8085, 51000), "protect 0002"),
        (tcp(POD1, POD2, 51000, 8079), "clear"),
        (tcp(POD1, POD2, 51000, 8091), "clear"),
        (udp(POD1, POD2, 51000, 8080), "clear"),
        (tcp(POD1, UNKNOWN_POD, 51000, 8090), "block"),
        (tcp(POD1, UNKNOWN_POD, 51000, 8091), "clear"),
        # A fragment shows no ports.
        (Packet(source=POD1, destination=POD2, protocol=TCP, ports=(0, 0)), "protect 0002"),
        (Packet(source=POD1, destination=UNKNOWN_POD, protocol=TCP, ports=(0, 0)), "block"),
        (Packet(source=POD1, destination=POD2, protocol=UDP, ports=(0, 0)), "clear"),
    ],
)
def test_pods_narrowed_to_a_range_of_ports(packet: Packet, expected: str) -> None:
    traffic = POD_NETWORK.model_copy(update={"protocol": "TCP", "ports": PortRange(first=8080, last=8090)})
    found = mesh(traffic)
    assert fate(found, OUT, packet) == expected
    back = Packet(
        source=packet.destination,
        destination=packet.source,
        protocol=packet.protocol,
        ports=(packet.ports[1], packet.ports[0]),
    )
    assert fate(found, FWD, back) == expected


def test_two_protocols_are_two_classes() -> None:
    found = mesh(*(POD_NETWORK.model_copy(update={"protocol": name}) for name in ("TCP", "UDP")))
    assert fate(found, OUT, tcp(POD1, POD2, 51000, 80)) == "protect 0002"
    assert fate(found, OUT, udp(POD1, POD2, 51000, 80)) == "protect 1002"


def test_icmp_is_of_one_family() -> None:
    found = mesh(POD_NETWORK.model_copy(update={"protocol": "ICMPv6"}))
    protects = [policy for policy in policies(found) if policy.templates]
    assert {policy.selector.source.version for policy in protects} == {6}


@given(st.integers(1, 65535), st.integers(1, 65535))
def test_a_range_of_ports_is_matched_exactly(one: int, other: int) -> None:
    first, last = min(one, other), max(one, other)
    pairs = list(masked(first, last))
    assert len(pairs) <= 30
    for port in {1, first - 1, first, (first + last) // 2, last, last + 1, 65535} - {0, 65536}:
        assert any(not (port ^ wanted) & mask for wanted, mask in pairs) is (first <= port <= last)


def test_a_protocol_that_the_schema_does_not_have_is_no_selector() -> None:
    with pytest.raises(ValueError, match="GRE"):
        list(narrowed(ip_network("10.0.0.0/8"), ip_network("10.0.0.0/8"), Traffic(protocol="GRE")))


# All of them at once


def test_both_ends_mean_the_same_sa_whatever_classes_there_are() -> None:
    """Whatever one end encrypts the other one takes from that very SA, and takes in clear what it sends in clear."""
    tunnels = [tunnel(uid, traffic=each) for uid, each in zip(TUNNELS, (POD_NETWORK, HOST, VXLAN), strict=True)]
    nodes = {f"n{number}": node(number, tunnels=TUNNELS) for number in (1, 2, 3)}
    ends = {name: policies(roster(name, plan(*tunnels, pod_networks=PODS), **nodes)) for name in ("n1", "n2")}
    ssh = {(51000, 22), (22, 51000)}
    kinds = [*((TCP, ports) for ports in ssh), (UDP, (51000, 4789)), (UDP, (4789, 51000)), (UDP, (9, 9))]
    hosts = ((N1, POD1, N1_6, "fd00:244:1::5"), (N2, POD2, N2_6, "fd00:244:2::5"))
    for (source, destination), (protocol, ports) in product(product(*hosts), kinds):
        if (":" in source) is not (":" in destination):
            continue
        packet = Packet(source=source, destination=destination, protocol=protocol, ports=ports)
        sent = outcome(ends["n1"], OUT, packet)
        taken = outcome(ends["n2"], IN if destination in (N2, N2_6) else FWD, packet)
        assert sent.removesuffix("2") == taken.removesuffix("1"), packet
        between_nodes = source in (N1, N1_6) and destination in (N2, N2_6)
        assert (sent == "clear") is (between_nodes and packet.ports in ssh), packet
