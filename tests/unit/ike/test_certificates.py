"""Authentication by certificate, in whole handshakes: every kind of key in both roles, gateways, several keys."""

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hauberk_ike import (
    CertificateProfile,
    CertifiedKey,
    Credentials,
    DownReason,
    Identity,
    IkeSaDown,
    IkeSaUp,
    PeerAuthentication,
    PeerRefused,
    Trust,
)
from hauberk_ike.credentials import authority_id
from hauberk_ike.numbers import CertEncoding, ExchangeType, NotifyType
from hauberk_ike.signature import PrivateKey
from hauberk_ike.wire.message import Contents, KnownPayload
from hauberk_ike.wire.payloads import Authentication, CertificatePayload, CertificateRequest, Notify
from tests.unit.ike.authority import Authority, rsa_key
from tests.unit.ike.party import ALICE, BOB, Pair, agree, mesh_authority, mesh_credentials
from tests.unit.ike.raw_peer import RawPeer

KEYS: dict[str, PrivateKey] = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "P-521": ec.generate_private_key(ec.SECP521R1()),
    "RSA": rsa_key(),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    "ML-DSA-65": mldsa.MLDSA65PrivateKey.generate(),
}


def credentials(name: str, kind: str) -> Credentials:
    return replace(mesh_authority().credentials(name, key=KEYS[kind]), ml_dsa=True)


def refused(pair: Pair) -> PeerRefused:
    """Two exchanges, after which Bob has refused Alice."""
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    pair.to_bob()  # --> IKE_AUTH
    pair.to_alice()  # <-- IKE_AUTH: N(AUTHENTICATION_FAILED)
    assert pair.alice.one(IkeSaDown).reason is DownReason.FAILED
    for party in (pair.alice, pair.bob):
        assert not party.seen(IkeSaUp)
        assert not party.leaked
    return pair.bob.one(PeerRefused)


# Kinds of keys


@pytest.mark.parametrize("alice", KEYS)
@pytest.mark.parametrize("bob", KEYS)
def test_every_kind_of_key_authenticates_either_side(alice: str, bob: str) -> None:
    pair = Pair(alice_credentials=credentials(ALICE, alice), bob_credentials=credentials(BOB, bob))
    pair.set_up()
    agree(pair.alice, pair.bob)
    assert pair.bob.one(IkeSaUp).identity == ALICE


def test_an_ml_dsa_key_is_refused_by_the_responder_that_has_not_asked_for_it() -> None:
    pair = Pair(alice_credentials=credentials(ALICE, "ML-DSA-65"))
    refusal = refused(pair)
    assert (refusal.reason, refusal.message) == ("CertificateInvalid", "ML-DSA keys are not accepted from this peer")


def test_pitfall_8_an_ml_dsa_key_is_refused_by_the_initiator_that_has_not_asked_for_it() -> None:
    pair = Pair(bob_credentials=credentials(BOB, "ML-DSA-65"))
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    pair.to_bob()  # --> IKE_AUTH
    pair.to_alice()  # <-- IKE_AUTH: CERT with ML-DSA-65
    pair.settle()  # --> INFORMATIONAL: N(AUTHENTICATION_FAILED)
    assert not pair.alice.seen(IkeSaUp)
    assert pair.bob.one(IkeSaDown).reason is DownReason.FAILED


# Gateways


