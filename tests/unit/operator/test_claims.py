"""The first holder of an address keeps it."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_operator.claims import settle_claims
from hauberk_operator.facts import Loan, NodeFacts
from tests.unit.operator.builders import member, node

EARLY, LATE = "2026-01-01T00:00:00Z", "2026-06-01T00:00:00Z"


def test_nodes_without_conflicts_are_granted_what_they_claim_in_their_order() -> None:
    one = node("n1", addresses=["10.0.0.1", "fd00::1"], pod_cidrs=["10.244.1.0/24", "fd00:244:1::/64"])
    granted, conflicts = settle_claims([one, node("n2")], {})
    assert not conflicts
    assert granted["n1"].addresses == ["10.0.0.1", "fd00::1"]
    assert granted["n1"].pod_cidrs == ["10.244.1.0/24", "fd00:244:1::/64"]


def test_of_two_new_claimants_the_older_node_is_granted_the_address() -> None:
    nodes = [node("n1", created=LATE, addresses=["10.0.0.9"]), node("n2", created=EARLY, addresses=["10.0.0.9"])]
    granted, conflicts = settle_claims(nodes, {})
    assert granted["n2"].addresses == ["10.0.0.9"]
    assert granted["n1"].addresses == []
    assert [(c.node, c.claim, c.holder) for c in conflicts] == [("n1", "10.0.0.9", "n2")]
    assert conflicts[0].sentence() == "n1 claims 10.0.0.9, which n2 holds"


def test_who_holds_an_address_keeps_it_against_an_older_node() -> None:
    nodes = [node("n1", created=EARLY, addresses=["10.0.0.1", "10.0.0.2"]), node("n2", created=LATE)]
    members = {"n2": member("n2", addresses=["10.0.0.2"], pod_cidrs=["10.244.2.0/24"])}
    granted, conflicts = settle_claims(nodes, members)
    assert granted["n1"].addresses == ["10.0.0.1"]
    assert granted["n2"].addresses == ["10.0.0.2"]
    assert [c.node for c in conflicts] == ["n1"]


def test_a_node_registered_again_holds_nothing_of_its_former_self() -> None:
    nodes = [
        node("n1", uid="new", created=LATE, addresses=["10.0.0.5"]),
        node("n2", created=EARLY, addresses=["10.0.0.5"]),
    ]
    granted, _ = settle_claims(nodes, {"n1": member("n1", node_uid="old", addresses=["10.0.0.5"])})
    assert granted["n2"].addresses == ["10.0.0.5"]


def test_an_address_given_up_is_free() -> None:
    nodes = [node("n1", created=EARLY, addresses=["10.0.0.7"]), node("n2", created=LATE, addresses=["10.0.0.1"])]
    members = {"n1": member("n1", addresses=["10.0.0.1"])}
    granted, conflicts = settle_claims(nodes, members)
    assert not conflicts
    assert granted["n2"].addresses == ["10.0.0.1"]


def test_a_pod_cidr_that_swallows_others_is_refused() -> None:
    """A compromised kubelet claims everybody's pods, and everybody's addresses."""
    nodes = [node("n1", created=EARLY), node("n2", created=LATE, pod_cidrs=["10.244.0.0/16", "10.0.0.0/8"])]
    granted, conflicts = settle_claims(nodes, {})
    assert granted["n2"].pod_cidrs == []
    assert {(c.claim, c.holder) for c in conflicts} == {("10.244.0.0/16", "n1"), ("10.0.0.0/8", "n1")}


def test_an_address_inside_another_nodes_pod_cidr_is_refused() -> None:
    nodes = [node("n1", created=EARLY), node("n2", created=LATE, addresses=["10.244.1.77"])]
    _, conflicts = settle_claims(nodes, {})
    assert [(c.claim, c.holder) for c in conflicts] == [("10.244.1.77", "n1")]


def test_a_nodes_own_address_may_lie_in_its_own_pod_cidr() -> None:
    granted, conflicts = settle_claims([node("n1", addresses=["10.244.1.1"])], {})
    assert not conflicts
    assert granted["n1"].addresses == ["10.244.1.1"]


def test_what_no_peer_could_use_is_refused() -> None:
    bad = ["nonsense", "127.0.0.1", "::1", "fe80::1", "224.0.0.1"]
    granted, conflicts = settle_claims([node("n1", addresses=bad, pod_cidrs=["0.0.0.0/0", "::/0", "10.0.0.1/8"])], {})
    assert granted["n1"].addresses == []
    assert granted["n1"].pod_cidrs == []
    assert {c.holder for c in conflicts} == {""}
    assert len(conflicts) == 8


def test_one_address_in_two_spellings_is_one_address() -> None:
    nodes = [node("n1", created=EARLY, addresses=["fd00::1"]), node("n2", created=LATE, addresses=["FD00:0::1"])]
    _, conflicts = settle_claims(nodes, {})
    assert [c.node for c in conflicts] == ["n2"]


def _small_network(base: int, length: int) -> str:
    address = (base << (32 - length) & 0x0FFF_FFFF) | 0x0A00_0000
    return str(ipaddress.ip_network((address, length), strict=False))


_small_networks = st.builds(_small_network, st.integers(0, 2**12), st.integers(20, 32))


@given(st.lists(st.lists(_small_networks, max_size=4), min_size=1, max_size=6))
def test_granted_ranges_of_two_nodes_never_overlap_and_nothing_is_lost(claims: list[list[str]]) -> None:
    nodes = [node(f"n{i}", addresses=[], pod_cidrs=cidrs) for i, cidrs in enumerate(claims)]
    granted, conflicts = settle_claims(nodes, {})
    owned = [(name, ipaddress.ip_network(cidr)) for name, grant in granted.items() for cidr in grant.pod_cidrs]
    for name, network in owned:
        assert not [other for holder, other in owned if holder != name and other.overlaps(network)]
    for one in nodes:
        refused = {c.claim for c in conflicts if c.node == one.name}
        assert set(one.pod_cidrs) == refused | set(granted[one.name].pod_cidrs)
        assert not refused & set(granted[one.name].pod_cidrs)


@given(st.lists(st.lists(_small_networks, max_size=4), min_size=1, max_size=6))
def test_what_was_granted_stays_granted(claims: list[list[str]]) -> None:
    nodes = [node(f"n{i}", addresses=[], pod_cidrs=cidrs) for i, cidrs in enumerate(claims)]
    granted, _ = settle_claims(nodes, {})
    members = {name: member(name, pod_cidrs=grant.pod_cidrs) for name, grant in granted.items()}
    again, _ = settle_claims(reversed(nodes), members)
    assert again == granted


@pytest.mark.parametrize("address", ["10.0.0.1/32", "::ffff:10.0.0.1", "fd00::1/128"])
def test_what_the_schema_would_refuse_is_refused_as_a_claim(address: str) -> None:
    # One such address in an IPsecNode would make the API server refuse the write, pass after pass.
    granted, conflicts = settle_claims([node("odd", addresses=[address])], {})
    assert granted["odd"].addresses == []
    assert address in [conflict.claim for conflict in conflicts]


def test_the_work_per_node_does_not_grow_with_the_mesh() -> None:
    """Counted in comparisons of one claim with others: a pass over a mesh of both families is not O(n squared)."""
    compared = [_compared(count) for count in (200, 2000)]
    assert compared[1] < compared[0] * 2


def _compared(count: int) -> float:
    """How many lines of the search a claim takes, on average."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        nonlocal lines
        if frame.f_code.co_name != "claim":
            return None
        lines += event == "line"
        return trace

    nodes = [
        node(f"n{i}", addresses=[f"10.0.{i >> 8}.{i & 255}", f"fd01::{i:x}"], pod_cidrs=[f"fd00:0:0:{i:x}::/64"])
        for i in range(count)
    ]
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        settle_claims(nodes, {})
    finally:
        sys.settrace(before)
    return lines / count


