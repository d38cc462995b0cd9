"""Who says which addresses a node's pods have, and what is done while nobody can tell."""

from __future__ import annotations

from typing import Any

import pytest

from hauberk_api.conditions import Reason
from hauberk_api.mesh import PodCIDRSource
from hauberk_operator.cni_facts import BlockFacts, CiliumFacts
from hauberk_operator.facts import ANYBODY, Loan, MemberFacts, NodeFacts
from hauberk_operator.pod_cidrs import CniState, PodCIDRs, find_pod_cidrs
from tests.unit.operator.builders import member, node

AUTO, NODE, CALICO, CILIUM = PodCIDRSource
NODES = {name: node(name) for name in ("n1", "n2")}
Json = dict[str, Any]


def block_json(cidr: str, affinity: str | None, allocated: dict[int, str] | None = None, **spec: Any) -> Json:
    """An IPAMBlock as Calico writes it: allocated are ordinals with the nodes of their pods."""
    ordinals = allocated or {}
    allocations = [list(ordinals).index(i) if i in ordinals else None for i in range(64)]
    attributes = [{"handle_id": f"k8s-pod-network.{i}", "secondary": {"node": n}} for i, n in ordinals.items()]
    written = {"cidr": cidr, "allocations": allocations, "attributes": attributes, "strictAffinity": False} | spec
    if affinity is not None:
        written["affinity"] = affinity
    name = cidr.replace(".", "-").replace(":", "-").replace("/", "-")
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": "1"}, "spec": written}


def block(cidr: str, affinity: str | None, allocated: dict[int, str] | None = None, **spec: Any) -> BlockFacts:
    return BlockFacts.parse(block_json(cidr, affinity, allocated, **spec))


def cilium(name: str, ipam: Json) -> CiliumFacts:
    return CiliumFacts.parse({"metadata": {"name": name, "uid": name, "resourceVersion": "1"}, "spec": {"ipam": ipam}})


def cni(*blocks: BlockFacts, nodes: tuple[CiliumFacts, ...] = (), **state: Any) -> CniState:
    served = {CALICO: bool(blocks), CILIUM: bool(nodes)}
    found: Json = {"served": frozenset(source for source, there in served.items() if there)} | state
    return CniState(blocks={one.name: one for one in blocks}, cilium_nodes={one.name: one for one in nodes}, **found)


def find(
    state: CniState,
    wanted: PodCIDRSource = AUTO,
    used: PodCIDRSource | None = None,
    members: dict[str, MemberFacts] | None = None,
) -> PodCIDRs:
    return find_pod_cidrs(wanted, used, nodes=NODES, members=members or {}, cni=state)


def told(found: PodCIDRs) -> dict[str, NodeFacts]:
    return {facts.name: facts for facts in found.tell(NODES.values())}


BLOCK = block("10.1.0.0/26", "host:n1")
CILIUM_NODE = cilium("n1", {"podCIDRs": ["10.2.0.0/24"]})


# What CNI plugins write


def test_a_block_is_its_nodes_and_what_others_pods_have_in_it_is_borrowed() -> None:
    facts = block("10.1.0.64/26", "host:n1", {0: "n1", 3: "n2", 5: ""})
    assert (facts.node, facts.cidr) == ("n1", "10.1.0.64/26")
    assert facts.loans == (Loan(node="n2", address="10.1.0.67/32", lender="n1"),)
    assert block("fd00:1::40/122", "host:n1", {1: "n2"}).loans[0].address == "fd00:1::41/128"


def test_a_block_that_is_no_nodes_any_more_has_addresses_in_use_all_the_same() -> None:
    for affinity in (None, "virtual:load-balancer"):
        facts = block("10.1.0.0/26", affinity, {7: "n2"})
        assert (facts.node, facts.loans) == ("", (Loan(node="n2", address="10.1.0.7/32", lender=""),))


def test_a_block_marked_as_deleted_or_malformed_has_nothing() -> None:
    assert block("10.1.0.0/26", "host:n1", {1: "n2"}, deleted=True).node == ""
    assert block("10.1.0.0/26", "host:n1", {1: "n2"}, deleted=True).loans == ()
    assert block("10.1.0", "host:n1", {1: "n2"}).loans == ()
    out_of_range = block("10.1.0.0/26", "host:n1", allocations=[None] * 70 + [0], attributes=[{"secondary": None}])
    assert out_of_range.loans == ()
    assert block("10.1.0.0/26", "host:n1", allocations=[9], attributes=[]).loans == ()


def test_an_allocation_on_the_blocks_own_node_changes_no_facts() -> None:
    """Blocks change with every pod of the cluster."""
    assert block("10.1.0.0/26", "host:n1", {0: "n1"}) == block("10.1.0.0/26", "host:n1", {0: "n1", 1: "n1"})


