"""What tunnels with `interception: Interface` want of the node's routing: an xfrm device, and routes to peers' pods.

Pure; hauberk_agent.route_reconciler makes the kernel's routing equal to it. Packets for peers' pods are routed to a
device of ours, whose packets meet the policies of its interface id (hauberk_agent.policy) and no others. The routes are
in a table of our own, to which a rule leads ahead of the CNI's:

=============  =======================================================================  ===============================
route          for                                                                      from
=============  =======================================================================  ===============================
to the device  peers' pods; by the second table: peers' addresses, from own pods        Protect, if they can be sent to;
                                                                                        Require
unreachable    peers' pods, by a weaker metric: should the device be gone               Require
unreachable    the pod range                                                            Block
throw          own pods, pods of exempt nodes and of peers of other tunnels; nodes'     Block
               addresses that lie in the pod range
=============  =======================================================================  ===============================

`throw` leads on to the rules that there were. Inner packets are looked up among the node's policies as well before they
come to the device, so that the pod range is blocked by routes here, and not by outbound policies.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from hauberk_agent.flow import all_flows, host
from hauberk_agent.reqid import ChildKey
from hauberk_agent.roster import Peer, Place, Roster
from hauberk_api.plan import Phase, PlannedTunnel, reached
from hauberk_api.tunnel import Interception, Traffic, TrafficType
from hauberk_ike import IpAddress
from hauberk_xfrm import IpNetwork, Route, RouteKind, Rule

DEVICE: Final = "hauberk0"
IF_ID: Final = 0x4842_0001
"""All tunnels share one device: which peer a packet is for the policies tell."""
TABLE: Final = 0x4842
POD_TABLE: Final = 0x4843
"""For packets of our pods alone: peers' own addresses."""
PREFERENCE: Final = 72
"""Behind the kernel's table of local addresses, and ahead of what CNIs make (Cilium from 100 on, AWS from 512 on)."""

_METRIC: Final = 100
_FALLBACK_METRIC: Final = 4000
_POD_NETWORK: Final = Traffic(type=TrafficType.POD_NETWORK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interceptor:
    """`routes` to the device have it as device 0, whatever its index will be."""

    routes: frozenset[Route]
    rules: frozenset[Rule]


def is_intercepted(tunnel: PlannedTunnel) -> bool:
    """Whether a tunnel's packets go by the device."""
    return tunnel.interception is Interception.INTERFACE and tunnel.traffic.type is TrafficType.POD_NETWORK


def desired_interceptor(roster: Roster, *, sendable: Collection[ChildKey] = ()) -> Interceptor | None:
    """None where no tunnel wants the device. sendable is as in `desired_policies`."""
    if not any(is_intercepted(tunnel) for tunnel in roster.tunnels):
        return None
    slots: dict[tuple[int, IpNetwork, int], Route] = {}
    # Where two want one slot the stronger class has it: peers' routes, then ways out, then what leads nowhere.
    for route in (*_blocks(roster), *_ways_out(roster), *_to_peers(roster, sendable)):
        slots[route.table, route.destination, route.metric] = route
    versions = (4, 6)
    rules = {Rule(version=version, preference=PREFERENCE, table=TABLE) for version in versions}
    rules |= {
        Rule(version=network.version, preference=PREFERENCE - 1, table=POD_TABLE, source=network)
        for network in roster.own.networks
    }
    return Interceptor(routes=frozenset(slots.values()), rules=frozenset(rules))


def without_device(roster: Roster) -> Roster:
    """The same mesh without interfaces: whose policies stand in before there is a device, when the host boots."""
    if not any(is_intercepted(tunnel) for tunnel in roster.tunnels):
        return roster
    return replace(
        roster,
        tunnels=_by_policies(roster.tunnels),
        peers=tuple(replace(peer, tunnels=_by_policies(peer.tunnels)) for peer in roster.peers),
    )


def _by_policies(tunnels: Iterable[PlannedTunnel]) -> tuple[PlannedTunnel, ...]:
    return tuple(tunnel.model_copy(update={"interception": Interception.POLICY}) for tunnel in tunnels)


def _to_peers(roster: Roster, sendable: Collection[ChildKey]) -> Iterator[Route]:
    for peer in roster.peers:
        for tunnel, flow in all_flows(roster, peer):
            if not is_intercepted(tunnel):
                continue
            required = reached(tunnel.phase, Phase.REQUIRE)
            if required or (tunnel.phase is Phase.PROTECT and flow.key(tunnel, peer) in sendable):
                for network in peer.place.networks:
                    source = _own_address(roster.own, network.version)
                    yield _route(TABLE, network, RouteKind.UNICAST, source=source)
                for address in peer.place.addresses:
                    yield _route(POD_TABLE, host(address), RouteKind.UNICAST)
            if required:
                for network in peer.place.networks:
                    yield _route(TABLE, network, RouteKind.UNREACHABLE, metric=_FALLBACK_METRIC)
                for address in peer.place.addresses:
                    yield _route(POD_TABLE, host(address), RouteKind.UNREACHABLE, metric=_FALLBACK_METRIC)


def _ways_out(roster: Roster) -> Iterator[Route]:
    exempt = [network for place in roster.exempt_from(_POD_NETWORK) for network in place.networks]
    others = [network for peer in roster.peers if not _by_device(peer) for network in peer.place.networks]
    for network in (*roster.own.networks, *exempt, *others):
        yield _route(TABLE, network, RouteKind.THROW)
    for place in (roster.own, *roster.known):
        for address in place.addresses:
            if any(address in network for network in roster.pod_range):
                yield _route(TABLE, host(address), RouteKind.THROW)


def _blocks(roster: Roster) -> Iterator[Route]:
    pod_tunnels = [tunnel for tunnel in roster.tunnels if tunnel.traffic.type is TrafficType.POD_NETWORK]
    if any(reached(tunnel.phase, Phase.BLOCK) for tunnel in pod_tunnels):
        for network in roster.pod_range:
            yield _route(TABLE, network, RouteKind.UNREACHABLE)


def _by_device(peer: Peer) -> bool:
    return any(is_intercepted(tunnel) for tunnel in peer.tunnels)


def _own_address(own: Place, version: int) -> IpAddress | None:
    """Which of our addresses the node's own packets to peers' pods have: the device has none."""
    return next((address for address in own.addresses if address.version == version), None)


def _route(
    table: int, network: IpNetwork, kind: RouteKind, *, metric: int = _METRIC, source: IpAddress | None = None
) -> Route:
    device = 0 if kind is RouteKind.UNICAST else None
    return Route(table=table, destination=network, kind=kind, metric=metric, device=device, source=source)
