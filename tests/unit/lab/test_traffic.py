"""The traffic between pods: its program between two real network namespaces (needs root), and the lab's side of it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab import traffic_pod
from tests.lab.errors import LabError, NotInTime
from tests.lab.traffic import Count, Flow, Pod, Stats, Traffic, manifests, read_stats, ready_pods, targets_of
from tests.lab.traffic_pod import MARKER, SHORTEST, build_message, internet_checksum, is_message, stream_and_sequence

# --- messages ---


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(SHORTEST, 1500))
def test_messages_say_what_they_are(stream: int, sequence: int, size: int) -> None:
    message = build_message(stream, sequence, size)
    assert len(message) == size
    assert message.startswith(MARKER)
    assert is_message(message)
    assert stream_and_sequence(message) == (stream, sequence)


@given(st.integers(0, 255), st.integers(1, 255))
def test_a_damaged_message_is_none(at: int, change: int) -> None:
    message = bytearray(build_message(1, 2, 256))
    message[at] ^= change
    assert not is_message(bytes(message))


@given(st.binary(max_size=100))
def test_other_bytes_are_no_message(data: bytes) -> None:
    assert not is_message(data)


def test_internet_checksum() -> None:
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D  # the example of RFC 1071 section 3
    assert internet_checksum(b"\x12") == internet_checksum(b"\x12\x00")


# --- the program, between two network namespaces ---


@dataclass
class TwoPods:
    """Two pods joined by a link, each with the program running."""

    name: str
    directory: Path

    def tell(self, pod: int, targets: Sequence[tuple[str, str]], **pace: float) -> None:
        """Let a pod send to the other, at (protocol, address)."""
        listed = [
            {"path": "pod-pod", "to": "other", "address": address, "port": 7207, "protocol": protocol}
            for protocol, address in targets
        ]
        new = self.directory / "new.json"
        new.write_text(json.dumps({"interval_seconds": 0.02, "patience_seconds": 0.5, **pace, "targets": listed}))
        new.rename(self.directory / f"targets-{pod}.json")

    def run(self, pod: int, program: str, *argv: str) -> str:
        """Run Python code in a pod's namespace."""
        command = ["ip", "netns", "exec", f"{self.name}-{pod}", sys.executable, "-I", "-c", program, *argv]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout

    def get(self, pod: int, path: str) -> str:
        program = (
            "import http.client, sys\n"
            "c = http.client.HTTPConnection('127.0.0.1', 7280, timeout=5)\n"
            "c.request('GET', sys.argv[1])\n"
            "r = c.getresponse()\n"
            "print(r.status, r.read().decode())\n"
        )
        return self.run(pod, program, path)

    def streams(self, pod: int) -> dict[tuple[str, str], dict[str, Any]]:
        status, body = self.get(pod, "/stats").split(" ", 1)
        assert status == "200"
        return {(s["protocol"], s["address"]): s for s in json.loads(body)["streams"]}

    def wait(
        self, pod: int, holds: Callable[[dict[tuple[str, str], dict[str, Any]]], bool]
    ) -> dict[tuple[str, str], Any]:
        """Ask for the counters until they are as wished, for ten seconds at most."""
        deadline = time.monotonic() + 10
        while not holds(streams := self.streams(pod)):
            assert time.monotonic() < deadline, streams
        return streams

    def link(self, state: str) -> None:
        subprocess.run(["ip", "-n", f"{self.name}-2", "link", "set", "eth0", state], check=True)
        if state == "up":  # IPv6 addresses don't outlive their link
            command = ["ip", "-n", f"{self.name}-2", "addr", "replace", "fd00:244::2/64", "dev", "eth0", "nodad"]
            subprocess.run(command, check=True)


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[TwoPods]:
    assert os.geteuid() == 0, "network namespaces and raw sockets need root"
    name = f"hauberk-traffic-{os.getpid()}"
    processes: list[subprocess.Popen[str]] = []
    try:
        for pod in (1, 2):
            subprocess.run(["ip", "netns", "add", f"{name}-{pod}"], check=True)
            subprocess.run(["ip", "-n", f"{name}-{pod}", "link", "set", "lo", "up"], check=True)
        link = ["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", f"{name}-2"]
        subprocess.run(["ip", "-n", f"{name}-1", *link], check=True)
        for pod in (1, 2):
            for address in (f"10.244.0.{pod}/24", f"fd00:244::{pod}/64"):
                nodad = ["nodad"] if ":" in address else []
                subprocess.run(["ip", "-n", f"{name}-{pod}", "addr", "add", address, "dev", "eth0", *nodad], check=True)
            subprocess.run(["ip", "-n", f"{name}-{pod}", "link", "set", "eth0", "up"], check=True)
            argv = ["ip", "netns", "exec", f"{name}-{pod}", sys.executable, "-I", traffic_pod.__file__]
            argv += ["--node", f"n{pod}", "--targets", str(tmp_path / f"targets-{pod}.json")]
            processes.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield TwoPods(name, tmp_path)
        for process in processes:
            process.terminate()
            assert process.wait(10) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        for pod in (1, 2):
            subprocess.run(["ip", "netns", "del", f"{name}-{pod}"], check=False)


