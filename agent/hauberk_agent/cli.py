"""The command line: `hauberk-agent run`, `status` and `cleanup`.

Exit codes: 0 done; 1 it went wrong, and a sentence on standard error says what and what to do; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, NoReturn

from hauberk_api.names import STATE_DIRECTORY, STATUS_SOCKET, NodeName
from hauberk_xfrm import ClearCounter, NotSupported, PermissionDenied, Routing, SegmentClamp, Xfrm, XfrmError

if TYPE_CHECKING:
    from hauberk_agent.agent import Agent, AgentSettings

_EXAMPLES: Final = """\
examples:
  hauberk-agent run                                  in the DaemonSet's pod, with HAUBERK_NODE_NAME set
  hauberk-agent run --node-name n1 --source-dir /etc/hauberk
                                                     on a plain host, from a directory of YAML objects
  hauberk-agent status                               what this node believes, for people
  hauberk-agent status -o json                       the same for programs
  hauberk-agent cleanup                              remove all that Hauberk left in this host's kernel
"""


class _Trouble(Exception):  # noqa: N818 - says what happened
    """Ends the program with exit code 1 and this sentence."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point of the program."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except _Trouble as trouble:
        print(f"hauberk-agent: {trouble}", file=sys.stderr)  # noqa: T201 - it is a command line
        sys.exit(1)
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(1)
    sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hauberk-agent",
        description="Encrypts this node's pod traffic with the mesh's other nodes.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hauberk-agent {version('hauberk')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="run the agent until SIGTERM, which leaves all SAs and policies in place")
    run.add_argument(
        "--node-name",
        default=os.environ.get("HAUBERK_NODE_NAME"),
        metavar="NAME",
        help="this node's name in the mesh [HAUBERK_NODE_NAME]",
    )
    run.add_argument(
        "--source-dir",
        type=Path,
        default=_path_from("HAUBERK_SOURCE_DIR"),
        metavar="DIR",
        help="follow the YAML objects, tls.key and tls.crt in this directory instead of an API server "
        "[HAUBERK_SOURCE_DIR]",
    )
    run.add_argument(
        "--api-server",
        default=os.environ.get("HAUBERK_API_SERVER") or None,
        metavar="URL",
        help="the API server, instead of the pod's or the kubeconfig's [HAUBERK_API_SERVER]",
    )
    run.add_argument(
        "--kubeconfig",
        type=Path,
        default=_path_from("HAUBERK_KUBECONFIG"),
        metavar="FILE",
        help="how to reach the API server from outside a pod [HAUBERK_KUBECONFIG]",
    )
    run.add_argument(
        "--state-dir",
        type=Path,
        default=Path(os.environ.get("HAUBERK_STATE_DIR", STATE_DIRECTORY)),
        metavar="DIR",
        help=f"key, certificate and the last plan, default {STATE_DIRECTORY} [HAUBERK_STATE_DIR]",
    )
    run.add_argument(
        "--ike-port",
        type=int,
        default=_number_from("HAUBERK_IKE_PORT", 500),
        metavar="PORT",
        help="UDP port of IKE, here and at the peers, default 500 [HAUBERK_IKE_PORT]",
    )
    run.add_argument(
        "--encapsulation-port",
        type=int,
        default=_number_from("HAUBERK_ENCAPSULATION_PORT", 4500),
        metavar="PORT",
        help="UDP port of IKE and ESP through NATs, here and at the peers, default 4500 [HAUBERK_ENCAPSULATION_PORT]",
    )
    run.add_argument(
        "--health-port",
        type=int,
        default=_number_from("HAUBERK_HEALTH_PORT", 9470),
        metavar="PORT",
        help="TCP port on 127.0.0.1 of /livez and /readyz, default 9470 [HAUBERK_HEALTH_PORT]",
    )
    run.add_argument(
        "--holder-socket",
        type=Path,
        default=_path_from("HAUBERK_HOLDER_SOCKET"),
        metavar="PATH",
        help="have the UDP sockets held by hauberk-holder, so that a restart does not interrupt ESP in UDP"
        " [HAUBERK_HOLDER_SOCKET]",
    )
    run.add_argument(
        "--boot-guard",
        action="store_true",
        default=os.environ.get("HAUBERK_BOOT_GUARD", "") == "true",
        help="keep the file that the host's boot guard loads when the node boots [HAUBERK_BOOT_GUARD=true]",
    )
    run.add_argument(
        "--no-bypass-watch",
        dest="bypass_watch",
        action="store_false",
        default=os.environ.get("HAUBERK_BYPASS_WATCH", "") != "false",
        help="do not look whether pods' packets leave in clear past the IP stack, which needs CAP_NET_RAW"
        " [HAUBERK_BYPASS_WATCH=false]",
    )
    run.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default=os.environ.get("HAUBERK_LOG_LEVEL", "info"),
        help="default info [HAUBERK_LOG_LEVEL]",
    )
    run.set_defaults(command=_run)

    status = commands.add_parser("status", help="show what this node believes and why")
    status.add_argument("-o", "--output", choices=("text", "json"), default="text", help="default text")
    status.set_defaults(command=_status)

    cleanup = commands.add_parser("cleanup", help="remove all our states and policies from this host's kernel")
    cleanup.add_argument("--force", action="store_true", help="although an agent runs on this node")
    cleanup.add_argument(
        "--state-dir",
        type=Path,
        default=Path(os.environ.get("HAUBERK_STATE_DIR", STATE_DIRECTORY)),
        metavar="DIR",
        help=f"default {STATE_DIRECTORY} [HAUBERK_STATE_DIR]",
    )
    cleanup.set_defaults(command=_cleanup)

    for command in (run, status):
        command.add_argument(
            "--socket",
            type=Path,
            default=Path(os.environ.get("HAUBERK_SOCKET", STATUS_SOCKET)),
            metavar="PATH",
            help=f"where status is asked, default {STATUS_SOCKET} [HAUBERK_SOCKET]",
        )
    return parser


