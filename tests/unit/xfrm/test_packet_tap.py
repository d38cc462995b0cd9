"""Taps of what leaves devices, on this machine's kernel, in a network namespace of its own."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from hauberk_xfrm import PacketTap, XfrmError, addressed_devices, keep_outgoing
from hauberk_xfrm.packet_filter import MOST_NETWORKS
from hauberk_xfrm.packet_tap import parse_passage

OWN = [ip_network("10.244.1.0/24"), ip_network("fd00:244:1::/64")]
PEERS = [ip_network("10.244.2.0/23"), ip_network("fd00:244:2::/63")]
Open = Callable[..., PacketTap]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def tapped(private_network: None) -> Iterator[Open]:
    """Opens taps, in a namespace with two devices: eth0, by which pods are reached, and eth1."""
    for device, lladdr in (("eth0", "02:00:00:00:00:01"), ("eth1", "02:00:00:00:00:02")):
        ip("link", "add", device, "type", "veth", "peer", "name", f"{device}-peer")
        for end in (device, f"{device}-peer"):
            ip("link", "set", end, "up")
        hosts = ("10.244.2.2", "10.244.9.9", "fd00:244:2::2", "fd00:244:9::9") if device == "eth0" else ()
        for host in hosts:
            ip("neigh", "add", host, "lladdr", lladdr, "dev", device)
            ip("route", "add", host, "dev", device)
    for address in ("10.244.1.2/32", "10.250.0.1/32", "fd00:244:1::2/128", "fd00:250::1/128"):
        ip("addr", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
    opened: list[PacketTap] = []

    def open_tap(device: str = "eth0", own: Sequence[str] = (), peers: Sequence[str] = ()) -> PacketTap:
        program = keep_outgoing(
            [ip_network(text) for text in own] or OWN, [ip_network(text) for text in peers] or PEERS
        )
        opened.append(PacketTap(device, program))
        return opened[-1]

    yield open_tap
    for tap in opened:
        tap.close()


def send(source: str, destination: str, *, packets: int = 1) -> None:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        for _ in range(packets):
            sender.sendto(b"in clear", (destination, 7779))


def taken(tap: PacketTap) -> list[tuple[str, str]]:
    return [(str(passage.source), str(passage.destination)) for passage in tap.take()]


def test_what_goes_from_own_pods_to_peers_pods_is_seen_where_it_leaves(tapped: Open) -> None:
    first, second, far_end = tapped("eth0"), tapped("eth1"), tapped("eth0-peer")
    send("10.244.1.2", "10.244.2.2", packets=3)
    send("fd00:244:1::2", "fd00:244:2::2", packets=2)
    assert taken(first) == [("10.244.1.2", "10.244.2.2")] * 3 + [("fd00:244:1::2", "fd00:244:2::2")] * 2
    assert taken(first) == []
    assert (taken(second), taken(far_end)) == ([], []), "of another device, and what comes in"


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("10.250.0.1", "10.244.2.2"),
        ("10.244.1.2", "10.244.9.9"),
        ("fd00:250::1", "fd00:244:2::2"),
        ("fd00:244:1::2", "fd00:244:9::9"),
    ],
)
def test_the_kernel_keeps_nothing_from_or_to_others(tapped: Open, source: str, destination: str) -> None:
    tap = tapped()
    send(source, destination, packets=7)
    send("10.244.1.2", "10.244.2.2")
    assert taken(tap) == [("10.244.1.2", "10.244.2.2")]


def test_one_family_alone_says_nothing_of_the_other(tapped: Open) -> None:
    tap = tapped(own=["10.244.1.0/24"], peers=["10.244.2.2/32", "fd00:244:2::/64"])
    send("fd00:244:1::2", "fd00:244:2::2")
    send("10.244.1.2", "10.244.2.2")
    assert taken(tap) == [("10.244.1.2", "10.244.2.2")]


def test_any_number_of_networks_is_taken_by_kernels_with_little_memory_for_it(tapped: Open) -> None:
    limit = Path("/proc/sys/net/core/optmem_max")
    if limit.exists():  # where namespaces have none of their own the host's is this
        limit.write_text("20480")
    own = [f"10.244.1.{number}/32" for number in range(1, 200, 2)]
    peers = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(0, 65536, 13)]
    # -> as many IPv6 addresses as the longest program has
    scattered = [f"fd00:{number:x}::{number:x}/128" for number in range(1, MOST_NETWORKS + 1)]
    tap = tapped(own=own + scattered, peers=[*peers, *scattered, "10.244.2.0/24"])
    send("10.244.1.2", "10.244.2.2")
    assert taken(tap) == [("10.244.1.2", "10.244.2.2")], "more than was asked for, never less"


def test_a_flood_is_read_in_part(tapped: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hauberk_xfrm.packet_tap.MOST_PACKETS", 5)
    tap = tapped()
    send("10.244.1.2", "10.244.2.2", packets=5000)
    assert len(tap.take()) == 5


def test_what_looks_like_ip_and_is_not_is_not_kept(tapped: Open) -> None:
    tap = tapped()
    header = bytes((0x60, *bytes(7))) + ip_address("fd00:244:1::2").packed + ip_address("fd00:244:2::2").packed
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sender:
        for ethertype in (0x88B5, 0x86DD):
            sender.sendto(header, ("eth0", ethertype, 0, 0, b"\2\0\0\0\0\1"))
    assert taken(tap) == [("fd00:244:1::2", "fd00:244:2::2")]


def test_a_device_that_goes_down_takes_nothing_along(tapped: Open) -> None:
    tap = tapped()
    send("10.244.1.2", "10.244.2.2")
    ip("link", "set", "eth0", "down")
    assert taken(tap) == [("10.244.1.2", "10.244.2.2")]


def test_a_device_that_is_not_there_is_named(tapped: Open) -> None:
    with pytest.raises(XfrmError, match="eth7: No such device") as refused:
        tapped("eth7")
    assert refused.value.errno == errno.ENODEV


def test_a_tap_that_is_closed_costs_nothing_more(tapped: Open) -> None:
    sockets = Path("/proc/thread-self/net/packet")
    tap = tapped()
    assert len(sockets.read_text().splitlines()) == 2
    tap.close()
    assert len(sockets.read_text().splitlines()) == 1


def test_without_the_capability_it_is_said_which_one() -> None:
    program = "from hauberk_xfrm import PacketTap\nPacketTap('lo', b'')"
    bounded = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw", sys.executable, "-c", program]
    said = subprocess.run(bounded, capture_output=True, text=True, check=False)
    kind, _, words = said.stderr.splitlines()[-1].partition(": ")
    assert kind == "hauberk_xfrm.errors.PermissionDenied"
    assert words == "watch what leaves by: lo: Operation not permitted (CAP_NET_RAW is missing)"


@pytest.mark.parametrize("header", [b"", b"\x45" + bytes(18), b"\x60" + bytes(38), b"\x50" + bytes(39)])
def test_what_is_no_ip_header_is_nobodys(header: bytes) -> None:
    assert parse_passage(header) is None


def test_devices_are_found_by_their_addresses(tapped: Open) -> None:
    assert addressed_devices([ip_address("10.250.0.1"), ip_address("192.0.2.1")]) == {"eth0"}
    assert addressed_devices([ip_address("fd00:244:1::2")]) == {"eth0"}
    assert addressed_devices([]) == frozenset()
