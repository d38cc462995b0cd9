"""Steady, checked traffic between the nodes of a lab: every directed pair, both families, TCP, UDP and ICMP.

The demo and the tests on the lab start it, let the mesh change underneath, and ask what was answered and what was lost.
Two DaemonSets run tests/lab/traffic_pod.py, one in the pod network, one on the host network. Their messages take these
paths to every other node:

    pod-pod        pod to pod                                                 TCP  UDP  ICMP
    pod-host       pod to a host-network pod: the node's own address          TCP  UDP  ICMP
    host-pod       host-network pod to pod                                    TCP  UDP  ICMP
    pod-nodeport   pod to a NodePort at another node, which passes it         TCP  UDP
                   on, masqueraded, to a backend on any node

Nothing goes from host to host: node to node is not the pod network's traffic, and would be in clear by right.

At the default pace, three messages a second to each target, that makes some 1,000 packets a second on the bridge of
three nodes, and takes an eighth of each node's CPU.
"""

import json
import re
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import Any, Protocol, TypeVar

from tests.lab import traffic_pod
from tests.lab.errors import LabError, NotInTime
from tests.lab.traffic_pod import ECHO_PORT, HTTP_PORT, MARKER, Pace, Target

__all__ = ["MARKER", "Count", "Flow", "Pace", "Stats", "Traffic"]

T = TypeVar("T")

NAMESPACE = "traffic"
IMAGE = "localhost/hauberk-tools:dev"
NODE_PORT = 30707
MAX_LINES = 20
_EXEC_SECONDS = 30.0

_TARGETS = "/run/traffic/targets.json"
# Write, then rename: the program never reads half a file. What is printed is who was told.
_WRITE_TARGETS = f"busybox cat >{_TARGETS}.new && busybox mv {_TARGETS}.new {_TARGETS} && busybox ip addr show"
_OWN_ADDRESS = re.compile(r"^\s*inet6? ([0-9a-f.:]+)/", re.MULTILINE)
_READ_STATS = f"busybox wget -q -O - http://127.0.0.1:{HTTP_PORT}/stats"
# The DaemonSets, by the value of their pods' label "network".
_NETWORKS = ("pod", "host")


class LabNode(Protocol):
    """What we need to know of a node."""

    @property
    def name(self) -> str: ...
    @property
    def addresses(self) -> Sequence[object]: ...


