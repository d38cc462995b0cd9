"""IKE_SA_INIT: negotiation, cookies, key exchange retries, and what nobody has authenticated yet."""

import pytest

from hauberk_ike import DownReason, EndpointSettings, IkeProposal, IkeSaDown, IkeSaUp, PeerRefused
from hauberk_ike.exchanges.ike_sa_init import MAX_RETRIES
from hauberk_ike.negotiation import offer_ike
from hauberk_ike.numbers import ExchangeType, NotifyType, Protocol, TransformType
from hauberk_ike.signature import HASH_ALGORITHMS
from hauberk_ike.wire.header import NO_SPI, Header
from hauberk_ike.wire.message import Contents, parse_payloads
from hauberk_ike.wire.payloads import KeyExchangePayload, Nonce, Notify
from hauberk_ike.wire.security_association import Proposal, SecurityAssociation, Transform
from tests.unit.ike.party import ALICE, BOB, Pair, agree
from tests.unit.ike.raw_peer import DEFAULT, RawPeer


def accepting(text: str) -> EndpointSettings:
    return EndpointSettings(ike_proposals=tuple(IkeProposal.parse(each) for each in text.split(",")))


def contents_of(data: bytes) -> Contents:
    return Contents(parse_payloads(Header.parse(data).next_payload, data, 28))


# Negotiation


def test_the_first_proposal_that_both_have_is_chosen() -> None:
    pair = Pair(
        ike="aes256gcm16-prfsha512-x25519,aes128gcm16-prfsha384-prfsha256-x25519",
        settings=accepting("aes128gcm16-prfsha256-prfsha384-x25519"),
    )
    pair.set_up()
    assert pair.alice.one(IkeSaUp).proposal == "aes128gcm16-prfsha384-x25519"
    agree(pair.alice, pair.bob)


def test_no_proposal_chosen_is_answered_and_reported_and_leaves_nothing() -> None:
    pair = Pair(ike="aes256gcm16-prfsha512-x25519", settings=accepting("aes128gcm16-prfsha256-x25519"))
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT: SA, KE, Ni
    answer = pair.to_alice()  # <-- IKE_SA_INIT: N(NO_PROPOSAL_CHOSEN)
    assert contents_of(answer.data).notify(NotifyType.NO_PROPOSAL_CHOSEN)
    assert Header.parse(answer.data).spi_r == NO_SPI
    assert pair.bob.one(PeerRefused).reason == "NoProposalChosen"
    assert pair.bob.endpoint.get_timer() is None


def test_a_peer_whose_own_proposals_are_stricter_than_what_strangers_get_is_refused() -> None:
    pair = Pair(ike="aes128gcm16-prfsha256-x25519", bob_ike="aes256gcm16-prfsha384-x25519")
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    pair.to_bob()  # --> IKE_AUTH
    pair.to_alice()  # <-- IKE_AUTH: N(AUTHENTICATION_FAILED)
    assert pair.bob.one(PeerRefused).reason == "NoProposalChosen"
    assert pair.alice.one(IkeSaDown).reason is DownReason.FAILED
    assert not pair.alice.leaked


def test_an_offer_with_integ_none_is_answered_with_it() -> None:
    bob = Pair().bob
    raw = RawPeer(bob, ALICE)
    (offered,) = offer_ike((DEFAULT,)).proposals
    with_none = Proposal(
        number=1,
        protocol=Protocol.IKE,
        spi=b"",
        transforms=(*offered.transforms, Transform(type=TransformType.INTEG, id=0)),
    )
    answer = raw.ask_init([SecurityAssociation(proposals=(with_none,)), *raw.init_payloads()[1:]])
    assert answer is not None
    assert Transform(type=TransformType.INTEG, id=0) in answer.one(SecurityAssociation).proposals[0].transforms


def answer_with(transforms: tuple[Transform, ...], *, number: int = 1, copies: int = 1) -> SecurityAssociation:
    return SecurityAssociation(
        proposals=tuple(
            Proposal(number=number + index, protocol=Protocol.IKE, spi=b"", transforms=transforms)
            for index in range(copies)
        )
    )


GOOD = offer_ike((DEFAULT,)).proposals[0].transforms


