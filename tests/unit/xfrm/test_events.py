"""What the kernel says by itself is read as pyroute2 writes it, and nothing that is missed goes unnoticed."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_xfrm import (
    Acquire,
    Action,
    Direction,
    Event,
    Events,
    Expiry,
    Flush,
    IpAddress,
    MappingChange,
    Migration,
    Mode,
    Policy,
    PolicyFlush,
    Removal,
    ReqId,
    Selector,
    Spi,
    State,
    Template,
)
from hauberk_xfrm.address import family_of
from hauberk_xfrm.attribute import Malformed, build_attribute
from hauberk_xfrm.encoder import encode_state_id
from hauberk_xfrm.event_decoder import decode_event
from hauberk_xfrm.events import Collector
from hauberk_xfrm.layout import NLMSGHDR, MessageType
from hauberk_xfrm.messages import UserAcquire, UserExpire, UserMapping, UserPolicyId, build_body
from hauberk_xfrm.netlink_endpoint import Received, parse_messages
from tests.unit.xfrm.pyroute2_fields import move_fields, policy_attributes, policy_fields, selector_fields
from tests.unit.xfrm.strategies import (
    addresses,
    families,
    migrations,
    policies,
    selectors,
    states,
    templates,
    uint16,
    uint32,
    unhurried,
)

ESP = 50


def expire(state: State, *, hard: bool) -> bytes:
    return build_body(
        UserExpire(),
        id_daddr=state.destination.packed,
        id_spi=state.spi,
        id_proto=ESP,
        saddr=state.source.packed,
        reqid=state.reqid,
        family=family_of(state.source),
        hard=int(hard),
    )


def expiry(state: State, *, hard: bool) -> Expiry:
    return Expiry(destination=state.destination, spi=state.spi, reqid=state.reqid, hard=hard)


@unhurried
@given(states(), st.booleans())
def test_an_expiry_comes_back_as_it_went(state: State, hard: bool) -> None:
    assert decode_event(MessageType.EXPIRE, expire(state, hard=hard)) == expiry(state, hard=hard)


@unhurried
@given(states())
def test_a_removal_comes_back_as_it_went(state: State) -> None:
    body = encode_state_id(state.destination, state.spi) + b"\x08\x00\x01\x00 and attributes"
    assert decode_event(MessageType.DELSA, body) == Removal(destination=state.destination, spi=state.spi)


@pytest.mark.parametrize(("protocol", "flushed"), [(ESP, True), (0, True), (255, True), (51, False)])
def test_a_flush_counts_where_it_is_about_esp(protocol: int, flushed: bool) -> None:
    assert decode_event(MessageType.FLUSHSA, bytes([protocol])) == (Flush() if flushed else None)


@pytest.mark.parametrize(
    ("attributes", "flushed"),
    [(b"", True), (build_attribute(16, bytes(6)), True), (build_attribute(16, b"\x01" + bytes(5)), False)],
)
def test_a_flush_of_policies_counts_where_it_is_about_the_main_ones(attributes: bytes, flushed: bool) -> None:
    assert decode_event(MessageType.FLUSHPOLICY, attributes) == (PolicyFlush() if flushed else None)


def acquire(
    policy: Policy, template: Template, packet: Selector, *, source: IpAddress, destination: IpAddress, sequence: int
) -> bytes:
    return build_body(
        UserAcquire(),
        id_daddr=destination.packed,
        id_proto=template.protocol,
        saddr=source.packed,
        **selector_fields(packet),
        **{f"policy_{name}": value for name, value in policy_fields(policy).items()},
        seq=sequence,
        attrs=policy_attributes(policy),
    )


@unhurried
@given(policies, templates(), selectors(), uint32, st.data())
def test_an_acquire_comes_back_as_it_went(
    policy: Policy, template: Template, packet: Selector, sequence: int, data: st.DataObject
) -> None:
    template = replace(template, protocol=ESP)
    policy = replace(policy, templates=(template,))
    source = data.draw(addresses(template.destination.version))
    body = acquire(policy, template, packet, source=source, destination=template.destination, sequence=sequence)
    asked = decode_event(MessageType.ACQUIRE, body)
    assert asked == Acquire(
        source=source,
        destination=template.destination,
        selector=packet,
        policy=policy,
        template=template,
        sequence=sequence,
    )
    assert isinstance(asked, Acquire)
    assert asked.reqid == template.reqid


def test_of_several_templates_the_one_that_lacks_its_state_is_told() -> None:
    first, second, other = (ip_address(f"192.0.2.{number}") for number in (1, 2, 3))
    bundle = (
        Template(source=first, destination=second, reqid=ReqId(1), protocol=51),  # AH to the same end
        Template(source=first, destination=other, reqid=ReqId(2)),
        Template(source=first, destination=second, reqid=ReqId(3)),
    )
    policy = policy_with(*bundle)
    body = acquire(policy, bundle[2], policy.selector, source=first, destination=second, sequence=1)
    asked = decode_event(MessageType.ACQUIRE, body)
    assert isinstance(asked, Acquire)
    assert asked.reqid == ReqId(3)


def test_a_template_with_open_ends_gets_the_packets() -> None:
    here, there = ip_address("2001:db8::1"), ip_address("2001:db8::2")
    template = Template(source=None, destination=ip_address("::"), reqid=ReqId(1), mode=Mode.TRANSPORT)
    policy = policy_with(template)
    body = acquire(policy, template, policy.selector, source=here, destination=there, sequence=1)
    asked = decode_event(MessageType.ACQUIRE, body)
    assert isinstance(asked, Acquire)
    assert (asked.source, asked.destination) == (here, there)


def policy_with(*bundle: Template) -> Policy:
    return Policy(
        selector=Selector(source=ip_network("10.244.1.1/32"), destination=ip_network("10.244.2.1/32"), protocol=17),
        direction=Direction.OUT,
        priority=1,
        action=Action.ALLOW,
        templates=bundle,
    )


@unhurried
@given(families, uint32, uint32, uint16, uint16, st.data())
def test_a_change_of_mapping_comes_back_as_it_went(
    family: int, spi: int, reqid: int, old_port: int, new_port: int, data: st.DataObject
) -> None:
    destination, old, new = (data.draw(addresses(family)) for _ in range(3))
    body = build_body(
        UserMapping(),
        id_daddr=destination.packed,
        id_spi=spi,
        id_family=family_of(destination),
        id_proto=ESP,
        reqid=reqid,
        old_saddr=old.packed,
        new_saddr=new.packed,
        old_sport=old_port,
        new_sport=new_port,
    )
    assert decode_event(MessageType.MAPPING, body) == MappingChange(
        destination=destination,
        spi=Spi(spi),
        reqid=ReqId(reqid),
        old_source=old,
        old_port=old_port,
        new_source=new,
        new_port=new_port,
    )


@unhurried
@given(migrations)
def test_a_migration_comes_back_as_it_went(migration: Migration) -> None:
    body = build_body(
        UserPolicyId(),
        **selector_fields(migration.selector),
        dir=int(migration.direction),
        attrs=[
            ("XFRMA_POLICY_TYPE", {"type": int(migration.type)}),
            *(("XFRMA_MIGRATE", move_fields(0, move)) for move in migration.moves),  # one each, as build_migrate has it
        ],
    )
    assert decode_event(MessageType.MIGRATE, body) == replace(migration, if_id=0, encapsulation=None)


@unhurried
@given(states(), st.sampled_from([MessageType.EXPIRE, MessageType.ACQUIRE, MessageType.NEWSA, 0xFF]))
def test_what_is_not_about_esp_is_passed_over(state: State, kind: int) -> None:
    ah = build_body(UserExpire(), id_proto=51, family=family_of(state.source), hard=1)
    assert decode_event(kind, ah + bytes(100)) is None


@unhurried
@given(st.sampled_from(MessageType), st.binary(max_size=400), st.integers(0, 300), states())
def test_any_bytes_are_an_event_or_malformed(kind: int, data: bytes, cut: int, state: State) -> None:
    for body in (data, expire(state, hard=False)[:cut] + data):
        with suppress(Malformed):
            decode_event(kind, body)


@unhurried
@given(st.binary(max_size=200))
def test_any_datagram_is_messages_or_malformed(data: bytes) -> None:
    with suppress(Malformed):
        parse_messages(data)


def test_a_datagram_holds_several_messages() -> None:
    def message(kind: int, body: bytes) -> bytes:
        return NLMSGHDR.pack(NLMSGHDR.size + len(body), kind, 2, 7, 0) + body + bytes(-len(body) % 4)

    assert parse_messages(message(0x18, b"abcde") + message(0x26, b"")) == [(0x18, 2, 7, b"abcde"), (0x26, 2, 7, b"")]
    with pytest.raises(Malformed):
        parse_messages(message(0x18, b"abcdefgh")[:-1])


def replies(*given: list[Received] | int) -> Callable[[], list[Received]]:
    """A socket: messages of a datagram each, or errnos; then nothing more."""
    left: Iterator[list[Received] | int] = iter((*given, errno.EAGAIN))

    def receive() -> list[Received]:
        reply = next(left)
        if isinstance(reply, int):
            raise OSError(reply, "")
        return reply

    return receive


def expired(state: State, *, hard: bool = False) -> Received:
    return (MessageType.EXPIRE, 0, 0, expire(state, hard=hard))


@unhurried
@given(states())
def test_events_are_told_in_order(state: State) -> None:
    collector = Collector(replies([expired(state), expired(state, hard=True)], errno.EINTR, [expired(state)]))
    told: tuple[Event, ...] = tuple(expiry(state, hard=hard) for hard in (False, True, False))
    assert collector.collect() == Events(told=told)


@unhurried
@given(states())
def test_what_could_not_be_held_is_said_to_be_missed_once_nothing_is_left(state: State) -> None:
    # Whatever happens until the socket is empty is dropped as well, so that a dump made before would miss it.
    left = [[expired(state)]] * 100
    collector = Collector(replies(errno.ENOBUFS, *left))
    first = collector.collect()
    assert not first.missed
    assert 0 < len(first.told) < 100
    second = collector.collect()
    assert second.missed
    assert len(first.told) + len(second.told) == 100


def test_an_overrun_is_told_once() -> None:
    collector = Collector(replies(errno.ENOBUFS, errno.EAGAIN))
    assert collector.collect() == Events(missed=True)
    assert collector.collect() == Events()


@pytest.mark.parametrize(
    "nonsense", [[(MessageType.EXPIRE, 0, 0, b"too short")], errno.EPROTO], ids=["an event", "a datagram"]
)
def test_what_could_not_be_understood_is_missed_as_well(nonsense: list[Received] | int) -> None:
    assert Collector(replies(nonsense)).collect() == Events(missed=True)


def test_a_broken_socket_is_not_silence() -> None:
    with pytest.raises(OSError, match=str(errno.EBADF)):
        Collector(replies(errno.EBADF)).collect()
