"""Command line of the simulation of a large mesh: `make bench-scale`, or `python -m benchmarks.scale --help`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.scale import figures, keepalive
from benchmarks.scale.figures import Results
from benchmarks.scale.story import NotInTimeError, Size, story
from hauberk_agent.kube import KubeError
from tests.lab import build
from tests.lab.errors import LabError

_EXAMPLES: Final = """\
A real etcd and kube-apiserver, a real operator with the chart's RBAC and admission policies, and as many Nodes as are
asked for, which kwok keeps alive. The agents are simulated: all that they say to the API server comes from their own
code, while their pairs are up, or not, because the simulation says so. What is written is counted in the API server's
audit log, what is watched on a sample of real watches, what the operator uses in /proc.

examples:
  sudo make bench-scale                               5,000 nodes: the better part of an hour, most of it watching
  sudo make bench-scale ARGUMENTS="--nodes 500"       a tenth of it, to compare with
  python -m benchmarks.scale --nodes 200 --only join,leave -o json

exit codes: 0 all goals reached; 1 one was missed; 2 the story could not be told; 130 interrupted
"""
_PARTS: Final = ("join", "renewal", "leave", "dead", "fifth", "roll")


def main() -> int:
    """Tell the story, print a table, write the figures."""
    arguments = _parser().parse_args()
    output = sys.stderr if arguments.output == "json" else sys.stdout
    began = time.monotonic()

    def say(line: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        print(f"{minutes:3}:{seconds:02}  {line}", file=output, flush=True)

    results, failed = Results(), 0
    try:
        kwok = None if arguments.no_kwok else build.ensure_kwok(say)
        size = Size(
            nodes=arguments.nodes,
            watchers=min(arguments.watchers, arguments.nodes),
            crowd=arguments.crowd,
            repetitions=arguments.repetitions,
            observe_seconds=arguments.observe,
            parts=frozenset(arguments.only),
            kwok=kwok,
            lease_seconds=arguments.lease_seconds,
        )
        asyncio.run(_tell(size, say, results))
    except* (LabError, KubeError, NotInTimeError) as group:
        print(f"benchmarks: {'; '.join(map(str, group.exceptions))}", file=sys.stderr)
        failed = 2
    except* KeyboardInterrupt:
        failed = 130
    if not results.figures:
        return failed
    # What was measured until it failed is as good as before.
    found = results.as_object()
    arguments.figures.parent.mkdir(parents=True, exist_ok=True)
    arguments.figures.write_text(json.dumps(found, indent=2) + "\n")
    if arguments.output == "json":
        print(json.dumps({"figures": found, "writes": results.details}, indent=2))
    else:
        print("\n".join(figures.table(found)))
        for part, counts in results.details.items():
            print(f"  {part}: {', '.join(f'{count} {what}' for what, count in counts.items()) or 'nothing'}")
        print(f"figures: {arguments.figures}")
    missed = figures.missed(found)
    if missed:
        print(f"benchmarks: missed: {', '.join(missed)}", file=sys.stderr)
    return failed or (1 if missed else 0)


async def _tell(size: Size, say: figures.Say, results: Results) -> None:
    say(f"starting etcd, kube-apiserver and the operator for {size.nodes} nodes")
    async with story(size, say, results) as told:
        await told.tell()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nodes", type=_count, default=5000, help="in the mesh (default: %(default)s)")
    parser.add_argument(
        "--watchers", type=_count, default=50, help="agents whose watches are real (default: %(default)s)"
    )
    parser.add_argument("--crowd", type=_count, default=200, help="of them that join together (default: %(default)s)")
    parser.add_argument(
        "--repetitions", type=_count, default=10, help="nodes that join, renew, leave one by one (default: %(default)s)"
    )
    parser.add_argument(
        "--observe",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="how long to watch after nodes have died (default: until all who may write have had the time to)",
    )
    parser.add_argument(
        "--only", type=_parts, default=_PARTS, metavar="PARTS", help=f"of {','.join(_PARTS)} (default: all of them)"
    )
    parser.add_argument(
        "--lease-seconds",
        type=_count,
        default=keepalive.LEASE_SECONDS,
        help="of the Nodes' Leases, which kwok renews at a quarter of it (default: %(default)s, a kubelet's)",
    )
    parser.add_argument("--no-kwok", action="store_true", help="renew the Leases by the benchmark's own means")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="(default: %(default)s)")
    parser.add_argument("--figures", type=Path, default=Path("build/figures/scale.json"), help="(default: %(default)s)")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 10000")
    return int(text)


def _parts(text: str) -> tuple[str, ...]:
    parts = tuple(text.split(","))
    if unknown := [part for part in parts if part not in _PARTS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(_PARTS)}")
    return parts


if __name__ == "__main__":
    sys.exit(main())