GATEWAY = x509.Name(
    [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"), x509.NameAttribute(NameOID.COMMON_NAME, "gateway")]
)


def gateway_pair() -> Pair:
    """Alice is a gateway of another authority's, known by her subject; Bob, a node, believes that authority so far."""
    theirs = Authority("their root", key=rsa_key())
    leaf = theirs.certify(KEYS["RSA"].public_key(), subject=GATEWAY, usages=[ExtendedKeyUsageOID.SERVER_AUTH])
    gateway = Credentials(
        identity=Identity.distinguished_name(GATEWAY),
        private_key=KEYS["RSA"],
        certificate_chain=(leaf,),
        roots=(mesh_authority().certificate,),
    )
    trust = Trust(roots=(theirs.certificate,), profile=CertificateProfile.RFC4945)
    pair = Pair(alice_credentials=gateway, bob_authentication=PeerAuthentication(remote=trust))
    pair.bob_peer = replace(pair.bob_peer, identity=Identity.parse("CN=gateway,O=Example"))
    pair.bob.policy.peers = {"CN=gateway,O=Example": pair.bob_peer}
    return pair


def test_a_gateway_is_believed_by_its_own_authority_and_profile() -> None:
    pair = gateway_pair()
    pair.set_up()
    agree(pair.alice, pair.bob)
    assert pair.bob.one(IkeSaUp).identity == "CN=gateway,O=Example"


def test_a_gateway_as_responder_too() -> None:
    pair = gateway_pair()
    pair.bob.endpoint.initiate(pair.bob_peer, now=pair.now)
    pair.alice.policy.peers[BOB] = pair.alice_peer
    pair.to_alice()  # --> IKE_SA_INIT
    pair.to_bob()  # <-- IKE_SA_INIT
    request = pair.to_alice()  # --> IKE_AUTH: CERTREQ for their root
    assert request
    pair.to_bob()  # <-- IKE_AUTH
    agree(pair.alice, pair.bob)


def test_a_gateways_authority_is_believed_for_that_gateway_alone() -> None:
    theirs = Authority("their root")
    trust = Trust(roots=(theirs.certificate,), profile=CertificateProfile.RFC4945)
    pair = Pair(
        alice_credentials=replace(theirs.credentials(ALICE), roots=mesh_credentials(ALICE).roots),
        bob_authentication=PeerAuthentication(remote=trust),
    )
    pair.bob.policy.peers = {
        "gateway.example.com": replace(pair.bob_peer, identity=Identity.parse("gateway.example.com"))
    }
    assert refused(pair).reason == "CertificateInvalid"


def test_the_meshs_authority_is_not_believed_for_a_gateway_with_one_of_its_own() -> None:
    theirs = Authority("their root")
    pair = Pair(bob_authentication=PeerAuthentication(remote=Trust(roots=(theirs.certificate,))))
    assert refused(pair).reason == "CertificateInvalid"


def test_nodes_are_judged_by_the_meshs_profile_though_a_gateway_is_not() -> None:
    leaf = mesh_authority().certify(KEYS["P-256"].public_key(), ALICE, usages=[ExtendedKeyUsageOID.IPSEC_IKE])
    alice = replace(mesh_credentials(ALICE), private_key=KEYS["P-256"], certificate_chain=(leaf,))
    assert refused(Pair(alice_credentials=alice)).reason == "CertificateInvalid"
    trust = Trust(roots=(mesh_authority().certificate,), profile=CertificateProfile.RFC4945)
    pair = Pair(alice_credentials=alice, bob_authentication=PeerAuthentication(remote=trust))
    pair.set_up()
    agree(pair.alice, pair.bob)


# Peers that know RFC 4754 only


@pytest.mark.parametrize(("kind", "method"), [("P-256", 9), ("P-384", 10), ("P-521", 11)])
def test_a_peer_that_names_no_hashes_gets_the_method_that_it_knows(kind: str, method: int) -> None:
    pair = Pair(bob_credentials=credentials(BOB, kind))
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init(without_hashes(raw))
    answer = raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads(peer_hashes=frozenset()))
    assert answer is not None
    assert answer.one(Authentication).method == method
    assert pair.bob.one(IkeSaUp).identity == ALICE


def test_pitfall_2_a_peer_that_names_no_hashes_gets_nothing_from_an_rsa_key() -> None:
    pair = Pair(bob_credentials=credentials(BOB, "RSA"))
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init(without_hashes(raw))
    answer = raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads(peer_hashes=frozenset()))
    assert answer is not None
    assert [each.type for each in answer.all(Notify)] == [NotifyType.AUTHENTICATION_FAILED]
    assert "does not take signatures by RSASSA-PSS" in pair.bob.one(PeerRefused).message
    assert not pair.bob.seen(IkeSaUp)


def without_hashes(raw: RawPeer) -> list[KnownPayload]:
    return [
        each
        for each in raw.init_payloads()
        if not isinstance(each, Notify) or each.type != NotifyType.SIGNATURE_HASH_ALGORITHMS
    ]


# Several keys


def two_keys(name: str, *, first: str = "P-256", second: str = "RSA") -> tuple[Credentials, Authority]:
    """A node with a key of the mesh's and one that another authority has certified."""
    other = Authority("other root")
    leaf = other.certify(KEYS[second].public_key(), name)
    further = CertifiedKey(private_key=KEYS[second], certificate_chain=(leaf,), roots=(other.certificate,))
    return replace(credentials(name, first), further_keys=(further,)), other


def test_the_initiator_uses_the_key_whose_authority_the_responder_asks_for() -> None:
    alice, other = two_keys(ALICE)
    bob = replace(mesh_credentials(BOB), roots=(other.certificate,))
    pair = Pair(alice_credentials=alice, bob_credentials=bob)
    pair.set_up()
    serial = pair.bob.one(IkeSaUp).certificate_serial
    assert serial == alice.further_keys[0].certificate_chain[0].serial_number


def test_the_responder_uses_the_key_whose_authority_the_initiator_asks_for() -> None:
    bob, other = two_keys(BOB)
    alice = replace(mesh_credentials(ALICE), roots=(other.certificate,))
    pair = Pair(alice_credentials=alice, bob_credentials=bob)
    pair.set_up()
    serial = pair.alice.one(IkeSaUp).certificate_serial
    assert serial == bob.further_keys[0].certificate_chain[0].serial_number