ALL = [(protocol, address) for protocol in ("tcp", "udp", "icmp") for address in ("10.244.0.2", "fd00:244::2")]


def test_everything_is_answered_and_nothing_lost(pods: TwoPods) -> None:
    pods.tell(1, ALL, patience_seconds=5)  # the first packet on a new link may need to be sent again
    streams = pods.wait(1, lambda s: len(s) == len(ALL) and all(c["answered"] > 60 for c in s.values()))
    for counters in streams.values():
        assert (counters["lost"], counters["wrong"], counters["last_error"]) == (0, 0, "")
        assert counters["sent"] - counters["answered"] == counters["waiting"] <= 2
    # TCP and UDP came to the server, and were all well; ICMP was answered by the kernel.
    served = json.loads(pods.get(2, "/stats").split(" ", 1)[1])["served"]
    assert served["answered"] >= sum(c["answered"] for (protocol, _), c in streams.items() if protocol != "icmp")
    assert served["refused"] == 0


def test_a_cut_link_counts_as_loss_and_traffic_comes_back_by_itself(pods: TwoPods) -> None:
    pods.tell(1, ALL)
    pods.wait(1, lambda s: len(s) == len(ALL) and all(c["answered"] for c in s.values()))
    pods.link("down")
    cut = pods.wait(1, lambda s: all(c["lost"] for c in s.values()))
    pods.link("up")
    mended = pods.wait(1, lambda s: all(s[t]["answered"] > cut[t]["answered"] + 5 for t in ALL))
    for counters in mended.values():
        assert counters["sent"] == counters["answered"] + counters["lost"] + counters["waiting"]


def test_a_target_where_nobody_is_loses_everything(pods: TwoPods) -> None:
    pods.tell(1, [(protocol, "10.244.0.77") for protocol in ("tcp", "udp", "icmp")])
    streams = pods.wait(1, lambda s: len(s) == 3 and all(c["lost"] for c in s.values()))
    assert all(counters["answered"] == 0 for counters in streams.values())


def test_targets_come_and_go_while_the_others_go_on(pods: TwoPods) -> None:
    kept, gone, new = ALL[:2], ALL[2:4], ALL[4:]
    pods.tell(1, kept + gone)
    before = pods.wait(1, lambda s: len(s) == 4 and all(c["answered"] > 10 for c in s.values()))
    pods.tell(1, kept + new)
    after = pods.wait(1, lambda s: all(target in s and s[target]["answered"] for target in new))
    assert set(after) == {*kept, *new}
    for target in kept:
        assert after[target]["answered"] >= before[target]["answered"]


