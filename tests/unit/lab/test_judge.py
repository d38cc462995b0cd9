"""The verdict over captures made by hand."""

import json
import struct
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab.judge import Ground, NotEncryptedError, Verdict, judge
from tests.lab.judge_pcap import CaptureFileError
from tests.lab.packet import Kind
from tests.unit.lab import frames as f

MARKER = b"HAUBERK-CLEAR-MARKER"
GROUND = Ground(
    pod_networks=(ip_network("10.244.0.0/16"), ip_network("fd00:244::/32")),
    node_addresses={
        f"n{n}": (ip_address(f"10.250.0.1{n}"), ip_address(f"fd00:250::1{n}")) for n in (1, 2, 3)
    },
    pod_cidrs={f"n{n}": (ip_network(f"10.244.1{n}.0/24"), ip_network(f"fd00:244:1{n}::/64")) for n in (1, 2, 3)},
    markers=(MARKER,),
)  # fmt: skip
N1, N2, N3, OUTSIDE = "10.250.0.11", "10.250.0.12", "10.250.0.13", "10.250.0.1"
P1, P2, P3 = "10.244.11.5", "10.244.12.7", "10.244.13.9"
ESP_1_2 = f.ethernet(f.ip(N1, N2, f.ESP, f.esp()))
ESP_2_1 = f.ethernet(f.ip(N2, N1, f.UDP, f.udp(4500, 4500, f.esp())))


def sent(source: str, destination: str, payload: bytes = b"x" * 20) -> bytes:
    return f.ethernet(f.ip(source, destination, f.UDP, f.udp(1000, 2000, payload)))


class VerdictOn(Protocol):
    def __call__(self, *frames: bytes, dropped: int = 0) -> Verdict: ...


@pytest.fixture
def verdict_on(tmp_path: Path) -> VerdictOn:
    def over(*frames: bytes, dropped: int = 0) -> Verdict:
        return judge(f.capture_file(tmp_path / "a.pcap", frames), GROUND, dropped=dropped)

    return over


@pytest.mark.parametrize(
    ("source", "destination", "counted"),
    [
        (P1, P2, "pod_to_pod"),
        ("fd00:244:11::5", "fd00:244:12::7", "pod_to_pod"),
        ("10.244.99.1", P2, "pod_to_pod"),  # in the pod range, though of no node that we know
        (N1, P2, "node_pod"),
        (P2, N1, "node_pod"),
        ("fd00:250::13", "fd00:244:11::5", "node_pod"),
        ("fe80::1", "fd00:244:11::5", "node_pod"),
        (P1, OUTSIDE, "pod_outside"),
        ("fd00:250::1", "fd00:244:11::5", "pod_outside"),
        ("1.1.1.1", P3, "pod_outside"),
        (N1, N2, None),
        (N1, OUTSIDE, None),
    ],
)
def test_packets_are_told_apart_by_their_ends(
    verdict_on: VerdictOn, source: str, destination: str, counted: str | None
) -> None:
    clear = verdict_on(sent(source, destination)).clear
    for name in ("pod_to_pod", "node_pod", "pod_outside"):
        assert getattr(clear, name) == (name == counted)


def test_encrypted_traffic_is_well(verdict_on: VerdictOn) -> None:
    ike = f.ethernet(f.ip(N1, N2, f.UDP, f.udp(500, 500, bytes(80))))
    api = f.ethernet(f.ip(N1, OUTSIDE, f.TCP, f.tcp(40000, 6443, b"TLS")))
    verdict = verdict_on(ESP_1_2, ESP_2_1, ike, api, sent(P1, OUTSIDE))
    assert verdict.ok
    verdict.require(packets=5, esp_between=("n1", "n2"))
    assert verdict.by_kind == {Kind.ESP: 1, Kind.ESP_IN_UDP: 1, Kind.IKE: 1, Kind.OTHER: 2}
    assert (verdict.esp, verdict.clear.pod_outside, verdict.offenders) == (2, 1, [])


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (sent(P1, P2), "1 packets from pod to pod in clear"),
        (sent(N1, P2), "1 packets between node and pod in clear"),
        (sent(N1, N2, MARKER), "1 packets show a marker in clear"),
    ],
)
def test_one_packet_in_clear_among_many_spoils_it(verdict_on: VerdictOn, frame: bytes, fault: str) -> None:
    verdict = verdict_on(*[ESP_1_2] * 50, frame, *[ESP_2_1] * 50)
    assert not verdict.ok
    assert verdict.faults() == [fault]
    with pytest.raises(NotEncryptedError, match=fault):
        verdict.require()


