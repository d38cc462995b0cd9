"""NATs on the way: they are found, IKE and ESP go through them on one port, and a mapping that changes is followed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_ike import (
    ChildSaUp,
    DownReason,
    Encapsulation,
    EndpointSettings,
    IkeSaDown,
    IkeSaMoved,
    IkeSaUp,
    PeerRefused,
    SocketAddress,
    UdpEncapsulation,
    UnknownIkeSa,
    parse_host,
)
from hauberk_ike.encapsulation import KEEPALIVE, NON_ESP_MARKER
from hauberk_ike.nat import build_notifies
from hauberk_ike.numbers import ExchangeType, NotifyType
from hauberk_ike.wire.header import NO_SPI
from hauberk_ike.wire.payloads import Notify
from tests.unit.ike.nat_box import ALICE_OUTSIDE, BOB_OUTSIDE, NatPair
from tests.unit.ike.party import ALICE, Pair, address, agree, child
from tests.unit.ike.raw_peer import RawPeer


def silence(pair: NatPair) -> float:
    """Seconds until one of the two has something to say."""
    since = pair.now
    pair.wait(1000)
    return pair.now - since


def exchange(pair: NatPair) -> None:
    """A request of Alice's and its answer."""
    pair.to_bob()  # -->
    pair.to_alice()  # <--


def test_without_a_nat_all_stays_on_port_500_and_esp_is_esp() -> None:
    pair = NatPair()
    pair.set_up()
    assert {(each.local.port, each.remote.port) for each in pair.wire} == {(500, 500)}
    assert pair.alice.one(ChildSaUp).encapsulation is None
    assert pair.bob.one(ChildSaUp).encapsulation is None
    assert silence(pair) == 10  # liveness, and no keepalive


def test_an_initiator_behind_a_nat_goes_over_to_port_4500_with_ike_auth() -> None:
    pair = NatPair(alice_nat=True)
    pair.initiate()
    init = pair.to_bob()  # --> IKE_SA_INIT, whose source is not what its hash says
    pair.to_alice()  # <-- IKE_SA_INIT, whose destination is not what its hash says
    auth = pair.to_bob()  # --> IKE_AUTH, from and to port 4500
    answer = pair.to_alice()  # <-- IKE_AUTH, to where the request came from
    assert (init.local.port, init.remote.port) == (500, 500)
    assert (auth.local.port, auth.remote.port) == (4500, 4500)
    assert auth.data.startswith(NON_ESP_MARKER)
    assert answer.data.startswith(NON_ESP_MARKER)
    assert not init.data.startswith(NON_ESP_MARKER)
    assert (answer.local.port, answer.remote) == (4500, address(ALICE_OUTSIDE, 40002))
    alice, bob = pair.alice.one(IkeSaUp), pair.bob.one(IkeSaUp)
    assert (alice.nat_local, alice.nat_remote) == (True, False)
    assert (bob.nat_local, bob.nat_remote) == (False, True)
    assert pair.bob.policy.authorized == [(ALICE, address(ALICE_OUTSIDE, 40002))]
    agree(pair.alice, pair.bob)


def test_esp_is_encapsulated_between_the_ports_that_ike_uses() -> None:
    pair = NatPair(alice_nat=True)
    pair.set_up()
    alice, bob = pair.alice.one(ChildSaUp), pair.bob.one(ChildSaUp)
    assert alice.encapsulation == UdpEncapsulation(local_port=4500, remote_port=4500)
    assert (str(alice.local), str(alice.remote)) == ("192.0.2.1", "192.0.2.2")
    assert bob.encapsulation == UdpEncapsulation(local_port=4500, remote_port=40002)
    assert (str(bob.local), str(bob.remote)) == ("192.0.2.2", ALICE_OUTSIDE)


def test_a_responder_behind_a_nat_that_forwards_ports() -> None:
    pair = NatPair(bob_nat=True)
    pair.set_up()
    alice, bob = pair.alice.one(IkeSaUp), pair.bob.one(IkeSaUp)
    assert (alice.nat_local, alice.nat_remote) == (False, True)
    assert (bob.nat_local, bob.nat_remote) == (True, False)
    assert str(pair.alice.one(ChildSaUp).remote) == BOB_OUTSIDE
    assert pair.bob.one(ChildSaUp).encapsulation == UdpEncapsulation(local_port=4500, remote_port=4500)
    agree(pair.alice, pair.bob)


