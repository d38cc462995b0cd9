"""Proposals in strongSwan's spelling."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hauberk_ike import (
    ChildConfig,
    Credentials,
    EsnId,
    EspKey,
    EspProposal,
    IkeProposal,
    Mode,
    ProposalError,
)
from tests.unit.ike.party import BOB, mesh_authority, mesh_credentials, selector


@pytest.mark.parametrize(
    "text",
    [
        "aes128gcm16-prfsha256-x25519",
        "aes256gcm16-aes128gcm16-prfsha384-prfsha256-x25519-ecp256",
        "aes256gcm16-prfsha512-ecp384",
    ],
)
def test_ike_proposals_are_read_and_written_alike(text: str) -> None:
    assert str(IkeProposal.parse(text)) == text
    assert IkeProposal.parse(f" {text.upper()} ") == IkeProposal.parse(text)
    assert eval(repr(IkeProposal.parse(text)), {"IkeProposal": IkeProposal}) == IkeProposal.parse(text)  # noqa: S307


@pytest.mark.parametrize(
    ("text", "esn"),
    [
        ("aes128gcm16", (EsnId.NO_ESN,)),
        ("aes128gcm16-esn", (EsnId.ESN,)),
        ("aes256gcm16-esn-noesn", (EsnId.ESN, EsnId.NO_ESN)),
    ],
)
def test_esp_proposals_are_read_and_written_alike(text: str, esn: tuple[EsnId, ...]) -> None:
    assert EspProposal.parse(text).esn == esn
    assert str(EspProposal.parse(text)) == text
    assert EspProposal.parse("aes128gcm16-noesn") == EspProposal.parse("aes128gcm16")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("aes128gcm16-prfsha256-modp1024", "modp1024"),
        ("aes128gcm16-prfsha1-x25519", "prfsha1"),
        ("3des-sha1-modp2048", "3des"),
        ("aes128gcm16-x25519", "lacks a pseudorandom function"),
        ("prfsha256-x25519", "lacks an encryption algorithm"),
        ("aes128gcm16-prfsha256", "lacks a key exchange method"),
        ("aes128gcm16--prfsha256-x25519", "''"),
        ("", "''"),
    ],
)
def test_a_bad_ike_proposal_is_refused_with_the_word_that_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ProposalError, match=said):
        IkeProposal.parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [("aes128", "'aes128'"), ("esn", "lacks an encryption algorithm"), ("aes128gcm16-x25519", "'x25519'")],
)
def test_a_bad_esp_proposal_is_refused_with_the_word_that_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ProposalError, match=said):
        EspProposal.parse(text)


@pytest.mark.parametrize("label", ["", "x" * 65, "ä" * 33])
def test_a_label_takes_1_to_64_bytes(label: str) -> None:
    with pytest.raises(ValueError, match="label"):
        ChildConfig(
            label=label,
            mode=Mode.TUNNEL,
            esp_proposals=(EspProposal.parse("aes128gcm16"),),
            ts_local=(selector("10.0.0.0/8"),),
            ts_remote=(selector("10.0.0.0/8"),),
        )


def test_credentials_are_checked_and_kept_out_of_the_repr() -> None:
    good = mesh_credentials(BOB)
    assert "private_key" not in repr(good)
    with pytest.raises(ValueError, match="not the private key's"):
        Credentials(
            identity=BOB,
            private_key=ec.generate_private_key(ec.SECP256R1()),
            certificate_chain=good.certificate_chain,
            roots=good.roots,
        )
    with pytest.raises(ValueError, match="P-256 or P-384"):
        mesh_authority().credentials(BOB, key=ec.generate_private_key(ec.SECP521R1()))
    with pytest.raises(ValueError, match="a certificate and a root"):
        Credentials(identity=BOB, private_key=good.private_key, certificate_chain=good.certificate_chain, roots=())


def test_esp_keys_are_kept_out_of_the_repr() -> None:
    assert "secret" not in repr(EspKey(algorithm="rfc4106(gcm(aes))", key=b"secret", icv_bits=128, esn=True))
