"""Proposals in strongSwan's spelling."""

import pytest

from hauberk_ike import (
    ChildConfig,
    EsnId,
    EspKey,
    EspProposal,
    IkeProposal,
    Mode,
    ProposalError,
)
from tests.unit.ike.party import selector


@pytest.mark.parametrize(
    "text",
    [
        "aes128gcm16-prfsha256-x25519",
        "aes256gcm16-aes128gcm16-prfsha384-prfsha256-x25519-ecp256",
        "aes256gcm16-prfsha512-ecp384",
        "chacha20poly1305-aes192ccm16-prfsha256-x25519-ecp384-ke1_ecp256-ke1_none",
        "aes256gcm16-prfsha512-ecp384-ke2_x25519-ke7_ecp256",
        "aes256gcm16-prfsha384-x25519-ke1_mlkem768",
        "aes256-sha256-modp2048",
        "aes128-aes256-sha256-sha512-modp3072-modp4096-ecp521",
        "aes128-sha256-prfsha384-ecp256",
        "aes128-sha256-sha384-prfsha384-prfsha256-ecp256",
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
        ("chacha20poly1305-x25519-ecp256-none-ke1_ecp384-esn", (EsnId.ESN,)),
        ("aes128-aes256-sha256-modp2048-esn", (EsnId.ESN,)),
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
        ("aes128gcm16-prfsha256-x25519-esn", "ESP's"),
        ("aes128gcm16-prfsha256-x25519-none", "'none' is no choice"),
        ("aes128gcm16-prfsha256-x25519-ke1_x25519", "the same key exchange twice"),
        ("aes128gcm16-prfsha256-x25519-ke1_ecp256-ke2_curve25519", "the same key exchange twice"),
        ("aes128gcm16-prfsha256-x25519-ke8_ecp256", "ke8_ecp256"),
        ("aes128gcm16-prfsha256-x25519-ke1_prfsha256", "ke1_prfsha256"),
        ("aes128gcm16-sha256-prfsha256-x25519", "authenticate by themselves"),
        ("aes128gcm16-x25519", "lacks a pseudorandom function"),
        ("prfsha256-x25519", "lacks an encryption algorithm"),
        ("aes128gcm16-prfsha256", "lacks a key exchange method"),
        ("aes128-x25519", "lacks an integrity algorithm"),
        ("aes128-prfsha256-x25519", "lacks an integrity algorithm"),
        ("aes128-aes128gcm16-sha256-x25519", "mixes ciphers"),
        ("aes128gcm16--prfsha256-x25519", "''"),
        ("", "''"),
    ],
)
def test_a_bad_ike_proposal_is_refused_with_the_word_that_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ProposalError, match=said):
        IkeProposal.parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("aes128", "lacks an integrity algorithm"),
        ("aes128-aes128gcm16-sha256", "mixes ciphers"),
        ("esn", "lacks an encryption algorithm"),
        ("aes128gcm16-prfsha256", "IKE's"),
        ("aes128gcm16-sha256", "authenticate by themselves"),
        ("aes128gcm16-ke1_x25519", "additional to"),
        ("aes128gcm16-x25519-ke1_x25519", "the same key exchange twice"),
    ],
)
def test_a_bad_esp_proposal_is_refused_with_the_word_that_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ProposalError, match=said):
        EspProposal.parse(text)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("aes256gcm-prfsha384-curve25519", "aes256gcm16-prfsha384-x25519"),
        ("aes128ccm128-aes192gcm128-sha2_256-x25519", "aes128ccm16-aes192gcm16-prfsha256-x25519"),
        ("aes128gcm16-aes128gcm16-prfsha256-x25519-x25519", "aes128gcm16-prfsha256-x25519"),
        ("x25519-prfsha256-ke1_modpnone-ke1_ecp256-aes128gcm16", "aes128gcm16-prfsha256-x25519-ke1_none-ke1_ecp256"),
    ],
)
def test_strongswans_other_words_mean_the_same_in_any_order_and_once(written: str, meant: str) -> None:
    assert str(IkeProposal.parse(written)) == meant


def test_without_a_prf_it_is_that_of_the_integrity_algorithm_as_with_strongswan() -> None:
    proposal = IkeProposal.parse("aes128-sha384-sha256-x25519")
    assert proposal == IkeProposal.parse("aes128-sha384-sha256-prfsha384-prfsha256-x25519")
    assert proposal != IkeProposal.parse("aes128-sha384-sha256-prfsha384-x25519")


def test_an_integrity_algorithm_beside_an_aead_names_the_prf_as_with_strongswan() -> None:
    proposal = IkeProposal.parse("aes256gcm16-sha384-x25519")
    assert proposal == IkeProposal.parse("aes256gcm16-prfsha384-x25519")
    assert not proposal.integrity


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("sha1", "SHA-1"),
        ("prfsha1", "SHA-1"),
        ("md5", "MD5"),
        ("3des", "DES"),
        ("des", "DES"),
        ("modp1024", "2048 bits"),
        ("modp1536", "2048 bits"),
        ("modp2048s256", "small subgroups"),
        ("null", "encrypts nothing"),
        ("ke1_modp1024", "2048 bits"),
        ("ke2_mlkem512", "ML-KEM-768"),
    ],
)
def test_what_rfc_8247_retires_is_refused_with_the_reason(word: str, why: str) -> None:
    with pytest.raises(ProposalError, match=why) as error:
        IkeProposal.parse(f"aes128gcm16-prfsha256-x25519-{word}")
    assert f"'{word}'" in str(error.value)


def test_additional_key_exchanges_keep_their_numbers() -> None:
    proposal = IkeProposal.parse("aes128gcm16-prfsha256-x25519-ke3_ecp256-ke1_ecp384-ke1_ecp256-ke1_none")
    assert [[method.word for method in kind] for kind in proposal.additional] == [
        ["ecp384", "ecp256", "none"],
        [],
        ["ecp256"],
    ]


def test_ike_auth_takes_an_esp_proposal_without_its_key_exchanges() -> None:
    proposal = EspProposal.parse("aes128gcm16-x25519-ke1_ecp256-esn")
    assert str(proposal.without_key_exchange()) == "aes128gcm16-esn"
    plain = EspProposal.parse("aes128gcm16-esn")
    assert plain.without_key_exchange() is plain


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


def test_esp_keys_are_kept_out_of_the_repr() -> None:
    assert "secret" not in repr(
        EspKey(
            encryption="cbc(aes)",
            key=b"secret",
            icv_bits=0,
            integrity="hmac(sha256)",
            integrity_key=b"secret too",
            integrity_bits=128,
            esn=True,
        )
    )