def test_both_behind_nats() -> None:
    pair = NatPair(alice_nat=True, bob_nat=True)
    pair.set_up()
    for up in (pair.alice.one(IkeSaUp), pair.bob.one(IkeSaUp)):
        assert (up.nat_local, up.nat_remote) == (True, True)
    assert pair.bob.one(ChildSaUp).encapsulation == UdpEncapsulation(local_port=4500, remote_port=40002)
    agree(pair.alice, pair.bob)


def test_through_a_nat_between_ipv6_addresses() -> None:
    pair = NatPair(alice_nat=True, hosts=("2001:db8::1", "2001:db8::2"))
    assert pair.alice_nat is not None
    pair.alice_nat.outside = parse_host("2001:db8:7::7")
    pair.set_up()
    assert pair.bob.one(ChildSaUp).encapsulation == UdpEncapsulation(local_port=4500, remote_port=40002)
    assert str(pair.bob.one(ChildSaUp).remote) == "2001:db8:7::7"
    agree(pair.alice, pair.bob)


def test_a_cookie_is_asked_for_and_shown_before_ports_change() -> None:
    pair = NatPair(alice_nat=True, settings=EndpointSettings(cookie_threshold=0))
    pair.initiate()
    exchange(pair)  # --> IKE_SA_INIT <-- N(COOKIE)
    exchange(pair)  # --> IKE_SA_INIT: N(COOKIE) <-- IKE_SA_INIT
    assert {each.remote.port for each in pair.wire if each.local.port == 500} == {40001}
    exchange(pair)  # --> <-- IKE_AUTH
    agree(pair.alice, pair.bob)


# Keepalives


def test_only_whoever_is_behind_a_nat_keeps_its_mapping_alive() -> None:
    pair = NatPair(alice_nat=True, dpd_seconds=0)
    pair.set_up()
    for _ in range(3):
        assert silence(pair) == 20
        keepalive = pair.to_bob()  # --> one byte, which is not answered
        assert (keepalive.data, keepalive.local.port, keepalive.remote.port) == (KEEPALIVE, 4500, 4500)
        assert pair.quiet()


def test_keepalives_come_as_often_as_is_wanted_and_not_at_all_if_not() -> None:
    pair = NatPair(alice_nat=True, dpd_seconds=0, settings=EndpointSettings(keepalive_seconds=7))
    pair.set_up()
    assert silence(pair) == 7
    silent = NatPair(alice_nat=True, dpd_seconds=0, settings=EndpointSettings(keepalive_seconds=0))
    silent.set_up()
    assert silence(silent) == 1000


def test_keepalives_end_with_the_ike_sa() -> None:
    pair = NatPair(alice_nat=True, dpd_seconds=0)
    handle = pair.set_up()
    pair.alice.endpoint.delete(handle, now=pair.now)
    exchange(pair)  # --> <-- DELETE
    assert silence(pair) == 1000


def test_keepalives_go_on_beside_an_unanswered_request() -> None:
    pair = NatPair(alice_nat=True, dpd_seconds=5, settings=EndpointSettings(retransmit_seconds=50, retransmit_tries=2))
    pair.set_up()
    pair.wait(5)
    pair.lose(pair.alice)  # --> liveness, lost
    pair.wait(20)
    assert pair.lose(pair.alice).data == KEEPALIVE


# What else comes to port 4500


@given(data=st.binary(max_size=200))
def test_any_bytes_on_port_4500_do_nothing(data: bytes) -> None:
    pair = Pair()
    for prefix in (b"", NON_ESP_MARKER):
        pair.bob.endpoint.receive_datagram(
            prefix + data, local=address("192.0.2.2", 4500), remote=address("192.0.2.1", 4500), now=pair.now
        )
    assert not pair.bob.take(pair.now)
    assert not pair.bob.events


def test_esp_and_keepalives_are_not_taken_for_ike_nor_ike_without_its_marker() -> None:
    pair = Pair()
    pair.initiate()
    (request,) = pair.alice.take(pair.now)
    there = replace(pair.bob.address, port=4500)
    for data in (KEEPALIVE, b"", request.data, b"\0\0\0\x01" + request.data, NON_ESP_MARKER):
        pair.bob.endpoint.receive_datagram(data, local=there, remote=request.local, now=pair.now)
        assert not pair.bob.take(pair.now)
    pair.bob.endpoint.receive_datagram(NON_ESP_MARKER + request.data, local=there, remote=request.local, now=pair.now)
    (answer,) = pair.bob.take(pair.now)
    assert answer.data.startswith(NON_ESP_MARKER)
    assert answer.local == there


