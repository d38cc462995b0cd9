"""The cluster's certificates: who may be whom."""

import base64
import datetime
import ipaddress
import stat
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from tests.lab import pki

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def authority() -> pki.Pair:
    """A CA."""
    return pki.new_authority("lab-ca", now=NOW)


def _load(pair: pki.Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate)


def _verifier(authority: pki.Pair, at: datetime.datetime) -> PolicyBuilder:
    return PolicyBuilder().store(Store([_load(authority)])).time(at)


def test_a_server_is_verified_under_each_of_its_names_and_under_no_other(authority: pki.Pair) -> None:
    server = pki.issue(authority, "kube-apiserver", server_names=["fd00:250::1", "kubernetes.default.svc"], now=NOW)
    for name in (x509.IPAddress(ipaddress.ip_address("fd00:250::1")), x509.DNSName("kubernetes.default.svc")):
        _verifier(authority, NOW).build_server_verifier(name).verify(_load(server), [])
    with pytest.raises(VerificationError):
        _verifier(authority, NOW).build_server_verifier(x509.DNSName("other")).verify(_load(server), [])


def test_a_client_is_verified_and_kubernetes_reads_its_user_and_group(authority: pki.Pair) -> None:
    client = pki.issue(authority, "system:node:n1", organization="system:nodes", now=NOW)
    subject = _load(client).subject
    assert subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "system:node:n1"
    assert subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:nodes"
    key = load_pem_private_key(client.key, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == _load(client).public_key()
    assert _load(client).verify_directly_issued_by(_load(authority)) is None


def test_a_client_is_no_server_and_nobody_but_the_authority_signs(authority: pki.Pair) -> None:
    client = pki.issue(authority, "n1.example", now=NOW)
    with pytest.raises(VerificationError):
        _verifier(authority, NOW).build_server_verifier(x509.DNSName("n1.example")).verify(_load(client), [])
    constraints = _load(client).extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca


def test_certificates_hold_from_a_little_before_now_for_their_life(authority: pki.Pair) -> None:
    certificate = _load(authority)
    assert certificate.not_valid_before_utc == NOW - pki.BACKDATED
    assert certificate.not_valid_after_utc == NOW + pki.LIFE


def test_keys_are_neither_shown_nor_readable_to_others(authority: pki.Pair, tmp_path: Path) -> None:
    assert b"PRIVATE" in authority.key
    assert "PRIVATE" not in repr(authority)
    authority.write(tmp_path, "ca")
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
    assert pki.Pair.read(tmp_path, "ca") == authority


def test_a_kubeconfig_holds_all_that_a_client_needs(authority: pki.Pair) -> None:
    client = pki.issue(authority, "admin", organization="system:masters", now=NOW)
    config = yaml.safe_load(pki.kubeconfig(server="https://10.250.0.1:6443", authority=authority, client=client))
    assert config["clusters"][0]["cluster"]["server"] == "https://10.250.0.1:6443"
    user = config["users"][0]["user"]
    assert base64.b64decode(user["client-certificate-data"]) == client.certificate
    assert base64.b64decode(user["client-key-data"]) == client.key
    context = next(one for one in config["contexts"] if one["name"] == config["current-context"])["context"]
    assert (context["cluster"], context["user"]) == (config["clusters"][0]["name"], config["users"][0]["name"])
