"""Key derivation against published vectors and an independent implementation."""

import hmac

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC
from hypothesis import given
from hypothesis import strategies as st

from hauberk_ike import EspProposal, IkeProposal
from hauberk_ike.algorithms import PRFS
from hauberk_ike.keys import (
    IkeKeys,
    authenticate_intermediate,
    derive_child_keys,
    derive_ike_keys,
    expand_ike_keys,
    intermediate_auth,
    mix_ppk,
    prf_plus,
    rekey_ike_keys,
    update_ike_keys,
)

# Origin: the ACVP vectors of NIST for SP 800-135's IKEv2 KDF (usnistgov/ACVP-Server,
# gen-val/json-files/kdf-components-ikev2-1.0), group "self test" with SHA-256, as OpenSSL 4 publishes them in
# test/recipes/30-test_evp_data/evpkdf_ikev2.txt. The nonces are shorter than IKEv2 permits; the function does not mind.
NONCE_I = bytes.fromhex("3651FEF5C9C35E93")
NONCE_R = bytes.fromhex("C09A8B90A3F04D59")
SHARED = bytes.fromhex(
    "D084A30166A50FB7325C3960874A839449EF9741C2F4F947D0201DD8C1269273D79509F37E3CA3EB4FA2FE2A28254E289CD3F34DAD4EB4DF"
    "1A07685A4B8A94FA61E2491F7598B3CE65547FF133B3F63D1AC4175EAA695033F3CEDB026A6873A36455172A8540B8A5D23A0143BED0390E"
    "E49B168269D75FFFEE9FB62BE965993C"
)
SPI_I = bytes.fromhex("8E5C3AE507221684")
SPI_R = bytes.fromhex("B1F201BB155C3ACD")
SKEYSEED = bytes.fromhex("EFAA7AB0EAA85A3D0BE2100CD4B6FE00FF5025A9EAFDDB3EF518E9F0D3FE60E6")
DKM = bytes.fromhex(
    "462B9DD525D4FD71169174272779E704BAF62C6231779AE9EFE8C58B21916B42010164AF2111EBD762F6916CA9A6F0EE05C8B320E4EE2770"
    "5521DE2589ADEA1878F1A551738AF7C88DC4F0BB0C096A3F7D1F1A670FC79F49F678D60D665BB3710C8657F03BA9F62B9A818D7A228968C5"
    "06E237AE9502AA6DB395C61EA6A3E79504F86B7368BFB5423DF79E48809BBCCD49FD826D024F63D7C2A5566400A12E736AA034510428F5EA"
    "008FE2FC16886FA388274EA6C2B4FCFC6141BF04F8207EF8AFC224EA1059CB220DC0B23AC0E4CCDA495A4E131B1D56E223ABA5A48E8ED1F5"
)
DKM_CHILD = bytes.fromhex(
    "23647677E7D403FA1E3006F19840AEE18AD9FECC4215814C4131BDEBA98433D8B0E31BFBBDDF822ABCCE5E06486AA388022B75E27E1E68AA"
    "5983028B65282C730C5D49EF7606770376CFDEC41F7CC435D816029989BC353D3B67B9FD1168DDCB8978850DA9B752AEE6A30D0086D2C4D7"
)
SHARED_NEW = bytes.fromhex(
    "52F00AB174C25D5B7139AE5FF4E8E9EDDEE5992D2E36ADF8A559FFD90DAB1442E4FBE429D320C0F33552A17D1557FA41EA70E8FB916C4FA2"
    "7ED52B5F8EBD8461AFA78F1159159A64055AC5F6319E29C28EAE58CBC6847770F32C3FED1D04750484F854790F95E9EC01BC5BC461F24966"
    "462E359511329305038E94DEB6DD42C2"
)
DKM_CHILD_DH = bytes.fromhex(
    "6A919387A5FA2835FE8A8237E4A14845BD2B9930DB87EFF7ADF268F62186004902DBA9AA942D0259A0EDC4120B932A503865B57BA8FB8811"
    "7EF5DF7B26799CD8BA37AA5438108CB1A4FE117907C9D0597B708C3F11151FEFD624D2317202B7C81430600E6FCBB6E1A8DF2B4861EF2363"
)

SHA256_GCM128 = IkeProposal.parse("aes128gcm16-prfsha256-x25519")


def test_skeyseed_is_nists() -> None:
    assert hmac.digest(NONCE_I + NONCE_R, SHARED, "sha256") == SKEYSEED
    assert prf_plus(PRFS["prfsha256"], SKEYSEED, NONCE_I + NONCE_R + SPI_I + SPI_R, len(DKM)) == DKM


def test_ike_keys_are_cut_from_nists_key_material_in_the_rfcs_order() -> None:
    keys = derive_ike_keys(SHA256_GCM128, shared=SHARED, nonce_i=NONCE_I, nonce_r=NONCE_R, spi_i=SPI_I, spi_r=SPI_R)
    assert keys.sk_d == DKM[:32]
    assert keys.sk_ei == DKM[32:52]  # 16 bytes of key and 4 of salt; no SK_ai and SK_ar before it
    assert keys.sk_er == DKM[52:72]
    assert keys.sk_pi == DKM[72:104]
    assert keys.sk_pr == DKM[104:136]


