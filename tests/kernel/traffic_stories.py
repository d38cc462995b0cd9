"""The classes of traffic under real packets, told inside a kernel with ESP: overlays, hosts, subnets, all at once.

The network is that of `agent_stories`, with what `traffic_world` adds. The stories are told in order: each begins where
the one before it ended.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from socket import AF_INET
from typing import Any, Final

from hauberk_api.conditions import Reason
from hauberk_api.mesh import NonMembers
from hauberk_api.node import Role
from hauberk_api.plan import Phase, PlannedTunnel
from hauberk_api.tunnel import Topology, Traffic
from tests.kernel.agent_stories import NUMBERS, eventually, in_clear, ip, is_esp, policies, spis, tell_in
from tests.kernel.rollout_stories import report
from tests.kernel.traffic_world import (
    FAMILIES,
    STRANGER,
    VXLAN_PORT,
    TrafficWorld,
    forget_states,
    outer,
    settle,
    tcp_answers,
)

EXEMPT_PORTS: Final = (22, 6443, 10250)


def planned(uid: str, phase: Phase = Phase.BLOCK, generation: int = 1, **traffic: Any) -> PlannedTunnel:
    return PlannedTunnel(name=uid, uid=uid, generation=generation, phase=phase, traffic=Traffic.from_object(traffic))


OVERLAY: Final = planned("overlay", type="Overlay", overlay={"protocol": "VXLAN", "port": VXLAN_PORT})
HOST: Final = planned("hosts", type="Host")
PODS: Final = planned("pods")
SUBNETS: Final = planned("lan", type="Subnets", subnets=["10.77.0.0/24", "fd00:77::/64"]).model_copy(
    update={"topology": Topology.HUB_AND_SPOKE}
)


def want(world: TrafficWorld, *tunnels: PlannedTunnel) -> None:
    world.mesh.tunnels = list(tunnels)
    world.mesh.publish()


def has_sas(*children: int) -> Callable[[], bool]:
    """Whether the nodes send by so many CHILD SAs each, whatever is left over of others."""
    return lambda: [len(sending(number)) for number in NUMBERS] == list(children)


def sending(number: int) -> dict[tuple[str, str], str]:
    """The SPIs of a node's complete states, the newest for each peer's address and reqid."""
    blocks = re.split(r"\n(?=src )", ip("-n", f"n{number}", "xfrm", "state"))
    own = "|".join(re.escape(outer(number, version)) for version in FAMILIES)
    found = (re.search(rf"src (?:{own}) dst (\S+)\s+proto esp spi (\S+) reqid (\d+)", b) for b in blocks if "aead" in b)
    return {(match[1], match[3]): match[2] for match in reversed(list(found)) if match is not None}


def nothing_clear(world: TrafficWorld, deed: Callable[[], list[str]], *, lost: list[str] | None = None) -> None:
    """Does something that sends packets, of which none may cross in clear."""
    settle()
    world.wire.taken()
    assert deed() == (lost or [])
    frames = world.wire.taken()
    assert in_clear(frames) == 0
    if lost is None:
        assert any(is_esp(frame) for frame in frames)


def without_agents_everything_crosses_in_clear(world: TrafficWorld) -> None:
    for look in (world.silent_overlay, world.silent_hosts, world.silent_lan):
        eventually(lambda look=look: look() == [], "all paths carry packets")
        settle()
        assert in_clear(world.wire.taken()) > 0
    assert world.stranger_gets_into_the_overlay()


def an_overlay_is_encrypted_and_closed_to_strangers(world: TrafficWorld) -> None:
    want(world, OVERLAY)
    for number in NUMBERS:
        world.mesh.start(number)
    # Two peers, two families, both directions of packets.
    eventually(has_sas(8, 8, 8), "the SAs of the overlay")
    nothing_clear(world, world.silent_overlay)
    assert not world.stranger_gets_into_the_overlay()
    datapath = world.mesh.status(1)["datapath"]
    assert (datapath["kind"], datapath["port"]) == ("VXLAN", VXLAN_PORT)
    # To somebody unknown nothing leaves.
    ip("-n", "n1", "neigh", "replace", "10.99.4.2", "lladdr", "02:00:00:00:04:99", "dev", "vx4")
    ip("netns", "exec", "n1", "bridge", "fdb", "append", "02:00:00:00:04:99", "dev", "vx4", "dst", STRANGER)
    settle()
    world.wire.taken()
    assert not world.pods.passes(world.overlay[1, 4], world.overlay[2, 4])
    assert in_clear(world.wire.taken()) == 0
    ip("-n", "n1", "neigh", "replace", "10.99.4.2", "lladdr", "02:00:00:00:04:02", "dev", "vx4")
    # What is not the overlay's is as before.
    assert world.silent_hosts() == world.pods.silent() == []


def an_overlay_outlives_its_agent_and_is_never_in_clear_without_sas(world: TrafficWorld) -> None:
    assert world.mesh.end(2, signal.SIGKILL) != 0
    nothing_clear(world, world.silent_overlay)
    world.mesh.end(3, signal.SIGKILL)
    forget_states(3)
    settle()
    world.wire.taken()
    assert len(world.silent_overlay((1, 3))) == 4, "without SAs nothing passes"
    assert in_clear(world.wire.taken()) == 0
    for number in (2, 3):
        world.mesh.start(number)
    eventually(lambda: has_sas(8, 8, 8)() and world.silent_overlay() == [], "all SAs again")
    nothing_clear(world, world.silent_overlay)


def an_overlay_with_a_non_member_is_as_the_mesh_says(world: TrafficWorld) -> None:
    world.mesh.roles[3, OVERLAY.uid] = None
    want(world, OVERLAY)
    eventually(has_sas(4, 4, 0), "n3 is out")
    nothing_clear(world, lambda: world.silent_overlay((1, 2)))
    assert world.silent_overlay((1, 3)) == []
    assert in_clear(world.wire.taken()) > 0, "nonMembers: Allow"
    world.mesh.non_members = NonMembers.DENY
    want(world, OVERLAY)
    eventually(lambda: len(world.silent_overlay((1, 3))) == 4, "nonMembers: Deny")
    settle()
    nothing_clear(world, lambda: world.silent_overlay((1, 2)))
    world.mesh.roles.clear()


def each_phase_carries_an_overlay(world: TrafficWorld) -> None:
    for phase in (*Phase, *reversed(Phase)):
        want(world, planned("overlay", phase, 2, type="Overlay", overlay={"protocol": "VXLAN", "port": VXLAN_PORT}))
        eventually(lambda phase=phase: all(carried(world, n) == phase for n in NUMBERS), f"all are in {phase}")
        assert world.silent_overlay() == [], phase


def carried(world: TrafficWorld, number: int) -> Phase | None:
    """The phase of its one tunnel that a node's agent has carried out, as it reports."""
    lines = report(number).tunnels
    return lines[0].phase if lines and lines[0].ready else None


