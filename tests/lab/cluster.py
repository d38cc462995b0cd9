"""Lab: a cluster of real kernels, brought up, changed and taken down.

Called by the command line, by the tests' fixture and by the demo. Whatever a method starts is recorded in the lab's
state first or at once, so that `down`, also from another process and after a crash, finds all of it.
"""

import contextlib
import datetime
import fcntl
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

from tests.lab import (
    addresses,
    build,
    cache,
    cni,
    containers,
    controlplane,
    disk,
    network,
    node,
    pki,
    preflight,
    process,
    state,
)
from tests.lab.addresses import Family
from tests.lab.api import Api, ApiRefused
from tests.lab.controlplane import ControlPlane
from tests.lab.errors import CommandFailed, LabError, LabNotUp, NodeUnknown, NotInTime, Unreachable
from tests.lab.kernel_process import cpu_for
from tests.lab.node import Node, NodeFiles
from tests.lab.parts import Parts
from tests.lab.remote import Remote
from tests.lab.state import NodeState, State

__all__ = ["Family", "Lab", "Node"]

Progress = Callable[[str], None]

DISKS_KEPT = 6
READY_SECONDS = 60.0
BRING_UP_SECONDS = 240.0  # machines of continuous integration have much else to do
POLL_SECONDS = 0.1
STRANGERS_SECONDS = 2.0
IMPORT_SECONDS = 300.0
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


def say(what: str) -> None:
    """The progress that nobody asked otherwise for: a line on standard error."""
    print(f"{datetime.datetime.now().astimezone():%H:%M:%S} {what}", file=sys.stderr, flush=True)


def require_machine(name: str, *, nodes: int) -> None:
    """What `Lab.up` asks first, for those who have images to build before it. Errors: PreflightError."""
    preflight.require_root()
    built = all(part.is_built() for part in (build.kernel_part(), build.kubernetes_part(), build.containerd_part()))
    preflight.check(preflight.Machine.this(cache.directory()), lab=name, nodes=nodes, built=built)


