"""Command line of the demo: `make demo`, or `python -m tests.demo --help`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.demo.claims import Claims
from tests.demo.story import Story
from tests.lab.errors import LabError

COULD_NOT_RUN = 2

_EXAMPLES = """examples:
  python -m tests.demo                 the whole story, about three minutes once the parts are built
  python -m tests.demo --keep          leave the cluster running: python -m tests.lab --help says how to look around
  python -m tests.demo --nodes 4       begin with four nodes
"""


def main() -> int:
    """Run the demo; 0 when every claim that it printed held, 1 when one did not, 2 when it could not run."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.demo",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", default="demo", help="name of the lab (default: %(default)s)")
    parser.add_argument("--nodes", type=int, default=3, help="nodes to begin with, 2 to 8 (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end")
    parser.add_argument(
        "--figures",
        type=Path,
        default=Path("build/figures/demo.json"),
        help="where the numbers go (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if not 2 <= arguments.nodes <= 8:
        parser.error("--nodes must be from 2 to 8: two make a pair, and each node takes half a gigabyte")
    claims = Claims()
    with tempfile.TemporaryDirectory(prefix="hauberk-demo-") as scratch:
        story = Story(claims, name=arguments.name, nodes=arguments.nodes, scratch=Path(scratch))
        try:
            story.tell(keep=arguments.keep)
        except (LabError, subprocess.SubprocessError, TimeoutError) as error:
            print(error.with_log_tail() if isinstance(error, LabError) else error, file=sys.stderr)
            return COULD_NOT_RUN
    claims.write(arguments.figures)
    claims.progress(f"figures: {arguments.figures}")
    return claims.conclude()


if __name__ == "__main__":
    sys.exit(main())
