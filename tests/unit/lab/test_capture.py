"""A real capture between real interfaces, in a network namespace made for the test (needs root)."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from tests.lab.capture import Capture, CaptureError
from tests.lab.errors import LabError
from tests.lab.judge import Ground, NotEncryptedError, judge
from tests.lab.judge_pcap import read
from tests.lab.packet import dissect
from tests.lab.vigil import Vigil

PACKETS = 500
GROUND = Ground(
    pod_networks=(ip_network("10.244.0.0/16"),),
    node_addresses={"n1": (ip_address("10.250.0.11"),), "n2": (ip_address("10.250.0.12"),)},
    pod_cidrs={},
    markers=(b"HAUBERK-CLEAR-MARKER",),
)


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


@pytest.fixture
def bridge() -> Iterator[str]:
    """Two hosts on a bridge br0. Its netns is NAME, theirs NAME-1 (10.244.0.1, 10.250.0.11) and NAME-2 (.2, .12)."""
    assert os.geteuid() == 0, "captures are made in network namespaces: run as root"
    name = f"hauberk-test-{os.getpid()}"
    made: list[str] = []
    try:
        for netns in (name, f"{name}-1", f"{name}-2"):
            ip("netns", "add", netns)
            made.append(netns)
        ip("-n", name, "link", "add", "br0", "type", "bridge")
        ip("-n", name, "link", "set", "br0", "up")
        for n in ("1", "2"):
            ip("-n", name, "link", "add", f"h{n}", "type", "veth", "peer", "name", "eth0", "netns", f"{name}-{n}")
            ip("-n", name, "link", "set", f"h{n}", "master", "br0", "up")
            ip("-n", f"{name}-{n}", "addr", "add", f"10.244.0.{n}/24", "dev", "eth0")
            ip("-n", f"{name}-{n}", "addr", "add", f"10.250.0.1{n}/24", "dev", "eth0")
            ip("-n", f"{name}-{n}", "link", "set", "eth0", "up")
        yield name
    finally:
        for netns in made:
            subprocess.run(["ip", "netns", "del", netns], check=False)


def send(netns: str, destination: str, payload: bytes, count: int) -> None:
    """Send UDP from a process of that namespace, at some 10,000 packets a second."""
    program = (
        "import socket, sys, time\n"
        "to, payload, count = (sys.argv[1], 9), sys.argv[2].encode(), int(sys.argv[3])\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for n in range(count):\n"
        "    s.sendto(payload, to)\n"
        "    time.sleep(.0001)\n"
    )
    argv = [sys.executable, "-I", "-c", program, destination, payload.decode(), str(count)]
    subprocess.run(["ip", "netns", "exec", netns, *argv], check=True, timeout=30)


def test_plaintext_between_two_ports_is_found_to_the_last_packet(bridge: str, tmp_path: Path) -> None:
    with Capture(netns=bridge, interface="br0", path=tmp_path / "a.pcap") as capture:
        send(f"{bridge}-1", "10.244.0.2", b"HAUBERK-CLEAR-MARKER", PACKETS)
    assert capture.dropped == 0
    verdict = judge(capture.path, GROUND, since=capture.started_at, until=capture.stopped_at, dropped=capture.dropped)
    there = (ip_address("10.244.0.1").packed, ip_address("10.244.0.2").packed)
    assert sum(there in dissect(record.frame).ends[:1] for record in read(capture.path)) == PACKETS
    # Nobody listens there: some ICMP errors come back, and quote the marker.
    assert PACKETS <= verdict.clear.marker == verdict.clear.pod_to_pod <= verdict.packets <= capture.packets
    assert not verdict.ok


def test_node_to_node_is_not_plaintext(bridge: str, tmp_path: Path) -> None:
    with Capture(netns=bridge, interface="br0", path=tmp_path / "a.pcap") as capture:
        send(f"{bridge}-1", "10.250.0.12", b"nothing special", 50)
    verdict = judge(capture.path, GROUND, dropped=capture.dropped)
    assert verdict.packets >= 50
    assert verdict.ok


def test_no_process_is_left(bridge: str, tmp_path: Path) -> None:
    def running() -> list[str]:
        done = subprocess.run(["ip", "netns", "pids", bridge], capture_output=True, text=True, check=True)
        return done.stdout.split()

    with Capture(netns=bridge, interface="br0", path=tmp_path / "a.pcap"):
        assert len(running()) == 1
    assert running() == []
    with pytest.raises(ZeroDivisionError), Capture(netns=bridge, interface="br0", path=tmp_path / "b.pcap"):
        raise ZeroDivisionError
    assert running() == []


def test_a_capture_that_cannot_start_says_why(bridge: str, tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="nosuch0"):
        Capture(netns=bridge, interface="nosuch0", path=tmp_path / "a.pcap").start()
    with pytest.raises(CaptureError, match="did not start"):
        Capture(netns=f"{bridge}-none", interface="br0", path=tmp_path / "a.pcap").start()
    with pytest.raises(ValueError, match=r"must end in \.pcap"):
        Capture(netns=bridge, interface="br0", path=tmp_path / "a.capture")


def test_a_capture_that_died_meanwhile_is_no_capture(bridge: str, tmp_path: Path) -> None:
    capture = Capture(netns=bridge, interface="br0", path=tmp_path / "a.pcap")
    capture.start()
    ip("-n", bridge, "link", "del", "br0")  # tcpdump gives up when its interface goes
    with pytest.raises(CaptureError, match="ended badly"):
        capture.stop()


class Wire:
    """A bridge, as a vigil sees a lab."""

    bridge = "br0"

    def __init__(self, netns: str) -> None:
        self.netns = netns


def test_a_vigil_counts_every_packet_once_whatever_window_it_falls_in(bridge: str, tmp_path: Path) -> None:
    marked = 0
    with Vigil(Wire(bridge), lambda: GROUND, directory=tmp_path, window_seconds=0.3) as vigil:
        deadline = time.monotonic() + 60
        while vigil.toll().windows < 3 or marked < 5 * PACKETS:
            assert time.monotonic() < deadline
            send(f"{bridge}-1", "10.244.0.2", b"HAUBERK-CLEAR-MARKER", PACKETS)
            marked += PACKETS
    toll = vigil.toll()
    assert toll.missed == 0
    # ICMP errors quote the marker: a thousand a second at most, and a burst of fifty (icmp_msgs_per_sec).
    assert marked <= toll.clear < 2 * marked
    assert toll.packets >= toll.clear
    assert len(toll.offenders) == 20
    with pytest.raises(NotEncryptedError, match=f"no ESP in {toll.packets} packets\n{toll.clear} packets in clear"):
        toll.require()
    assert sorted(tmp_path.iterdir()) == sorted(toll.kept), "what holds packets in clear is kept, and nothing else"


def test_a_vigil_over_a_silent_wire_proves_nothing_and_keeps_nothing(bridge: str, tmp_path: Path) -> None:
    with Vigil(Wire(bridge), lambda: GROUND, directory=tmp_path, window_seconds=60) as vigil:
        assert vigil.toll().windows == 0
    assert vigil.toll().windows == 1
    assert vigil.toll().clear == 0
    assert any(fault.startswith("no ESP in") for fault in vigil.toll().faults())
    assert list(tmp_path.iterdir()) == []


def test_a_vigil_that_cannot_go_on_says_so(bridge: str, tmp_path: Path) -> None:
    def no_ground() -> Ground:
        raise LabError("the lab is gone")

    with (
        pytest.raises(LabError, match="the watch over the wire ended: the lab is gone"),
        Vigil(Wire(bridge), no_ground, directory=tmp_path, window_seconds=60),
    ):
        pass
