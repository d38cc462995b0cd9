"""Command line of the comparison of paths: `make bench-path`, or `python -m benchmarks.path --help`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.path import inside
from benchmarks.path.figures import Run, goals, ratios, results, table
from benchmarks.path.plot import draw
from benchmarks.path.processor import ProcessorTime
from tests.kernel import bare_kernel
from tests.lab.errors import LabError

_EXAMPLES: Final = """\
One bare User-Mode Linux kernel with ESP, the lab's (built once), carries the same traffic between two pods in several
ways, in turns: in clear, by states and policies that our agents have installed (with one peer, and with thousands that
are never there), by such as a person writes with `ip xfrm`, and by WireGuard; all with ChaCha20-Poly1305. And packets
of 64 bytes, in tunnel mode and by IP-TFS. One processor does everything, so throughput is stated for each second of it
that the kernel took, both ends together; the figures are medians.

examples:
  make bench-path                                     everything, in about eight minutes
  python -m benchmarks.path --rounds 3 --peers 1000   sooner, and less steady
  python -m benchmarks.path -o json                   the figures alone on standard output
"""


def main() -> int:
    """Measure, print a table, write the figures; 0, or 2 when something could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.path",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=21, help="of each side (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.7, help="of a run (default: %(default)s)")
    parser.add_argument(
        "--peers", type=int, nargs="*", default=[1000, 5000], metavar="N", help="sizes of meshes (default: 1000 5000)"
    )
    parser.add_argument("--patience", type=float, default=1800, help="seconds for the kernel (default: %(default)s)")
    parser.add_argument("--figures", type=Path, default=Path("build/figures/speed.json"), help="(default: %(default)s)")
    parser.add_argument("--plot", type=Path, default=Path("build/figures/speed"), help="(default: %(default)s.svg)")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="how to report")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.seconds <= 0 or any(not 1 < count <= 60_000 for count in arguments.peers):
        parser.error("--rounds count from 1, --seconds are more than 0, --peers are from 2 to 60000")
    try:
        runs = _measure(arguments.rounds, arguments.seconds, arguments.peers, arguments.patience)
    except (LabError, RuntimeError, ValueError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    by_side = results(runs)
    figures = {name: round(ratio, 3) for name, ratio in ratios(by_side).items()}
    arguments.figures.parent.mkdir(parents=True, exist_ok=True)
    arguments.figures.write_text(json.dumps(figures, indent=2) + "\n")
    written = draw(by_side, arguments.plot)
    if arguments.output == "json":
        print(json.dumps(figures, indent=2))
        return 0
    print(table(by_side))
    print("\n".join(goals(figures)))
    print(f"figures: {arguments.figures}, picture: {', '.join(map(str, written))}")
    return 0


def _measure(rounds: int, seconds: float, peers: list[int], patience: float) -> list[Run]:
    """Boots the kernel and reads what it has measured. Raises LabError, RuntimeError and ValueError."""
    looking: list[ProcessorTime] = []
    with tempfile.TemporaryDirectory(prefix="bench-path-") as directory:
        results = Path(directory, "results")
        try:
            said = bare_kernel.boot(
                inside.__name__,
                results,
                *map(str, (rounds, seconds, *peers)),
                seconds=patience,
                memory="3G",
                started=lambda pid: looking.append(ProcessorTime(pid)),
            )
        finally:
            for processor in looking:
                processor.close()
        written = results / "outcomes.json"
        if not written.exists():
            raise RuntimeError(said)
        (processor,) = looking
        return [
            Run(
                side=run["side"],
                what=run["what"],
                carried=run["carried"],
                processor_seconds=processor.between(
                    run["began"] - inside.PAUSE_SECONDS / 2, run["ended"] + inside.PAUSE_SECONDS / 2
                ),
                clock_seconds=run["ended"] - run["began"],
            )
            for run in json.loads(written.read_text())
        ]


if __name__ == "__main__":
    sys.exit(main())
