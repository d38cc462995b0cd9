"""A lab's private network: one namespace, two bridges in it, and a pair of veths for each node and bridge.

    namespace hauberk-LAB
      br0     the observed bridge: nodes and control plane; a capture here sees every byte that crosses between nodes
      mgmt0   commands for nodes (see `remote`): nothing of Kubernetes ever passes here
      n1, n1-m            veths of node n1, their ends in br0 and mgmt0 ...
      n1-uml, n1-m-uml    ... and the ends that n1's kernel reads and writes as raw sockets

Nothing in the namespace leads out of it. Called by `cluster`; `socket_inside` also by `remote`.
"""

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path

from tests.lab import addresses
from tests.lab.addresses import Family
from tests.lab.errors import LabError

BRIDGE = "br0"
MANAGEMENT_BRIDGE = "mgmt0"

_CLONE_NEWNET = 0x40000000  # linux/sched.h


def namespace_name(lab: str) -> str:
    """The network namespace of a lab."""
    return f"hauberk-{lab}"


def namespace_path(namespace: str) -> Path:
    """Where iproute2 keeps a named namespace."""
    return Path("/run/netns") / namespace


def node_interfaces(node: str) -> tuple[str, str]:
    """The veth ends that a node's kernel opens: for the observed bridge and for management."""
    return f"{node}-uml", f"{node}-m-uml"


def create(namespace: str, family: Family) -> None:
    """Makes the namespace and its bridges, with the control plane's addresses. Errors: LabError."""
    _run(["ip", "netns", "add", namespace])
    _batch(
        namespace,
        [
            "link set lo up",
            f"link add {BRIDGE} type bridge",
            f"link add {MANAGEMENT_BRIDGE} type bridge",
            # A raw socket hands a node's kernel no packet longer than the MTU. What TCP leaves to the device to cut up
            # is lost and sent again, piece by piece: it was a tenth of all segments, and seconds of waiting.
            f"link set {BRIDGE} gso_max_segs 1",
            f"link set {MANAGEMENT_BRIDGE} gso_max_segs 1",
            *(f"addr add {interface} dev {BRIDGE} {_nodad(interface.address)}"
              for interface in addresses.interfaces(family, 1)),
            f"addr add {addresses.management(1)} dev {MANAGEMENT_BRIDGE}",
            f"link set {BRIDGE} up",
            f"link set {MANAGEMENT_BRIDGE} up",
        ],
    )  # fmt: skip


def add_node(namespace: str, family: Family, number: int) -> None:
    """Makes a node's veths, and the control plane's routes to its pods. Errors: LabError."""
    name = addresses.node_name(number)
    data, management = node_interfaces(name)
    _batch(
        namespace,
        [
            f"link add {name} type veth peer name {data}",
            f"link add {name}-m type veth peer name {management}",
            f"link set {name} master {BRIDGE} up",
            f"link set {name}-m master {MANAGEMENT_BRIDGE} up",
            f"link set {data} up",
            f"link set {management} up",
            *(f"route add {route.destination} via {route.via}" for route in addresses.pod_routes(family, number)),
        ],
    )


def remove_node(namespace: str, family: Family, number: int) -> None:
    """Undoes `add_node`. Errors: LabError."""
    name = addresses.node_name(number)
    _batch(
        namespace,
        [
            *(f"route del {route.destination} via {route.via}" for route in addresses.pod_routes(family, number)),
            f"link del {name}",
            f"link del {name}-m",
        ],
    )


def remove(namespace: str) -> None:
    """Removes the namespace, and with it all that is in it. Errors: LabError."""
    _run(["ip", "netns", "del", namespace])


def command_inside(namespace: str, argv: Iterable[str]) -> list[str]:
    """The command that runs `argv` in the namespace; its process id is that of the program itself."""
    return ["ip", "netns", "exec", namespace, *argv]


def socket_inside(namespace: str, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    """Opens a socket that belongs to the namespace, wherever it is used.

    A socket stays in the namespace in which it was made, and setns(2) moves only the calling thread: so a short-lived
    thread makes it. Errors: OSError.
    """
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def make() -> None:
        try:
            descriptor = os.open(namespace_path(namespace), os.O_RDONLY | os.O_CLOEXEC)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(descriptor, _CLONE_NEWNET) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), str(namespace_path(namespace)))
            finally:
                os.close(descriptor)
            made.append(socket.socket(family, kind))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=make, name=f"socket in {namespace}")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def _nodad(address: str) -> str:
    """IPv6 addresses are used at once: nobody else has them here, so they need no duplicate address detection."""
    return "nodad" if ":" in address else ""


def _batch(namespace: str, commands: list[str]) -> None:
    _run(["ip", "-n", namespace, "-batch", "-"], stdin="\n".join(commands) + "\n")


def _run(argv: list[str], stdin: str = "") -> None:
    try:
        subprocess.run(argv, input=stdin, text=True, capture_output=True, check=True)
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is not installed: run `python -m tests.lab build` as root") from error
    except subprocess.CalledProcessError as error:
        raise LabError(f"network: `{' '.join(argv)}` failed: {error.stderr.strip()}") from error
