"""The first process in a node's kernel: mounts, addresses, and the services that a host's init would run.

The kernel starts a script that `node` wrote, and that script starts `python -m tests.lab.node_init CONFIGURATION`, from
the host's files: the host's root is the node's root, read-only, so nothing in a node can change the host. What a node
writes lies in memory (/run, /tmp, /var/log, /opt) or on its own disk (/var/lib), which outlives reboots; logs go to its
run directory on the host. Standard library only.
"""

import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from tests.lab import cni
from tests.lab.addresses import Interface, Route

RUN_DIRECTORY = "/run/node"  # where a node sees its run directory
IN_MEMORY = ("/run", "/tmp", "/var/log", "/opt")  # noqa: S108 (mount points, not files)
ON_DISK = "/var/lib"
HIDDEN = (*IN_MEMORY, ON_DISK)  # the host's files below these are out of a node's sight
UNITS = "/var/lib/units"
"""Where the units of a node's host lie that it can write: its /etc is the lab's host's."""
RESTART_SECONDS = 1.0
DISK = "/dev/ubda"
DISK_KICKERS = 3
DISK_KICK_SECONDS = 0.2
POWER_OFF_SECONDS = 3.0  # how long processes have to end on SIGTERM


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All that a node is told. Paths are the host's."""

    name: str
    run_directory: str
    interfaces: tuple[Interface, ...]
    management: Interface
    gateways: tuple[str, ...]
    routes: tuple[Route, ...]
    pod_cidrs: tuple[str, ...]
    search_path: str
    containerd: tuple[str, ...]
    kubelet: tuple[str, ...]
    kube_proxy: tuple[str, ...]
    token_file: str

    @classmethod
    def parse(cls, text: str) -> "Configuration":
        """Reads what `build` wrote."""
        content = json.loads(text)
        return cls(
            name=content["name"],
            run_directory=content["run_directory"],
            interfaces=tuple(Interface(**interface) for interface in content["interfaces"]),
            management=Interface(**content["management"]),
            gateways=tuple(content["gateways"]),
            routes=tuple(Route(**route) for route in content["routes"]),
            pod_cidrs=tuple(content["pod_cidrs"]),
            search_path=content["search_path"],
            containerd=tuple(content["containerd"]),
            kubelet=tuple(content["kubelet"]),
            kube_proxy=tuple(content["kube_proxy"]),
            token_file=content["token_file"],
        )

    def build(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=1)


def main() -> None:
    """Never returns: if it did, the kernel would panic. SIGTERM powers the node off."""
    configuration = Configuration.parse(Path(sys.argv[1]).read_text())
    os.environ.update(PATH=configuration.search_path, HOME="/root", LANG="C.UTF-8")
    mount_file_systems(configuration)
    write_identity(configuration)
    run_units_at_boot()
    bring_up_network(configuration)
    write_cni_configuration(configuration)
    services = {
        "commands": (
            sys.executable,
            *("-B", "-m", "tests.lab.node_commands", configuration.management.address, configuration.token_file),
        ),
        "containerd": configuration.containerd,
        "kubelet": configuration.kubelet,
        "kube-proxy": configuration.kube_proxy,
    }
    for _ in range(DISK_KICKERS):
        threading.Thread(target=keep_disk_awake, daemon=True).start()
    signal.signal(signal.SIGTERM, _raise_power_off)
    try:
        supervise(services)
    except PowerOff:
        power_off()


def keep_disk_awake() -> None:
    """Reads a block past the cache, again and again.

    User-Mode Linux's block device now and then misses that a request is done, and whoever waits for it (a journal's
    commit: every fsync) waits until the next request ends. Seen on 7.3: minutes of fsync on an idle host. There are
    several of these threads because a kick can be missed as well.
    """
    disk = os.open(DISK, os.O_RDONLY | os.O_DIRECT)
    block = mmap.mmap(-1, 4096)  # aligned to a page, as O_DIRECT wants
    while True:
        os.preadv(disk, [block], 0)
        time.sleep(DISK_KICK_SECONDS)


def mount_file_systems(configuration: Configuration) -> None:
    """Everything that programs expect to be mounted, and the node's own disk."""
    for kind, path in (("proc", "/proc"), ("sysfs", "/sys"), ("cgroup2", "/sys/fs/cgroup")):
        _run("mount", "-t", kind, kind, path)
    if not os.path.ismount("/dev"):
        _run("mount", "-t", "devtmpfs", "devtmpfs", "/dev")
    for kind, path in (("devpts", "/dev/pts"), ("tmpfs", "/dev/shm")):  # noqa: S108 (a mount point)
        os.makedirs(path, exist_ok=True)
        _run("mount", "-t", kind, kind, path)
    for path in IN_MEMORY:
        _run("mount", "-t", "tmpfs", "tmpfs", path)
    _run("mount", "-t", "ext4", DISK, ON_DISK)
    os.makedirs("/run/lock")
    os.makedirs(RUN_DIRECTORY)
    _run("mount", "-t", "hostfs", "hostfs", RUN_DIRECTORY, "-o", configuration.run_directory)
    os.makedirs("/var/lib/containerd", exist_ok=True)
    os.makedirs(UNITS, exist_ok=True)


