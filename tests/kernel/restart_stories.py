"""Agents that die and come back under traffic, told inside a kernel with ESP.

The network is that of `agent_stories`; every pod sends numbered packets to every other one, in both families. Kernels
go on without their agents: nothing is lost, and nothing crosses in clear.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final

from hauberk_agent.ownership import owns_state
from hauberk_api.tunnel import Esp, Ike
from hauberk_xfrm import Xfrm
from tests.kernel.agent_stories import NUMBERS, World, eventually, in_clear, inside, spis, tell_all
from tests.kernel.rollout_stories import traffic

SEED: Final = 20261130
KILLS: Final = 4
REKEY_SECONDS: Final = 20
AWAY_SECONDS: Final = 45.0
"""Longer than an SA is meant to live, and than its peers take to notice."""


@contextmanager
def undisturbed(world: World) -> Generator[None]:
    """Nothing that the pods send meanwhile is lost or crosses in clear."""
    world.wire.taken()
    with traffic() as running:
        yield
    clear = in_clear(world.wire.taken())
    lost = {path: (len(numbers), numbers[0], numbers[-1]) for path, numbers in running.lost().items()}
    assert lost == {}, f"of {running.total()} packets, on each path how many, the first and the last: {lost}"
    assert clear == 0
    assert running.total() > 100


def larval(number: int) -> bool:
    """Whether a node is in the middle of agreeing on an SA: it has an SPI, and no keys yet."""
    with inside(f"n{number}"), Xfrm() as xfrm:
        return any(state.larval and owns_state(state) for state in xfrm.dump_states())


def await_negotiation(number: int, *, seconds: float) -> bool:
    """Waits for the middle of an exchange, and says whether it came."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if larval(number):
            return True
        time.sleep(0.002)
    return False


def used(number: int) -> bool:
    """Whether a node shares an SA each way with each of the others."""
    return all(len(spis(number) & spis(other)) >= 2 for other in NUMBERS if other != number)


def change(world: World, *, esp: Esp = Esp(), ike: Ike = Ike()) -> None:  # noqa: B008 - they don't change
    """Another version of the tunnel, which replaces all SAs."""
    (tunnel,) = world.mesh.tunnels
    changed = {"generation": tunnel.generation + 1, "esp": esp, "ike": ike}
    world.mesh.tunnels = [tunnel.model_copy(update=changed)]
    world.mesh.publish()


def all_pairs_are_up(world: World) -> None:
    for number in NUMBERS:
        world.mesh.start(number)
    eventually(lambda: all(used(number) for number in NUMBERS) and world.pods.silent() == [], "all pairs")


def agents_that_are_ended_while_sas_are_rekeyed_lose_nothing(world: World) -> None:
    chance = Random(SEED)
    before = spis(1) | spis(2) | spis(3)
    change(world, esp=Esp(rekey_packets=200))
    eventually(lambda: not (spis(1) | spis(2)) & before, "SAs with the limit")
    caught = 0
    with undisturbed(world):
        for _ in range(KILLS):
            victim = chance.choice(NUMBERS)
            caught += await_negotiation(victim, seconds=10)
            time.sleep(chance.uniform(0, 0.05))
            world.mesh.end(victim, chance.choice((signal.SIGKILL, signal.SIGTERM)))
            time.sleep(chance.uniform(0, 1))
            world.mesh.start(victim)
        eventually(lambda: all(used(number) for number in NUMBERS), "all pairs")
        time.sleep(5)
    assert caught > 0, "no kill met a rekey"
    change(world)
    eventually(lambda: all(used(number) for number in NUMBERS) and world.pods.silent() == [], "all pairs")


def agents_that_are_killed_in_the_middle_of_ike_auth_and_stay_away_lose_nothing(world: World) -> None:
    """Its peer has answered, and does not know that nobody took the answer: it must not send by the new SA."""
    chance = Random(SEED)
    for victim in (1, 3):
        world.mesh.end(victim, signal.SIGTERM)
        with undisturbed(world):
            world.mesh.start(victim)
            assert await_negotiation(victim, seconds=60)
            time.sleep(chance.uniform(0, 0.02))
            world.mesh.end(victim, signal.SIGKILL)
            time.sleep(6)
            world.mesh.start(victim)
            eventually(lambda victim=victim: used(victim) and not larval(victim), "SAs again")
            time.sleep(5)


def an_agent_away_for_longer_than_its_sas_should_live_is_missed_by_nobodys_packets(world: World) -> None:
    change(world, esp=Esp(rekey_seconds=REKEY_SECONDS), ike=Ike(rekey_seconds=REKEY_SECONDS, dpd_seconds=5))
    eventually(lambda: all(used(number) for number in NUMBERS), "all pairs")
    with undisturbed(world):
        world.mesh.end(2, signal.SIGKILL)
        held = spis(2)
        time.sleep(AWAY_SECONDS)
        assert spis(2) == held, "the kernel goes on"
        assert len(held & spis(1)) >= 2, "a peer whose daemon is down, and whose ESP arrives, is alive"
        assert len(held & spis(3)) >= 2
        (said,) = (peer for peer in world.mesh.status(1)["peers"] if peer["node"] == "n2")
        assert "Unreachable" in said["lastError"], "it is said all the same"
        world.mesh.start(2)
        eventually(lambda: used(2) and not spis(2) & held, "fresh SAs in the place of all old ones")
    change(world)
    eventually(lambda: all(used(number) for number in NUMBERS), "all pairs")


STORIES: Final[tuple[Callable[[World], None], ...]] = (
    all_pairs_are_up,
    agents_that_are_ended_while_sas_are_rekeyed_lose_nothing,
    agents_that_are_killed_in_the_middle_of_ike_auth_and_stay_away_lose_nothing,
    an_agent_away_for_longer_than_its_sas_should_live_is_missed_by_nobodys_packets,
)


if __name__ == "__main__":
    tell_all(STORIES, Path(sys.argv[1]))