@pytest.mark.parametrize(
    "answer",
    [
        answer_with(offer_ike((IkeProposal.parse("aes256gcm16-prfsha256-x25519"),)).proposals[0].transforms),
        answer_with(GOOD, number=2),
        answer_with(GOOD, copies=2),
        answer_with(GOOD[:2]),
        answer_with((*GOOD, Transform(type=TransformType.PRF, id=6))),
        answer_with((*GOOD, Transform(type=6, id=36))),
    ],
    ids=["never offered", "another number", "two", "no KE", "two PRFs", "an additional key exchange"],
)
def test_an_answer_that_is_not_one_choice_of_ours_is_a_hint_and_no_more(answer: SecurityAssociation) -> None:
    pair = Pair()
    pair.initiate()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    raw.take_init()
    assert raw.send(raw.init_answer([answer, *raw.init_payloads()[1:]])) == []
    assert not pair.alice.events


def test_pitfall_13_an_additional_key_exchange_is_not_left_out_in_silence() -> None:
    # Bob permits none (6: ADDKE1, RFC 9370), so the proposal is unacceptable to him.
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    offered = offer_ike((DEFAULT,)).proposals[0]
    proposal = Proposal(
        number=1, protocol=Protocol.IKE, spi=b"", transforms=(*offered.transforms, Transform(type=6, id=36))
    )
    answer = raw.ask_init([SecurityAssociation(proposals=(proposal,)), *raw.init_payloads()[1:]])
    assert answer is not None
    assert answer.notify(NotifyType.NO_PROPOSAL_CHOSEN)


def test_pitfall_7_a_key_length_or_attribute_that_we_do_not_know_is_not_chosen() -> None:
    bob = Pair().bob
    raw = RawPeer(bob, ALICE)
    _, *rest = offer_ike((DEFAULT,)).proposals[0].transforms
    for cipher in (Transform(type=1, id=20, key_bits=192), Transform(type=1, id=20), Transform(type=1, id=65000)):
        proposal = Proposal(number=1, protocol=Protocol.IKE, spi=b"", transforms=(cipher, *rest))
        answer = raw.ask_init([SecurityAssociation(proposals=(proposal,)), *raw.init_payloads()[1:]])
        assert answer is not None
        assert answer.notify(NotifyType.NO_PROPOSAL_CHOSEN)


# INVALID_KE_PAYLOAD


def test_invalid_ke_payload_leads_to_the_method_that_the_responder_wants() -> None:
    pair = Pair(ike="aes128gcm16-prfsha256-ecp256-x25519", settings=accepting("aes128gcm16-prfsha256-x25519"))
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT: SA, KE(ecp256), Ni
    answer = pair.to_alice()  # <-- IKE_SA_INIT: N(INVALID_KE_PAYLOAD, x25519)
    notify = contents_of(answer.data).notify(NotifyType.INVALID_KE_PAYLOAD)
    assert notify is not None
    assert notify.data == (31).to_bytes(2)
    assert not pair.bob.seen(PeerRefused)
    second = pair.to_bob()  # --> IKE_SA_INIT: SA, KE(x25519), Ni
    assert Header.parse(second.data).message_id == 0
    pair.to_alice()  # <-- IKE_SA_INIT: SA, KE, Nr
    pair.to_bob()  # --> IKE_AUTH
    pair.to_alice()  # <-- IKE_AUTH
    assert pair.alice.one(IkeSaUp).proposal == "aes128gcm16-prfsha256-x25519"
    agree(pair.alice, pair.bob)


def test_invalid_ke_payload_counts_with_a_responders_spi_too() -> None:
    """Section 2.6: the SPI should be zero, and an answer where it isn't is not to be rejected for that alone."""
    pair = Pair(ike="aes128gcm16-prfsha256-x25519-ecp256")
    pair.initiate()  # --> IKE_SA_INIT: SA, KE(x25519), Ni
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    raw.take_init()
    notify = Notify(type=NotifyType.INVALID_KE_PAYLOAD, data=(19).to_bytes(2))
    # <-- IKE_SA_INIT: N(INVALID_KE_PAYLOAD, ecp256), as libreswan answers
    (second,) = raw.send(raw.init_answer([notify], spi_r=b"\x01" * 8))
    assert Header.parse(second.data).spi_r == NO_SPI  # --> IKE_SA_INIT: SA, KE(ecp256), Ni
    assert contents_of(second.data).one(KeyExchangePayload).method == 19


