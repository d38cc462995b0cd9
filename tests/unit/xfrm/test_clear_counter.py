"""The counter of packets in clear, on this machine's kernel, in a network namespace of its own."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from errno import EEXIST
from ipaddress import ip_network
from struct import Struct

import pytest

from hauberk_xfrm import ClearCounter, ClearPackets, NotSupported
from hauberk_xfrm.netlink import NLM_F_CREATE, NLM_F_EXCL, Message, NetlinkSocket

NOTHING = ClearPackets(arriving=0, leaving=0)
NETLINK_NETFILTER = 12


@pytest.fixture
def counter(private_network: None) -> Iterator[ClearCounter]:
    """In a namespace whose loopback carries packets."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    opened = ClearCounter()
    try:
        opened.remove()
    except NotSupported:
        pytest.fail("this kernel has no nftables: load the module nf_tables")
    yield opened
    opened.close()


def send(host: str, *, packets: int) -> None:
    """Datagrams from an address of the loopback to itself: each leaves, and arrives."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as receiver, socket.socket(family, socket.SOCK_DGRAM) as sender:
        receiver.bind((host, 7779))
        sender.bind((host, 0))
        for _ in range(packets):
            sender.sendto(b"in clear", (host, 7779))


def test_packets_from_and_to_the_networks_are_counted_in_both_families(counter: ClearCounter) -> None:
    counter.count([ip_network("127.1.0.0/16"), ip_network("::1/128")])
    assert counter.read() == NOTHING
    send("127.1.2.3", packets=3)
    send("::1", packets=2)
    send("127.2.0.1", packets=7)
    assert counter.read() == ClearPackets(arriving=5, leaving=5)


@pytest.mark.parametrize(
    "networks",
    [
        [],
        ["0.0.0.0/0", "::/0"],
        ["10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/8", "255.255.255.0/24"],
        [f"10.{number >> 8}.{number & 255}.0/25" for number in range(6000)],
    ],
    ids=["none", "all", "overlapping and last", "thousands"],
)
def test_any_networks_make_a_table(counter: ClearCounter, networks: list[str]) -> None:
    counter.count(ip_network(network) for network in networks)
    assert counter.read() == NOTHING


def test_another_table_counts_anew_and_a_removed_one_reads_as_none(counter: ClearCounter) -> None:
    assert counter.read() is None
    counter.count([ip_network("127.1.0.0/16")])
    send("127.1.2.3", packets=3)
    counter.count([ip_network("127.2.0.0/16")])
    assert counter.read() == NOTHING
    send("127.1.2.3", packets=1)
    assert counter.read() == NOTHING
    counter.remove()
    assert counter.read() is None
    counter.remove()


def _table(name: bytes) -> bytes:
    return Struct(">BBH").pack(1, 0, 0) + Struct("=HH").pack(4 + len(name), 1) + name


def test_of_a_transaction_that_fails_nothing_is_left_and_the_failure_is_told(counter: ClearCounter) -> None:
    netlink = NetlinkSocket(NETLINK_NETFILTER)
    begin, end = (Message(type=kind, body=Struct(">BBH").pack(0, 0, 10)) for kind in (0x10, 0x11))
    make = Message(type=10 << 8, body=_table(b"another\0"), flags=NLM_F_CREATE)
    again = Message(type=10 << 8, body=_table(b"another\0"), flags=NLM_F_CREATE | NLM_F_EXCL)
    assert netlink.transact(begin, [make, again, make], end).errno == EEXIST
    assert netlink.transact(begin, [again], end).errno == 0, "the first transaction made no table"
    netlink.close()