class Lab:
    """A lab that is up. Made by `up` or `attach`."""

    def __init__(self, remembered: State, progress: Progress) -> None:
        self._state = remembered
        self._progress = progress

    # -- coming and going ------------------------------------------------------------------------------------------

    @classmethod
    def up(
        cls,
        name: str,
        *,
        nodes: int,
        family: Family = Family.DUAL,
        progress: Progress = say,
        images: Sequence[Path] = (),
        append: str = "",
    ) -> "Lab":
        """Brings up a control plane and so many nodes, and returns when all are Ready.

        Builds first what is not built. images: OCI archives to have on the nodes' disks from the start. append: words
        for every node's kernel. Errors: PreflightError before anything is started, BuildError, LabError; then nothing
        is left.
        """
        if not _NAME.fullmatch(name):
            raise LabError(f"{name!r} is no name for a lab: small letters, digits and hyphens, at most 32")
        if not 1 <= nodes <= addresses.LAST_NUMBER - addresses.FIRST_NUMBER + 1:
            raise LabError(f"a lab has 1 to {addresses.LAST_NUMBER - addresses.FIRST_NUMBER + 1} nodes, not {nodes}")
        require_machine(name, nodes=nodes)
        run_directory = state.run_directory(name)
        if run_directory.exists():
            raise LabError(
                f"the lab {name} is up already, or was not taken down: `python -m tests.lab --name {name} down`"
            )
        parts = build.ensure(progress)
        images_disk = _disk(parts, images, progress)
        run_directory.mkdir(parents=True)
        remembered = State(
            name=name,
            family=family,
            disk=str(images_disk),
            disk_images=[cache.key(image) for image in images],
            parts=parts,
            append=append,
        )
        lab = cls(remembered, progress)
        started = time.monotonic()
        with _interruptible():
            try:
                remembered.save()
                lab._bring_up(nodes)
            except BaseException as error:
                # The log that explains it lies in the run directory: say what it says before that goes.
                failure = error.with_log_tail() if isinstance(error, LabError) else None
                with _uninterrupted():
                    left = lab.down()
                if failure is None:
                    raise
                left_text = "".join(f"\nleft behind: {what}" for what in left)
                raise LabError(f"the lab {name} did not come up: {failure}{left_text}") from error
        progress(f"{nodes} nodes Ready in {time.monotonic() - started:.1f} s")
        return lab

    @classmethod
    def attach(cls, name: str, *, progress: Progress = say) -> "Lab":
        """The lab of that name, which another process brought up. Errors: LabNotUp."""
        remembered = State.load(name)
        if remembered is None:
            others = ", ".join(state.names())
            raise LabNotUp(f"no lab {name} is up" + (f"; there is {others}" if others else ""))
        return cls(remembered, progress)

    def down(self) -> list[str]:
        """Ends all processes of the lab and removes all that it made; returns what could not be removed."""
        return take_down(self.name)

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The lab's name."""
        return self._state.name

    @property
    def family(self) -> Family:
        """Which IP families nodes, pods and services have."""
        return self._state.family

    @property
    def netns(self) -> str:
        """The network namespace that everything is in."""
        return network.namespace_name(self.name)

    @property
    def bridge(self) -> str:
        """The interface in the namespace that all traffic between nodes crosses."""
        return network.BRIDGE

    @property
    def run_directory(self) -> Path:
        """Where everything of this lab lies."""
        return self._state.run_directory

    @property
    def kubeconfig(self) -> Path:
        """The admin's; its server is reachable from inside the namespace only."""
        return self.run_directory / "admin.kubeconfig"

    @property
    def nodes(self) -> list[Node]:
        """The nodes, also those that are crashed at the moment."""
        return [Node.of(self.family, remembered.number) for remembered in self._state.nodes]

    @property
    def images(self) -> list[Path]:
        """The archives that every node has imported since the lab came up."""
        return [Path(image) for image in self._state.images]

    @property
    def api(self) -> Api:
        """The API server, as the admin."""
        control_plane = self._control_plane
        address = addresses.control_plane(self.family)[0]
        return Api(namespace=self.netns, address=address, pki=control_plane.pki)

    def audit_log(self) -> Path:
        """What the API server was asked: one JSON event (audit.k8s.io/v1, level Metadata) a line."""
        return self._control_plane.audit_log

    def logs(self) -> dict[str, Path]:
        """All logs by name: `etcd`, `kube-apiserver`, ..., `n1/kubelet`, ..."""
        found = {server: self.run_directory / f"{server}.log" for server in controlplane.SERVERS}
        for member in self.nodes:
            directory = self._files(member.name).directory
            found |= {f"{member.name}/{log}": directory / f"{log}.log" for log in node.LOGS}
        return found

    def is_running(self, name: str) -> bool:
        """Whether a server of the control plane, or a node's kernel, runs."""
        recorded = self._state.processes.get(name)
        return recorded is not None and recorded.is_alive()

    def resident_kib(self, name: str) -> int:
        """The memory of a server of the control plane or of a node with all that runs in it, in KiB."""
        recorded = self._state.processes.get(name)
        return process.resident_kib(recorded.group()) if recorded is not None else 0

    # -- its tools -------------------------------------------------------------------------------------------------

    def kubectl(
        self, *args: str, stdin: str | None = None, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """kubectl as the admin. Errors: CommandFailed if `check`; subprocess.TimeoutExpired."""
        return self._run_client(self.kubectl_command(*args), stdin=stdin, check=check, timeout=timeout)

    def helm(
        self, *args: str, stdin: str | None = None, check: bool = True, timeout: float = 180
    ) -> subprocess.CompletedProcess[str]:
        """helm as the admin. Errors: CommandFailed if `check`; subprocess.TimeoutExpired."""
        return self._run_client(self.helm_command(*args), stdin=stdin, check=check, timeout=timeout)

    def kubectl_command(self, *args: str) -> list[str]:
        """The command that runs kubectl as the admin; needs `client_environment`."""
        return network.command_inside(self.netns, [str(self._state.parts.kubectl), *args])

    def helm_command(self, *args: str) -> list[str]:
        """The command that runs helm as the admin; needs `client_environment`."""
        return network.command_inside(self.netns, [str(self._state.parts.helm), *args])

    def client_environment(self) -> dict[str, str]:
        """What kubectl and helm need to know. All labs have the same addresses, so none may share a cache."""
        caches = self.run_directory / "clients"
        return os.environ | {
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(caches / "kube"),
            "HELM_CACHE_HOME": str(caches / "helm-cache"),
            "HELM_CONFIG_HOME": str(caches / "helm-config"),
            "HELM_DATA_HOME": str(caches / "helm-data"),
        }

    def node_run(
        self, node: str, argv: Sequence[str], *, stdin: bytes = b"", check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command inside a node's kernel, in its own namespaces; never over the observed bridge.

        Errors: NodeUnknown, Unreachable, CommandFailed if `check`; subprocess.TimeoutExpired, and then it was killed.
        """
        result = self.remote(node).run(argv, stdin=stdin, timeout=timeout)
        text = subprocess.CompletedProcess(
            result.args,
            result.returncode,
            result.stdout.decode(errors="replace"),
            result.stderr.decode(errors="replace"),
        )
        if check and text.returncode != 0:
            raise CommandFailed(text.returncode, ["node", node, "--", *argv], text.stdout, text.stderr)
        return text

    def remote(self, node: str) -> Remote:
        """The way into a node. Errors: NodeUnknown."""
        member = self._node(node)
        return Remote(
            node=member.name,
            namespace=self.netns,
            address=addresses.management(member.number).address,
            token=self._token_file.read_text().strip(),
        )

    # -- nodes -----------------------------------------------------------------------------------------------------

    def add_node(self) -> Node:
        """Adds a node with the lowest number that is free, and returns when it is Ready. Errors: LabError."""
        with self._locked():
            member = self._create_node()
        self.wait_ready([member.name], timeout=BRING_UP_SECONDS)
        return member

    def remove_node(self, name: str) -> None:
        """Pulls the node's plug, deletes its Node object and all that the lab made for it. Errors: LabError."""
        with self._locked():
            member = self._node(name)
            self._kill(name)
            with contextlib.suppress(ApiRefused):
                self.api.delete(f"/api/v1/nodes/{name}")
            network.remove_node(self.netns, self.family, member.number)
            shutil.rmtree(self._files(name).directory)
            self._state.nodes = [kept for kept in self._state.nodes if kept.number != member.number]
            self._state.save()

    def crash(self, name: str) -> None:
        """Pulls the node's plug: its kernel is gone at once, its disk stays. Errors: NodeUnknown."""
        with self._locked():
            self._node(name)
            self._kill(name)

    def start(self, name: str) -> None:
        """Starts a node that is off, from its own disk; see `wait_ready`. Errors: LabError when it runs."""
        with self._locked():
            self._node(name)
            if self.is_running(name):
                raise LabError(f"node {name} is running")
            self._start_node(name)

    def reboot(self, name: str, append: str = "") -> None:
        """Shuts a node down orderly and starts it again, from now on with these words added for its kernel.

        `append="initcall_blacklist=esp4_init,esp6_init"` makes a node without ESP; without words, all is as usual
        again. Returns when it runs; see `wait_ready`. Errors: LabError.
        """
        with self._locked():
            self._node(name)
            if self.is_running(name):
                self._power_off(name)
            self._remembered(name).append = append
            self._state.save()
            self._start_node(name)

    def wait_ready(self, nodes: Iterable[str] | None = None, timeout: float = READY_SECONDS) -> None:
        """Waits until the nodes (all, unless told) are Ready as of their present boot, and have all images.

        Errors: NotInTime, LabError.
        """
        wanted = [member.name for member in self.nodes] if nodes is None else list(nodes)
        for name in wanted:
            self._node(name)
        deadline = time.monotonic() + timeout
        while waiting := self.not_ready(wanted):
            for name in waiting:
                if not self.is_running(name):
                    raise LabError(f"the kernel of node {name} ended", log=self._files(name).console)
            if time.monotonic() > deadline:
                log = self._files(waiting[0]).directory / "kubelet.log"
                raise NotInTime(f"not Ready after {timeout:.0f} s: {', '.join(waiting)}", log=log)
            time.sleep(POLL_SECONDS)
        self._import_images(wanted)

    def not_ready(self, nodes: Iterable[str]) -> list[str]:
        """Which of the nodes are not Ready as of their present boot."""
        try:
            listed = self.api.get("/api/v1/nodes")["items"]
        except Unreachable:
            return list(nodes)
        found = {item["metadata"]["name"]: item for item in listed}
        return [name for name in nodes if not self._is_ready(name, found.get(name))]

    # -- images ----------------------------------------------------------------------------------------------------

    def load_image(self, archive: Path) -> None:
        """Imports an OCI archive into all nodes at once; nodes that are off or come later get it before they are ready.

        What the nodes' disks had from the start costs nothing. Errors: LabError.
        """
        with self._locked():
            if cache.key(archive) in self._state.disk_images and not self._state.images:
                return
            # Nodes cache what they read of the host's files: what may be overwritten goes under a name of its own.
            kept = self.run_directory / "images" / f"{archive.stem}-{cache.key(archive)}.tar"
            if not kept.exists():
                kept.parent.mkdir(exist_ok=True)
                temporary = kept.with_suffix(".new")
                shutil.copyfile(archive, temporary)
                temporary.replace(kept)
            if str(kept) in self._state.images:
                self._state.images.remove(str(kept))  # of two with one name in them, the last is the one that counts
            self._state.images.append(str(kept))
            self._state.save()
        self._import_images([member.name for member in self.nodes if self.is_running(member.name)])

    # -- the control plane -----------------------------------------------------------------------------------------

    def stop_control_plane(self) -> None:
        """Kills kube-apiserver: an outage, as nodes and pods see it."""
        with self._locked():
            self._kill(controlplane.APISERVER)

    def start_control_plane(self) -> None:
        """Ends the outage; returns when the API server is ready. Errors: NotInTime."""
        with self._locked():
            if not self.is_running(controlplane.APISERVER):
                self._start_server(controlplane.APISERVER)
        self._wait_api()

    # -- how -------------------------------------------------------------------------------------------------------

    @property
    def _control_plane(self) -> ControlPlane:
        return ControlPlane(family=self.family, run_directory=self.run_directory, binaries=self._state.parts.kubernetes)

    @property
    def _token_file(self) -> Path:
        return self.run_directory / "pki" / "commands.token"

    def _files(self, name: str) -> NodeFiles:
        return NodeFiles(lab_directory=self.run_directory, name=name)

    def _node(self, name: str) -> Node:
        self._reload()
        for member in self.nodes:
            if member.name == name:
                return member
        raise NodeUnknown(f"the lab {self.name} has no node {name}; it has {', '.join(n.name for n in self.nodes)}")

    def _remembered(self, name: str) -> NodeState:
        return next(kept for kept in self._state.nodes if addresses.node_name(kept.number) == name)

    def _reload(self) -> None:
        """Another process may have changed the lab."""
        remembered = State.load(self.name)
        if remembered is None:
            raise LabNotUp(f"the lab {self.name} was taken down")
        self._state = remembered

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        """One process changes a lab at a time. The lock is on the run directory, and so is gone with it."""
        try:
            descriptor = os.open(self.run_directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise LabNotUp(f"the lab {self.name} was taken down") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._reload()
            yield
        finally:
            os.close(descriptor)

    def _bring_up(self, nodes: int) -> None:
        self._progress(f"network: namespace {self.netns}")
        network.create(self.netns, self.family)
        self._write_files()
        self._progress("control plane: " + ", ".join(controlplane.SERVERS))
        self._start_server(controlplane.ETCD)
        self._start_server(controlplane.APISERVER)
        self._wait_api()
        self._start_server(controlplane.CONTROLLER_MANAGER)
        self._start_server(controlplane.SCHEDULER)
        self._install_network()
        members = [self._create_node() for _ in range(nodes)]
        self._progress("nodes: " + ", ".join(member.name for member in members))
        self.wait_ready(timeout=BRING_UP_SECONDS)

    def _write_files(self) -> None:
        """Certificates, kubeconfigs and configurations that are not of one node."""
        control_plane = self._control_plane
        control_plane.pki.mkdir(mode=0o700)
        now = datetime.datetime.now(datetime.UTC)
        authority = pki.new_authority("lab-ca", now=now)
        authority.write(control_plane.pki, "ca")
        pki.issue(authority, "kube-apiserver", server_names=control_plane.server_names(), now=now).write(
            control_plane.pki, "apiserver"
        )
        pki.issue(authority, "kube-apiserver", organization="system:masters", now=now).write(
            control_plane.pki, "apiserver-kubelet-client"
        )
        private, public = pki.new_signing_key()
        pki.write_secret(control_plane.pki / "service-accounts.key", private)
        pki.write_secret(control_plane.pki / "service-accounts.pub", public)
        admin = pki.issue(authority, "admin", organization="system:masters", now=now)
        admin.write(control_plane.pki, "admin")
        self._write_kubeconfig(self.kubeconfig, authority, admin)
        for user in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
            client = pki.issue(authority, f"system:{user}", now=now)
            self._write_kubeconfig(self.run_directory / f"{user}.kubeconfig", authority, client)
        pki.write_secret(self._token_file, secrets.token_hex(16))
        control_plane.write_audit_policy()
        (self.run_directory / "containerd.toml").write_text(containers.containerd_configuration())
        (self.run_directory / "kubelet.json").write_text(
            containers.kubelet_configuration(client_authority=control_plane.pki / "ca.crt")
        )

    def _write_kubeconfig(self, path: Path, authority: pki.Pair, client: pki.Pair) -> None:
        pki.write_secret(path, pki.kubeconfig(server=self._control_plane.url, authority=authority, client=client))

    def _start_server(self, server: str) -> None:
        command = network.command_inside(self.netns, self._control_plane.commands()[server])
        self._spawn(server, command, log=self.run_directory / f"{server}.log")

    def _wait_api(self) -> None:
        deadline = time.monotonic() + BRING_UP_SECONDS
        while not self.api.is_ready():
            for server in (controlplane.ETCD, controlplane.APISERVER):
                if not self.is_running(server):
                    raise LabError(f"{server} ended", log=self.run_directory / f"{server}.log")
            if time.monotonic() > deadline:
                raise NotInTime(
                    f"kube-apiserver was not ready after {BRING_UP_SECONDS:.0f} s",
                    log=self.run_directory / f"{controlplane.APISERVER}.log",
                )
            time.sleep(POLL_SECONDS)

    def _install_network(self) -> None:
        """Without it no node becomes Ready. The API server makes its namespace a moment after it is ready."""
        path = f"/apis/apps/v1/namespaces/{cni.NAMESPACE}/daemonsets"
        deadline = time.monotonic() + BRING_UP_SECONDS
        while True:
            try:
                self.api.post(path, cni.daemon_set())
                return
            except ApiRefused:
                if time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SECONDS)

    def _create_node(self) -> Node:
        number = addresses.lowest_free_number({kept.number for kept in self._state.nodes})
        member = Node.of(self.family, number)
        self._state.nodes.append(NodeState(number=number, append=self._state.append))
        self._state.save()
        network.add_node(self.netns, self.family, number)
        files = self._files(member.name)
        files.directory.mkdir(parents=True)
        authority = pki.Pair.read(self._control_plane.pki, "ca")
        client = pki.issue(
            authority,
            f"system:node:{member.name}",
            organization="system:nodes",
            now=datetime.datetime.now(datetime.UTC),
        )
        self._write_kubeconfig(files.kubeconfig, authority, client)
        node.prepare(
            member,
            files,
            self.family,
            kubernetes=self._state.parts.kubernetes,
            containerd=self._state.parts.containerd,
            token_file=self._token_file,
        )
        self._start_node(member.name)
        return member

    def _start_node(self, name: str) -> None:
        """Starts a node's kernel.

        Its Node object stands before kubelet comes, as no kubelet may set the pod networks.
        """
        member, files = self._node(name), self._files(name)
        with contextlib.suppress(Unreachable):  # in an outage of the API server a node starts all the same
            try:
                self.api.post("/api/v1/nodes", member.manifest())
            except ApiRefused as refused:
                if refused.status != 409:  # it is there already
                    raise
        files.boot_id.unlink(missing_ok=True)
        kernel = node.kernel(
            member,
            files,
            binary=self._state.parts.kernel,
            disk=Path(self._state.disk),
            append=self._remembered(name).append,
        )
        command = network.command_inside(self.netns, kernel.argv(cpu_for(member.number)))
        self._spawn(name, command, log=files.console)

    def _power_off(self, name: str) -> None:
        """Asks the node's first process to end everything and power off; pulls the plug if it won't."""
        with contextlib.suppress(Unreachable, subprocess.TimeoutExpired):
            self.remote(name).run(["kill", "-TERM", "1"], timeout=5)
        self._state.processes[name].wait_gone(10)
        self._kill(name)

    def _is_ready(self, name: str, item: dict[str, Any] | None) -> bool:
        """Before a crash it was Ready too: what counts is what this boot's kubelet said."""
        if not self.is_running(name):
            return False
        try:
            boot_id = self._files(name).boot_id.read_text().strip()
        except FileNotFoundError:
            return False
        if item is None or not boot_id or item["status"].get("nodeInfo", {}).get("bootID") != boot_id:
            return False
        conditions = item["status"].get("conditions", [])
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def _import_images(self, names: Iterable[str]) -> None:
        """Imports into each node what it hasn't yet: which that is, its disk remembers."""
        self._reload()
        images = self.images
        if not images:
            return

        def import_into(name: str) -> None:
            done = self.remote(name).run(["sh", "-c", _IMPORT, "sh", *map(str, images)], timeout=IMPORT_SECONDS)
            if done.returncode != 0:
                said = done.stderr.decode(errors="replace").strip()
                raise LabError(f"images could not be imported into {name}: {said}")

        with ThreadPoolExecutor() as pool:
            list(pool.map(import_into, names))

    def _spawn(self, name: str, command: Sequence[str], *, log: Path) -> None:
        self._state.processes[name] = process.spawn(command, log=log)
        self._state.save()

    def _kill(self, name: str) -> None:
        recorded = self._state.processes.get(name)
        if recorded is not None:
            recorded.kill()
            if not recorded.wait_gone(10):
                raise NotInTime(f"{name} could not be killed")
            del self._state.processes[name]
            self._state.save()

    def _run_client(
        self, command: list[str], *, stdin: str | None, check: bool, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            command,
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=self.client_environment(),
            check=False,
        )
        if check and result.returncode != 0:
            raise CommandFailed(result.returncode, command[4:], result.stdout, result.stderr)
        return result


# Imports the archives in the arguments, in order, but for those at the front that this disk already had in this order:
# of two images with one name, the last counts. containerd does not wait until what it unpacked is on the disk, and a
# crash would leave empty files: hence the sync.
_IMPORT = """
done=/var/lib/containerd/imported; touch "$done"; exec 9<"$done"; same=1
for archive; do
    read -r before <&9 || before=
    if [ "$same" ] && [ "$before" = "$archive" ]; then continue; fi
    if [ "$same" ]; then same=; fi
    ctr -n k8s.io images import --local "$archive" >/dev/null || exit 1
done
if [ -z "$same" ]; then sync; printf '%s\n' "$@" >"$done"; sync; fi
"""


def take_down(name: str) -> list[str]:
    """Removes what there is of a lab of that name, whole or half; returns what could not be removed.

    Ends by their recorded ids only what the lab started: another's process inside the namespace is reported, not
    killed.
    """
    left: list[str] = []
    recorded = state.recorded_processes(name)
    for one in recorded.values():
        one.kill()
    for server, one in recorded.items():
        if not one.wait_gone(10):
            left.append(f"process {one.pid} ({server})")
    namespace = network.namespace_name(name)
    path = network.namespace_path(namespace)
    if path.exists():
        strangers = _strangers(path)
        left.extend(
            f"process {pid} ({process.command_name(pid)}), in namespace {namespace} but not the lab's"
            for pid in strangers
        )
        if not strangers:  # with them in it, it would stay, but nobody could find it by its name
            try:
                network.remove(namespace)
            except LabError as error:
                left.append(f"namespace {namespace}: {error}")
    run_directory = state.run_directory(name)
    if not left and run_directory.exists():
        shutil.rmtree(run_directory, ignore_errors=True)
        if run_directory.exists():
            left.append(f"files in {run_directory}")
    return left


def _strangers(namespace: Path) -> list[int]:
    """Processes in the namespace of a lab whose own are gone; those about to end have a moment for it."""
    deadline = time.monotonic() + STRANGERS_SECONDS
    while (found := process.in_network_namespace(namespace)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return found


def _disk(parts: Parts, images: Sequence[Path], progress: Progress) -> Path:
    progress("the nodes' disk")
    built = disk.build(kernel=parts.kernel, containerd=parts.containerd, archives=images)
    in_use = {base.parent for name in state.names() if (base := state.disk_of(name))}
    cache.discard_older("disk", DISKS_KEPT, in_use=in_use | {built.parent})
    return built


@contextlib.contextmanager
def _interruptible() -> Generator[None]:
    """Makes SIGTERM raise KeyboardInterrupt, as SIGINT does, so that a half-made lab is cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _uninterrupted() -> Generator[None]:
    """Lets nobody interrupt the cleaning up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
