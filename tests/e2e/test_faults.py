"""What goes wrong on real nodes: killed agents, an API server away, a kernel without ESP, nodes that leave."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.deployment import EXAMPLES, Deployment
from tests.e2e.wire import eventually, names, silent_paths, watching
from tests.lab.traffic import Traffic

pytestmark = pytest.mark.lab

KILL_AGENT = (
    "for p in /proc/[0-9]*; do "
    "if tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q '^[^ ]*python[^ ]* .*hauberk-agent run'; "
    "then kill -9 ${p#/proc/}; echo ${p#/proc/}; fi; done; true"
)


def kill_agent(deployment: Deployment, node: str) -> None:
    """SIGKILL to the agent's process in a node; kubelet starts it again."""
    killed = deployment.lab.node_run(node, ["sh", "-c", KILL_AGENT]).stdout.split()
    assert len(killed) == 1, f"expected one agent process on {node}, killed {killed}"


def spis(deployment: Deployment, node: str) -> set[int]:
    return {state.spi for state in deployment.states(node)}


@pytest.mark.long  # the next test kills one too, and those of tests/kernel many
def test_a_killed_agent_takes_nothing_down(deployment: Deployment, traffic: Traffic, mesh: str, pcap: Path) -> None:
    lab = deployment.lab
    victim = lab.nodes[1].name
    assert silent_paths(traffic) == []
    # Until SAs that others have replaced are gone: they go by themselves, agent or no agent.
    wanted = 2 * (len(lab.nodes) - 1)
    before = eventually(lambda: spis(deployment, victim), until=lambda now: len(now) == wanted, timeout=90)
    with watching(lab, pcap) as seen:
        kill_agent(deployment, victim)
        assert before <= spis(deployment, victim), "the kernel's SAs outlive the agent"
        # Fresh IKE SAs are set up underneath, and the old SAs end when their replacements are up.
        after = eventually(lambda: spis(deployment, victim), until=lambda now: not now & before, timeout=90)
        assert not after & before
        assert deployment.unpaired() == []
    seen.get().require(packets=1_000, esp_between=names(lab))
    assert silent_paths(traffic) == []


def test_an_agent_starts_without_the_api_server_and_keeps_what_runs(
    deployment: Deployment, traffic: Traffic, mesh: str, pcap: Path
) -> None:
    lab = deployment.lab
    victim = lab.nodes[0].name
    pod = deployment.agent_pod(victim)
    with watching(lab, pcap) as seen:
        lab.stop_control_plane()
        try:
            kill_agent(deployment, victim)
            time.sleep(10)
            assert spis(deployment, victim), "what runs is kept"
        finally:
            lab.start_control_plane()
        deployment.wait_running(timeout=90)
    seen.get().require(packets=1_000, esp_between=names(lab))
    assert deployment.unpaired() == []
    assert silent_paths(traffic) == []
    log = lab.kubectl("-n", "hauberk-system", "logs", pod).stdout
    assert "API server" in log, "the agent says what it is waiting for"


def test_a_kernel_without_esp_is_named_and_the_agent_stays_up(deployment: Deployment, traffic: Traffic) -> None:
    lab = deployment.lab
    node = lab.nodes[-1].name
    lab.reboot(node, append="initcall_blacklist=esp4_init,esp6_init")
    try:
        lab.wait_ready([node], timeout=90)
        deployment.wait_running(timeout=90)
        lab.kubectl("apply", "-f", str(EXAMPLES / "mesh.yaml"))

        def degraded() -> dict[str, str]:
            return deployment.tunnel_conditions("mesh").get("Degraded", {})

        condition = eventually(degraded, until=lambda c: c.get("reason") == "UnsupportedKernel", timeout=60)
        assert condition.get("status") == "True"
        assert condition.get("reason") == "UnsupportedKernel"
        assert node in condition["message"]
        report = json.loads(lab.kubectl("get", "ipsecreport", node, "-o", "json").stdout)["status"]
        assert report["kernel"]["esp"] is False
        assert report["ready"] is False
        assert any("ESP" in sentence for sentence in report["kernel"]["problems"])
        pod = json.loads(
            lab.kubectl("-n", "hauberk-system", "get", "pod", deployment.agent_pod(node), "-o", "json").stdout
        )
        assert pod["status"]["phase"] == "Running"
    finally:
        lab.kubectl("delete", "ipsectunnel", "mesh", "--ignore-not-found", "--timeout=60s", timeout=70)
        lab.reboot(node)
        lab.wait_ready([node], timeout=90)
        deployment.wait_running(timeout=90)
        traffic.wait_running()
        traffic.update_targets()


def test_a_rebooted_node_is_back_and_encrypted(deployment: Deployment, traffic: Traffic, mesh: str, pcap: Path) -> None:
    # What its pods send between the kernel's boot and the agent's start is the boot guard's, which is not there yet.
    lab = deployment.lab
    node = lab.nodes[2].name
    lab.reboot(node)
    lab.wait_ready([node], timeout=90)
    deployment.wait_running(timeout=90)
    deployment.wait_paired(timeout=60)
    traffic.wait_running()
    traffic.update_targets()
    with watching(lab, pcap) as seen:
        assert silent_paths(traffic, timeout=60) == []
    seen.get().require(packets=1_000, esp_between=names(lab))


def test_a_joining_node_pairs_by_itself_and_a_deleted_one_leaves_nothing(
    deployment: Deployment, traffic: Traffic, mesh: str
) -> None:
    lab = deployment.lab
    node = lab.add_node()
    try:
        deployment.wait_paired(timeout=60)
    finally:
        lab.remove_node(node.name)

    def mentions() -> list[str]:
        return [
            line
            for line in deployment.all_left()
            if any(address in line for address in (*node.addresses, *node.pod_cidrs))
        ]

    assert eventually(mentions, until=lambda found: not found, timeout=30) == []
    assert deployment.unpaired() == []

    def objects() -> list[str]:
        listed = lab.kubectl("get", "ipsecnodes,ipsecreports", "-o", "name").stdout.split()
        return [name for name in listed if name.endswith(f"/{node.name}")]

    assert eventually(objects, until=lambda found: not found, timeout=30) == []
    traffic.update_targets()
    assert silent_paths(traffic) == []
