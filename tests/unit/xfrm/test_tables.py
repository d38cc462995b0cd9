"""How full the tables are, and the default policy, as pyroute2 writes what the kernel says of them."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_xfrm import Action, DefaultPolicy, PolicyTable, StateTable
from hauberk_xfrm.attribute import Malformed
from hauberk_xfrm.messages import PolicyTableInfo, StateTableInfo, UserPolicyDefault, build_body
from tests.unit.xfrm.strategies import uint32, unhurried


@unhurried
@given(uint32, uint32, uint32)
def test_the_states_are_counted(states: int, buckets: int, buckets_max: int) -> None:
    body = build_body(
        StateTableInfo(),
        flags=0,
        attrs=[("XFRMA_SAD_CNT", states), ("XFRMA_SAD_HINFO", {"hcnt": buckets, "hmcnt": buckets_max})],
    )
    assert StateTable.parse(body) == StateTable(states=states, buckets=buckets, buckets_max=buckets_max)


@unhurried
@given(st.lists(uint32, min_size=8, max_size=8))
def test_the_policies_are_counted_by_direction(numbers: list[int]) -> None:
    names = ("incnt", "outcnt", "fwdcnt", "inscnt", "outscnt", "fwdscnt")
    body = build_body(
        PolicyTableInfo(),
        flags=0,
        attrs=[
            ("XFRMA_SPD_INFO", dict(zip(names, numbers, strict=False))),
            ("XFRMA_SPD_HINFO", {"hcnt": numbers[6], "hmcnt": numbers[7]}),
            ("XFRMA_SPD_IPV4_HTHRESH", {"lbits": 32, "rbits": 32}),
        ],
    )
    assert PolicyTable.parse(body) == PolicyTable(
        inbound=numbers[0],
        outbound=numbers[1],
        forward=numbers[2],
        socket_inbound=numbers[3],
        socket_outbound=numbers[4],
        socket_forward=numbers[5],
        buckets=numbers[6],
        buckets_max=numbers[7],
    )


@pytest.mark.parametrize(("inbound", "forward", "outbound"), list(product(Action, repeat=3)))
def test_a_default_policy_is_what_pyroute2_makes_of_it(inbound: Action, forward: Action, outbound: Action) -> None:
    default = DefaultPolicy(inbound=inbound, forward=forward, outbound=outbound)
    number = {Action.BLOCK: 1, Action.ALLOW: 2}
    body = build_body(UserPolicyDefault(), **{"in": number[inbound], "fwd": number[forward], "out": number[outbound]})
    assert default.build() + b"\0" == body  # pyroute2 pads it, as the socket does for us
    assert DefaultPolicy.parse(body) == default


@pytest.mark.parametrize("parse", [StateTable.parse, PolicyTable.parse, DefaultPolicy.parse])
@unhurried
@given(data=st.binary(max_size=2))
def test_what_ends_too_early_is_malformed(parse: type, data: bytes) -> None:
    with pytest.raises(Malformed):
        parse(data)
