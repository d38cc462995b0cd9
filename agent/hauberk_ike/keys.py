"""Key derivation, as pure functions.

RFC 7296 sections 2.13, 2.14, 2.17 and 2.18; RFC 9370 section 2.2 for additional key exchanges; RFC 8784 section 3 for
post-quantum preshared keys; RFC 9242 section 3.3.2 for what IKE_INTERMEDIATE adds to AUTH.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from hauberk_ike.algorithms import Prf
from hauberk_ike.esp_key import EspKey
from hauberk_ike.proposals import EspProposal, IkeProposal

_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
"""By `Prf.hash_name`."""


def prf_plus(prf: Prf, key: bytes, seed: bytes, length: int) -> bytes:
    """RFC 7296 section 2.13: `length` bytes of T1 | T2 | ..., Tn = prf(key, Tn-1 | seed | n), n at most 255.

    With HMAC that is HKDF-Expand (RFC 5869 section 2.3), one call for all blocks instead of one for each.
    """
    return HKDFExpand(_HASHES[prf.hash_name], length, seed).derive(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeKeys:
    """The keys of an IKE SA. `sk_ei` and `sk_er` include the AEAD salt; SK_ai and SK_ar are empty for AEAD ciphers."""

    prf: Prf
    sk_d: bytes = field(repr=False)
    sk_ai: bytes = field(default=b"", repr=False)
    sk_ar: bytes = field(default=b"", repr=False)
    sk_ei: bytes = field(repr=False)
    sk_er: bytes = field(repr=False)
    sk_pi: bytes = field(repr=False)
    sk_pr: bytes = field(repr=False)


def derive_ike_keys(
    proposal: IkeProposal, *, shared: bytes, nonce_i: bytes, nonce_r: bytes, spi_i: bytes, spi_r: bytes
) -> IkeKeys:
    """Section 2.14: SKEYSEED = prf(Ni | Nr, g^ir), and the keys from prf+(SKEYSEED, Ni | Nr | SPIi | SPIr)."""
    nonces = nonce_i + nonce_r
    skeyseed = hmac.digest(nonces, shared, proposal.prf[0].hash_name)
    return expand_ike_keys(proposal, skeyseed=skeyseed, seed=nonces + spi_i + spi_r)


def update_ike_keys(
    proposal: IkeProposal,
    keys: IkeKeys,
    *,
    shared: bytes,
    nonce_i: bytes,
    nonce_r: bytes,
    spi_i: bytes,
    spi_r: bytes,
) -> IkeKeys:
    """The keys after an additional key exchange in IKE_INTERMEDIATE (RFC 9370 section 2.2.2).

    SKEYSEED(n) = prf(SK_d(n-1), SK(n) | Ni | Nr), with the nonces of IKE_SA_INIT; then as in section 2.14.
    """
    nonces = nonce_i + nonce_r
    skeyseed = hmac.digest(keys.sk_d, shared + nonces, keys.prf.hash_name)
    return expand_ike_keys(proposal, skeyseed=skeyseed, seed=nonces + spi_i + spi_r)


def rekey_ike_keys(
    proposal: IkeProposal,
    old: IkeKeys,
    *,
    shared: bytes,
    nonce_i: bytes,
    nonce_r: bytes,
    spi_i: bytes,
    spi_r: bytes,
    additional: Iterable[bytes] = (),
) -> IkeKeys:
    """The keys of an IKE SA that replaces one with `old` keys; `proposal`, nonces and SPIs are the new one's.

    RFC 7296 section 2.18: SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr), by the old SA's PRF. `additional` are the
    secrets of IKE_FOLLOWUP_KE, in order: they follow the nonces (RFC 9370 section 2.2.4).
    """
    nonces = nonce_i + nonce_r
    skeyseed = hmac.digest(old.sk_d, b"".join((shared, nonces, *additional)), old.prf.hash_name)
    return expand_ike_keys(proposal, skeyseed=skeyseed, seed=nonces + spi_i + spi_r)


def expand_ike_keys(proposal: IkeProposal, *, skeyseed: bytes, seed: bytes) -> IkeKeys:
    """The keys out of a SKEYSEED, however that came about: SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr."""
    prf = proposal.prf[0]
    keying, size = proposal.encryption[0].keying_length, prf.length
    check = proposal.integrity[0].key_length if proposal.integrity else 0
    stream = prf_plus(prf, skeyseed, seed, 3 * size + 2 * (check + keying))
    ar = size + check
    ei = ar + check
    er = ei + keying
    pi = er + keying
    return IkeKeys(
        prf=prf,
        sk_d=stream[:size],
        sk_ai=stream[size:ar],
        sk_ar=stream[ar:ei],
        sk_ei=stream[ei:er],
        sk_er=stream[er:pi],
        sk_pi=stream[pi : pi + size],
        sk_pr=stream[pi + size :],
    )


def mix_ppk(keys: IkeKeys, ppk: bytes) -> IkeKeys:
    """RFC 8784 section 3: SK_d, SK_pi and SK_pr become prf+(PPK, themselves), each as long as before.

    That is for the authentication and for the CHILD SAs; what protects this IKE SA's messages stays as it is.
    """
    prf = keys.prf
    return replace(
        keys,
        sk_d=prf_plus(prf, ppk, keys.sk_d, prf.length),
        sk_pi=prf_plus(prf, ppk, keys.sk_pi, prf.length),
        sk_pr=prf_plus(prf, ppk, keys.sk_pr, prf.length),
    )


def derive_child_keys(
    keys: IkeKeys,
    proposal: EspProposal,
    *,
    nonce_i: bytes,
    nonce_r: bytes,
    shared: bytes = b"",
    additional: Iterable[bytes] = (),
) -> tuple[EspKey, EspKey]:
    """Section 2.17: the keys from and to the exchange's initiator, out of prf+(SK_d, [g^ir |] Ni | Nr).

    For each direction the cipher's key comes first, with its salt, then the integrity algorithm's. `additional` are the
    secrets of IKE_FOLLOWUP_KE, in order: they follow the nonces (RFC 9370 section 2.2.4).
    """
    cipher = proposal.encryption[0]
    check = proposal.integrity[0].key_length if proposal.integrity else 0
    size = cipher.keying_length + check
    stream = prf_plus(keys.prf, keys.sk_d, b"".join((shared, nonce_i, nonce_r, *additional)), 2 * size)
    return _esp_key(proposal, stream[:size]), _esp_key(proposal, stream[size:])


def _esp_key(proposal: EspProposal, material: bytes) -> EspKey:
    cipher = proposal.encryption[0]
    integrity = proposal.integrity[0] if proposal.integrity else None
    return EspKey(
        encryption=cipher.kernel_name,
        key=material[: cipher.keying_length],
        icv_bits=8 * cipher.icv_length,
        integrity=integrity.kernel_name if integrity is not None else "",
        integrity_key=material[cipher.keying_length :],
        integrity_bits=8 * integrity.icv_length if integrity is not None else 0,
        esn=bool(proposal.esn[0]),
    )


def authenticate_intermediate(prf: Prf, sk_p: bytes, previous: bytes, octets: bytes) -> bytes:
    """RFC 9242 section 3.3.2: IntAuth_n = prf(SK_p(n), IntAuth_(n-1) | A | P), one side's chain.

    `sk_p` is SK_pi for the initiator's messages and SK_pr for the responder's, as they are when the message is sent;
    `previous` is empty in the first exchange; `octets` are `protection.intermediate_octets` of the message.
    """
    return hmac.digest(sk_p, previous + octets, prf.hash_name)


def intermediate_auth(int_auth_i: bytes, int_auth_r: bytes, ike_auth_message_id: int) -> bytes:
    """RFC 9242 section 3.3.2: IntAuth, in which the signed octets of both sides end."""
    return int_auth_i + int_auth_r + ike_auth_message_id.to_bytes(4)
