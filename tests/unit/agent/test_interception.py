"""Tunnels whose packets go by a device: what routes there are in each phase, and that the kernel gets them."""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from hauberk_agent.boot_guard import guard_policies
from hauberk_agent.interception import DEVICE, IF_ID, TABLE, desired_interceptor, without_device
from hauberk_agent.ownership import owns_policy
from hauberk_agent.pairing import pair_specs
from hauberk_agent.policy import desired_policies
from hauberk_agent.reqid import ChildKey
from hauberk_agent.roster import Roster
from hauberk_agent.route_reconciler import reconcile_routing
from hauberk_api.mesh import NonMembers
from hauberk_api.names import NodeUid, TunnelUid
from hauberk_api.plan import Phase
from hauberk_api.tunnel import Interception
from hauberk_xfrm import Action, Direction, ReqId, Route, RouteKind, Rule, XfrmDevice, XfrmError
from tests.unit.agent.fake_routing import FakeRouting
from tests.unit.agent.mesh import TUNNEL, node, plan, roster, tunnel

HOST, POD = ip_address("10.250.0.1"), ip_address("10.244.1.2")
PEERS_POD, PEERS_POD_6 = ip_address("10.244.2.2"), ip_address("fd00:244:2::2")
PEER, UNKNOWN = ip_address("10.250.0.2"), ip_address("10.244.99.2")
KEY = ChildKey(tunnel=TunnelUid(TUNNEL), peer=NodeUid("uid-2"), index=0)


def mesh(phase: Phase = Phase.BLOCK, *, non_members: NonMembers = NonMembers.ALLOW) -> Roster:
    """n1's view: n2 is a peer, n3 is in no tunnel."""
    settings = tunnel(phase=phase, interception=Interception.INTERFACE)
    return roster(
        "n1",
        plan(settings, pod_networks=("10.244.0.0/16", "fd00:244::/32"), non_members=non_members),
        n1=node(1),
        n2=node(2),
        n3=node(3, tunnels=()),
    )


def kernel(found: Roster, *, sendable: tuple[ChildKey, ...] = ()) -> FakeRouting:
    routing = FakeRouting()
    assert reconcile_routing(routing, desired_interceptor(found, sendable=sendable)) == ()
    return routing


def test_no_tunnel_with_an_interface_wants_nothing() -> None:
    found = roster("n1", plan(tunnel()), n1=node(1), n2=node(2))
    assert desired_interceptor(found) is None


@pytest.mark.parametrize("phase", [Phase.ACCEPT, Phase.ESTABLISH, Phase.PROTECT])
def test_until_a_peer_can_be_sent_to_its_pods_are_where_they_were(phase: Phase) -> None:
    routing = kernel(mesh(phase))
    for destination in (PEERS_POD, PEERS_POD_6, PEER, UNKNOWN):
        assert routing.way(destination, POD) is None


def test_in_protect_who_can_be_sent_to_is_sent_to() -> None:
    routing = kernel(mesh(Phase.PROTECT), sendable=(KEY,))
    assert routing.way(PEERS_POD) is RouteKind.UNICAST
    assert routing.way(PEERS_POD_6) is RouteKind.UNICAST
    assert routing.way(UNKNOWN) is None


@pytest.mark.parametrize("phase", [Phase.REQUIRE, Phase.BLOCK])
def test_from_require_on_members_are_reached_by_the_device_or_not_at_all(phase: Phase) -> None:
    routing = kernel(mesh(phase))
    assert routing.way(PEERS_POD) is RouteKind.UNICAST
    assert routing.way(PEER, POD) is RouteKind.UNICAST, "pods to the peer itself"
    assert routing.way(PEER, HOST) is None, "nodes speak IKE and ESP with each other"
    routing.devices.clear()
    routing.by_slot = {slot: route for slot, route in routing.by_slot.items() if route.device is None}
    assert routing.way(PEERS_POD) is RouteKind.UNREACHABLE, "somebody has removed the device"
    assert routing.way(PEER, POD) is RouteKind.UNREACHABLE


def test_block_leads_what_is_unknown_nowhere_and_leaves_all_others_their_way() -> None:
    routing = kernel(mesh())
    assert routing.way(UNKNOWN) is RouteKind.UNREACHABLE
    assert routing.way(ip_address("fd00:244:99::2")) is RouteKind.UNREACHABLE
    for destination in ("10.244.1.2", "fd00:244:1::2", "10.244.3.2", "192.0.2.1", "10.250.0.3"):
        assert routing.way(ip_address(destination)) is None, destination


def test_strangers_that_are_denied_are_blocked_as_well() -> None:
    assert kernel(mesh(non_members=NonMembers.DENY)).way(ip_address("10.244.3.2")) is RouteKind.UNREACHABLE


def test_the_nodes_own_packets_have_its_address() -> None:
    routes = [route for route in kernel(mesh()).routes() if route.device is not None and route.table == TABLE]
    assert {route.source for route in routes} == {HOST, ip_address("fd00:250::1")}


