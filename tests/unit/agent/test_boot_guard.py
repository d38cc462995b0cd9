"""What the host's boot guard gets to load, and what the agent finds of it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from hauberk_agent.boot_guard import BOOT_ID, FILE, MARK, BootGuard, guard_policies, policies_at_boot, render
from hauberk_agent.ownership import PRIORITIES, owns_policy
from hauberk_agent.policy import desired_policies
from hauberk_agent.reqid import ChildKey
from hauberk_api.mesh import NonMembers
from hauberk_api.plan import Phase
from hauberk_api.report import BootGuardState
from hauberk_xfrm import Action, Direction, Policy, ReqId, Selector
from tests.unit.agent.mesh import HOST, node, plan, roster, tunnel
from tests.unit.agent.packets import outcome, tcp

BOOT = BOOT_ID.read_text().strip()


def reqid(key: ChildKey) -> ReqId:
    return ReqId(0x48000000 + int(key.peer.removeprefix("uid-")))


def policies(phase: Phase = Phase.BLOCK) -> tuple[Policy, ...]:
    found = roster("n1", plan(tunnel(phase=phase), pod_networks=("10.244.0.0/16",)), n1=node(1), n2=node(2))
    return policies_at_boot(found, reqid)


def verdict(of: tuple[Policy, ...], source: str, destination: str) -> Action | None:
    """What becomes of a packet that leaves; None: nobody minds."""
    matching = [
        policy
        for policy in of
        if policy.direction is Direction.OUT
        and ip_address(source) in policy.selector.source
        and ip_address(destination) in policy.selector.destination
    ]
    return min(matching, key=lambda policy: policy.priority).action if matching else None


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.BLOCK])
def test_before_block_there_is_nothing_to_guard(phase: Phase) -> None:
    assert policies(phase) == ()


def test_peers_pods_are_guarded_where_the_pod_range_is_just_the_nodes_own_networks() -> None:
    """Then each block's slot is a peer's or the node's own, and no block is among the policies."""
    found = roster("n1", plan(tunnel()), n1=node(1), n3=node(3))
    assert not any(policy.action is Action.BLOCK for policy in desired_policies(found, reqid))
    guard = guard_policies(policies_at_boot(found, reqid))
    assert verdict(guard, "10.244.1.9", "10.244.3.9") is Action.BLOCK
    assert verdict(guard, "10.250.0.1", "10.244.1.9") is Action.ALLOW


def test_what_needs_keys_is_blocked_and_what_the_node_needs_is_not() -> None:
    guard = guard_policies(policies())
    pod, own_pod, peer, api_server = "10.244.2.9", "10.244.1.9", "10.250.0.2", "10.250.0.200"
    assert verdict(guard, own_pod, pod) is Action.BLOCK
    assert verdict(guard, own_pod, "10.244.77.1") is Action.BLOCK, "nobody's, in the pod range"
    assert verdict(guard, own_pod, peer) is Action.BLOCK, "a peer's address, outside the pod range"
    assert verdict(guard, "10.250.0.1", pod) is Action.BLOCK
    # -> the kubelet to its own pods, to the API server; IKE and ssh to other nodes
    assert verdict(guard, "10.250.0.1", own_pod) is Action.ALLOW
    assert verdict(guard, "10.250.0.1", api_server) is None
    assert verdict(guard, "10.250.0.1", peer) is None


def test_the_agent_knows_each_for_its_own_and_updates_it_in_place() -> None:
    guard = guard_policies(policies())
    assert all(owns_policy(policy) and not policy.templates for policy in guard)
    assert {policy.slot: policy.priority for policy in guard} == {p.slot: p.priority for p in policies()}
    assert [policy.priority for policy in guard] == sorted(policy.priority for policy in guard)


def test_what_may_come_in_clear_may_also_do_so_at_boot() -> None:
    found = roster(
        "n1",
        plan(tunnel(), tunnel("tunnel-b", phase=Phase.ACCEPT), pod_networks=("10.244.0.0/16",)),
        n1=node(1, tunnels=("tunnel-a", "tunnel-b")),
        n2=node(2),
        n3=node(3, tunnels=("tunnel-b",)),
    )
    guard = guard_policies(desired_policies(found, reqid))
    inbound = {p.selector.source: p.action for p in guard if p.direction is Direction.FWD}
    assert inbound[ip_network("10.244.2.0/24")] is Action.BLOCK
    assert inbound[ip_network("10.244.3.0/24")] is Action.ALLOW


