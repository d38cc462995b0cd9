"""What a kernel with ESP says by itself, and what it is asked beside states and policies, told inside such a kernel.

`worlds` has one booted and starts this program (`python -m tests.kernel.xfrm_event_stories RESULTS`). Each story
gets two hosts of its own (`two_hosts`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import product

from hauberk_xfrm import (
    Acquire,
    AddState,
    Direction,
    Event,
    Events,
    EventSocket,
    Expiry,
    Flush,
    Lifetime,
    MappingChange,
    Migration,
    Move,
    NotFound,
    PolicyFlush,
    Removal,
    ReqId,
    Selector,
    Spi,
    State,
    StateDirection,
    UdpPorts,
)
from tests.kernel.two_hosts import (
    ENCAPSULATION_PORT,
    IN_UDP,
    OVER_IPV6,
    REQID,
    UDP,
    Host,
    associate,
    check,
    encapsulation_sockets,
    expect,
    inside,
    ip_shows,
    main,
    packets_are_esp,
    protect,
    state_of,
    two_hosts,
    wiretap,
)

SHORT_BUFFER_BYTES = 4096
"""What an event socket that is to overrun can hold: a handful of events."""


@contextmanager
def watching(host: Host, *kinds: type[Event]) -> Generator[EventSocket, None, None]:
    with inside(host.name), closing(host.xfrm.watch(*kinds)) as watched:
        yield watched


def all_of(watched: EventSocket) -> Events:
    """Everything that has come, however many calls that takes."""
    told: list[Event] = []
    missed = False
    while True:
        events = watched.receive()
        told += events.told
        missed |= events.missed
        if not events.told:
            return Events(told=tuple(told), missed=missed)


def a_state_that_has_carried_enough_is_told_once() -> None:
    with two_hosts() as (left, right):
        associate(left, right, state_of(lifetime=Lifetime(soft_packets=2)))
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=4)
        with watching(left, Expiry) as watched:
            packets_are_esp(left, right)
            expiries = all_of(watched)
        worn = [state for state in left.xfrm.dump_states() if state.is_worn]
        check(len(worn) == 2, worn)
        expected = {Expiry(destination=state.destination, spi=state.spi, reqid=REQID, hard=False) for state in worn}
        check(set(expiries.told) == expected, expiries)
        check(len(expiries.told) == 2 and not expiries.missed, expiries)


def a_state_whose_time_is_over_is_gone_and_told() -> None:
    with two_hosts() as (left, _), watching(left, Expiry) as watched:
        state = state_of(**OVER_IPV6, lifetime=Lifetime(hard_seconds=1))
        left.xfrm.add_state(state)
        deadline = time.monotonic() + 10
        while not (events := all_of(watched)).told:
            check(time.monotonic() < deadline, "nothing is told")
            time.sleep(0.05)
        hard = Expiry(destination=state.destination, spi=state.spi, reqid=REQID, hard=True)
        check(events == Events(told=(hard,)), events)
        check(left.xfrm.dump_states() == [], left.xfrm.dump_states())


def a_packet_without_a_state_asks_for_one() -> None:
    for outer, inner in product((4, 6), repeat=2):
        with two_hosts() as (left, right):
            protect(left, right, outer=outer)
            with watching(left, Acquire) as watched:
                left.send(right, inner, count=1)
                (acquire,) = all_of(watched).told
            assert isinstance(acquire, Acquire), acquire
            (larval,) = left.xfrm.dump_states()
            check(larval.larval and larval.reqid == acquire.reqid == REQID and acquire.sequence > 0, acquire)
            check(acquire.source == larval.source == left.addresses[outer], acquire)
            check(acquire.destination == larval.destination == right.addresses[outer], acquire)
            packet, policy = acquire.selector, acquire.policy
            check(packet.source == ip_network(left.pods[inner][1]), acquire)
            check(packet.destination == ip_network(right.pods[inner][1]), acquire)
            check(packet.protocol == UDP and packet.destination_port > 0, acquire)
            check(policy in left.xfrm.dump_policies() and policy.direction is Direction.OUT, policy)
            check(acquire.template in policy.templates, acquire)


def without_anybody_who_listens_nothing_asks() -> None:
    with two_hosts() as (left, right):
        protect(left, right, outer=4)
        with watching(left, Expiry, MappingChange, Migration) as watched:
            check(left.send(right, 4, count=1) == 0, "a packet passed without a state")
            check(all_of(watched) == Events(), "something was told")
        check(left.xfrm.dump_states() == [], left.xfrm.dump_states())


def esp_from_another_port_is_told() -> None:
    for family in (4, 6):
        over = {} if family == 4 else OVER_IPV6
        with two_hosts() as (left, right), encapsulation_sockets(family, left, right):
            associate(left, right, state_of(**over, encapsulation=IN_UDP))
            for host, peer in ((left, right), (right, left)):
                protect(host, peer, outer=family)
            with watching(right, MappingChange) as watched:
                check(left.send(right, 4) == 3, "before")
                check(all_of(watched) == Events(), "a mapping was told that has not changed")
                # As if a NAT had given left another port.
                (sending,) = [each for each in left.xfrm.dump_states() if each.source == left.addresses[family]]
                moved = UdpPorts(source=40007, destination=ENCAPSULATION_PORT)
                left.xfrm.update_state(replace(sending.as_written(), encapsulation=moved))
                check(left.send(right, 4) == 3, "from another port")
                told = all_of(watched).told
                change = MappingChange(
                    destination=right.addresses[family],
                    spi=sending.spi,
                    reqid=REQID,
                    old_source=left.addresses[family],
                    old_port=ENCAPSULATION_PORT,
                    new_source=left.addresses[family],
                    new_port=40007,
                )
                check(told == (change,) * 3, told)  # with every packet, as nobody does anything
                (taking,) = [each for each in right.xfrm.dump_states() if each.spi == sending.spi]
                right.xfrm.update_state(replace(taking.as_written(), encapsulation=moved))
                check(left.send(right, 4) == 3, "followed")
                check(all_of(watched) == Events(), "what was followed was told again")


def move(old: Host, peer: Host, *, outbound: bool) -> Move:
    """What is between left (as `old`) and its peer goes from IPv4's addresses to IPv6's."""
    ends = (old, peer) if outbound else (peer, old)
    return Move(
        old_source=ends[0].addresses[4],
        old_destination=ends[1].addresses[4],
        new_source=ends[0].addresses[6],
        new_destination=ends[1].addresses[6],
        reqid=REQID,
    )


def migration(host: Host, peer: Host, inner: int) -> Migration:
    return Migration(
        direction=Direction.OUT,
        selector=Selector(source=host.pods[inner], destination=peer.pods[inner]),
        moves=(move(host, peer, outbound=True),),
    )


def a_tunnel_moves_to_other_addresses_with_its_keys_and_counters() -> None:
    with two_hosts() as (left, right):
        associate(left, right, state_of())
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=4)
        check(left.send(right, 4) == 3 and right.send(left, 4) == 3, "before")
        before = {state.spi: state for state in left.xfrm.dump_states()}
        with watching(left, Migration) as watched:
            left.xfrm.migrate(migration(left, right, 4))
            check(all_of(watched) == Events(told=(migration(left, right, 4),)), "not told")
        out = next(state for state in left.xfrm.dump_states() if state.source == left.addresses[6])
        was = before[out.spi]
        check((out.destination, out.aead, out.sequence) == (right.addresses[6], was.aead, 3), (was, repr(out)))
        (policy,) = [p for p in left.xfrm.dump_policies() if p.selector == migration(left, right, 4).selector]
        check(policy.templates[0].destination == right.addresses[6], policy)
        shown = ip_shows(left, "xfrm", "state")
        check(f"src 2001:db8::1 dst 2001:db8::2 proto esp spi {out.spi:#010x}" in shown, shown)
        # The other end takes it there, once its own state has moved.
        right.xfrm.delete_state(destination=right.addresses[4], spi=out.spi, missing_ok=False)
        right.xfrm.add_state(replace(out.as_written(), direction=StateDirection.IN, replay_window=128))
        policies = [p for p in right.xfrm.dump_policies() if p.direction is not Direction.OUT]
        for each in policies:
            opened = replace(each.templates[0], destination=right.addresses[6])
            right.xfrm.update_policy(replace(each, templates=(opened,)))
        with wiretap(left) as wire:
            check(left.send(right, 4) == 3, "after")
        check(wire["esp"] == 3 and wire["clear"] == 0, wire)


def what_is_not_there_does_not_move() -> None:
    with two_hosts() as (left, right):
        expect(NotFound, lambda: left.xfrm.migrate(migration(left, right, 4)))


def the_tables_say_how_full_they_are() -> None:
    with two_hosts() as (left, right):
        associate(left, right, state_of())
        protect(left, right, outer=4)
        table = left.xfrm.policy_table()
        check((table.inbound, table.outbound, table.forward) == (2, 2, 2), table)
        check(
            f"IN {table.inbound} OUT {table.outbound} FWD {table.forward}" in ip_shows(left, "xfrm", "policy", "count"),
            table,
        )
        check(left.xfrm.state_table().states == 2, left.xfrm.state_table())


def whatever_is_deleted_is_told_and_all_at_once_once() -> None:
    with two_hosts() as (left, right), watching(left, Removal, Flush) as watched:
        associate(left, right, state_of())
        (out,) = [s for s in left.xfrm.dump_states() if s.destination == right.addresses[4]]
        left.xfrm.delete_state(destination=out.destination, spi=out.spi)
        check(all_of(watched) == Events(told=(Removal(destination=out.destination, spi=out.spi),)), "not told")
        ip_shows(left, "xfrm", "state", "flush")
        check(all_of(watched) == Events(told=(Flush(),)), "a flush is not told")


def a_flush_of_policies_is_told_and_no_other_change_of_them() -> None:
    with two_hosts() as (left, right), watching(left, PolicyFlush) as watched:
        protect(left, right, outer=4)
        (first, *_) = left.xfrm.dump_policies()
        left.xfrm.update_policy(first)
        left.xfrm.delete_policy(first)
        check(all_of(watched) == Events(), "what was not to be heard is told")
        ip_shows(left, "xfrm", "policy", "flush")
        check(all_of(watched) == Events(told=(PolicyFlush(),)), "a flush is not told")


def an_overrun_is_told_when_nothing_is_left_to_read() -> None:
    with two_hosts() as (left, _), inside(left.name):
        mortal = [
            state_of(spi=Spi(0x1000 + number), reqid=ReqId(1 + number), lifetime=Lifetime(hard_seconds=1))
            for number in range(500)
        ]
        with closing(EventSocket((Expiry,), receive_buffer_bytes=SHORT_BUFFER_BYTES)) as watched:
            check(left.xfrm.apply([AddState(state=state) for state in mortal]) == [None] * 500, "not added")
            deadline = time.monotonic() + 20
            while left.xfrm.state_table().states:
                check(time.monotonic() < deadline, left.xfrm.state_table())
                time.sleep(0.05)
            events = all_of(watched)
            check(events.missed and 0 < len(events.told) < 500, (events.missed, len(events.told)))
            # What follows is heard again.
            last: State = state_of(lifetime=Lifetime(hard_seconds=1), **OVER_IPV6)
            left.xfrm.add_state(last)
            while not (events := all_of(watched)).told:
                check(time.monotonic() < deadline + 20, "deaf after an overrun")
                time.sleep(0.05)
            expected = Expiry(destination=ip_address("2001:db8::2"), spi=last.spi, reqid=REQID, hard=True)
            check(events == Events(told=(expected,)), events)


STORIES: tuple[Callable[[], None], ...] = (
    a_state_that_has_carried_enough_is_told_once,
    a_state_whose_time_is_over_is_gone_and_told,
    a_packet_without_a_state_asks_for_one,
    without_anybody_who_listens_nothing_asks,
    esp_from_another_port_is_told,
    a_tunnel_moves_to_other_addresses_with_its_keys_and_counters,
    what_is_not_there_does_not_move,
    the_tables_say_how_full_they_are,
    whatever_is_deleted_is_told_and_all_at_once_once,
    a_flush_of_policies_is_told_and_no_other_change_of_them,
    an_overrun_is_told_when_nothing_is_left_to_read,
)


if __name__ == "__main__":
    main(STORIES)
