"""Credentials: what may be configured, and that no secret shows."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa

from hauberk_ike import CertifiedKey, Credentials, Identity, PeerAuthentication, PreSharedKey, Trust
from hauberk_ike.signature import PrivateKey
from tests.unit.ike.authority import Authority, rsa_key
from tests.unit.ike.party import BOB, Pair, mesh_credentials


def test_a_private_key_and_its_certificate_belong_together() -> None:
    good = mesh_credentials(BOB)
    with pytest.raises(ValueError, match="not the private key's"):
        Credentials(
            identity=Identity.fqdn(BOB),
            private_key=ec.generate_private_key(ec.SECP256R1()),
            certificate_chain=good.certificate_chain,
            roots=good.roots,
        )
    with pytest.raises(ValueError, match="needs a certificate"):
        CertifiedKey(private_key=good.private_key, certificate_chain=())


def test_whom_to_trust_has_to_be_said() -> None:
    good = mesh_credentials(BOB)
    with pytest.raises(ValueError, match="no root"):
        Trust(roots=())
    with pytest.raises(ValueError, match="no root"):
        replace(good, roots=())


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (ec.generate_private_key(ec.SECP256K1()), "P-256, P-384 or P-521"),
        (rsa_key(1024), "2048 to 8192 bits"),
        (ed448.Ed448PrivateKey.generate(), "not supported"),
        (mldsa.MLDSA44PrivateKey.generate(), "not supported"),
    ],
    ids=["secp256k1", "RSA of 1024 bits", "Ed448", "ML-DSA-44"],
)
def test_keys_that_sign_nothing_here_are_refused(key: PrivateKey, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CertifiedKey(private_key=key, certificate_chain=mesh_credentials(BOB).certificate_chain)


def test_a_root_that_verifies_nothing_here_is_refused() -> None:
    with pytest.raises(ValueError, match="Ed25519 key has signed can't be verified"):
        Trust(roots=(Authority("root", key=ed25519.Ed25519PrivateKey.generate()).certificate,))
    with pytest.raises(ValueError, match="2048 to 8192 bits"):
        Trust(roots=(Authority("root", key=rsa_key(1024)).certificate,))


def test_a_secret_of_a_few_letters_is_refused_and_a_short_one_is_known_for_it() -> None:
    with pytest.raises(ValueError, match="8 bytes") as caught:
        PreSharedKey(secret=b"hunter2")
    assert "hunter2" not in str(caught.value)
    assert PreSharedKey(secret=b"hunter2hunter2").is_short
    assert not PreSharedKey(secret=bytes(32)).is_short


def test_secrets_and_keys_show_nowhere() -> None:
    authentication = PeerAuthentication.by_secret(b"hunter2hunter2")
    pair = Pair(alice_authentication=authentication, bob_authentication=authentication)
    assert "hunter" not in repr(authentication)
    assert "hunter" not in repr(pair.alice_peer)
    assert "private_key" not in repr(mesh_credentials(BOB))
    assert "private_key" not in repr(mesh_credentials(BOB).keys)
