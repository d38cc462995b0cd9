"""CHILD SAs: which one is meant, what both agree on, and further ones by CREATE_CHILD_SA."""

from dataclasses import replace

import pytest

from hauberk_ike import (
    ChildSaDown,
    ChildSaFailed,
    ChildSaUp,
    EndpointSettings,
    EsnId,
    IkeSaDown,
    Mode,
    ReauthenticationNeeded,
    UnknownIkeSa,
)
from hauberk_ike.numbers import ExchangeType, NotifyType, Protocol, TransformType
from hauberk_ike.vendor import build_label
from hauberk_ike.wire.message import KnownPayload
from hauberk_ike.wire.payloads import Delete, Nonce, Notify
from hauberk_ike.wire.security_association import Proposal, SecurityAssociation, Transform
from hauberk_ike.wire.traffic_selectors import TsInitiator, TsResponder
from tests.unit.ike.party import ALICE, BOB, Pair, agree, child, selector, turned
from tests.unit.ike.raw_peer import RawPeer

NONCE = Nonce(data=b"a nonce for a child, of 32 bytes")


# Which child


def test_the_label_says_which_of_two_children_with_the_same_selectors_is_meant() -> None:
    pair = Pair(children=(child("two"),), bob_children=(turned(child("one")), turned(child("two"))))
    pair.set_up()
    assert pair.bob.one(ChildSaUp).label == "two"
    agree(pair.alice, pair.bob)


def test_without_a_label_the_selectors_say_which_child_is_meant() -> None:
    children = (child("one", local="10.1.0.0/16"), child("two", local="10.2.0.0/16"))
    pair = Pair(children=children)
    raw = RawPeer(pair.bob, ALICE)
    raw.set_up(child=raw.child_payloads(ts_i="10.2.3.0/24"))
    up = pair.bob.one(ChildSaUp)
    assert up.label == "two"
    assert up.ts_remote == (selector("10.2.3.0/24"),)


def test_a_label_that_nobody_knows_is_refused_even_if_the_selectors_fit() -> None:
    pair = Pair(children=(child("one"),), bob_children=(turned(child("other")),))
    pair.set_up()
    assert pair.alice.one(ChildSaFailed).reason == "TS_UNACCEPTABLE"


def test_a_label_counts_only_from_one_of_ours() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init(raw.init_payloads()[:-1])  # no Vendor ID
    answer = raw.ask(
        ExchangeType.IKE_AUTH, raw.auth_payloads(child=[*raw.child_payloads(), build_label("somebody else's")])
    )
    assert answer is not None
    assert pair.bob.one(ChildSaUp).label == "tunnel-1"


@pytest.mark.parametrize("label", [b"", b"x" * 65, b"\xff\xfe"])
def test_a_label_that_is_none_is_invalid_syntax_and_ends_the_ike_sa(label: bytes) -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    answer = raw.ask(
        ExchangeType.CREATE_CHILD_SA,
        [NONCE, *raw.child_payloads(), Notify(type=NotifyType.HAUBERK_TUNNEL, data=label)],
    )
    assert answer is not None
    assert answer.notify(NotifyType.INVALID_SYNTAX)
    assert pair.bob.one(IkeSaDown)
    assert not pair.bob.kernel
    assert not pair.bob.leaked


# What both agree on


def test_selectors_are_narrowed_to_what_both_want() -> None:
    wide = child(local="10.244.0.0/16", remote="0.0.0.0/0")
    pair = Pair(children=(wide,), bob_children=(turned(child()),))
    pair.set_up()
    up = pair.alice.one(ChildSaUp)
    assert (up.ts_local, up.ts_remote) == ((selector("10.244.1.0/24"),), (selector("10.244.2.0/24"),))
    agree(pair.alice, pair.bob)


def test_pitfall_4_a_peer_gets_no_more_than_it_was_granted() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.set_up(child=raw.child_payloads(ts_i="0.0.0.0/0", ts_r="0.0.0.0/0"))
    up = pair.bob.one(ChildSaUp)
    assert (up.ts_remote, up.ts_local) == ((selector("10.244.1.0/24"),), (selector("10.244.2.0/24"),))
    answer = raw.ask(ExchangeType.CREATE_CHILD_SA, [NONCE, *raw.child_payloads(ts_i="10.244.3.0/24")])
    assert answer is not None
    assert answer.notify(NotifyType.TS_UNACCEPTABLE)


