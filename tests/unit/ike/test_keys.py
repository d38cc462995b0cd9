"""Key derivation against published vectors and an independent implementation."""

import hmac

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from hauberk_ike import EspProposal, IkeProposal
from hauberk_ike.algorithms import PRFS
from hauberk_ike.keys import derive_child_keys, derive_ike_keys, prf_plus

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


@pytest.mark.parametrize(
    ("word", "algorithm"),
    [("prfsha256", hashes.SHA256()), ("prfsha384", hashes.SHA384()), ("prfsha512", hashes.SHA512())],
)
@given(key=st.binary(min_size=1, max_size=80), seed=st.binary(max_size=300), length=st.integers(1, 600))
def test_prf_plus_is_hkdf_expand(
    word: str, algorithm: hashes.HashAlgorithm, key: bytes, seed: bytes, length: int
) -> None:
    # RFC 7296 section 2.13 and RFC 5869 section 2.3 define the same function; OpenSSL's is not ours.
    assert prf_plus(PRFS[word], key, seed, length) == HKDFExpand(algorithm, length, seed).derive(key)


def test_keys_are_not_in_the_repr() -> None:
    keys = derive_ike_keys(SHA256_GCM128, shared=SHARED, nonce_i=NONCE_I, nonce_r=NONCE_R, spi_i=SPI_I, spi_r=SPI_R)
    assert "sk_" not in repr(keys)
