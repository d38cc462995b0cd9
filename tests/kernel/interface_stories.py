"""Pods' packets that are routed to an xfrm device, told inside a kernel with ESP.

The network is that of `agent_stories`: three agents that follow directories. Their tunnel is one with an interface.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from hauberk_api.tunnel import Interception
from tests.kernel.agent_stories import (
    MARKER,
    NUMBERS,
    PORT,
    World,
    eventually,
    in_clear,
    ip,
    is_esp,
    policies,
    spis,
    tell_all,
)

FOREIGN_RULE: Final = ("pref", "72", "from", "203.0.113.0/24", "lookup", "18498")
FOREIGN_ROUTE: Final = ("unreachable", "198.51.100.0/24", "table", "18498")
"""Somebody else's, in our table and at our preference."""


def device(number: int) -> str:
    """The node's xfrm devices, as iproute2 shows them."""
    return ip("-n", f"n{number}", "-d", "link", "show", "type", "xfrm")


def ours(number: int) -> list[str]:
    """The node's routes and rules that are ours, by their protocol number."""
    node = f"n{number}"
    shown = [
        *(line for v in ("-4", "-6") for line in ip("-n", node, v, "route", "show", "table", "all").splitlines()),
        *(line for v in ("-4", "-6") for line in ip("-n", node, "-d", v, "rule").splitlines()),
    ]
    return [line for line in shown if "proto 72" in line]


def pods_and_nodes_speak_by_the_device_and_nothing_crosses_in_clear(world: World) -> None:
    tunnel = world.mesh.tunnels[0]
    world.mesh.tunnels = [tunnel.model_copy(update={"interception": Interception.INTERFACE})]
    world.mesh.publish()
    ip("-n", "n1", "rule", "add", *FOREIGN_RULE)
    ip("-n", "n1", "route", "add", *FOREIGN_ROUTE)
    for number in NUMBERS:
        world.mesh.start(number)
    eventually(lambda: [len(spis(number)) for number in NUMBERS] == [4, 4, 4], "an SA each way for each pair")
    world.wire.taken()
    for _ in range(3):
        assert world.pods.silent() == []
    frames = world.wire.taken()
    assert in_clear(frames) == 0
    assert len({(frame[26:30], frame[30:34]) for frame in frames if is_esp(frame)}) == 6, "ESP both ways"
    assert "hauberk0" in device(1)
    assert "if_id 0x48420001" in ip("-n", "n1", "xfrm", "state")
    assert "dev hauberk0" in ip("-n", "n1", "route", "get", "10.244.2.2")


def unknown_addresses_in_the_pod_range_are_unreachable(world: World) -> None:
    world.wire.taken()
    for version, host in ((4, "10.244.99.2"), (6, "fd00:244:99::2")):
        for _ in range(3):
            with suppress(OSError):  # the kernel says so
                world.pods.sockets[1, version].sendto(MARKER, (host, PORT))
    time.sleep(0.5)
    assert in_clear(world.wire.taken()) == 0


def what_comes_in_clear_is_not_taken(world: World) -> None:
    """n3 forgets what it has, and so sends in clear what the others take encrypted alone."""
    world.mesh.end(3, signal.SIGKILL)
    assert world.mesh.cleanup(3).returncode == 0
    assert (device(3), ours(3), spis(3), policies(3)) == ("", [], set(), 0)
    world.wire.taken()
    assert not world.pods.passes(world.pods.sockets[3, 4], world.pods.sockets[1, 4])
    assert not world.pods.passes(world.pods.sockets[3, 6], world.pods.sockets[1, 6])
    assert in_clear(world.wire.taken()) > 0, "they came as far as n1"
    world.mesh.start(3)
    eventually(lambda: world.pods.silent() == [], "n3 is back")


def a_killed_agent_is_replaced_without_losing_a_packet(world: World) -> None:
    before, routes = spis(2), ours(2)
    world.wire.taken()
    world.mesh.end(2, signal.SIGKILL)
    assert world.pods.silent() == []
    assert (spis(2), ours(2)) == (before, routes), "the kernel goes on"
    world.mesh.start(2)
    lost: list[str] = []

    def replaced() -> bool:
        lost.extend(world.pods.silent())
        return len(spis(2) - before) == 4

    eventually(replaced, "fresh SAs under the old ones")
    assert lost == []
    assert ours(2) == routes
    assert in_clear(world.wire.taken()) == 0


def a_device_that_somebody_removes_makes_a_drop_and_is_mended(world: World) -> None:
    routes = ours(1)
    world.wire.taken()
    ip("-n", "n1", "link", "del", "hauberk0")
    assert not world.pods.passes(world.pods.sockets[1, 4], world.pods.sockets[2, 4])
    eventually(lambda: world.pods.silent() == [], "the device is back, and its routes")
    assert in_clear(world.wire.taken()) == 0
    assert ours(1) == routes


def a_removed_tunnel_leaves_nothing_of_ours_and_all_else(world: World) -> None:
    world.mesh.tunnels = []
    world.mesh.publish()

    def empty(number: int) -> bool:
        return (device(number), ours(number), spis(number), policies(number)) == ("", [], set(), 0)

    eventually(lambda: all(empty(number) for number in NUMBERS), "empty kernels")
    assert world.pods.silent() == []
    assert "from 203.0.113.0/24" in ip("-n", "n1", "rule")
    assert "198.51.100.0/24" in ip("-n", "n1", "route", "show", "table", "18498")


STORIES: Final[tuple[Callable[[World], None], ...]] = (
    pods_and_nodes_speak_by_the_device_and_nothing_crosses_in_clear,
    unknown_addresses_in_the_pod_range_are_unreachable,
    what_comes_in_clear_is_not_taken,
    a_killed_agent_is_replaced_without_losing_a_packet,
    a_device_that_somebody_removes_makes_a_drop_and_is_mended,
    a_removed_tunnel_leaves_nothing_of_ours_and_all_else,
)

if __name__ == "__main__":
    tell_all(STORIES, Path(sys.argv[1]))
