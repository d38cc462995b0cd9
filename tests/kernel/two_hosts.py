"""Two hosts in one kernel with ESP, for stories of hauberk_xfrm: network namespaces joined by a veth, with pods'
addresses behind them:

    10.244.1.1  fd00:244:1::1  [left]  192.0.2.1 ---- 192.0.2.2  [right]  10.244.2.1  fd00:244:2::1
                               2001:db8::1      2001:db8::2

The stories are modules with a main of their own, which are started inside such a kernel (`worlds`).
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TypeVar

from hauberk_xfrm import (
    Action,
    AddPolicy,
    Aead,
    Authenc,
    Direction,
    IpAddress,
    IpNetwork,
    Mode,
    Policy,
    ReqId,
    Selector,
    Spi,
    State,
    StateDirection,
    Template,
    UdpPorts,
    Xfrm,
    XfrmError,
)
from hauberk_xfrm.bypass import bypass_ipsec
from hauberk_xfrm.encapsulation import take_esp

CLONE_NEWNET = 0x40000000
ETH_P_ALL, PACKET_OUTGOING = 0x0003, 4
ESP, ICMPV6, UDP = 50, 58, 17
ENCAPSULATION_PORT = 4500

E = TypeVar("E", bound=XfrmError)

AES_GCM = Aead(name="rfc4106(gcm(aes))", key=bytes(range(20)), icv_bits=128)
AES_256_GCM = Aead(name="rfc4106(gcm(aes))", key=bytes(range(36)), icv_bits=128)
AES_CBC = Authenc(
    cipher="cbc(aes)", cipher_key=bytes(range(32)), mac="hmac(sha256)", mac_key=bytes(range(32)), icv_bits=128
)
CHACHA = Aead(name="rfc7539esp(chacha20,poly1305)", key=bytes(range(36)), icv_bits=128)
REQID = ReqId(4711)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One end: its namespace, its addresses by family, its pods' networks, and its XFRM tables."""

    name: str
    addresses: dict[int, IpAddress]
    pods: dict[int, IpNetwork]
    xfrm: Xfrm

    def send(self, other: Host, family: int, *, count: int = 3) -> int:
        """Sends datagrams from pod to pod. Returns how many arrive."""
        source, destination = (str(host.pods[family][1]) for host in (self, other))
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        with inside(other.name):
            receiver = socket.socket(kind, socket.SOCK_DGRAM)
        with inside(self.name):
            sender = socket.socket(kind, socket.SOCK_DGRAM)
        arrived = 0
        with sender, receiver:
            receiver.settimeout(0.2)
            receiver.bind((destination, 0))
            sender.bind((source, 0))
            for number in range(count):
                # The kernel says so at once where policy forbids a packet, or it drops the packet silently.
                with suppress(PermissionError, TimeoutError, BlockingIOError):
                    sender.sendto(bytes((number,)), receiver.getsockname()[:2])
                    arrived += receiver.recv(1) == bytes((number,))
        return arrived

    def statistics(self) -> dict[str, int]:
        with inside(self.name):
            return self.xfrm.statistics()