# Borrowed addresses


def borrows(name: str, *addresses: str, lender: str = "n1", **values: Any) -> NodeFacts:
    loans = tuple(Loan(node=name, address=address, lender=lender) for address in addresses)
    return replace(node(name, **values), loans=loans)


def test_a_borrowed_address_overrides_its_lenders_block_whoever_is_older() -> None:
    for created in (EARLY, LATE):
        nodes = [node("n1", created="2026-03-01T00:00:00Z"), borrows("n2", "10.244.1.7/32", created=created)]
        granted, conflicts = settle_claims(nodes, {})
        assert not conflicts
        assert granted["n1"].pod_cidrs == ["10.244.1.0/24"]
        assert granted["n2"].pod_cidrs == ["10.244.2.0/24", "10.244.1.7/32"]


def test_an_address_out_of_another_ones_block_than_the_lenders_is_refused() -> None:
    granted, conflicts = settle_claims([node("n1"), node("n3"), borrows("n2", "10.244.3.7/32")], {})
    assert granted["n2"].pod_cidrs == ["10.244.2.0/24"]
    assert [(c.node, c.claim, c.holder) for c in conflicts] == [("n2", "10.244.3.7/32", "n3")]


def test_no_nodes_own_address_can_be_borrowed() -> None:
    granted, conflicts = settle_claims([node("n1"), borrows("n2", "10.0.0.1/32")], {})
    assert granted["n2"].pod_cidrs == ["10.244.2.0/24"]
    assert [(c.node, c.claim, c.holder) for c in conflicts] == [("n2", "10.0.0.1/32", "n1")]