def test_nodes_addresses_in_the_pod_range_stay_reachable() -> None:
    settings = tunnel(interception=Interception.INTERFACE)
    found = roster("n1", plan(settings, pod_networks=("10.0.0.0/8",)), n1=node(1), n2=node(2))
    assert kernel(found).way(PEER, HOST) is None
    assert kernel(found).way(HOST) is None


def test_policies_and_states_have_the_devices_id() -> None:
    found = mesh()
    policies = desired_policies(found, lambda _: ReqId(0x48000001))
    protecting = [policy for policy in policies if policy.templates]
    assert {policy.if_id for policy in protecting} == {IF_ID}
    assert all(owns_policy(policy) for policy in policies)
    (spec,) = pair_specs(found, lambda _: ReqId(1), port=500).values()
    assert [child.if_id for child in spec.children] == [IF_ID]


def test_what_comes_from_a_peer_in_clear_is_blocked_from_require_on() -> None:
    for phase in Phase:
        policies = desired_policies(mesh(phase), lambda _: ReqId(0x48000001))
        blocked = [
            policy
            for policy in policies
            if policy.action is Action.BLOCK and PEERS_POD in policy.selector.source and not policy.if_id
        ]
        assert bool(blocked) is (phase in (Phase.REQUIRE, Phase.BLOCK))
        assert not any(policy.direction is Direction.OUT for policy in blocked), "inner packets would meet it as well"


def test_a_host_that_boots_has_no_device_and_blocks_by_policies() -> None:
    guard = guard_policies(desired_policies(without_device(mesh()), lambda _: ReqId(0x48000001)))
    assert {policy.if_id for policy in guard} == {0}
    blocked = [policy for policy in guard if policy.action is Action.BLOCK and policy.direction is Direction.OUT]
    assert any(PEERS_POD in policy.selector.destination for policy in blocked)
    assert any(UNKNOWN in policy.selector.destination for policy in blocked)
    found = roster("n1", plan(tunnel()), n1=node(1), n2=node(2))
    assert without_device(found) is found


# In the kernel


def test_nothing_is_done_twice() -> None:
    wanted = desired_interceptor(mesh())
    routing = FakeRouting()
    reconcile_routing(routing, wanted)
    routing.done.clear()
    reconcile_routing(routing, wanted)
    assert routing.done == []


def test_ways_come_before_what_blocks_and_the_rules_last() -> None:
    done = kernel(mesh()).done
    kinds = [
        next((word for word in ("device", "throw", "unicast", "unreachable", "rule") if word in each), "")
        for each in done
    ]
    assert kinds == sorted(kinds, key=["device", "throw", "unicast", "unreachable", "rule"].index)


def test_what_is_not_wanted_any_more_goes_rules_first() -> None:
    routing = kernel(mesh())
    routing.done.clear()
    reconcile_routing(routing, None)
    assert (routing.devices, routing.routes(), routing.rules()) == ([], [], [])
    kinds = [
        next(word for word in ("rule", "unreachable", "unicast", "throw", "device") if word in each)
        for each in routing.done
    ]
    assert kinds == sorted(kinds, key=["rule", "unreachable", "unicast", "throw", "device"].index)


def test_a_device_that_is_gone_or_down_is_mended() -> None:
    wanted = desired_interceptor(mesh())
    routing = kernel(mesh())
    routing.delete_device(routing.devices[0])
    reconcile_routing(routing, wanted)
    assert routing.way(PEERS_POD) is RouteKind.UNICAST
    assert {route.device for route in routing.routes()} == {None, 8}
    routing.devices[0] = replace(routing.devices[0], up=False)
    reconcile_routing(routing, wanted)
    assert routing.devices[0].up


def test_a_route_that_leads_to_a_device_of_before_is_replaced_and_not_missed_in_between() -> None:
    wanted = desired_interceptor(mesh())
    routing = kernel(mesh())
    routing.devices[0] = replace(routing.devices[0], index=42)
    routing.done.clear()
    reconcile_routing(routing, wanted)
    assert not any(each.startswith("delete") for each in routing.done)
    assert {route.device for route in routing.routes()} == {None, 42}


def test_somebody_elses_device_of_our_name_is_a_problem() -> None:
    routing = FakeRouting(devices=[XfrmDevice(name=DEVICE, if_id=5, index=3, up=True)])
    with pytest.raises(XfrmError):
        reconcile_routing(routing, desired_interceptor(mesh()))
    assert reconcile_routing(routing, None) == ()
    assert routing.devices, "it stays"


def test_what_the_kernel_refuses_is_said() -> None:
    routing = FakeRouting(refuse=XfrmError("add", "a route", errno.EINVAL))
    assert reconcile_routing(routing, desired_interceptor(mesh())) != ()


def test_leftovers_of_another_plan_are_removed() -> None:
    routing = kernel(mesh())
    stale = Route(table=TABLE, destination=ip_network("10.244.7.0/24"), kind=RouteKind.UNICAST, metric=100, device=7)
    routing.by_slot[stale.table, stale.destination, stale.metric] = stale
    routing.all_rules.add(Rule(version=4, preference=71, table=TABLE, source=ip_network("10.244.7.0/24")))
    reconcile_routing(routing, desired_interceptor(mesh()))
    assert stale not in routing.routes()
    assert len(routing.rules()) == 4
