"""What a kernel with ESP makes of what a state may have beside its key: marks, interface ids, offload, wide windows.

`worlds` has one booted and starts this program (`python -m tests.kernel.xfrm_attribute_stories RESULTS`). Each
story gets two hosts of its own (`two_hosts`).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network

from hauberk_xfrm import (
    Action,
    Direction,
    EventSocket,
    ExtraFlag,
    MappingChange,
    Mark,
    NotFound,
    Offload,
    Policy,
    Selector,
    Spi,
    StateDirection,
    Template,
    UdpPorts,
    XfrmError,
)
from tests.kernel.two_hosts import (
    ENCAPSULATION_PORT,
    ESP,
    ETH_P_ALL,
    IN_UDP,
    PACKET_OUTGOING,
    REQID,
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

WINDOW = 4096
EVERYTHING = ip_network("0.0.0.0/0")
ETHERNET_BYTES, IPV4_BYTES = 14, 20


def iproute2_sees_marks_interface_ids_and_flags() -> None:
    with two_hosts() as (left, _):
        left.xfrm.add_state(
            state_of(
                mark=Mark(value=0x10, mask=0xF0),
                output_mark=Mark(value=0x20, mask=0xFF),
                if_id=42,
                extra_flags=ExtraFlag.DONT_ENCAP_DSCP,
            )
        )
        shown = ip_shows(left, "-s", "xfrm", "state")
        for words in ("mark 0x10/0xf0", "output-mark 0x20/0xff", "if_id 0x2a", "extra_flag dont-encap-dscp"):
            check(words in shown, (words, shown))


def we_see_the_marks_and_interface_ids_that_iproute2_wrote() -> None:
    with two_hosts() as (left, _):
        ip_shows(
            left,
            *("xfrm", "state", "add", "src", "192.0.2.1", "dst", "192.0.2.2", "proto", "esp", "spi", "0xc0000001"),
            *("reqid", str(REQID), "mode", "tunnel", "aead", "rfc4106(gcm(aes))", f"0x{bytes(range(20)).hex()}", "128"),
            *("mark", "1", "mask", "3", "output-mark", "5", "mask", "7", "if_id", "9"),
        )
        (state,) = left.xfrm.dump_states()
        check(state.mark == Mark(value=1, mask=3), repr(state))
        check(state.output_mark == Mark(value=5, mask=7), repr(state))
        check(state.if_id == 9, repr(state))


def a_state_with_a_mark_is_found_by_it_alone() -> None:
    with two_hosts() as (left, _):
        mark = Mark(value=0x10, mask=0xF0)
        state = state_of(mark=mark)
        left.xfrm.add_state(state)
        check(left.xfrm.get_state(state.destination, state.spi) is None, "found without its mark")
        check(left.xfrm.get_state(state.destination, state.spi, mark) is not None, "not found by its mark")
        expect(NotFound, lambda: left.xfrm.delete_state(destination=state.destination, spi=state.spi, missing_ok=False))
        left.xfrm.delete_state(destination=state.destination, spi=state.spi, mark=mark, missing_ok=False)


def outer_packets_are_routed_by_the_output_mark() -> None:
    with two_hosts() as (left, right):
        associate(left, right, state_of(output_mark=Mark(value=7, mask=0xFF)))
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=4)
        packets_are_esp(left, right)
        ip_shows(left, "rule", "add", "fwmark", "7/0xff", "prohibit")
        check(left.send(right, 4) == 0, "ESP took another way than its mark's")
        ip_shows(left, "rule", "del", "fwmark", "7/0xff", "prohibit")
        check(left.send(right, 4) == 3, "afterwards")


def what_is_routed_into_an_xfrm_device_finds_the_states_of_its_interface_id() -> None:
    with two_hosts() as (left, right):
        for host, peer in ((left, right), (right, left)):
            ip_shows(host, "link", "add", "xfrm0", "type", "xfrm", "dev", host.name, "if_id", "42")
            ip_shows(host, "link", "set", "xfrm0", "up")
            ip_shows(host, "route", "replace", str(peer.pods[4]), "dev", "xfrm0")
            for direction, source, destination in (
                (Direction.OUT, host.addresses[4], peer.addresses[4]),
                (Direction.IN, None, host.addresses[4]),
            ):
                host.xfrm.add_policy(
                    Policy(
                        selector=Selector(source=EVERYTHING, destination=EVERYTHING),
                        direction=direction,
                        priority=1,
                        action=Action.ALLOW,
                        if_id=42,
                        templates=(Template(source=source, destination=destination, reqid=REQID),),
                    )
                )
        for sender, receiver, spi in ((left, right, 0xC0000001), (right, left, 0xC0000002)):
            state = state_of(source=sender.addresses[4], destination=receiver.addresses[4], spi=Spi(spi), if_id=42)
            receiver.xfrm.add_state(replace(state, direction=StateDirection.IN))
            sender.xfrm.add_state(replace(state, direction=StateDirection.OUT))
        with wiretap(left, right) as wire:
            check(left.send(right, 4) == 3 and right.send(left, 4) == 3, "through the device")
        check(wire["esp"] == 6 and wire["clear"] == 0, wire)
        # A state of another device is none of theirs.
        (outbound,) = [state for state in left.xfrm.dump_states() if state.direction is StateDirection.OUT]
        left.xfrm.delete_state(destination=outbound.destination, spi=outbound.spi, missing_ok=False)
        left.xfrm.add_state(replace(outbound.as_written(), if_id=43))
        check(left.send(right, 4) == 0, "by another device's state")


def larval_states_have_marks_and_interface_ids_too() -> None:
    with two_hosts() as (left, right):
        mark = Mark(value=1, mask=0xFF)
        spi = left.xfrm.allocate_spi(
            source=right.addresses[4], destination=left.addresses[4], reqid=REQID, mark=mark, if_id=42
        )
        (larval,) = left.xfrm.dump_states()
        check(larval.larval and (larval.mark, larval.if_id) == (mark, 42), repr(larval))
        state = state_of(
            source=right.addresses[4],
            destination=left.addresses[4],
            spi=spi,
            direction=StateDirection.IN,
            mark=mark,
            if_id=42,
        )
        left.xfrm.update_state(state)
        (filled,) = left.xfrm.dump_states()
        check(not filled.larval and filled.as_written() == state, repr(filled))


def a_device_that_has_no_offload_leaves_the_cryptography_to_the_kernel_and_refuses_packets() -> None:
    with two_hosts() as (left, right):
        for host in (left, right):
            with inside(host.name):
                index = socket.if_nametoindex(host.name)
            refused = expect(
                XfrmError,
                lambda host=host, index=index: host.xfrm.add_state(
                    state_of(direction=StateDirection.OUT, offload=Offload(interface=index, packet=True))
                ),
            )
            check(refused.errno == errno.EINVAL, refused)
        with inside(left.name):
            index = socket.if_nametoindex(left.name)
        associate(left, right, state_of(offload=Offload(interface=index)))
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=4)
        packets_are_esp(left, right)
        check({state.offload for state in left.xfrm.dump_states()} == {None}, left.xfrm.dump_states())


def captured(tap: socket.socket) -> list[bytes]:
    """The ESP that the tapped host has sent, as frames."""
    frames: list[bytes] = []
    while True:
        try:
            frame, (_, ethertype, direction, *_) = tap.recvfrom(65536)
        except BlockingIOError:
            return frames
        if direction == PACKET_OUTGOING and ethertype == 0x0800 and frame[ETHERNET_BYTES + 9] == ESP:
            frames.append(frame)


@contextmanager
def frames_of(host: Host) -> Generator[socket.socket, None, None]:
    with inside(host.name):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with tap:
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        tap.bind((host.name, ETH_P_ALL))
        tap.setblocking(False)
        yield tap


def a_replay_window_of_4096_takes_what_is_so_late_and_nothing_twice() -> None:
    count = WINDOW + 10
    with two_hosts() as (left, right):
        protect(left, right, outer=4)
        sending = state_of(direction=StateDirection.OUT)
        left.xfrm.add_state(sending)
        with frames_of(left) as tap:
            with inside(left.name):
                sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            frames: list[bytes] = []
            with sender:
                sender.bind((str(left.pods[4][1]), 0))
                for _ in range(count):
                    sender.sendto(b"x", (str(right.pods[4][1]), 9))
                    frames += captured(tap)
            sequences = [frame[ETHERNET_BYTES + IPV4_BYTES + 4 : ETHERNET_BYTES + IPV4_BYTES + 8] for frame in frames]
            check(sequences == [number.to_bytes(4) for number in range(1, count + 1)], len(frames))
            # Only now can the other end take them; they arrive anew, the last one first.
            right.xfrm.add_state(replace(sending, direction=StateDirection.IN, replay_window=WINDOW))
            shown = ip_shows(right, "xfrm", "state")
            check(f"replay_window {WINDOW}, bitmap-length {WINDOW // 32}" in shown, shown)
            newest = count
            oldest_taken = newest - WINDOW + 1
            for number in (newest, newest - 1, oldest_taken, oldest_taken - 1, 1, newest, oldest_taken):
                tap.send(frames[number - 1])
            (state,) = right.xfrm.dump_states()
            check(state.packets == 3, repr(state))
            check(state.sequence == newest, repr(state))
            # What lies below the window is taken for 2**32 later (RFC 4303 appendix A2.1), and so is forged.
            check(right.statistics()["XfrmInStateSeqError"] == state.replay_packets == 2, right.statistics())
            check(right.statistics()["XfrmInStateProtoError"] == state.integrity_failed == 2, right.statistics())
            check(state.replay_window == WINDOW and state.esn, repr(state))


def a_mapping_that_nobody_follows_is_told_again_after_a_while_only() -> None:
    with two_hosts() as (left, right), encapsulation_sockets(4, left, right):
        associate(left, right, state_of(encapsulation=IN_UDP))
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=4)
        (taking,) = [each for each in right.xfrm.dump_states() if each.source == left.addresses[4]]
        right.xfrm.delete_state(destination=taking.destination, spi=taking.spi)
        right.xfrm.add_state(replace(taking.as_written(), mapping_seconds=3600))
        (sending,) = [each for each in left.xfrm.dump_states() if each.source == left.addresses[4]]
        with inside(right.name):
            watched: EventSocket = right.xfrm.watch(MappingChange)
        try:
            for port in (40007, 40008):
                moved = UdpPorts(source=port, destination=ENCAPSULATION_PORT)
                left.xfrm.update_state(replace(sending.as_written(), encapsulation=moved))
                check(left.send(right, 4) == 3, port)
            told = watched.receive().told
        finally:
            watched.close()
        ports = [event.new_port for event in told if isinstance(event, MappingChange)]
        check(ports == [40007, 40008], told)


STORIES: tuple[Callable[[], None], ...] = (
    iproute2_sees_marks_interface_ids_and_flags,
    we_see_the_marks_and_interface_ids_that_iproute2_wrote,
    a_state_with_a_mark_is_found_by_it_alone,
    outer_packets_are_routed_by_the_output_mark,
    what_is_routed_into_an_xfrm_device_finds_the_states_of_its_interface_id,
    larval_states_have_marks_and_interface_ids_too,
    a_device_that_has_no_offload_leaves_the_cryptography_to_the_kernel_and_refuses_packets,
    a_replay_window_of_4096_takes_what_is_so_late_and_nothing_twice,
    a_mapping_that_nobody_follows_is_told_again_after_a_while_only,
)


if __name__ == "__main__":
    main(STORIES)