def test_who_borrowed_first_keeps_the_address() -> None:
    nodes = [node("n1"), borrows("n2", "10.244.1.7/32"), borrows("n3", "10.244.1.7/32")]
    members = {"n3": member("n3", pod_cidrs=["10.244.1.7/32"])}
    granted, conflicts = settle_claims(nodes, members)
    assert granted["n3"].pod_cidrs == ["10.244.3.0/24", "10.244.1.7/32"]
    assert [(c.node, c.claim, c.holder) for c in conflicts] == [("n2", "10.244.1.7/32", "n3")]


def test_what_was_borrowed_of_nobody_is_not_borrowed_of_who_holds_it() -> None:
    nodes = [node("n1", created=LATE), borrows("n2", "10.244.1.7/32", lender="", created=EARLY)]
    granted, conflicts = settle_claims(nodes, {"n2": member("n2", pod_cidrs=["10.244.1.7/32"])})
    assert granted["n1"].pod_cidrs == ["10.244.1.0/24"]
    assert [(c.node, c.claim, c.holder) for c in conflicts] == [("n2", "10.244.1.7/32", "n1")]


def test_more_pod_cidrs_than_an_ipsecnode_holds_are_cut_and_told() -> None:
    blocks = [f"10.{second}.{third}.0/26" for second in (8, 9) for third in range(64)]
    granted, conflicts = settle_claims([borrows("n1", "10.244.9.9/32", pod_cidrs=blocks)], {})
    assert granted["n1"].pod_cidrs == blocks
    assert [c.sentence() for c in conflicts] == ["n1 has 129 pod CIDRs, and only 128 of them count"]


def test_what_does_not_change_claims_is_settled_already() -> None:
    """Most of what happens in a mesh are heartbeats, reports and certificates."""
    nodes = [node(f"n{i}") for i in range(100)]
    once, again = settle_claims(nodes, {}), settle_claims([replace(one, ready=False) for one in nodes], {})
    assert again == once
    assert again[0]["n1"] is once[0]["n1"]
    nodes[1] = replace(nodes[1], addresses=("10.9.9.9",))
    assert settle_claims(nodes, {})[0]["n1"].addresses == ["10.9.9.9"]
