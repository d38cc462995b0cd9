"""Hauberk installed in a lab: what the demo and the tests on real kernels do with it and ask of it.

What is asked of the kernel is asked of the kernel (`ip xfrm` in the node), not of the agent that is on trial.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from typing import Any, Final

from tests.lab.cluster import Lab, Node

CHART: Final = Path(__file__).resolve().parent.parent / "charts" / "hauberk"
EXAMPLES: Final = CHART.parent.parent / "examples"
RELEASE: Final = "hauberk"
NAMESPACE: Final = "hauberk-system"

_POLL_SECONDS: Final = 0.25
"""Each look runs `ip` in every node, and the nodes have better to do."""

_STATE = re.compile(r"^src (\S+) dst (\S+)\s+proto esp spi (0x[0-9a-f]+)(?:\(\d+\))? reqid (\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelState:
    """One complete ESP state of a node's kernel, as `ip xfrm state` shows it."""

    source: str
    destination: str
    spi: int
    reqid: int
    bytes: int
    packets: int
    added: datetime
    """To the second."""


class Deployment:
    """A Helm release of the chart in a lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    @classmethod
    def install(cls, lab: Lab, *settings: str, timeout: float = 180) -> Deployment:
        """`helm install` from the tree, and wait until both programs run everywhere.

        settings: values as for --set. Raises subprocess.CalledProcessError, with helm's or kubectl's sentence.
        """
        values = [argument for setting in settings for argument in ("--set", setting)]
        lab.helm(
            "install", RELEASE, str(CHART), "--namespace", NAMESPACE, "--create-namespace",
            "--set", "image.repository=localhost/hauberk,image.tag=dev,image.pullPolicy=Never", *values,
            timeout=timeout,
        )  # fmt: skip
        deployment = cls(lab)
        deployment.wait_running(timeout=timeout)
        return deployment

    def wait_running(self, *, timeout: float = 180) -> None:
        """Until every pod of the release is Ready."""
        for workload in ("deployment/hauberk-operator", "daemonset/hauberk-agent"):
            self.lab.kubectl(
                "-n", NAMESPACE, "rollout", "status", workload, f"--timeout={timeout:.0f}s", timeout=timeout + 10
            )

    def uninstall(self, *, timeout: float = 180) -> None:
        """`helm uninstall`, which waits for the nodes to be clean."""
        self.lab.helm(
            "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--cascade", "foreground", timeout=timeout
        )

    def installed(self) -> bool:
        """Whether the release is there."""
        return self.lab.helm("status", RELEASE, "--namespace", NAMESPACE, check=False).returncode == 0

    def agent_pod(self, node: str) -> str:
        """The name of the agent's pod on a node. Raises LookupError when there is none that runs."""
        pods = self.pods("hauberk-agent")
        for pod in pods:
            if pod["spec"].get("nodeName") == node and "deletionTimestamp" not in pod["metadata"]:
                return pod["metadata"]["name"]
        raise LookupError(f"no agent pod on {node}")

    def pods(self, component: str) -> list[dict[str, Any]]:
        """The pods whose name starts with component, as the API server has them."""
        listed = json.loads(self.lab.kubectl("-n", NAMESPACE, "get", "pods", "-o", "json").stdout)
        return [pod for pod in listed["items"] if pod["metadata"]["name"].startswith(component)]

    def agent_status(self, node: str) -> dict[str, Any]:
        """What `hauberk-agent status -o json` answers on a node."""
        command = ("-n", NAMESPACE, "exec", self.agent_pod(node), "--", "hauberk-agent", "status", "-o", "json")
        return json.loads(self.lab.kubectl(*command).stdout)

    def states(self, node: str) -> list[KernelState]:
        """The complete (not larval) ESP states of a node's kernel."""
        found: list[KernelState] = []
        for block in re.split(r"\n(?=src )", self.lab.node_run(node, ["ip", "-s", "xfrm", "state"]).stdout):
            head = _STATE.match(block.replace("\n", " ").replace("\t", " "))
            if head is None or "aead" not in block:
                continue
            counted = re.search(r"lifetime current:\s*(\d+)\(bytes\), (\d+)\(packets\)\s*add (\S+ \S+)", block)
            assert counted is not None, block
            found.append(
                KernelState(
                    source=head[1],
                    destination=head[2],
                    spi=int(head[3], 16),
                    reqid=int(head[4]),
                    bytes=int(counted[1]),
                    packets=int(counted[2]),
                    added=datetime.fromisoformat(counted[3]).replace(tzinfo=UTC),
                )
            )
        return found

    def left_in_kernel(self, node: str) -> list[str]:
        """The states and policies in a node's kernel, per-socket policies aside: a line each."""
        states = self.lab.node_run(node, ["ip", "xfrm", "state"]).stdout
        policies = self.lab.node_run(node, ["ip", "xfrm", "policy", "list", "nosock"]).stdout
        return [line for line in (states + policies).splitlines() if line.startswith("src ")]

    def all_left(self) -> list[str]:
        """What is left in the kernels of all nodes, each line with its node's name."""
        return [f"{node.name}: {line}" for node in self.lab.nodes for line in self.left_in_kernel(node.name)]

    def unpaired(self, nodes: Iterable[Node] | None = None) -> list[str]:
        """The directed pairs without a complete ESP state that both kernels hold, under the same SPI."""
        members = list(self.lab.nodes if nodes is None else nodes)
        spis: dict[str, set[tuple[str, str, int]]] = {
            node.name: {(s.source, s.destination, s.spi) for s in self.states(node.name)} for node in members
        }
        missing: list[str] = []
        for one, other in permutations(members, 2):
            shared = spis[one.name] & spis[other.name]
            if not any(s in one.addresses and d in other.addresses for s, d, _ in shared):
                missing.append(f"{one.name}->{other.name}")
        return missing

    def wait_paired(self, *, timeout: float) -> float:
        """Seconds until every directed pair shares an ESP state. Raises TimeoutError naming those that don't."""
        started = time.monotonic()
        while missing := self.unpaired():
            if time.monotonic() - started > timeout:
                raise TimeoutError(f"after {timeout:.0f} s no ESP state shared by {', '.join(missing)}")
            time.sleep(_POLL_SECONDS)
        return time.monotonic() - started

    def resident_mb(self, program: str) -> float:
        """The largest resident set (VmRSS, MB) among the program's processes on all nodes."""
        script = (
            "for p in /proc/[0-9]*; do "
            f"tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q '{program} run' && grep VmRSS $p/status; done; true"
        )
        largest = 0.0
        for node in self.lab.nodes:
            for line in self.lab.node_run(node.name, ["sh", "-c", script]).stdout.splitlines():
                largest = max(largest, int(line.split()[1]) * 1024 / 1e6)
        return largest

    def tunnel_conditions(self, name: str) -> dict[str, dict[str, Any]]:
        """An IPsecTunnel's conditions by type; empty before the operator has written any."""
        tunnel = json.loads(self.lab.kubectl("get", "ipsectunnel", name, "-o", "json").stdout)
        return {c["type"]: c for c in tunnel.get("status", {}).get("conditions", [])}
