"""The lab's command line: `python -m tests.lab --help`."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lab import build, cache, cluster, controlplane, pods, preflight, remote, state
from tests.lab.addresses import Family
from tests.lab.capture import Capture, CaptureError
from tests.lab.cluster import Lab, say
from tests.lab.errors import LabError, LabNotUp, NodeUnknown, PreflightError

EXAMPLES = """\
examples:
  python -m tests.lab up --nodes 3                      build what is missing, then a cluster of three kernels
  python -m tests.lab kubectl get nodes -o wide
  python -m tests.lab node n1 -- ip xfrm state          in the kernel of node n1
  python -m tests.lab pod n1 -- ping -c1 10.244.12.2    in the network of a pod on n1
  python -m tests.lab capture --seconds 10              what crosses between the nodes, into a pcap file
  python -m tests.lab node n2 crash                     pull its plug; `start` it again from its own disk
  python -m tests.lab node n2 reboot --append initcall_blacklist=esp4_init,esp6_init    ... as a kernel without ESP
  python -m tests.lab --name other up --nodes 1         a second lab beside the first
  python -m tests.lab down                              leaves nothing

exit codes:
  that of the command, for node, pod, kubectl and helm; else 0, or
  1  it failed, and nothing is left of what it started
  2  the command line is wrong
  3  this machine can't run the lab: nothing was started
  4  there is no such lab or node
  5  down could not remove everything, or status found something that should run and doesn't
  130  interrupted