@pytest.mark.parametrize(
    "data",
    [(31).to_bytes(2), (20).to_bytes(2), (14).to_bytes(2), b"", b"\0", b"\0\0\0\x13"],
    ids=["the same", "not offered", "unknown", "empty", "short", "long"],
)
def test_pitfall_13_an_invalid_ke_payload_that_makes_no_sense_neither_aborts_nor_loops(data: bytes) -> None:
    pair = Pair(ike="aes128gcm16-prfsha256-x25519-ecp256")
    pair.initiate()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    request = raw.take_init()
    assert raw.send(raw.init_answer([Notify(type=NotifyType.INVALID_KE_PAYLOAD, data=data)], spi_r=NO_SPI)) == []
    assert not pair.alice.events
    raw.give_init(request)  # the attempt goes on: a good answer is still good


def test_pitfall_13_a_refused_method_is_not_tried_again() -> None:
    pair = Pair(ike="aes128gcm16-prfsha256-x25519-ecp256")
    pair.initiate()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    raw.take_init()

    def refuse(wanted: int) -> int:
        notify = Notify(type=NotifyType.INVALID_KE_PAYLOAD, data=wanted.to_bytes(2))
        return len(raw.send(raw.init_answer([notify], spi_r=NO_SPI)))

    assert [refuse(19), refuse(31), refuse(19)] == [1, 0, 0]


# COOKIE


def test_a_responder_under_load_asks_for_a_cookie_and_keeps_no_state() -> None:
    pair = Pair(settings=EndpointSettings(cookie_threshold=0))
    pair.initiate()
    first = pair.to_bob()  # --> IKE_SA_INIT: SA, KE, Ni
    assert pair.bob.endpoint.get_timer() is None
    answer = pair.to_alice()  # <-- IKE_SA_INIT: N(COOKIE)
    cookie = contents_of(answer.data).notify(NotifyType.COOKIE)
    assert cookie is not None
    assert Header.parse(answer.data).spi_r == NO_SPI
    second = pair.to_bob()  # --> IKE_SA_INIT: N(COOKIE), SA, KE, Ni
    payloads = contents_of(second.data).payloads
    assert payloads[0] == cookie
    assert payloads[1:] == contents_of(first.data).payloads
    pair.to_alice()  # <-- IKE_SA_INIT: SA, KE, Nr
    pair.to_bob()  # --> IKE_AUTH; AUTH covers the request with the cookie
    pair.to_alice()  # <-- IKE_AUTH
    agree(pair.alice, pair.bob)


def test_pitfall_12_a_cookie_comes_before_any_key_work() -> None:
    # Nonsense in SA and KE is not looked at as long as there is no cookie.
    pair = Pair(settings=EndpointSettings(cookie_threshold=0))
    raw = RawPeer(pair.bob, ALICE)
    answer = raw.ask_init([KeyExchangePayload(method=31, data=b"short"), Nonce(data=bytes(16))])
    assert answer is not None
    assert answer.notify(NotifyType.COOKIE)
    assert not pair.bob.events


def test_pitfall_12_a_cookie_is_bound_to_nonce_spi_and_address() -> None:
    pair = Pair(settings=EndpointSettings(cookie_threshold=0))
    raw = RawPeer(pair.bob, ALICE)
    answer = raw.ask_init()
    assert answer is not None
    cookie = answer.notify(NotifyType.COOKIE)
    assert cookie is not None

    def welcome(peer: RawPeer) -> bool:
        answer = peer.ask_init([cookie, *peer.init_payloads()])
        assert answer is not None
        return answer.notify(NotifyType.COOKIE) is None

    assert not welcome(RawPeer(pair.bob, ALICE, spi=b"some SPI"))
    assert not welcome(RawPeer(pair.bob, ALICE, nonce=b"another nonce of 32 bytes length"))
    assert not welcome(RawPeer(pair.bob, ALICE, host="192.0.2.9"))
    assert welcome(raw)


