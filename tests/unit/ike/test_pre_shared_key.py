"""Pre-shared keys (RFC 7296 section 2.15): whole handshakes, and that a wrong one tells nobody anything."""

import hmac
from dataclasses import replace

import pytest

from hauberk_ike import (
    ChildSaUp,
    DownReason,
    EndpointSettings,
    Identity,
    IkeProposal,
    IkeSaDown,
    IkeSaUp,
    PeerAuthentication,
    PeerRefused,
    PreSharedKey,
)
from hauberk_ike.authentication import KEY_PAD, prove, signed_octets
from hauberk_ike.numbers import AuthMethod, ExchangeType, NotifyType
from hauberk_ike.wire.message import Contents, KnownPayload
from hauberk_ike.wire.payloads import Authentication, CertificatePayload, CertificateRequest, Notify
from tests.unit.ike.party import ALICE, BOB, Pair, agree, mesh_credentials
from tests.unit.ike.raw_peer import RawPeer

SECRET = b"a secret that both ends know, 32"
OTHER = b"a secret that nobody else knows."


def by_secret(own: str, *, local: bytes = SECRET, remote: bytes = SECRET) -> PeerAuthentication:
    return PeerAuthentication(
        local_identity=Identity.parse(own), local=PreSharedKey(secret=local), remote=PreSharedKey(secret=remote)
    )


def secret_pair(*, alice: str = ALICE, bob: str = BOB, ike: str = "aes128gcm16-prfsha256-x25519") -> Pair:
    """Two that have nothing but a secret."""
    pair = Pair(
        anonymous=True,
        alice_authentication=by_secret(alice),
        bob_authentication=by_secret(bob),
        ike=ike,
        settings=EndpointSettings(ike_proposals=(IkeProposal.parse(ike),)),
    )
    pair.alice_peer = replace(pair.alice_peer, identity=Identity.parse(bob))
    pair.bob_peer = replace(pair.bob_peer, identity=Identity.parse(alice))
    pair.bob.policy.peers = {alice: pair.bob_peer}
    return pair


def refused(pair: Pair) -> PeerRefused:
    """Two exchanges, after which Bob has refused Alice, and nothing is left."""
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    pair.to_bob()  # --> IKE_AUTH
    pair.to_alice()  # <-- IKE_AUTH: N(AUTHENTICATION_FAILED)
    assert pair.alice.one(IkeSaDown).reason is DownReason.FAILED
    assert "AUTHENTICATION_FAILED" in pair.alice.one(IkeSaDown).message
    for party in (pair.alice, pair.bob):
        assert not party.seen(IkeSaUp)
        assert not party.leaked
    return pair.bob.one(PeerRefused)


@pytest.mark.parametrize(
    ("alice", "bob"),
    [
        (ALICE, BOB),
        ("192.0.2.1", "192.0.2.2"),
        ("2001:db8::1", "2001:db8::2"),
        ("alice@example.com", "bob@example.com"),
        ("keyid:0x00", "keyid:bob"),
        ("CN=alice,O=Example", "CN=bob,O=Example"),
    ],
)
def test_two_that_know_one_secret_believe_each_other(alice: str, bob: str) -> None:
    pair = secret_pair(alice=alice, bob=bob)
    pair.set_up()
    agree(pair.alice, pair.bob)
    assert (pair.alice.one(IkeSaUp).identity, pair.bob.one(IkeSaUp).identity) == (bob, alice)
    assert pair.alice.one(IkeSaUp).certificate_serial is None
    assert pair.alice.endpoint.established()[0].certificate_not_after is None


@pytest.mark.parametrize("prf", ["prfsha256", "prfsha384", "prfsha512"])
def test_the_negotiated_prf_makes_the_proof(prf: str) -> None:
    pair = secret_pair(ike=f"aes128gcm16-{prf}-x25519")
    pair.set_up()
    agree(pair.alice, pair.bob)


def test_the_proof_is_as_the_rfc_has_it() -> None:
    # RFC 7296 section 2.15: prf(prf(Shared Secret, "Key Pad for IKEv2"), <SignedOctets>), no terminating zero.
    assert len(KEY_PAD) == 17
    proposal = IkeProposal.parse("aes128gcm16-prfsha256-x25519")
    made = prove(PreSharedKey(secret=SECRET), proposal.prf[0], b"octets", frozenset())
    inner = hmac.digest(SECRET, b"Key Pad for IKEv2", "sha256")
    assert made == Authentication(method=AuthMethod.SHARED_KEY, data=hmac.digest(inner, b"octets", "sha256"))


