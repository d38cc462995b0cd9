"""Whole exchanges whose messages are in fragments (RFC 7383), some of which get lost, come twice or out of order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_ike import Datagram, EndpointSettings, IkeProposal, IkeSaDown, IkeSaUp
from hauberk_ike.fragmentation import Opener
from hauberk_ike.numbers import ExchangeType, NotifyType, PayloadType
from hauberk_ike.wire.header import FLAG_INITIATOR, HEADER, Header
from hauberk_ike.wire.message import GENERIC, Contents, KnownPayload, parse_payloads
from hauberk_ike.wire.payloads import CertificatePayload, Notify
from tests.unit.ike.nat_box import NatPair
from tests.unit.ike.party import ALICE, Pair, Party, agree
from tests.unit.ike.raw_peer import RawPeer
from tests.unit.ike.terrible_network import TerribleNetwork

SMALL = EndpointSettings(fragment_bytes=576)
NONE = EndpointSettings(fragment_bytes=0)
SUPPORTED = Notify(type=NotifyType.IKEV2_FRAGMENTATION_SUPPORTED)


def small_pair(settings: EndpointSettings = SMALL, **options: Any) -> Pair:
    """Nothing but answers and requests of the test's."""
    return Pair(dpd_seconds=0, settings=settings, **options)


def cut(raw: RawPeer, payloads: Sequence[KnownPayload], *, mtu: int, message_id: int = 1) -> list[bytes]:
    """A raw peer's IKE_AUTH request in fragments."""
    return raw.protection.seal_fragments(
        spi_i=raw.spi_i,
        spi_r=raw.spi_r,
        exchange_type=ExchangeType.IKE_AUTH,
        flags=FLAG_INITIATOR,
        message_id=message_id,
        payloads=payloads,
        mtu=mtu,
    )


def fragmenting_peer(pair: Pair) -> RawPeer:
    """A raw peer of Bob's that takes fragments, before IKE_AUTH."""
    raw = RawPeer(pair.bob, ALICE)
    assert raw.ask_init([*raw.init_payloads(), SUPPORTED]) is not None
    return raw


def is_fragment(datagram: Datagram) -> bool:
    return Header.parse(datagram.data).next_payload == PayloadType.SKF


def at_ike_auth(pair: Pair) -> list[Datagram]:
    """Sets up as far as the IKE_AUTH request, which is returned."""
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    return pair.alice.take(pair.now)


def deliver(pair: Pair, receiver: Party, datagrams: list[Datagram]) -> None:
    for each in datagrams:
        pair.carry(receiver, each)


# When


def test_both_say_so_and_then_long_messages_come_in_fragments_that_fit() -> None:
    pair = small_pair()
    pair.initiate()
    for message in (pair.to_bob(), pair.to_alice()):  # --> <-- IKE_SA_INIT
        header = Header.parse(message.data)
        assert SUPPORTED in Contents(parse_payloads(header.next_payload, message.data, HEADER.size)).all(Notify)
    request = pair.alice.take(pair.now)  # --> IKE_AUTH
    deliver(pair, pair.bob, request)
    answer = pair.bob.take(pair.now)  # <-- IKE_AUTH
    for fragments in (request, answer):
        assert len(fragments) > 1
        assert all(is_fragment(each) for each in fragments)
        assert all(len(each.data) <= 576 - 20 - 8 for each in fragments)
        assert len(fragments[0].data) > 576 - 20 - 8 - 16  # and hardly a byte is wasted
    deliver(pair, pair.alice, answer)
    agree(pair.alice, pair.bob)


def test_a_message_that_fits_goes_whole_and_so_does_ike_sa_init_whatever_its_length() -> None:
    pair = small_pair(ike="aes128gcm16-prfsha256-modp4096", settings=replace(SMALL, ike_proposals=(MODP,)))
    pair.initiate()
    assert len(pair.to_bob().data) > 576  # --> IKE_SA_INIT
    assert len(pair.to_alice().data) > 576  # <-- IKE_SA_INIT
    pair.settle()  # --> <-- IKE_AUTH
    (info,) = pair.alice.endpoint.established()
    pair.alice.endpoint.delete(info.ike_sa, now=pair.now)
    assert not is_fragment(pair.to_bob())  # --> DELETE


