"""The certificate profile: what an agent asks for."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID

from hauberk_api.certificate import CURVES, build_request, dns_names, fingerprint, signature_hash
from hauberk_api.names import NodeName, NodeUid

UID, NAME = NodeUid("0b7c9d52-5d2e-4a3c-9a55-2f3b6b1f2c11"), NodeName("n1.example.com")


@pytest.fixture(params=CURVES, ids=lambda curve: curve.name)
def key(request: pytest.FixtureRequest) -> ec.EllipticCurvePrivateKey:
    curve: type[ec.EllipticCurve] = request.param
    return ec.generate_private_key(curve())


def test_a_request_asks_for_exactly_the_nodes_two_names(key: ec.EllipticCurvePrivateKey) -> None:
    request = x509.load_pem_x509_csr(build_request(key, uid=UID, name=NAME))
    assert request.is_signature_valid
    assert request.public_key() == key.public_key()
    assert [(a.oid, a.value) for a in request.subject] == [(NameOID.COMMON_NAME, NAME)]
    assert [extension.oid for extension in request.extensions] == [ExtensionOID.SUBJECT_ALTERNATIVE_NAME]
    assert dns_names(request.extensions) == [f"{UID}.default.hauberk.internal", NAME]


def test_the_hash_is_as_strong_as_the_curve(key: ec.EllipticCurvePrivateKey) -> None:
    request = x509.load_pem_x509_csr(build_request(key, uid=UID, name=NAME))
    assert request.signature_hash_algorithm is not None
    assert request.signature_hash_algorithm.name == signature_hash(key.curve).name
    assert signature_hash(key.curve).digest_size * 8 == key.curve.key_size


def test_a_long_node_name_is_whole_in_the_alternative_name_and_cut_in_the_subject() -> None:
    """A common name has at most 64 characters (RFC 5280, ub-common-name); a Node's name has up to 253."""
    name = NodeName(".".join(["n" * 60] * 4))
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.load_pem_x509_csr(build_request(key, uid=UID, name=name))
    assert [a.value for a in request.subject] == [name[:64]]
    assert name in dns_names(request.extensions)


def test_the_mesh_is_part_of_the_identity() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.load_pem_x509_csr(build_request(key, uid=UID, name=NAME, mesh="blue"))
    assert dns_names(request.extensions)[0] == f"{UID}.blue.hauberk.internal"


def test_without_alternative_names_there_are_none() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, signature_hash(key.curve))
    assert dns_names(request.extensions) == ()


def test_a_fingerprint_is_the_hash_of_the_der_form() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    start = datetime(2026, 11, 23, tzinfo=UTC)
    root = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
        .sign(key, signature_hash(key.curve))
    )
    assert fingerprint(root) == hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest()
