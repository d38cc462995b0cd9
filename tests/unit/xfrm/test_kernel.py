"""Policies, SPIs and refusals against the kernel that runs the tests, in a network namespace of their own.

Nothing here needs ESP in the kernel; what does is in tests/kernel/xfrm_stories.py.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

import hauberk_agent
from hauberk_xfrm import (
    Action,
    AddPolicy,
    Aead,
    Conflict,
    DefaultPolicy,
    DeletePolicy,
    DeleteState,
    Direction,
    IpAddress,
    Mark,
    Mode,
    NotFound,
    NotSupported,
    Policy,
    PolicyExists,
    PolicyFlag,
    PolicyType,
    ReqId,
    Request,
    Selector,
    Spi,
    State,
    StateDirection,
    Template,
    UpdatePolicy,
    UpdateState,
    Xfrm,
    XfrmError,
    diff_policies,
)
from hauberk_xfrm.encoder import encode_policy

HERE, THERE = ip_address("192.0.2.1"), ip_address("192.0.2.2")
HERE6, THERE6 = ip_address("2001:db8::1"), ip_address("2001:db8::2")

TUNNEL = Policy(
    selector=Selector(source=ip_network("10.244.1.0/24"), destination=ip_network("10.244.2.0/24")),
    direction=Direction.OUT,
    priority=1000,
    action=Action.ALLOW,
    templates=(Template(source=HERE, destination=THERE, reqid=ReqId(7)),),
)
# One of each kind that Hauberk writes, and some that other people may have.
ASSORTED = [
    TUNNEL,
    Policy(
        selector=Selector(source=ip_network("fd00:1::/64"), destination=ip_network("::/0")),
        direction=Direction.IN,
        priority=0xFFFFFFFF,
        action=Action.ALLOW,
        # IPv6 inside, IPv4 outside, any source, and clear packets accepted as well.
        templates=(Template(source=None, destination=HERE, reqid=ReqId(0xFFFFFFFF), optional=True),),
    ),
    Policy(
        selector=Selector(source=ip_network("0.0.0.0/0"), destination=ip_network("10.244.0.0/16")),
        direction=Direction.FWD,
        priority=0,
        action=Action.BLOCK,
        flags=PolicyFlag.ICMP,
    ),
    Policy(
        selector=Selector(
            source=ip_network("192.0.2.1/32"),
            destination=ip_network("192.0.2.2/32"),
            protocol=17,
            destination_port=4789,
        ),
        direction=Direction.OUT,
        priority=3,
        action=Action.ALLOW,
        templates=(Template(source=HERE, destination=THERE, reqid=ReqId(8), mode=Mode.TRANSPORT),),
    ),
    Policy(
        selector=Selector(
            source=ip_network("2001:db8::/32"),
            destination=ip_network("2001:db8::/32"),
            protocol=6,
            source_port=0x8000,
            source_port_mask=0xF000,
            interface=1,
        ),
        direction=Direction.OUT,
        priority=4,
        action=Action.ALLOW,
        mark=Mark(value=0x10, mask=0xF0),
        if_id=42,
        templates=(
            Template(source=HERE6, destination=THERE6, reqid=ReqId(9), mode=Mode.BEET),
            Template(source=HERE6, destination=THERE6, reqid=ReqId(10), mode=Mode.TRANSPORT),
        ),
    ),
]


def ip(*arguments: str) -> str:
    """iproute2's view of the same tables."""
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True, timeout=10).stdout


def no_errors(outcomes: list[XfrmError | None]) -> bool:
    return all(outcome is None for outcome in outcomes)


def test_a_new_namespace_is_empty(xfrm: Xfrm) -> None:
    assert xfrm.dump_policies() == []
    assert xfrm.dump_states() == []


def test_the_kernel_shows_the_policies_that_we_wrote(xfrm: Xfrm) -> None:
    for policy in ASSORTED:
        xfrm.add_policy(policy)
    shown = xfrm.dump_policies()
    assert {policy.slot: policy for policy in shown} == {policy.slot: policy for policy in ASSORTED}
    assert all(policy.index for policy in shown)