MODP = IkeProposal.parse("aes128gcm16-prfsha256-modp4096")


@pytest.mark.parametrize(
    ("hosts", "nat", "headers"),
    [
        (("192.0.2.1", "192.0.2.2"), False, 28),
        (("192.0.2.1", "192.0.2.2"), True, 32),
        (("2001:db8::1", "2001:db8::2"), False, 48),
    ],
)
def test_the_headers_of_each_way_are_counted(hosts: tuple[str, str], nat: bool, headers: int) -> None:
    pair = NatPair(alice_nat=nat, hosts=hosts, dpd_seconds=0, settings=SMALL)
    # A datagram's data has the marker in it.
    marker = 4 if nat else 0
    request = at_ike_auth(pair)
    deliver(pair, pair.bob, request)
    for fragments in (request, pair.bob.take(pair.now)):
        longest = max(len(each.data) for each in fragments)
        assert 576 - headers - 16 < longest - marker <= 576 - headers


def test_by_default_the_longest_packet_has_1280_bytes() -> None:
    pair = small_pair(settings=EndpointSettings(), ike="aes128gcm16-prfsha256-x25519")
    pair.set_up()  # and so our own IKE_AUTH needs none
    raw = fragmenting_peer(pair)
    junk = [CertificatePayload(encoding=99, data=bytes(3000))]
    fragments = cut(raw, [*raw.auth_payloads(), *junk], mtu=1252)
    answers = [answer for each in fragments for answer in raw.send(each)]
    assert len(answers) == 1


@pytest.mark.parametrize(("ours", "theirs"), [(SMALL, NONE), (NONE, SMALL)])
def test_whoever_does_not_say_so_gets_no_fragments(ours: EndpointSettings, theirs: EndpointSettings) -> None:
    pair = small_pair(settings=ours, bob_settings=theirs)
    (request,) = at_ike_auth(pair)
    assert not is_fragment(request)
    deliver(pair, pair.bob, [request])
    pair.to_alice()  # <-- IKE_AUTH, whole
    agree(pair.alice, pair.bob)


def test_fragments_that_were_not_agreed_on_are_not_taken() -> None:
    pair = small_pair()
    raw = RawPeer(pair.bob, ALICE)
    assert raw.ask_init() is not None  # without the notify
    assert raw_fragments(raw) == []
    assert not pair.bob.seen(IkeSaUp)
    assert raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads()) is not None
    assert raw_fragments(raw, message_id=1) == []  # nor do they bring an answer once more


def raw_fragments(raw: RawPeer, *, message_id: int = 1, mtu: int = 500) -> list[Datagram]:
    """An IKE_AUTH request of a raw peer's in fragments; what comes back."""
    fragments = cut(raw, raw.auth_payloads(), mtu=mtu, message_id=message_id)
    return [answer for each in fragments for answer in raw.send(each)]


@pytest.mark.parametrize("size", [1, 575, 65536, -1])
def test_a_size_that_makes_no_sense_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="576 to 65535"):
        EndpointSettings(fragment_bytes=size)


# Lost, doubled, out of order


@pytest.mark.parametrize("seed", range(6))
def test_fragments_come_in_any_order_and_any_number(seed: int) -> None:
    pair = small_pair()
    chance = Random(seed)
    request = at_ike_auth(pair) * 2
    chance.shuffle(request)
    deliver(pair, pair.bob, request)  # --> IKE_AUTH, shuffled, each fragment twice
    assert len(pair.bob.seen(IkeSaUp)) == 1
    answer = pair.bob.take(pair.now)
    chance.shuffle(answer)
    deliver(pair, pair.alice, answer)  # <-- IKE_AUTH
    agree(pair.alice, pair.bob)