def test_lines_are_arguments_of_ip_and_nothing_else() -> None:
    every = Selector(source=ip_network("10.0.0.0/8"), destination=ip_network("192.0.2.0/24"))
    priority = PRIORITIES.start
    given = [
        Policy(selector=selector, direction=Direction.OUT, priority=priority, action=Action.BLOCK)
        for selector in (
            every,
            replace(every, protocol=6, destination_port=22),
            replace(every, protocol=17, source_port=500, destination_port=500),
            replace(every, protocol=50),
            replace(every, protocol=6, destination_port=1024, destination_port_mask=0xFC00),
            replace(every, protocol=58, source_port=135),
            replace(every, protocol=50, source_port=8),
        )
    ]
    head, *lines = render(given).decode().splitlines()
    assert head.startswith("# policies: 7;"), "those without words count too"
    begin, end = "src 10.0.0.0/8 dst 192.0.2.0/24", f"dir out priority {priority} action block"
    assert lines == [
        f"{begin} {end}",
        f"{begin} proto 6 dport 22 {end}",
        f"{begin} proto 17 sport 500 dport 500 {end}",
        f"{begin} proto 50 {end}",
        f"{begin} proto 58 type 135 {end}",
    ]


def test_a_host_tunnel_locks_nobody_out_at_boot() -> None:
    the_plan = plan(tunnel(traffic=HOST), non_members=NonMembers.DENY)
    found = roster("n1", the_plan, n1=node(1), n2=node(2), n3=node(3, tunnels=()))
    guard = guard_policies(desired_policies(found, reqid))
    for direction, packet, expected in (
        (Direction.OUT, tcp("10.250.0.1", "10.250.0.2", 51000, 6443), "clear"),
        (Direction.IN, tcp("10.250.0.2", "10.250.0.1", 6443, 51000), "clear"),
        (Direction.IN, tcp("10.250.0.2", "10.250.0.1", 51000, 22), "clear"),
        (Direction.OUT, tcp("10.250.0.1", "10.250.0.2", 51000, 9100), "block"),
    ):
        assert outcome(guard, direction, packet) == expected
    # Each has a line, and a slot of its own.
    head, *lines = render(guard).decode().splitlines()
    assert head.startswith(f"# policies: {len(lines)};")
    assert len({policy.slot for policy in guard}) == len(guard)


def test_the_file_follows_the_policies_and_goes_with_the_last_block(tmp_path: Path) -> None:
    guard, file = BootGuard(tmp_path, wanted=True), tmp_path / FILE
    guard.keep(policies())
    assert file.read_bytes() == render(guard_policies(policies()))
    assert file.stat().st_mode & 0o777 == 0o600
    written = file.stat().st_ino
    guard.keep(policies())
    BootGuard(tmp_path, wanted=True).keep(policies())
    assert file.stat().st_ino == written, "nothing new, nothing written"
    guard.keep(policies(Phase.REQUIRE))
    assert not file.exists()


def test_without_the_option_no_file_is_kept_and_an_old_one_goes(tmp_path: Path) -> None:
    BootGuard(tmp_path, wanted=True).keep(policies())
    BootGuard(tmp_path, wanted=False).keep(policies())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mark", "state"),
    [
        (None, BootGuardState.ABSENT),
        ("", BootGuardState.ABSENT),
        ("another-boot 12 12\n", BootGuardState.ABSENT),
        (f"{BOOT} 0 0\n", BootGuardState.EMPTY),
        (f"{BOOT} 12 11\n", BootGuardState.PARTIAL),
        (f"{BOOT} 12 12\n", BootGuardState.LOADED),
        (f"{BOOT} 12 many\n", BootGuardState.ABSENT),
    ],
)
def test_only_a_mark_of_this_boot_counts(tmp_path: Path, mark: str | None, state: BootGuardState) -> None:
    if mark is not None:
        (tmp_path / MARK).write_text(mark)
    assert BootGuard(tmp_path, wanted=False).found() is state