def test_iproute2_sees_what_we_meant(xfrm: Xfrm) -> None:
    for policy in ASSORTED:
        xfrm.add_policy(policy)
    listing = " ".join(ip("-s", "xfrm", "policy").split())
    for words in (
        "src 10.244.1.0/24 dst 10.244.2.0/24 uid 0 dir out action allow index",
        "tmpl src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x00000000(0) reqid 7(0x00000007) mode tunnel level required"
        " share any enc-mask ffffffff auth-mask ffffffff comp-mask ffffffff",
        "tmpl src 0.0.0.0 dst 192.0.2.1 proto esp spi 0x00000000(0) reqid 4294967295(0xffffffff) mode tunnel level use",
        "src 0.0.0.0/0 dst 10.244.0.0/16 uid 0 dir fwd action block",
        "priority 0 ptype main share any flag icmp",
        "src 192.0.2.1/32 dst 192.0.2.2/32 proto udp dport 4789 uid 0 dir out",
        "mark 0x10/0xf0",
        "if_id 0x2a",
        "limit: soft (INF)(bytes), hard (INF)(bytes)",
    ):
        assert words in listing, listing


def test_we_see_what_iproute2_wrote(xfrm: Xfrm) -> None:
    command = (
        "xfrm policy add src 10.9.0.0/16 dst 10.8.0.1 proto tcp sport 443 dir fwd priority 77 ptype main mark 3 mask 7"
        " tmpl src 192.0.2.2 dst 192.0.2.1 proto esp reqid 5 mode tunnel level use"
    )
    ip(*command.split())
    assert xfrm.dump_policies() == [
        Policy(
            selector=Selector(
                source=ip_network("10.9.0.0/16"),
                destination=ip_network("10.8.0.1/32"),
                protocol=6,
                source_port=443,
            ),
            direction=Direction.FWD,
            priority=77,
            action=Action.ALLOW,
            mark=Mark(value=3, mask=7),
            templates=(Template(source=THERE, destination=HERE, reqid=ReqId(5), optional=True),),
        )
    ]


def test_a_slot_is_taken_whatever_the_priority(xfrm: Xfrm) -> None:
    xfrm.add_policy(TUNNEL)
    other = Policy(selector=TUNNEL.selector, direction=Direction.OUT, priority=5, action=Action.BLOCK)
    with pytest.raises(PolicyExists) as refusal:
        xfrm.add_policy(other)
    assert refusal.value.errno == errno.EEXIST
    assert "OUT policy 10.244.1.0/24 -> 10.244.2.0/24" in str(refusal.value)
    assert xfrm.dump_policies() == [TUNNEL]  # and nothing was changed


def test_an_update_replaces_the_policy_in_its_slot(xfrm: Xfrm) -> None:
    xfrm.add_policy(TUNNEL)
    blocked = Policy(selector=TUNNEL.selector, direction=Direction.OUT, priority=5, action=Action.BLOCK)
    xfrm.update_policy(blocked)
    assert xfrm.dump_policies() == [blocked]


def test_each_kind_of_policy_is_deleted_by_its_slot_alone(xfrm: Xfrm) -> None:
    assert no_errors(xfrm.apply([AddPolicy(policy=policy) for policy in ASSORTED]))
    for policy in ASSORTED:
        xfrm.delete_policy(policy.slot, missing_ok=False)
        assert policy not in xfrm.dump_policies()
    assert xfrm.dump_policies() == []


def test_deleting_what_is_not_there(xfrm: Xfrm) -> None:
    xfrm.delete_policy(TUNNEL)
    with pytest.raises(NotFound):
        xfrm.delete_policy(TUNNEL, missing_ok=False)
    xfrm.delete_state(destination=HERE, spi=Spi(0xC0000001))
    with pytest.raises(NotFound):
        xfrm.delete_state(destination=HERE6, spi=Spi(0xC0000001), missing_ok=False)
    assert xfrm.get_state(HERE, Spi(0xC0000001)) is None