def test_with_a_fragment_lost_nothing_happens_until_all_are_sent_again() -> None:
    pair = small_pair()
    request = at_ike_auth(pair)
    deliver(pair, pair.bob, request[1:])  # --> all but the first
    assert pair.bob.take(pair.now) == []
    pair.wait(1)
    again = pair.alice.take(pair.now)
    assert again == request  # byte for byte
    deliver(pair, pair.bob, again[:1])  # --> the first
    assert pair.bob.seen(IkeSaUp)


def test_an_answer_of_which_a_fragment_is_lost_is_brought_once_more_by_the_first_fragment_alone() -> None:
    pair = small_pair()
    request = at_ike_auth(pair)
    deliver(pair, pair.bob, request)
    answer = pair.bob.take(pair.now)
    deliver(pair, pair.alice, answer[:-1])  # <-- all but the last
    assert not pair.alice.seen(IkeSaUp)
    for later in request[1:]:
        deliver(pair, pair.bob, [later])
        assert pair.bob.take(pair.now) == []
    deliver(pair, pair.bob, request[:1])
    assert pair.bob.take(pair.now) == answer  # byte for byte, and all of it
    deliver(pair, pair.alice, answer[-1:])
    agree(pair.alice, pair.bob)


def test_a_request_cut_anew_brings_its_answer_too() -> None:
    pair = small_pair()
    raw = fragmenting_peer(pair)
    answer = raw_fragments(raw, mtu=500)
    assert answer
    assert raw_fragments(raw, mtu=300) == answer
    assert len(pair.bob.seen(IkeSaUp)) == 1


def test_a_peer_that_cuts_anew_before_it_was_understood() -> None:
    pair = small_pair()
    raw = fragmenting_peer(pair)
    payloads = raw.auth_payloads()
    large = cut(raw, payloads, mtu=500)
    for each in large[:-1]:
        assert raw.send(each) == []
    for each in cut(raw, payloads, mtu=300)[:-1]:
        assert raw.send(each) == []
    assert raw.send(large[-1]) == []  # --> of the larger ones, late: it belongs to nothing any more
    assert raw.send(raw.seal(ExchangeType.IKE_AUTH, payloads, message_id=1))  # --> and at last in one piece
    assert pair.bob.seen(IkeSaUp)


# Somebody between


def test_a_damaged_fragment_spoils_nothing() -> None:
    pair = small_pair()
    request = at_ike_auth(pair)
    damaged = [replace(each, data=each.data[:-1] + bytes((each.data[-1] ^ 1,))) for each in request]
    for bad, good in zip(damaged, request, strict=True):
        deliver(pair, pair.bob, [bad, good, bad])
    assert pair.bob.seen(IkeSaUp)
    answer = pair.bob.take(pair.now)
    deliver(pair, pair.bob, damaged)  # --> a first fragment that is not authentic brings no answer
    assert pair.bob.take(pair.now) == []
    deliver(pair, pair.alice, answer)
    agree(pair.alice, pair.bob)


def test_the_right_fragments_under_another_message_id_are_not_taken() -> None:
    pair = small_pair()
    raw = fragmenting_peer(pair)
    for message_id in (0, 2, 3):
        assert raw_fragments(raw, message_id=message_id) == []
    assert raw_fragments(raw, message_id=1)


def test_pitfall_1_what_a_peer_has_sent_in_part_is_bounded() -> None:
    pair = small_pair()
    raw = fragmenting_peer(pair)
    too_much = cut(raw, [CertificatePayload(encoding=4, data=bytes(20_000)) for _ in range(3)], mtu=9000)
    for each in too_much:
        assert raw.send(each) == []
    # And it can still say what it has to, all in one.
    assert raw.send(raw.seal(ExchangeType.IKE_AUTH, raw.auth_payloads(), message_id=1))


