"""Credentials: what may be configured, and that no secret shows."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hauberk_ike import CertifiedKey, Credentials, Identity, PeerAuthentication, PreSharedKey, Trust
from tests.unit.ike.party import BOB, Pair, mesh_authority, mesh_credentials


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


def test_keys_are_on_curves_that_sign() -> None:
    with pytest.raises(ValueError, match="P-256 or P-384"):
        mesh_authority().credentials(BOB, key=ec.generate_private_key(ec.SECP521R1()))


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
    assert "private_key" not in repr(mesh_credentials(BOB).key)
