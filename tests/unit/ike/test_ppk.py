"""Post-quantum pre-shared keys (RFC 8784): mixed in by both ends, or by neither, or there is no IKE SA."""

from dataclasses import replace

import pytest

from hauberk_ike import (
    DownReason,
    EndpointSettings,
    IkeSaDown,
    IkeSaUp,
    PeerAuthentication,
    PeerRefused,
    Ppk,
    PreSharedKey,
)
from hauberk_ike.authentication import prove, signed_octets
from hauberk_ike.keys import IkeKeys, mix_ppk
from hauberk_ike.numbers import ExchangeType, NotifyType
from hauberk_ike.wire.message import Contents, KnownPayload, parse_payloads
from hauberk_ike.wire.payloads import Authentication, Notify
from tests.unit.ike.party import ALICE, Pair, agree, mesh_credentials
from tests.unit.ike.raw_peer import RawPeer

REQUIRED = Ppk(identity=b"ppk-1", secret=b"a post-quantum pre-shared key 01")
OPTIONAL = replace(REQUIRED, required=False)
OTHER = Ppk(identity=b"ppk-2", secret=b"a post-quantum pre-shared key 02")
WRONG = replace(REQUIRED, secret=OTHER.secret)
PSK = PreSharedKey(secret=b"an ordinary pre-shared key as well")

PPK_SETTINGS = EndpointSettings(use_ppk=True)


def ppk_pair(
    alice: Ppk | None, bob: Ppk | None, *, psk: bool = False, settings: EndpointSettings = PPK_SETTINGS
) -> Pair:
    key = PSK if psk else None
    return Pair(
        alice_authentication=PeerAuthentication(local=key, remote=key, ppk=alice),
        bob_authentication=PeerAuthentication(local=key, remote=key, ppk=bob),
        settings=settings,
    )


def in_keys(pair: Pair) -> tuple[bool, bool]:
    """Sets up; says whether the PPK is in the keys of each."""
    pair.set_up()
    agree(pair.alice, pair.bob)
    return pair.alice.one(IkeSaUp).ppk, pair.bob.one(IkeSaUp).ppk


def refused_by_bob(pair: Pair) -> PeerRefused:
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    pair.to_bob()  # --> IKE_AUTH
    pair.to_alice()  # <-- IKE_AUTH: N(AUTHENTICATION_FAILED)
    assert pair.alice.one(IkeSaDown).reason is DownReason.FAILED
    for party in (pair.alice, pair.bob):
        assert not party.seen(IkeSaUp)
        assert not party.leaked
    assert not pair.bob.policy.authorized
    return pair.bob.one(PeerRefused)


# Both have it, or can do without


@pytest.mark.parametrize("psk", [False, True], ids=["certificates", "pre-shared keys"])
@pytest.mark.parametrize("alice", [REQUIRED, OPTIONAL], ids=["required", "optional"])
@pytest.mark.parametrize("bob", [REQUIRED, OPTIONAL], ids=["required", "optional"])
def test_a_ppk_that_both_have_is_in_the_keys(alice: Ppk, bob: Ppk, psk: bool) -> None:
    assert in_keys(ppk_pair(alice, bob, psk=psk)) == (True, True)


@pytest.mark.parametrize("psk", [False, True], ids=["certificates", "pre-shared keys"])
@pytest.mark.parametrize(
    ("alice", "bob"),
    [
        (None, None),
        (OPTIONAL, None),
        (None, OPTIONAL),
        (OPTIONAL, replace(OTHER, required=False)),
    ],
    ids=["neither", "Alice's", "Bob's", "two"],
)
def test_a_ppk_that_one_does_not_have_is_left_out_if_that_is_allowed(
    alice: Ppk | None, bob: Ppk | None, psk: bool
) -> None:
    assert in_keys(ppk_pair(alice, bob, psk=psk)) == (False, False)


def test_an_endpoint_without_ppks_does_not_say_that_it_uses_them() -> None:
    assert in_keys(ppk_pair(OPTIONAL, OPTIONAL, settings=EndpointSettings())) == (False, False)


def test_the_ppk_is_in_the_keys_of_the_children_and_of_what_follows() -> None:
    # Only the PPK differs between the two runs: all entropy is seeded.
    keys: list[set[bytes]] = []
    for ppk in (REQUIRED, OTHER, None):
        pair = ppk_pair(ppk, ppk)
        handle = pair.set_up()
        pair.alice.endpoint.create_child(handle, pair.alice_peer.children[0], now=pair.now)
        pair.settle()  # <-> CREATE_CHILD_SA
        agree(pair.alice, pair.bob)
        keys.append({up.keys_in.key for up in pair.alice.kernel.values()})
    assert [len(each) for each in keys] == [2, 2, 2]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]


# The messages


def init_contents(data: bytes) -> Contents:
    return Contents(parse_payloads(data[16], data, 28))


