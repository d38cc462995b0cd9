"""Who this node's peers are, in which tunnel, and who else is known: a snapshot, understood.

Pure. Policies (hauberk_agent.policy) and sessions (hauberk_agent.sessions) are made from a roster and from nothing
else, so that both always speak of the same peers.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import TypeVar

from hauberk_agent.desired import Desired
from hauberk_api.mesh import NonMembers
from hauberk_api.names import NodeName, NodeUid, node_identity
from hauberk_api.node import NodeSpec, Role, peers
from hauberk_api.plan import Phase, PlannedTunnel, reached
from hauberk_api.tunnel import Topology, Traffic, TrafficType
from hauberk_ike import IpAddress
from hauberk_xfrm import IpNetwork

_Item = TypeVar("_Item", IpAddress, IpNetwork)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A node's addresses and pod networks, parsed and without what an earlier claimant holds, and its tunnels."""

    name: NodeName
    uid: NodeUid
    addresses: tuple[IpAddress, ...]
    networks: tuple[IpNetwork, ...]
    roles: Mapping[str, Role] = field(default_factory=dict[str, Role])
    """Its part in each, by the tunnel's UID."""
    phases: Mapping[str, Phase] = field(default_factory=dict[str, Phase])
    """Of those that it enters or leaves: how far its pairs go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A node to share SAs with; `local` and `remote` are the outer addresses.

    Of the tunnels that both are in, `tunnels` are those that carry the pair, oldest first: of each class of traffic
    the oldest.
    """

    place: Place
    identity: str
    tunnels: tuple[PlannedTunnel, ...]
    local: IpAddress
    remote: IpAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """One node's view of the mesh.

    `problems` are sentences for the report.
    """

    own: Place
    own_identity: str
    tunnels: tuple[PlannedTunnel, ...]
    """The tunnels that this node is in, oldest first."""
    peers: tuple[Peer, ...]
    known: tuple[Place, ...]
    """Every other node, whatever its standing."""
    revoked: frozenset[NodeUid]
    """Of these, those that are shut out."""
    non_members: NonMembers
    gateways: Mapping[str, NodeUid]
    """By UID of a Subnets tunnel with hubs: the hub that holds its networks, the first by name that is not shut out."""
    host_exempt_ports: tuple[int, ...]
    """What tunnels of Host leave alone."""
    passing: bool
    """Whether this node, or a peer, enters or leaves a tunnel: then a pair's phase is not its tunnel's."""
    pod_range: tuple[IpNetwork, ...]
    problems: tuple[str, ...]

    def exempt_from(self, traffic: Traffic) -> tuple[Place, ...]:
        """The known nodes with which such traffic may pass in clear (nonMembers: Allow).

        They share no tunnel for it with this node, and are not revoked. Whoever is neither peer nor exempt is blocked.
        """
        if self.non_members is NonMembers.DENY:
            return ()
        for_it = [tunnel.uid for tunnel in self.tunnels if tunnel.traffic.shares(traffic)]
        return tuple(
            place
            for place in self.known
            if place.uid not in self.revoked and not any(uid in place.roles for uid in for_it)
        )


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
            roles={membership.tunnel: membership.role for membership in spec.memberships},
            phases={m.tunnel: m.phase for m in spec.memberships if m.phase is not None},
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

    Two members of one tunnel peer unless both are spokes there.
    """
    plan, own_spec = desired.plan, desired.own
    if plan is None or own_spec is None:
        return None
    claims = _Claims()
    own = claims.place(desired.own_name, own_spec)
    places = [claims.place(name, desired.nodes[name]) for name in sorted(desired.nodes) if name != own.name]
    tunnels = tuple(_as_far_as(tunnel, own) for tunnel in plan.tunnels if tunnel.uid in own.roles)
    peer_list: list[Peer] = []
    problems = claims.problems
    listed = frozenset(plan.revoked_nodes)
    # By name too: a Node that registers again has an IPsecNode before the plan can have its UID.
    revoked = frozenset(
        place.uid for place in places if not listed.isdisjoint((place.uid, place.name, own.uid, own.name))
    )
    for place in places:
        carried = _carried(tunnels, own, place)
        if not carried or place.uid in revoked:
            continue
        ends = _outer_addresses(own, place)
        if ends is None:
            problems.append(f"{own.name} and {place.name} have no address family in common")
            continue
        identity = node_identity(place.uid, plan.mesh)
        peer_list.append(Peer(place=place, identity=identity, tunnels=carried, local=ends[0], remote=ends[1]))
    return Roster(
        own=own,
        own_identity=node_identity(own.uid, plan.mesh),
        tunnels=tunnels,
        peers=tuple(peer_list),
        known=tuple(places),
        revoked=revoked,
        non_members=plan.non_members,
        gateways=_gateways(tunnels, (own, *places), revoked),
        host_exempt_ports=plan.host_exempt_ports,
        passing=bool(own.phases) or any(peer.place.phases for peer in peer_list),
        pod_range=_pod_range(plan.pod_networks, (own, *places), problems),
        problems=tuple(problems),
    )


def _gateways(
    tunnels: Iterable[PlannedTunnel], places: Iterable[Place], revoked: Container[NodeUid]
) -> dict[str, NodeUid]:
    """Both ends must find the same, so it depends on the plan and the IPsecNodes alone, not on who answers."""
    by_name = sorted(places, key=lambda place: place.name)
    found: dict[str, NodeUid] = {}
    for tunnel in tunnels:
        if tunnel.traffic.type is TrafficType.SUBNETS and tunnel.topology is Topology.HUB_AND_SPOKE:
            hubs = (each.uid for each in by_name if each.roles.get(tunnel.uid) is Role.HUB and each.uid not in revoked)
            hub = next(hubs, None)
            if hub is not None:
                found[tunnel.uid] = hub
    return found


def parsed_networks(texts: Iterable[str]) -> tuple[IpNetwork, ...]:
    """What of a plan's texts are networks; the API server has refused others."""
    networks: list[IpNetwork] = []
    for text in texts:
        with suppress(ValueError):
            networks.append(ip_network(text))
    return tuple(networks)


def _carried(tunnels: Iterable[PlannedTunnel], own: Place, other: Place) -> tuple[PlannedTunnel, ...]:
    """The tunnels by which two nodes are peers: of each class of traffic the oldest."""
    carried: list[PlannedTunnel] = []
    if own.phases or other.phases:
        # Who enters or leaves one tunnel and is in another has that one meanwhile: nothing of it is in clear.
        tunnels = sorted(tunnels, key=lambda tunnel: tunnel.uid in own.phases or tunnel.uid in other.phases)
    for tunnel in tunnels:
        role = other.roles.get(tunnel.uid)
        if role is None or not peers(own.roles[tunnel.uid], role):
            continue
        if not any(tunnel.traffic.shares(older.traffic) for older in carried):
            carried.append(_as_far_as(tunnel, other))
    return tuple(carried)


def _as_far_as(tunnel: PlannedTunnel, place: Place) -> PlannedTunnel:
    """The tunnel in the phase that it has with a node."""
    phase = place.phases.get(tunnel.uid)
    return tunnel if phase is None or reached(phase, tunnel.phase) else tunnel.model_copy(update={"phase": phase})


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
