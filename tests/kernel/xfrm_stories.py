"""What hauberk_xfrm promises of a kernel with ESP, told inside such a kernel: packets, and the tables that they meet.

`worlds` has one booted and starts this program (`python -m tests.kernel.xfrm_stories RESULTS`). Each story gets
two hosts of its own (`two_hosts`). RESULTS gets a JSON object: the story's name, and null or what went wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields, replace
from ipaddress import ip_address
from itertools import product

from hauberk_ike import EspProposal, IkeProposal
from hauberk_ike.algorithms import ENCRYPTIONS, INTEGRITIES
from hauberk_ike.keys import derive_child_keys, expand_ike_keys
from hauberk_xfrm import (
    Aead,
    Authenc,
    ExtraFlag,
    IptfsIn,
    IptfsOut,
    Lifetime,
    Mark,
    Mode,
    NotFound,
    NotSupported,
    ReqId,
    Spi,
    State,
    StateDirection,
    StateDump,
    StateExists,
    StateFlag,
    UdpPorts,
    XfrmError,
)
from tests.kernel.two_hosts import (
    AES_256_GCM,
    AES_CBC,
    AES_GCM,
    CHACHA,
    ENCAPSULATION_PORT,
    IN_UDP,
    OVER_IPV6,
    REQID,
    associate,
    check,
    encapsulation_sockets,
    expect,
    ip_shows,
    main,
    packets_are_esp,
    protect,
    state_of,
    two_hosts,
    wiretap,
)


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


def iptfs_passes() -> None:
    with two_hosts() as (left, right):
        associate(left, right, state_of(mode=Mode.IPTFS))
        for host, peer in ((left, right), (right, left)):
            protect(host, peer, outer=4, mode=Mode.IPTFS)
        packets_are_esp(left, right)


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


def of_two_sas_the_one_created_last_carries_whatever_the_clock_and_the_table_say() -> None:
    now = int(time.time())
    for earlier, later in ((now + 7, now + 8), (now - 8, now - 7)):
        for last_is_second, table_grows in product((True, False), repeat=2):
            with two_hosts() as (left, right):
                seconds = (earlier, later) if last_is_second else (later, earlier)
                for second in seconds:
                    associate(left, right, state_of(created_at=second))
                for number in range(8 * table_grows):
                    left.xfrm.add_state(state_of(spi=Spi(0xD0000000 + number), reqid=ReqId(77)))
                    time.sleep(0.05)  # It grows in a work of the kernel's.
                for host, peer in ((left, right), (right, left)):
                    protect(host, peer, outer=4)
                check(left.send(right, 4) == 3, "packets pass")
                sent = {
                    state.add_time: state.packets
                    for state in left.xfrm.dump_states()
                    if state.destination == right.addresses[4] and state.reqid == REQID
                }
                check(sent == {later: 3, earlier: 0}, (seconds, table_grows, sent))


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
    state_of(flags=StateFlag.DECAP_DSCP | StateFlag.NOECN),
    state_of(lifetime=Lifetime(soft_bytes=1, hard_bytes=2**63, soft_packets=3, hard_packets=2**40)),
    state_of(reqid=ReqId(0xFFFFFFFF), spi=Spi(0x100)),
    state_of(encapsulation=UdpPorts(source=4500, destination=40002), direction=StateDirection.OUT, replay_window=0),
    state_of(**OVER_IPV6, encapsulation=UdpPorts(source=1, destination=65535), mode=Mode.TRANSPORT),
    state_of(encapsulation=IN_UDP, direction=StateDirection.IN, mapping_seconds=2),
    state_of(mark=Mark(value=0x10, mask=0xF0), if_id=42),
    state_of(extra_flags=ExtraFlag.DONT_ENCAP_DSCP, direction=StateDirection.OUT, replay_window=0),
    state_of(extra_flags=ExtraFlag.OSEQ_MAY_WRAP | ExtraFlag.DONT_ENCAP_DSCP, esn=False, replay_window=0),
    state_of(output_mark=Mark(value=0x20, mask=0xF0), direction=StateDirection.OUT, replay_window=0),
    state_of(mode=Mode.IPTFS, direction=StateDirection.IN, iptfs=IptfsIn(drop_microseconds=5, reorder_packets=9)),
    state_of(mode=Mode.IPTFS, direction=StateDirection.IN, iptfs=IptfsIn()),
    state_of(mode=Mode.IPTFS, direction=StateDirection.OUT, replay_window=0, iptfs=IptfsOut()),
    state_of(
        mode=Mode.IPTFS,
        direction=StateDirection.OUT,
        replay_window=0,
        iptfs=IptfsOut(dont_fragment=True, init_delay_microseconds=70, max_queue_bytes=100_000, packet_bytes=1400),
    ),
    state_of(output_mark=Mark(value=7, mask=0xFFFFFFFF), if_id=0xFFFFFFFF, direction=StateDirection.IN),
]


def as_asked(shown: StateDump | None, asked: State) -> bool:
    return shown is not None and all(
        getattr(shown, field.name) == getattr(asked, field.name) for field in fields(State)
    )


def the_kernel_shows_the_states_that_we_wrote() -> None:
    with two_hosts() as (left, _):
        for variant in VARIANTS:
            left.xfrm.add_state(variant)
            shown = left.xfrm.get_state(variant.destination, variant.spi, variant.mark)
            check(as_asked(shown, variant), f"asked for {variant!r}, shown {shown!r}")
            check(left.xfrm.dump_states() == [shown], left.xfrm.dump_states())
            left.xfrm.delete_state(
                destination=variant.destination, spi=variant.spi, mark=variant.mark, missing_ok=False
            )


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
    esp_passes_in_udp_over_ipv4,
    esp_passes_in_udp_over_ipv6,
    esp_in_udp_needs_a_socket_that_takes_it,
    ike_passes_a_socket_that_takes_esp_and_nothing_else_does,
    a_state_takes_other_ports_and_counts_on,
    states_of_kernels_that_know_no_directions_pass,
    of_two_sas_the_one_created_last_carries_whatever_the_clock_and_the_table_say,
    without_a_state_nothing_passes_and_nothing_is_in_clear,
    the_wrong_key_is_counted_as_forgery,
    optional_templates_accept_what_is_still_in_clear,
)


if __name__ == "__main__":
    main(STORIES)
