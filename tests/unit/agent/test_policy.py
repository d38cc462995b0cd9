"""The policies that rosters ask for, as tables, and what becomes of packets that meet them.

`lookup` is the kernel's rule: of the policies of a direction that match, the one with the lowest priority number.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from hauberk_agent.ownership import PRIORITIES, owns_policy
from hauberk_agent.policy import desired_policies
from hauberk_agent.reqid import ChildKey
from hauberk_agent.roster import Roster
from hauberk_api.mesh import NonMembers
from hauberk_api.names import NodeUid, TunnelUid
from hauberk_api.node import Role
from hauberk_api.plan import Phase
from hauberk_xfrm import Action, Direction, Policy, ReqId, diff_policies
from tests.unit.agent.mesh import TUNNEL, node, plan, roster, tunnel

IN, OUT, FWD = Direction.IN, Direction.OUT, Direction.FWD
POD1, POD2, POD9 = "10.244.1.5", "10.244.2.5", "10.244.9.5"
OUTSIDE = "192.0.2.80"


def reqid(key: ChildKey) -> ReqId:
    return ReqId(0x48000000 + int(key.peer.removeprefix("uid-")))


def policies(found: Roster, sendable: Collection[str] = ()) -> tuple[Policy, ...]:
    return desired_policies(found, reqid, sendable={key(uid) for uid in sendable})


def key(uid: str) -> ChildKey:
    return ChildKey(tunnel=TunnelUid(TUNNEL), peer=NodeUid(uid))


def lookup(
    found: Roster, direction: Direction, source: str, destination: str, *, sendable: Collection[str] = ()
) -> str:
    """What happens to a packet: "clear" without a policy or exempt, "block", or "protect N" with node N."""
    matching = [
        policy
        for policy in policies(found, sendable)
        if policy.direction is direction
        and ip_address(source) in policy.selector.source
        and ip_address(destination) in policy.selector.destination
    ]
    if not matching:
        return "clear"
    best = min(policy.priority for policy in matching)
    strongest = [policy for policy in matching if policy.priority == best]
    outcomes = {_outcome(policy) for policy in strongest}
    assert len(outcomes) == 1, f"the kernel could choose any of {strongest}"
    return outcomes.pop()


def _outcome(policy: Policy) -> str:
    if policy.action is Action.BLOCK:
        return "block"
    if not policy.templates:
        return "clear"
    (template,) = policy.templates
    return f"{'may protect' if template.optional else 'protect'} {template.reqid - 0x48000000}"


def three() -> Roster:
    return roster(
        "n1", plan(tunnel(), pod_networks=("10.244.0.0/16", "fd00:244::/32")), n1=node(1), n2=node(2), n3=node(3)
    )


@pytest.mark.parametrize(
    ("direction", "source", "destination", "outcome"),
    [
        # Pod to pod, both families, both ways; what is decapsulated is looked up again on its way to the pod.
        (OUT, POD1, POD2, "protect 2"),
        (FWD, POD1, POD2, "clear"),
        (FWD, POD2, POD1, "protect 2"),
        (IN, POD2, POD1, "protect 2"),
        (OUT, POD2, POD1, "clear"),
        (OUT, "fd00:244:1::5", "fd00:244:3::5", "protect 3"),
        (FWD, "fd00:244:3::5", "fd00:244:1::5", "protect 3"),
        # Our own address to a peer's pods, and the other way round: host-network pods, kubelet, masqueraded traffic.
        (OUT, "10.250.0.1", POD2, "protect 2"),
        (IN, POD2, "10.250.0.1", "protect 2"),
        (OUT, POD1, "10.250.0.2", "protect 2"),
        (IN, "10.250.0.2", POD1, "protect 2"),
        (FWD, "10.250.0.2", POD1, "protect 2"),
        (OUT, "fd00:244:1::5", "fd00:250::2", "protect 2"),
        # Within the node.
        (OUT, "10.250.0.1", POD1, "clear"),
        (IN, POD1, "10.250.0.1", "clear"),
        (FWD, POD1, "10.244.1.6", "clear"),
        # Node to node is not the pod network, and neither is the world.
        (OUT, "10.250.0.1", "10.250.0.2", "clear"),
        (IN, "10.250.0.2", "10.250.0.1", "clear"),
        (OUT, POD1, OUTSIDE, "clear"),
        (FWD, POD1, OUTSIDE, "clear"),
        (FWD, OUTSIDE, POD1, "clear"),
        # Unknown addresses in the pod range.
        (OUT, POD1, POD9, "block"),
        (OUT, "10.250.0.1", POD9, "block"),
        (FWD, POD9, POD1, "block"),
        (IN, POD9, "10.250.0.1", "block"),
        (OUT, "fd00:244:1::5", "fd00:244:9::5", "block"),
    ],
)
def test_a_member_among_members(direction: Direction, source: str, destination: str, outcome: str) -> None:
    assert lookup(three(), direction, source, destination) == outcome


def test_the_templates_name_the_outer_addresses() -> None:
    found = three()
    for policy in policies(found):
        for template in policy.templates:
            if policy.direction is OUT:
                assert str(template.source) == "10.250.0.1"
                assert str(template.destination) in ("10.250.0.2", "10.250.0.3")
            else:
                assert template.source is None
                assert str(template.destination) == "10.250.0.1"


def test_every_policy_is_ours_and_has_a_slot_of_its_own() -> None:
    found = policies(three())
    assert all(owns_policy(policy) for policy in found)
    assert len({policy.slot for policy in found}) == len(found)
    assert diff_policies(found, found, owns_policy) == []


def test_a_policy_of_somebody_else_is_not_ours() -> None:
    ours = policies(three())[0]
    assert not owns_policy(replace(ours, priority=PRIORITIES.start - 1))
    protect = next(policy for policy in policies(three()) if policy.templates)
    foreign = replace(protect, templates=(replace(protect.templates[0], reqid=ReqId(7)),))
    assert not owns_policy(foreign)


def test_the_block_covers_the_union_of_all_nodes_where_no_range_is_given() -> None:
    found = roster("n1", plan(tunnel()), n1=node(1), n2=node(2), n3=node(3, tunnels=()), n4=node(4))
    assert lookup(found, OUT, POD1, POD2) == "protect 2"
    assert lookup(found, OUT, POD1, "10.244.3.5") == "clear"
    # A node's own prefix is blocked, exempt and protected in one slot: the strongest has it.
    assert lookup(found, OUT, "10.250.0.1", POD1) == "clear"
    revoked = roster("n1", plan(tunnel(), revoked=("uid-2",)), n1=node(1), n2=node(2))
    assert lookup(revoked, OUT, POD1, POD2) == "block"
    assert lookup(revoked, FWD, POD2, POD1) == "block"


@pytest.mark.parametrize(("setting", "outcome"), [(NonMembers.ALLOW, "clear"), (NonMembers.DENY, "block")])
def test_known_non_members(setting: NonMembers, outcome: str) -> None:
    found = roster("n1", plan(tunnel(), non_members=setting), n1=node(1), n2=node(2), n3=node(3, tunnels=()))
    for direction, source, destination in ((OUT, POD1, "10.244.3.5"), (FWD, "10.244.3.5", POD1)):
        assert lookup(found, direction, source, destination) == outcome


def test_spokes_are_blocked_from_each_other() -> None:
    nodes = {"n1": node(1, role=Role.SPOKE), "n2": node(2, role=Role.SPOKE), "n3": node(3, role=Role.HUB)}
    found = roster("n1", plan(tunnel()), **nodes)
    assert lookup(found, OUT, POD1, POD2) == "block"
    assert lookup(found, OUT, POD1, "10.244.3.5") == "protect 3"


def test_a_borrowed_address_overrides_the_block_that_it_was_borrowed_from() -> None:
    # n2 has borrowed an address of n3's block, and one of ours.
    borrower = node(2, pod_cidrs=("10.244.2.0/24", "10.244.3.77/32", "10.244.1.77/32"))
    found = roster("n1", plan(tunnel()), n1=node(1), n2=borrower, n3=node(3))
    assert lookup(found, OUT, POD1, "10.244.3.77") == "protect 2"
    assert lookup(found, OUT, POD1, "10.244.3.78") == "protect 3"
    assert lookup(found, OUT, POD1, "10.244.1.77") == "protect 2"
    assert lookup(found, FWD, "10.244.1.77", POD1) == "protect 2"
    assert lookup(found, FWD, "10.244.3.78", POD1) == "protect 3"


def test_a_block_narrower_than_a_node_s_prefix_is_still_the_weakest() -> None:
    found = roster("n1", plan(tunnel(), pod_networks=("10.244.2.0/25",)), n1=node(1), n2=node(2))
    assert lookup(found, OUT, POD1, POD2) == "protect 2"


def test_nobody_is_locked_out_of_nodes_within_the_pod_range() -> None:
    found = roster("n1", plan(tunnel(), pod_networks=("10.0.0.0/8",)), n1=node(1), n2=node(2), n3=node(3, tunnels=()))
    assert lookup(found, OUT, "10.250.0.1", "10.250.0.2") == "clear"
    assert lookup(found, IN, "10.250.0.3", "10.250.0.1") == "clear"
    assert lookup(found, OUT, POD1, "10.250.0.2") == "protect 2", "pods to that node are protected all the same"
    assert lookup(found, IN, "10.250.0.2", POD1) == "protect 2"
    assert lookup(found, OUT, "10.250.0.1", "10.99.0.1") == "block"


def test_a_node_in_no_tunnel_has_no_policies() -> None:
    assert policies(roster("n1", plan(tunnel()), n1=node(1, tunnels=()), n2=node(2))) == ()


@pytest.mark.parametrize(
    ("phase", "outbound", "inbound", "unknown"),
    [
        (Phase.ACCEPT, "clear", "may protect 2", "clear"),
        (Phase.ESTABLISH, "clear", "may protect 2", "clear"),
        (Phase.PROTECT, "protect 2 or clear", "may protect 2", "clear"),
        (Phase.REQUIRE, "protect 2", "protect 2", "clear"),
        (Phase.BLOCK, "protect 2", "protect 2", "block"),
    ],
)
def test_phases(phase: Phase, outbound: str, inbound: str, unknown: str) -> None:
    found = roster("n1", plan(tunnel(phase=phase), pod_networks=("10.244.0.0/16",)), n1=node(1), n2=node(2))
    with_sa, _, without_sa = outbound.partition(" or ")
    assert lookup(found, OUT, POD1, POD2, sendable={"uid-2"}) == with_sa
    assert lookup(found, OUT, POD1, POD2) == (without_sa or with_sa)
    assert lookup(found, FWD, POD2, POD1) == inbound
    assert lookup(found, OUT, POD1, POD9) == unknown


@pytest.mark.parametrize("own_is_passing", [True, False])
@pytest.mark.parametrize(
    ("phase", "outbound", "inbound"),
    [(Phase.ESTABLISH, "clear or clear", "may protect 2"), (Phase.PROTECT, "protect 2 or clear", "may protect 2")],
)
def test_a_pair_with_a_node_on_its_way_is_in_that_nodes_phase_though_the_tunnel_blocks(
    phase: Phase, outbound: str, inbound: str, own_is_passing: bool
) -> None:
    n1, n2 = node(1, phase=phase if own_is_passing else None), node(2, phase=None if own_is_passing else phase)
    found = roster("n1", plan(tunnel(), pod_networks=("10.244.0.0/16",)), n1=n1, n2=n2, n3=node(3))
    with_sa, _, without_sa = outbound.partition(" or ")
    assert lookup(found, OUT, POD1, POD2, sendable={"uid-2"}) == with_sa
    assert lookup(found, OUT, POD1, POD2) == without_sa
    assert lookup(found, FWD, POD2, POD1) == inbound
    # -> the other pair stays as it is, and so does the block, unless it is this node that is on its way
    assert lookup(found, OUT, POD1, POD9) == ("clear" if own_is_passing else "block")
    if not own_is_passing:
        assert lookup(found, OUT, POD1, "10.244.3.5") == "protect 3"


def test_in_protect_each_peer_is_protected_by_itself() -> None:
    found = roster("n1", plan(tunnel(phase=Phase.PROTECT)), n1=node(1), n2=node(2), n3=node(3))
    for sendable, outcomes in (((), "clear clear"), (("uid-3",), "clear protect 3"), (("uid-4",), "clear clear")):
        pods = [lookup(found, OUT, POD1, pod, sendable=sendable) for pod in (POD2, "10.244.3.5")]
        hosts = [lookup(found, OUT, POD1, host, sendable=sendable) for host in ("10.250.0.2", "10.250.0.3")]
        assert " ".join(pods) == " ".join(hosts) == outcomes


def test_priorities_stay_within_our_band() -> None:
    wide = roster("n1", plan(tunnel(), pod_networks=("0.0.0.0/0", "::/0")), n1=node(1), n2=node(2))
    assert all(policy.priority in PRIORITIES for policy in policies(wide))
    assert ip_network("::/0") in {policy.selector.destination for policy in policies(wide)}
