"""The drill of the mesh's identities: an hour of certificates that live for a minute, and the table of attacks.

In a lab of three real kernels, Hauberk as Helm installs it: all pairs of nodes exchange checked traffic while every
node's certificate is renewed within each minute and the mesh's authority rolls twice. Not a message may be lost, not a
packet be in clear, and no certificate of an old authority be left. Then every attack of docs/reference/attacks.md is
tried, and must be refused. `make drill`, or `python -m tests.drill --help`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.attacks.run import try_all
from tests.demo.claims import Claims
from tests.deployment import EXAMPLES, Deployment
from tests.drill.short_certificates import READY_SECONDS, ShortCertificates
from tests.lab import image
from tests.lab.cluster import Lab, require_machine
from tests.lab.errors import LabError
from tests.lab.traffic import Pace, Traffic

COULD_NOT_RUN, INTERRUPTED = 2, 130
TUNNEL: Final = "mesh"
PACE: Final = Pace(interval_seconds=0.5, patience_seconds=20.0)
"""Of the traffic: a machine that is busy answers late, which is no loss."""

_EXAMPLES: Final = """examples:
  make drill                                   the whole: an hour, two rolls, all attacks
  make drill MINUTES=5                         the same in short
  python -m tests.drill --only attacks         the table of attacks alone, about a minute
  python -m tests.drill --only certificates --minutes 15 --rolls 3
  python -m tests.drill -o json                the figures on standard output, progress on standard error

exit codes:
  0  all held
  1  something did not; it says what
  2  it could not run
  130  interrupted; nothing is left of what it started
"""


def main() -> int:
    """Run the drill; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.drill",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="of short certificates (default: %(default)g)")
    parser.add_argument("--rolls", type=int, default=2, help="of the authority meanwhile (default: %(default)s)")
    parser.add_argument("--only", choices=("certificates", "attacks"), help="leave out the other half")
    parser.add_argument("--name", default="drill", help="name of the lab (default: %(default)s)")
    parser.add_argument("--nodes", type=int, default=3, help="2 to 8 (default: %(default)s)")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="how to report")
    parser.add_argument(
        "--figures",
        type=Path,
        default=Path("build/figures/identity.json"),
        help="where the numbers go (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if not 2 <= arguments.nodes <= 8:
        parser.error("--nodes must be from 2 to 8: two make a pair, and each node takes half a gigabyte")
    if arguments.rolls < 0 or arguments.minutes < arguments.rolls / 2:
        parser.error("--minutes: each roll takes half a minute")
    claims = Claims(output=sys.stderr if arguments.output == "json" else sys.stdout)
    try:
        if arguments.only != "attacks":
            certificates(claims, arguments)
        if arguments.only != "certificates":
            attacks(claims)
    except (LabError, subprocess.SubprocessError, TimeoutError) as error:
        print(error.with_log_tail() if isinstance(error, LabError) else error, file=sys.stderr)
        return COULD_NOT_RUN
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    claims.write(arguments.figures)
    claims.progress(f"figures: {arguments.figures}")
    if arguments.output == "json":
        print(json.dumps(claims.figures | {"failed": claims.failed}, indent=2))
    return claims.conclude()


def certificates(claims: Claims, arguments: argparse.Namespace) -> None:
    """The lab, and the time of short certificates in it. Raises LabError and subprocess's errors."""
    require_machine(arguments.name, nodes=arguments.nodes)
    claims.progress("building what is not in the cache: kernel, Kubernetes, images (12 minutes the first time)")
    archives = [image.build(), image.build_tools()]
    lab = Lab.up(arguments.name, nodes=arguments.nodes, progress=claims.progress, images=archives)
    try:
        claims.progress(
            "helm install hauberk charts/hauberk; kubectl apply -f examples/mesh.yaml; traffic of all pairs"
        )
        deployment = Deployment.install(lab, timeout=READY_SECONDS)
        traffic = Traffic.apply(lab, pace=PACE)
        traffic.wait_running(READY_SECONDS)
        traffic.update_targets(READY_SECONDS)
        lab.kubectl("apply", "-f", str(EXAMPLES / f"{TUNNEL}.yaml"))
        ready = ("wait", "--for=condition=Ready", f"ipsectunnel/{TUNNEL}", f"--timeout={READY_SECONDS:.0f}s")
        lab.kubectl(*ready, timeout=READY_SECONDS + 10)
        with tempfile.TemporaryDirectory(prefix="hauberk-drill-") as scratch:
            short = ShortCertificates(deployment, traffic, scratch=Path(scratch), progress=claims.progress)
            claims.progress("certificates live for a minute from now on")
            short.prepare()
            outcome = short.run(minutes=arguments.minutes, rolls=arguments.rolls)
        total = outcome.stats.total
        claims.figures |= {
            "minutes": arguments.minutes,
            "ca_rolls": outcome.ca_rolls,
            "renewals": outcome.renewals,
            "sent": total.sent,
            "lost": total.lost,
            "clear": outcome.toll.clear,
        }
        claims.show(outcome.stats.table())
        claims.check(
            f"{arguments.minutes:g} minutes of certificates that live for one, and {arguments.rolls} rolls",
            not outcome.faults,
            "; ".join(outcome.faults)
            or f"{outcome.renewals} renewals, {total.sent} messages, none lost, none of {outcome.toll.packets} packets "
            f"in clear, no SA older than {outcome.oldest_seconds:.0f} s, no old certificate left",
        )
    finally:
        left = lab.down()
        claims.check("the lab left nothing behind", not left, ", ".join(left) or "nothing")


def attacks(claims: Claims) -> None:
    """The table of attacks. Raises LabError and subprocess's errors."""
    claims.progress("the table of attacks, against a real API server and against real agents in a kernel")
    results = try_all(claims.progress)
    for result in results:
        claims.check(f"refused: {result.tried}", result.refused, result.said)
    claims.figures |= {"attacks": len(results), "refused": sum(result.refused for result in results)}


if __name__ == "__main__":
    sys.exit(main())
