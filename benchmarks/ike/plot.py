"""The comparison as a picture: CPU a handshake, handshakes a second, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.ike.comparison import PARALLEL, Kind
from benchmarks.ike.figures import Comparison

_COLOURS: Final = {Kind.OURS: "#1f6f8b", Kind.CHARON: "#c9733a"}


def draw(comparisons: Sequence[Comparison], memory: Mapping[Kind, Mapping[int, float]], path: Path) -> list[Path]:
    """Writes `path` with the endings .svg and .png, and returns both."""
    # Imported here: it takes a second, which nobody should wait for who only asks for help.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure: Any
    axes: Any
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    _draw_cpu(axes[0], comparisons)
    _draw_rates(axes[1], comparisons)
    _draw_memory(axes[2], memory)
    written = [path.with_suffix(".svg"), path.with_suffix(".png")]
    for file in written:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=120)
    pyplot.close(figure)
    return written


def _draw_cpu(axes: Any, comparisons: Sequence[Comparison]) -> None:
    groups: list[str] = []
    for offset, kind in ((-0.2, Kind.OURS), (0.2, Kind.CHARON)):
        heights: list[float] = []
        groups = []
        for comparison in comparisons:
            as_responder = comparison.of(Kind.OURS, kind).cost.responder_ms
            as_initiator = comparison.of(kind, Kind.CHARON).cost.initiator_ms
            heights += [as_responder, as_initiator]
            title = comparison.title.replace(" and ", "\nand ")
            groups += [f"responder\n{title}", f"initiator\n{title}"]
        bars = axes.bar([x + offset for x in range(len(heights))], heights, 0.4, label=kind.value, color=_COLOURS[kind])
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.set_xticks(range(len(groups)), groups, fontsize=8)
    axes.set_title("CPU ms a handshake, 16 under way at a time")
    axes.legend()


def _draw_rates(axes: Any, comparisons: Sequence[Comparison]) -> None:
    for comparison, style in zip(comparisons, ("-o", "--s"), strict=False):
        for kind in (Kind.OURS, Kind.CHARON):
            costs = comparison.of(Kind.OURS, kind).costs
            axes.plot(
                [str(parallel) for parallel in PARALLEL],
                [costs[parallel].rate for parallel in PARALLEL],
                style,
                color=_COLOURS[kind],
                label=f"{kind.value}, {comparison.title}",
            )
    axes.set_ylim(bottom=0)
    axes.set_title("handshakes/s answered, by handshakes under way at a time")
    axes.legend(fontsize=8)


def _draw_memory(axes: Any, memory: Mapping[Kind, Mapping[int, float]]) -> None:
    for kind, megabytes in memory.items():
        if kind in _COLOURS:
            axes.plot(list(megabytes), list(megabytes.values()), "-o", color=_COLOURS[kind], label=kind.value)
    axes.set_ylim(bottom=0)
    axes.set_title("resident MB as responder, by IKE SAs")
    axes.legend()
