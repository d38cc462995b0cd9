"""From runs to figures: medians by side, and the ratios that the goals are about."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

GOALS: Final = {
    "throughput_ratio": 0.98,
    "throughput_ratio_1000": 0.97,
    "throughput_ratio_5000": 0.95,
    "wireguard_ratio": 1.0,
    "small_packet_ratio": 1.0,
}
"""At least that."""

_RATIOS: Final = {
    "throughput_ratio": ("ours", "hand"),
    "throughput_ratio_1000": ("ours-1000", "hand"),
    "throughput_ratio_5000": ("ours-5000", "hand"),
    "wireguard_ratio": ("ours", "wireguard"),
    "small_packet_ratio": ("small-iptfs", "small-tunnel"),
    "plain_ratio": ("ours", "plain"),
    "iptfs_ratio": ("ours-iptfs", "hand"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one side carried in one run: bytes of a stream, or small packets. Times are seconds."""

    side: str
    what: str
    carried: int
    processor_seconds: float
    clock_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One side's medians: Mbit or thousands of packets, for each second of the processor and of the clock."""

    what: str
    rate: float
    clock_rate: float
    rates: tuple[float, ...]


def results(runs: Iterable[Run]) -> dict[str, Result]:
    """By side, in the order of their first runs."""
    by_side: dict[str, list[Run]] = {}
    for run in runs:
        by_side.setdefault(run.side, []).append(run)
    return {side: _result(side, group) for side, group in by_side.items()}


def _result(side: str, runs: Sequence[Run]) -> Result:
    unit = 1e3 if is_small(side) else 1e6 / 8
    rates = [run.carried / run.processor_seconds / unit for run in runs]
    return Result(
        what=runs[0].what,
        rate=statistics.median(rates),
        clock_rate=statistics.median(run.carried / run.clock_seconds / unit for run in runs),
        rates=tuple(rates),
    )


def is_small(side: str) -> bool:
    """Whether a side carried small packets, not a stream."""
    return side.startswith("small-")


def ratios(by_side: Mapping[str, Result]) -> dict[str, float]:
    """The flat figures, of the sides that were measured: medians over the rounds.

    In a round both sides' runs are some seconds apart, so that what else the machine does meets them alike.
    """
    return {
        name: statistics.median(
            one / other for one, other in zip(by_side[ours].rates, by_side[theirs].rates, strict=True)
        )
        for name, (ours, theirs) in _RATIOS.items()
        if ours in by_side and theirs in by_side
    }


def table(by_side: Mapping[str, Result]) -> str:
    """A row for each side: for a second of the processor, the spread of the runs, and for one of the clock."""
    lines: list[str] = []
    for small, title, unit in ((False, "a TCP stream", "Mbit"), (True, "packets of 64 bytes", "thousands")):
        lines.append(
            f"  {title + ', ' + unit + ' a second':36}{'of processor':>14}{'lowest':>10}{'highest':>10}{'of clock':>12}"
        )
        lines += [
            f"    {result.what:34}{result.rate:>14,.0f}{min(result.rates):>10,.0f}{max(result.rates):>10,.0f}"
            f"{result.clock_rate:>12,.0f}"
            for side, result in by_side.items()
            if is_small(side) is small
        ]
    return "\n".join(lines)


def goals(figures: Mapping[str, float]) -> Iterable[str]:
    """A line for each goal: whether it was reached."""
    for name, goal in GOALS.items():
        if name in figures:
            value = figures[name]
            yield f"  {name:26}{value:>8.3f}   goal: at least {goal:g}{'' if value >= goal else ', missed'}"
