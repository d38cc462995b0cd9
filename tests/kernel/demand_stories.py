"""Pairs that come up when a packet asks for them, told inside a kernel with ESP.

The network is that of `agent_stories`: three agents that follow directories. What asks is the kernel, by ACQUIRE.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hauberk_api.report import ReportStatus
from hauberk_api.tunnel import Establish
from tests.kernel.agent_stories import World, eventually, in_clear, initiated, spis, tell_all

IDLE_SECONDS: Final = 60
SOON_SECONDS: Final = 4
"""Less than people may say."""


def ready(number: int) -> bool:
    report = Path(f"/run/state/n{number}/report.json")
    return report.exists() and ReportStatus.model_validate_json(report.read_bytes()).ready


def peers(world: World, number: int) -> dict[str, Any]:
    return {peer["node"]: peer for peer in world.mesh.status(number)["peers"]}


def passes(world: World, one: int, other: int, version: int = 4) -> bool:
    return world.pods.passes(world.pods.sockets[one, version], world.pods.sockets[other, version])


def up(*pairs: tuple[int, int]) -> bool:
    """Whether these pairs share one SA each way, and no other pair has any."""
    wanted = {number: 2 * sum(number in pair for pair in pairs) for number in (1, 2, 3)}
    shared = all(len(spis(one) & spis(other)) == 2 for one, other in pairs)
    return shared and {number: len(spis(number)) for number in (1, 2, 3)} == wanted


def nobody_begins_as_long_as_nobody_sends(world: World) -> None:
    tunnel = world.mesh.tunnels[0]
    changed = {"establish": Establish.ON_DEMAND, "idle_seconds": IDLE_SECONDS}
    world.mesh.tunnels = [tunnel.model_copy(update=changed)]
    world.mesh.publish()
    for number in (1, 2, 3):
        world.mesh.start(number)
    eventually(lambda: all(ready(number) for number in (1, 2, 3)), "all are ready")
    assert [spis(number) for number in (1, 2, 3)] == [set(), set(), set()]
    assert [peer["idle"] for peer in peers(world, 1).values()] == [True, True]


def the_first_packets_make_the_sa_and_none_crosses_in_clear(world: World) -> None:
    world.wire.taken()
    assert not passes(world, 2, 1), "the first one waits for nobody"
    eventually(lambda: passes(world, 2, 1), "n2, whose name sorts last, has set it up")
    assert initiated(2, other=1)
    assert up((1, 2)), "that pair alone"
    assert passes(world, 1, 2)
    assert passes(world, 2, 1, 6)
    assert in_clear(world.wire.taken()) == 0
    assert [peer["idle"] for peer in peers(world, 1).values()] == [False, True]


def both_ends_send_at_once(world: World) -> None:
    world.wire.taken()
    threads = [threading.Thread(target=passes, args=(world, *ends)) for ends in ((1, 3), (3, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: passes(world, 1, 3) and passes(world, 3, 1), "packets arrive both ways")
    assert in_clear(world.wire.taken()) == 0


def a_pair_that_nobody_uses_goes_down_and_comes_up_again(world: World) -> None:
    tunnel = world.mesh.tunnels[0]
    world.mesh.tunnels = [tunnel.model_copy(update={"generation": 2, "idle_seconds": SOON_SECONDS})]
    world.mesh.publish()
    eventually(lambda: [spis(number) for number in (1, 2, 3)] == [set(), set(), set()], "all pairs are idle")
    assert all(ready(number) for number in (1, 2, 3))
    world.mesh.tunnels = [tunnel.model_copy(update={"generation": 3})]
    world.mesh.publish()
    world.wire.taken()
    eventually(lambda: passes(world, 1, 2), "a packet asks again")
    assert in_clear(world.wire.taken()) == 0


def a_killed_agent_leaves_no_packet_in_clear_and_sets_up_what_is_asked_for_when_it_is_back(world: World) -> None:
    world.mesh.end(2, signal.SIGKILL)
    world.wire.taken()
    assert passes(world, 1, 2), "what is up stays up"
    assert not passes(world, 2, 3), "and nobody sets up more"
    assert in_clear(world.wire.taken()) == 0
    world.mesh.start(2)
    eventually(lambda: passes(world, 2, 3), "n2's agent is back, and asked")
    assert passes(world, 1, 2)
    assert in_clear(world.wire.taken()) == 0


def a_peer_that_is_absent_is_missed_until_it_is_back(world: World) -> None:
    world.mesh.end(3, signal.SIGKILL)
    world.wire.taken()
    assert not passes(world, 1, 3)
    assert peers(world, 1)["n3"]["idle"] is False
    assert not passes(world, 1, 3)
    world.mesh.start(3)
    eventually(lambda: passes(world, 1, 3), "n3 is reached as soon as it is back")
    assert in_clear(world.wire.taken()) == 0


STORIES: Final[tuple[Callable[[World], None], ...]] = (
    nobody_begins_as_long_as_nobody_sends,
    the_first_packets_make_the_sa_and_none_crosses_in_clear,
    both_ends_send_at_once,
    a_pair_that_nobody_uses_goes_down_and_comes_up_again,
    a_killed_agent_leaves_no_packet_in_clear_and_sets_up_what_is_asked_for_when_it_is_back,
    a_peer_that_is_absent_is_missed_until_it_is_back,
)

if __name__ == "__main__":
    tell_all(STORIES, Path(sys.argv[1]))
