"""What a small mesh costs the API server, counted as in `make bench-scale`: bounded, and silent where nothing happens.

Counts alone, which no busy machine changes; what they come to with 5,000 nodes is in docs/reference/scale.md.
"""

from __future__ import annotations

import asyncio

from benchmarks.scale.figures import GOALS, Results
from benchmarks.scale.story import Size, story
from hauberk_agent.report import HOLD_BACK_SECONDS

NODES = 50
SIZE = Size(
    nodes=NODES,
    crowd=6,
    watchers=5,
    repetitions=1,
    observe_seconds=12.0,
    patience_seconds=240.0,
    idle_seconds=2.0,
    settle_seconds=2.0,
    renewal_seconds=1.0,
    notice_seconds=(-HOLD_BACK_SECONDS, 2.0 - HOLD_BACK_SECONDS),
    parts=frozenset({"join", "renewal", "leave", "dead"}),
)


async def told() -> Results:
    results = Results()
    async with story(SIZE, print, results) as mesh:
        await mesh.tell()
    return results


def test_what_happens_to_a_mesh_costs_what_it_must_and_no_more() -> None:
    results = asyncio.run(told())
    figures, writes = results.figures, results.details
    assert figures["idle_writes"] == 0
    # -> a join: its IPsecNode, its certificate and its reports, and what the tunnel's status says of it
    assert figures["events_per_agent_per_join"] == 1
    assert figures["writes_per_join"] <= 16, writes["join"]
    assert writes["join"]["operator create ipsecnodes"] == SIZE.repetitions
    # -> a renewal concerns nobody else
    assert figures["events_per_agent_per_renewal"] == 0
    assert figures["writes_per_renewal"] <= 4, writes["renewal"]
    assert figures["events_per_agent_per_leave"] == 1
    assert figures["writes_per_leave"] <= 6, writes["leave"]
    # -> a dead node is missed by 49, and reported by a few
    assert 1 <= figures["writes_per_dead_node"] <= GOALS["writes_per_dead_node"], writes["dead node"]
    assert figures["operator_rss_mb"] < GOALS["operator_rss_mb"]