def test_the_kernels_own_words_come_with_its_refusal(xfrm: Xfrm) -> None:
    optional = Template(source=HERE, destination=THERE, reqid=ReqId(1), optional=True)
    with pytest.raises(XfrmError) as refusal:
        xfrm.add_policy(
            Policy(
                selector=TUNNEL.selector,
                direction=Direction.OUT,
                priority=1,
                action=Action.ALLOW,
                templates=(optional,),
            )
        )
    assert refusal.value.errno == errno.EINVAL
    assert refusal.value.reason == "Mode in optional template not allowed in outbound policy"


@pytest.mark.parametrize(("source", "destination"), [(THERE, HERE), (THERE6, HERE6)])
def test_an_allocated_spi_is_held_by_a_larval_state(xfrm: Xfrm, source: IpAddress, destination: IpAddress) -> None:
    spi = xfrm.allocate_spi(source=source, destination=destination, reqid=ReqId(7))
    assert 0xC0000000 <= spi <= 0xCFFFFFFF
    (state,) = xfrm.dump_states()
    assert state == xfrm.get_state(destination, spi)
    assert (state.source, state.destination, state.spi, state.reqid) == (source, destination, spi, 7)
    assert state.larval
    assert state.aead is None
    assert state.mode is Mode.TUNNEL
    assert state.lifetime.hard_seconds is not None  # it goes away by itself
    assert f"spi {spi:#010x}" in ip("xfrm", "state")
    xfrm.delete_state(destination=destination, spi=spi, missing_ok=False)
    assert xfrm.dump_states() == []


def test_no_spi_is_given_twice(xfrm: Xfrm) -> None:
    first = xfrm.allocate_spi(source=THERE, destination=HERE, reqid=ReqId(7), minimum=0x1000, maximum=0x1000)
    assert first == 0x1000
    with pytest.raises(XfrmError) as refusal:
        xfrm.allocate_spi(source=THERE, destination=HERE, reqid=ReqId(8), minimum=0x1000, maximum=0x1000)
    assert refusal.value.errno == errno.ENOENT
    assert not isinstance(refusal.value, NotFound)  # nothing that is looked for is missing


def test_nothing_is_left_over_for_the_next_answer(xfrm: Xfrm) -> None:
    # ALLOCSPI -> its state and an acknowledgement; a reader that stops at the state would read the acknowledgement as
    # the answer to the next request.
    for _ in range(20):
        spi = xfrm.allocate_spi(source=THERE, destination=HERE, reqid=ReqId(7))
        with pytest.raises(NotFound):
            xfrm.delete_policy(TUNNEL, missing_ok=False)
        xfrm.add_policy(TUNNEL)
        assert xfrm.dump_policies() == [TUNNEL]
        xfrm.delete_policy(TUNNEL)
        state = xfrm.get_state(HERE, spi)
        assert state is not None
        assert state.spi == spi


def numbered(count: int) -> list[Policy]:
    """Policies for so many peers."""
    return [
        Policy(
            selector=Selector(source=ip_network("10.0.0.0/8"), destination=ip_network((0x0A000000 + (n << 8), 24))),
            direction=Direction.OUT,
            priority=1000,
            action=Action.ALLOW,
            templates=(Template(source=None, destination=THERE, reqid=ReqId(n)),),
        )
        for n in range(count)
    ]


def test_a_batch_answers_for_each_of_its_requests(xfrm: Xfrm) -> None:
    many = numbered(300)
    xfrm.add_policy(many[0])
    xfrm.add_policy(many[150])
    outcomes = xfrm.apply([AddPolicy(policy=policy) for policy in many])
    refused = {position: outcome for position, outcome in enumerate(outcomes) if outcome is not None}
    assert refused.keys() == {0, 150}
    assert all(isinstance(outcome, PolicyExists) for outcome in refused.values())
    assert "10.0.150.0/24" in str(refused[150])
    assert set(xfrm.dump_policies()) == set(many)


