"""Command line of the benchmarks: `make bench`, or `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import handshake, messages

_EXAMPLES = """examples:
  python -m benchmarks                      everything, in about half a minute (root, for the kernel's part)
  python -m benchmarks --handshakes 2000    a steadier figure for the handshake
"""


def main() -> int:
    """Measure, print a table, write the figures; 0, or 2 when something could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--handshakes", type=int, default=300, help="handshakes to measure (default: %(default)s)")
    parser.add_argument("--policies", type=int, default=5000, help="policies in a batch (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each comparison (default: %(default)s)")
    parser.add_argument("--figures", type=Path, default=Path("build/figures/bench.json"), help="(default: %(default)s)")
    arguments = parser.parse_args()
    if min(arguments.handshakes, arguments.policies, arguments.rounds) < 1:
        parser.error("--handshakes, --policies and --rounds count from 1")
    if arguments.policies > 60_000:
        parser.error("--policies: at most 60000, as each takes a /24 of its own")
    figures: dict[str, float] = {}
    print(f"IKEv2: {arguments.handshakes} handshakes in memory, CPU ms a side", flush=True)
    figures |= handshake.run(handshakes=arguments.handshakes)
    print(f"XFRM: building {arguments.policies} policies, ours and pyroute2's", flush=True)
    figures |= messages.encoding(count=arguments.policies, rounds=arguments.rounds)
    print(f"XFRM: applying {arguments.policies} policies, ours and `ip -batch`", flush=True)
    try:
        figures |= messages.applying(count=arguments.policies, rounds=arguments.rounds)
    except PermissionError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    for name, value in figures.items():
        print(f"  {name:32} {value:14,.3f}")
    arguments.figures.parent.mkdir(parents=True, exist_ok=True)
    arguments.figures.write_text(
        json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=2) + "\n"
    )
    print(f"figures: {arguments.figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
