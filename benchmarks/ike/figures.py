"""What the comparison comes to: the flat figures, and the table that people read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from benchmarks.ike.comparison import PARALLEL, Kind, Pairing, Result

GOALS = (
    ("responder_cpu_ratio", "at most", 0.5),
    ("initiator_cpu_ratio", "at most", 0.5),
    ("rate_ratio", "at least", 2.0),
    ("rss_mb_5000", "at most", 100.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All pairings with one proposal. `suffix` ends the names of its figures."""

    title: str
    suffix: str
    proposal: str
    results: Mapping[Pairing, Result]

    def of(self, initiator: Kind, responder: Kind) -> Result:
        """The result of one pairing. Raises KeyError."""
        return self.results[Pairing(initiator=initiator, responder=responder, proposal=self.proposal)]

    def ratios(self, other: Kind = Kind.CHARON) -> dict[str, float]:
        """Ours over theirs: CPU a handshake in each role, and handshakes a second.

        Responders and rates are compared under our load; initiators against both responders, their costs added up.
        Where both ends share two cores, our load is most of what bounds the rate: `rate_ratio_pair` is ours with ours
        over charon with charon, as a mesh would be all of one kind.
        """
        ours, theirs = self.of(Kind.OURS, Kind.OURS), self.of(Kind.OURS, other)
        suffix = self.suffix + ("_tuned" if other is Kind.CHARON_TUNED else "")

        def initiator_ms(kind: Kind) -> float:
            return sum(self.of(kind, responder).cost.initiator_ms for responder in (Kind.OURS, Kind.CHARON))

        return {
            f"responder_cpu_ratio{suffix}": ours.cost.responder_ms / theirs.cost.responder_ms,
            f"initiator_cpu_ratio{suffix}": initiator_ms(Kind.OURS) / initiator_ms(other),
            f"rate_ratio{suffix}": ours.cost.rate / theirs.cost.rate,
            f"rate_ratio_pair{suffix}": ours.cost.rate / self.of(other, Kind.CHARON).cost.rate,
        }


def table(comparison: Comparison) -> str:
    """A row for each pairing."""
    lines = [
        f"{comparison.title} ({comparison.proposal})",
        f"  {'':32}{'CPU ms a handshake':^22}{'handshakes/s, under way at a time':^36}{'a handshake':^18}",
        f"  {'initiator':16}{'responder':16}{'initiator':>11}{'responder':>11}"
        + "".join(f"{parallel:>12}" for parallel in PARALLEL)
        + f"{'packets':>10}{'bytes':>8}",
    ]
    for pairing, result in comparison.results.items():
        lines.append(
            f"  {pairing.initiator.value:16}{pairing.responder.value:16}"
            f"{result.cost.initiator_ms:>11.3f}{result.cost.responder_ms:>11.3f}"
            + "".join(f"{result.costs[parallel].rate:>12.0f}" for parallel in PARALLEL)
            + f"{result.packets:>10.1f}{result.octets:>8.0f}"
        )
    return "\n".join(lines)


def memory_table(memory: Mapping[Kind, Mapping[int, float]]) -> str:
    """A row for each daemon."""
    counts = list(next(iter(memory.values())))
    lines = [
        "resident memory as responder, MB",
        "  " + f"{'IKE SAs':16}" + "".join(f"{count:>10,}" for count in counts),
    ]
    lines += [
        f"  {kind.value:16}" + "".join(f"{megabytes[count]:>10.1f}" for count in counts)
        for kind, megabytes in memory.items()
    ]
    return "\n".join(lines)


def goals(figures: Mapping[str, float]) -> Iterable[str]:
    """A line for each goal: whether it was reached."""
    for name, sense, goal in GOALS:
        for figure, value in figures.items():
            if figure in (name, f"{name}_mlkem"):
                reached = value <= goal if sense == "at most" else value >= goal
                yield f"  {figure:28}{value:>10.3f}   goal: {sense} {goal:g}{'' if reached else ', missed'}"
