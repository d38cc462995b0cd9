"""Agents that are killed at random moments, again and again, for random times: not one packet of the pods' is lost.

A seed is one life of a mesh. `HAUBERK_LIVES=3000` tries as many of them as that, other ones each time.
"""

from __future__ import annotations

import os
from random import Random

import pytest

from hauberk_api.plan import PlannedTunnel
from tests.unit.agent.mesh import VXLAN, tunnel
from tests.unit.agent.network import Network

KILLS = 8
LIVES = int(os.environ.get("HAUBERK_LIVES", "0"))
SEEDS = range(12) if not LIVES else Random().sample(range(1 << 32), LIVES)


@pytest.mark.parametrize("rekeys", ["long", "short"])
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_agents_lose_nothing(seed: int, rekeys: str) -> None:
    live(seed, rekeys)


@pytest.mark.parametrize("rekeys", ["long", "short"])
@pytest.mark.parametrize("seed", SEEDS[: len(SEEDS) // 3])
def test_killed_agents_lose_nothing_of_several_tunnels(seed: int, rekeys: str) -> None:
    """Their children are asked for one after the other, in an IKE SA that is up already."""
    live(seed, rekeys, (tunnel("overlay", traffic=VXLAN),))


def live(seed: int, rekeys: str, further: tuple[PlannedTunnel, ...] = ()) -> None:
    chance = Random(f"{seed} {rekeys}")
    network = Network(chance.choice((2, 2, 3)), seed=chance.getrandbits(32), loss=chance.choice((0.0, 0.0, 0.05)))
    network.tunnels = further
    if rekeys == "short":
        network.rekey_seconds, network.ike_rekey_seconds = 15, 10
        network.rekey_packets = chance.choice((None, 40, 1000))
    network.start()
    network.run_until(network.connected, limit=60.0)
    network.run(chance.uniform(20.0, 60.0))
    before = network.flow.lost
    told: list[str] = []
    for _ in range(KILLS):
        victim = chance.choice(network.parties)
        down = chance.choice((chance.uniform(0.1, 3.0), chance.uniform(0.5, 15.0), chance.uniform(5.0, 60.0)))
        told.append(f"at {network.now:.2f} {victim.name} for {down:.2f} s")
        victim.kill()
        network.run(down)
        victim.revive()
        network.run(chance.choice((chance.uniform(0.1, 5.0), chance.uniform(5.0, 60.0), chance.uniform(10.0, 40.0))))
        assert network.flow.lost == before, f"seed {seed}, killed {', '.join(told)}"
    network.run_until(network.connected, limit=120.0)
    network.run(120.0)
    assert network.flow.lost == before, f"seed {seed}, killed {', '.join(told)}"
    if rekeys == "long":  # else something has always just been replaced
        assert network.disagreements() == []
