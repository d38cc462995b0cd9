"""How much of each fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Counts are of what must have happened before the soak goes on; more may happen."""

    baseline_seconds: float
    """How long the same traffic is watched without a fault, for what this machine loses by itself."""
    child_rekeys: int
    ike_rekeys: int
    agent_kills: int
    operator_kills: int
    api_outages: int
    removals: int
    """How often a peer's states are removed by hand."""
    node_crashes: int


WHOLE: Final = Sizes(
    baseline_seconds=60,
    child_rekeys=1000,
    ike_rekeys=100,
    agent_kills=100,
    operator_kills=10,
    api_outages=10,
    removals=6,
    node_crashes=3,
)

SHORT: Final = Sizes(
    baseline_seconds=4,
    child_rekeys=20,
    ike_rekeys=3,
    agent_kills=4,
    operator_kills=1,
    api_outages=1,
    removals=1,
    node_crashes=0,
)
"""What `make test` plays, in about a minute."""
