"""IKE_SA_INIT and IKE_AUTH as they should go: two endpoints end with the same IKE SA and the same CHILD SAs."""

from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from hauberk_ike import (
    ChildConfig,
    ChildSaUp,
    EndpointSettings,
    EspProposal,
    IkeProposal,
    IkeSaUp,
    Mode,
    TrafficSelector,
)
from hauberk_ike.algorithms import ENCRYPTIONS, INTEGRITIES, KEY_EXCHANGES, PRFS
from tests.unit.ike.party import ALICE, BOB, Pair, agree, child, selector


def test_two_messages_each_way_set_up_an_ike_sa_and_a_child_sa() -> None:
    pair = Pair()
    handle = pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT: SA, KE, Ni
    pair.to_alice()  # <-- IKE_SA_INIT: SA, KE, Nr
    pair.to_bob()  # --> IKE_AUTH: IDi, CERT, AUTH, SA, TSi, TSr
    bob_up = pair.bob.one(IkeSaUp)
    pair.to_alice()  # <-- IKE_AUTH: IDr, CERT, AUTH, SA, TSi, TSr
    alice_up = pair.alice.one(IkeSaUp)

    assert alice_up.ike_sa == handle
    assert (alice_up.identity, bob_up.identity) == (BOB, ALICE)
    assert (alice_up.initiator, bob_up.initiator) == (True, False)
    assert (alice_up.spi_i, alice_up.spi_r) == (bob_up.spi_i, bob_up.spi_r)
    assert alice_up.proposal == bob_up.proposal == "aes128gcm16-prfsha256-x25519"
    assert not alice_up.nat_local
    assert not alice_up.nat_remote
    agree(pair.alice, pair.bob)
    assert pair.quiet()


@pytest.mark.parametrize(
    "ike",
    [
        *(f"{cipher.word}-prfsha256-x25519" for cipher in ENCRYPTIONS.values() if cipher.is_aead),
        *(f"{cipher.word}-sha256-x25519" for cipher in ENCRYPTIONS.values() if not cipher.is_aead),
        *(f"aes128-{integrity}-x25519" for integrity in INTEGRITIES),
        *(f"aes128gcm16-{prf}-x25519" for prf in PRFS),
        *(f"aes128gcm16-prfsha256-{method}" for method in KEY_EXCHANGES),
        "aes256-sha384-prfsha512-modp3072",
    ],
)
def test_every_ike_proposal_works(ike: str) -> None:
    pair = Pair(ike=ike, settings=EndpointSettings(ike_proposals=(IkeProposal.parse(ike),)))
    pair.set_up()
    assert pair.alice.one(IkeSaUp).proposal == ike
    agree(pair.alice, pair.bob)


@pytest.mark.parametrize(
    ("esp", "cipher", "key_length", "esn"),
    [
        ("aes128gcm16-esn", "rfc4106(gcm(aes))", 20, True),
        ("aes256gcm16", "rfc4106(gcm(aes))", 36, False),
        ("aes256gcm16-noesn-esn", "rfc4106(gcm(aes))", 36, False),
        ("aes192ccm16-esn", "rfc4309(ccm(aes))", 27, True),
        ("chacha20poly1305-esn", "rfc7539esp(chacha20,poly1305)", 36, True),
    ],
)
def test_aead_keys_are_as_long_as_the_kernel_wants_them(esp: str, cipher: str, key_length: int, esn: bool) -> None:
    pair = Pair(children=(child(esp=esp),))
    pair.set_up()
    keys = pair.alice.one(ChildSaUp).keys_in
    assert (keys.encryption, len(keys.key), keys.icv_bits, keys.esn) == (cipher, key_length, 128, esn)
    assert (keys.integrity, keys.integrity_key, keys.integrity_bits) == ("", b"", 0)
    assert keys.key != pair.alice.one(ChildSaUp).keys_out.key
    agree(pair.alice, pair.bob)


@pytest.mark.parametrize(
    ("esp", "key_length", "integrity_length"),
    [("aes128-sha256-esn", 16, 32), ("aes192-sha384", 24, 48), ("aes256-sha512-esn", 32, 64)],
)
def test_a_cipher_and_a_mac_have_a_key_each(esp: str, key_length: int, integrity_length: int) -> None:
    pair = Pair(children=(child(esp=esp),))
    pair.set_up()
    keys = pair.alice.one(ChildSaUp).keys_in
    assert (keys.encryption, len(keys.key), keys.icv_bits) == ("cbc(aes)", key_length, 0)
    assert keys.integrity == f"hmac(sha{8 * integrity_length})"
    assert (len(keys.integrity_key), keys.integrity_bits) == (integrity_length, 4 * integrity_length)
    theirs = pair.alice.one(ChildSaUp).keys_out
    assert len({keys.key, theirs.key, keys.integrity_key, theirs.integrity_key}) == 4
    agree(pair.alice, pair.bob)