def test_a_marker_on_port_500_is_no_ike() -> None:
    pair = Pair()
    pair.initiate()
    pair.to_bob(lambda data: NON_ESP_MARKER + data)
    assert pair.quiet()


def test_a_whole_life_on_port_4500_from_the_first_message_on() -> None:
    # Section 2.23: an initiator may begin there, NAT or not. Encapsulation needs a NAT all the same.
    pair = NatPair()
    pair.alice_peer = replace(pair.alice_peer, local=address("192.0.2.1", 4500), remote=address("192.0.2.2", 4500))
    pair.set_up()
    assert all(each.data.startswith(NON_ESP_MARKER) for each in pair.wire)
    assert pair.bob.one(ChildSaUp).encapsulation is None
    agree(pair.alice, pair.bob)


def test_a_port_of_the_peers_that_somebody_chose_stays_when_a_nat_is_found() -> None:
    pair = NatPair(bob_nat=True)
    assert pair.bob_nat is not None
    pair.bob_nat.ports = {14500: address("192.0.2.2", 4500)}
    pair.alice_peer = replace(
        pair.alice_peer, local=address("192.0.2.1", 4500), remote=SocketAddress(host=pair.bob_nat.outside, port=14500)
    )
    pair.set_up()
    assert pair.alice.one(ChildSaUp).encapsulation == UdpEncapsulation(local_port=4500, remote_port=14500)


def test_a_peer_that_stays_on_port_500_behind_our_nat_gets_neither_encapsulation_nor_keepalives() -> None:
    pair = Pair(dpd_seconds=0)
    raw = RawPeer(pair.bob, ALICE)
    elsewhere = build_notifies(raw.spi, NO_SPI, local=raw.address, remote=address("203.0.113.1"))
    assert raw.ask_init([*raw.init_payloads(), *elsewhere]) is not None
    assert raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads()) is not None
    assert pair.bob.one(IkeSaUp).nat_local
    assert pair.bob.one(ChildSaUp).encapsulation is None
    pair.wait(1000)
    assert pair.bob.take(pair.now) == []


# Mappings change


def test_a_peer_whose_port_changes_is_followed_on_its_next_request() -> None:
    pair = NatPair(alice_nat=True)
    handle = pair.set_up()
    assert pair.alice_nat is not None
    pair.alice_nat.forget()
    pair.alice.endpoint.create_child(handle, child("second", local="10.7.0.0/16"), now=pair.now)
    pair.bob.policy.peers[ALICE] = pair.bob_peer
    exchange(pair)  # --> <-- CREATE_CHILD_SA, from port 40003
    moved = pair.bob.one(IkeSaMoved)
    assert (moved.local, moved.remote) == (address("192.0.2.2", 4500), address(ALICE_OUTSIDE, 40003))
    assert moved.encapsulation == UdpEncapsulation(local_port=4500, remote_port=40003)
    assert not pair.alice.seen(IkeSaMoved)
    (info,) = pair.bob.endpoint.established()
    assert info.remote == moved.remote
    # From now on what Bob begins goes there too.
    pair.bob.endpoint.delete(info.ike_sa, now=pair.now)
    assert pair.to_alice().remote == moved.remote  # <-- DELETE
    pair.to_bob()  # --> its answer
    assert pair.bob.one(IkeSaDown).reason is DownReason.DELETED


def test_the_ike_sa_that_replaces_another_goes_on_through_the_same_nat() -> None:
    pair = NatPair(alice_nat=True, dpd_seconds=0)
    handle = pair.set_up()
    pair.alice.endpoint.rekey_ike(handle, now=pair.now)
    exchange(pair)  # --> <-- CREATE_CHILD_SA, for the IKE SA
    exchange(pair)  # --> <-- DELETE of the old one
    (info,) = pair.bob.endpoint.established()
    assert info.ike_sa != pair.bob.one(IkeSaUp).ike_sa
    assert (info.remote, info.nat_remote) == (address(ALICE_OUTSIDE, 40002), True)
    pair.wait(20)
    assert pair.to_bob().data == KEEPALIVE  # --> one, and not one for each
    assert pair.alice_nat is not None
    pair.alice_nat.forget()
    (new,) = pair.alice.endpoint.established()
    pair.alice.endpoint.delete_child(new.ike_sa, new.children[0].spi_in, now=pair.now)
    exchange(pair)  # --> <-- DELETE of the child, from another port
    moved = pair.bob.one(IkeSaMoved)
    assert (moved.ike_sa, moved.remote.port) == (info.ike_sa, 40003)