def test_a_pods_packet_with_a_marker_is_one_packet(verdict_on: VerdictOn) -> None:
    clear = verdict_on(sent(P1, P2, MARKER), sent(P1, OUTSIDE), sent(N1, N2, MARKER)).clear
    assert (clear.pod_to_pod, clear.pod_outside, clear.marker) == (1, 1, 2)
    assert clear.forbidden == 2


def test_the_worst_readable_header_decides(verdict_on: VerdictOn) -> None:
    tunnelled = f.ethernet(f.ip(N1, N2, f.UDP, f.vxlan(sent(P1, P2))))
    quoted = f.ethernet(f.ip(N1, P3, f.ICMP, f.icmp(3, f.ip(P3, P2, f.UDP, f.udp(1, 2, b"")))))
    clear = verdict_on(tunnelled, quoted).clear
    assert (clear.pod_to_pod, clear.node_pod) == (2, 0)


def test_esp_with_pod_addresses_outside_is_still_a_pods_packet(verdict_on: VerdictOn) -> None:
    """A pod that speaks IPsec by itself shows its address: the mesh did not wrap it."""
    verdict = verdict_on(f.ethernet(f.ip(P1, P2, f.ESP, f.esp())))
    assert verdict.clear.pod_to_pod == 1
    assert verdict.by_kind[Kind.ESP] == 1


@pytest.mark.parametrize(
    "frame",
    [
        sent(P1, OUTSIDE, b"GET / HTTP/1.1\r\nX-Data: " + MARKER + b"\r\n\r\n"),
        f.ethernet(f.ip(N1, N2, f.ESP, f.esp(ciphertext=MARKER))),  # ESP with NULL encryption
        f.ethernet(f.ip(N1, N2, f.TCP, f.tcp(40000, 80, MARKER))),
        f.ethernet(f.ip(P1, P2, f.UDP, MARKER, fragment=1480)),
        f.ethernet(MARKER, 0x88B5),
        f.ethernet(f.ip(N1, N2, f.GRE, b"\x40\0\0\0" + MARKER)),
    ],
)
def test_a_marker_is_found_wherever_it_stands(verdict_on: VerdictOn, frame: bytes) -> None:
    verdict = verdict_on(ESP_1_2, frame)
    assert verdict.clear.marker == 1
    assert not verdict.ok
    assert "marker" in verdict.offenders[0]


def test_an_empty_capture_shows_nothing(verdict_on: VerdictOn) -> None:
    assert not verdict_on().ok


def test_too_few_packets_show_nothing(verdict_on: VerdictOn) -> None:
    assert verdict_on(ESP_1_2).faults(packets=10_000) == ["1 packets captured, 10000 needed"]


def test_a_capture_that_missed_packets_proves_nothing(verdict_on: VerdictOn) -> None:
    assert verdict_on(ESP_1_2, dropped=3).faults() == ["the capture missed 3 packets"]


def test_a_frame_captured_in_part_proves_nothing(tmp_path: Path) -> None:
    path = f.capture_file(tmp_path / "a.pcap", [])
    path.write_bytes(path.read_bytes() + struct.pack("<IIII", 1, 0, 40, 1400) + ESP_1_2[:40])
    assert judge(path, GROUND).truncated == 1
    assert not judge(path, GROUND).ok


def test_esp_is_wanted_in_both_directions(verdict_on: VerdictOn) -> None:
    assert verdict_on(ESP_1_2).faults(esp_between=("n1", "n2")) == ["no ESP seen between n2>n1"]