def test_pitfall_12_cookies_go_stale() -> None:
    pair = Pair(settings=EndpointSettings(cookie_threshold=0, cookie_secret_seconds=60))
    raw = RawPeer(pair.bob, ALICE)
    answer = raw.ask_init()
    assert answer is not None
    cookie = answer.notify(NotifyType.COOKIE)
    assert cookie is not None
    raw.now += 200
    again = raw.ask_init([cookie, *raw.init_payloads()])
    assert again is not None
    assert again.notify(NotifyType.COOKIE)


def test_pitfall_13_cookies_again_and_again_do_not_loop() -> None:
    pair = Pair()
    pair.initiate()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    raw.take_init()
    sent = 0
    for number in range(3 * MAX_RETRIES):
        notify = Notify(type=NotifyType.COOKIE, data=b"cookie %d" % number)
        sent += len(raw.send(raw.init_answer([notify], spi_r=NO_SPI)))
    assert sent == MAX_RETRIES
    assert not pair.alice.events


def test_the_same_cookie_twice_is_one_cookie() -> None:
    pair = Pair()
    pair.initiate()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    raw.take_init()
    answer = raw.init_answer([Notify(type=NotifyType.COOKIE, data=b"cookie")], spi_r=NO_SPI)
    assert [len(raw.send(answer)), len(raw.send(answer))] == [1, 0]


# What is not authenticated


@pytest.mark.parametrize(
    "notify",
    [
        Notify(type=NotifyType.NO_PROPOSAL_CHOSEN),
        Notify(type=NotifyType.INVALID_SYNTAX),
        Notify(type=NotifyType.INVALID_MAJOR_VERSION),
        Notify(type=NotifyType.COOKIE, data=bytes(65)),
        Notify(type=NotifyType.COOKIE),
        Notify(type=12345),
    ],
)
def test_pitfall_13_an_unauthenticated_error_does_not_abort_but_is_the_reason_in_the_end(notify: Notify) -> None:
    pair = Pair()
    handle = pair.initiate()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    raw.take_init()
    for spi_r in (NO_SPI, None):
        assert raw.send(raw.init_answer([notify], spi_r=spi_r)) == []
    assert not pair.alice.events
    for _ in range(5):
        pair.wait(60)
        pair.alice.take(pair.now)
    down = pair.alice.one(IkeSaDown)
    assert (down.ike_sa, down.reason) == (handle, DownReason.FAILED)
    assert down.message.startswith("no usable answer (")


def test_pitfall_14_our_own_messages_coming_back_are_refused() -> None:
    pair = Pair()
    pair.initiate()
    (request,) = pair.alice.take(pair.now)
    # As a request: we do not answer ourselves.
    pair.alice.endpoint.receive_datagram(request.data, local=pair.alice.address, remote=pair.bob.address, now=pair.now)
    assert pair.quiet()
    # As an answer, with the flags turned.
    reflected = request.data[:8] + b"reflectd" + request.data[16:19] + b"\x20" + request.data[20:]
    pair.alice.endpoint.receive_datagram(reflected, local=pair.alice.address, remote=pair.bob.address, now=pair.now)
    assert pair.quiet()
    assert not pair.alice.seen(IkeSaDown)


@pytest.mark.parametrize("what", ["spi", "nonce", "key"])
def test_pitfall_14_our_own_spi_nonce_or_key_coming_back_is_refused(what: str) -> None:
    pair = Pair()
    pair.initiate()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    request = raw.take_init()
    payloads = raw.init_payloads()
    if what == "nonce":
        payloads[2] = request.one(Nonce)
    if what == "key":
        payloads[1] = request.one(KeyExchangePayload)
    assert raw.send(raw.init_answer(payloads, spi_r=raw.peer_spi if what == "spi" else None)) == []
    raw.give_init(request)  # and the attempt goes on


@pytest.mark.parametrize("length", [0, 31, 33, 64, 1000])
def test_pitfall_10_a_public_value_of_another_length_is_refused_by_both_sides(length: int) -> None:
    pair = Pair()
    wrong = KeyExchangePayload(method=31, data=bytes(length))
    raw = RawPeer(pair.bob, ALICE)
    sa, _, *rest = raw.init_payloads()
    assert raw.ask_init([sa, wrong, *rest]) is None
    assert pair.bob.one(PeerRefused).reason == "InvalidSyntax"

    pair.initiate()
    answering = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    request = answering.take_init()
    sa, _, *rest = answering.init_payloads()
    assert answering.send(answering.init_answer([sa, wrong, *rest])) == []
    answering.give_init(request)