def test_a_secret_needs_no_certificates_on_the_wire() -> None:
    pair = secret_pair()
    raw = RawPeer(pair.bob, ALICE)
    answer = raw.ask_init()
    assert answer is not None
    assert answer.maybe(CertificateRequest) is None
    answer = raw.ask(ExchangeType.IKE_AUTH, secret_payloads(raw))
    assert answer is not None
    assert answer.one(Authentication).method == AuthMethod.SHARED_KEY
    assert answer.maybe(CertificatePayload) is None


def test_a_secret_sets_up_an_ike_sa_without_a_child() -> None:
    pair = secret_pair()
    pair.alice_peer = replace(pair.alice_peer, children=())
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT: N(CHILDLESS_IKEV2_SUPPORTED)
    pair.to_bob()  # --> IKE_AUTH: IDi, AUTH
    pair.to_alice()  # <-- IKE_AUTH: IDr, AUTH
    assert pair.alice.one(IkeSaUp).identity == BOB
    assert pair.bob.one(IkeSaUp).identity == ALICE
    assert not pair.alice.kernel
    assert not pair.bob.kernel


def test_each_side_may_have_its_own_secret() -> None:
    pair = Pair(
        anonymous=True,
        alice_authentication=by_secret(ALICE, local=SECRET, remote=OTHER),
        bob_authentication=by_secret(BOB, local=OTHER, remote=SECRET),
    )
    pair.set_up()
    agree(pair.alice, pair.bob)


def test_one_side_may_have_a_secret_and_the_other_a_certificate() -> None:
    pair = Pair(
        alice_authentication=PeerAuthentication(local=PreSharedKey(secret=SECRET)),
        bob_authentication=PeerAuthentication(remote=PreSharedKey(secret=SECRET)),
    )
    pair.set_up()
    agree(pair.alice, pair.bob)
    assert pair.alice.one(IkeSaUp).certificate_serial == mesh_credentials(BOB).certificate_chain[0].serial_number
    assert pair.bob.one(IkeSaUp).certificate_serial is None


def test_a_wrong_secret_is_refused_by_the_responder() -> None:
    pair = Pair(
        anonymous=True,
        alice_authentication=by_secret(ALICE, local=OTHER),
        bob_authentication=by_secret(BOB),
    )
    refusal = refused(pair)
    assert (refusal.reason, refusal.identity) == ("PreSharedKeyInvalid", ALICE)
    assert not pair.bob.policy.authorized


def test_pitfall_8_a_wrong_secret_is_refused_by_the_initiator() -> None:
    pair = Pair(
        anonymous=True,
        alice_authentication=by_secret(ALICE),
        bob_authentication=by_secret(BOB, local=OTHER),
    )
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    pair.to_bob()  # --> IKE_AUTH
    pair.to_alice()  # <-- IKE_AUTH: AUTH is wrong
    pair.settle()  # --> INFORMATIONAL: N(AUTHENTICATION_FAILED)
    assert not pair.alice.seen(IkeSaUp)
    assert pair.alice.one(IkeSaDown).message == "the pre-shared key is another"
    assert pair.bob.one(IkeSaDown).reason is DownReason.FAILED


def secret_payloads(raw: RawPeer, *, secret: bytes = SECRET, name: str | None = None) -> list[KnownPayload]:
    identity = raw.id_payload(name)
    octets = signed_octets(
        raw.keys.prf, message=raw.our_init, peer_nonce=raw.peer_nonce, sk_p=raw.keys.sk_pi, identity=identity
    )
    return [identity, prove(PreSharedKey(secret=secret), raw.keys.prf, octets, frozenset()), *raw.child_payloads()]


def answer_to(pair: Pair, *, name: str, secret: bytes) -> tuple[Contents, int]:
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    (datagram,) = raw.send(
        raw.seal(ExchangeType.IKE_AUTH, secret_payloads(raw, secret=secret, name=name), message_id=1)
    )
    return raw.open(datagram), len(datagram.data)


def test_somebody_unknown_gets_the_answer_of_somebody_whose_secret_is_wrong() -> None:
    for pair in (secret_pair(), Pair(bob_authentication=by_secret(BOB))):
        wrong, wrong_length = answer_to(pair, name=ALICE, secret=OTHER)
        unknown, unknown_length = answer_to(pair, name="zelda.default.hauberk.internal", secret=OTHER)
        assert [each.type for each in wrong.all(Notify)] == [NotifyType.AUTHENTICATION_FAILED]
        assert wrong.payloads == unknown.payloads
        assert wrong_length == unknown_length
        assert [each.reason for each in pair.bob.seen(PeerRefused)] == ["PreSharedKeyInvalid", "UnknownPeer"]
        assert not pair.bob.policy.authorized