def test_times_by_directed_pair_of_nodes(tmp_path: Path) -> None:
    # At 1000 s, 1001 s, ...
    path = f.capture_file(
        tmp_path / "a.pcap",
        [sent(P1, P2), sent(P2, P1), sent(N1, P2), ESP_1_2, sent(P2, P1), ESP_2_1, ESP_1_2, sent(N3, "10.244.77.1")],
    )
    verdict = judge(path, GROUND)
    clear, esp = verdict.last_clear, verdict.esp_pairs
    assert {pair: (seen.first, seen.last, seen.packets) for pair, seen in clear.items()} == {
        ("n1", "n2"): (1000, 1002, 2),
        ("n2", "n1"): (1001, 1004, 2),
        ("n3", "?"): (1007, 1007, 1),
    }
    assert {pair: (seen.first, seen.last, seen.packets) for pair, seen in esp.items()} == {
        ("n1", "n2"): (1003, 1006, 2),
        ("n2", "n1"): (1005, 1005, 1),
    }


def test_only_the_asked_time_is_judged(tmp_path: Path) -> None:
    path = f.capture_file(tmp_path / "a.pcap", [sent(P1, P2), ESP_1_2, ESP_2_1, sent(P1, P2)])
    verdict = judge(path, GROUND, since=1001.0, until=1002.0)
    assert (verdict.packets, verdict.ok) == (2, True)


def test_the_first_offenders_are_named(verdict_on: VerdictOn) -> None:
    verdict = verdict_on(*[sent(P1, P2)] * 30)
    assert len(verdict.offenders) == 20
    assert verdict.offenders[0] == "00:16:40.000000 pod to pod: 10.244.11.5 > 10.244.12.7 UDP 1000 > 2000, 62 bytes"


def test_json_and_table_say_the_same(verdict_on: VerdictOn) -> None:
    verdict = verdict_on(ESP_1_2, sent(P1, P2), sent(P1, OUTSIDE))
    told = json.loads(verdict.to_json())
    assert told["by_kind"] == {"esp": 1, "esp-in-udp": 0, "ike": 0, "other": 2}
    assert told["clear"] == {"pod_to_pod": 1, "node_pod": 0, "pod_outside": 1, "marker": 0, "forbidden": 1}
    assert told["esp_pairs"] == {"n1>n2": {"first": 1000, "last": 1000, "packets": 1}}
    assert told["last_clear"]["n1>n2"]["last"] == 1001
    assert told["ok"] is False
    assert "verdict: 1 packets from pod to pod in clear" in verdict.table()
    assert "n1 > n2" in verdict.table()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "fraction"), [(0xA1B2C3D4, 250_000), (0xA1B23C4D, 250_000_000)])
def test_both_byte_orders_and_resolutions(tmp_path: Path, order: str, magic: int, fraction: int) -> None:
    header = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, 1)
    record = struct.pack(order + "IIII", 1000, fraction, len(ESP_1_2), len(ESP_1_2))
    (tmp_path / "a.pcap").write_bytes(header + record + ESP_1_2)
    assert judge(tmp_path / "a.pcap", GROUND).esp_pairs["n1", "n2"].first == 1000.25


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "not a pcap file"),
        (b"not a capture of anything at all", "not a pcap file"),
        (struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 113), "link type 113"),
        (struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1) + bytes(7), "within a frame's header"),
        (
            struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1) + struct.pack("<IIII", 1, 1, 60, 60) + bytes(9),
            "within a frame",
        ),
        (
            struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1) + struct.pack("<IIII", 1, 1, 1 << 31, 60),
            "a frame of 2147483648 bytes",
        ),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, contents: bytes, message: str) -> None:
    (tmp_path / "a.pcap").write_bytes(contents)
    with pytest.raises(CaptureFileError, match=message):
        judge(tmp_path / "a.pcap", GROUND)


@given(st.lists(st.binary(max_size=80), max_size=20))
def test_any_frames_get_a_verdict(tmp_path_factory: pytest.TempPathFactory, frames: list[bytes]) -> None:
    path = f.capture_file(tmp_path_factory.mktemp("judge") / "a.pcap", frames)
    verdict = judge(path, GROUND)
    assert verdict.packets == len(frames) == sum(verdict.by_kind.values())
    verdict.table()
    json.loads(verdict.to_json())
