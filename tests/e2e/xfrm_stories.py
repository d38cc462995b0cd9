"""What hauberk_xfrm promises of a kernel with ESP, told inside such a kernel.

`test_xfrm_kernel` boots one and starts this program as its first process (`python -m tests.e2e.xfrm_stories RESULTS`).

Each story gets two hosts, network namespaces joined by a veth, with pods' addresses behind them:

    10.244.1.1  fd00:244:1::1  [left]  192.0.2.1 ---- 192.0.2.2  [right]  10.244.2.1  fd00:244:2::1
                               2001:db8::1      2001:db8::2

RESULTS gets a JSON object: the story's name, and null or what went wrong.
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
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from ipaddress import ip_address, ip_network
from itertools import product
from pathlib import Path
from typing import TypeVar

from hauberk_ike import EspProposal, IkeProposal
from hauberk_ike.algorithms import ENCRYPTIONS, INTEGRITIES
from hauberk_ike.keys import derive_child_keys, expand_ike_keys
from hauberk_xfrm import (
    Action,
    AddPolicy,
    Aead,
    Authenc,
    Direction,
    IpAddress,
    IpNetwork,
    Lifetime,
    Mode,
    NotFound,
    NotSupported,
    Policy,
    ReqId,
    Selector,
    Spi,
    State,
    StateDirection,
    StateDump,
    StateExists,
    StateFlag,
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


def the_kernel_can_do_everything() -> None:
    with two_hosts() as (left, _):
        abilities = left.xfrm.abilities()
        check(abilities.problems == (), abilities)
        for name in ("xfrm", "esp4", "esp6", "sa_direction", "iptfs", "xfrm_interface"):
            check(getattr(abilities, name) is True, (name, abilities))
        check(left.xfrm.dump_states() == [], left.xfrm.dump_states())


def the_wiretap_sees_what_is_in_clear() -> None:
    with two_hosts() as (left, right), wiretap(left, right) as wire:
        for family in (4, 6):
            check(left.send(right, family) == right.send(left, family) == 3, f"IPv{family} without any policy")
    check(wire["clear"] == 12 and wire["esp"] == 0, wire)


def both_families_pass_through_one_pair_of_states_over_ipv4() -> None:
    with two_hosts() as (left, right):
        associate(left, right, state_of())
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=4)
        packets_are_esp(left, right)


def both_families_pass_through_one_pair_of_states_over_ipv6() -> None:
    with two_hosts() as (left, right):
        associate(left, right, state_of(**OVER_IPV6, aead=AES_256_GCM, replay_window=4096))
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=6)
        packets_are_esp(left, right)


def chacha20_passes_without_esn_and_with_the_old_replay_window() -> None:
    with two_hosts() as (left, right):
        associate(left, right, state_of(aead=CHACHA, esn=False, replay_window=32))
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=4)
        packets_are_esp(left, right)


def whatever_ike_negotiates_passes() -> None:
    """Each cipher, with each integrity algorithm if it takes one, with and without ESN, under keys of IKE."""
    words = [cipher.word for cipher in ENCRYPTIONS.values() if cipher.is_aead]
    words += [
        f"{cipher.word}-{integrity}"
        for cipher, integrity in product(ENCRYPTIONS.values(), INTEGRITIES)
        if not cipher.is_aead
    ]
    keys = expand_ike_keys(IkeProposal.parse("aes128gcm16-prfsha256-x25519"), skeyseed=b"any", seed=b"thing")
    for word, esn in product(words, ("esn", "noesn")):
        proposal = EspProposal.parse(f"{word}-{esn}")
        key, _ = derive_child_keys(keys, proposal, nonce_i=b"any", nonce_r=b"nonce")
        with two_hosts() as (left, right):
            try:
                associate(left, right, state_of(aead=Aead.of(key), authenc=Authenc.of(key), esn=key.esn))
                for host, peer in ((left, right), (right, left)):
                    protect(host, peer, outer=4)
                packets_are_esp(left, right)
            except Exception as error:
                raise AssertionError(f"{proposal}: {error}") from error


def a_state_that_has_carried_enough_is_told_once() -> None:
    with two_hosts() as (left, right):
        associate(left, right, state_of(lifetime=Lifetime(soft_packets=2)))
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=4)
        with inside(left.name), closing(left.xfrm.watch_expiries()) as watched:
            packets_are_esp(left, right)
            expiries = watched.receive()
        worn = [state for state in left.xfrm.dump_states() if state.is_worn]
        check(len(worn) == 2, worn)
        told = {(expiry.destination, expiry.spi, expiry.reqid, expiry.hard) for expiry in expiries.told}
        check(told == {(state.destination, state.spi, REQID, False) for state in worn}, expiries)
        check(len(expiries.told) == 2 and not expiries.missed, expiries)


def iptfs_passes() -> None:
    with two_hosts() as (left, right):
        associate(left, right, state_of(mode=Mode.IPTFS))
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=4, mode=Mode.IPTFS)
        packets_are_esp(left, right)


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


def esp_passes_in_udp_over_ipv4() -> None:
    with two_hosts() as (left, right), encapsulation_sockets(4, left, right):
        associate(left, right, state_of(encapsulation=IN_UDP))
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=4)
        packets_are_esp(left, right, kind="esp in udp")


def esp_passes_in_udp_over_ipv6() -> None:
    with two_hosts() as (left, right), encapsulation_sockets(6, left, right):
        associate(left, right, state_of(**OVER_IPV6, encapsulation=IN_UDP))
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=6)
        packets_are_esp(left, right, kind="esp in udp")


def esp_in_udp_needs_a_socket_that_takes_it() -> None:
    with two_hosts() as (left, right):
        with encapsulation_sockets(4, left, right):
            associate(left, right, state_of(encapsulation=IN_UDP))
            for host, peer in ((left, right), (right, left)):
                protect(host, peer, outer=4)
            check(left.send(right, 4) == 3, "with a socket")
        check(left.send(right, 4) == 0, "without a socket")
        with encapsulation_sockets(4, left, right):
            check(left.send(right, 4) == 3, "with a socket again")


def ike_passes_a_socket_that_takes_esp_and_nothing_else_does() -> None:
    with two_hosts() as (left, right):
        for family in (4, 6):
            with encapsulation_sockets(family, left, right) as (sender, receiver):
                for payload in (b"\xff", b"\xc0\0\0\x01 and what else an ESP packet has", b"\0\0\0\0 and IKE"):
                    sender.sendto(payload, (str(right.addresses[family]), ENCAPSULATION_PORT))
                check(receiver.recv(100) == b"\0\0\0\0 and IKE", "IKE was not the first to come")


def a_state_takes_other_ports_and_counts_on() -> None:
    with two_hosts() as (left, right), encapsulation_sockets(4, left, right):
        associate(left, right, state_of(encapsulation=IN_UDP))
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=4)
        check(left.send(right, 4) == 3, "before")
        moved = UdpPorts(source=4511, destination=ENCAPSULATION_PORT)
        for host, direction in ((left, StateDirection.OUT), (right, StateDirection.IN)):
            (state,) = [each for each in host.xfrm.dump_states() if each.source == left.addresses[4]]
            check(state.direction is direction, repr(state))
            host.xfrm.update_state(replace(state.as_written(), encapsulation=moved))
        check(left.send(right, 4) == 3, "after")
        for host in (left, right):
            (state,) = [each for each in host.xfrm.dump_states() if each.source == left.addresses[4]]
            check(state.encapsulation == moved and state.packets == 6 and state.sequence == 6, repr(state))


def states_of_kernels_that_know_no_directions_pass() -> None:
    with two_hosts() as (left, right):
        for sender, receiver, spi in ((left, right, 0xC0000001), (right, left, 0xC0000002)):
            state = state_of(
                source=sender.addresses[4], destination=receiver.addresses[4], spi=Spi(spi), direction=None
            )
            for host in (left, right):
                host.xfrm.add_state(state)
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=4)
        packets_are_esp(left, right)


def without_a_state_nothing_passes_and_nothing_is_in_clear() -> None:
    with two_hosts() as (left, right):
        associate(left, right, state_of())
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=4)
        packets_are_esp(left, right)
        for state in left.xfrm.dump_states():
            left.xfrm.delete_state(destination=state.destination, spi=state.spi, missing_ok=False)
        with wiretap(left, right) as wire:
            for family in (4, 6):
                check(left.send(right, family) == 0, f"IPv{family} passed without a state to send it by")
                check(right.send(left, family) == 0, f"IPv{family} passed without a state to receive it by")
        check(wire["clear"] == 0, wire)
        check(left.statistics()["XfrmInNoStates"] > 0, left.statistics())
        check(left.statistics()["XfrmOutNoStates"] + left.statistics()["XfrmAcquireError"] > 0, left.statistics())


def the_wrong_key_is_counted_as_forgery() -> None:
    with two_hosts() as (left, right):
        associate(left, right, state_of())
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=4)
        inbound = next(state for state in right.xfrm.dump_states() if state.direction is StateDirection.IN)
        right.xfrm.delete_state(destination=inbound.destination, spi=inbound.spi)
        other_key = replace(AES_GCM, key=b"x" * 20)
        right.xfrm.add_state(
            state_of(
                source=inbound.source,
                destination=inbound.destination,
                spi=inbound.spi,
                aead=other_key,
                direction=StateDirection.IN,
            )
        )
        check(left.send(right, 4) == 0, "a packet with the wrong key passed")
        state = right.xfrm.get_state(inbound.destination, inbound.spi)
        check(state is not None and state.integrity_failed == 3, repr(state))


def optional_templates_accept_what_is_still_in_clear() -> None:
    with two_hosts() as (left, right):
        protect(right, left, outer=4, optional=True)
        check(left.send(right, 4) == 3, "a packet in clear was refused")
        check(left.send(right, 6) == 3, "a packet in clear was refused")
        check(right.send(left, 4) == 0, "a packet was sent without a state to send it by")
    with two_hosts() as (left, right):
        protect(right, left, outer=4)
        check(left.send(right, 4) == 0, "a packet in clear passed")
        check(right.statistics()["XfrmInTmplMismatch"] == 3, right.statistics())


VARIANTS = [
    state_of(),
    state_of(direction=StateDirection.IN, lifetime=Lifetime(soft_seconds=60, hard_seconds=90)),
    state_of(direction=StateDirection.OUT, replay_window=0),
    state_of(direction=StateDirection.OUT, replay_window=0, esn=False),
    state_of(**OVER_IPV6, aead=CHACHA),
    state_of(aead=AES_256_GCM, replay_window=4096),
    state_of(esn=False, replay_window=0),
    state_of(esn=False, replay_window=32),
    state_of(esn=False, replay_window=33),
    state_of(aead=Aead(name="rfc4106(gcm(aes))", key=bytes(range(28)), icv_bits=64)),
    state_of(aead=None, authenc=AES_CBC),
    state_of(
        aead=None, authenc=replace(AES_CBC, mac="hmac(sha512)", mac_key=bytes(range(64)), icv_bits=256), esn=False
    ),
    state_of(mode=Mode.TRANSPORT),
    state_of(**OVER_IPV6, mode=Mode.TRANSPORT, flags=StateFlag.NOPMTUDISC),
    state_of(mode=Mode.BEET),
    state_of(mode=Mode.IPTFS, direction=StateDirection.IN),
    state_of(flags=StateFlag.DECAP_DSCP | StateFlag.NOECN),
    state_of(lifetime=Lifetime(soft_bytes=1, hard_bytes=2**63, soft_packets=3, hard_packets=2**40)),
    state_of(reqid=ReqId(0xFFFFFFFF), spi=Spi(0x100)),
    state_of(encapsulation=UdpPorts(source=4500, destination=40002), direction=StateDirection.OUT, replay_window=0),
    state_of(**OVER_IPV6, encapsulation=UdpPorts(source=1, destination=65535), mode=Mode.TRANSPORT),
]


def as_asked(shown: StateDump | None, asked: State) -> bool:
    return shown is not None and all(
        getattr(shown, field.name) == getattr(asked, field.name) for field in fields(State)
    )


def the_kernel_shows_the_states_that_we_wrote() -> None:
    with two_hosts() as (left, _):
        for variant in VARIANTS:
            left.xfrm.add_state(variant)
            shown = left.xfrm.get_state(variant.destination, variant.spi)
            check(as_asked(shown, variant), f"asked for {variant!r}, shown {shown!r}")
            check(left.xfrm.dump_states() == [shown], left.xfrm.dump_states())
            left.xfrm.delete_state(destination=variant.destination, spi=variant.spi, missing_ok=False)


def iproute2_sees_what_we_meant() -> None:
    with two_hosts() as (left, _):
        left.xfrm.add_state(state_of(lifetime=Lifetime(hard_packets=5, soft_seconds=60)))
        shown = ip_shows(left, "-s", "xfrm", "state")
        for words in (
            "src 192.0.2.1 dst 192.0.2.2 proto esp spi 0xc0000001(3221225473) reqid 4711(0x00001267) mode tunnel",
            "flag af-unspec esn",
            f"aead rfc4106(gcm(aes)) 0x{AES_GCM.key.hex()} (160 bits) 128",
            "replay_window 128, bitmap-length 4",
            "limit: soft (INF)(bytes), hard (INF)(bytes)",
            "limit: soft (INF)(packets), hard 5(packets)",
            "expire add: soft 60(sec), hard 0(sec)",
        ):
            check(words in shown, f"{words!r} is not in {shown!r}")


def we_see_what_iproute2_wrote() -> None:
    with two_hosts() as (left, _):
        key = AES_GCM.key.hex()
        ip_shows(
            left,
            *("xfrm", "state", "add", "src", "192.0.2.1", "dst", "192.0.2.2", "proto", "esp", "spi", "0xc0000001"),
            *("reqid", str(REQID), "mode", "tunnel", "replay-window", "128", "flag", "esn", "flag", "af-unspec"),
            *("aead", AES_GCM.name, f"0x{key}", "128"),
        )
        ip_shows(
            left,
            *("xfrm", "state", "add", "src", "2001:db8::1", "dst", "2001:db8::2", "proto", "esp", "spi", "0x200"),
            *("mode", "transport", "enc", "cbc(aes)", f"0x{key[:32]}", "auth", "hmac(sha256)", f"0x{key}"),
        )
        ip_shows(
            left,
            *("xfrm", "state", "add", "src", "192.0.2.1", "dst", "192.0.2.2", "proto", "ah", "spi", "0x300"),
            *("mode", "transport", "auth", "hmac(sha256)", f"0x{key}"),
        )
        ours, other = sorted(left.xfrm.dump_states(), key=lambda state: -state.spi)  # AH is not ESP
        check(as_asked(ours, state_of()), repr(ours))
        check((other.algorithm, other.aead, other.larval) == ("cbc(aes)", None, False), repr(other))
        # Without `auth-trunc` it is the kernel that says how much of the tag is left.
        key_bytes = AES_GCM.key
        expected = Authenc(
            cipher="cbc(aes)", cipher_key=key_bytes[:16], mac="hmac(sha256)", mac_key=key_bytes, icv_bits=96
        )
        check(other.authenc == expected, repr(other.authenc))


def a_second_state_with_the_same_spi_is_refused() -> None:
    with two_hosts() as (left, _):
        left.xfrm.add_state(state_of())
        expect(StateExists, lambda: left.xfrm.add_state(state_of(aead=CHACHA)))
        (state,) = left.xfrm.dump_states()
        check(state.aead == AES_GCM, repr(state))


def a_larval_state_is_filled_in_once() -> None:
    with two_hosts() as (left, _):
        source, destination = ip_address("192.0.2.2"), ip_address("192.0.2.1")
        spi = left.xfrm.allocate_spi(source=source, destination=destination, reqid=REQID)
        state = state_of(source=source, destination=destination, spi=spi)
        expect(StateExists, lambda: left.xfrm.add_state(state))
        left.xfrm.update_state(state)  # its direction is IN, said or not
        shown = left.xfrm.get_state(destination, spi)
        check(as_asked(shown, replace(state, direction=StateDirection.IN)), repr(shown))
        check(len(left.xfrm.dump_states()) == 1, left.xfrm.dump_states())
        # Once it has expired, or somebody deleted it, there is nothing to fill in.
        left.xfrm.delete_state(destination=destination, spi=spi)
        expect(NotFound, lambda: left.xfrm.update_state(state))


def the_kernel_says_what_it_does_not_like() -> None:
    with two_hosts() as (left, _):
        missing = expect(
            NotSupported, lambda: left.xfrm.add_state(state_of(aead=replace(AES_GCM, name="rfc4106(gcm(rot13))")))
        )
        check("AEAD algorithm not found" in str(missing), missing)
        wrong = expect(XfrmError, lambda: left.xfrm.add_state(state_of(aead=replace(AES_GCM, key=b"k" * 19))))
        check("6b6b" not in repr(wrong) and "kkk" not in repr(wrong), wrong)
        window = expect(XfrmError, lambda: left.xfrm.add_state(state_of(replay_window=0)))
        check(window.reason == "ESN replay window must be > 0", window)


def expect(kind: type[E], attempt: Callable[[], object]) -> E:
    try:
        attempt()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


STORIES: tuple[Callable[[], None], ...] = (
    the_kernel_can_do_everything,
    the_kernel_shows_the_states_that_we_wrote,
    iproute2_sees_what_we_meant,
    we_see_what_iproute2_wrote,
    a_second_state_with_the_same_spi_is_refused,
    a_larval_state_is_filled_in_once,
    the_kernel_says_what_it_does_not_like,
    the_wiretap_sees_what_is_in_clear,
    both_families_pass_through_one_pair_of_states_over_ipv4,
    both_families_pass_through_one_pair_of_states_over_ipv6,
    chacha20_passes_without_esn_and_with_the_old_replay_window,
    whatever_ike_negotiates_passes,
    iptfs_passes,
    a_state_that_has_carried_enough_is_told_once,
    esp_passes_in_udp_over_ipv4,
    esp_passes_in_udp_over_ipv6,
    esp_in_udp_needs_a_socket_that_takes_it,
    ike_passes_a_socket_that_takes_esp_and_nothing_else_does,
    a_state_takes_other_ports_and_counts_on,
    states_of_kernels_that_know_no_directions_pass,
    without_a_state_nothing_passes_and_nothing_is_in_clear,
    the_wrong_key_is_counted_as_forgery,
    optional_templates_accept_what_is_still_in_clear,
)


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


def main() -> None:
    Path(sys.argv[1]).write_text(json.dumps(tell(STORIES)))


if __name__ == "__main__":
    main()
