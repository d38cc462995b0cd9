"""What the reconciler does about policies: each test is one line of the table, wanted against there."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_xfrm import (
    Action,
    AddPolicy,
    Conflict,
    DeletePolicy,
    Direction,
    Mark,
    Policy,
    PolicyAction,
    ReqId,
    Selector,
    Slot,
    Template,
    UpdatePolicy,
    diff_policies,
)
from tests.unit.xfrm.strategies import unhurried

OUR_PRIORITIES = range(1000, 2000)


def owns(policy: Policy) -> bool:
    return policy.priority in OUR_PRIORITIES


def policy_to(destination: str, *, priority: int = 1000, reqid: int = 1) -> Policy:
    return Policy(
        selector=Selector(source=ip_network("10.244.0.0/16"), destination=ip_network(destination)),
        direction=Direction.OUT,
        priority=priority,
        action=Action.ALLOW,
        templates=(Template(source=None, destination=ip_address("192.0.2.9"), reqid=ReqId(reqid)),),
    )


A, B, C = policy_to("10.244.1.0/24"), policy_to("10.244.2.0/24"), policy_to("10.244.3.0/24")


def test_what_is_missing_is_added() -> None:
    assert diff_policies([A, B], [A], owns) == [AddPolicy(policy=B)]


def test_what_is_as_wanted_stays_whatever_its_index() -> None:
    assert diff_policies([A, B], [replace(B, index=9), replace(A, index=17)], owns) == []


def test_what_is_ours_and_different_is_updated_in_place() -> None:
    changed = policy_to("10.244.1.0/24", reqid=7)
    assert diff_policies([changed], [A], owns) == [UpdatePolicy(policy=changed)]


def test_another_priority_is_an_update_as_the_slot_is_the_same() -> None:
    moved = replace(A, priority=1500)
    assert diff_policies([moved], [A], owns) == [UpdatePolicy(policy=moved)]


def test_what_is_ours_and_unwanted_is_removed_last() -> None:
    assert diff_policies([B], [A, C], owns) == [
        AddPolicy(policy=B),
        DeletePolicy(slot=A.slot),
        DeletePolicy(slot=C.slot),
    ]


def test_what_is_not_ours_is_never_removed() -> None:
    foreign = policy_to("10.244.9.0/24", priority=5)
    assert diff_policies([], [foreign], owns) == []


def test_what_is_not_ours_is_never_overwritten_but_named() -> None:
    foreign = replace(A, priority=5)
    assert diff_policies([A, B], [foreign], owns) == [Conflict(desired=A, foreign=foreign), AddPolicy(policy=B)]


def test_a_foreign_policy_that_looks_like_ours_is_still_a_conflict() -> None:
    assert diff_policies([A], [A], lambda policy: False) == [Conflict(desired=A, foreign=A)]


def test_another_mark_or_interface_id_is_another_slot() -> None:
    foreign = [
        replace(A, priority=5, mark=Mark(value=1, mask=0xFF)),
        replace(A, priority=5, if_id=3),
        replace(A, priority=5, direction=Direction.FWD),
    ]
    assert diff_policies([A], foreign, owns) == [AddPolicy(policy=A)]


def test_two_policies_for_one_slot_are_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="two policies for one slot"):
        diff_policies([A, replace(A, priority=1001)], [], owns)


def apply_to(actual: list[Policy], actions: list[PolicyAction]) -> dict[Slot, Policy]:
    """What the kernel would hold; fails where it would refuse."""
    table = {policy.slot: policy for policy in actual}
    for action in actions:
        match action:
            case AddPolicy(policy=policy):
                assert policy.slot not in table
                table[policy.slot] = policy
            case UpdatePolicy(policy=policy):
                assert owns(table[policy.slot])
                table[policy.slot] = policy
            case DeletePolicy(slot=slot):
                assert owns(table.pop(slot))
            case Conflict(foreign=foreign):
                assert not owns(foreign)
    return table


# Few slots, so that both sides often mean the same one.
tables = st.lists(
    st.builds(
        policy_to,
        st.sampled_from([f"10.244.{n}.0/24" for n in range(6)]),
        priority=st.sampled_from((5, 1000, 1999)),
        reqid=st.integers(1, 3),
    ),
    unique_by=lambda policy: policy.slot,
)


@unhurried
@given(tables, tables)
def test_applying_it_gives_what_is_wanted_and_keeps_what_is_foreign(some: list[Policy], actual: list[Policy]) -> None:
    desired = [replace(policy, priority=1000) for policy in some]
    table = apply_to(actual, diff_policies(desired, actual, owns))
    foreign = {policy.slot: policy for policy in actual if not owns(policy)}
    assert table == {policy.slot: policy for policy in desired} | foreign
    # Once applied, there is nothing left to do but to name the conflicts again.
    again = diff_policies(desired, table.values(), owns)
    assert all(isinstance(action, Conflict) for action in again)