"""

FAILED, WRONG, UNFIT, ABSENT, INCOMPLETE, INTERRUPTED = 1, 2, 3, 4, 5, 130


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    ours, theirs = split(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(ours)
    options.argv = theirs
    if theirs is not None and options.command not in _TAKE_COMMANDS:
        print("only node, pod, kubectl and helm take a command", file=sys.stderr)
        return WRONG
    try:
        return options.command(options)
    except PreflightError as error:
        return _fail(error, UNFIT)
    except (LabNotUp, NodeUnknown) as error:
        return _fail(error, ABSENT)
    except (LabError, CaptureError, subprocess.SubprocessError) as error:
        return _fail(error, FAILED)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough; nothing more may be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def split(words: list[str]) -> tuple[list[str], list[str] | None]:
    """Parts our words from those of a command, which argparse must not touch: after `--`, `kubectl` or `helm`."""
    for index, word in enumerate(words):
        if word == "--":
            return words[:index], words[index + 1 :]
        # The first word that is neither an option nor the value of --name is the command.
        if not word.startswith("-") and (index == 0 or words[index - 1] != "--name"):
            if word in ("kubectl", "helm"):
                return words[: index + 1], words[index + 1 :]
            break
    if "--" in words:
        index = words.index("--")
        return words[:index], words[index + 1 :]
    return words, None


def _fail(error: Exception, code: int) -> int:
    print(error.with_log_tail() if isinstance(error, LabError) else error, file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab",
        description="A real Kubernetes of real kernels, on this machine, in a private network namespace. Needs root.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", default="default", help="which lab; several stand side by side (default: default)")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        sub.set_defaults(command=run)
        return sub

    def reports(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("-o", "--output", choices=("text", "json"), default="text", help="how to report")

    reports(command("build", _build, f"build kernel, Kubernetes and containerd, once, into {cache.directory()}"))

    up = command("up", _up, "bring up a lab, building first what is missing")
    up.add_argument("--nodes", type=int, default=3, metavar="N", help="how many nodes (default: 3)")
    up.add_argument(
        "--family",
        choices=[family.value for family in Family],
        default=Family.DUAL.value,
        help="IP families (default: 46)",
    )
    up.add_argument("--append", default="", metavar="WORDS", help="words added to every node's kernel command line")
    reports(up)

    reports(command("status", _status, "show what runs, the nodes and their addresses"))

    node = command("node", _node, "run a command inside a node, or crash, start or reboot it")
    node.usage = "python -m tests.lab node NODE (-- COMMAND ... | crash | start | reboot [--append WORDS])"
    node.add_argument("node", metavar="NODE")
    node.add_argument("deed", nargs="?", choices=("crash", "start", "reboot"), help="instead of a command")
    node.add_argument("--append", metavar="WORDS", help="words added to its kernel's command line, from this boot on")

    reports(command("add-node", _add_node, "add a node to a running lab"))

    pod = command("pod", _pod, "run a command in the network of a scratch pod on a node")
    pod.usage = "python -m tests.lab pod NODE -- COMMAND ..."
    pod.add_argument("node", metavar="NODE")

    capture = command("capture", _capture, "capture what crosses between the nodes")
    capture.add_argument("--seconds", type=float, required=True, metavar="S", help="for how long")
    capture.add_argument("--file", type=Path, metavar="PCAP", help="where to (default: into the lab's run directory)")
    reports(capture)

    for tool, run in (("kubectl", _kubectl), ("helm", _helm)):
        command(tool, run, f"run {tool} as the cluster's admin").usage = f"python -m tests.lab {tool} ARGUMENTS ..."

    logs = command("logs", _logs, "show the end of a log, or which logs there are")
    logs.add_argument("log", nargs="?", metavar="LOG", help="for example kube-apiserver, or n1/kubelet")
    logs.add_argument("-n", "--lines", type=int, default=40, help="how many lines (default: 40)")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as the log grows")

    reports(command("down", _down, "take the lab down, whole or half; leaves nothing"))
    return parser


def _build(options: argparse.Namespace) -> int:
    preflight.require_root()
    machine = preflight.Machine.this(cache.directory())
    preflight.check(machine, lab=options.name, nodes=1, built=False)
    built = build.ensure(say).build()
    _report(options, built, "\n".join(f"{name:12} {path}" for name, path in built.items()))
    return 0


def _up(options: argparse.Namespace) -> int:
    lab = Lab.up(options.name, nodes=options.nodes, family=Family(options.family), append=options.append)
    return _show(options, lab)


def _status(options: argparse.Namespace) -> int:
    return _show(options, _attach(options))


def _show(options: argparse.Namespace, lab: Lab) -> int:
    names = [node.name for node in lab.nodes]
    not_ready = lab.not_ready(names)
    status: dict[str, Any] = {
        "name": lab.name,
        "family": lab.family.value,
        "namespace": lab.netns,
        "bridge": lab.bridge,
        "kubeconfig": str(lab.kubeconfig),
        "runDirectory": str(lab.run_directory),
        "images": [image.name for image in lab.images],
        "controlPlane": [
            {"name": server, "running": lab.is_running(server), "memoryMB": _megabytes(lab, server)}
            for server in controlplane.SERVERS
        ],
        "nodes": [
            {
                "name": node.name,
                "running": lab.is_running(node.name),
                "ready": node.name not in not_ready,
                "addresses": list(node.addresses),
                "podCIDRs": list(node.pod_cidrs),
                "memoryMB": _megabytes(lab, node.name),
            }
            for node in lab.nodes
        ],
    }
    lines = [
        f"lab {lab.name}: namespace {lab.netns}, bridge {lab.bridge}, files in {lab.run_directory}",
        *(
            f"  {server['name']:24} {'running' if server['running'] else 'off':8} {server['memoryMB']:6} MB"
            for server in status["controlPlane"]
        ),
        *(
            f"  {node['name']:24} {_condition(node):8} {node['memoryMB']:6} MB"
            f"  {' '.join(node['addresses'])}  pods {' '.join(node['podCIDRs'])}"
            for node in status["nodes"]
        ),
    ]
    _report(options, status, "\n".join(lines))
    well = all(server["running"] for server in status["controlPlane"]) and not not_ready
    return 0 if well else INCOMPLETE


def _condition(node: dict[str, Any]) -> str:
    if not node["running"]:
        return "off"
    return "Ready" if node["ready"] else "NotReady"


def _megabytes(lab: Lab, name: str) -> int:
    return round(lab.resident_kib(name) * 1024 / 1e6)


def _node(options: argparse.Namespace) -> int:
    if (options.deed is None) == (not options.argv):
        print("say either what to run, after --, or one of crash, start, reboot", file=sys.stderr)
        return WRONG
    if options.append is not None and options.deed != "reboot":
        print("--append goes with reboot", file=sys.stderr)
        return WRONG
    lab = _attach(options)
    match options.deed:
        case None:
            return _node_run(lab, options.node, options.argv)
        case "crash":
            lab.crash(options.node)
            return 0
        case "start":
            lab.start(options.node)
        case _:
            lab.reboot(options.node, options.append or "")
    lab.wait_ready([options.node])
    return 0


def _node_run(lab: Lab, node: str, argv: list[str]) -> int:
    def write(stream: int) -> Callable[[bytes], object]:
        return lambda data: _write_all(stream, data)

    returncode = lab.remote(node).stream(argv, read=remote.read_descriptor(0), on_stdout=write(1), on_stderr=write(2))
    return returncode if returncode >= 0 else 128 - returncode  # as a shell tells signals


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _add_node(options: argparse.Namespace) -> int:
    node = _attach(options).add_node()
    added = {"name": node.name, "addresses": list(node.addresses), "podCIDRs": list(node.pod_cidrs)}
    _report(options, added, f"{node.name} {' '.join(node.addresses)} is Ready")
    return 0


def _pod(options: argparse.Namespace) -> int:
    if not options.argv:
        print("say what to run, after --", file=sys.stderr)
        return WRONG
    lab = _attach(options)
    pod = pods.ensure(lab, options.node)
    arguments = ["exec", "-i", *(["-t"] if sys.stdin.isatty() else []), "-n", pods.NAMESPACE, pod, "--", *options.argv]
    return _client(lab, lab.kubectl_command(*arguments))


def _capture(options: argparse.Namespace) -> int:
    lab = _attach(options)
    path: Path = options.file or lab.run_directory / f"capture-{time.strftime('%H%M%S')}.pcap"
    say(f"capturing on {lab.bridge} in {lab.netns} for {options.seconds:g} s")
    with Capture(netns=lab.netns, interface=lab.bridge, path=path) as capture:
        time.sleep(options.seconds)
    captured = {"file": str(path), "packets": capture.packets, "dropped": capture.dropped}
    _report(options, captured, f"{capture.packets} packets in {path} ({capture.dropped} dropped)")
    return 0


def _kubectl(options: argparse.Namespace) -> int:
    lab = _attach(options)
    return _client(lab, lab.kubectl_command(*options.argv))


def _helm(options: argparse.Namespace) -> int:
    lab = _attach(options)
    return _client(lab, lab.helm_command(*options.argv))


def _client(lab: Lab, command: list[str]) -> int:
    returncode = subprocess.run(command, env=lab.client_environment(), check=False).returncode
    return returncode if returncode >= 0 else 128 - returncode


def _logs(options: argparse.Namespace) -> int:
    logs = _attach(options).logs()
    if options.log is None:
        for name, path in logs.items():
            print(f"{name:28} {path}")
        return 0
    if options.log not in logs:
        raise LabError(f"there is no log {options.log}; there are {', '.join(logs)}")
    follow = ["-f"] if options.follow else []
    return subprocess.run(["tail", "-n", str(options.lines), *follow, str(logs[options.log])], check=False).returncode


def _down(options: argparse.Namespace) -> int:
    preflight.require_root()
    was_up = state.run_directory(options.name).exists()
    left = cluster.take_down(options.name)
    nothing = f"the lab {options.name} is gone" if was_up else f"no lab {options.name} was up"
    _report(
        options, {"name": options.name, "leftBehind": left}, "\n".join(f"left behind: {x}" for x in left) or nothing
    )
    return INCOMPLETE if left else 0


def _attach(options: argparse.Namespace) -> Lab:
    preflight.require_root()
    return Lab.attach(options.name)


def _report(options: argparse.Namespace, content: object, text: str) -> None:
    print(json.dumps(content, indent=2) if options.output == "json" else text)


_TAKE_COMMANDS = (_node, _pod, _kubectl, _helm)
