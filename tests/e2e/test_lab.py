"""The lab itself: nodes are kernels of their own, and nothing of a lab stays behind."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.wire import eventually
from tests.lab import image, network, oci, pods, state
from tests.lab.addresses import Family
from tests.lab.api import ApiRefused
from tests.lab.capture import Capture
from tests.lab.cluster import Lab, take_down
from tests.lab.errors import CommandFailed, LabError, Unreachable
from tests.lab.kernel_process import REPOSITORY

pytestmark = pytest.mark.lab

WITHOUT_ESP = "initcall_blacklist=esp4_init,esp6_init"
ESP_STATE = shlex.split(
    "ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1000 mode tunnel "
    "aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128"
)
ESP_STATE_DELETED = shlex.split("ip xfrm state delete src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1000")


def _left_of(name: str) -> list[str]:
    """Processes, namespace and files of a lab of that name."""
    run_directory = state.run_directory(name)
    left = [str(path) for path in (run_directory, network.namespace_path(f"hauberk-{name}")) if path.exists()]
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"{run_directory}/".encode() in words:
                left.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return left


# -- what a node is ----------------------------------------------------------------------------------------------------


def test_every_node_is_ready_with_addresses_and_pod_networks_of_both_families(lab: Lab) -> None:
    items = json.loads(lab.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    listed = {item["metadata"]["name"]: item for item in items}
    assert len(listed) == len(lab.nodes) == 3
    for node in lab.nodes:
        item = listed[node.name]
        assert item["spec"]["podCIDRs"] == list(node.pod_cidrs)
        internal = [one["address"] for one in item["status"]["addresses"] if one["type"] == "InternalIP"]
        assert internal == list(node.addresses), "and nothing of the management network"
        assert {one["type"]: one["status"] for one in item["status"]["conditions"]}["Ready"] == "True"


def test_every_node_is_a_kernel_of_its_own(lab: Lab) -> None:
    boot_ids = {lab.node_run(node.name, ["cat", "/proc/sys/kernel/random/boot_id"]).stdout for node in lab.nodes}
    boot_ids.add(Path("/proc/sys/kernel/random/boot_id").read_text())
    assert len(boot_ids) == 4
    assert {lab.node_run(node.name, ["hostname"]).stdout.strip() for node in lab.nodes} == {"n1", "n2", "n3"}


def test_what_the_control_plane_sends_a_node_arrives_at_once(lab: Lab) -> None:
    """Packets longer than the MTU never arrive, so that most segments had to be sent again, each after its timeout.

    Some are all the same: a node that is busy drops what its socket can't hold.
    """
    kubectl = next(word for word in lab.kubectl_command() if word.endswith("/kubectl"))
    sent, again = _segments(lab)
    got = lab.node_run("n1", [kubectl, f"--kubeconfig={lab.kubeconfig}", "get", "--raw", "/openapi/v2"])
    assert len(got.stdout) > 500_000
    for _ in range(20):
        lab.node_run("n1", ["sh", "-c", "cat >/dev/null"], stdin=bytes(30_000))
    sent, again = (now - then for now, then in zip(_segments(lab), (sent, again), strict=True))
    assert sent > 500
    assert again < sent / 3


def _segments(lab: Lab) -> tuple[int, int]:
    """TCP segments that the control plane's side has sent, and those of them that it had to send again."""
    names, values = (
        line.split()
        for line in subprocess.run(
            network.command_inside(lab.netns, ["cat", "/proc/net/snmp"]), check=True, capture_output=True, text=True
        ).stdout.splitlines()
        if line.startswith("Tcp:")
    )
    found = dict(zip(names, values, strict=True))
    return int(found["OutSegs"]), int(found["RetransSegs"])


