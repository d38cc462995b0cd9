"""What this machine lacks to run a lab, each in a sentence, said before anything is started. Called by `cluster`."""

import ctypes
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.errors import PreflightError
from tests.lab.kernel_process import REPOSITORY, is_hidden, node_python
from tests.lab.node_init import HIDDEN

MEMORY_PER_NODE = 700 * 2**20  # with a few pods on it
MEMORY_OF_CONTROL_PLANE = 1200 * 2**20
NEEDS_ROOT = "The lab needs root, for network namespaces: run it with sudo."
DISK_TO_RUN = 2 * 2**30
DISK_TO_BUILD = 12 * 2**30
UNIX_SOCKET_PATH_LIMIT = 108  # unix(7)

_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000  # linux/sched.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What is asked of a machine; the sizes are in bytes."""

    system: str
    architecture: str
    user_id: int
    namespaces_refusal: str | None  # why a network namespace with a veth can't be made; None when it can
    shared_memory_free: int | None  # of /dev/shm; None when there is none
    shared_memory_executable: bool
    memory_available: int
    disk_free: int  # where the cache is
    cache: Path
    repository: Path
    python_in_nodes: Path

    @classmethod
    def this(cls, cache: Path) -> "Machine":
        """Looks at the machine that we run on."""
        shared = Path("/dev/shm")  # noqa: S108 (where User-Mode Linux keeps a kernel's memory)
        is_root = os.geteuid() == 0
        return cls(
            system=platform.system(),
            architecture=platform.machine(),
            user_id=os.geteuid(),
            namespaces_refusal=_try_namespaces() if is_root else None,
            shared_memory_free=_free(shared) if shared.is_dir() else None,
            shared_memory_executable=not os.statvfs(shared).f_flag & os.ST_NOEXEC if shared.is_dir() else False,
            memory_available=_memory_available(),
            disk_free=_free(cache),
            cache=cache,
            repository=REPOSITORY,
            python_in_nodes=Path(node_python()),
        )


def require_root() -> None:
    """Errors: PreflightError. To be asked first: others than root may not even be allowed to look at the cache."""
    if os.geteuid() != 0:
        raise PreflightError(NEEDS_ROOT)


def check(machine: Machine, *, lab: str, nodes: int, built: bool) -> None:
    """Errors: PreflightError with one sentence that says what is missing, the first that is."""
    for sentence in complaints(machine, lab=lab, nodes=nodes, built=built):
        raise PreflightError(sentence)


def complaints(machine: Machine, *, lab: str, nodes: int, built: bool) -> Iterator[str]:
    """What the machine lacks for a lab of that name with so many nodes. built: whether the parts are there already."""
    if machine.system != "Linux" or machine.architecture != "x86_64":
        yield f"The lab runs on Linux on x86_64; this is {machine.system} on {machine.architecture}."
    if machine.user_id != 0:
        yield NEEDS_ROOT
    if machine.namespaces_refusal is not None:
        yield (
            "The lab needs network and mount namespaces and veths, and this machine refuses them "
            f"({machine.namespaces_refusal}): in a container, run it privileged."
        )
    for what, path in (("cache", machine.cache), ("repository", machine.repository)):
        if is_hidden(path):
            yield (
                f"The {what} is in {path}, and nodes can't see files of the host below {', '.join(HIDDEN)}: "
                + ("set HAUBERK_LAB_CACHE to another place." if what == "cache" else "move it to another place.")
            )
    if not machine.python_in_nodes.exists():
        yield f"Nodes need a Python that they can see, and there is no {machine.python_in_nodes}: install python3."
    socket = machine.cache / "run" / lab / "nodes" / "n50" / "s" / "n50" / "mconsole"
    if len(str(socket)) >= UNIX_SOCKET_PATH_LIMIT:
        yield (
            f"The path {machine.cache} is too long for the sockets of kernels (at most {UNIX_SOCKET_PATH_LIMIT - 1} "
            f"characters for {socket}): set HAUBERK_LAB_CACHE to a shorter one, or give the lab a shorter name."
        )
    memory = MEMORY_OF_CONTROL_PLANE + nodes * MEMORY_PER_NODE
    if machine.memory_available < memory:
        yield (f"{_plural(nodes)} need {_size(memory)} of memory, and {_size(machine.memory_available)} are available.")
    if machine.shared_memory_free is None:
        yield "The nodes' memory lies in /dev/shm, and there is none: mount a tmpfs there."
    elif not machine.shared_memory_executable:
        yield "The nodes' memory lies in /dev/shm, which is mounted noexec: `mount -o remount,exec /dev/shm`."
    elif machine.shared_memory_free < nodes * MEMORY_PER_NODE:
        yield (
            f"{_plural(nodes)} need {_size(nodes * MEMORY_PER_NODE)} in /dev/shm, and "
            f"{_size(machine.shared_memory_free)} are free: "
            "`mount -o remount,size=80% /dev/shm`, or docker's --shm-size."
        )
    disk = DISK_TO_RUN if built else DISK_TO_BUILD
    if machine.disk_free < disk:
        yield (
            f"The lab needs {_size(disk)} of disk space in {machine.cache}, and {_size(machine.disk_free)} are free: "
            "make room, or set HAUBERK_LAB_CACHE to a place that has it."
        )


def _plural(nodes: int) -> str:
    return "1 node" if nodes == 1 else f"{nodes} nodes"


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _free(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _memory_available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _try_namespaces() -> str | None:
    """Makes a network namespace with a veth in a child, which takes it along when it ends."""

    def enter() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    if shutil.which("ip") is None:
        return None  # the build will install it, and `up` comes after it
    try:
        tried = subprocess.run(
            ["ip", "link", "add", "name", "lab0", "type", "veth", "peer", "name", "lab1"],
            preexec_fn=enter,
            capture_output=True,
            text=True,
            check=False,
        )
    except subprocess.SubprocessError:
        return "unshare: Operation not permitted"
    return None if tried.returncode == 0 else tried.stderr.strip()
