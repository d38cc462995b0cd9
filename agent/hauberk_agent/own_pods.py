"""The way that packets for this node's own pods must not take: out again, by the default route.

Policies exempt own pods, wherever the packet then goes, as it has been through its SA by then. So as long as the CNI
has no route to them (at a boot it makes its bridge with the first pod), what a peer has sent encrypted would be
forwarded to the default gateway in clear. A route to nowhere, weaker than anybody's own to the same network, stands
behind the CNI's from Block on. Nobody is told: the error would quote the packet, and the kernel has no route by which
to find that its answer goes by an SA. Where a wider route that is no default one leads to pods, as some CNIs have it
for all nodes' pods at once, there is none: it would come before that.

Pure; hauberk_agent.route_reconciler makes the kernel's routing equal to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from hauberk_agent.policy_terms import blocks
from hauberk_agent.roster import Roster
from hauberk_api.tunnel import TrafficType
from hauberk_xfrm import MAIN_TABLE, IpNetwork, Route, RouteKind

METRIC: Final = 0xFFFF_FF00
"""Nobody makes weaker ones."""


def backstops(roster: Roster, others: Callable[[], Collection[IpNetwork]]) -> frozenset[Route]:
    """others: reads the destinations of all routes in the main table that are not ours, default routes aside."""
    if not any(blocks(tunnel) and tunnel.traffic.type is TrafficType.POD_NETWORK for tunnel in roster.tunnels):
        return frozenset()
    taken = others()
    return frozenset(
        Route(table=MAIN_TABLE, destination=network, kind=RouteKind.BLACKHOLE, metric=METRIC)
        for network in roster.own.networks
        if not any(_is_wider(other, network) for other in taken)
    )


def _is_wider(other: IpNetwork, network: IpNetwork) -> bool:
    return other.version == network.version and other.prefixlen < network.prefixlen and network.network_address in other