@contextmanager
def inside(namespace: str) -> Generator[None, None, None]:
    """This process in another network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(there, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        libc.setns(outside, CLONE_NEWNET)
        os.close(outside)
        os.close(there)


def ip(*commands: str) -> None:
    subprocess.run(("ip", "-batch", "-"), input="\n".join(commands), text=True, check=True)


def ip_shows(host: Host, *arguments: str) -> str:
    """What iproute2 prints, in one line."""
    done = subprocess.run(("ip", "-n", host.name, *arguments), capture_output=True, text=True, check=True)
    return " ".join(done.stdout.split())


@contextmanager
def two_hosts() -> Generator[tuple[Host, Host], None, None]:
    """The hosts of the picture above; gone afterwards."""
    with ExitStack() as cleanup:
        for name in ("left", "right"):
            ip(f"netns add {name}")
            cleanup.callback(ip, f"netns delete {name}")
            with inside(name):  # nobody else can have our addresses: don't wait to hear so
                Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
        ip("link add left netns left type veth peer name right netns right")
        hosts: list[Host] = []
        for number, name in ((1, "left"), (2, "right")):
            other = 3 - number
            subprocess.run(("ip", "-n", name, "-batch", "-"), text=True, check=True, input="\n".join((
                "link set lo up",
                f"link set {name} up",
                f"addr add 192.0.2.{number}/24 dev {name}",
                f"addr add 2001:db8::{number}/64 dev {name} nodad",
                f"addr add 10.244.{number}.1/24 dev lo",
                f"addr add fd00:244:{number}::1/64 dev lo nodad",
                f"route add 10.244.{other}.0/24 via 192.0.2.{other}",
                f"route add fd00:244:{other}::/64 via 2001:db8::{other}",
            )))  # fmt: skip
            xfrm = cleanup.enter_context(Xfrm())
            with inside(name):
                xfrm.dump_policies()  # opens its socket here
            hosts.append(
                Host(
                    name=name,
                    addresses={4: ip_address(f"192.0.2.{number}"), 6: ip_address(f"2001:db8::{number}")},
                    pods={
                        4: ip_network(f"10.244.{number}.0/24"),
                        6: ip_network(f"fd00:244:{number}::/64"),
                    },
                    xfrm=xfrm,
                )
            )
        left, right = hosts
        for family in (4, 6):  # neighbours and all
            deadline = time.monotonic() + 5
            while not (left.send(right, family, count=1) and right.send(left, family, count=1)):
                check(time.monotonic() < deadline, f"no plain packet of IPv{family}")
        yield left, right


def check(truth: bool, what: object) -> None:
    """assert, for a program whose failures are read on another machine."""
    if not truth:
        raise AssertionError(what)


def protect(host: Host, peer: Host, *, outer: int, mode: Mode = Mode.TUNNEL, optional: bool = False) -> None:
    """Policies for all pod traffic with the peer, both families; inbound from any source address."""
    outbound = Template(source=host.addresses[outer], destination=peer.addresses[outer], reqid=REQID, mode=mode)
    inbound = Template(source=None, destination=host.addresses[outer], reqid=REQID, mode=mode, optional=optional)
    policies = [
        Policy(
            selector=Selector(source=source.pods[family], destination=destination.pods[family]),
            direction=direction,
            priority=1000,
            action=Action.ALLOW,
            templates=(template,),
        )
        for family in (4, 6)
        for direction, source, destination, template in (
            (Direction.OUT, host, peer, outbound),
            (Direction.IN, peer, host, inbound),
            (Direction.FWD, peer, host, inbound),
        )
    ]
    outcomes = host.xfrm.apply([AddPolicy(policy=policy) for policy in policies])
    check(outcomes == [None] * 6, outcomes)
    check(set(host.xfrm.dump_policies()) == set(policies), host.xfrm.dump_policies())


def associate(left: Host, right: Host, template: State) -> None:
    """An SA in each direction, as IKE would: the receiver's SPI from its kernel, filled in, then the sender's state."""
    outer = template.source.version
    for sender, receiver in ((left, right), (right, left)):
        source, destination = sender.addresses[outer], receiver.addresses[outer]
        spi = receiver.xfrm.allocate_spi(source=source, destination=destination, reqid=REQID, mode=template.mode)
        state = replace(template, source=source, destination=destination, spi=spi)
        receiver.xfrm.update_state(replace(state, direction=StateDirection.IN))
        sender.xfrm.add_state(replace(state, direction=StateDirection.OUT))


def state_of(**changes: object) -> State:
    """A state from left to right over IPv4, but for what is said."""
    values: dict[str, object] = {
        "source": ip_address("192.0.2.1"),
        "destination": ip_address("192.0.2.2"),
        "spi": Spi(0xC0000001),
        "reqid": REQID,
        "aead": AES_GCM,
    }
    return State(**(values | changes))  # pyright: ignore[reportArgumentType]


OVER_IPV6 = {"source": ip_address("2001:db8::1"), "destination": ip_address("2001:db8::2")}


def over(outer: int, state: State) -> State:
    """The state between the hosts' addresses of that IP version."""
    left, right = ("192.0.2.1", "192.0.2.2") if outer == 4 else ("2001:db8::1", "2001:db8::2")
    return replace(state, source=ip_address(left), destination=ip_address(right))


