"""How the benchmarks measure: CPU time, interleaved rounds, medians. Machines are shared and noisy."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds (user and system) that this thread spends in one call."""
    started = time.thread_time()
    work()
    return time.thread_time() - started


def interleaved(sides: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """The median CPU seconds of each side, measured in turns so that noise meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            gc.collect()
            seconds[name].append(cpu_seconds(work))
    return {name: statistics.median(measured) for name, measured in seconds.items()}