def test_a_peer_whose_address_changes_is_followed_if_the_policy_permits() -> None:
    pair = NatPair(alice_nat=True, dpd_seconds=5)
    pair.set_up()
    assert pair.alice_nat is not None
    pair.alice_nat.renumber("198.51.100.8")
    pair.wait(5)
    pair.to_bob()  # --> liveness
    assert pair.bob.one(IkeSaMoved).remote == address("198.51.100.8", 40003)


def test_a_new_address_that_the_policy_forbids_is_answered_and_not_followed() -> None:
    pair = NatPair(alice_nat=True, dpd_seconds=5, bob_dpd_seconds=0)
    pair.set_up()
    assert pair.alice_nat is not None
    pair.alice_nat.renumber("198.51.100.8")
    pair.bob.policy.forbidden.add(pair.alice_nat.outside)
    pair.wait(5)
    pair.to_bob()  # --> liveness
    assert pair.to_alice().remote.host == pair.alice_nat.outside  # <-- its answer
    assert not pair.bob.seen(IkeSaMoved)


def test_an_answer_from_another_port_is_followed_too() -> None:
    pair = NatPair(alice_nat=True)
    pair.set_up()
    (info,) = pair.bob.endpoint.established()
    assert pair.alice_nat is not None
    old = pair.alice_nat.ports.copy()
    pair.alice_nat.forget()
    pair.alice_nat.ports[40099] = old[40002]
    pair.bob.endpoint.delete_child(info.ike_sa, info.children[0].spi_in, now=pair.now)
    (request,) = pair.bob.take(pair.now)
    pair.carry(pair.alice, replace(request, remote=address(ALICE_OUTSIDE, 40099)))  # <-- DELETE, by the new way
    pair.to_bob()  # --> its answer
    assert pair.bob.one(IkeSaMoved).remote.port == 40099


def spoof(pair: NatPair, data: bytes) -> None:
    """Bob gets `data` from somewhere else."""
    pair.bob.endpoint.receive_datagram(
        data, local=address("192.0.2.2", 4500), remote=address("203.0.113.66", 666), now=pair.now
    )
    pair.bob.drain()


def test_nothing_unauthentic_moves_a_peer() -> None:
    pair = NatPair(alice_nat=True, dpd_seconds=5)
    pair.set_up()
    pair.wait(5)
    liveness = pair.lose(pair.alice)
    spoof(pair, liveness.data[:-1] + bytes((liveness.data[-1] ^ 1,)))
    assert not pair.bob.seen(IkeSaMoved)
    assert pair.bob.endpoint.established()[0].remote.port == 40002


def test_nothing_old_moves_a_peer() -> None:
    pair = NatPair(alice_nat=True, dpd_seconds=5, bob_dpd_seconds=0)
    pair.set_up()
    pair.wait(5)
    liveness = pair.to_bob()  # --> liveness
    pair.to_alice()  # <-- its answer
    spoof(pair, liveness.data)  # --> the same again, from elsewhere: answered from memory, and that is all
    assert [each.remote.port for each in pair.bob.take(pair.now)] == [666]
    assert not pair.bob.seen(IkeSaMoved)
    assert pair.bob.endpoint.established()[0].remote == address(ALICE_OUTSIDE, 40002)


def test_a_peer_that_is_behind_no_nat_is_answered_and_not_followed() -> None:
    pair = NatPair(dpd_seconds=5, bob_dpd_seconds=0)
    pair.set_up()
    pair.wait(5)
    liveness = pair.lose(pair.alice)
    pair.bob.endpoint.receive_datagram(
        liveness.data, local=pair.bob.address, remote=address("203.0.113.66", 666), now=pair.now
    )
    (answer,) = pair.bob.take(pair.now)
    assert answer.remote == address("203.0.113.66", 666)
    assert not pair.bob.seen(IkeSaMoved)
    assert pair.bob.endpoint.established()[0].remote == pair.alice.address


def test_a_peer_that_comes_to_another_address_of_ours_is_answered_and_not_followed() -> None:
    pair = NatPair(alice_nat=True, dpd_seconds=5, bob_dpd_seconds=0)
    pair.set_up()
    pair.wait(5)
    liveness = pair.lose(pair.alice)
    other = address("192.0.2.22", 4500)
    pair.bob.endpoint.receive_datagram(liveness.data, local=other, remote=address(ALICE_OUTSIDE, 40003), now=pair.now)
    (answer,) = pair.bob.take(pair.now)
    assert answer.local == other
    assert not pair.bob.seen(IkeSaMoved)