def test_a_mode_that_the_responder_does_not_have_falls_back_to_tunnel_and_the_initiator_deletes_it() -> None:
    pair = Pair(children=(child(mode=Mode.TRANSPORT),), bob_children=(turned(child(mode=Mode.TUNNEL)),))
    pair.set_up()
    assert pair.alice.one(ChildSaFailed)
    pair.to_bob()  # --> INFORMATIONAL: D(ESP)
    pair.to_alice()  # <-- INFORMATIONAL: D(ESP)
    assert pair.bob.one(ChildSaDown).by_peer
    assert not pair.alice.leaked
    assert not pair.bob.leaked
    assert pair.quiet()


def test_a_child_for_transport_mode_is_not_had_in_tunnel_mode() -> None:
    pair = Pair(children=(child(mode=Mode.TUNNEL),), bob_children=(turned(child(mode=Mode.TRANSPORT)),))
    pair.set_up()
    assert pair.alice.one(ChildSaFailed).reason == "NO_PROPOSAL_CHOSEN"


@pytest.mark.parametrize(
    ("alice", "bob", "chosen"),
    [
        ("aes128gcm16-esn-noesn", "aes128gcm16", "aes128gcm16"),
        ("aes128gcm16-esn-noesn", "aes128gcm16-noesn-esn", "aes128gcm16-esn"),
        ("aes256gcm16-esn,aes128gcm16-esn", "aes128gcm16-aes256gcm16-esn", "aes256gcm16-esn"),
        ("aes256gcm16-esn,aes128gcm16", "aes128gcm16", "aes128gcm16"),
        ("aes128gcm16-esn", "aes128gcm16", None),
        ("aes128gcm16", "aes256gcm16", None),
    ],
)
def test_esp_proposals_are_negotiated_the_initiators_order_first(alice: str, bob: str, chosen: str | None) -> None:
    pair = Pair(children=(child(esp=alice),), bob_children=(turned(child(esp=bob)),))
    pair.set_up()
    if chosen is None:
        assert pair.alice.one(ChildSaFailed).reason == "NO_PROPOSAL_CHOSEN"
    else:
        up = pair.alice.one(ChildSaUp)
        assert str(up.proposal) == chosen
        assert up.keys_in.esn is (up.proposal.esn[0] is EsnId.ESN)
    agree(pair.alice, pair.bob)


@pytest.mark.parametrize(
    ("more", "accepted"),
    [
        (Transform(type=TransformType.INTEG, id=0), True),
        (Transform(type=TransformType.INTEG, id=12), False),
        (Transform(type=TransformType.KE, id=0), True),
        (Transform(type=TransformType.KE, id=31), False),
        (Transform(type=6, id=36), False),
    ],
    ids=["no integrity", "integrity", "no key exchange", "key exchange", "additional key exchange"],
)
def test_transforms_beside_ours_in_an_esp_proposal(more: Transform, accepted: bool) -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    association, *rest = raw.child_payloads()
    assert isinstance(association, SecurityAssociation)
    (offered,) = association.proposals
    changed = Proposal(number=1, protocol=Protocol.ESP, spi=offered.spi, transforms=(*offered.transforms, more))
    raw.ask_init()
    answer = raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads(child=[SecurityAssociation(proposals=(changed,)), *rest]))
    assert answer is not None
    assert bool(pair.bob.seen(ChildSaUp)) is accepted
    assert bool(answer.notify(NotifyType.NO_PROPOSAL_CHOSEN)) is not accepted


# CREATE_CHILD_SA


def test_either_side_creates_further_children() -> None:
    pair = Pair(bob_children=(turned(child()), turned(child("more", local="10.9.0.0/16"))))
    handle = pair.set_up()
    pair.alice.endpoint.create_child(handle, child("more", local="10.9.0.0/16"), now=pair.now)
    pair.to_bob()  # --> CREATE_CHILD_SA: SA, Ni, TSi, TSr
    pair.to_alice()  # <-- CREATE_CHILD_SA: SA, Nr, TSi, TSr
    (bobs,) = pair.bob.endpoint.established()
    pair.bob.endpoint.create_child(bobs.ike_sa, turned(child()), now=pair.now)
    pair.to_alice()  # <-- CREATE_CHILD_SA: SA, Ni, TSi, TSr
    pair.to_bob()  # --> CREATE_CHILD_SA: SA, Nr, TSi, TSr
    assert [up.label for up in pair.bob.seen(ChildSaUp)] == ["tunnel-1", "more", "tunnel-1"]
    assert [up.initiator for up in pair.bob.seen(ChildSaUp)] == [False, False, True]
    agree(pair.alice, pair.bob)


