"""Key derivation (RFC 7296 sections 2.13, 2.14 and 2.17)."""

import hmac
from dataclasses import dataclass, field

from hauberk_ike.proposals import Encryption, IkeProposal, Prf


def prf_plus(prf: Prf, key: bytes, seed: bytes, length: int) -> bytes:
    """RFC 7296 section 2.13: `length` bytes of T1 | T2 | ..., Tn = prf(key, Tn-1 | seed | n), n at most 255."""
    name = prf.hash_name
    block = b""
    blocks: list[bytes] = []
    for counter in range(1, -(-length // prf.length) + 1):
        block = hmac.digest(key, block + seed + bytes((counter,)), name)
        blocks.append(block)
    return b"".join(blocks)[:length]


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeKeys:
    """The keys of an IKE SA. `sk_ei` and `sk_er` include the AEAD salt; SK_ai and SK_ar are empty for AEAD ciphers."""

    prf: Prf
    sk_d: bytes = field(repr=False)
    sk_ei: bytes = field(repr=False)
    sk_er: bytes = field(repr=False)
    sk_pi: bytes = field(repr=False)
    sk_pr: bytes = field(repr=False)


def derive_ike_keys(
    proposal: IkeProposal, *, shared: bytes, nonce_i: bytes, nonce_r: bytes, spi_i: bytes, spi_r: bytes
) -> IkeKeys:
    """Section 2.14: SKEYSEED = prf(Ni | Nr, g^ir), and the keys from prf+(SKEYSEED, Ni | Nr | SPIi | SPIr)."""
    prf = proposal.prf[0]
    nonces = nonce_i + nonce_r
    return expand_ike_keys(
        proposal,
        skeyseed=hmac.digest(nonces, shared, prf.hash_name),
        seed=nonces + spi_i + spi_r,
    )


def expand_ike_keys(proposal: IkeProposal, *, skeyseed: bytes, seed: bytes) -> IkeKeys:
    """The keys out of a SKEYSEED, however that came about."""
    prf = proposal.prf[0]
    keying, size = proposal.encryption[0].keying_length, prf.length
    stream = prf_plus(prf, skeyseed, seed, 3 * size + 2 * keying)
    second, third = size + keying, size + 2 * keying
    return IkeKeys(
        prf=prf,
        sk_d=stream[:size],
        sk_ei=stream[size:second],
        sk_er=stream[second:third],
        sk_pi=stream[third : third + size],
        sk_pr=stream[third + size :],
    )


def derive_child_keys(
    keys: IkeKeys, cipher: Encryption, *, nonce_i: bytes, nonce_r: bytes, shared: bytes = b""
) -> tuple[bytes, bytes]:
    """Section 2.17: the keys (with salt) from and to the exchange's initiator, out of prf+(SK_d, [g^ir |] Ni | Nr)."""
    keying = cipher.keying_length
    stream = prf_plus(keys.prf, keys.sk_d, shared + nonce_i + nonce_r, 2 * keying)
    return stream[:keying], stream[keying:]