def an_overlay_on_a_port_that_nobody_has_is_said_and_blocks_nothing(world: TrafficWorld) -> None:
    want(world, planned("overlay", generation=3, type="Overlay", overlay={"protocol": "VXLAN", "port": 9999}))
    eventually(lambda: all(misfit(number) for number in NUMBERS), "the reports say so")
    assert not any("action block" in ip("-n", f"n{number}", "xfrm", "policy", "list", "nosock") for number in NUMBERS)
    assert world.silent_overlay() == []


def misfit(number: int) -> bool:
    """Whether a node reports that its datapath does not suit its tunnel."""
    status = report(number)
    return status.reason == Reason.UNSUPPORTED_DATAPATH and "no VXLAN device on port 9999" in status.tunnels[0].problem


def hosts_are_encrypted_and_nobody_is_locked_out(world: TrafficWorld) -> None:
    want(world, HOST)
    eventually(lambda: has_sas(4, 4, 4)() and world.silent_hosts() == [], "the SAs of hosts")
    nothing_clear(world, world.silent_hosts)
    # n2's agent is dead, and nobody has an SA with it.
    world.mesh.end(2, signal.SIGKILL)
    for number in NUMBERS:
        if number != 2:
            world.mesh.end(number, signal.SIGKILL)
        forget_states(number)
        ip("-n", f"n{number}", "neigh", "flush", "all")  # its addresses have to be found anew
    world.wire.taken()
    assert len(world.silent_hosts((1, 2))) == 4, "Strict"
    assert in_clear(world.wire.taken()) == 0
    refused = [
        (client, server, port, version)
        for client, server in ((1, 2), (2, 1))
        for port in EXEMPT_PORTS
        for version in FAMILIES
        if not tcp_answers(client, server, port, version)
    ]
    assert refused == []
    assert not tcp_answers(1, 2, 9100, 4)
    assert world.pods.passes(world.hosts[1, 4], world.stranger), "the world is not Host's"
    assert world.pods.silent() == [], "nor are pods"
    for number in NUMBERS:
        world.mesh.start(number)
    eventually(lambda: has_sas(4, 4, 4)() and world.silent_hosts() == [], "all SAs again")


