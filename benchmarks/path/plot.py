"""The comparison as a picture: throughput by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.path.figures import Result, is_small

_OURS: Final = "#1f6f8b"
_THEIRS: Final = "#c9733a"


def draw(by_side: Mapping[str, Result], path: Path) -> list[Path]:
    """Writes `path` with the endings .svg and .png, and returns both."""
    # Imported here: it takes a second, which nobody should wait for who only asks for help.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure: Any
    axes: Any
    figure, axes = pyplot.subplots(1, 2, figsize=(13, 4.6), width_ratios=(3, 1), layout="constrained")
    for axis, small, title in (
        (axes[0], False, "TCP stream, Mbit for each second of processor, both ends"),
        (axes[1], True, "64-byte packets, thousands"),
    ):
        # Plain is many times the others, and is in the table.
        chosen = {side: result for side, result in by_side.items() if is_small(side) is small and side != "plain"}
        rates = [result.rate for result in chosen.values()]
        colours = [_OURS if "ours" in side or side == "small-iptfs" else _THEIRS for side in chosen]
        spread = [
            [result.rate - min(result.rates) for result in chosen.values()],
            [max(result.rates) - result.rate for result in chosen.values()],
        ]
        bars = axis.bar(range(len(chosen)), rates, 0.6, color=colours, yerr=spread, capsize=4)
        axis.bar_label(bars, fmt="%.0f", label_type="center", color="white", fontsize=9)
        labels = [result.what.replace(", ", ",\n") for result in chosen.values()]
        axis.set_xticks(range(len(chosen)), labels, fontsize=8)
        axis.set_title(title, fontsize=10)
    written = [path.with_suffix(".svg"), path.with_suffix(".png")]
    for file in written:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=120)
    pyplot.close(figure)
    return written