def test_child_keys_are_cut_from_nists_key_material_initiator_first() -> None:
    keys = derive_ike_keys(SHA256_GCM128, shared=SHARED, nonce_i=NONCE_I, nonce_r=NONCE_R, spi_i=SPI_I, spi_r=SPI_R)
    for text, size in (("aes128gcm16", 20), ("aes256gcm16", 36)):
        proposal = EspProposal.parse(text)
        from_initiator, to_initiator = derive_child_keys(keys, proposal, nonce_i=NONCE_I, nonce_r=NONCE_R)
        assert from_initiator.key + to_initiator.key == DKM_CHILD[: 2 * size]
        with_secret = derive_child_keys(keys, proposal, nonce_i=NONCE_I, nonce_r=NONCE_R, shared=SHARED_NEW)
        assert b"".join(each.key for each in with_secret) == DKM_CHILD_DH[: 2 * size]


@pytest.mark.parametrize("word", PRFS)
@given(key=st.binary(min_size=1, max_size=80), seed=st.binary(max_size=300), length=st.integers(1, 600))
def test_prf_plus_is_what_the_rfc_says_block_by_block(word: str, key: bytes, seed: bytes, length: int) -> None:
    # RFC 7296 section 2.13: T1 = prf(K, S | 0x01), T2 = prf(K, T1 | S | 0x02), and so on.
    assert prf_plus(PRFS[word], key, seed, length) == expand(word, key, seed, length)


def ike_keys(text: str) -> IkeKeys:
    return derive_ike_keys(
        IkeProposal.parse(text), shared=SHARED, nonce_i=NONCE_I, nonce_r=NONCE_R, spi_i=SPI_I, spi_r=SPI_R
    )


def test_with_an_integrity_algorithm_its_keys_come_between() -> None:
    # RFC 7296 section 2.14: SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr.
    keys = ike_keys("aes128-sha256-x25519")
    assert keys.sk_d + keys.sk_ai + keys.sk_ar + keys.sk_ei + keys.sk_er + keys.sk_pi + keys.sk_pr == DKM[:192]
    assert [len(each) for each in (keys.sk_ai, keys.sk_ar, keys.sk_ei, keys.sk_er)] == [32, 32, 16, 16]


def test_a_childs_cipher_has_its_key_before_the_mac() -> None:
    # RFC 7296 section 2.17: per direction the encryption key is first.
    proposal = EspProposal.parse("aes128-sha256-esn")
    out, back = derive_child_keys(ike_keys("aes128-sha256-x25519"), proposal, nonce_i=NONCE_I, nonce_r=NONCE_R)
    assert out.key + out.integrity_key + back.key + back.integrity_key == DKM_CHILD[:96]
    assert (len(out.key), len(out.integrity_key)) == (16, 32)
    assert out.esn


def test_a_rekeys_skeyseed_is_nists() -> None:
    # Same origin, "rekey". The new nonces are the old ones there; SPIs, which it leaves out, are ours.
    old = ike_keys("aes128gcm16-prfsha256-x25519")
    new = rekey_ike_keys(
        SHA256_GCM128,
        old,
        shared=SHARED_NEW,
        nonce_i=NONCE_I,
        nonce_r=NONCE_R,
        spi_i=b"new spi!",
        spi_r=b"his spi!",
    )
    skeyseed = bytes.fromhex("90722C42BD849E9B72D240FC254174270FA8295DE6F0338DAFC303A9EC104F12")
    seed = NONCE_I + NONCE_R + b"new spi!his spi!"
    assert new == expand_ike_keys(SHA256_GCM128, skeyseed=skeyseed, seed=seed)


# For what follows nobody has published vectors: the formulas once more, by the library's HMAC.

HASHES: dict[str, hashes.HashAlgorithm] = {
    "prfsha256": hashes.SHA256(),
    "prfsha384": hashes.SHA384(),
    "prfsha512": hashes.SHA512(),
}
EVERY_PRF = pytest.mark.parametrize("word", HASHES)
NEXT = {"nonce_i": b"a new nonce of the initiator's", "nonce_r": b"and one of the responder's"}
SPIS = {"spi_i": SPI_I, "spi_r": SPI_R}


def prf(word: str, key: bytes, *parts: bytes) -> bytes:
    function = HMAC(key, HASHES[word])
    function.update(b"".join(parts))
    return function.finalize()


def expand(word: str, key: bytes, seed: bytes, length: int) -> bytes:
    blocks = [b""]
    while sum(map(len, blocks)) < length:
        blocks.append(prf(word, key, blocks[-1], seed, bytes((len(blocks),))))
    return b"".join(blocks)[:length]


def stream_of(keys: IkeKeys) -> bytes:
    return keys.sk_d + keys.sk_ai + keys.sk_ar + keys.sk_ei + keys.sk_er + keys.sk_pi + keys.sk_pr