@contextmanager
def wiretap(*hosts: Host) -> Generator[Counter[str], None, None]:
    """Counts, by what they are, the packets that leave the hosts for the wire while the block runs."""
    counts: Counter[str] = Counter()
    with ExitStack() as taps:
        opened: list[socket.socket] = []
        for host in hosts:
            with inside(host.name):
                tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
                opened.append(taps.enter_context(tap))
                tap.bind((host.name, ETH_P_ALL))
            tap.setblocking(False)
        yield counts
        for tap in opened:
            counts.update(_outgoing(tap))


def _outgoing(tap: socket.socket) -> Generator[str, None, None]:
    """What has been captured. Incoming packets are left out, as they are shown once more after their decryption."""
    while True:
        try:
            packet, (_, ethertype, direction, *_) = tap.recvfrom(65536)
        except BlockingIOError:
            return
        if direction != PACKET_OUTGOING:
            continue
        match ethertype:
            case 0x0800 if packet[9] == UDP and packet[22:24] == ENCAPSULATION_PORT.to_bytes(2):  # destination port
                yield "esp in udp"
            case 0x86DD if packet[6] == UDP and packet[42:44] == ENCAPSULATION_PORT.to_bytes(2):
                yield "esp in udp"
            case 0x0800:  # IPv4: protocol
                yield "esp" if packet[9] == ESP else "clear"
            case 0x86DD if packet[6] == ESP:  # IPv6: next header, hop limit
                yield "esp"
            case 0x86DD if packet[6] in (0, ICMPV6) and packet[7] in (1, 255):
                yield "neighbours"  # their discovery, between the hosts themselves
            case 0x86DD:
                yield "clear"
            case _:
                yield "other"


def packets_are_esp(left: Host, right: Host, *, kind: str = "esp") -> None:
    """Both families pass, both ways, and nothing but ESP is on the wire; the states count it."""
    with wiretap(left, right) as wire:
        for family in (4, 6):
            check(left.send(right, family) == 3, f"IPv{family} from left to right")
            check(right.send(left, family) == 3, f"IPv{family} from right to left")
    check(wire[kind] == 12 and wire["clear"] == 0, wire)
    for host in (left, right):
        states = host.xfrm.dump_states()
        check(len(states) == 2, states)
        for state in states:
            check(state.packets == 6 and state.bytes > 0 and state.use_time is not None, repr(state))
            check(state.sequence == 6 and not state.larval, repr(state))
            check(state.integrity_failed == state.replay_packets == state.replay_window_packets == 0, repr(state))
    for host in (left, right):
        trouble = {name: count for name, count in host.statistics().items() if count}
        check(not trouble, (host.name, trouble))


@contextmanager
def encapsulation_sockets(family: int, *hosts: Host) -> Generator[list[socket.socket], None, None]:
    """The sockets on port 4500 that an IKE daemon has."""
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        for host in hosts:
            with inside(host.name):
                kind = socket.AF_INET if family == 4 else socket.AF_INET6
                sock = opened.enter_context(socket.socket(kind, socket.SOCK_DGRAM))
            take_esp(sock)
            bypass_ipsec(sock)
            sock.bind((str(host.addresses[family]), ENCAPSULATION_PORT))
            sock.settimeout(0.2)
            sockets.append(sock)
        yield sockets


IN_UDP = UdpPorts(source=ENCAPSULATION_PORT, destination=ENCAPSULATION_PORT)


def expect(kind: type[E], attempt: Callable[[], object]) -> E:
    try:
        attempt()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def tell(stories: tuple[Callable[[], None], ...]) -> dict[str, str | None]:
    """Each story's name, and null or its failure."""
    outcomes: dict[str, str | None] = {}
    for story in stories:
        try:
            story()
            outcomes[story.__name__] = None
        except Exception:  # noqa: BLE001 (whatever it is, somebody outside reads it)
            outcomes[story.__name__] = traceback.format_exc()
    return outcomes


def main(stories: tuple[Callable[[], None], ...]) -> None:
    """Writes what became of the stories to the file that the command line names (`bare_kernel`)."""
    Path(sys.argv[1]).write_text(json.dumps(tell(stories)))