def test_a_critical_payload_that_we_do_not_know_is_answered_with_its_type() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    good = raw.init_request()
    unknown = b"\x21\x80\x00\x04"  # critical, empty, SA follows
    length = (len(good) + 4).to_bytes(4)
    (answer,) = raw.send(good[:16] + b"\xc8" + good[17:24] + length + unknown + good[28:])
    notify = contents_of(answer.data).notify(NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD)
    assert notify is not None
    assert notify.data == b"\xc8"
    assert pair.bob.one(PeerRefused).reason == "UnsupportedCriticalPayload"


def test_a_later_major_version_is_told_ours_and_an_earlier_one_nothing() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    request = raw.init_request()
    (answer,) = raw.send(request[:17] + b"\x30" + request[18:])
    assert contents_of(answer.data).notify(NotifyType.INVALID_MAJOR_VERSION)
    assert Header.parse(answer.data).version == 0x20
    assert raw.send(request[:17] + b"\x10" + request[18:]) == []
    assert raw.send(request[:17] + b"\x2f" + request[18:]) != []  # minor versions do not matter


@pytest.mark.parametrize(
    ("flags", "message_id", "exchange"),
    [(0, 0, 34), (0x28, 0, 34), (0x20, 0, 34), (8, 1, 34), (8, 0, 35), (8, 0, 37), (8, 0, 43)],
)
def test_pitfall_5_only_a_proper_first_request_makes_state(flags: int, message_id: int, exchange: int) -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    request = raw.init_request()
    changed = request[:18] + bytes((exchange, flags)) + message_id.to_bytes(4) + request[24:]
    assert raw.send(changed) == []
    assert pair.bob.endpoint.get_timer() is None


def test_signature_hash_algorithms_are_sent_both_ways() -> None:
    pair = Pair()
    pair.initiate()
    for message in (pair.to_bob(), pair.to_alice()):
        notify = contents_of(message.data).notify(NotifyType.SIGNATURE_HASH_ALGORITHMS)
        assert notify is not None
        assert notify.data == HASH_ALGORITHMS == bytes.fromhex("0002000300040005")


@pytest.mark.parametrize("side", ["initiator", "responder"])
def test_pitfall_13_signature_hash_algorithms_that_were_stripped_fail_the_proof(side: str) -> None:
    pair = Pair()

    def strip(data: bytes) -> bytes:
        # Same length, another notify type: the notify is gone, the rest is as it was.
        wanted = int(NotifyType.SIGNATURE_HASH_ALGORITHMS).to_bytes(2)
        assert data.count(wanted + HASH_ALGORITHMS) == 1
        return data.replace(wanted + HASH_ALGORITHMS, b"\xff\xfe" + HASH_ALGORITHMS)

    pair.initiate()
    if side == "initiator":
        pair.to_bob()  # --> IKE_SA_INIT
        pair.to_alice(strip)  # <-- IKE_SA_INIT, without the notify
        pair.to_bob()  # --> IKE_AUTH: signed as for a peer that knows RFC 4754 only, over another answer than Bob's
    else:
        pair.to_bob(strip)  # --> IKE_SA_INIT, without the notify
        pair.to_alice()  # <-- IKE_SA_INIT
        pair.to_bob()  # --> IKE_AUTH: it signs another request than Bob has seen
    pair.to_alice()  # <-- IKE_AUTH: N(AUTHENTICATION_FAILED)
    assert pair.bob.one(PeerRefused).reason == "SignatureInvalid"
    assert not pair.bob.seen(IkeSaUp)
    pair.settle()
    assert pair.alice.one(IkeSaDown).reason is DownReason.FAILED
    assert not pair.alice.seen(IkeSaUp)
    assert not pair.bob.endpoint.established()
    assert not pair.alice.leaked
    assert not pair.bob.leaked


def test_exchange_numbers_are_the_rfcs() -> None:
    assert [int(each) for each in ExchangeType] == [34, 35, 36, 37, 43, 44]