def test_use_ppk_is_said_by_whoever_has_one_and_answered_only_if_asked() -> None:
    for alice, settings, said in (
        (REQUIRED, PPK_SETTINGS, (True, True)),
        (REQUIRED, EndpointSettings(), (True, False)),
        (None, PPK_SETTINGS, (False, False)),
    ):
        pair = ppk_pair(alice, None, settings=settings)
        pair.initiate()
        messages = (pair.to_bob(), pair.to_alice())
        assert tuple(init_contents(each.data).notify(NotifyType.USE_PPK) is not None for each in messages) == said


def with_use_ppk(raw: RawPeer) -> list[KnownPayload]:
    return [*raw.init_payloads(), Notify(type=NotifyType.USE_PPK)]


def proof(raw: RawPeer, keys: IkeKeys) -> Authentication:
    octets = signed_octets(
        keys.prf,
        message=raw.our_init,
        peer_nonce=raw.peer_nonce,
        sk_p=keys.sk_pi,
        identity=raw.id_payload(),
    )
    return prove(PSK, keys.prf, octets, frozenset())


def identity_notify(ppk: Ppk, kind: bytes = b"\x02") -> Notify:
    return Notify(type=NotifyType.PPK_IDENTITY, data=kind + ppk.identity)


def test_the_responder_confirms_with_an_empty_identity() -> None:
    pair = ppk_pair(None, REQUIRED, psk=True)
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init(with_use_ppk(raw))
    mixed = mix_ppk(raw.keys, REQUIRED.secret)
    payloads = [raw.id_payload(), proof(raw, mixed), identity_notify(REQUIRED), *raw.child_payloads()]
    answer = raw.ask(ExchangeType.IKE_AUTH, payloads)
    assert answer is not None
    confirmation = answer.notify(NotifyType.PPK_IDENTITY)
    assert confirmation is not None
    assert confirmation.data == b""
    assert pair.bob.one(IkeSaUp).ppk


def test_a_responder_without_the_ppk_takes_the_other_proof_and_confirms_nothing() -> None:
    pair = ppk_pair(None, None, psk=True)
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init(with_use_ppk(raw))
    without = Notify(type=NotifyType.NO_PPK_AUTH, data=proof(raw, raw.keys).data)
    mixed = mix_ppk(raw.keys, REQUIRED.secret)
    payloads = [raw.id_payload(), proof(raw, mixed), identity_notify(REQUIRED), without, *raw.child_payloads()]
    answer = raw.ask(ExchangeType.IKE_AUTH, payloads)
    assert answer is not None
    assert answer.one(Authentication)
    assert answer.notify(NotifyType.PPK_IDENTITY) is None
    assert not pair.bob.one(IkeSaUp).ppk


@pytest.mark.parametrize(
    "data",
    [b"", b"x", bytes(32), b"\xff" * 200],
    ids=["empty", "short", "zeros", "long"],
)
def test_the_other_proof_is_verified_like_the_first(data: bytes) -> None:
    pair = ppk_pair(None, None, psk=True)
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init(with_use_ppk(raw))
    without = Notify(type=NotifyType.NO_PPK_AUTH, data=data)
    # The proof with the PPK would be good for somebody who had it.
    payloads = [raw.id_payload(), proof(raw, mix_ppk(raw.keys, REQUIRED.secret)), identity_notify(REQUIRED), without]
    answer = raw.ask(ExchangeType.IKE_AUTH, [*payloads, *raw.child_payloads()])
    assert answer is not None
    assert answer.error() is not None
    assert not pair.bob.seen(IkeSaUp)


def test_an_empty_other_proof_with_a_signature_is_no_index_out_of_range() -> None:
    pair = ppk_pair(None, None)
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init(with_use_ppk(raw))
    without = Notify(type=NotifyType.NO_PPK_AUTH)
    answer = raw.ask(ExchangeType.IKE_AUTH, [*raw.auth_payloads(), identity_notify(REQUIRED), without])
    assert answer is not None
    assert answer.notify(NotifyType.INVALID_SYNTAX)
    assert not pair.bob.seen(IkeSaUp)


# There is no IKE SA without it


def test_a_responder_that_requires_a_ppk_refuses_who_uses_none() -> None:
    assert refused_by_bob(ppk_pair(None, REQUIRED)).reason == "PpkMissing"
    assert refused_by_bob(ppk_pair(None, REQUIRED, psk=True)).reason == "PpkMissing"


def test_a_responder_that_requires_a_ppk_refuses_another_one_though_it_comes_with_a_proof_without() -> None:
    assert refused_by_bob(ppk_pair(replace(OTHER, required=False), REQUIRED)).reason == "PpkMissing"


def test_an_initiator_that_requires_a_ppk_gives_up_if_the_responder_uses_none() -> None:
    pair = ppk_pair(REQUIRED, None, settings=EndpointSettings())
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT: N(USE_PPK)
    pair.to_alice()  # <-- IKE_SA_INIT
    assert pair.alice.one(IkeSaDown).message == "the peer uses no PPK"
    assert pair.quiet()
    assert not pair.alice.leaked


def test_an_initiator_that_requires_a_ppk_is_refused_where_it_is_not_known() -> None:
    assert refused_by_bob(ppk_pair(REQUIRED, None)).reason == "PpkMissing"
    assert refused_by_bob(ppk_pair(REQUIRED, replace(OTHER, required=False))).reason == "PpkMissing"