def test_a_host_behind_a_nat_follows_nobody() -> None:
    # Section 2.23: otherwise whoever sits between could lead it astray.
    pair = NatPair(alice_nat=True, bob_nat=True, dpd_seconds=5, bob_dpd_seconds=0)
    pair.set_up()
    assert pair.alice_nat is not None
    pair.alice_nat.forget()
    pair.wait(5)
    pair.to_bob()  # --> liveness, from port 40003
    assert pair.to_alice().remote.port == 40003  # <-- its answer goes there
    assert not pair.bob.seen(IkeSaMoved)
    assert pair.bob.endpoint.established()[0].remote.port == 40002


def test_esp_from_another_port_is_followed_before_any_message_comes_from_there() -> None:
    pair = NatPair(alice_nat=True)
    pair.set_up()
    (info,) = pair.bob.endpoint.established()
    pair.bob.endpoint.follow(info.ike_sa, remote=address(ALICE_OUTSIDE, 40055), now=pair.now)
    pair.bob.drain()
    moved = pair.bob.one(IkeSaMoved)
    assert (moved.local, moved.remote) == (address("192.0.2.2", 4500), address(ALICE_OUTSIDE, 40055))
    assert moved.encapsulation == UdpEncapsulation(local_port=4500, remote_port=40055)
    # What Bob has to say goes there too.
    pair.bob.endpoint.delete(info.ike_sa, now=pair.now)
    assert [each.remote for each in pair.bob.take(pair.now)] == [moved.remote]


@pytest.mark.parametrize(
    ("nats", "forbidden"),
    [((False, False), False), ((True, True), False), ((True, False), True)],
    ids=["no NAT before the peer", "a NAT before ourselves", "an address that the policy forbids"],
)
def test_esp_from_elsewhere_is_believed_no_more_than_a_message(nats: tuple[bool, bool], forbidden: bool) -> None:
    pair = NatPair(alice_nat=nats[0], bob_nat=nats[1])
    pair.set_up()
    (info,) = pair.bob.endpoint.established()
    elsewhere = address("203.0.113.66", 666)
    if forbidden:
        pair.bob.policy.forbidden.add(elsewhere.host)
    pair.bob.endpoint.follow(info.ike_sa, remote=elsewhere, now=pair.now)
    pair.bob.drain()
    assert not pair.bob.seen(IkeSaMoved)
    assert pair.bob.endpoint.established()[0].remote == info.remote


def test_esp_of_an_ike_sa_that_ends_moves_nobody() -> None:
    pair = NatPair(alice_nat=True)
    pair.set_up()
    (info,) = pair.bob.endpoint.established()
    pair.bob.endpoint.delete(info.ike_sa, now=pair.now)
    with pytest.raises(UnknownIkeSa):
        pair.bob.endpoint.follow(info.ike_sa, remote=address(ALICE_OUTSIDE, 40055), now=pair.now)


# Encapsulation by wish


def test_encapsulation_that_is_forced_by_the_initiator() -> None:
    pair = NatPair(encapsulation=Encapsulation.ALWAYS)
    pair.set_up()
    bob = pair.bob.one(IkeSaUp)
    assert (bob.nat_local, bob.nat_remote) == (False, True)  # that is what Alice made him believe
    assert not pair.alice.one(IkeSaUp).nat_local
    same = UdpEncapsulation(local_port=4500, remote_port=4500)
    assert pair.alice.one(ChildSaUp).encapsulation == pair.bob.one(ChildSaUp).encapsulation == same
    assert silence(pair) == 10  # liveness: there is no mapping to keep alive
    agree(pair.alice, pair.bob)


def test_encapsulation_that_is_forced_by_the_responder() -> None:
    pair = NatPair(bob_settings=EndpointSettings(encapsulation=Encapsulation.ALWAYS))
    pair.set_up()
    assert pair.alice.one(IkeSaUp).nat_remote
    same = UdpEncapsulation(local_port=4500, remote_port=4500)
    assert pair.alice.one(ChildSaUp).encapsulation == pair.bob.one(ChildSaUp).encapsulation == same


