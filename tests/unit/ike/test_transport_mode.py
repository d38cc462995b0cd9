"""Transport mode through NATs (RFC 7296 section 2.23.1): each end reads the other's selectors by what it sees."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from hauberk_ike import ChildSaFailed, ChildSaUp, Mode, TrafficSelector
from hauberk_ike.nat import build_notifies
from hauberk_ike.numbers import ExchangeType, NotifyType
from hauberk_ike.wire.header import NO_SPI
from hauberk_ike.wire.message import Contents
from hauberk_ike.wire.payloads import Notify
from hauberk_ike.wire.traffic_selectors import TsInitiator, TsResponder
from tests.unit.ike.nat_box import ALICE_OUTSIDE, BOB_OUTSIDE, NatPair
from tests.unit.ike.party import ALICE, Pair, Party, address, child, selector, turned
from tests.unit.ike.raw_peer import RawPeer

ALICE_INSIDE = "192.0.2.1"
BOB_INSIDE = "192.0.2.2"
TCP = 6


def pair(
    *,
    alice: tuple[str, str] | None = None,
    bob: tuple[str, str] | None = None,
    mode: Mode = Mode.TRANSPORT,
    **nats: Any,
) -> NatPair:
    """Alice and Bob, each with a child between itself and the other as it sees it; or between other networks."""
    alice = alice or (ALICE_INSIDE, BOB_OUTSIDE if nats.get("bob_nat") else BOB_INSIDE)
    bob = bob or (BOB_INSIDE, ALICE_OUTSIDE if nats.get("alice_nat") else ALICE_INSIDE)
    return NatPair(
        children=(child(local=alice[0], remote=alice[1], mode=mode),),
        bob_children=(child(local=bob[0], remote=bob[1], mode=mode),),
        **nats,
    )


def ends(party: Party) -> tuple[str, str]:
    """Between whom the newest CHILD SA is."""
    up = party.seen(ChildSaUp)[-1]
    assert up.mode is Mode.TRANSPORT
    ((local,), (remote,)) = up.ts_local, up.ts_remote
    assert (local.start, remote.start) == (up.local, up.remote)
    return str(local), str(remote)


def agree(both: NatPair) -> None:
    """The same SAs at both ends, whatever they call the ends."""
    alices, bobs = both.alice.kernel, both.bob.kernel
    assert {(up.spi_in, up.spi_out) for up in alices.values()} == {(up.spi_out, up.spi_in) for up in bobs.values()}
    assert all(up.keys_in == bobs[up.spi_out].keys_out for up in alices.values())
    assert not both.alice.leaked | both.bob.leaked


@pytest.mark.parametrize(
    ("nats", "alice_sees", "bob_sees"),
    [
        ({}, BOB_INSIDE, ALICE_INSIDE),
        ({"alice_nat": True}, BOB_INSIDE, ALICE_OUTSIDE),
        ({"bob_nat": True}, BOB_OUTSIDE, ALICE_INSIDE),
        ({"alice_nat": True, "bob_nat": True}, BOB_OUTSIDE, ALICE_OUTSIDE),
    ],
)
def test_each_end_has_the_other_where_it_sees_it(nats: dict[str, Any], alice_sees: str, bob_sees: str) -> None:
    both = pair(**nats)
    handle = both.set_up()
    assert (ends(both.alice), ends(both.bob)) == ((ALICE_INSIDE, alice_sees), (BOB_INSIDE, bob_sees))
    # A rekey by either end is between the same.
    both.alice.endpoint.rekey_child(handle, both.alice.seen(ChildSaUp)[-1].spi_in, now=both.now)
    both.to_bob()  # --> CREATE_CHILD_SA: N(REKEY_SA), SA, Ni, TSi, TSr, by Alice's addresses
    both.to_alice()  # <-- CREATE_CHILD_SA: SA, Nr, TSi, TSr, by Bob's
    both.settle()
    (info,) = both.bob.endpoint.established()
    both.bob.endpoint.rekey_child(info.ike_sa, both.bob.seen(ChildSaUp)[-1].spi_in, now=both.now)
    both.to_alice()  # <-- CREATE_CHILD_SA: N(REKEY_SA), SA, Ni, TSi, TSr
    both.to_bob()  # --> CREATE_CHILD_SA: SA, Nr, TSi, TSr
    both.settle()
    assert len(both.alice.seen(ChildSaUp)) == 3
    assert (ends(both.alice), ends(both.bob)) == ((ALICE_INSIDE, alice_sees), (BOB_INSIDE, bob_sees))
    agree(both)


def test_whoever_takes_anybody_asks_for_the_two_ends_and_gets_them() -> None:
    both = pair(alice=("0.0.0.0/0", "0.0.0.0/0"), bob=("0.0.0.0/0", "0.0.0.0/0"), alice_nat=True, bob_nat=True)
    both.set_up()
    assert (ends(both.alice), ends(both.bob)) == ((ALICE_INSIDE, BOB_OUTSIDE), (BOB_INSIDE, ALICE_OUTSIDE))
    agree(both)


@pytest.mark.parametrize("first", ["alice", "bob"])
def test_where_a_nat_gets_another_address_the_next_rekey_is_for_that(first: str) -> None:
    both = pair(bob=(BOB_INSIDE, "198.51.100.0/24"), alice_nat=True, dpd_seconds=5, bob_dpd_seconds=0)
    both.set_up()
    assert both.alice_nat is not None
    both.alice_nat.renumber("198.51.100.8")
    both.wait(5)
    both.to_bob()  # --> liveness
    both.settle()
    parties = (both.alice, both.bob) if first == "alice" else (both.bob, both.alice)
    for done, party in enumerate(parties, 2):
        (info,) = party.endpoint.established()
        party.endpoint.rekey_child(info.ike_sa, party.seen(ChildSaUp)[-1].spi_in, now=both.now)
        both.settle()
        assert len(party.seen(ChildSaUp)) == done
        assert (ends(both.alice), ends(both.bob)) == ((ALICE_INSIDE, BOB_INSIDE), (BOB_INSIDE, "198.51.100.8"))
    agree(both)


def test_in_tunnel_mode_a_nat_changes_no_selector() -> None:
    both = pair(alice=(ALICE_INSIDE, BOB_INSIDE), bob=(BOB_INSIDE, ALICE_INSIDE), mode=Mode.TUNNEL, alice_nat=True)
    both.set_up()
    assert both.bob.one(ChildSaUp).ts_remote == (selector(ALICE_INSIDE),)


def test_an_end_that_the_other_is_not_to_talk_to_is_refused_whatever_it_calls_itself() -> None:
    both = pair(bob=(BOB_INSIDE, ALICE_INSIDE), alice_nat=True)  # Bob has Alice where only she sees herself
    both.set_up()
    assert both.alice.one(ChildSaFailed).reason == "TS_UNACCEPTABLE"
    assert not both.bob.kernel


# What is on the wire: Bob, and somebody whom he sees at 192.0.2.1, and who calls himself otherwise.


def behind_a_nat(*children: Any) -> RawPeer:
    bob = Pair(bob_children=tuple(map(turned, children))).bob
    raw = RawPeer(bob, ALICE)
    inside = build_notifies(raw.spi, NO_SPI, local=address("10.0.0.5"), remote=bob.address)
    assert raw.ask_init([*raw.init_payloads(), *inside]) is not None
    return raw


def ask(raw: RawPeer, ts_i: Sequence[TrafficSelector], ts_r: Sequence[TrafficSelector]) -> Contents:
    """IKE_AUTH with a child in transport mode for these."""
    association, *_ = raw.child_payloads()
    payloads = [
        association,
        TsInitiator(selectors=tuple(ts_i)),
        TsResponder(selectors=tuple(ts_r)),
        Notify(type=NotifyType.USE_TRANSPORT_MODE),
    ]
    answer = raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads(child=payloads))
    assert answer is not None
    return answer


def transport(label: str, *, remote: str = BOB_INSIDE) -> Any:
    return child(label, local=ALICE_INSIDE, remote=remote, mode=Mode.TRANSPORT)


def test_the_answer_names_the_ends_as_the_responder_sees_them_with_protocol_and_ports_as_asked() -> None:
    raw = behind_a_nat(transport("transport"))
    web = selector("10.0.0.5/32", protocol=TCP, start_port=80, end_port=80)
    answer = ask(raw, [web], [selector(BOB_INSIDE)])
    assert answer.notify(NotifyType.USE_TRANSPORT_MODE) is not None
    host = ip_address(ALICE_INSIDE)
    assert answer.one(TsInitiator).selectors == (replace(web, start=host, end=host),)
    assert answer.one(TsResponder).selectors == (selector(BOB_INSIDE),)


def test_without_a_child_for_transport_mode_the_selectors_stay_and_it_is_tunnel_mode() -> None:
    raw = behind_a_nat(child("tunnel", local="10.0.0.0/8", remote=BOB_INSIDE))
    answer = ask(raw, [selector("10.0.0.5/32")], [selector(BOB_INSIDE)])
    assert answer.notify(NotifyType.USE_TRANSPORT_MODE) is None
    assert answer.one(TsInitiator).selectors == (selector("10.0.0.5/32"),)


def test_a_child_for_transport_mode_goes_before_one_for_tunnel_mode_if_that_is_what_is_asked_for() -> None:
    raw = behind_a_nat(child("tunnel", local="0.0.0.0/0", remote=BOB_INSIDE), transport("transport"))
    answer = ask(raw, [selector("10.0.0.5/32")], [selector(BOB_INSIDE)])
    assert answer.notify(NotifyType.USE_TRANSPORT_MODE) is not None
    assert answer.one(TsInitiator).selectors == (selector(ALICE_INSIDE),)
    assert raw.target.one(ChildSaUp).label == "transport"


def test_pitfall_4_a_whole_network_is_no_end() -> None:
    raw = behind_a_nat(transport("transport"))
    answer = ask(raw, [selector("10.0.0.4/31")], [selector(BOB_INSIDE)])
    error = answer.error()
    assert error is not None
    assert error.type == NotifyType.TS_UNACCEPTABLE
    assert not raw.target.kernel