class Cluster(Protocol):
    """What we need of tests/lab/cluster.py's Lab."""

    @property
    def nodes(self) -> Sequence[LabNode]: ...
    def kubectl(
        self, *args: str, stdin: str | None = None, check: bool = True, timeout: float = 60
    ) -> CompletedProcess[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Flow:
    """The messages of one kind from one node to another. `family` is 4 or 6."""

    source: str
    destination: str
    path: str
    family: int
    protocol: str

    def __str__(self) -> str:
        return f"{self.source} > {self.destination} {self.path} IPv{self.family} {self.protocol}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What became of messages. Those neither answered nor lost are under way; `wrong` answers fit no message."""

    sent: int = 0
    answered: int = 0
    lost: int = 0
    wrong: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(**{name: value + getattr(other, name) for name, value in asdict(self).items()})

    def since(self, earlier: "Count") -> "Count":
        """What came after `earlier`. A program that was started again has lost its memory, and counts from zero."""
        if self.sent < earlier.sent:
            return self
        return Count(**{name: value - getattr(earlier, name) for name, value in asdict(self).items()})


@dataclass(frozen=True, slots=True)
class Stats:
    """The counters of all flows at one moment. `unreachable`: ready pods that did not tell theirs."""

    flows: Mapping[Flow, Count] = field(default_factory=dict[Flow, Count])
    unreachable: tuple[str, ...] = ()

    @property
    def total(self) -> Count:
        return sum(self.flows.values(), Count())

    def since(self, earlier: "Stats") -> "Stats":
        """What came after `earlier`, of the flows that there are now."""
        flows = {flow: count.since(earlier.flows.get(flow, Count())) for flow, count in self.flows.items()}
        return Stats(flows, self.unreachable)

    def where(self, wanted: Callable[[Flow], bool]) -> "Stats":
        """Only some of the flows."""
        return Stats({flow: count for flow, count in self.flows.items() if wanted(flow)})

    def quiet(self) -> list[Flow]:
        """The flows of which nothing was answered."""
        return sorted(flow for flow, count in self.flows.items() if not count.answered)

    def table(self) -> str:
        """For people: a line for each path and protocol, and for the first flows that lost something."""
        lines = [f"  {'path':<16}{'family':<8}{'protocol':<10}{'sent':>9}{'answered':>10}{'lost':>7}"]
        for path, family, protocol in sorted({(flow.path, flow.family, flow.protocol) for flow in self.flows}):
            key = (path, family, protocol)
            sums = self.where(lambda flow, key=key: (flow.path, flow.family, flow.protocol) == key).total
            lines.append(f"  {path:<16}IPv{family:<5}{protocol:<10}{sums.sent:>9}{sums.answered:>10}{sums.lost:>7}")
        bad = [
            f"  {flow}: {count.sent} sent, {count.answered} answered, {count.lost} lost, {count.wrong} wrong"
            for flow, count in sorted(self.flows.items())
            if count.lost or count.wrong or not count.answered
        ]
        bad += [f"  {pod}: did not tell its counters" for pod in self.unreachable]
        lines += bad[:MAX_LINES] + ([f"  and {len(bad) - MAX_LINES} more"] if len(bad) > MAX_LINES else [])
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One ready pod of ours."""

    name: str
    node: str
    network: str  # pod, host
    addresses: tuple[str, ...]


class Traffic:
    """The traffic of one lab.

    Methods raise LabError (NotInTime among them), and CommandFailed or TimeoutExpired when kubectl fails.
    """

    def __init__(self, lab: Cluster, *, pace: Pace | None = None) -> None:
        self._lab = lab
        self.pace = pace or Pace()

    @classmethod
    def apply(cls, lab: Cluster, *, pace: Pace | None = None, image: str = IMAGE) -> "Traffic":
        """Create or update all objects. Messages flow once `update_targets` has been called."""
        lab.kubectl(
            "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests(image)})
        )
        return cls(lab, pace=pace)

    @classmethod
    def start(cls, lab: Cluster, *, pace: Pace | None = None, image: str = IMAGE) -> "Traffic":
        """All at once: apply, wait until every node's pods are ready, and let every pod know its targets."""
        traffic = cls.apply(lab, pace=pace, image=image)
        traffic.wait_running()
        traffic.update_targets()
        return traffic

    def wait_running(self, timeout_seconds: float = 90.0) -> None:
        """Wait until both pods of each of the lab's nodes are ready."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            wanted = {(node.name, network) for node in self._lab.nodes for network in _NETWORKS}
            missing = wanted - {(pod.node, pod.network) for pod in self._pods()}
            if not missing:
                return
            if time.monotonic() > deadline:
                names = ", ".join(sorted(f"{network} network on {node}" for node, network in missing))
                raise NotInTime(f"traffic pods not ready within {timeout_seconds:g} s: {names}")
            time.sleep(0.5)

    def update_targets(self, timeout_seconds: float = 30.0) -> None:
        """Tell every ready pod to send to all others. To be called again whenever nodes or pods have come or gone.

        Pods of a node that has just booted are listed as they were before for some seconds, with the addresses that
        they had: all are told anew until every pod could be told and has the addresses that are listed. A pod that
        can't be told doesn't keep the others from being told; when the time is up it is a LabError.
        """
        deadline = time.monotonic() + timeout_seconds
        while untold := self._tell_targets():
            if time.monotonic() > deadline:
                raise LabError(f"traffic pods that could not be told their targets: {', '.join(untold)}")
            time.sleep(0.5)

    def _tell_targets(self) -> list[str]:
        """Tell all pods once: the names of those that could not be told, or are not as they are listed."""
        pods = self._pods()
        node_addresses, families = self._node_addresses(), self._service_families()

        def tell(pod: Pod) -> bool:
            targets = targets_of(pod, pods, node_addresses, families)
            wanted = asdict(self.pace) | {"targets": [asdict(target) for target in targets]}
            answer = self._exec(pod, _WRITE_TARGETS, stdin=json.dumps(wanted))
            return answer is not None and set(map(ip_address, pod.addresses)) <= own_addresses(answer)

        told = self._each(tell, pods)
        return [pod.name for pod, was_told in zip(pods, told, strict=True) if not was_told]

    def stats(self) -> Stats:
        """Ask every ready pod for its counters.

        Pods of a node that has crashed count as ready for a while: who doesn't answer is `unreachable`.
        """
        pods = self._pods()
        flows: dict[Flow, Count] = {}
        unreachable: list[str] = []
        for pod, answer in zip(pods, self._each(lambda pod: self._exec(pod, _READ_STATS), pods), strict=True):
            if answer is None:
                unreachable.append(pod.name)
                continue
            for flow, count in read_stats(answer):
                flows[flow] = flows.get(flow, Count()) + count
        return Stats(flows, tuple(unreachable))

    def silent(self, *, seconds: float = 2.0) -> list[str]:
        """Listen for some seconds: the names of all flows that there should be and of which nothing was answered."""
        earlier = self.stats()
        time.sleep(seconds)
        answered = {flow for flow, count in self.stats().since(earlier).flows.items() if count.answered}
        return [str(flow) for flow in sorted(self.flows() - answered)]

    def flows(self) -> set[Flow]:
        """All flows that there should be between the lab's nodes, whether their pods run or not."""
        addresses, families = self._node_addresses(), self._service_families()
        # Stand-ins for the pods: which flows there are depends on nodes and families alone.
        pods = [
            Pod(name="", node=name, network=network, addresses=own)
            for name, own in addresses.items()
            for network in _NETWORKS
        ]
        return {
            Flow(
                source=pod.node,
                destination=target.to,
                path=target.path,
                family=ip_address(target.address).version,
                protocol=target.protocol,
            )
            for pod in pods
            for target in targets_of(pod, pods, addresses, families)
        }

    def pairs(self) -> list[tuple[str, str]]:
        """All directed pairs (from, to) of the lab's nodes."""
        names = [node.name for node in self._lab.nodes]
        return [(source, destination) for source in names for destination in names if source != destination]

    def delete(self) -> None:
        """Remove everything, and wait until it is gone."""
        self._lab.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=50s")

    def _pods(self) -> list[Pod]:
        pods = ready_pods(json.loads(self._lab.kubectl("-n", NAMESPACE, "get", "pods", "-o", "json").stdout))
        # The API server lists the pods of a removed node for some time.
        there = {node.name for node in self._lab.nodes}
        return [pod for pod in pods if pod.node in there]

    def _node_addresses(self) -> dict[str, tuple[str, ...]]:
        return {node.name: tuple(str(address) for address in node.addresses) for node in self._lab.nodes}

    def _service_families(self) -> set[int]:
        """The families in which the Service was given addresses, and so has node ports."""
        service = json.loads(self._lab.kubectl("-n", NAMESPACE, "get", "service", "traffic", "-o", "json").stdout)
        return {int(family.removeprefix("IPv")) for family in service["spec"]["ipFamilies"]}

    def _exec(self, pod: Pod, script: str, *, stdin: str | None = None) -> str | None:
        """What a shell in the pod printed; None if it could not be reached or failed."""
        stdin_flag = ["-i"] if stdin is not None else []
        argv = ["-n", NAMESPACE, "exec", *stdin_flag, pod.name, "--", "busybox", "sh", "-c", script]
        try:
            done = self._lab.kubectl(*argv, stdin=stdin, check=False, timeout=_EXEC_SECONDS)
        except TimeoutExpired:
            return None
        return done.stdout if done.returncode == 0 else None

    @staticmethod
    def _each(work: Callable[[Pod], T], pods: Sequence[Pod]) -> list[T]:
        with ThreadPoolExecutor(max_workers=8) as pool:
            return list(pool.map(work, pods))


def ready_pods(listed: Mapping[str, Any]) -> list[Pod]:
    """The pods of ours that are ready and not on their way out, from what `kubectl get pods -o json` printed."""
    pods: list[Pod] = []
    for item in listed["items"]:
        metadata, spec, status = item["metadata"], item["spec"], item["status"]
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
        network = metadata.get("labels", {}).get("network")
        if ready and network in _NETWORKS and "deletionTimestamp" not in metadata:
            addresses = tuple(entry["ip"] for entry in status["podIPs"])
            pods.append(Pod(name=metadata["name"], node=spec["nodeName"], network=network, addresses=addresses))
    return pods


def targets_of(
    pod: Pod, pods: Iterable[Pod], node_addresses: Mapping[str, Sequence[str]], service_families: set[int]
) -> list[Target]:
    """Where `pod` sends: to everything of ours on other nodes, by every path, in every family that both ends have."""
    targets: list[Target] = []

    def add(path: str, node: str, addresses: Iterable[str], port: int, protocols: Iterable[str]) -> None:
        for address in addresses:
            for protocol in protocols:
                at = 0 if protocol == "icmp" else port
                targets.append(Target(path=path, to=node, address=address, port=at, protocol=protocol))

    for other in pods:
        if other.node == pod.node:
            continue
        if other.network == "pod":
            add(f"{pod.network}-pod", other.node, other.addresses, ECHO_PORT, ("tcp", "udp", "icmp"))
        elif pod.network == "pod":
            own = node_addresses[other.node]
            add("pod-host", other.node, own, ECHO_PORT, ("tcp", "udp", "icmp"))
            served = [address for address in own if ip_address(address).version in service_families]
            add("pod-nodeport", other.node, served, NODE_PORT, ("tcp", "udp"))
    return targets


def own_addresses(shown: str) -> set[IPv4Address | IPv6Address]:
    """The addresses in what `ip addr show` printed."""
    return {ip_address(address) for address in _OWN_ADDRESS.findall(shown)}


def read_stats(answer: str) -> list[tuple[Flow, Count]]:
    """What one pod's /stats says. Raises LabError if it is no such thing."""
    try:
        said = json.loads(answer)
        return [
            (
                Flow(
                    source=said["node"],
                    destination=stream["to"],
                    path=stream["path"],
                    family=ip_address(stream["address"]).version,
                    protocol=stream["protocol"],
                ),
                Count(**{name: stream[name] for name in ("sent", "answered", "lost", "wrong")}),
            )
            for stream in said["streams"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"a traffic pod's counters can't be read: {answer[:200]!r}") from error


def manifests(image: str) -> list[dict[str, Any]]:
    """The Kubernetes objects: namespace, ConfigMap with the program, two DaemonSets, NodePort Service."""
    program = Path(traffic_pod.__file__)
    ports = [
        {"name": protocol, "protocol": protocol.upper(), "port": ECHO_PORT, "nodePort": NODE_PORT}
        for protocol in ("tcp", "udp")
    ]
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "program", "namespace": NAMESPACE},
            "data": {program.name: program.read_text()},
        },
        *(_daemon_set(network, image, program) for network in _NETWORKS),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "traffic", "namespace": NAMESPACE},
            "spec": {
                "type": "NodePort",
                "selector": {"app": "traffic", "network": "pod"},
                "ipFamilyPolicy": "PreferDualStack",
                # Any node passes on to any backend, so a message may cross between nodes twice.
                "externalTrafficPolicy": "Cluster",
                "ports": ports,
            },
        },
    ]


def _daemon_set(network: str, image: str, program: Path) -> dict[str, Any]:
    labels = {"app": "traffic", "network": network}
    container: dict[str, Any] = {
        "name": "traffic",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["python3", f"/program/{program.name}", "--targets", _TARGETS],
        "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        # kubelet asks from the node, so the probe itself is traffic between node and pod, though it crosses no wire.
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": HTTP_PORT}, "periodSeconds": 2, "timeoutSeconds": 2},
        "securityContext": {
            "runAsUser": 0,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]},  # ICMP echo by raw sockets
        },
        "volumeMounts": [
            {"name": "program", "mountPath": "/program"},
            {"name": "run", "mountPath": str(Path(_TARGETS).parent)},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": f"traffic-{network}", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": "100%"}},
            "template": {
                # Another program makes other pods.
                "metadata": {"labels": labels, "annotations": {"program": f"{zlib.crc32(program.read_bytes()):08x}"}},
                "spec": {
                    "hostNetwork": network == "host",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 1,
                    "containers": [container],
                    "volumes": [
                        {"name": "program", "configMap": {"name": "program"}},
                        {"name": "run", "emptyDir": {}},
                    ],
                },
            },
        },
    }
