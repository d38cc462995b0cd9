"""The command line of the operator: `run`, the container's command, and `uninstall`, the chart's pre-delete hook."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

from hauberk_operator import faults, logs
from hauberk_operator.ca import BadAuthorityError
from hauberk_operator.faults import FaultPoint
from hauberk_operator.health import Health, serve
from hauberk_operator.kube import Access, Kube, KubeError
from hauberk_operator.lead import Leader, StoppedError
from hauberk_operator.lease import Lease, LeaseLostError
from hauberk_operator.uninstall import Uninstall

DEFAULT_NAMESPACE: Final = "hauberk-system"
DEFAULT_HEALTH: Final = "127.0.0.1:9652"

_EXAMPLES: Final = """\
examples:
  hauberk-operator run
      in a pod: API server and credentials are the service account's
  hauberk-operator run --kubeconfig ~/.kube/config --namespace hauberk-system --log-level debug
      against a cluster from outside it
  hauberk-operator run --api-server https://10.0.0.1:6443
      in a pod, where the API server's service address cannot be reached
  hauberk-operator uninstall --timeout 60
      remove all tunnels, wait until the nodes are clean, remove what Hauberk made

exit codes: 0 done, or stopped as asked; 1 failed, the last line says why; 2 wrong usage
"""

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code."""
    arguments = _parser().parse_args(argv)
    logs.configure(level=arguments.log_level, style=arguments.log_format)
    command = _run if arguments.command == "run" else _uninstall
    try:
        return asyncio.run(command(arguments))
    except KeyboardInterrupt:
        return 1


async def _run(arguments: argparse.Namespace) -> int:
    host, port = arguments.health
    health = Health()
    try:
        fault = FaultPoint.parse(os.environ.get(faults.VARIABLE, ""))
        kube = await Kube.connect(_access(arguments), identity=arguments.identity, fault=fault)
    except (KubeError, ValueError) as error:
        log.error("%s", error)
        return 1
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    lease = Lease(kube, namespace=arguments.namespace, identity=arguments.identity, clock=time.monotonic)
    lost = False
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_stop(stop), name="stop")
            if port:
                tasks.create_task(serve(health, host=host, port=port), name="health")
            await lease.acquire()
            log.info("%s leads", arguments.identity)
            await Leader(kube, namespace=arguments.namespace, health=health).run(lease)
    except* StoppedError:
        log.info("stopped as asked")
        return_code = 0
    except* LeaseLostError as group:
        lost = True
        log.error("stopped leading: %s", _first(group))
        return_code = 1
    except* (BadAuthorityError, KubeError, OSError) as group:
        log.error("%s", _first(group))
        return_code = 1
    else:
        return_code = 1
    finally:
        if not lost:
            await lease.release()
        await kube.close()
    return return_code


async def _stop(stop: asyncio.Event) -> None:
    await stop.wait()
    raise StoppedError


async def _uninstall(arguments: argparse.Namespace) -> int:
    try:
        kube = await Kube.connect(_access(arguments), identity=arguments.identity)
    except KubeError as error:
        log.error("%s", error)
        return 1
    lease = Lease(
        kube,
        namespace=arguments.namespace,
        identity=f"uninstall {arguments.identity}",
        clock=time.monotonic,
        duration_seconds=600,
    )
    try:
        work = Uninstall(kube, lease, namespace=arguments.namespace, say=_say, clock=time.monotonic)
        return 0 if await work.run(timeout_seconds=arguments.timeout) else 1
    except KubeError as error:
        log.error("%s", error)
        return 1
    finally:
        await kube.close()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _first(error: BaseException) -> BaseException:
    """The first plain exception inside nested groups."""
    if isinstance(error, BaseExceptionGroup):
        return _first(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    return error


def _access(arguments: argparse.Namespace) -> Access:
    return Access(kubeconfig=arguments.kubeconfig, api_server=arguments.api_server)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--namespace",
        default=os.environ.get("POD_NAMESPACE", DEFAULT_NAMESPACE),
        help="where Hauberk is installed (default: $POD_NAMESPACE, else %(default)s)",
    )
    common.add_argument(
        "--identity",
        default=os.environ.get("POD_NAME") or f"{socket.gethostname()}-{secrets.token_hex(4)}",
        help="this replica's name in the Lease (default: $POD_NAME, else the host's name and a random part)",
    )
    common.add_argument("--kubeconfig", type=Path, metavar="FILE", help="use this instead of the service account")
    common.add_argument("--api-server", metavar="URL", help="reach the API server there, with the same credentials")
    common.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    common.add_argument("--log-format", choices=("text", "json"), default="text")
    parser = argparse.ArgumentParser(
        prog="hauberk-operator",
        description="Turns IPsecTunnels and Nodes into what every agent must know, and signs the nodes' identities.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", parents=[common], help="lead, or stand by until this replica does")
    run.add_argument(
        "--health",
        type=_address,
        default=_address(DEFAULT_HEALTH),
        metavar="HOST:PORT",
        help=f"where to answer probes, /healthz and /readyz; port 0: nowhere (default: {DEFAULT_HEALTH})",
    )
    uninstall = commands.add_parser(
        "uninstall", parents=[common], help="remove the tunnels, wait for clean nodes, remove what Hauberk made"
    )
    uninstall.add_argument(
        "--timeout",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="how long to wait for the nodes (default: %(default)s)",
    )
    return parser


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)
