"""The demo's story, scene by scene. Each scene shows what a person would look at and checks what it claims.

Called by tests/demo/__main__.py; the lab, the judge and the traffic are those of the tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Final

from tests.demo.claims import Claims
from tests.deployment import EXAMPLES, Deployment
from tests.ground import ground
from tests.lab import image
from tests.lab.capture import Capture
from tests.lab.cluster import Lab, require_machine
from tests.lab.judge import Verdict, judge
from tests.lab.traffic import Traffic

GOAL_SECONDS_TO_ENCRYPTED: Final = 2.0
GOAL_SECONDS_TO_JOIN: Final = 5.0
GOAL_AGENT_MB: Final = 90.0
GOAL_OPERATOR_MB: Final = 150.0
WANTED_PACKETS: Final = 10_000
TUNNEL: Final = "mesh"


class Story:
    """One run of the demo, in a lab of its own."""

    def __init__(self, claims: Claims, *, name: str, nodes: int, scratch: Path) -> None:
        self._claims = claims
        self._name = name
        self._count = nodes
        self._scratch = scratch
        self._lab: Lab | None = None

    def tell(self, *, keep: bool = False) -> None:
        """All scenes; whatever happens, what was started is removed afterwards (unless keep).

        Errors: PreflightError before anything is started, other LabErrors, subprocess.SubprocessError, TimeoutError.
        """
        try:
            lab = self._raise_cluster()
            deployment = self._install(lab)
            traffic = self._start_traffic(lab)
            self._in_clear(lab)
            self._encrypt(lab, deployment)
            self._encrypted(lab, deployment, traffic)
            self._join(lab, deployment, traffic)
            self._measure(deployment)
            if not keep:
                self._uninstall(lab, deployment, traffic)
        finally:
            if not keep:
                self._remove()

    def _raise_cluster(self) -> Lab:
        claims = self._claims
        require_machine(self._name, nodes=self._count + 1)
        claims.progress("building what is not in the cache: kernel, Kubernetes, images (12 minutes the first time)")
        archives = [image.build(), image.build_tools()]
        claims.progress(f"starting a control plane and {self._count} nodes, each a Linux kernel of its own")
        self._lab = lab = Lab.up(self._name, nodes=self._count, progress=claims.progress, images=archives)
        claims.show(lab.kubectl("get", "nodes", "-o", "wide").stdout)
        return lab

    def _install(self, lab: Lab) -> Deployment:
        self._claims.progress("helm install hauberk charts/hauberk")
        deployment = Deployment.install(lab)
        self._claims.show(lab.kubectl("-n", "hauberk-system", "get", "pods", "-o", "wide").stdout)
        return deployment

    def _start_traffic(self, lab: Lab) -> Traffic:
        self._claims.progress(
            "starting traffic between pods of every pair: TCP, UDP, ICMP, IPv4 and IPv6, NodePort, host network"
        )
        traffic = Traffic.apply(lab)
        traffic.wait_running()
        traffic.update_targets()
        return traffic

    def _in_clear(self, lab: Lab) -> None:
        claims = self._claims
        claims.progress("what the wire between the nodes shows, with encryption off")
        verdict = self._capture(lab, "before", seconds=5)
        claims.show(verdict.table())
        claims.figures["packets_before"] = verdict.packets
        claims.figures["clear_before"] = _protected_clear(verdict)
        claims.check("before: the sniffer sees pods' packets in clear", _protected_clear(verdict) > 0)

    def _encrypt(self, lab: Lab, deployment: Deployment) -> None:
        claims = self._claims
        example = EXAMPLES / "mesh.yaml"
        claims.progress(f"kubectl apply -f examples/{example.name}")
        claims.show(example.read_text())
        path = self._scratch / "apply.pcap"
        with Capture(netns=lab.netns, interface=lab.bridge, path=path) as capture:
            applied = time.time()
            claims.show(lab.kubectl("apply", "-f", str(example)).stdout)
            deployment.wait_paired(timeout=60)
            time.sleep(3)
        verdict = judge(path, ground(lab), since=applied, dropped=capture.dropped)
        last = max((seen.last for seen in verdict.last_clear.values()), default=applied)
        first = [verdict.esp_pairs[pair].first for pair in permutations(_names(lab), 2) if pair in verdict.esp_pairs]
        pairs = len(_names(lab)) * (len(_names(lab)) - 1)
        claims.figures["pairs"] = pairs
        claims.check(
            "apply: ESP is seen in both directions of every pair", len(first) == pairs, f"{len(first)} of {pairs}"
        )
        seconds = max([last, *first]) - applied
        claims.figures["seconds_to_encrypted"] = round(seconds, 3)
        claims.check(
            f"apply: every pair encrypted within {GOAL_SECONDS_TO_ENCRYPTED:.0f} s",
            seconds <= GOAL_SECONDS_TO_ENCRYPTED,
            f"{seconds:.2f} s (last packet in clear after {last - applied:.2f} s)",
        )

    def _encrypted(self, lab: Lab, deployment: Deployment, traffic: Traffic) -> None:
        claims = self._claims
        claims.progress("what the wire shows now")
        counted = {node: deployment.states(node) for node in _names(lab)}
        verdict = self._capture(lab, "after", seconds=15)
        claims.show(verdict.table())
        esp = verdict.esp
        claims.figures["packets_after"] = verdict.packets
        claims.figures["clear_after"] = _protected_clear(verdict)
        claims.figures["esp_after"] = esp
        claims.check(
            f"after: at least {WANTED_PACKETS} packets were captured, none dropped",
            verdict.packets >= WANTED_PACKETS and verdict.dropped == 0,
            f"{verdict.packets}, {verdict.dropped} dropped",
        )
        claims.check("after: no packet of pods in clear", _protected_clear(verdict) == 0, _protected_clear(verdict))
        claims.check(
            "after: ESP in both directions of every pair",
            all(pair in verdict.esp_pairs for pair in permutations(_names(lab), 2)),
            f"{esp} ESP packets",
        )
        grown = all(
            any(
                now.spi == then.spi and now.bytes > then.bytes
                for now in deployment.states(node)
                for then in counted[node]
            )
            for node in _names(lab)
        )
        claims.check("after: the byte counters of the kernel's SAs grow", grown)
        self._check_answers(traffic, "after")
        self._wait_condition(lab)
        claims.progress("kubectl get ipsectunnels,ipsecnodes")
        claims.show(lab.kubectl("get", "ipsectunnels,ipsecnodes").stdout)

    def _join(self, lab: Lab, deployment: Deployment, traffic: Traffic) -> None:
        claims = self._claims
        claims.progress("a fourth node joins while all this runs" if self._count == 3 else "one more node joins")
        path = self._scratch / "join.pcap"
        with Capture(netns=lab.netns, interface=lab.bridge, path=path) as capture:
            node = lab.add_node()
            claims.progress(f"{node.name} is Ready")
            seconds = deployment.wait_paired(timeout=90)
            claims.figures["seconds_to_join"] = round(seconds, 3)
            traffic.wait_running()
            traffic.update_targets()
            time.sleep(5)
        claims.check(
            f"join: every pair of {node.name} has its SAs within {GOAL_SECONDS_TO_JOIN:.0f} s of Ready",
            seconds <= GOAL_SECONDS_TO_JOIN,
            f"{seconds:.2f} s",
        )
        verdict = judge(path, ground(lab), dropped=capture.dropped)
        claims.show(verdict.table())
        pairs = [pair for pair in permutations(_names(lab), 2) if node.name in pair]
        claims.check(
            f"join: ESP in both directions of every pair of {node.name}",
            all(pair in verdict.esp_pairs for pair in pairs),
        )
        claims.check(
            "join: no packet of pods in clear meanwhile", _protected_clear(verdict) == 0, _protected_clear(verdict)
        )
        self._check_answers(traffic, "join")
        claims.show(lab.kubectl("get", "ipsectunnels,ipsecnodes").stdout)

    def _measure(self, deployment: Deployment) -> None:
        claims = self._claims
        for program, goal in (("agent", GOAL_AGENT_MB), ("operator", GOAL_OPERATOR_MB)):
            resident = deployment.resident_mb(f"hauberk-{program}")
            claims.figures[f"{program}_rss_mb"] = round(resident, 1)
            claims.check(f"the {program} keeps to {goal:.0f} MB", 0 < resident <= goal, f"{resident:.1f} MB resident")

    def _uninstall(self, lab: Lab, deployment: Deployment, traffic: Traffic) -> None:
        claims = self._claims
        claims.progress("helm uninstall")
        traffic.delete()
        deployment.uninstall()
        left = [f"{node}: {line}" for node in _names(lab) for line in deployment.left_in_kernel(node)]
        claims.check("uninstall: no XFRM state or policy is left on any node", not left, len(left))
        claims.figures["left_behind"] = len(left)

    def _remove(self) -> None:
        if self._lab is None:
            return
        self._claims.progress("removing the lab")
        left = self._lab.down()
        self._claims.figures["left_behind"] = self._claims.figures.get("left_behind", 0) + len(left)
        self._claims.check("the lab left nothing behind", not left, ", ".join(left) or "nothing")

    def _capture(self, lab: Lab, name: str, *, seconds: float) -> Verdict:
        path = self._scratch / f"{name}.pcap"
        with Capture(netns=lab.netns, interface=lab.bridge, path=path) as capture:
            time.sleep(seconds)
        return judge(path, ground(lab), dropped=capture.dropped)

    def _check_answers(self, traffic: Traffic, scene: str) -> None:
        unanswered = _eventually(lambda: traffic.silent(), timeout=15)
        self._claims.check(
            f"{scene}: every pair is answered over every path", not unanswered, ", ".join(unanswered[:5])
        )

    def _wait_condition(self, lab: Lab) -> None:
        waited = lab.kubectl("wait", "--for=condition=Ready", f"ipsectunnel/{TUNNEL}", "--timeout=30s", check=False)
        self._claims.check("after: the tunnel's condition Ready is True", waited.returncode == 0, waited.stderr.strip())


def _names(lab: Lab) -> list[str]:
    return [node.name for node in lab.nodes]


def _protected_clear(verdict: Verdict) -> int:
    return verdict.clear.forbidden


def _eventually(ask: Callable[[], list[str]], *, timeout: float) -> list[str]:
    deadline = time.monotonic() + timeout
    while (answer := ask()) and time.monotonic() < deadline:
        time.sleep(1)
    return answer