def test_an_empty_batch_is_nothing(xfrm: Xfrm) -> None:
    assert xfrm.apply([]) == []


def test_a_dump_of_many_parts_is_whole(xfrm: Xfrm) -> None:
    many = numbered(3000)
    assert no_errors(xfrm.apply([AddPolicy(policy=policy) for policy in many]))
    assert set(xfrm.dump_policies()) == set(many)
    spis = {xfrm.allocate_spi(source=THERE, destination=HERE, reqid=ReqId(n)) for n in range(500)}
    assert {state.spi for state in xfrm.dump_states()} == spis


def test_reconciling_mends_what_is_ours_and_leaves_the_rest(xfrm: Xfrm) -> None:
    foreign = Policy(
        selector=Selector(source=ip_network("172.16.0.0/12"), destination=ip_network("0.0.0.0/0")),
        direction=Direction.OUT,
        priority=1,
        action=Action.ALLOW,
    )
    blocking = numbered(1)[0]
    in_the_way = Policy(selector=blocking.selector, direction=Direction.OUT, priority=2, action=Action.ALLOW)
    desired = numbered(10)
    altered = UpdatePolicy(
        policy=Policy(selector=desired[5].selector, direction=Direction.OUT, priority=1000, action=Action.BLOCK)
    )
    stale = numbered(12)[11]
    for policy in (foreign, in_the_way, stale, *desired[4:]):
        xfrm.add_policy(policy)
    assert no_errors(xfrm.apply([altered, DeletePolicy(slot=desired[6].slot)]))  # somebody's hand

    actions = diff_policies(desired, xfrm.dump_policies(), lambda policy: policy.priority == 1000)
    conflicts = [action for action in actions if isinstance(action, Conflict)]
    assert conflicts == [Conflict(desired=blocking, foreign=in_the_way)]
    requests: list[Request] = [action for action in actions if not isinstance(action, Conflict)]
    assert no_errors(xfrm.apply(requests))
    assert set(xfrm.dump_policies()) == {foreign, in_the_way, *desired[1:]}


def test_it_works_where_an_event_loop_runs(xfrm: Xfrm) -> None:
    async def inside() -> list[Policy]:
        xfrm.add_policy(TUNNEL)
        with Xfrm() as opened_inside:
            opened_inside.allocate_spi(source=THERE, destination=HERE, reqid=ReqId(7))
            return opened_inside.dump_policies()

    assert asyncio.run(inside()) == [TUNNEL]


def test_it_opens_its_socket_again_after_close(xfrm: Xfrm) -> None:
    xfrm.add_policy(TUNNEL)
    xfrm.close()
    xfrm.close()
    assert xfrm.dump_policies() == [TUNNEL]


def test_policies_stay_when_the_process_ends(xfrm: Xfrm) -> None:
    with Xfrm() as other:
        other.add_policy(TUNNEL)
    assert xfrm.dump_policies() == [TUNNEL]


