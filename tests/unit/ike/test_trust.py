"""Certificates: what the verifier takes for a node of the mesh, and what it does not (pitfall 11)."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from hauberk_ike import Identity, Trust
from hauberk_ike.errors import ExchangeRefused
from hauberk_ike.numbers import NotifyType
from hauberk_ike.trust import TrustStore
from hauberk_ike.wire.payloads import CertificatePayload
from tests.unit.ike.authority import TODAY, Authority
from tests.unit.ike.party import ALICE, BOB, mesh_authority


def verify(
    *chain: x509.Certificate, roots: Sequence[Authority] = (), identity: str = ALICE, at: datetime = TODAY
) -> str:
    store = TrustStore(Trust(roots=tuple(root.certificate for root in roots or (mesh_authority(),))))
    payloads = [CertificatePayload.x509(each.public_bytes(Encoding.DER)) for each in chain]
    claimed = Identity.parse(identity)
    assert store.verify(claimed, payloads, at=at) == chain[0]
    return str(claimed)


def refusal(*chain: x509.Certificate, roots: Sequence[Authority] = (), identity: str = ALICE) -> str:
    with pytest.raises(ExchangeRefused) as caught:
        verify(*chain, roots=roots, identity=identity)
    assert caught.value.notify is NotifyType.AUTHENTICATION_FAILED
    assert str(caught.value).isprintable()
    return caught.value.reason


def test_a_node_of_the_mesh_is_believed() -> None:
    _, leaf = mesh_authority().issue(ALICE, "node-1")
    assert verify(leaf) == ALICE


def test_each_of_the_names_of_a_certificate_is_its_own() -> None:
    _, leaf = mesh_authority().issue(ALICE, "node-1")
    assert verify(leaf, identity="node-1") == "node-1"
    assert refusal(leaf, identity=BOB) == "IdentityMismatch"


def test_pitfall_11_a_wildcard_or_a_common_name_is_no_name() -> None:
    _, wildcard = mesh_authority().issue("*.default.hauberk.internal")
    assert refusal(wildcard) == "IdentityMismatch"
    _, common = mesh_authority().issue("other.default.hauberk.internal", common_name=ALICE)
    assert refusal(common) == "IdentityMismatch"


def test_pitfall_11_time_is_the_callers() -> None:
    _, leaf = mesh_authority().issue(ALICE, not_before=TODAY, not_after=TODAY + timedelta(hours=1))
    assert verify(leaf, at=TODAY + timedelta(minutes=30)) == ALICE
    for at in (TODAY - timedelta(seconds=1), TODAY + timedelta(hours=1, seconds=1)):
        with pytest.raises(ExchangeRefused):
            verify(leaf, at=at)


def test_pitfall_11_the_extended_key_usage_must_fit() -> None:
    _, leaf = mesh_authority().issue(ALICE, usages=[ExtendedKeyUsageOID.CODE_SIGNING])
    assert refusal(leaf) == "CertificateInvalid"
    _, leaf = mesh_authority().issue(ALICE, usages=[ExtendedKeyUsageOID.SERVER_AUTH])
    assert refusal(leaf) == "CertificateInvalid"


def test_pitfall_11_path_lengths_count() -> None:
    root = Authority("root", path_length=0)
    issuing = Authority("issuing", parent=root, path_length=0)
    _, leaf = issuing.issue(ALICE)
    assert refusal(leaf, issuing.certificate, roots=[root]) == "CertificateInvalid"


def test_pitfall_11_name_constraints_count() -> None:
    root = Authority("root")
    constraint = x509.NameConstraints([x509.DNSName("other.hauberk.internal")], None)
    issuing = Authority("issuing", parent=root, path_length=0, name_constraints=constraint)
    _, leaf = issuing.issue(ALICE)
    assert refusal(leaf, issuing.certificate, roots=[root]) == "CertificateInvalid"
    _, leaf = issuing.issue("node.other.hauberk.internal")
    assert verify(leaf, issuing.certificate, roots=[root], identity="node.other.hauberk.internal")


def test_a_node_is_no_authority() -> None:
    key, node = mesh_authority().issue(BOB)
    pretender = Authority("pretender")
    pretender.key, pretender.name = key, node.subject
    _, leaf = pretender.issue(ALICE)
    assert refusal(leaf, node) == "CertificateInvalid"


def test_an_authority_of_the_same_name_with_another_key_is_another_authority() -> None:
    _, leaf = Authority("mesh root").issue(ALICE)
    assert refusal(leaf) == "CertificateInvalid"


def test_a_missing_intermediate_is_not_guessed() -> None:
    root = Authority("root")
    issuing = Authority("issuing", parent=root, path_length=0)
    _, leaf = issuing.issue(ALICE)
    assert verify(leaf, issuing.certificate, roots=[root]) == ALICE
    assert refusal(leaf, roots=[root]) == "CertificateInvalid"


def test_pitfall_3_a_certificates_own_words_do_not_reach_the_log_as_they_are() -> None:
    _, leaf = Authority("evil\nroot").issue(ALICE, common_name="evil\n\x1b[2Jname")
    assert refusal(leaf) == "CertificateInvalid"


def test_a_key_on_another_curve_is_certified_but_signs_nothing() -> None:
    # The chain may be good; the signature scheme is then refused (test_ike_auth.py).
    _, leaf = mesh_authority().issue(ALICE, key=ec.generate_private_key(ec.SECP384R1()))
    assert verify(leaf) == ALICE


def test_the_certificate_request_names_the_roots() -> None:
    one, other = Authority("one"), Authority("two")
    store = TrustStore(Trust(roots=(one.certificate, other.certificate)))
    identifiers = [x509.SubjectKeyIdentifier.from_public_key(each.key.public_key()).digest for each in (one, other)]
    # RFC 7296 section 3.7 hashes the whole SubjectPublicKeyInfo, X.509's key identifier its bits alone.
    assert len(store.request.authorities) == 40
    assert store.request.authorities[:20] not in identifiers
