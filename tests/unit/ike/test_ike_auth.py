"""IKE_AUTH: who is believed and who is not, and that a failure leaves nothing behind."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from hauberk_ike import ChildSaFailed, ChildSaUp, DownReason, Identity, IkeSaDown, IkeSaUp, PeerRefused
from hauberk_ike.numbers import CertEncoding, ExchangeType, IdType, NotifyType
from hauberk_ike.wire.message import KnownPayload
from hauberk_ike.wire.payloads import (
    Authentication,
    CertificatePayload,
    Delete,
    IdInitiator,
    IdResponder,
    Notify,
    VendorId,
)
from hauberk_ike.wire.traffic_selectors import TsInitiator, TsResponder
from tests.unit.ike.authority import TODAY, Authority
from tests.unit.ike.party import ALICE, BOB, Pair, agree, child, mesh_authority, mesh_credentials, selector, turned
from tests.unit.ike.raw_peer import RawPeer

MALLORY = "mallory.default.hauberk.internal"


def fail_to_set_up(pair: Pair) -> None:
    """Two exchanges, after which nobody is established, and nothing is left."""
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    pair.to_bob()  # --> IKE_AUTH
    pair.to_alice()  # <-- IKE_AUTH
    pair.settle()
    assert not pair.alice.seen(ChildSaUp)
    for party in (pair.alice, pair.bob):
        assert not party.kernel
        assert not party.leaked
        assert party.endpoint.established() == ()
    assert pair.alice.one(IkeSaDown).reason is DownReason.FAILED


# Credentials


@pytest.mark.parametrize("alice_curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda curve: f"alice {curve.name}")
@pytest.mark.parametrize("bob_curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda curve: f"bob {curve.name}")
def test_keys_on_both_curves_sign(alice_curve: ec.EllipticCurve, bob_curve: ec.EllipticCurve) -> None:
    pair = Pair(
        alice_credentials=mesh_authority().credentials(ALICE, key=ec.generate_private_key(alice_curve)),
        bob_credentials=mesh_authority().credentials(BOB, key=ec.generate_private_key(bob_curve)),
    )
    pair.set_up()
    agree(pair.alice, pair.bob)


def test_intermediates_travel_with_the_certificate() -> None:
    root = Authority("root")
    issuing = Authority("issuing", parent=root, path_length=0)
    pair = Pair(alice_credentials=issuing.credentials(ALICE), bob_credentials=issuing.credentials(BOB))
    pair.set_up()
    agree(pair.alice, pair.bob)


def test_the_certificate_is_reported() -> None:
    pair = Pair()
    pair.set_up()
    leaf = mesh_credentials(BOB).certificate_chain[0]
    up = pair.alice.one(IkeSaUp)
    assert (up.certificate_serial, up.certificate_not_after) == (leaf.serial_number, leaf.not_valid_after_utc)
    assert up.certificate_root == mesh_authority().certificate.fingerprint(SHA256()).hex()


def test_replaced_credentials_are_used_from_then_on() -> None:
    pair = Pair()
    pair.set_up()
    renewed = mesh_authority().credentials(BOB)
    pair.bob.endpoint.replace_credentials(renewed)
    pair.alice.events.clear()
    pair.set_up()
    assert pair.alice.one(IkeSaUp).certificate_serial == renewed.certificate_chain[0].serial_number
    assert len(pair.alice.endpoint.established()) == 2


def test_roots_may_overlap_while_the_authority_rolls() -> None:
    old, new = mesh_authority(), Authority("new root")
    pair = Pair(
        alice_credentials=new.credentials(ALICE, roots=(old, new)),
        bob_credentials=old.credentials(BOB, roots=(old, new)),
    )
    pair.set_up()
    agree(pair.alice, pair.bob)


def test_a_stranger_to_our_root_is_refused_by_the_responder() -> None:
    pair = Pair(alice_credentials=Authority("elsewhere").credentials(ALICE, roots=(mesh_authority(),)))
    fail_to_set_up(pair)
    assert pair.bob.one(PeerRefused).reason == "CertificateInvalid"
    assert not pair.bob.seen(IkeSaUp)
    assert not pair.bob.policy.authorized


def test_pitfall_8_a_stranger_to_our_root_is_refused_by_the_initiator_before_anything_else() -> None:
    pair = Pair(
        children=(child("one"), child("two")),
        bob_credentials=Authority("elsewhere").credentials(BOB, roots=(mesh_authority(),)),
    )
    fail_to_set_up(pair)
    assert not pair.alice.seen(IkeSaUp)
    # Bob had believed in it; he is told by an INFORMATIONAL request that he was not believed.
    assert pair.bob.one(IkeSaDown).reason is DownReason.FAILED
    assert "AUTHENTICATION_FAILED" in pair.bob.one(IkeSaDown).message


@pytest.mark.parametrize("days", [-30, 30])
def test_pitfall_11_certificates_are_valid_at_the_injected_time_only(days: int) -> None:
    fail_to_set_up(Pair(wall_clock=lambda: TODAY + timedelta(days=days)))


def test_an_established_ike_sa_outlives_its_certificates() -> None:
    clock = [TODAY]
    pair = Pair(wall_clock=lambda: clock[0])
    pair.set_up()
    clock[0] += timedelta(days=30)
    pair.wait(11)
    pair.settle()  # <-> INFORMATIONAL: liveness, both ways
    assert len(pair.alice.endpoint.established()) == len(pair.bob.endpoint.established()) == 1


# Identities


def test_pitfall_11_an_identity_that_is_not_in_the_certificate_is_refused() -> None:
    pair = Pair(alice_credentials=replace(mesh_credentials(MALLORY), identity=Identity.fqdn(ALICE)))
    fail_to_set_up(pair)
    assert pair.bob.one(PeerRefused).reason == "IdentityMismatch"


def test_pitfall_11_the_responder_must_be_the_one_that_was_wanted() -> None:
    # Mallory is a good node of the mesh, but not Bob.
    pair = Pair(bob_credentials=mesh_credentials(MALLORY))
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    pair.to_bob()  # --> IKE_AUTH: IDr is bob
    pair.to_alice()  # <-- IKE_AUTH: N(AUTHENTICATION_FAILED), as he can't be
    assert pair.bob.one(PeerRefused).reason == "IdentityMismatch"
    assert pair.alice.one(IkeSaDown).reason is DownReason.FAILED


def test_pitfall_11_the_initiator_does_not_take_another_node_for_the_one_that_it_wanted() -> None:
    # Mallory answers in Bob's place, with his own name and a good proof of it.
    pair = Pair()
    pair.initiate()
    raw = RawPeer(pair.alice, MALLORY, initiator=False, host="192.0.2.2")
    raw.give_init(raw.take_init())
    (reject,) = raw.send(raw.seal(ExchangeType.IKE_AUTH, raw.auth_payloads(), message_id=1, response=True))
    assert raw.open(reject).notify(NotifyType.AUTHENTICATION_FAILED)
    assert pair.alice.one(IkeSaDown).message == f"the peer is {MALLORY}, not {BOB}"
    assert not pair.alice.leaked


@pytest.mark.parametrize(
    "identity",
    [
        IdInitiator(id_type=IdType.FQDN, data=b"*.default.hauberk.internal"),
        IdInitiator(id_type=IdType.FQDN, data=ALICE.upper().encode()),
        IdInitiator(id_type=IdType.FQDN, data=ALICE.encode() + b"\0"),
        IdInitiator(id_type=IdType.FQDN, data=ALICE.encode() + b"."),
        IdInitiator(id_type=IdType.FQDN, data=ALICE.encode()[:-1]),
        IdInitiator(id_type=IdType.FQDN, data=b"\n" + ALICE.encode()),
        IdInitiator(id_type=IdType.FQDN, data="älice".encode()),
        IdInitiator(id_type=IdType.FQDN, data=b"a" * 10000),
        IdInitiator(id_type=IdType.RFC822_ADDR, data=ALICE.encode()),
        IdInitiator(id_type=IdType.KEY_ID, data=ALICE.encode()),
        IdInitiator(id_type=IdType.IPV4_ADDR, data=b"\xc0\0\2\1"),
        IdInitiator(id_type=IdType.DER_ASN1_DN, data=b"0\0"),
        IdInitiator(id_type=200, data=ALICE.encode()),
    ],
    ids=lambda identity: f"{identity.id_type} {identity.data[:12]!r}",
)
def test_pitfall_11_an_identity_is_a_dns_name_of_the_certificate_to_the_letter(identity: IdInitiator) -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    answer = raw.ask(ExchangeType.IKE_AUTH, [identity, *raw.certificates(), raw.proof(identity), *raw.child_payloads()])
    assert answer is not None
    assert [each.type for each in answer.all(Notify)] == [NotifyType.AUTHENTICATION_FAILED]
    refused = pair.bob.one(PeerRefused)
    assert refused.reason == "IdentityMismatch"
    assert refused.message.isprintable()


def test_pitfall_14_our_own_identity_coming_back_is_refused() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, BOB)
    raw.ask_init()
    answer = raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads())
    assert answer is not None
    assert answer.notify(NotifyType.AUTHENTICATION_FAILED)
    assert "our own" in pair.bob.one(PeerRefused).message


@pytest.mark.parametrize("wanted", [IdResponder.fqdn(MALLORY), IdResponder(id_type=IdType.KEY_ID, data=BOB.encode())])
def test_a_request_for_another_identity_than_ours_is_refused(wanted: IdResponder) -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    answer = raw.ask(ExchangeType.IKE_AUTH, [*raw.auth_payloads(), wanted])
    assert answer is not None
    assert answer.notify(NotifyType.AUTHENTICATION_FAILED)


# Signatures


def scheme(identifier: str, signature: bytes = bytes(70)) -> bytes:
    der = bytes.fromhex(identifier)
    return bytes((len(der),)) + der + signature


@pytest.mark.parametrize(
    "auth",
    [
        Authentication(method=1, data=bytes(256)),  # RSA, PKCS#1 v1.5
        Authentication(method=2, data=bytes(32)),  # shared key
        Authentication(method=3, data=bytes(40)),  # DSS
        Authentication(method=9, data=bytes(64)),  # ECDSA with SHA-256 by RFC 4754
        Authentication(method=13, data=b"x"),
        Authentication(method=255, data=b"x"),
        Authentication(method=14, data=b"\0"),
        Authentication(method=14, data=b"\xff"),
        Authentication(method=14, data=scheme("")),
        Authentication(method=14, data=scheme("300a06082a8648ce3d040302")),  # the right one, signature of zeros
        Authentication(method=14, data=scheme("300a06082a8648ce3d040302", b"")),
        Authentication(method=14, data=scheme("300a06082a8648ce3d040303")),  # ECDSA with SHA-384, but a P-256 key
        Authentication(method=14, data=scheme("300906072a8648ce3d0401")),  # ECDSA with SHA-1
        Authentication(method=14, data=scheme("300d06092a864886f70d01010b0500")),  # RSA with SHA-256, PKCS#1 v1.5
        Authentication(method=14, data=scheme("300506032b6570")),  # Ed25519
    ],
    ids=lambda auth: f"method {auth.method} {auth.data[:8].hex()}",
)
def test_pitfall_11_other_methods_and_signatures_end_in_authentication_failed(auth: Authentication) -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    payloads = [auth if isinstance(each, Authentication) else each for each in raw.auth_payloads()]
    answer = raw.ask(ExchangeType.IKE_AUTH, payloads)
    assert answer is not None
    assert [each.type for each in answer.all(Notify)] == [NotifyType.AUTHENTICATION_FAILED]
    # With method 2 nobody is known.
    assert pair.bob.one(PeerRefused).reason == ("UnknownPeer" if auth.method == 2 else "SignatureInvalid")
    assert pair.bob.one(PeerRefused).identity == ALICE
    assert not pair.bob.policy.authorized


def test_pitfall_12_the_signature_covers_the_very_bytes_of_the_first_request() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    identity = raw.id_payload()
    other = raw.init_request([*raw.init_payloads(), VendorId(data=b"more")])
    answer = raw.ask(ExchangeType.IKE_AUTH, [identity, *raw.certificates(), raw.proof(identity, message=other)])
    assert answer is not None
    assert answer.notify(NotifyType.AUTHENTICATION_FAILED)


def test_the_signature_covers_the_identity_with_its_reserved_bytes() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    identity = IdInitiator(id_type=IdType.FQDN, data=ALICE.encode(), reserved=b"\1\2\3")
    answer = raw.ask(ExchangeType.IKE_AUTH, [identity, *raw.certificates(), raw.proof(identity), *raw.child_payloads()])
    assert answer is not None
    assert answer.maybe(Authentication) is not None


def test_pitfall_2_and_7_no_authentication_at_all_is_no_eap() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    payloads = [each for each in raw.auth_payloads() if not isinstance(each, Authentication)]
    answer = raw.ask(ExchangeType.IKE_AUTH, payloads)
    assert answer is not None
    assert answer.notify(NotifyType.AUTHENTICATION_FAILED)
    assert raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads()) is None


# More than one authentication (RFC 4739)


def test_a_peer_that_could_authenticate_more_than_once_does_it_once() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    supported = Notify(type=NotifyType.MULTIPLE_AUTH_SUPPORTED)
    answer = raw.ask(ExchangeType.IKE_AUTH, [*raw.auth_payloads(), supported])
    assert answer is not None
    assert answer.notify(NotifyType.MULTIPLE_AUTH_SUPPORTED) is None
    assert pair.bob.one(IkeSaUp)


def test_an_initiator_that_announces_another_authentication_is_refused() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    answer = raw.ask(ExchangeType.IKE_AUTH, [*raw.auth_payloads(), Notify(type=NotifyType.ANOTHER_AUTH_FOLLOWS)])
    assert answer is not None
    assert [each.type for each in answer.all(Notify)] == [NotifyType.AUTHENTICATION_FAILED]
    assert not pair.bob.seen(IkeSaUp)


def test_a_responder_that_announces_another_authentication_is_refused() -> None:
    pair = Pair()
    pair.initiate()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    raw.give_init(raw.take_init())
    payloads = [*raw.auth_payloads(), Notify(type=NotifyType.ANOTHER_AUTH_FOLLOWS)]
    (reject,) = raw.send(raw.seal(ExchangeType.IKE_AUTH, payloads, message_id=1, response=True))
    assert raw.open(reject).notify(NotifyType.AUTHENTICATION_FAILED)
    assert not pair.alice.seen(IkeSaUp)
    assert not pair.alice.leaked


def test_two_proofs_in_one_message_are_none() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    answer = raw.ask(ExchangeType.IKE_AUTH, [*raw.auth_payloads(), raw.proof(raw.id_payload())])
    assert answer is not None
    assert answer.notify(NotifyType.INVALID_SYNTAX)
    assert not pair.bob.seen(IkeSaUp)


# Certificates on the wire


@pytest.mark.parametrize(
    "certificates",
    [
        [],
        [CertificatePayload.x509(b"not a certificate")],
        [CertificatePayload(encoding=12, data=bytes(20) + b"http://192.0.2.66/certificate")],
        [CertificatePayload(encoding=13, data=bytes(20) + b"http://192.0.2.66/bundle")],
        [CertificatePayload(encoding=200, data=b"x")],
        [CertificatePayload.x509(b"x")] * 9,
    ],
    ids=["none", "garbage", "hash and URL", "hash and URL of a bundle", "unknown", "nine"],
)
def test_pitfall_9_certificates_come_in_the_message_or_not_at_all(certificates: list[CertificatePayload]) -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    identity = raw.id_payload()
    answer = raw.ask(ExchangeType.IKE_AUTH, [identity, *certificates, raw.proof(identity), *raw.child_payloads()])
    assert answer is not None
    assert answer.notify(NotifyType.AUTHENTICATION_FAILED)
    assert pair.bob.one(PeerRefused).reason == "CertificateInvalid"


def test_payloads_that_we_have_no_use_for_do_no_harm() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    more = [
        CertificatePayload(encoding=CertEncoding.X509_SIGNATURE + 7, data=b"raw key?"),
        Notify(type=NotifyType.HTTP_CERT_LOOKUP_SUPPORTED),
        Notify(type=NotifyType.ESP_TFC_PADDING_NOT_SUPPORTED),
        Notify(type=50000, data=b"private"),
        VendorId(data=b"somebody"),
    ]
    answer = raw.ask(ExchangeType.IKE_AUTH, [*raw.auth_payloads(), *more])
    assert answer is not None
    assert pair.bob.one(ChildSaUp)


# Policy


def test_a_peer_that_the_policy_refuses_gets_authentication_failed_and_the_reason_stays_here() -> None:
    pair = Pair()
    pair.bob.policy.peers.clear()
    fail_to_set_up(pair)
    refused = pair.bob.one(PeerRefused)
    assert (refused.reason, refused.identity) == ("UnknownNode", ALICE)
    assert "AUTHENTICATION_FAILED" in pair.alice.one(IkeSaDown).message
    assert "UnknownNode" not in pair.alice.one(IkeSaDown).message


def test_a_policy_that_answers_for_somebody_else_is_not_believed() -> None:
    pair = Pair()
    pair.bob.policy.peers[ALICE] = replace(pair.bob_peer, identity=Identity.fqdn(MALLORY))
    fail_to_set_up(pair)


# A child that fails leaves the IKE SA


def test_a_child_that_is_refused_leaves_the_ike_sa() -> None:
    pair = Pair(bob_children=(turned(child(local="172.16.0.0/16")),))
    pair.set_up()
    assert pair.alice.one(ChildSaFailed).reason == "TS_UNACCEPTABLE"
    assert pair.bob.one(PeerRefused).reason == "TS_UNACCEPTABLE"
    assert not pair.alice.leaked
    assert not pair.bob.leaked
    assert len(pair.alice.endpoint.established()) == len(pair.bob.endpoint.established()) == 1


def test_pitfall_6_no_spi_at_the_initiator_ends_the_attempt() -> None:
    pair = Pair()
    pair.alice.policy.spis_left = 0
    pair.initiate()
    pair.to_bob()  # --> IKE_SA_INIT
    pair.to_alice()  # <-- IKE_SA_INIT
    assert pair.alice.one(IkeSaDown).reason is DownReason.FAILED
    assert pair.quiet()
    assert pair.alice.endpoint.get_timer() is None


def test_pitfall_6_no_spi_at_the_responder_is_a_temporary_failure_of_the_child() -> None:
    pair = Pair()
    pair.bob.policy.spis_left = 0
    pair.set_up()
    assert pair.alice.one(ChildSaFailed).reason == "TEMPORARY_FAILURE"
    assert not pair.alice.leaked


def widen_selectors(payloads: list[KnownPayload]) -> list[KnownPayload]:
    wide = TsInitiator(selectors=(selector("0.0.0.0/0"),))
    return [wide if isinstance(each, TsInitiator) else each for each in payloads]


def drop_selectors(payloads: list[KnownPayload]) -> list[KnownPayload]:
    return [each for each in payloads if not isinstance(each, TsResponder)]


def change_mode(payloads: list[KnownPayload]) -> list[KnownPayload]:
    return [*payloads, Notify(type=NotifyType.USE_TRANSPORT_MODE)]


@pytest.mark.parametrize(
    "change",
    [widen_selectors, drop_selectors, change_mode],
    ids=["wider selectors", "no TSr", "another mode"],
)
def test_pitfall_4_an_answer_that_is_not_to_what_was_asked_fails_the_child_and_deletes_it(
    change: Callable[[list[KnownPayload]], list[KnownPayload]],
) -> None:
    pair = Pair()
    pair.initiate()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    asked = raw.give_init(raw.take_init())
    spi = next(iter(pair.alice.policy.allocated))
    assert asked.one(TsInitiator).selectors == (selector("10.244.1.0/24"),)
    (deletion,) = raw.send(
        raw.seal(
            ExchangeType.IKE_AUTH,
            change(raw.auth_payloads()),
            message_id=1,
            response=True,
        )
    )
    assert pair.alice.one(IkeSaUp)
    assert pair.alice.one(ChildSaFailed)
    assert not pair.alice.seen(ChildSaUp)
    assert not pair.alice.leaked
    assert raw.open(deletion).one(Delete).spis == (spi.to_bytes(4),)


# Before and beside IKE_AUTH


@pytest.mark.parametrize("exchange", [ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL, 43, 44, 38, 240])
def test_pitfall_5_anything_but_ike_auth_before_it_is_met_with_silence(exchange: int) -> None:
    # CVE-2014-2338, CVE-2019-12312: with the right keys, but nobody authenticated. 43 is IKE_INTERMEDIATE (pitfall 15).
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE)
    raw.ask_init()
    for payloads in ([], [Delete(protocol=1)], raw.init_payloads(), raw.child_payloads()):
        assert raw.ask(exchange, payloads) is None
    assert not pair.bob.events
    answer = raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads())  # nothing has changed
    assert answer is not None
    assert pair.bob.one(ChildSaUp)


def test_pitfall_5_the_initiator_hears_no_request_before_the_responder_is_verified() -> None:
    pair = Pair()
    pair.initiate()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    raw.give_init(raw.take_init())
    for payloads in ([], [Delete(protocol=1)]):
        assert raw.send(raw.seal(ExchangeType.INFORMATIONAL, payloads, message_id=0)) == []
    assert not pair.alice.events


def test_ike_auth_happens_once() -> None:
    pair = Pair()
    raw = RawPeer(pair.bob, ALICE).set_up()
    assert raw.ask(ExchangeType.IKE_AUTH, raw.auth_payloads()) is None
    assert len(pair.bob.seen(IkeSaUp)) == 1


def test_pitfall_8_an_answer_that_is_signed_by_nobody_is_not_believed() -> None:
    pair = Pair()
    pair.initiate()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2")
    raw.give_init(raw.take_init())
    payloads = [each for each in raw.auth_payloads() if not isinstance(each, Authentication)]
    (reject,) = raw.send(raw.seal(ExchangeType.IKE_AUTH, payloads, message_id=1, response=True))
    assert raw.open(reject).notify(NotifyType.INVALID_SYNTAX)
    assert pair.alice.one(IkeSaDown).reason is DownReason.FAILED
    assert not pair.alice.seen(IkeSaUp)
    assert not pair.alice.leaked


def test_a_rejected_peer_is_told_a_bounded_number_of_times_and_then_forgotten() -> None:
    pair = Pair()
    pair.initiate()
    raw = RawPeer(pair.alice, BOB, initiator=False, host="192.0.2.2", credentials=mesh_credentials(MALLORY))
    raw.give_init(raw.take_init())
    (reject,) = raw.send(raw.seal(ExchangeType.IKE_AUTH, raw.auth_payloads(), message_id=1, response=True))
    assert raw.open(reject).notify(NotifyType.AUTHENTICATION_FAILED)
    sent = 0
    for _ in range(20):
        pair.wait(60)
        sent += len(pair.alice.take(pair.now))
    assert sent == 4
    assert len(pair.alice.seen(IkeSaDown)) == 1
    assert pair.alice.endpoint.get_timer() is None
