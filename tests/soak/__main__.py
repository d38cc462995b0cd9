"""Command line of the soak: `make soak`, or `python -m tests.soak --help`."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path

from tests.demo.claims import Claims
from tests.deployment import NAMESPACE, Deployment
from tests.lab import image
from tests.lab.cluster import Lab, require_machine
from tests.lab.errors import LabError
from tests.lab.node_init import UNITS
from tests.lab.traffic import Pace, Traffic
from tests.soak.sizes import SHORT, WHOLE
from tests.soak.soak import Soak

COULD_NOT_RUN = 2

_EXAMPLES = """\
A cluster of three real kernels, Hauberk in it, and checked traffic between all pods: TCP, UDP and ICMP, both families.
Then, one kind of fault after the other: rekeys, killed agents and operators, outages of the API server, states removed
by hand, nodes whose plug is pulled. What crosses between the nodes is captured and judged all the time.

examples:
  make soak                                     everything, in about 40 minutes
  python -m tests.soak --short                  a little of everything
  python -m tests.soak --agent-kills 500 --child-rekeys 0 --ike-rekeys 0
  python -m tests.soak --encapsulation Always   ESP in UDP, with the holder of sockets
  python -m tests.soak -o json >figures.json    the figures on standard output, progress on standard error

exit codes:
  0  every claim held
  1  one did not
  2  it could not be run
"""


def main() -> int:
    """Run the soak; see the exit codes above."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", default="soak", help="name of the lab (default: %(default)s)")
    parser.add_argument("--nodes", type=int, default=3, help="2 to 8 (default: %(default)s)")
    parser.add_argument("--short", action="store_true", help="begin with small sizes, of about a minute")
    for size, value in asdict(WHOLE).items():
        parser.add_argument(
            f"--{size.replace('_', '-')}",
            type=float if size.endswith("_seconds") else int,
            metavar="N",
            help=f"default {value:g}, short {getattr(SHORT, size):g}",
        )
    parser.add_argument("--encapsulation", choices=("Auto", "Always"), default="Auto", help="(default: %(default)s)")
    parser.add_argument("--no-holder", action="store_true", help="no holder of sockets where ESP is in UDP")
    parser.add_argument("--seed", type=int, help="of what is left to chance (default: a new one, which is printed)")
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="how to report")
    parser.add_argument("--figures", type=Path, default=Path("build/figures/path.json"), help="(default: %(default)s)")
    arguments = parser.parse_args()
    if not 2 <= arguments.nodes <= 8:
        parser.error("--nodes must be from 2 to 8: two make a pair, and each node takes half a gigabyte")
    with redirect_stdout(sys.stderr if arguments.output == "json" else sys.stdout):
        code, figures = _run(arguments)
    if arguments.output == "json":
        print(json.dumps(figures, indent=2))
    return code


def _run(arguments: argparse.Namespace) -> tuple[int, dict[str, float | int]]:
    """The exit code and the figures."""
    given = {name: getattr(arguments, name) for name in asdict(WHOLE) if getattr(arguments, name) is not None}
    sizes = replace(SHORT if arguments.short else WHOLE, **given)
    seed = arguments.seed if arguments.seed is not None else random.randrange(1 << 32)
    claims = Claims()
    claims.progress(f"seed {seed}")
    lab: Lab | None = None
    try:
        require_machine(arguments.name, nodes=arguments.nodes)
        archives = [image.build(), image.build_tools()]
        lab = Lab.up(arguments.name, nodes=arguments.nodes, progress=claims.progress, images=archives)
        # A node whose plug was pulled must send nothing in clear before its agent is there again.
        settings = ["bootGuard.enabled=true", f"bootGuard.unitDirectory={UNITS}"]
        if arguments.encapsulation == "Always" and not arguments.no_holder:
            settings.append("holder.enabled=true")
        claims.progress("helm install hauberk charts/hauberk" + "".join(f" --set {setting}" for setting in settings))
        deployment = Deployment.install(lab, *settings)
        claims.progress("starting traffic between pods of every pair")
        # Slow is not lost: a busy machine holds answers up for seconds.
        traffic = Traffic.start(lab, pace=Pace(patience_seconds=20))
        with tempfile.TemporaryDirectory(prefix="hauberk-soak-") as scratch:
            Soak(
                claims,
                deployment,
                traffic,
                sizes,
                scratch=Path(scratch),
                chance=random.Random(seed),
                encapsulation=arguments.encapsulation,
            ).run()
    except (LabError, subprocess.SubprocessError, TimeoutError) as error:
        print(error.with_log_tail() if isinstance(error, LabError) else error, file=sys.stderr)
        return COULD_NOT_RUN, claims.figures
    finally:
        if lab is not None and claims.failed:
            _keep_logs(lab, arguments.figures.parent / "soak-logs", claims)
        if lab is not None and not arguments.keep:
            claims.progress("removing the lab")
            left = lab.down()
            claims.check("the lab left nothing behind", not left, ", ".join(left) or "nothing")
    claims.write(arguments.figures)
    claims.progress(f"figures: {arguments.figures}")
    return claims.conclude(), claims.figures


def _keep_logs(lab: Lab, directory: Path, claims: Claims) -> None:
    """What Hauberk's programs said on each node, as far back as kubelet keeps it: the lab takes it along otherwise."""
    directory.mkdir(parents=True, exist_ok=True)
    for node in lab.nodes:
        command = ["sh", "-c", f"tar -C /var/log/pods -cz $(cd /var/log/pods && ls -d {NAMESPACE}_*)"]
        try:
            archive = lab.remote(node.name).run(command, timeout=60)
        except (LabError, subprocess.SubprocessError) as error:
            claims.progress(f"the logs of {node.name} are lost: {error}")
            continue
        (directory / f"{node.name}.tar.gz").write_bytes(archive.stdout)
    claims.progress(f"what was said on the nodes is kept: {directory}")


if __name__ == "__main__":
    sys.exit(main())
