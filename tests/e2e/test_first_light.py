"""`kubectl apply` encrypts: from the API server's admission to what a sniffer between the nodes sees."""

from __future__ import annotations

import json
import time
from itertools import permutations
from pathlib import Path

import pytest

from tests.deployment import EXAMPLES, NAMESPACE, Deployment
from tests.e2e.wire import eventually, in_crowds, names, silent_paths, watching
from tests.lab.traffic import Traffic

pytestmark = pytest.mark.lab


def test_without_a_tunnel_the_judge_finds_plaintext(deployment: Deployment, traffic: Traffic, pcap: Path) -> None:
    assert silent_paths(traffic) == []
    with watching(deployment.lab, pcap) as seen:
        time.sleep(4)
    verdict = seen.get()
    assert verdict.clear.pod_to_pod > 0
    assert verdict.clear.node_pod > 0
    assert verdict.clear.marker > 0
    assert verdict.esp == 0
    assert not verdict.ok


def test_with_the_tunnel_nothing_of_pods_is_in_clear(
    deployment: Deployment, traffic: Traffic, mesh: str, pcap: Path
) -> None:
    lab = deployment.lab
    assert silent_paths(traffic) == []
    before = {node: {s.spi: s.bytes for s in deployment.states(node)} for node in names(lab)}
    with in_crowds(traffic), watching(lab, pcap) as seen:
        time.sleep(15)
    seen.get().require(packets=10_000, esp_between=names(lab))
    for node in names(lab):
        after = {s.spi: s.bytes for s in deployment.states(node)}
        grown = [spi for spi, octets in after.items() if octets > before[node].get(spi, octets)]
        assert len(grown) >= 2 * (len(lab.nodes) - 1), f"{node}: one SA in and one out for each peer must grow"
    # Every path is still answered: the packets were encrypted and not merely dropped.
    assert silent_paths(traffic) == []


def test_the_tunnel_says_that_it_is_ready_with_its_counts(deployment: Deployment, mesh: str) -> None:
    lab = deployment.lab
    tunnel = json.loads(lab.kubectl("get", "ipsectunnel", mesh, "-o", "json").stdout)
    status = tunnel["status"]
    conditions = {c["type"]: c for c in status["conditions"]}
    count = len(lab.nodes)
    assert conditions["Accepted"]["status"] == "True"
    assert conditions["Ready"]["status"] == "True"
    assert conditions["Degraded"]["status"] == "False"
    assert conditions["Ready"]["observedGeneration"] == tunnel["metadata"]["generation"]
    assert status["nodes"] == {"wanted": count, "ready": count}
    assert status["pairs"] == {"wanted": count * (count - 1) // 2, "established": count * (count - 1) // 2}


def test_a_settled_mesh_is_not_written_to(deployment: Deployment, mesh: str) -> None:
    def versions() -> dict[str, str]:
        listed = json.loads(deployment.lab.kubectl("get", "ipsectunnels,ipsecmeshes,ipsecnodes", "-o", "json").stdout)
        return {f"{o['kind']}/{o['metadata']['name']}": o["metadata"]["resourceVersion"] for o in listed["items"]}

    before = versions()
    time.sleep(10)
    assert versions() == before


def test_kubelet_and_api_server_stay_reachable(deployment: Deployment, traffic: Traffic, mesh: str) -> None:
    lab = deployment.lab
    for node in names(lab):
        said = lab.kubectl("-n", NAMESPACE, "exec", deployment.agent_pod(node), "--", "hauberk-agent", "status")
        assert said.stdout
    assert lab.kubectl("get", "--raw", "/readyz").stdout == "ok"
    pods = json.loads(lab.kubectl("get", "pods", "--all-namespaces", "-o", "json").stdout)["items"]
    unready = [
        pod["metadata"]["name"]
        for pod in pods
        if pod["status"]["phase"] == "Running"
        and not all(c["ready"] for c in pod["status"].get("containerStatuses", []))
    ]
    assert unready == [], "kubelet's probes must pass through"


def test_deleting_the_tunnel_leaves_nothing_in_any_kernel(deployment: Deployment, traffic: Traffic, mesh: str) -> None:
    lab = deployment.lab
    lab.kubectl("delete", "ipsectunnel", mesh, "--timeout=60s", timeout=70)
    left = eventually(deployment.all_left, until=lambda left: not left, timeout=20)
    assert left == []
    assert silent_paths(traffic) == []


def test_hub_and_spoke_pairs_only_with_the_hub(deployment: Deployment, traffic: Traffic) -> None:
    lab = deployment.lab
    hub, *spokes = lab.nodes
    lab.kubectl("label", "node", hub.name, "node-restriction.kubernetes.io/hauberk-hub=true", "--overwrite")
    lab.kubectl("apply", "-f", str(EXAMPLES / "hub-and-spoke.yaml"))
    try:
        lab.kubectl("wait", "--for=condition=Ready", "ipsectunnel/hubs", "--timeout=60s", timeout=70)
        missing = set(deployment.unpaired())
        assert missing == {f"{a.name}->{b.name}" for a, b in permutations(spokes, 2)}
    finally:
        lab.kubectl("delete", "ipsectunnel", "hubs", "--timeout=60s", timeout=70)
        lab.kubectl("label", "node", hub.name, "node-restriction.kubernetes.io/hauberk-hub-")
