"""Snapshots for tests: plans, nodes and rosters. Node "n1" has UID "uid-1", 10.250.0.1, 10.244.1.0/24, and so on."""

from __future__ import annotations

from collections.abc import Sequence

from hauberk_agent.desired import Desired
from hauberk_agent.roster import Roster, compile_roster
from hauberk_api.mesh import NonMembers
from hauberk_api.names import NodeName
from hauberk_api.node import Membership, NodeSpec, Role
from hauberk_api.plan import Phase, Plan, PlannedTunnel
from hauberk_api.tunnel import (
    DEFAULT_IKE_PROPOSALS,
    Encapsulation,
    Enforcement,
    Esp,
    Establish,
    Ike,
    Interception,
    Overlay,
    OverlayProtocol,
    Traffic,
    TrafficType,
    TunnelMode,
)

TUNNEL = "tunnel-a"
POD_NETWORK = Traffic()
HOST = Traffic(type=TrafficType.HOST)
VXLAN = Traffic(type=TrafficType.OVERLAY, overlay=Overlay(protocol=OverlayProtocol.VXLAN, port=4789))


def tunnel(
    uid: str = TUNNEL,
    *,
    phase: Phase = Phase.BLOCK,
    generation: int = 1,
    enforcement: Enforcement = Enforcement.STRICT,
    dpd_seconds: int = 10,
    rekey_seconds: int = 3600,
    rekey_bytes: int | None = None,
    rekey_packets: int | None = None,
    interception: Interception = Interception.POLICY,
    establish: Establish = Establish.EAGER,
    idle_seconds: int = 600,
    ike_rekey_seconds: int = 14_400,
    encapsulation: Encapsulation = Encapsulation.AUTO,
    ike_proposals: tuple[str, ...] = DEFAULT_IKE_PROPOSALS,
    traffic: Traffic = POD_NETWORK,
    mode: TunnelMode = TunnelMode.TUNNEL,
) -> PlannedTunnel:
    return PlannedTunnel(
        name=f"name of {uid}",
        uid=uid,
        generation=generation,
        phase=phase,
        traffic=traffic,
        mode=mode,
        enforcement=enforcement,
        interception=interception,
        establish=establish,
        idle_seconds=idle_seconds,
        encapsulation=encapsulation,
        ike=Ike(proposals=ike_proposals, dpd_seconds=dpd_seconds, rekey_seconds=ike_rekey_seconds),
        esp=Esp(rekey_seconds=rekey_seconds, rekey_bytes=rekey_bytes, rekey_packets=rekey_packets),
    )


def plan(
    *tunnels: PlannedTunnel,
    pod_networks: Sequence[str] = (),
    non_members: NonMembers = NonMembers.ALLOW,
    revoked: Sequence[str] = (),
    trust_bundle: str = "",
) -> Plan:
    return Plan(
        generation=1,
        pod_networks=tuple(pod_networks),
        non_members=non_members,
        revoked_nodes=tuple(revoked),
        trust_bundle=trust_bundle,
        tunnels=tunnels,
    )


def node(
    number: int,
    *,
    tunnels: Sequence[str] = (TUNNEL,),
    role: Role = Role.MEMBER,
    addresses: Sequence[str] | None = None,
    pod_cidrs: Sequence[str] | None = None,
    phase: Phase | None = None,
) -> NodeSpec:
    return NodeSpec(
        nodeUID=f"uid-{number}",
        addresses=tuple(addresses or (f"10.250.0.{number}", f"fd00:250::{number}")),
        podCIDRs=tuple(pod_cidrs if pod_cidrs is not None else (f"10.244.{number}.0/24", f"fd00:244:{number}::/64")),
        memberships=tuple(Membership(tunnel=uid, role=role, phase=phase) for uid in tunnels),
    )


def desired(own: str, the_plan: Plan | None, **nodes: NodeSpec) -> Desired:
    return Desired(own_name=NodeName(own), plan=the_plan, nodes={NodeName(name): spec for name, spec in nodes.items()})


def roster(own: str, the_plan: Plan, **nodes: NodeSpec) -> Roster:
    found = compile_roster(desired(own, the_plan, **nodes))
    assert found is not None
    return found
