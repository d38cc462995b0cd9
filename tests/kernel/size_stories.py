"""How large packets become: the kernel makes of them what `hauberk_xfrm.overhead` computes. Told inside such a kernel.

`worlds` has one booted and starts this program (`python -m tests.kernel.size_stories RESULTS`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import ip_network
from itertools import product

from hauberk_ike import EspProposal, IkeProposal
from hauberk_ike.algorithms import ENCRYPTIONS, INTEGRITIES
from hauberk_ike.keys import derive_child_keys, expand_ike_keys
from hauberk_xfrm import (
    Action,
    AddPolicy,
    Aead,
    Authenc,
    Direction,
    EspSizes,
    Mode,
    Policy,
    Selector,
    State,
    Template,
)
from tests.kernel.two_hosts import (
    ESP,
    ETH_P_ALL,
    IN_UDP,
    PACKET_OUTGOING,
    REQID,
    UDP,
    Host,
    associate,
    check,
    encapsulation_sockets,
    inside,
    main,
    over,
    protect,
    state_of,
    two_hosts,
)

WIRE_MTU = 1500
PORT = 7779
IP_MTU, IPV6_MTU = 14, 24
"""Socket options: the largest packet for a connected socket's peer, as its kernel has it."""
HEADERS = {4: 28, 6: 48}
"""Of IP and UDP."""
INNER_BYTES = (*range(64, 64 + 17), 576, 1279, 1280, 1281, 1390)
"""Every remainder of a cipher's block, and some larger ones that fit."""


def sas() -> Generator[State, None, None]:
    """One of each cipher and tag that IKE negotiates."""
    keys = expand_ike_keys(IkeProposal.parse("aes128gcm16-prfsha256-x25519"), skeyseed=b"any", seed=b"thing")
    words = [cipher.word for cipher in ENCRYPTIONS.values() if cipher.is_aead]
    words += [f"aes128-{integrity}" for integrity in INTEGRITIES] + ["aes192-sha256", "aes256-sha256"]
    for word in words:
        key, _ = derive_child_keys(keys, EspProposal.parse(f"{word}-esn"), nonce_i=b"any", nonce_r=b"nonce")
        yield state_of(aead=Aead.of(key), authenc=Authenc.of(key))


def forget(*hosts: Host) -> None:
    """Removes all states."""
    for host in hosts:
        for state in host.xfrm.dump_states():
            host.xfrm.delete_state(destination=state.destination, spi=state.spi)


@contextmanager
def tapped(host: Host) -> Generator[Callable[[], list[int]], None, None]:
    """A function that returns the lengths of the ESP packets that have left since it was asked last."""
    with ExitStack() as opened:
        with inside(host.name):
            tap = opened.enter_context(
                socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL))
            )
        tap.bind((host.name, ETH_P_ALL))

        def lengths() -> list[int]:
            found: list[int] = []
            while True:
                try:
                    packet, (_, ethertype, direction, *_) = tap.recvfrom(65536)
                except BlockingIOError:
                    return found
                protocol = packet[9] if ethertype == 0x0800 else packet[6]
                if direction == PACKET_OUTGOING and protocol in (ESP, UDP):
                    found.append(len(packet))

        yield lengths


def protect_hosts(host: Host, peer: Host, *, outer: int) -> None:
    """Policies for all between the hosts' own addresses, in transport mode."""
    for direction, source, destination in ((Direction.OUT, host, peer), (Direction.IN, peer, host)):
        template = Template(
            source=source.addresses[outer], destination=destination.addresses[outer], reqid=REQID, mode=Mode.TRANSPORT
        )
        selector = Selector(
            source=ip_network(source.addresses[outer]),
            destination=ip_network(destination.addresses[outer]),
            protocol=UDP,
            destination_port=PORT,
        )
        policy = Policy(selector=selector, direction=direction, priority=1, action=Action.ALLOW, templates=(template,))
        check(host.xfrm.apply([AddPolicy(policy=policy)]) == [None], policy)


def compare(left: Host, right: Host, state: State, families: Iterable[int]) -> None:
    """What is computed for a state, what is on the wire, and what a socket is told of the largest packet."""
    sizes = EspSizes.of(state)
    transport = state.mode is Mode.TRANSPORT
    with tapped(left) as lengths:
        for family in families:
            kind = socket.AF_INET if family == 4 else socket.AF_INET6
            source, destination = (
                str(host.addresses[family] if transport else host.pods[family][1]) for host in (left, right)
            )
            with inside(left.name):
                sender = socket.socket(kind, socket.SOCK_DGRAM)
            with inside(right.name):
                receiver = socket.socket(kind, socket.SOCK_DGRAM)
            with sender, receiver:
                receiver.bind((destination, PORT))
                sender.bind((source, 0))
                sender.connect((destination, PORT))
                for inner in INNER_BYTES:
                    sender.send(bytes(inner - HEADERS[family]))
                expected = [sizes.packet_bytes(inner) for inner in INNER_BYTES]
                check(lengths() == expected, f"{state} {sizes} IPv{family}: {expected} computed")
                if state.mode is Mode.IPTFS:
                    continue
                told = sender.getsockopt(*((socket.IPPROTO_IP, IP_MTU), (socket.IPPROTO_IPV6, IPV6_MTU))[family == 6])
                inner_mtu = sizes.inner_mtu(WIRE_MTU)
                check(told == inner_mtu, f"{sizes} IPv{family}: {inner_mtu} computed, the kernel says {told}")
                check(sizes.packet_bytes(inner_mtu) <= WIRE_MTU < sizes.packet_bytes(inner_mtu + 1), sizes)


def each_cipher_in_tunnel_mode() -> None:
    for outer in (4, 6):
        with two_hosts() as (left, right):
            protect(left, right, outer=outer)
            for state in sas():
                whole = over(outer, state)
                associate(left, right, whole)
                compare(left, right, whole, (4, 6))
                forget(left, right)


def each_cipher_in_transport_mode() -> None:
    for outer in (4, 6):
        with two_hosts() as (left, right):
            protect_hosts(left, right, outer=outer)
            for state in sas():
                whole = over(outer, replace(state, mode=Mode.TRANSPORT))
                associate(left, right, whole)
                compare(left, right, whole, (outer,))
                forget(left, right)


def esp_in_udp() -> None:
    for outer, mode in product((4, 6), (Mode.TUNNEL, Mode.TRANSPORT)):
        with two_hosts() as (left, right), encapsulation_sockets(outer, left, right):
            state = over(outer, state_of(encapsulation=IN_UDP, mode=mode))
            associate(left, right, state)
            if mode is Mode.TUNNEL:
                protect(left, right, outer=outer, mode=mode)
            else:
                protect_hosts(left, right, outer=outer)
            compare(left, right, state, (4, 6) if mode is Mode.TUNNEL else (outer,))


def iptfs() -> None:
    for outer in (4, 6):
        with two_hosts() as (left, right):
            state = over(outer, state_of(mode=Mode.IPTFS))
            associate(left, right, state)
            protect(left, right, outer=outer, mode=Mode.IPTFS)
            compare(left, right, state, (4, 6))


STORIES: tuple[Callable[[], None], ...] = (
    each_cipher_in_tunnel_mode,
    each_cipher_in_transport_mode,
    esp_in_udp,
    iptfs,
)

if __name__ == "__main__":
    main(STORIES)
