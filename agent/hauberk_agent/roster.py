"""Who this node's peers are, in which tunnel, and who else is known: a snapshot, understood.

Pure. Policies (hauberk_agent.policy) and sessions (hauberk_agent.sessions) are made from a roster and from nothing
else, so that both always speak of the same peers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import TypeVar

from hauberk_agent.desired import Desired
from hauberk_api.mesh import NonMembers
from hauberk_api.names import NodeName, NodeUid, node_identity
from hauberk_api.node import NodeSpec, Role, peers
from hauberk_api.plan import PlannedTunnel
from hauberk_ike import IpAddress
from hauberk_xfrm import IpNetwork

_Item = TypeVar("_Item", IpAddress, IpNetwork)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A node's addresses and pod networks, parsed and without what an earlier claimant holds."""

    name: NodeName
    uid: NodeUid
    addresses: tuple[IpAddress, ...]
    networks: tuple[IpNetwork, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A node to share SAs with, in the oldest tunnel that both are in; `local` and `remote` are the outer addresses."""

    place: Place
    identity: str
    tunnel: PlannedTunnel
    local: IpAddress
    remote: IpAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """One node's view of the mesh.

    `exempt` are known nodes whose pods may be spoken with in clear (nonMembers: Allow). Whoever is neither peer nor
    exempt is blocked, as is every unknown address in `pod_range`. `problems` are sentences for the report.
    """

    own: Place
    own_identity: str
    tunnels: tuple[PlannedTunnel, ...]
    """The tunnels that this node is in, oldest first."""
    peers: tuple[Peer, ...]
    exempt: tuple[Place, ...]
    known: tuple[Place, ...]
    """Every other node, whatever its standing."""
    pod_range: tuple[IpNetwork, ...]
    problems: tuple[str, ...]


class _Claims:
    """Hands each address and network to its first claimant. The operator does the same, and earlier: this is the
    second line, because two policies can't share a slot."""

    def __init__(self) -> None:
        self._holders: dict[IpAddress | IpNetwork, NodeName] = {}
        self.problems: list[str] = []

    def place(self, name: NodeName, spec: NodeSpec) -> Place:
        return Place(
            name=name,
            uid=NodeUid(spec.node_uid),
            addresses=self._claim(name, self._parse(name, spec.addresses, ip_address)),
            networks=self._claim(name, self._parse(name, spec.pod_cidrs, ip_network)),
        )

    def _parse(self, name: NodeName, texts: Iterable[str], parse: Callable[[str], _Item]) -> Iterable[_Item]:
        for text in texts:
            try:
                yield parse(text)
            except ValueError as error:
                self.problems.append(f"IPsecNode {name}: {error}")

    def _claim(self, name: NodeName, items: Iterable[_Item]) -> tuple[_Item, ...]:
        granted: list[_Item] = []
        for item in items:
            holder = self._holders.setdefault(item, name)
            if holder == name:
                granted.append(item)
            else:
                self.problems.append(f"{name} claims {item}, which {holder} holds")
        return tuple(granted)


def compile_roster(desired: Desired) -> Roster | None:
    """The roster of a snapshot, or None while the mesh has no plan or does not know this node.

    Two members of one tunnel peer unless both are spokes there. A node is exempt if it shares no tunnel with this one,
    nonMembers is Allow, and it is not revoked.
    """
    plan, own_spec = desired.plan, desired.own
    if plan is None or own_spec is None:
        return None
    claims = _Claims()
    own = claims.place(desired.own_name, own_spec)
    own_roles = _roles(own_spec)
    places = {name: claims.place(name, desired.nodes[name]) for name in sorted(desired.nodes) if name != own.name}
    tunnels = tuple(tunnel for tunnel in plan.tunnels if tunnel.uid in own_roles)
    peer_list: list[Peer] = []
    exempt: list[Place] = []
    problems = claims.problems
    revoked = frozenset(plan.revoked_nodes)
    for name, place in places.items():
        # By name too: a Node that registers again has an IPsecNode before the plan can have its UID.
        if not revoked.isdisjoint((place.uid, place.name, own.uid, own.name)):
            continue
        roles = _roles(desired.nodes[name])
        shared = [tunnel for tunnel in tunnels if tunnel.uid in roles]
        if not shared:
            if plan.non_members is NonMembers.ALLOW:
                exempt.append(place)
            continue
        tunnel = next((t for t in shared if peers(own_roles[t.uid], roles[t.uid])), None)
        if tunnel is None:
            continue
        ends = _outer_addresses(own, place)
        if ends is None:
            problems.append(f"{own.name} and {name} have no address family in common")
            continue
        identity = node_identity(place.uid, plan.mesh)
        peer_list.append(Peer(place=place, identity=identity, tunnel=tunnel, local=ends[0], remote=ends[1]))
    return Roster(
        own=own,
        own_identity=node_identity(own.uid, plan.mesh),
        tunnels=tunnels,
        peers=tuple(peer_list),
        exempt=tuple(exempt),
        known=tuple(places.values()),
        pod_range=_pod_range(plan.pod_networks, (own, *places.values()), problems),
        problems=tuple(problems),
    )


def _roles(spec: NodeSpec) -> dict[str, Role]:
    return {membership.tunnel: membership.role for membership in spec.memberships}


def _outer_addresses(own: Place, other: Place) -> tuple[IpAddress, IpAddress] | None:
    """Where this node and the other one send IKE and ESP.

    Both ends must choose the same family, so the choice may not depend on who asks: the primary family (that of the
    first address) of the node whose name sorts first, if the other has it too, else the other family.
    """
    first = min(own, other, key=lambda place: place.name)
    for version in dict.fromkeys(address.version for address in first.addresses):
        local = next((a for a in own.addresses if a.version == version), None)
        remote = next((a for a in other.addresses if a.version == version), None)
        if local is not None and remote is not None:
            return local, remote
    return None


def _pod_range(given: Iterable[str], places: Iterable[Place], problems: list[str]) -> tuple[IpNetwork, ...]:
    """The networks that people gave, else the union of all nodes' pod networks, each address once."""
    networks: list[IpNetwork] = []
    for text in given:
        try:
            networks.append(ip_network(text))
        except ValueError as error:
            problems.append(f"IPsecMesh podNetworks: {error}")
    if not networks:
        networks = [network for place in places for network in place.networks]
    four = collapse_addresses(network for network in networks if isinstance(network, IPv4Network))
    six = collapse_addresses(network for network in networks if isinstance(network, IPv6Network))
    return (*four, *six)
