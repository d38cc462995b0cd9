"""What the story comes to: the flat figures, and the table that people read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

Say = Callable[[str], None]
Figures = Mapping[str, float]

GOALS: Final[Mapping[str, float]] = {
    "events_per_agent_per_join": 1.0,
    "operator_rss_mb": 150.0,
    "operator_cpu_seconds_per_join": 1.0,
    "writes_per_dead_node": 10.0,
    "writes_a_minute_fifth_dead": 1000.0,
}
"""At most. What has no goal must not grow with the mesh: compare runs of two sizes."""

_MEANINGS: Final[Mapping[str, str]] = {
    "nodes": "nodes, each with an agent",
    "writes_per_join": "writes of operator and agent for a node that joins",
    "events_per_agent_per_join": "watch events that every other agent is sent for it",
    "operator_cpu_seconds_per_join": "the operator's processor time for it",
    "seconds_to_converge": "from the Node to the tunnel's Ready with it",
    "operator_cpu_seconds_per_node_together": "the same when many join together",
    "writes_per_leave": "writes for a Node that is deleted",
    "events_per_agent_per_leave": "watch events that every agent is sent for it",
    "writes_per_renewal": "writes for a certificate that is renewed",
    "events_per_agent_per_renewal": "watch events that every agent is sent for it",
    "writes_per_dead_node": "writes for a node that dies and stays",
    "writes_a_minute_fifth_dead": "the most writes in a minute after a fifth of the nodes has died",
    "writes_fifth_dead": "all writes after that",
    "writes_per_node_ca_roll": "writes for each node of a roll of the CA",
    "events_per_agent_ca_roll": "watch events that every agent is sent for it",
    "seconds_ca_roll": "how long the roll takes",
    "writes_a_minute_ca_roll": "the most writes in a minute of it",
    "idle_writes": "writes in a minute in which nothing happens",
    "idle_cpu_share": "the operator's share of a processor meanwhile, heartbeats included",
    "operator_rss_mb": "the operator's resident memory, at most (10^6 bytes)",
    "heartbeats_per_second": "what the kubelets write besides",
}


@dataclass(slots=True)
class Results:
    """Filled as the story goes on. `details` are the writes by who and what, for each part of the story."""

    figures: dict[str, float] = field(default_factory=dict[str, float])
    details: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])

    def as_object(self) -> dict[str, float]:
        """Rounded, as the figures' file has them."""
        return {name: round(value, 3) for name, value in self.figures.items()}


def table(figures: Figures) -> Iterable[str]:
    """A line for each figure: name, value, goal, meaning."""
    yield f"  {'figure':40} {'value':>10} {'goal':>8}"
    for name, meaning in _MEANINGS.items():
        if name in figures:
            goal = f"{GOALS[name]:g}" if name in GOALS else ""
            yield f"  {name:40} {figures[name]:10.3f} {goal:>8}   {meaning}"


def missed(figures: Figures) -> list[str]:
    """The goals that a run did not reach."""
    return [name for name, most in GOALS.items() if figures.get(name, 0.0) > most]
