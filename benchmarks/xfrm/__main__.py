"""Command line of the comparison with `ip -batch`: `make bench-xfrm`, or `python -m benchmarks.xfrm --help`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.xfrm import inside, load
from tests.kernel import bare_kernel
from tests.lab.errors import LabError

_EXAMPLES: Final = """\
A bare User-Mode Linux kernel with ESP, the lab's (built once), programs the same states and the same policies both
ways, in turns. Time is the clock's, encoding and `ip`'s start included; the figures are medians.

examples:
  make bench-xfrm                            everything, in about a minute
  python -m benchmarks.xfrm --rounds 11      steadier figures
"""
_GOAL: Final = 3.0


def main() -> int:
    """Measure, print a table, write the figures; 0, or 2 when something could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.xfrm",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--states", type=int, default=5000, help="in a round (default: %(default)s)")
    parser.add_argument("--policies", type=int, default=5000, help="in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=400, help="to wait for the kernel (default: %(default)s)")
    parser.add_argument("--figures", type=Path, default=Path("build/figures/xfrm.json"), help="(default: %(default)s)")
    arguments = parser.parse_args()
    if min(arguments.states, arguments.policies, arguments.rounds) < 1:
        parser.error("--states, --policies and --rounds count from 1")
    if max(arguments.states, arguments.policies) > load.MOST:
        parser.error(f"--states and --policies: at most {load.MOST}, as each peer has a /24 of its own")
    print(f"XFRM: {arguments.states} states and {arguments.policies} policies, {arguments.rounds} times", flush=True)
    try:
        figures = _measure(arguments.states, arguments.policies, arguments.rounds, arguments.seconds)
    except (LabError, RuntimeError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    print(f"  {'':10} {'hauberk_xfrm':>14} {'ip -batch':>14} {'ratio':>8}   goal: {_GOAL:g}")
    for name in ("states", "policies"):
        ours, theirs = figures[f"{name}_per_second"], figures[f"{name}_per_second_ip_batch"]
        print(f"  {name:10} {ours:12,.0f}/s {theirs:12,.0f}/s {figures[f'{name}_ratio']:8.2f}")
    arguments.figures.parent.mkdir(parents=True, exist_ok=True)
    arguments.figures.write_text(
        json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2) + "\n"
    )
    print(f"figures: {arguments.figures}")
    return 0


def _measure(states: int, policies: int, rounds: int, seconds: float) -> dict[str, float]:
    """Boots the kernel and reads what it has measured. Raises LabError and RuntimeError."""
    with tempfile.TemporaryDirectory(prefix="bench-xfrm-") as directory:
        results = Path(directory, "results")
        numbers = (str(states), str(policies), str(rounds))
        said = bare_kernel.boot(inside.__name__, results, *numbers, seconds=seconds, memory="1G")
        written = results / "outcomes.json"
        if not written.exists():
            raise RuntimeError(said)
        return json.loads(written.read_text())


if __name__ == "__main__":
    sys.exit(main())