def test_a_sockets_own_policy_is_not_shown(xfrm: Xfrm) -> None:
    bypass = Policy(
        selector=Selector(source=ip_network("0.0.0.0/0"), destination=ip_network("0.0.0.0/0")),
        direction=Direction.OUT,
        priority=0,
        action=Action.ALLOW,
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.setsockopt(socket.IPPROTO_IP, 17, encode_policy(bypass))  # IP_XFRM_POLICY
        assert "socket out" in ip("xfrm", "policy")
        assert xfrm.dump_policies() == []


_WITHOUT_PRIVILEGE = """
import os
from hauberk_xfrm import PermissionDenied, Xfrm
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with Xfrm() as xfrm:
    for attempt in (xfrm.dump_policies, xfrm.abilities):
        try:
            attempt()
        except PermissionDenied as error:
            print(error)
"""


def test_without_net_admin_it_says_so(private_network: None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_PRIVILEGE], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.splitlines() == [
        "dump policies: Operation not permitted",
        "get a state: 192.0.2.2 spi 0x00000000: Operation not permitted",
    ], done.stderr


def test_abilities_are_found_without_leaving_a_trace(xfrm: Xfrm) -> None:
    xfrm.add_policy(TUNNEL)
    links = json.loads(ip("-j", "link"))
    abilities = xfrm.abilities()
    assert abilities.xfrm
    assert abilities.release
    # Whichever kernel runs the tests: what it lacks it says in a sentence, and only that.
    lacking = [family for family, able in (("IPv4", abilities.esp4), ("IPv6", abilities.esp6)) if not able]
    assert len(abilities.problems) == len(lacking)
    for family, problem in zip(lacking, abilities.problems, strict=True):
        assert f"has no ESP for {family}" in problem
        assert abilities.release in problem
    assert xfrm.dump_states() == []
    assert xfrm.dump_policies() == [TUNNEL]
    assert json.loads(ip("-j", "link")) == links


def test_the_direction_of_a_larval_state_is_known_where_kernels_know_it(xfrm: Xfrm) -> None:
    spi = xfrm.allocate_spi(source=THERE, destination=HERE, reqid=ReqId(7))
    state = xfrm.get_state(HERE, spi)
    assert state is not None
    assert (state.direction is StateDirection.IN) == xfrm.abilities().sa_direction


def test_a_missing_algorithm_is_not_a_missing_state(xfrm: Xfrm) -> None:
    spi = xfrm.allocate_spi(source=THERE, destination=HERE, reqid=ReqId(7))
    unknown = State(
        source=THERE,
        destination=HERE,
        spi=spi,
        reqid=ReqId(7),
        aead=Aead(name="rfc4106(gcm(rot13))", key=b"k" * 20, icv_bits=128),
    )
    (outcome, deleted) = xfrm.apply([UpdateState(state=unknown), DeleteState(destination=HERE, spi=spi)])
    assert isinstance(outcome, NotSupported)
    assert "key" not in str(outcome)
    assert deleted is None


def test_types_of_policies_are_told_apart() -> None:
    assert (
        TUNNEL.slot
        != Policy(
            selector=TUNNEL.selector,
            direction=TUNNEL.direction,
            priority=1,
            action=Action.ALLOW,
            type=PolicyType.SUB,
        ).slot
    )


def test_policies_and_states_are_counted_without_a_dump(xfrm: Xfrm) -> None:
    empty = xfrm.policy_table()
    assert (empty.inbound, empty.outbound, empty.forward) == (0, 0, 0)
    assert xfrm.state_table().states == 0
    for policy in ASSORTED:
        xfrm.add_policy(policy)
    xfrm.allocate_spi(source=THERE, destination=HERE, reqid=ReqId(7))
    table = xfrm.policy_table()
    assert (table.inbound, table.outbound, table.forward) == (1, 3, 1)
    assert 0 < table.buckets <= table.buckets_max
    assert xfrm.state_table().states == 1
    assert ip("xfrm", "state", "count").split()[-1] == "1"


def test_the_default_policy_is_what_iproute2_says_and_sets(xfrm: Xfrm) -> None:
    allow, block = Action.ALLOW, Action.BLOCK
    assert xfrm.default_policy() == DefaultPolicy(inbound=allow, forward=allow, outbound=allow)
    ip("xfrm", "policy", "setdefault", "in", "block", "out", "accept", "fwd", "block")
    assert xfrm.default_policy() == DefaultPolicy(inbound=block, forward=block, outbound=allow)
    xfrm.set_default_policy(DefaultPolicy(inbound=allow, forward=block, outbound=block))
    words = ip("xfrm", "policy", "getdefault").split()
    assert words[-6:] == ["in:", "accept", "fwd:", "block", "out:", "block"]


def test_no_agent_sets_the_default_policy() -> None:
    source = Path(hauberk_agent.__file__).parent
    assert [path.name for path in source.rglob("*.py") if "set_default_policy" in path.read_text()] == []