def test_a_bad_file_changes_nothing(pods: TwoPods) -> None:
    pods.tell(1, ALL[:1])
    pods.wait(1, lambda s: len(s) == 1)
    for bad in ("{", "[]", '{"targets": [{"nonsense": 1}]}', '{"targets": [], "colour": "red"}'):
        (pods.directory / "targets-1.json").write_text(bad)
        answered = pods.streams(1)[ALL[0]]["answered"]
        pods.wait(1, lambda s, answered=answered: s[ALL[0]]["answered"] > answered + 40)


def test_the_server_answers_messages_only(pods: TwoPods) -> None:
    program = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.settimeout(5)\n"
        "s.connect(('10.244.0.2', 7207))\n"
        "s.send(b'not a message')\n"
        "s.send(bytes.fromhex(sys.argv[1]))\n"
        "print(s.recv(2000).hex())\n"
    )
    message = build_message(1, 2, 100).hex()
    assert pods.run(1, program, message).strip() == message
    served = json.loads(pods.get(2, "/stats").split(" ", 1)[1])["served"]
    assert served == {"answered": 1, "refused": 1}


def test_readiness_and_unknown_paths(pods: TwoPods) -> None:
    assert pods.get(1, "/readyz").startswith("200 ok")
    assert pods.get(1, "/else").startswith("404")


# --- the lab's side ---

NODES = {"n1": ("10.250.0.11", "fd00:250::11"), "n2": ("10.250.0.12", "fd00:250::12")}
POD1 = Pod(name="pod-a", node="n1", network="pod", addresses=("10.244.11.2", "fd00:244:11::2"))
POD2 = Pod(name="pod-b", node="n2", network="pod", addresses=("10.244.12.2", "fd00:244:12::2"))
HOST1 = Pod(name="host-a", node="n1", network="host", addresses=("10.250.0.11",))
HOST2 = Pod(name="host-b", node="n2", network="host", addresses=("10.250.0.12",))
PODS = (POD1, POD2, HOST1, HOST2)


def test_a_pod_sends_by_every_path_in_both_families() -> None:
    targets = targets_of(POD1, PODS, NODES, {4, 6})
    assert {t.to for t in targets} == {"n2"}
    told = {(t.path, t.protocol, t.address) for t in targets}
    assert told == {
        *(("pod-pod", p, a) for p in ("tcp", "udp", "icmp") for a in POD2.addresses),
        *(("pod-host", p, a) for p in ("tcp", "udp", "icmp") for a in NODES["n2"]),
        *(("pod-nodeport", p, a) for p in ("tcp", "udp") for a in NODES["n2"]),
    }
    assert len(told) == len(targets) == 16


def test_a_host_network_pod_sends_to_pods_only() -> None:
    targets = targets_of(HOST1, PODS, NODES, {4, 6})
    assert {(t.path, t.to, t.address) for t in targets} == {("host-pod", "n2", a) for a in POD2.addresses}


def test_a_node_port_is_used_in_the_families_of_its_service() -> None:
    ports = [t.address for t in targets_of(POD1, PODS, NODES, {4}) if t.path == "pod-nodeport"]
    assert set(ports) == {"10.250.0.12"}


def listed(*pods: Pod, ready: bool = True, deleted: bool = False) -> dict[str, Any]:
    """As `kubectl get pods -o json` prints them."""
    return {
        "items": [
            {
                "metadata": {"name": pod.name, "labels": {"app": "traffic", "network": pod.network}}
                | ({"deletionTimestamp": "2030-01-01T00:00:00Z"} if deleted else {}),
                "spec": {"nodeName": pod.node},
                "status": {
                    "podIPs": [{"ip": address} for address in pod.addresses],
                    "conditions": [{"type": "Ready", "status": str(ready)}],
                },
            }
            for pod in pods
        ]
    }


def test_only_ready_pods_that_stay_count() -> None:
    assert ready_pods(listed(*PODS)) == list(PODS)
    assert ready_pods(listed(*PODS, ready=False)) == []
    assert ready_pods(listed(*PODS, deleted=True)) == []
    assert ready_pods({"items": [{"metadata": {"name": "new"}, "spec": {}, "status": {"phase": "Pending"}}]}) == []