def _path_from(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None


def _number_from(variable: str, default: int) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else default


def _run(options: argparse.Namespace) -> None:
    if not options.node_name:
        raise _Trouble("which node is this? Give --node-name NAME or set HAUBERK_NODE_NAME")
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        asyncio.run(_run_agent(options))
    except PermissionDenied as error:
        raise _Trouble(f"{error}; the agent needs CAP_NET_ADMIN") from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise _Trouble(f"{where}{error.strerror or error}") from error


async def _run_agent(options: argparse.Namespace) -> None:
    # Imported here because the other commands need none of it, and each costs memory and time.
    from hauberk_agent.agent import AgentSettings
    from hauberk_agent.garbage import collect_seldom
    from hauberk_agent.status import describe
    from hauberk_agent.status_socket import StatusServer

    settings = AgentSettings(
        node_name=NodeName(options.node_name),
        version=version("hauberk"),
        state_directory=options.state_dir,
        ike_port=options.ike_port,
        encapsulation_port=options.encapsulation_port,
        health_port=options.health_port,
        holder_socket=options.holder_socket,
        boot_guard=options.boot_guard,
        bypass_watch=options.bypass_watch,
    )
    loop = asyncio.get_running_loop()
    with Xfrm() as kernel:
        if options.source_dir is not None:
            agent = _on_directory(options.source_dir, settings, kernel)
            close = None
        else:
            agent, close = await _on_cluster(options, settings, kernel)
        server = StatusServer(options.socket, lambda: describe(agent, loop.time()))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, agent.stop)
        collect_seldom()
        try:
            await agent.run(server)
        finally:
            if close is not None:
                await close()


def _on_directory(directory: Path, settings: AgentSettings, kernel: Xfrm) -> Agent:
    from hauberk_agent.agent import Agent
    from hauberk_agent.directory import DirectorySource, FileReporter, read_identity

    return Agent(
        settings,
        source=DirectorySource(directory, settings.node_name),
        reporter=FileReporter(settings.state_directory / "report.json"),
        kernel=kernel,
        fixed_identity=lambda: read_identity(directory),
    )


async def _on_cluster(
    options: argparse.Namespace, settings: AgentSettings, kernel: Xfrm
) -> tuple[Agent, Callable[[], Awaitable[None]]]:
    from hauberk_agent.agent import Agent
    from hauberk_agent.clock import ClockWatch
    from hauberk_agent.kube import KubeApi, KubeReporter, KubeSigner, KubeSource, load_access

    clock = ClockWatch()
    api = KubeApi(await load_access(api_server=options.api_server, kubeconfig=options.kubeconfig), clock)
    chance = Random(os.urandom(16))  # noqa: S311 - for jitter
    agent = Agent(
        settings,
        source=KubeSource(api, settings.node_name, chance=chance),
        reporter=KubeReporter(api, settings.node_name),
        kernel=kernel,
        signer=KubeSigner(api, chance=chance),
        clock=clock,
        chance=chance,
    )
    return agent, api.close


def _status(options: argparse.Namespace) -> None:
    from hauberk_agent.status import render
    from hauberk_agent.status_socket import ask

    try:
        document = ask(options.socket)
    except OSError as error:
        raise _Trouble(f"no agent answers on {options.socket} ({error}): does one run on this node?") from error
    print(json.dumps(document, indent=2) if options.output == "json" else render(document))  # noqa: T201


def _cleanup(options: argparse.Namespace) -> None:
    from hauberk_agent.cleanup import remove_everything
    from hauberk_agent.lock import AgentLock
    from hauberk_xfrm.path_routes import PathRoutes

    lock = AgentLock(options.state_dir)
    try:
        if not lock.acquire() and not options.force:
            raise _Trouble(
                "an agent runs on this node and would put everything back: stop it first"
                " (helm uninstall does all of this), or give --force"
            )
        with Xfrm() as kernel, contextlib.closing(Routing()) as routing:
            removed = remove_everything(kernel, routing)
        PathRoutes().remove()
        with contextlib.suppress(NotSupported):  # a kernel without nftables has no tables of ours
            ClearCounter().remove()
            SegmentClamp().remove()
    except PermissionDenied as error:
        raise _Trouble(f"{error}; run this as root (CAP_NET_ADMIN)") from error
    except (XfrmError, OSError) as error:
        raise _Trouble(str(error)) from error
    finally:
        lock.release()
    print(f"removed {removed.policies} policies and {removed.states} states")  # noqa: T201
    if removed.problems:
        raise _Trouble("; ".join(removed.problems))
