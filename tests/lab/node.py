"""A node seen from outside: its addresses, its files, and how its kernel is started. Called by `cluster`."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.lab import addresses, network
from tests.lab.addresses import Family, Route
from tests.lab.kernel_process import Kernel, write_init
from tests.lab.node_init import Configuration

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOGS = ("console", "commands", "containerd", "kubelet", "kube-proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of a lab: what people and tests need to know of it."""

    name: str
    number: int
    addresses: tuple[str, ...]  # primary family first
    pod_cidrs: tuple[str, ...]

    @classmethod
    def of(cls, family: Family, number: int) -> "Node":
        """The node with that number."""
        return cls(
            name=addresses.node_name(number),
            number=number,
            addresses=addresses.addresses(family, number),
            pod_cidrs=addresses.pod_cidrs(family, number),
        )

    def manifest(self) -> dict[str, object]:
        """Its Node object as it stands before kubelet fills it in: with the pod networks, which no kubelet may set.

        It has the label that kubelet gives a Node when it makes one itself, as DaemonSets that select it would else
        wait until kubelet has found the Node and mended it.
        """
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": {"kubernetes.io/os": "linux"}},
            "spec": {"podCIDR": self.pod_cidrs[0], "podCIDRs": list(self.pod_cidrs)},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFiles:
    """The files of one node in its lab's run directory."""

    lab_directory: Path
    name: str

    @property
    def directory(self) -> Path:
        """All of them lie here; the node sees it as /run/node."""
        return self.lab_directory / "nodes" / self.name

    @property
    def kubeconfig(self) -> Path:
        """kubelet's credentials: user system:node:NAME."""
        return self.directory / "kubeconfig"

    @property
    def disk(self) -> Path:
        """What the node wrote to its disk; it lives as long as the node, across crashes."""
        return self.directory / "disk.cow"

    @property
    def console(self) -> Path:
        """What the kernel and its first process print."""
        return self.directory / "console.log"

    @property
    def boot_id(self) -> Path:
        """/proc/sys/kernel/random/boot_id of the running kernel."""
        return self.directory / "boot-id"


def prepare(
    node: Node, files: NodeFiles, family: Family, *, kubernetes: Path, containerd: Path, token_file: Path
) -> None:
    """Writes all that the node's first process reads; its kubeconfig must be there too before the node starts."""
    (files.directory / "s").mkdir(parents=True, exist_ok=True)
    lab = files.lab_directory
    configuration = Configuration(
        name=node.name,
        run_directory=str(files.directory),
        interfaces=addresses.interfaces(family, node.number),
        management=addresses.management(node.number),
        gateways=addresses.control_plane(family),
        routes=tuple(_routes_to_others(family, node.number)),
        pod_cidrs=node.pod_cidrs,
        search_path=f"{containerd}:{kubernetes}:{SYSTEM_PATH}",
        containerd=("containerd", "-c", str(lab / "containerd.toml")),
        kubelet=(
            "kubelet",
            f"--config={lab / 'kubelet.json'}",
            f"--kubeconfig={files.kubeconfig}",
            f"--hostname-override={node.name}",
            # kubelet does not wait until these are on the disk, and does not start again with empty ones.
            "--cert-dir=/run/kubelet",
            f"--node-ip={','.join(node.addresses)}",
        ),
        kube_proxy=(
            "kube-proxy",
            "--proxy-mode=nftables",
            f"--kubeconfig={lab / 'kube-proxy.kubeconfig'}",
            f"--hostname-override={node.name}",
            f"--cluster-cidr={','.join(addresses.pod_networks(family))}",
        ),
        token_file=str(token_file),
    )
    (files.directory / "configuration.json").write_text(configuration.build())
    write_init(files.directory / "init", "tests.lab.node_init", str(files.directory / "configuration.json"))


def kernel(node: Node, files: NodeFiles, *, binary: Path, disk: Path, append: str) -> Kernel:
    """The kernel of the node. disk: what the node's own disk is a copy of. append: more words for the kernel."""
    veths = network.node_interfaces(node.name)
    return Kernel(
        binary=binary,
        name=node.name,
        sockets=files.directory / "s",
        init=files.directory / "init",
        disk=f"{files.disk},{disk}",
        interfaces=[(veth, addresses.hardware_address(node.number, index)) for index, veth in enumerate(veths)],
        append=append,
    )


def _routes_to_others(family: Family, number: int) -> Iterable[Route]:
    """Also to nodes that are not there yet: nobody has to tell the old ones when a new one joins."""
    for other in range(addresses.FIRST_NUMBER, addresses.LAST_NUMBER + 1):
        if other != number:
            yield from addresses.pod_routes(family, other)
