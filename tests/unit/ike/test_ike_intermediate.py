"""IKE_INTERMEDIATE with additional key exchanges (RFC 9242, RFC 9370), and both IKE_SA_INIT messages in AUTH."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from hauberk_ike import EndpointSettings, IkeProposal, IkeSaRekeyed, IkeSaUp
from hauberk_ike.exchanges import ike_intermediate
from hauberk_ike.numbers import ExchangeType, NotifyType
from hauberk_ike.wire.header import FLAG_INITIATOR, FLAG_RESPONSE, HEADER, Header
from hauberk_ike.wire.message import Contents, Payload, build_message, parse_payloads
from hauberk_ike.wire.payloads import KeyExchangePayload, Notify, UnknownPayload
from hauberk_ike.wire.security_association import Proposal, SecurityAssociation
from tests.unit.ike.party import ALICE, Pair, agree
from tests.unit.ike.raw_peer import RawPeer

HYBRID = "aes128gcm16-prfsha256-x25519-ke1_mlkem768"
THREE = "aes128gcm16-prfsha256-x25519-ke1_mlkem768-ke2_ecp384-ke3_ecp256"


def hybrid(ike: str = HYBRID) -> Pair:
    return Pair(ike=ike, settings=EndpointSettings(ike_proposals=(IkeProposal.parse(ike),)))


def exchange(data: bytes) -> int:
    return Header.parse(data).exchange_type


def test_an_additional_key_exchange_goes_before_ike_auth() -> None:
    pair = hybrid()
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT: SA, KE, Ni, N(INTERMEDIATE_EXCHANGE_SUPPORTED)
    pair.to_alice()  # <-- IKE_SA_INIT: SA, KE, Nr, N(INTERMEDIATE_EXCHANGE_SUPPORTED)
    assert exchange(pair.to_bob().data) == ExchangeType.IKE_INTERMEDIATE  # --> KEi(1)
    assert exchange(pair.to_alice().data) == ExchangeType.IKE_INTERMEDIATE  # <-- KEr(1)
    pair.to_bob()  # --> IKE_AUTH
    pair.to_alice()  # <-- IKE_AUTH
    assert pair.alice.one(IkeSaUp).proposal == pair.bob.one(IkeSaUp).proposal == HYBRID
    agree(pair.alice, pair.bob)


def test_several_go_one_after_the_other_and_again_with_a_rekey() -> None:
    pair = hybrid(THREE)
    handle = pair.initiate()
    pair.settle()
    assert pair.bob.one(IkeSaUp).proposal == THREE
    pair.alice.endpoint.rekey_ike(handle, now=pair.now)
    pair.to_bob()  # --> CREATE_CHILD_SA: SA, Ni, KEi(0)
    pair.to_alice()  # <-- CREATE_CHILD_SA: SA, Nr, KEr(0), N(ADDITIONAL_KEY_EXCHANGE)
    for _ in range(3):
        assert not pair.bob.seen(IkeSaRekeyed)
        assert exchange(pair.to_bob().data) == ExchangeType.IKE_FOLLOWUP_KE  # --> KEi(n), N(ADDITIONAL_KEY_EXCHANGE)
        pair.to_alice()  # <-- KEr(n), N(ADDITIONAL_KEY_EXCHANGE) but for the last
    pair.to_bob()  # --> INFORMATIONAL: D(IKE)
    pair.to_alice()  # <-- INFORMATIONAL
    assert pair.alice.one(IkeSaRekeyed).proposal == THREE
    agree(pair.alice, pair.bob)
    assert pair.quiet()


def test_a_lost_answer_of_an_intermediate_exchange_is_repeated_under_the_old_keys() -> None:
    pair = hybrid()
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    pair.to_bob()  # --> IKE_INTERMEDIATE
    lost = pair.lose(pair.bob)  # the answer is lost
    pair.wait(1)
    pair.to_bob()  # --> IKE_INTERMEDIATE, again
    assert pair.to_alice().data == lost.data  # <-- IKE_INTERMEDIATE, from memory
    pair.settle()
    assert pair.alice.one(IkeSaUp)


def test_pitfall_15_ike_auth_before_the_last_key_exchange_ends_the_attempt() -> None:
    pair = hybrid()
    raw = RawPeer(pair.bob, ALICE, proposal=IkeProposal.parse(HYBRID))
    supported = Notify(type=NotifyType.INTERMEDIATE_EXCHANGE_SUPPORTED)
    assert raw.ask_init([*raw.init_payloads(), supported]) is not None
    answer = raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads())
    assert answer is not None
    assert answer.notify(NotifyType.INVALID_SYNTAX)
    assert not pair.bob.seen(IkeSaUp)
    assert not pair.bob.policy.authorized


@pytest.mark.parametrize("missing", ["i", "r"])
def test_pitfall_15_auth_that_leaves_out_an_intermediate_message_fails(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[[bytes, bytes, int], bytes] = ike_intermediate.intermediate_auth
    calls: list[int] = []

    def forgetful(int_auth_i: bytes, int_auth_r: bytes, message_id: int) -> bytes:
        calls.append(message_id)
        if len(calls) == 2:  # Alice's; Bob's is as it should be
            int_auth_i, int_auth_r = (b"", int_auth_r) if missing == "i" else (int_auth_i, b"")
        return real(int_auth_i, int_auth_r, message_id)

    monkeypatch.setattr(ike_intermediate, "intermediate_auth", forgetful)
    pair = hybrid()
    pair.initiate()
    pair.settle()
    assert calls == [2, 2]
    assert not pair.bob.seen(IkeSaUp)
    assert not pair.alice.seen(IkeSaUp)


def test_pitfall_15_an_intermediate_exchange_that_was_not_agreed_on_is_met_with_silence() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    key = KeyExchangePayload(method=31, data=raw.key_pair.public)
    assert raw.ask(ExchangeType.IKE_INTERMEDIATE, [key]) is None
    assert raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads()) is not None
    assert pair.bob.one(IkeSaUp)


@pytest.mark.parametrize("payloads", [[], [KeyExchangePayload(method=31, data=bytes(32))]], ids=["none", "another"])
def test_an_intermediate_exchange_with_another_key_than_the_next_method_s_ends_the_attempt(
    payloads: list[KeyExchangePayload],
) -> None:
    pair = hybrid()
    raw = RawPeer(pair.bob, ALICE, proposal=IkeProposal.parse(HYBRID))
    raw.ask_init([*raw.init_payloads(), Notify(type=NotifyType.INTERMEDIATE_EXCHANGE_SUPPORTED)])
    answer = raw.ask(ExchangeType.IKE_INTERMEDIATE, payloads)
    assert answer is not None
    assert answer.notify(NotifyType.INVALID_SYNTAX)
    assert not pair.bob.seen(IkeSaUp)


# Downgrades (pitfall 13): somebody between the two changes IKE_SA_INIT


def without(kinds: set[NotifyType]) -> Callable[[bytes], bytes]:
    """Strips notifies."""

    def tamper(data: bytes) -> bytes:
        header = Header.parse(data)
        payloads = parse_payloads(header.next_payload, data, HEADER.size)
        kept = [each for each in payloads if not (isinstance(each, Notify) and each.type in kinds)]
        return rebuilt(header, kept)

    return tamper


def without_additional(data: bytes) -> bytes:
    """Strips the additional key exchange from the offer or the choice, and the notify that goes with it."""
    header = Header.parse(data)
    payloads = parse_payloads(header.next_payload, data, HEADER.size)
    (association,) = Contents(payloads).all(SecurityAssociation)
    (proposal,) = association.proposals
    plain = Proposal(
        number=proposal.number,
        protocol=proposal.protocol,
        spi=proposal.spi,
        transforms=tuple(each for each in proposal.transforms if each.type < 6),
    )
    changed = [SecurityAssociation(proposals=(plain,)) if each is association else each for each in payloads]
    return rebuilt(header, changed)


def rebuilt(header: Header, payloads: Sequence[Payload]) -> bytes:
    return build_message(
        spi_i=header.spi_i,
        spi_r=header.spi_r,
        exchange_type=header.exchange_type,
        flags=(FLAG_RESPONSE if header.is_response else 0) | (FLAG_INITIATOR if header.from_initiator else 0),
        message_id=header.message_id,
        payloads=[each for each in payloads if not isinstance(each, UnknownPayload)],
    )


def untouched(data: bytes) -> bytes:
    return data


SUPPORTED = {NotifyType.INTERMEDIATE_EXCHANGE_SUPPORTED}
TRANSCRIPT = {NotifyType.IKE_SA_INIT_FULL_TRANSCRIPT_AUTH}


@pytest.mark.parametrize(
    ("request_tamper", "answer_tamper"),
    [
        (without_additional, untouched),
        (untouched, without_additional),
        (without(SUPPORTED), untouched),
        (untouched, without(SUPPORTED)),
        (without(TRANSCRIPT), untouched),
        (untouched, without(TRANSCRIPT)),
        (without(TRANSCRIPT), without(TRANSCRIPT)),
    ],
    ids=["offer", "choice", "ask 16438", "grant 16438", "ask 16447", "grant 16447", "both 16447"],
)
def test_pitfall_13_a_downgrade_sets_nothing_up(
    request_tamper: Callable[[bytes], bytes], answer_tamper: Callable[[bytes], bytes]
) -> None:
    pair = hybrid("aes128gcm16-prfsha256-x25519-ke1_mlkem768-ke1_none")
    pair.initiate()
    pair.to_bob(request_tamper)  # --> IKE_SA_INIT, changed on its way
    for datagram in pair.bob.take(pair.now):
        pair.alice.receive(replace(datagram, data=answer_tamper(datagram.data)), pair.now)  # <-- IKE_SA_INIT, changed
    pair.settle()
    pair.wait(100)
    assert not pair.bob.seen(IkeSaUp)
    assert not pair.alice.seen(IkeSaUp)
    assert not pair.alice.leaked
    assert not pair.bob.leaked


def test_an_answer_that_grants_no_way_for_what_it_chose_is_a_hint_and_no_more() -> None:
    pair = hybrid()
    pair.initiate()
    request = pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice(without(SUPPORTED))  # <-- IKE_SA_INIT, changed on its way
    assert pair.quiet(), "Alice waits for a better one"
    pair.bob.receive(request, pair.now)  # --> IKE_SA_INIT, again
    pair.settle()
    assert pair.alice.one(IkeSaUp)
    agree(pair.alice, pair.bob)


def test_the_full_transcript_is_what_auth_covers_if_both_say_so() -> None:
    for whole in (True, False):
        pair = Pair()
        raw = RawPeer(pair.bob, ALICE)
        asked = raw.ask_init([*raw.init_payloads(), Notify(type=NotifyType.IKE_SA_INIT_FULL_TRANSCRIPT_AUTH)])
        assert asked is not None
        assert asked.notify(NotifyType.IKE_SA_INIT_FULL_TRANSCRIPT_AUTH)
        identity = raw.id_payload()
        octets = bytes(8) + raw.peer_init + raw.our_init if whole else raw.our_init
        proof = raw.proof(identity, message=octets)
        raw.ask(ExchangeType.IKE_AUTH, [identity, *raw.certificates(), proof, *raw.child_payloads()])
        assert bool(pair.bob.seen(IkeSaUp)) is whole