@EVERY_PRF
def test_an_additional_key_exchange_makes_all_keys_anew(word: str) -> None:
    # RFC 9370 section 2.2.2: SKEYSEED(n) = prf(SK_d(n-1), SK(n) | Ni | Nr), and the keys as at first.
    proposal = IkeProposal.parse(f"aes256gcm16-{word}-x25519-ke1_mlkem768-ke2_mlkem1024")
    nonces = NONCE_I + NONCE_R
    first = derive_ike_keys(proposal, shared=b"X25519", nonce_i=NONCE_I, nonce_r=NONCE_R, **SPIS)
    second = update_ike_keys(proposal, first, shared=b"ML-KEM-768", nonce_i=NONCE_I, nonce_r=NONCE_R, **SPIS)
    third = update_ike_keys(proposal, second, shared=b"ML-KEM-1024", nonce_i=NONCE_I, nonce_r=NONCE_R, **SPIS)
    sk_d = expand(word, prf(word, nonces, b"X25519"), nonces + SPI_I + SPI_R, PRFS[word].length)
    for keys, shared in ((second, b"ML-KEM-768"), (third, b"ML-KEM-1024")):
        stream = expand(word, prf(word, sk_d, shared, nonces), nonces + SPI_I + SPI_R, len(stream_of(keys)))
        assert stream_of(keys) == stream
        sk_d = keys.sk_d
    assert len({first.sk_ei, second.sk_ei, third.sk_ei}) == 3


@EVERY_PRF
def test_a_rekeys_additional_secrets_follow_the_nonces(word: str) -> None:
    # RFC 9370 section 2.2.4: SKEYSEED = prf(SK_d, SK(0) | Ni | Nr | SK(1) | ... | SK(n))
    old = ike_keys(f"aes128gcm16-{word}-x25519")
    new = IkeProposal.parse("aes256-sha512-prfsha384-ecp384")
    keys = rekey_ike_keys(new, old, shared=b"ECP", additional=(b"one", b"two"), **NEXT, **SPIS)
    nonces = NEXT["nonce_i"] + NEXT["nonce_r"]
    # SKEYSEED by the old SA's PRF, the rest by the new one's (RFC 7296 section 2.18).
    skeyseed = prf(word, old.sk_d, b"ECP", nonces, b"one", b"two")
    assert stream_of(keys) == expand("prfsha384", skeyseed, nonces + SPI_I + SPI_R, 3 * 48 + 2 * (64 + 32))
    assert keys.prf is PRFS["prfsha384"]


@EVERY_PRF
def test_a_childs_additional_secrets_follow_the_nonces(word: str) -> None:
    # RFC 9370 section 2.2.4: KEYMAT = prf+(SK_d, SK(0) | Ni | Nr | SK(1) | ... | SK(n))
    keys = ike_keys(f"aes128gcm16-{word}-x25519")
    proposal = EspProposal.parse("chacha20poly1305-x25519-ke1_mlkem768-ke2_mlkem1024-esn")
    out, back = derive_child_keys(keys, proposal, shared=b"X25519", additional=(b"one", b"two"), **NEXT)
    seed = b"X25519" + NEXT["nonce_i"] + NEXT["nonce_r"] + b"one" + b"two"
    assert out.key + back.key == expand(word, keys.sk_d, seed, 72)


@EVERY_PRF
def test_a_ppk_is_mixed_into_three_of_the_keys(word: str) -> None:
    # RFC 8784 section 3: SK_d = prf+(PPK, SK_d'), and SK_pi and SK_pr alike.
    keys = ike_keys(f"aes128-sha256-{word}-x25519")
    mixed = mix_ppk(keys, b"a post-quantum preshared key")
    for name in ("sk_d", "sk_pi", "sk_pr"):
        assert getattr(mixed, name) == expand(
            word, b"a post-quantum preshared key", getattr(keys, name), PRFS[word].length
        )
    for name in ("sk_ai", "sk_ar", "sk_ei", "sk_er", "prf"):
        assert getattr(mixed, name) == getattr(keys, name)


@EVERY_PRF
def test_intermediate_exchanges_are_chained_into_auth(word: str) -> None:
    # RFC 9242 section 3.3.2: IntAuth_i1 = prf(SK_pi1, A | P), IntAuth_i2 = prf(SK_pi2, IntAuth_i1 | A | P), and so on;
    # IntAuth = IntAuth_iN | IntAuth_rN | IKE_AUTH_MID.
    function = PRFS[word]
    one = authenticate_intermediate(function, b"SK_pi1", b"", b"the first request")
    two = authenticate_intermediate(function, b"SK_pi2", one, b"the second request")
    assert two == prf(word, b"SK_pi2", prf(word, b"SK_pi1", b"the first request"), b"the second request")
    assert intermediate_auth(two, b"the responder's", 3) == two + b"the responder's" + b"\0\0\0\3"


def test_keys_are_not_in_the_repr() -> None:
    keys = derive_ike_keys(SHA256_GCM128, shared=SHARED, nonce_i=NONCE_I, nonce_r=NONCE_R, spi_i=SPI_I, spi_r=SPI_R)
    assert "sk_" not in repr(keys)