def test_a_peer_that_is_reconfigured_has_other_children_from_then_on() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.create_child(handle, child("later"), now=pair.now)
    pair.settle()
    assert pair.alice.one(ChildSaFailed).label == "later"
    (bobs,) = pair.bob.endpoint.established()
    pair.bob.endpoint.reconfigure(bobs.ike_sa, replace(bobs.peer, children=(turned(child("later")),)))
    for label in ("later", "tunnel-1"):
        pair.alice.endpoint.create_child(handle, child(label), now=pair.now)
    pair.settle()
    assert [up.label for up in pair.bob.seen(ChildSaUp)] == ["tunnel-1", "later"]
    agree(pair.alice, pair.bob)
    pair.alice.endpoint.delete(handle, now=pair.now)
    pair.settle()
    with pytest.raises(UnknownIkeSa):
        pair.bob.endpoint.reconfigure(bobs.ike_sa, bobs.peer)


def test_both_create_a_child_at_once() -> None:
    pair = Pair()
    handle = pair.set_up()
    (bobs,) = pair.bob.endpoint.established()
    pair.alice.endpoint.create_child(handle, child(), now=pair.now)
    pair.bob.endpoint.create_child(bobs.ike_sa, turned(child()), now=pair.now)
    pair.settle()  # the requests cross: each is answered in the middle of the other's
    assert len(pair.alice.kernel) == 3
    agree(pair.alice, pair.bob)


def test_children_asked_for_early_wait_until_the_peer_is_authenticated() -> None:
    pair = Pair(bob_children=(turned(child()), turned(child("early"))))
    handle = pair.initiate()
    pair.alice.endpoint.create_child(handle, child("early"), now=pair.now)
    pair.settle()
    assert [up.label for up in pair.alice.seen(ChildSaUp)] == ["tunnel-1", "early"]
    agree(pair.alice, pair.bob)


def test_an_ike_sa_that_is_unknown_or_being_deleted_takes_no_child() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.delete(handle, now=pair.now)
    with pytest.raises(UnknownIkeSa):
        pair.alice.endpoint.create_child(handle, child(), now=pair.now)
    pair.settle()
    with pytest.raises(UnknownIkeSa):
        pair.alice.endpoint.create_child(handle, child(), now=pair.now)


def test_pitfall_6_a_child_that_is_refused_gives_its_spi_back() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.endpoint.create_child(handle, child("unknown"), now=pair.now)
    pair.to_bob()  # --> CREATE_CHILD_SA
    pair.to_alice()  # <-- CREATE_CHILD_SA: N(TS_UNACCEPTABLE)
    assert pair.alice.one(ChildSaFailed).label == "unknown"
    agree(pair.alice, pair.bob)


def test_pitfall_6_no_spi_for_a_further_child_fails_it_and_no_more() -> None:
    pair = Pair()
    handle = pair.set_up()
    pair.alice.policy.spis_left = 0
    pair.alice.endpoint.create_child(handle, child(), now=pair.now)
    assert "no SPI" in pair.alice.one(ChildSaFailed).reason
    assert pair.quiet()


def test_the_number_of_children_is_bounded() -> None:
    pair = Pair(settings=EndpointSettings(max_children=2))
    raw = RawPeer(pair.bob, ALICE).set_up()
    for spi, expected in ((0x6001, None), (0x6002, NotifyType.NO_ADDITIONAL_SAS)):
        answer = raw.ask(ExchangeType.CREATE_CHILD_SA, [NONCE, *raw.child_payloads(spi=spi)])
        assert answer is not None
        error = answer.error()
        assert (error.type if error else None) == expected
    assert len(pair.bob.kernel) == 2


@pytest.mark.parametrize("spi", [0, 1, 255])
def test_reserved_spis_are_invalid_syntax(spi: int) -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    answer = raw.ask(ExchangeType.CREATE_CHILD_SA, [NONCE, *raw.child_payloads(spi=spi)])
    assert answer is not None
    assert answer.notify(NotifyType.INVALID_SYNTAX)
    assert not pair.bob.leaked


def test_pitfall_3_nothing_unchecked_is_echoed_in_child_sa_not_found() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    bad = Notify(type=NotifyType.REKEY_SA, protocol=Protocol.ESP, spi=b"x" * 200)
    answer = raw.ask(ExchangeType.CREATE_CHILD_SA, [bad, NONCE, *raw.child_payloads()])
    assert answer is not None
    assert [(each.type, each.spi) for each in answer.all(Notify)] == [(NotifyType.INVALID_SYNTAX, b"")]


def test_pitfall_14_our_own_nonce_coming_back_in_an_answer_ends_the_ike_sa() -> None:
    pair = Pair(children=(child(), child("two")))
    pair.initiate()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    raw.give_init(raw.take_init())
    (request,) = raw.send(raw.seal(ExchangeType.IKE_AUTH, raw.auth_payloads(), message_id=1, response=True))
    nonce = raw.open(request).one(Nonce)
    raw.send(raw.seal(ExchangeType.CREATE_CHILD_SA, [nonce, *raw.child_payloads()], message_id=2, response=True))
    assert pair.alice.one(ChildSaFailed).label == "two"
    assert pair.alice.one(IkeSaDown)
    assert not pair.alice.leaked


