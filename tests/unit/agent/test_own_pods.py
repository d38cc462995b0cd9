"""What stands behind the CNI's routes to this node's own pods."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network

import pytest

from hauberk_agent.interception import desired_interceptor
from hauberk_agent.own_pods import METRIC, backstops
from hauberk_agent.roster import Roster
from hauberk_agent.route_reconciler import reconcile_routing
from hauberk_api.plan import Phase
from hauberk_api.tunnel import Interception
from hauberk_xfrm import MAIN_TABLE, IpNetwork, Route, RouteKind
from tests.unit.agent.fake_routing import FakeRouting
from tests.unit.agent.mesh import HOST, node, plan, roster, tunnel


def mesh(phase: Phase = Phase.BLOCK, *, interception: Interception = Interception.POLICY) -> Roster:
    return roster("n1", plan(tunnel(phase=phase, interception=interception)), n1=node(1), n2=node(2))


def behind(found: Roster, *others: str) -> dict[str, Route]:
    """By destination, with others' routes there."""
    read: Sequence[IpNetwork] = [ip_network(other) for other in others]
    return {str(route.destination): route for route in backstops(found, lambda: read)}


def test_own_pods_have_a_weak_route_to_nowhere_behind_the_cni_s() -> None:
    found = behind(mesh(), "10.244.1.0/24", "10.244.1.7/32", "10.244.2.0/24", "fd00:244:1::/64")
    assert found.keys() == {"10.244.1.0/24", "fd00:244:1::/64"}
    assert {(r.table, r.kind, r.metric, r.device) for r in found.values()} == {
        (MAIN_TABLE, RouteKind.BLACKHOLE, METRIC, None)
    }


def test_a_wider_route_by_which_pods_are_reached_is_left_in_force() -> None:
    assert behind(mesh(), "10.244.0.0/16").keys() == {"fd00:244:1::/64"}
    assert behind(mesh(), "fd00::/8").keys() == {"10.244.1.0/24"}
    assert behind(mesh(), "10.245.0.0/16", "192.0.2.0/24").keys() == {"10.244.1.0/24", "fd00:244:1::/64"}


@pytest.mark.parametrize("phase", [Phase.ACCEPT, Phase.ESTABLISH, Phase.PROTECT, Phase.REQUIRE])
def test_before_block_nothing_stands_in_anybodys_way(phase: Phase) -> None:
    def never() -> list[IpNetwork]:
        raise AssertionError("routes are read for nothing")

    assert backstops(mesh(phase), never) == frozenset()


def test_a_tunnel_of_other_traffic_does_not_touch_pods() -> None:
    found = roster("n1", plan(tunnel(traffic=HOST)), n1=node(1), n2=node(2))
    assert behind(found) == {}


def test_they_come_and_go_like_the_routes_of_an_interface_and_beside_them() -> None:
    kernel, found = FakeRouting(), mesh(interception=Interception.INTERFACE)
    wanted = backstops(found, list)
    assert reconcile_routing(kernel, desired_interceptor(found), wanted) == ()
    assert wanted < set(kernel.routes())
    assert reconcile_routing(kernel, None, wanted) == ()
    assert set(kernel.routes()) == wanted
    assert kernel.devices == []
    assert reconcile_routing(kernel, None) == ()
    assert kernel.routes() == []