@dataclass
class FakeNode:
    name: str
    addresses: tuple[str, ...]


@dataclass
class FakeLab:
    """Answers kubectl's questions, and remembers what was written into pods."""

    pods: tuple[Pod, ...] = PODS
    nodes: list[FakeNode] = field(default_factory=lambda: [FakeNode(*node) for node in NODES.items()])
    written: dict[str, Any] = field(default_factory=dict[str, Any])
    dead_path: str = ""  # a path of which nothing is answered
    crashed: str = ""  # a node whose pods can't be reached
    booting: int = 0  # so many listings more will show pod-b as it was before its node booted
    before: Pod = field(default_factory=lambda: replace(POD2, addresses=("10.244.2.9", "fd00:244:2::9")))
    answered: int = 0

    def kubectl(
        self, *args: str, stdin: str | None = None, check: bool = True, timeout: float = 60
    ) -> CompletedProcess[str]:
        output = ""
        if "exec" in args and any(pod.name in args for pod in self.pods if pod.node == self.crashed):
            assert not check
            return CompletedProcess(args, 1, "", "error dialing backend")
        match args[2:]:
            case ("get", "pods", *_):
                stale, self.booting = self.booting > 0, max(0, self.booting - 1)
                output = json.dumps(listed(*(self.before if stale and pod == POD2 else pod for pod in self.pods)))
            case ("get", "service", *_):
                output = json.dumps({"spec": {"ipFamilies": ["IPv4", "IPv6"]}})
            case ("exec", "-i", pod, *_):
                assert stdin is not None
                self.written[pod] = json.loads(stdin)
                addresses = next(p.addresses for p in self.pods if p.name == pod)
                output = "1: lo: <LOOPBACK,UP>\n    inet 127.0.0.1/8 scope host lo\n" + "".join(
                    f"    inet{'6' if ':' in address else ''} {address}/64 scope global eth0\n" for address in addresses
                )
            case ("exec", pod, *_):
                node = next(p.node for p in self.pods if p.name == pod)
                self.answered += 1
                streams = [
                    target
                    | {"sent": self.answered, "lost": 0, "wrong": 0}
                    | {"answered": 0 if target["path"] == self.dead_path else self.answered}
                    for target in self.written[pod]["targets"]
                ]
                output = json.dumps({"node": node, "streams": streams})
            case _:
                raise AssertionError(args)
        return CompletedProcess(args, 0, output, "")


def test_every_pod_is_told_and_asked() -> None:
    lab = FakeLab()
    traffic = Traffic(lab)
    traffic.wait_running()
    traffic.update_targets()
    assert {pod: len(told["targets"]) for pod, told in lab.written.items()} == {
        "pod-a": 16,
        "pod-b": 16,
        "host-a": 6,
        "host-b": 6,
    }
    assert lab.written["pod-a"]["interval_seconds"] == 0.3
    flows = traffic.stats().flows
    assert len(flows) == 44
    assert set(flows) == traffic.flows()
    assert flows[Flow(source="n1", destination="n2", path="pod-nodeport", family=6, protocol="udp")].answered
    assert traffic.pairs() == [("n1", "n2"), ("n2", "n1")]


def test_flows_without_answers_are_silent() -> None:
    lab = FakeLab()
    traffic = Traffic(lab)
    traffic.update_targets()
    assert traffic.silent(seconds=0) == []
    lab.dead_path = "host-pod"
    silent = traffic.silent(seconds=0)
    assert len(silent) == 12
    assert silent[0] == "n1 > n2 host-pod IPv4 icmp"


def test_flows_of_a_node_without_pods_are_silent() -> None:
    lab = FakeLab()
    traffic = Traffic(lab)
    traffic.update_targets()
    lab.nodes.append(FakeNode("n3", ("10.250.0.13", "fd00:250::13")))
    # Four more directed pairs of nodes, 22 flows each.
    assert len(traffic.silent(seconds=0)) == 4 * 22