def test_a_cilium_node_has_prefixes_of_one_pool_or_of_several() -> None:
    assert cilium("n1", {"podCIDRs": ["10.2.0.0/24", "fd00:2::/64"]}).pod_cidrs == ("10.2.0.0/24", "fd00:2::/64")
    pools = {"pools": {"allocated": [{"pool": "a", "cidrs": ["10.3.0.0/27"]}, {"pool": "b", "cidrs": ["10.4.0.0/27"]}]}}
    assert cilium("n1", pools).pod_cidrs == ("10.3.0.0/27", "10.4.0.0/27")
    assert cilium("n1", {}).pod_cidrs == ()


# Finding out


@pytest.mark.parametrize(
    ("state", "source", "cidrs"),
    [
        (cni(), NODE, ("10.244.1.0/24",)),
        (cni(BLOCK, block("10.1.0.64/26", "host:n1")), CALICO, ("10.1.0.0/26", "10.1.0.64/26")),
        (cni(nodes=(CILIUM_NODE,)), CILIUM, ("10.2.0.0/24",)),
        # What is left of a CNI plugin that is gone is about nodes that are gone.
        (cni(block("10.1.0.0/26", "host:gone")), NODE, ("10.244.1.0/24",)),
        (cni(nodes=(cilium("n1", {}),)), NODE, ("10.244.1.0/24",)),
        (cni(nodes=(cilium("gone", {"podCIDRs": ["10.2.0.0/24"]}),)), NODE, ("10.244.1.0/24",)),
    ],
)
def test_auto_takes_who_has_written_something_down(state: CniState, source: PodCIDRSource, cidrs: tuple[str]) -> None:
    found = find(state)
    assert (found.source, found.reason) == (source, Reason(f"From{source}"))
    assert told(found)["n1"].pod_cidrs == cidrs


def test_blocks_are_told_in_their_order_whatever_the_order_of_the_listing() -> None:
    state = cni(*(block(f"10.{second}.0.0/26", "host:n1") for second in (9, 100, 20)))
    assert told(find(state))["n1"].pod_cidrs == ("10.9.0.0/26", "10.20.0.0/26", "10.100.0.0/26")


def test_a_node_without_blocks_has_no_addresses_when_the_source_is_calico() -> None:
    assert told(find(cni(BLOCK)))["n2"].pod_cidrs == ()


def test_what_people_choose_is_used_though_another_is_there() -> None:
    both = cni(BLOCK, nodes=(CILIUM_NODE,))
    for wanted in (NODE, CALICO, CILIUM):
        assert find(both, wanted).source is wanted


# Not guessing

HOLDS = {"n1": member("n1", pod_cidrs=["10.9.0.0/24", "10.1.0.7/32"]), "n2": member("n2", node_uid="former")}


def test_of_two_that_disagree_neither_is_taken_unless_one_is_in_force() -> None:
    both = cni(BLOCK, nodes=(CILIUM_NODE,))
    found = find(both, used=NODE, members=HOLDS)
    assert (found.source, found.reason) == (None, Reason.SOURCES_DISAGREE)
    assert "ipamblocks.crd.projectcalico.org and ciliumnodes.cilium.io both have addresses" in found.message
    in_force = find(both, used=CILIUM, members=HOLDS)
    assert (in_force.source, in_force.reason) == (CILIUM, Reason.SOURCES_DISAGREE)
    assert "ipamblocks.crd.projectcalico.org have addresses of this cluster's nodes too" in in_force.message


@pytest.mark.parametrize(
    ("state", "wanted", "reason"),
    [
        (cni(unreadable={CALICO: "forbidden"}, served=frozenset({CALICO})), AUTO, Reason.SOURCE_UNREADABLE),
        (cni(unreadable={CALICO: "forbidden"}, served=frozenset({CALICO})), CALICO, Reason.SOURCE_UNREADABLE),
        (cni(), CILIUM, Reason.SOURCE_MISSING),
    ],
)
def test_what_cannot_be_read_is_not_guessed(state: CniState, wanted: PodCIDRSource, reason: Reason) -> None:
    """Every node keeps what is published, its loans too; a Node registered anew has nothing."""
    found = find(state, wanted, members=HOLDS)
    assert (found.source, found.reason) == (None, reason)
    n1, n2 = told(found).values()
    assert n1.pod_cidrs == ("10.9.0.0/24",)
    assert n1.loans == (Loan(node="n1", address="10.1.0.7/32", lender=ANYBODY),)
    assert (n2.pod_cidrs, n2.loans) == ((), ())


def test_what_cannot_be_read_is_no_matter_when_another_is_chosen() -> None:
    assert find(cni(unreadable={CALICO: "forbidden"}, served=frozenset({CALICO})), NODE).source is NODE