def test_somebody_unknown_costs_the_work_of_somebody_known(monkeypatch: pytest.MonkeyPatch) -> None:
    digests: list[int] = []
    real = hmac.digest

    def counted(key: bytes, message: bytes, name: str) -> bytes:
        digests[-1] += 1
        return real(key, message, name)

    pair = secret_pair()
    for name in (ALICE, "zelda.default.hauberk.internal"):
        raw = RawPeer(pair.bob, ALICE)
        raw.ask_init()
        request = raw.seal(ExchangeType.IKE_AUTH, secret_payloads(raw, secret=OTHER, name=name), message_id=1)
        digests.append(0)
        monkeypatch.setattr(hmac, "digest", counted)
        raw.send(request)
        monkeypatch.setattr(hmac, "digest", real)
    assert digests[0] == digests[1] > 0


@pytest.mark.parametrize("length", [1, 31, 33])
def test_a_proof_that_is_cut_short_or_too_long_is_refused(length: int) -> None:
    pair = secret_pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    payloads = [
        replace(each, data=(each.data + b"\0")[:length]) if isinstance(each, Authentication) else each
        for each in secret_payloads(raw)
    ]
    answer = raw.ask(ExchangeType.IKE_AUTH, payloads)
    assert answer is not None
    assert answer.notify(NotifyType.AUTHENTICATION_FAILED)
    assert not pair.bob.seen(IkeSaUp)


def test_a_peer_that_has_to_use_a_secret_is_not_believed_by_certificate() -> None:
    # Alice has a good certificate of the mesh, and is to prove that she knows the secret.
    pair = Pair(
        alice_authentication=PeerAuthentication(remote=PreSharedKey(secret=SECRET)),
        bob_authentication=by_secret(BOB),
    )
    assert refused(pair).reason == "AuthenticationFailed"
    assert not pair.bob.policy.authorized


def test_a_peer_that_has_to_use_a_certificate_is_not_believed_by_secret() -> None:
    pair = Pair(alice_authentication=by_secret(ALICE))
    assert refused(pair).reason == "UnknownPeer"
    assert not pair.bob.policy.authorized


def test_a_certificate_is_not_believed_where_there_is_no_root() -> None:
    pair = secret_pair()
    pair.alice.endpoint.replace_credentials(mesh_credentials(ALICE))
    pair.alice_peer = replace(pair.alice_peer, authentication=PeerAuthentication(remote=PreSharedKey(secret=SECRET)))
    assert refused(pair).reason == "CertificateInvalid"


def test_a_policy_that_demands_another_proof_once_it_is_given_is_not_believed() -> None:
    pair = secret_pair()
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    found = pair.bob.policy.peers[ALICE]
    pair.bob.policy.find = lambda identity, remote: found
    pair.bob.policy.peers[ALICE] = replace(found, authentication=by_secret(BOB, remote=OTHER))
    pair.to_bob()  # --> IKE_AUTH
    assert pair.bob.one(PeerRefused).reason == "AuthenticationFailed"
    assert not pair.bob.seen(IkeSaUp)


def test_the_responder_is_who_it_was_asked_for() -> None:
    pair = secret_pair()
    pair.alice_peer = replace(pair.alice_peer, identity=Identity.parse("carol.default.hauberk.internal"))
    assert refused(pair).reason == "IdentityMismatch"


def test_pitfall_14_our_own_proof_coming_back_is_refused() -> None:
    # Both ends have the same secret, as everybody in a group of theirs: Bob's own identity is no proof of anything.
    pair = secret_pair()
    pair.bob.policy.peers[BOB] = replace(pair.bob_peer, identity=Identity.parse(BOB))
    raw = RawPeer(pair.bob, BOB)
    raw.ask_init()
    answer = raw.ask(ExchangeType.IKE_AUTH, secret_payloads(raw))
    assert answer is not None
    assert answer.notify(NotifyType.AUTHENTICATION_FAILED)
    assert pair.bob.one(PeerRefused).message == "our own identity came back"


def test_an_endpoint_without_credentials_initiates_to_nobody_who_needs_them() -> None:
    pair = Pair(anonymous=True)
    with pytest.raises(ValueError, match="no credentials for peer 'bob'"):
        pair.initiate()
    assert pair.quiet()


def test_an_endpoint_without_credentials_answers_nobody_who_needs_them() -> None:
    # Bob could judge Alice's proof, but has nothing to show himself.
    pair = Pair(
        anonymous=True,
        alice_authentication=by_secret(ALICE),
        bob_authentication=PeerAuthentication(remote=PreSharedKey(secret=SECRET)),
    )
    assert "no credentials" in refused(pair).message


def test_a_secret_sets_up_children_as_a_certificate_does() -> None:
    pair = secret_pair()
    pair.set_up()
    assert pair.alice.one(ChildSaUp).initiator
    assert not pair.bob.one(ChildSaUp).initiator