def test_a_crashed_nodes_flows_are_silent_and_the_others_are_told() -> None:
    lab = FakeLab()
    traffic = Traffic(lab)
    traffic.update_targets()
    lab.crashed = "n2"
    stats = traffic.stats()
    assert set(stats.unreachable) == {"pod-b", "host-b"}
    assert {flow.source for flow in stats.flows} == {"n1"}
    assert all(name.startswith("n2 > n1") for name in traffic.silent(seconds=0))
    assert len(traffic.silent(seconds=0)) == 22
    lab.written.clear()
    with pytest.raises(LabError, match="pod-b, host-b"):
        traffic.update_targets(timeout_seconds=0)
    assert set(lab.written) == {"pod-a", "host-a"}


def test_a_booting_nodes_pods_are_told_until_they_are_as_listed() -> None:
    lab = FakeLab(booting=1)
    traffic = Traffic(lab)
    traffic.update_targets()
    # At the end nobody sends to the addresses of before the boot.
    assert {target["address"] for target in lab.written["pod-a"]["targets"] if target["path"] == "pod-pod"} == {
        *POD2.addresses
    }


def test_a_pod_that_stays_another_than_listed_is_named() -> None:
    with pytest.raises(LabError, match="pod-b"):
        Traffic(FakeLab(booting=1_000)).update_targets(timeout_seconds=0)


def test_a_long_table_is_cut() -> None:
    flows = {
        Flow(source="n1", destination=f"n{n}", path="pod-pod", family=4, protocol="tcp"): Count(sent=1, lost=1)
        for n in range(2, 52)
    }
    table = Stats(flows, ("pod-x",)).table()
    assert table.endswith("and 31 more")


def test_pods_that_do_not_come_are_named() -> None:
    with pytest.raises(NotInTime, match="host network on n2"):
        Traffic(FakeLab(pods=(POD1, POD2, HOST1))).wait_running(timeout_seconds=0)


def test_counters_that_make_no_sense_are_an_error() -> None:
    for answer in ("", "[]", "{}", '{"node": "n1", "streams": [{"to": "n2"}]}'):
        with pytest.raises(LabError, match="can't be read"):
            read_stats(answer)


FLOW = Flow(source="n1", destination="n2", path="pod-pod", family=4, protocol="tcp")
OTHER = Flow(source="n2", destination="n1", path="pod-pod", family=4, protocol="tcp")


def test_what_came_since() -> None:
    earlier = Stats({FLOW: Count(sent=10, answered=8, lost=1)})
    later = Stats({FLOW: Count(sent=15, answered=12, lost=2), OTHER: Count(sent=1)})
    since = later.since(earlier)
    assert since.flows[FLOW] == Count(sent=5, answered=4, lost=1)
    assert since.total == Count(sent=6, answered=4, lost=1)
    assert since.quiet() == [OTHER]
    assert "n2 > n1 pod-pod IPv4 tcp: 1 sent, 0 answered" in since.table()
    # A pod that was started again counts from zero.
    assert Stats({FLOW: Count(sent=3, answered=3)}).since(earlier).flows[FLOW] == Count(sent=3, answered=3)


def test_the_manifests_hold_the_program_and_their_promises() -> None:
    made = {(m["kind"], m["metadata"]["name"]): m for m in manifests("some/image:tag")}
    program = made["ConfigMap", "program"]["data"]["traffic_pod.py"]
    compile(program, "traffic_pod.py", "exec")
    for network in ("pod", "host"):
        spec = made["DaemonSet", f"traffic-{network}"]["spec"]["template"]["spec"]
        assert spec["hostNetwork"] is (network == "host")
        assert "tolerations" not in spec  # as applications: they start where a node is Ready
        assert spec["containers"][0]["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert made["Service", "traffic"]["spec"]["externalTrafficPolicy"] == "Cluster"
