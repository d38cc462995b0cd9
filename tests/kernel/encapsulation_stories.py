"""Pairs of nodes between which ESP does not come through though IKE does, told inside a kernel with ESP.

The network is that of `agent_stories`: three agents that follow directories. What the wire loses is dropped where it
would arrive, before IPsec has a look at it.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Final

from tests.kernel.agent_stories import (
    NUMBERS,
    World,
    eventually,
    in_clear,
    ip,
    is_esp,
    spis,
    tell_all,
)

Direction = tuple[int, int]
"""From node, to node."""
QUIET: Final = ("XfrmInNoPols", "XfrmInTmplMismatch", "XfrmInNoStates", "XfrmInStateProtoError", "XfrmOutError")
"""Counters that no probe may move."""


def lose_esp(*directions: Direction) -> None:
    """From now on the wire loses ESP that is not in UDP, in these directions and in no other."""
    for number in NUMBERS:
        sources = ", ".join(f"10.250.0.{one}" for one, other in directions if other == number)
        rule = f"ip protocol esp ip saddr {{ {sources} }} drop" if sources else ""
        table = f"table ip wire {{ chain in {{ type filter hook prerouting priority raw; {rule}; }}; }}"
        commands = f"add table ip wire; delete table ip wire; {table}"
        subprocess.run(["ip", "netns", "exec", f"n{number}", "nft", commands], check=True)


def sent_in_udp() -> dict[Direction, bool]:
    """By direction: whether the newest state that a node sends by is in UDP; no entry where it has none."""
    found: dict[Direction, bool] = {}
    for number in NUMBERS:
        blocks = re.split(r"\n(?=src )", ip("-n", f"n{number}", "xfrm", "state"))
        for block in reversed(blocks):  # the kernel shows the newest first
            ends = re.match(rf"src 10\.250\.0\.{number} dst 10\.250\.0\.(\d)", block)
            if ends is not None and "aead" in block:
                found[number, int(ends[1])] = "espinudp" in block
    return found


def both_ways(*pairs: Direction) -> dict[Direction, bool]:
    """What is expected when these pairs are in UDP, and the others are not."""
    return {(a, b): (min(a, b), max(a, b)) in pairs for a, b in permutations(NUMBERS, 2)}


def quiet(before: dict[int, dict[str, int]]) -> None:
    for number, counters in before.items():
        moved = {name: count for name, count in statistics(number).items() if count != counters[name]}
        assert not moved, f"n{number}: {moved}"


def statistics(number: int) -> dict[str, int]:
    shown = subprocess.run(
        ["ip", "netns", "exec", f"n{number}", "cat", "/proc/net/xfrm_stat"], check=True, capture_output=True, text=True
    ).stdout
    return {name: int(count) for name, count in (line.split() for line in shown.splitlines()) if name in QUIET}


def esp_that_comes_through_is_left_as_it_is_and_the_rest_goes_in_udp(world: World) -> None:
    lose_esp((1, 2), (2, 1), (3, 1))  # between n1 and n2 both ways, from n3 to n1 alone, and nothing between n2 and n3
    counters = {number: statistics(number) for number in NUMBERS}
    for number in NUMBERS:
        world.mesh.start(number)
    eventually(lambda: sent_in_udp() == both_ways((1, 2), (1, 3)), "two pairs in UDP, without a packet of any pod's")
    world.wire.taken()
    assert world.pods.silent() == []
    frames = world.wire.taken()
    assert in_clear(frames) == 0
    assert {(frame[29], frame[33]) for frame in frames if is_esp(frame)} == {(2, 3), (3, 2)}
    quiet(counters)


def status_says_how_and_why(world: World) -> None:
    peers = {peer["node"]: peer for peer in world.mesh.status(1)["peers"]}
    assert {name: peer["encapsulation"] for name, peer in peers.items()} == {"n2": "UDP", "n3": "UDP"}
    assert all("does not come through" in peer["encapsulationReason"] for peer in peers.values())
    peers = {peer["node"]: peer for peer in world.mesh.status(2)["peers"]}
    assert (peers["n3"]["encapsulation"], peers["n3"]["encapsulationReason"]) == ("None", "ESP comes through")


def an_agent_that_is_killed_or_loses_its_kernels_state_remembers(world: World) -> None:
    before = spis(2)
    for number in (1, 2):
        world.mesh.end(number, signal.SIGKILL)
    ip("-n", "n2", "xfrm", "state", "flush")  # as a reboot would
    for number in (1, 2):
        world.mesh.start(number)
    seen: list[dict[Direction, bool]] = []

    def back() -> bool:
        seen.append(sent_in_udp())
        return not before & spis(2) and seen[-1] == both_ways((1, 2), (1, 3))

    eventually(back, "all pairs as before, with other SAs")
    plain = {way for each in seen for way, in_udp in each.items() if not in_udp}
    assert plain <= {(2, 3), (3, 2)}, "nobody has tried ESP without UDP"
    assert world.pods.silent() == []


def a_path_that_begins_to_lose_esp_is_found_out_under_traffic(world: World) -> None:
    world.wire.taken()
    lose_esp((1, 2), (2, 1), (3, 1), (2, 3))
    pods = world.pods.sockets

    def passes() -> bool:
        return world.pods.passes(pods[2, 4], pods[3, 4])

    assert not passes(), "the wire loses nothing"
    seconds = eventually(passes, "pods' packets arrive again")
    assert seconds < 30
    # The end that has answered sends in UDP once the other is known to have the answer.
    eventually(lambda: sent_in_udp() == both_ways((1, 2), (1, 3), (2, 3)), "every pair sends in UDP, both ways")
    assert in_clear(world.wire.taken()) == 0


def nothing_flaps_when_esp_comes_through_again(world: World) -> None:
    lose_esp()
    lost: list[str] = []
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        lost += world.pods.silent()
    assert lost == []
    assert sent_in_udp() == both_ways((1, 2), (1, 3), (2, 3))
    assert in_clear(world.wire.taken()) == 0


STORIES: Final[tuple[Callable[[World], None], ...]] = (
    esp_that_comes_through_is_left_as_it_is_and_the_rest_goes_in_udp,
    status_says_how_and_why,
    an_agent_that_is_killed_or_loses_its_kernels_state_remembers,
    a_path_that_begins_to_lose_esp_is_found_out_under_traffic,
    nothing_flaps_when_esp_comes_through_again,
)

if __name__ == "__main__":
    tell_all(STORIES, Path(sys.argv[1]))