MISSING = [Nonce, SecurityAssociation, TsInitiator, TsResponder]


@pytest.mark.parametrize("missing", MISSING, ids=lambda kind: kind.__name__)
def test_a_request_that_lacks_a_payload_is_invalid_syntax(missing: type[KnownPayload]) -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    payloads = [each for each in [NONCE, *raw.child_payloads()] if not isinstance(each, missing)]
    answer = raw.ask(ExchangeType.CREATE_CHILD_SA, payloads)
    assert answer is not None
    assert [each.type for each in answer.all(Notify)] == [NotifyType.INVALID_SYNTAX]
    assert pair.bob.one(IkeSaDown)
    assert not pair.bob.kernel


def test_no_child_is_created_while_the_ike_sa_is_being_deleted() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    (info,) = pair.bob.endpoint.established()
    pair.bob.endpoint.delete(info.ike_sa, now=pair.now)
    (deletion,) = pair.bob.take(pair.now)
    assert raw.open(deletion).one(Delete).protocol == Protocol.IKE
    answer = raw.ask(ExchangeType.CREATE_CHILD_SA, [NONCE, *raw.child_payloads(spi=0x5002)])
    assert answer is not None
    assert [each.type for each in answer.all(Notify)] == [NotifyType.TEMPORARY_FAILURE]


# The packet that caused it (section 2.9)


def test_the_packet_says_which_of_several_children_is_meant() -> None:
    narrow = (child("one", local="10.1.0.0/16"), child("two", local="10.2.0.0/16"))
    pair = Pair(children=(child("wide", local="10.0.0.0/8"),), bob_children=tuple(map(turned, narrow)))
    raw = RawPeer(pair.bob, ALICE).set_up(child=())
    packet = selector("10.2.3.4/32", protocol=6, start_port=80, end_port=80)
    association, _, ts_r = raw.child_payloads()
    ts_i = TsInitiator(selectors=(packet, selector("10.0.0.0/8")))
    answer = raw.ask(ExchangeType.CREATE_CHILD_SA, [NONCE, association, ts_i, ts_r])
    assert answer is not None
    assert pair.bob.one(ChildSaUp).label == "two"
    assert answer.notify(NotifyType.ADDITIONAL_TS_POSSIBLE), "there is one more for the rest"


def test_our_packet_goes_first_and_alone_if_the_peer_wants_single_pairs() -> None:
    pair = Pair(children=(), bob_children=())
    pair.initiate()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    raw.give_init(raw.take_init(), [*raw.init_payloads(), Notify(type=NotifyType.CHILDLESS_IKEV2_SUPPORTED)])
    raw.send(raw.seal(ExchangeType.IKE_AUTH, raw.auth_payloads(child=()), message_id=1, response=True))
    (info,) = pair.alice.endpoint.established()
    packet = selector("10.244.1.7/32"), selector("10.244.2.9/32")
    pair.alice.endpoint.create_child(info.ike_sa, child(), packet=packet, now=pair.now)
    (request,) = pair.alice.take(pair.now)
    asked = raw.open(request)
    assert asked.one(TsInitiator).selectors == (packet[0], *child().ts_local)
    assert asked.one(TsResponder).selectors == (packet[1], *child().ts_remote)
    refusal = Notify(type=NotifyType.SINGLE_PAIR_REQUIRED)
    (again,) = raw.send(raw.seal(ExchangeType.CREATE_CHILD_SA, [refusal], message_id=2, response=True))
    assert raw.open(again).one(TsInitiator).selectors == packet[:1]
    assert raw.open(again).one(TsResponder).selectors == packet[1:]
    raw.send(raw.seal(ExchangeType.CREATE_CHILD_SA, [refusal], message_id=3, response=True))
    assert pair.alice.one(ChildSaFailed).reason == "SINGLE_PAIR_REQUIRED"
    assert not pair.alice.leaked


def test_no_additional_sas_for_a_new_child_asks_for_another_ike_sa() -> None:
    pair = Pair(settings=EndpointSettings(max_children=1))
    handle = pair.set_up()
    pair.alice.endpoint.create_child(handle, child(), now=pair.now)
    pair.settle()
    assert pair.alice.one(ReauthenticationNeeded).reason == "NO_ADDITIONAL_SAS"
    assert pair.alice.one(ChildSaFailed).reason == "NO_ADDITIONAL_SAS"
    agree(pair.alice, pair.bob)