def test_what_is_collected_is_forgotten_with_the_message() -> None:
    pair = small_pair()
    raw = fragmenting_peer(pair)
    sa = next(iter(pair.bob.endpoint._registry.alive()))  # pyright: ignore[reportPrivateUsage]
    opener = Opener()
    fragments = cut(raw, raw.auth_payloads(), mtu=500)
    *some, last = fragments
    for each in some:
        assert opener.open(sa, Header.parse(each), each) is None
    assert opener._reassembly is not None  # pyright: ignore[reportPrivateUsage]
    assert opener.open(sa, Header.parse(last), last) is not None
    assert opener._reassembly is None  # pyright: ignore[reportPrivateUsage]
    assert opener.open(sa, Header.parse(last), last) is None
    whole = raw.seal(ExchangeType.IKE_AUTH, raw.auth_payloads(), message_id=1)  # the peer has given up on fragments
    assert opener.open(sa, Header.parse(whole), whole) is not None
    assert opener._reassembly is None  # pyright: ignore[reportPrivateUsage]


@given(body=st.binary(max_size=300), response=st.booleans(), message_id=st.sampled_from([0, 1, 2]))
def test_pitfall_1_any_bytes_as_a_fragment_do_nothing(body: bytes, response: bool, message_id: int) -> None:
    pair = small_pair()
    raw = fragmenting_peer(pair)
    for exchange in (ExchangeType.IKE_AUTH, ExchangeType.INFORMATIONAL):
        flags = FLAG_INITIATOR | (0x20 if response else 0)
        length = HEADER.size + len(body)
        header = HEADER.pack(raw.spi_i, raw.spi_r, PayloadType.SKF, 0x20, exchange, flags, message_id, length)
        assert raw.send(header + body) == []
        whole = GENERIC.pack(0, 0, GENERIC.size + len(body)) + body
        length = HEADER.size + len(whole)
        header = HEADER.pack(raw.spi_i, raw.spi_r, PayloadType.SKF, 0x20, exchange, flags, message_id, length)
        assert raw.send(header + whole) == []
    assert not pair.bob.seen(IkeSaUp)
    assert not pair.bob.seen(IkeSaDown)


# Whole lives


def test_additional_key_exchanges_in_fragments() -> None:
    ike = "aes128gcm16-prfsha256-x25519-ke1_mlkem768"
    settings = replace(SMALL, ike_proposals=(IkeProposal.parse(ike),))
    pair = small_pair(ike=ike, settings=settings)
    request = at_ike_auth(pair)  # --> IKE_INTERMEDIATE, whose bytes AUTH covers as if it were whole
    assert {Header.parse(each.data).exchange_type for each in request} == {ExchangeType.IKE_INTERMEDIATE}
    assert len(request) > 2
    deliver(pair, pair.bob, request[::-1])
    pair.settle()
    agree(pair.alice, pair.bob)
    assert len(pair.bob.seen(IkeSaUp)) == 1


def test_the_ike_sa_that_replaces_another_goes_on_in_fragments() -> None:
    ike = "aes128gcm16-prfsha256-modp4096"
    pair = small_pair(ike=ike, settings=replace(SMALL, ike_proposals=(MODP,)))
    handle = pair.initiate()
    pair.settle()
    for _ in range(2):
        (info,) = pair.alice.endpoint.established()
        pair.alice.endpoint.rekey_ike(info.ike_sa, now=pair.now)
        request = pair.alice.take(pair.now)  # --> CREATE_CHILD_SA with a public value of 512 bytes
        assert len(request) == 2
        deliver(pair, pair.bob, request)
        pair.settle()
    agree(pair.alice, pair.bob)
    assert pair.alice.endpoint.established()[0].ike_sa != handle


@pytest.mark.parametrize("seed", range(8))
def test_over_a_network_that_loses_one_fragment_in_eight(seed: int) -> None:
    settings = replace(SMALL, retransmit_tries=12, half_open_seconds=600)
    pair = Pair(settings=settings, seed=seed, dpd_seconds=0)
    network = TerribleNetwork(pair, seed, loss=0.12)
    pair.initiate()
    network.run(6000)
    assert len(pair.alice.endpoint.established()) == 1
    agree(pair.alice, pair.bob)