def networks_behind_a_hub_are_encrypted_as_far_as_the_hub(world: TrafficWorld) -> None:
    world.mesh.roles |= {(1, "lan"): Role.SPOKE, (2, "lan"): Role.SPOKE, (3, "lan"): Role.HUB}
    want(world, SUBNETS)
    eventually(lambda: has_sas(1, 1, 2)() and world.silent_lan() == [], "the SAs of the subnets")
    nothing_clear(world, world.silent_lan)
    for number in (1, 2):
        world.mesh.end(number, signal.SIGKILL)
        forget_states(number)
    settle()
    world.wire.taken()
    assert len(world.silent_lan()) == 16
    assert in_clear(world.wire.taken()) == 0
    assert world.pods.silent() == world.silent_hosts() == [], "everything else is as before"
    for number in (1, 2):
        world.mesh.start(number)
    eventually(lambda: world.silent_lan() == [], "all SAs again")
    # The gateway leaves: what is for its networks goes nowhere.
    world.mesh.roles[3, "lan"] = None
    want(world, SUBNETS)
    eventually(lambda: not spis(1) and not spis(2), "no SA is left")
    settle()
    world.wire.taken()
    ends = [
        ends[number, version] for ends in (world.pods.sockets, world.hosts) for number in (1, 2) for version in FAMILIES
    ]
    assert not any(world.pods.passes(end, world.lan[4 if end.family is AF_INET else 6]) for end in ends)
    assert in_clear(world.wire.taken()) == 0
    assert len(world.silent_lan()) == 16, "nor is anything taken"
    world.mesh.roles[3, "lan"] = Role.HUB


def all_classes_at_once_share_the_ike_sas(world: TrafficWorld) -> None:
    world.mesh.roles[3, "lan"] = Role.HUB
    want(world, PODS, HOST, OVERLAY, SUBNETS)
    # Pods 1, hosts 2, the overlay 4 with each peer; the subnets between each spoke and the hub.
    eventually(has_sas(15, 15, 16), "the SAs of all")
    looks = (world.silent_overlay, world.silent_hosts, world.silent_lan, world.pods.silent)
    for look in looks:
        eventually(lambda look=look: look() == [], "each class carries packets")
        nothing_clear(world, look)
    status = world.mesh.status(1)
    assert [tunnel["name"] for tunnel in status["peers"][1]["tunnels"]] == ["pods", "hosts", "overlay", "lan"]
    assert len({child["reqid"] for peer in status["peers"] for child in peer["children"]}) == 15
    before = set(sending(1).values())
    world.mesh.end(1, signal.SIGKILL)
    for look in looks:
        nothing_clear(world, look)
    world.mesh.start(1)
    lost: list[str] = []

    def replaced() -> bool:
        lost.extend(world.pods.silent() + world.silent_hosts((1, 2)) + world.silent_overlay((1, 2)))
        now = set(sending(1).values())
        return not now & before and len(now) == 15

    world.wire.taken()
    eventually(replaced, "fresh SAs of all classes under the old ones")
    assert lost == []
    assert in_clear(world.wire.taken()) == 0


def a_class_that_goes_takes_what_is_its_own(world: TrafficWorld) -> None:
    before = set(sending(1).items())
    want(world, PODS, OVERLAY)
    eventually(has_sas(10, 10, 10), "the SAs of hosts and subnets are gone")
    assert set(sending(1).items()) < before, "the others' are the same"
    nothing_clear(world, world.silent_overlay)
    nothing_clear(world, world.pods.silent)
    assert world.silent_hosts() == []
    want(world)
    eventually(lambda: not any(spis(number) or policies(number) for number in NUMBERS), "empty kernels")


STORIES: Final[tuple[Callable[[TrafficWorld], None], ...]] = (
    without_agents_everything_crosses_in_clear,
    an_overlay_is_encrypted_and_closed_to_strangers,
    an_overlay_outlives_its_agent_and_is_never_in_clear_without_sas,
    an_overlay_with_a_non_member_is_as_the_mesh_says,
    each_phase_carries_an_overlay,
    an_overlay_on_a_port_that_nobody_has_is_said_and_blocks_nothing,
    hosts_are_encrypted_and_nobody_is_locked_out,
    networks_behind_a_hub_are_encrypted_as_far_as_the_hub,
    all_classes_at_once_share_the_ike_sas,
    a_class_that_goes_takes_what_is_its_own,
)

if __name__ == "__main__":
    tell_in(TrafficWorld, STORIES, Path(sys.argv[1]))