def test_a_peer_that_must_encapsulate_and_does_not_is_refused() -> None:
    pair = NatPair(bob_encapsulation=Encapsulation.ALWAYS)
    pair.initiate()
    exchange(pair)  # --> <-- IKE_SA_INIT
    exchange(pair)  # --> IKE_AUTH <-- N(AUTHENTICATION_FAILED)
    assert pair.bob.one(PeerRefused).reason == "NotEncapsulated"
    assert not pair.bob.seen(IkeSaUp)
    assert pair.alice.one(IkeSaDown).reason is DownReason.FAILED


def test_a_responder_that_wants_no_encapsulation_refuses_a_peer_behind_a_nat() -> None:
    pair = NatPair(alice_nat=True, bob_encapsulation=Encapsulation.NEVER)
    pair.initiate()
    exchange(pair)  # --> <-- IKE_SA_INIT
    exchange(pair)  # --> IKE_AUTH <-- N(AUTHENTICATION_FAILED)
    assert pair.bob.one(PeerRefused).reason == "NatDetected"
    assert "NAT" in pair.bob.one(PeerRefused).message
    assert not pair.bob.seen(IkeSaUp)


def test_an_initiator_that_wants_no_encapsulation_gives_up_behind_a_nat_but_not_at_once() -> None:
    # Pitfall 13: the answer that shows a NAT is not authenticated.
    pair = NatPair(alice_nat=True, encapsulation=Encapsulation.NEVER)
    pair.initiate()
    exchange(pair)  # --> <-- IKE_SA_INIT
    assert not pair.alice.seen(IkeSaDown)
    for _ in range(4):
        pair.wait(60)
        pair.to_bob()  # --> IKE_SA_INIT again
        pair.to_alice()
    pair.wait(60)
    down = pair.alice.one(IkeSaDown)
    assert down.reason is DownReason.FAILED
    assert "NAT in between" in down.message


def test_an_attempt_survives_a_forged_answer_that_shows_a_nat() -> None:
    pair = NatPair(encapsulation=Encapsulation.NEVER)
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    (answer,) = pair.bob.take(pair.now)
    # <-- the answer, from another port
    pair.alice.endpoint.receive_datagram(
        answer.data, local=answer.remote, remote=SocketAddress(host=answer.local.host, port=501), now=pair.now
    )
    assert pair.alice.take(pair.now) == []
    pair.carry(pair.alice, answer)  # <-- and as Bob sent it
    exchange(pair)  # --> <-- IKE_AUTH
    agree(pair.alice, pair.bob)


def test_an_initiator_that_must_encapsulate_needs_a_peer_that_knows_how() -> None:
    pair = NatPair(encapsulation=Encapsulation.ALWAYS)
    pair.initiate()
    raw = RawPeer(pair.alice, "bob", initiator=False, host="192.0.2.2")
    request = raw.take_init()
    raw.send(raw.init_answer())  # <-- IKE_SA_INIT without any NAT detection
    assert request.notify(NotifyType.NAT_DETECTION_SOURCE_IP) is not None
    for _ in range(5):
        pair.wait(60)
        pair.alice.take(pair.now)
    assert "UDP encapsulation" in pair.alice.one(IkeSaDown).message


@pytest.mark.parametrize("extra", [1, 3])
def test_one_of_several_source_addresses_may_be_right(extra: int) -> None:
    # Section 2.23: a peer that does not know which of its addresses a message will leave from names several.
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    others = [Notify(type=NotifyType.NAT_DETECTION_SOURCE_IP, data=bytes((n,)) * 20) for n in range(extra)]
    right = build_notifies(raw.spi, NO_SPI, local=raw.address, remote=pair.bob.address)
    assert raw.ask_init([*raw.init_payloads(), *others, *right]) is not None
    assert raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads()) is not None
    assert not pair.bob.one(IkeSaUp).nat_remote


# Addresses


@pytest.mark.parametrize(
    ("text", "host"),
    [("192.0.2.1", "192.0.2.1"), ("2001:DB8::1", "2001:db8::1"), ("::ffff:192.0.2.1", "192.0.2.1")],
)
def test_addresses_as_sockets_spell_them(text: str, host: str) -> None:
    assert str(parse_host(text)) == host


@pytest.mark.parametrize(
    "text",
    ["fe80::1", "fe80::1%eth0", "::", "0.0.0.0", "ff02::1", "224.0.0.1", "::ffff:224.0.0.1", "here", ""],  # noqa: S104
)
def test_addresses_that_no_peer_can_have(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        parse_host(text)