def test_pitfall_8_an_initiator_that_requires_a_ppk_does_not_believe_a_responder_that_leaves_it_out() -> None:
    pair = ppk_pair(REQUIRED, None)
    pair.initiate()
    raw = RawPeer(pair.alice, "bob.default.hauberk.internal", initiator=False, host="192.0.2.2")
    raw.give_init(raw.take_init(), with_use_ppk(raw))
    (reject,) = raw.send(raw.seal(ExchangeType.IKE_AUTH, raw.auth_payloads(), message_id=1, response=True))
    assert raw.open(reject).notify(NotifyType.AUTHENTICATION_FAILED)
    assert pair.alice.one(IkeSaDown).message == "the peer does not have our PPK"
    assert not pair.alice.leaked


def test_a_confirmation_alone_is_no_proof() -> None:
    pair = ppk_pair(REQUIRED, None)
    pair.initiate()
    raw = RawPeer(pair.alice, "bob.default.hauberk.internal", initiator=False, host="192.0.2.2")
    raw.give_init(raw.take_init(), with_use_ppk(raw))
    payloads = [*raw.auth_payloads(), Notify(type=NotifyType.PPK_IDENTITY)]
    (reject,) = raw.send(raw.seal(ExchangeType.IKE_AUTH, payloads, message_id=1, response=True))
    assert raw.open(reject).notify(NotifyType.AUTHENTICATION_FAILED)
    assert pair.alice.one(IkeSaDown).message == "the signature is wrong"


@pytest.mark.parametrize("psk", [False, True], ids=["certificates", "pre-shared keys"])
def test_two_ppks_of_one_name_are_found_out(psk: bool) -> None:
    reason = "PreSharedKeyInvalid" if psk else "SignatureInvalid"
    assert refused_by_bob(ppk_pair(WRONG, OPTIONAL, psk=psk)).reason == reason
    assert refused_by_bob(ppk_pair(replace(WRONG, required=False), REQUIRED, psk=psk)).reason == reason


@pytest.mark.parametrize("kind", [b"\x01", b"\x00", b""], ids=["opaque", "reserved", "none"])
def test_an_identity_of_another_type_is_another_ppk(kind: bytes) -> None:
    pair = ppk_pair(None, REQUIRED, psk=True)
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init(with_use_ppk(raw))
    mixed = mix_ppk(raw.keys, REQUIRED.secret)
    payloads = [raw.id_payload(), proof(raw, mixed), identity_notify(REQUIRED, kind), *raw.child_payloads()]
    answer = raw.ask(ExchangeType.IKE_AUTH, payloads)
    assert answer is not None
    assert [each.type for each in answer.all(Notify)] == [NotifyType.AUTHENTICATION_FAILED]
    assert pair.bob.one(PeerRefused).reason == "PpkMissing"


@pytest.mark.parametrize("side", ["request", "answer"])
def test_pitfall_13_use_ppk_that_was_stripped_fails_the_proof(side: str) -> None:
    pair = ppk_pair(OPTIONAL, OPTIONAL)

    def strip(data: bytes) -> bytes:
        # The notify's type becomes one that nobody knows.
        found = int(NotifyType.USE_PPK).to_bytes(2)
        assert data.count(b"\0\x08\0\0" + found) == 1
        return data.replace(b"\0\x08\0\0" + found, b"\0\x08\0\0\xff\xfe")

    pair.initiate()
    pair.to_bob(strip if side == "request" else lambda data: data)  # --> IKE_SA_INIT
    pair.to_alice(strip if side == "answer" else lambda data: data)  # <-- IKE_SA_INIT
    pair.settle()
    assert not pair.alice.seen(IkeSaUp)
    assert not pair.bob.endpoint.established()
    assert pair.alice.one(IkeSaDown).reason is DownReason.FAILED


def test_somebody_unknown_with_a_ppk_gets_the_answer_of_somebody_known() -> None:
    pair = ppk_pair(None, REQUIRED, psk=True)
    answers: list[Contents | None] = []
    for name in (ALICE, "zelda.default.hauberk.internal"):
        raw = RawPeer(pair.bob, name, credentials=mesh_credentials(ALICE))
        raw.ask_init(with_use_ppk(raw))
        payloads = [raw.id_payload(), proof(raw, raw.keys), identity_notify(OTHER), *raw.child_payloads()]
        answers.append(raw.ask(ExchangeType.IKE_AUTH, payloads))
    first, second = answers
    assert first is not None
    assert second is not None
    assert first.payloads == second.payloads
    assert [each.reason for each in pair.bob.seen(PeerRefused)] == ["PpkMissing"] * 2


# Configuration


def test_a_ppk_has_256_bits_and_shows_nowhere() -> None:
    assert "post-quantum" not in repr(REQUIRED)
    with pytest.raises(ValueError, match="32 bytes") as caught:
        Ppk(identity=b"ppk-1", secret=b"hunter2hunter2")
    assert "hunter" not in str(caught.value)
    for identity in (b"", bytes(256)):
        with pytest.raises(ValueError, match="identity"):
            Ppk(identity=identity, secret=bytes(32))
