"""What a kernel with ESP makes of packets that only an SA may carry (hauberk_xfrm.esp_probe).

`worlds` has one booted and starts this program (`python -m tests.kernel.esp_probe_stories RESULTS`). Each story
gets two hosts of its own (`two_hosts`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from hauberk_xfrm import EspProbe, Mode, ReqId, Spi, Template
from tests.kernel.two_hosts import (
    IN_UDP,
    OVER_IPV6,
    REQID,
    Host,
    associate,
    check,
    encapsulation_sockets,
    inside,
    main,
    protect,
    state_of,
    two_hosts,
    wiretap,
)


@contextmanager
def probes(left: Host, right: Host, family: int) -> Generator[tuple[EspProbe, EspProbe], None, None]:
    with inside(left.name):
        one = EspProbe(left.addresses[family], iptfs=True)
    with inside(right.name):
        other = EspProbe(right.addresses[family], iptfs=True)
    with one, other:
        yield one, other


def template(sender: Host, receiver: Host, family: int, mode: Mode = Mode.TUNNEL) -> Template:
    return Template(source=sender.addresses[family], destination=receiver.addresses[family], reqid=REQID, mode=mode)


def arrived(receiver: Host, family: int) -> int:
    """How many packets the receiver's inbound state has counted."""
    states = [state for state in receiver.xfrm.dump_states() if state.destination == receiver.addresses[family]]
    return sum(state.packets for state in states)


def passes(family: int, mode: Mode, *, kind: str = "esp", **state: object) -> None:
    with two_hosts() as (left, right), encapsulation_sockets(family, left, right):
        associate(left, right, state_of(mode=mode, **(OVER_IPV6 if family == 6 else {}), **state))
        with probes(left, right, family) as (one, other), wiretap(left, right) as wire:
            for _ in range(3):
                one.send(template(left, right, family, mode))
            other.send(template(right, left, family, mode))
            deadline = time.monotonic() + 2
            while (arrived(right, family), arrived(left, family)) != (3, 1):
                check(time.monotonic() < deadline, (arrived(right, family), arrived(left, family)))
                time.sleep(0.01)
            one.drain()
            other.drain()
        check(wire[kind] == 4 and wire["clear"] == 0, wire)
        for host in (left, right):
            trouble = {name: count for name, count in host.statistics().items() if count}
            check(not trouble, (host.name, trouble))


def a_probe_arrives_in_tunnel_mode() -> None:
    passes(4, Mode.TUNNEL)
    passes(6, Mode.TUNNEL)


def a_probe_arrives_in_transport_mode() -> None:
    passes(4, Mode.TRANSPORT)
    passes(6, Mode.TRANSPORT)


def a_probe_arrives_in_iptfs() -> None:
    passes(4, Mode.IPTFS)


def a_probe_arrives_in_udp() -> None:
    passes(4, Mode.TUNNEL, kind="esp in udp", encapsulation=IN_UDP)


def without_an_sa_nothing_is_sent() -> None:
    with two_hosts() as (left, right), probes(left, right, 4) as (one, _), wiretap(left, right) as wire:
        try:
            one.send(template(left, right, 4))
            check(False, "it was sent")
        except OSError:
            pass
    check(wire["clear"] == wire["esp"] == 0, wire)


def a_probe_passes_though_the_nodes_policies_are_about_pods() -> None:
    with two_hosts() as (left, right), probes(left, right, 4) as (one, _):
        associate(left, right, state_of())
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=4)
        one.send(template(left, right, 4))
        check(left.send(right, 4) == 3, "pods' packets pass as before")
        check(arrived(right, 4) == 4, arrived(right, 4))


def of_two_sas_from_one_second_either_may_carry_a_probe_and_its_counter_tells_which() -> None:
    """The newer one is first in its hash chain until the table grows, which turns chains round."""
    carried: set[tuple[int, ...]] = set()
    for attempt in range(12):
        with two_hosts() as (left, right), probes(left, right, 4) as (one, _):
            while time.time() % 1 > 0.5:
                time.sleep(0.01)
            associate(left, right, state_of())
            associate(left, right, state_of())
            for number in range(5 * (attempt % 2)):
                left.xfrm.add_state(state_of(spi=Spi(0xD0000000 + number), reqid=ReqId(77)))
                # It grows in a work of the kernel's, which may have to wait.
                time.sleep(0.05 * (attempt + 1))
            one.send(template(left, right, 4))
            sent = [s for s in left.xfrm.dump_states() if s.destination == right.addresses[4] and s.reqid == REQID]
            carried.add(tuple(state.packets for state in sent))
            check(sum(state.packets for state in sent) == 1, sent)
        if carried == {(0, 1), (1, 0)}:
            return
    check(False, carried)


STORIES: tuple[Callable[[], None], ...] = (
    a_probe_arrives_in_tunnel_mode,
    a_probe_arrives_in_transport_mode,
    a_probe_arrives_in_iptfs,
    a_probe_arrives_in_udp,
    without_an_sa_nothing_is_sent,
    a_probe_passes_though_the_nodes_policies_are_about_pods,
    of_two_sas_from_one_second_either_may_carry_a_probe_and_its_counter_tells_which,
)

if __name__ == "__main__":
    main(STORIES)
