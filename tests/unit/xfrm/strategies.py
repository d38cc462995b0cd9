"""Hypothesis strategies for the values of this package, all of which the kernel's structures can hold."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

from hypothesis import settings
from hypothesis import strategies as st

from hauberk_xfrm import (
    Action,
    Aead,
    Authenc,
    Direction,
    ExtraFlag,
    IpAddress,
    IpNetwork,
    IptfsIn,
    IptfsOut,
    Lifetime,
    Mark,
    Migration,
    Mode,
    Move,
    Offload,
    Policy,
    PolicyFlag,
    PolicyType,
    ReqId,
    Selector,
    Spi,
    State,
    StateDirection,
    StateFlag,
    Template,
    UdpPorts,
)

unhurried = settings(deadline=None, max_examples=60)
"""For machines that are busy with other things."""

uint8 = st.integers(0, 0xFF)
uint16 = st.integers(0, 0xFFFF)
uint32 = st.integers(0, 0xFFFFFFFF)
uint64 = st.integers(0, 0xFFFFFFFFFFFFFFFF)
limits = st.none() | st.integers(1, 2**64 - 2)
families = st.sampled_from((4, 6))


# Plain numbers: hypothesis' own addresses prefer special ones, at ten times the cost.
_ADDRESSES: dict[int, st.SearchStrategy[IpAddress]] = {
    4: st.integers(0, 2**32 - 1).map(IPv4Address),
    6: st.integers(0, 2**128 - 1).map(IPv6Address),
}


def addresses(family: int) -> st.SearchStrategy[IpAddress]:
    return _ADDRESSES[family]


@st.composite
def networks(draw: st.DrawFn, family: int) -> IpNetwork:
    address = draw(addresses(family))
    return ip_network((address, draw(st.integers(0, address.max_prefixlen))), strict=False)


@st.composite
def selectors(draw: st.DrawFn) -> Selector:
    family = draw(families)
    return Selector(
        source=draw(networks(family)),
        destination=draw(networks(family)),
        protocol=draw(uint8),
        source_port=draw(uint16),
        destination_port=draw(uint16),
        source_port_mask=draw(st.none() | uint16),
        destination_port_mask=draw(st.none() | uint16),
        interface=draw(st.integers(0, 0x7FFFFFFF)),
        user=draw(uint32),
    )


@st.composite
def templates(draw: st.DrawFn) -> Template:
    family = draw(families)
    return Template(
        source=draw(st.none() | addresses(family).filter(lambda address: int(address) != 0)),
        destination=draw(addresses(family)),
        reqid=ReqId(draw(uint32)),
        mode=draw(st.sampled_from(Mode)),
        optional=draw(st.booleans()),
        protocol=draw(uint8),
        spi=draw(uint32),
    )


policies = st.builds(
    Policy,
    selector=selectors(),
    direction=st.sampled_from(Direction),
    priority=uint32,
    action=st.sampled_from(Action),
    templates=st.lists(templates(), max_size=6).map(tuple),
    mark=st.builds(Mark, value=uint32, mask=uint32),
    if_id=uint32,
    type=st.sampled_from(PolicyType),
    flags=uint8.map(PolicyFlag),
)

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789(),", min_size=1, max_size=63)
keys = st.binary(min_size=1, max_size=64).filter(any)
aeads = st.builds(Aead, name=names, key=keys, icv_bits=uint32)
authencs = st.builds(Authenc, cipher=names, cipher_key=keys, mac=names, mac_key=keys, icv_bits=uint32)

lifetimes = st.builds(
    Lifetime,
    soft_bytes=limits,
    hard_bytes=limits,
    soft_packets=limits,
    hard_packets=limits,
    soft_seconds=limits,
    hard_seconds=limits,
)


udp_ports = st.builds(UdpPorts, source=uint16, destination=uint16)


marks = st.builds(Mark, value=uint32, mask=uint32)
offloads = st.builds(Offload, interface=st.integers(1, 0x7FFFFFFF), packet=st.booleans())


iptfs_outs = st.builds(
    IptfsOut,
    dont_fragment=st.booleans(),
    init_delay_microseconds=uint32,
    max_queue_bytes=uint32,
    packet_bytes=uint32,
)
iptfs_ins = st.builds(IptfsIn, drop_microseconds=uint32, reorder_packets=uint16)


@st.composite
def states(draw: st.DrawFn) -> State:
    family = draw(families)
    algorithm = draw(aeads | authencs)
    direction = draw(st.none() | st.sampled_from(StateDirection))
    return State(
        source=draw(addresses(family)),
        destination=draw(addresses(family)),
        spi=Spi(draw(uint32)),
        reqid=ReqId(draw(uint32)),
        mode=draw(st.sampled_from(Mode)),
        aead=algorithm if isinstance(algorithm, Aead) else None,
        authenc=algorithm if isinstance(algorithm, Authenc) else None,
        replay_window=draw(st.integers(0, 4096)),
        esn=draw(st.booleans()),
        direction=direction,
        flags=StateFlag(draw(st.integers(0, 127)) & ~32),
        extra_flags=ExtraFlag(draw(st.integers(0, 3))),
        encapsulation=draw(st.none() | udp_ports),
        lifetime=draw(lifetimes),
        mark=draw(marks),
        output_mark=draw(marks),
        if_id=draw(uint32),
        offload=None if direction is None else draw(st.none() | offloads),
        mapping_seconds=draw(uint32),
        created_at=draw(st.none() | uint64),
        iptfs=draw(st.none() | iptfs_outs | iptfs_ins),
    )


@st.composite
def moves(draw: st.DrawFn) -> Move:
    old, new = draw(families), draw(families)
    return Move(
        old_source=draw(addresses(old)),
        old_destination=draw(addresses(old)),
        new_source=draw(addresses(new)),
        new_destination=draw(addresses(new)),
        reqid=ReqId(draw(uint32)),
        mode=draw(st.sampled_from(Mode)),
    )


migrations = st.builds(
    Migration,
    direction=st.sampled_from(Direction),
    selector=selectors(),
    moves=st.lists(moves(), min_size=1, max_size=6).map(tuple),
    if_id=uint32,
    type=st.sampled_from(PolicyType),
    encapsulation=st.none() | udp_ports,
)