def test_a_node_cannot_change_the_host(lab: Lab) -> None:
    path = Path("/etc/hauberk-lab-was-here")
    refused = lab.node_run("n1", ["touch", str(path)], check=False)
    assert refused.returncode != 0
    assert "Read-only" in refused.stderr
    assert not path.exists()
    lab.node_run("n1", ["touch", "/tmp/hauberk-lab-was-here"])  # noqa: S108 (the node's own)
    assert not Path("/tmp/hauberk-lab-was-here").exists()  # noqa: S108


# -- commands in nodes -------------------------------------------------------------------------------------------------


def test_a_command_in_a_node_has_its_streams_and_its_exit_code(lab: Lab) -> None:
    done = lab.node_run("n1", ["sh", "-c", "cat; echo err >&2; exit 7"], stdin=b"in", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("in", "err\n", 7)
    with pytest.raises(CommandFailed, match="exit code 7: err"):
        lab.node_run("n1", ["sh", "-c", "echo err >&2; exit 7"])


def test_a_command_that_takes_too_long_is_killed_in_the_node(lab: Lab) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        lab.node_run("n1", ["sleep", "4242"], timeout=1)
    deadline = time.monotonic() + 10
    while "sleep\n4242" in lab.node_run("n1", ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'"]).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_commands_in_nodes_never_cross_the_observed_bridge(lab: Lab, tmp_path: Path) -> None:
    with Capture(netns=lab.netns, interface=lab.bridge, path=tmp_path / "wire.pcap") as capture:
        assert len(lab.node_run("n1", ["head", "-c", "1000000", "/dev/zero"]).stdout) == 1_000_000
        lab.kubectl("get", "nodes")
        lab.node_run("n1", ["busybox", "ping", "-c1", "-W5", "10.250.0.12"])
    assert capture.packets > 0, "a capture that sees nothing proves nothing"
    read = ["tcpdump", "-n", "-r", str(capture.path)]
    assert "ICMP echo request" in subprocess.run([*read, "icmp"], capture_output=True, text=True, check=True).stdout
    assert subprocess.run([*read, "net", "10.251.0.0/24"], capture_output=True, text=True, check=True).stdout == ""


@pytest.mark.parametrize(
    ("script", "code", "out", "err"),
    [
        ("echo out; echo err >&2; exit 7", 7, "out\n", "err\n"),
        ("cat", 0, "in", ""),
        ("kill -9 $$", 137, "", ""),
    ],
)
def test_the_command_line_hands_streams_and_exit_code_through(
    lab: Lab, script: str, code: int, out: str, err: str
) -> None:
    argv = [sys.executable, "-m", "tests.lab", "--name", lab.name, "node", "n2", "--", "sh", "-c", script]
    done = subprocess.run(argv, cwd=REPOSITORY, input="in", capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)


# -- Kubernetes --------------------------------------------------------------------------------------------------------


def test_a_node_may_change_its_own_object_only_and_nobody_is_anonymous(lab: Lab) -> None:
    kubeconfig = str(lab.run_directory / "nodes" / "n1" / "kubeconfig")
    as_n1 = ("--kubeconfig", kubeconfig, "label", "node")
    lab.kubectl(*as_n1, "n1", "example.com/mine=yes")
    with pytest.raises(CommandFailed, match="orbidden"):
        lab.kubectl(*as_n1, "n2", "example.com/mine=yes")
    lab.kubectl("label", "node", "n1", "example.com/mine-")
    asked = [json.loads(line) for line in lab.audit_log().read_text().splitlines()]
    refused = [event for event in asked if event["responseStatus"].get("code") == 403]
    assert any(event["user"]["username"] == "system:node:n1" for event in refused)


def test_pods_on_different_nodes_reach_each_other_in_both_families(lab: Lab) -> None:
    one, other = pods.ensure(lab, "n1"), pods.ensure(lab, "n2")

    def addresses_of(pod: str) -> list[str]:
        found = json.loads(lab.kubectl("get", "pod", pod, "-n", pods.NAMESPACE, "-o", "json").stdout)
        return [entry["ip"] for entry in found["status"].get("podIPs", [])]

    # A pod runs some moments before its Node's kubelet has said where.
    addresses = eventually(lambda: addresses_of(other), until=lambda found: len(found) == 2, timeout=30)
    assert len(addresses) == 2
    for address in addresses:
        lab.kubectl("exec", one, "-n", pods.NAMESPACE, "--", "ping", "-c1", "-W5", address)


def test_an_outage_of_the_api_server_ends_as_it_began(lab: Lab) -> None:
    lab.stop_control_plane()
    try:
        assert not lab.api.is_ready()
        assert lab.node_run("n1", ["true"]).returncode == 0
    finally:
        lab.start_control_plane()
    assert lab.api.is_ready()
    lab.wait_ready()


# -- nodes come, go and crash ------------------------------------------------------------------------------------------


def test_a_crashed_node_starts_again_with_its_disk_and_its_images(lab: Lab) -> None:
    pods.ensure(lab, "n3")
    lab.node_run("n3", ["sh", "-c", "echo kept >/var/lib/kept; sync; echo lost >/run/lost"])
    before = lab.node_run("n3", ["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    lab.crash("n3")
    with pytest.raises(Unreachable):
        lab.node_run("n3", ["true"])
    assert lab.not_ready(["n3"]) == ["n3"], "whatever its Node object still says"
    lab.start("n3")
    lab.wait_ready(["n3"], timeout=180)
    assert lab.node_run("n3", ["cat", "/proc/sys/kernel/random/boot_id"]).stdout != before
    assert lab.node_run("n3", ["cat", "/var/lib/kept"]).stdout == "kept\n"
    assert lab.node_run("n3", ["test", "-e", "/run/lost"], check=False).returncode == 1
    assert pods.IMAGE in _images(lab, "n3")
    lab.kubectl("exec", pods.ensure(lab, "n3"), "-n", pods.NAMESPACE, "--", "true")
    with pytest.raises(LabError, match="is running"):
        lab.start("n3")


@pytest.mark.long  # test_faults boots such a kernel in every run
def test_a_node_without_esp_refuses_esp_and_has_it_again_after_the_next_reboot(lab: Lab) -> None:
    lab.reboot("n3", append=WITHOUT_ESP)
    try:
        lab.wait_ready(["n3"], timeout=180)
        refused = lab.node_run("n3", ESP_STATE, check=False)
        assert refused.returncode != 0
        assert "Requested type not found" in refused.stderr or "not supported" in refused.stderr
        assert lab.node_run("n3", ["ip", "xfrm", "state"]).stdout == ""
        assert lab.node_run("n2", ESP_STATE).returncode == 0, "other nodes have it"
        lab.node_run("n2", ESP_STATE_DELETED)
    finally:
        lab.reboot("n3")
    lab.wait_ready(["n3"], timeout=180)
    lab.node_run("n3", ESP_STATE)
    lab.node_run("n3", ESP_STATE_DELETED)


@pytest.mark.long  # a node that joins with its images is in every run
def test_an_image_comes_to_nodes_that_run_that_are_off_and_that_join(lab: Lab, tmp_path: Path) -> None:
    archive, name = tmp_path / "later.tar", "localhost/later:test"
    oci.write_sleeper(Path("/bin/busybox"), archive, name)
    assert name not in _images(lab, "n1")
    lab.crash("n3")
    lab.load_image(archive)
    assert name in _images(lab, "n1")
    lab.start("n3")
    lab.wait_ready(["n3"], timeout=180)
    assert name in _images(lab, "n3")
    node = lab.add_node()
    try:
        assert name in _images(lab, node.name)
    finally:
        lab.remove_node(node.name)


def _images(lab: Lab, node: str) -> list[str]:
    return lab.node_run(node, ["ctr", "-n", "k8s.io", "images", "ls", "-q"]).stdout.split()


def test_a_node_that_joins_has_the_images_and_leaves_without_a_trace(lab: Lab) -> None:
    node = lab.add_node()
    try:
        assert node.name == "n4"
        assert {image.IMAGE, pods.IMAGE} <= set(_images(lab, node.name))
    finally:
        lab.remove_node(node.name)
    assert [left.name for left in lab.nodes] == ["n1", "n2", "n3"]
    with pytest.raises(ApiRefused) as refused:
        lab.api.get(f"/api/v1/nodes/{node.name}")
    assert refused.value.status == 404
    assert not [what for what in _left_of(lab.name) if "nodes/n4" in what]
    links = subprocess.run(["ip", "-n", lab.netns, "-br", "link"], capture_output=True, text=True, check=True).stdout
    assert "n3" in links
    assert "n4" not in links


# -- labs come and go --------------------------------------------------------------------------------------------------


@pytest.fixture
def beside() -> Iterator[str]:
    """The name of a lab beside the shared one; taken down in the end, should the test not have done it."""
    name = "test-beside"
    assert take_down(name) == []
    yield name
    assert take_down(name) == []


@pytest.mark.long  # the interrupted ones leave nothing either, beside the shared one
def test_labs_stand_side_by_side_and_one_goes_without_a_trace(lab: Lab, beside: str) -> None:
    other = Lab.up(beside, nodes=1, family=Family.IPV6)
    assert other.nodes[0].addresses == ("fd00:250::11",)
    assert (
        other.kubectl("get", "nodes", "-o", "jsonpath={.items[*].status.addresses[0].address}").stdout == "fd00:250::11"
    )
    other.kubectl("create", "namespace", "only-here")
    assert lab.kubectl("get", "namespace", "only-here", check=False).returncode != 0
    assert Lab.attach(beside).nodes == other.nodes
    with pytest.raises(LabError, match="is up already"):
        Lab.up(beside, nodes=1)
    assert other.down() == []
    assert _left_of(beside) == []
    assert lab.not_ready([node.name for node in lab.nodes]) == []


def test_a_lab_that_fails_to_come_up_says_which_part_with_its_log_and_leaves_nothing(beside: str) -> None:
    with pytest.raises(LabError, match="kernel of node n1 ended") as failed:
        Lab.up(beside, nodes=1, append="init=/bin/false")
    assert "Attempted to kill init" in str(failed.value), "the end of the kernel's log"
    assert _left_of(beside) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_a_lab_interrupted_while_it_comes_up_leaves_nothing(beside: str, number: signal.Signals, code: int) -> None:
    argv = [sys.executable, "-m", "tests.lab", "--name", beside, "up", "--nodes", "1"]
    with subprocess.Popen(argv, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as coming:
        assert coming.stderr is not None
        for line in coming.stderr:
            if "nodes: n1" in line:
                break
        assert _left_of(beside), "there is something to clean up"
        coming.send_signal(number)
        coming.stderr.read()
    assert coming.returncode == code
    if number is signal.SIGKILL:  # nobody could clean up: the next command does
        down = subprocess.run([*argv[:5], "down"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert down.returncode == 0, down.stderr
    assert _left_of(beside) == []


def test_a_strangers_process_in_the_namespace_is_told_and_not_killed(beside: str) -> None:
    network.create(network.namespace_name(beside), Family.DUAL)
    with subprocess.Popen(network.command_inside(network.namespace_name(beside), ["sleep", "60"])) as stranger:
        try:
            deadline = time.monotonic() + 10
            while Path(f"/proc/{stranger.pid}/comm").read_text() != "sleep\n":
                assert time.monotonic() < deadline, "it did not get there"
            left = take_down(beside)
            assert any(f"process {stranger.pid} (sleep)" in what for what in left)
            assert stranger.poll() is None
        finally:
            stranger.kill()
    assert take_down(beside) == []
    assert _left_of(beside) == []