def write_identity(configuration: Configuration) -> None:
    """Host name, machine id and clock speed."""
    Path("/proc/sys/kernel/hostname").write_text(configuration.name)
    # kubelet wants a clock speed, and User-Mode Linux prints none.
    Path("/run/cpuinfo").write_text(Path("/proc/cpuinfo").read_text() + "cpu MHz\t\t: 2000.000\n")
    _run("mount", "--bind", "/run/cpuinfo", "/proc/cpuinfo")
    # All nodes see the host's file, but no two machines have the same id.
    if os.path.exists("/etc/machine-id"):
        Path("/run/machine-id").write_text(configuration.name.encode().hex().rjust(32, "0") + "\n")
        _run("mount", "--bind", "/run/machine-id", "/etc/machine-id")
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text()
    Path(RUN_DIRECTORY, "boot-id").write_text(boot_id)


def run_units_at_boot() -> None:
    """What systemd would do with the units that `sysinit.target` wants, before there is a network and a kubelet."""
    for unit in sorted(Path(UNITS, "sysinit.target.wants").glob("*.service")):
        commands = [line.partition("=")[2] for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
        for command in commands:
            done = subprocess.run(
                command.split(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            _say(f"{unit.name}: {done.stdout.strip()}{done.stderr.strip()} (exit code {done.returncode})")


def bring_up_network(configuration: Configuration) -> None:
    """Addresses, forwarding, and the routes to the other nodes' pods: a routed network without an overlay."""
    for setting in (
        "ipv4/ip_forward=1",
        "ipv6/conf/all/forwarding=1",
        "ipv6/conf/vec1/disable_ipv6=1",  # commands need IPv4 only, and nobody else has business there
    ):
        name, value = setting.split("=")
        Path("/proc/sys/net", name).write_text(value)
    commands = ["link set lo up", "link set vec0 up", "link set vec1 up"]
    for interface in configuration.interfaces:
        nodad = "nodad" if ":" in interface.address else ""
        commands.append(f"addr add {interface} dev vec0 {nodad}")
    commands.append(f"addr add {configuration.management} dev vec1")
    commands.extend(f"route add default via {gateway}" for gateway in configuration.gateways)
    commands.extend(f"route add {route.destination} via {route.via}" for route in configuration.routes)
    _run("ip", "-batch", "-", stdin="\n".join(commands) + "\n")


def write_cni_configuration(configuration: Configuration) -> None:
    """This node's network, for the DaemonSet that installs it."""
    directory = Path(cni.DIRECTORY)
    directory.mkdir()
    (directory / cni.FILE).write_text(cni.bridge(configuration.pod_cidrs))


def supervise(services: dict[str, tuple[str, ...]]) -> None:
    """Runs the services, starts again those that end, and buries orphans. Never returns."""
    running: dict[int, str] = {}
    for name, argv in services.items():
        if name == "kubelet":
            _wait_for_file("/run/containerd/containerd.sock", seconds=20)
        running[_start(name, argv)] = name
    while True:
        pid, status = os.wait()  # the services never leave us without children
        name = running.pop(pid, None)
        if name is not None:
            _say(f"{name} ended ({os.waitstatus_to_exitcode(status)}): starting it again")
            time.sleep(RESTART_SECONDS)
            running[_start(name, services[name])] = name


class PowerOff(BaseException):
    """Somebody asked us to end."""


def _raise_power_off(number: int, frame: FrameType | None) -> None:
    raise PowerOff


def power_off() -> None:
    """Ends all processes, the pods' too, writes the disk, and switches off. Never returns."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _say("powering off")
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGTERM)  # all but us
    deadline = time.monotonic() + POWER_OFF_SECONDS
    with suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    os.sync()
    for request in ("u", "o"):  # all file systems read-only, then off (Documentation/admin-guide/sysrq.rst)
        Path("/proc/sysrq-trigger").write_text(request)
        time.sleep(0.1)
    while True:
        time.sleep(1)


def _start(name: str, argv: tuple[str, ...]) -> int:
    with Path(RUN_DIRECTORY, f"{name}.log").open("ab") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    process.returncode = 0  # supervise() waits for it, not subprocess
    _say(f"{name} started as {process.pid}")
    return process.pid


def _wait_for_file(path: str, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            _say(f"{path} did not come within {seconds:.0f} s")
            return
        time.sleep(0.02)


def _run(*argv: str, stdin: str = "") -> None:
    done = subprocess.run(argv, input=stdin, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"node_init: `{' '.join(argv)}` failed: {done.stderr.strip()}")


def _say(what: str) -> None:
    print(f"[{time.monotonic():8.2f}] node_init: {what}", flush=True)


if __name__ == "__main__":
    main()