def test_transport_mode_is_agreed_on() -> None:
    pair = Pair(children=(child(mode=Mode.TRANSPORT),))
    pair.set_up()
    assert pair.bob.one(ChildSaUp).mode is Mode.TRANSPORT
    agree(pair.alice, pair.bob)


def test_all_children_of_a_peer_are_set_up_the_further_ones_by_create_child_sa() -> None:
    pair = Pair(children=(child("one"), child("two"), child("three", local="10.9.0.0/16")))
    pair.set_up()
    pair.to_bob()  # --> CREATE_CHILD_SA: SA, Ni, TSi, TSr for "two"
    pair.to_alice()  # <-- CREATE_CHILD_SA: SA, Nr, TSi, TSr
    pair.to_bob()  # --> CREATE_CHILD_SA for "three"
    pair.to_alice()  # <-- CREATE_CHILD_SA
    assert [up.label for up in pair.alice.seen(ChildSaUp)] == ["one", "two", "three"]
    assert len({up.keys_in.key for up in pair.alice.seen(ChildSaUp)}) == 3
    agree(pair.alice, pair.bob)
    assert pair.quiet()


def test_selectors_of_both_families_with_ports_and_protocols_travel() -> None:
    config = ChildConfig(
        label="both",
        mode=Mode.TUNNEL,
        esp_proposals=(EspProposal.parse("aes256gcm16-esn"),),
        ts_local=(selector("10.0.0.0/24"), TrafficSelector.from_network(IPv6Network("fd00:1::/64"))),
        ts_remote=(
            selector("10.1.0.0/24", protocol=17, start_port=4789, end_port=4789),
            TrafficSelector.from_network(IPv6Network("fd00:2::/64"), protocol=6, start_port=0, end_port=1023),
        ),
    )
    pair = Pair(children=(config,))
    pair.set_up()
    assert pair.bob.one(ChildSaUp).ts_remote == config.ts_local
    assert pair.bob.one(ChildSaUp).ts_local == config.ts_remote
    agree(pair.alice, pair.bob)


def test_initial_contact_is_reported_to_the_responder() -> None:
    pair = Pair(initial_contact=True)
    pair.set_up()
    assert pair.bob.one(IkeSaUp).initial_contact
    assert not pair.alice.one(IkeSaUp).initial_contact


def test_an_ike_sa_without_a_child_is_possible() -> None:
    pair = Pair(children=())
    pair.set_up()
    assert not pair.bob.seen(ChildSaUp)
    assert pair.quiet()


def test_children_may_have_exchanges_of_their_own_after_an_ike_sa_without() -> None:
    pair = Pair(children=(child("one", esp="aes256gcm16-x25519"), child("two")))
    pair.alice_peer = replace(pair.alice_peer, children_apart=True)
    pair.set_up()  # --> IKE_SA_INIT, IKE_AUTH, without a child (RFC 6023)
    assert not pair.bob.seen(ChildSaUp)
    pair.to_bob()  # --> CREATE_CHILD_SA for "one", with KE
    pair.to_alice()  # <-- CREATE_CHILD_SA
    assert str(pair.alice.one(ChildSaUp).proposal) == "aes256gcm16-x25519"
    pair.settle()
    assert [up.label for up in pair.bob.seen(ChildSaUp)] == ["one", "two"]
    agree(pair.alice, pair.bob)
    assert pair.quiet()


def test_the_responder_has_reported_its_child_before_its_answer_is_sent() -> None:
    pair = Pair()
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    (datagram,) = pair.alice.take(pair.now)
    pair.bob.endpoint.receive_datagram(
        datagram.data, local=datagram.remote, remote=datagram.local, now=pair.now
    )  # --> IKE_AUTH
    assert pair.bob.one(ChildSaUp).spi_out == min(pair.alice.policy.allocated)
    assert pair.bob.endpoint.has_datagrams


def test_status_lists_what_is_established() -> None:
    pair = Pair()
    assert pair.alice.endpoint.established() == ()
    handle = pair.set_up()
    (info,) = pair.alice.endpoint.established()
    up = pair.alice.one(ChildSaUp)
    assert (info.ike_sa, info.identity, info.established_at) == (handle, BOB, pair.now)
    assert [(each.label, each.spi_in, each.spi_out) for each in info.children] == [("tunnel-1", up.spi_in, up.spi_out)]