def test_the_first_key_is_used_when_its_authority_is_asked_for_or_none_that_we_have() -> None:
    bob, _ = two_keys(BOB)
    for roots in (mesh_credentials(ALICE).roots, (Authority("third").certificate, mesh_authority().certificate)):
        pair = Pair(alice_credentials=replace(mesh_credentials(ALICE), roots=roots), bob_credentials=bob)
        pair.set_up()
        assert pair.alice.one(IkeSaUp).certificate_serial == bob.certificate_chain[0].serial_number


def test_an_intermediate_that_is_asked_for_finds_its_key_too() -> None:
    root = Authority("root")
    issuing = Authority("issuing", parent=root, path_length=0)
    further = issuing.credentials(BOB).keys[0]
    bob = replace(mesh_credentials(BOB), further_keys=(further,))
    pair = Pair(bob_credentials=bob)
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    wanted = bytes(20) + authority_id(issuing.certificate)
    request = CertificateRequest(encoding=CertEncoding.X509_SIGNATURE, authorities=wanted)
    answer = raw.ask(ExchangeType.IKE_AUTH, [*raw.auth_payloads(), request])
    assert answer is not None
    assert answer.all(CertificatePayload) == list(further.payloads)


def test_a_key_that_the_peer_can_not_verify_is_passed_over() -> None:
    bob, _ = two_keys(BOB, first="RSA", second="P-384")
    pair = Pair(bob_credentials=bob)
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init(without_hashes(raw))
    answer = raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads(peer_hashes=frozenset()))
    assert answer is not None
    assert answer.one(Authentication).method == 10


def test_when_the_peer_can_verify_no_key_it_is_refused() -> None:
    bob, _ = two_keys(BOB, first="RSA", second="Ed25519")
    pair = Pair(bob_credentials=bob)
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init(without_hashes(raw))
    answer = raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads(peer_hashes=frozenset()))
    assert answer is not None
    assert answer.notify(NotifyType.AUTHENTICATION_FAILED)
    assert "none of our keys" in pair.bob.one(PeerRefused).message


# Requests for certificates


def certificate_requests(contents: Contents) -> list[bytes]:
    return [each.authorities for each in contents.all(CertificateRequest)]


def test_both_ask_for_certificates_of_the_authorities_that_they_believe() -> None:
    pair = Pair()
    wanted = authority_id(mesh_authority().certificate)
    raw = RawPeer(pair.bob, ALICE)
    answer = raw.ask_init()
    assert answer is not None
    assert certificate_requests(answer) == [wanted]
    pair.initiate()
    responder = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    request = responder.give_init(responder.take_init())
    assert certificate_requests(request) == [wanted]


def test_a_certificate_request_that_makes_no_sense_does_no_harm() -> None:
    for request in (
        CertificateRequest(encoding=CertEncoding.X509_SIGNATURE, authorities=b""),
        CertificateRequest(encoding=CertEncoding.X509_SIGNATURE, authorities=b"odd"),
        CertificateRequest(encoding=14, authorities=bytes(20)),
    ):
        bob, _ = two_keys(BOB)
        pair = Pair(bob_credentials=bob)
        raw = RawPeer(pair.bob, ALICE)
        raw.ask_init()
        answer = raw.ask(ExchangeType.IKE_AUTH, [*raw.auth_payloads(), request])
        assert answer is not None
        assert answer.all(CertificatePayload)[0].data == bob.certificate_chain[0].public_bytes(Encoding.DER)


# Renewal


def test_a_renewed_certificate_is_judged_anew_though_the_roots_stay() -> None:
    pair = Pair()
    pair.set_up()
    pair.bob.endpoint.replace_credentials(mesh_authority().credentials(BOB))
    pair.alice.events.clear()
    pair.set_up()
    stranger = replace(Authority("elsewhere").credentials(BOB), roots=mesh_credentials(BOB).roots)
    pair.bob.endpoint.replace_credentials(stranger)
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    pair.to_bob()  # --> IKE_AUTH
    pair.to_alice()  # <-- IKE_AUTH
    assert pair.alice.one(IkeSaDown).reason is DownReason.FAILED


def test_reauthentication_brings_renewed_credentials_to_the_peer_without_a_gap() -> None:
    pair = Pair()
    old = pair.set_up()
    renewed = mesh_authority().credentials(ALICE)
    pair.alice.endpoint.replace_credentials(renewed)
    new = pair.alice.endpoint.reauthenticate(old, now=pair.now)
    pair.settle()  # <-> IKE_SA_INIT, IKE_AUTH; --> INFORMATIONAL: D(old)
    agree(pair.alice, pair.bob)
    assert [info.ike_sa for info in pair.alice.endpoint.established()] == [new]
    (left,) = pair.bob.endpoint.established()
    assert left.certificate_serial == renewed.certificate_chain[0].serial_number


def test_a_root_that_was_dropped_is_believed_no_more() -> None:
    pair = Pair()
    pair.set_up()
    pair.bob.endpoint.replace_credentials(replace(mesh_credentials(BOB), roots=(Authority("new root").certificate,)))
    pair.alice.events.clear()
    pair.bob.events.clear()
    assert refused(pair).reason == "CertificateInvalid"
