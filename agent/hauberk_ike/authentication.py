"""The AUTH payload: what it covers, and how either side proves itself (RFC 7296 section 2.15).

By a pre-shared key (authentication method 2), or by a certified key (`hauberk_ike.signature`). Used by IKE_AUTH.
"""

import hmac
from collections.abc import Sequence
from typing import Final

from hauberk_ike.algorithms import Prf
from hauberk_ike.credentials import CertifiedKey, PreSharedKey
from hauberk_ike.errors import ExchangeRefused, RefusalReason
from hauberk_ike.numbers import AuthMethod, NotifyType
from hauberk_ike.signature import can_sign, sign
from hauberk_ike.wire.payloads import Authentication, Identification

KEY_PAD: Final = b"Key Pad for IKEv2"
AUTHORITY_BYTES: Final = 20
"""A CERTREQ names each authority by a SHA-1 hash (RFC 7296 section 3.7)."""


def signed_octets(
    prf: Prf, *, message: bytes, peer_nonce: bytes, sk_p: bytes, identity: Identification, int_auth: bytes = b""
) -> bytes:
    """What an AUTH payload covers: the prover's IKE_SA_INIT message, the other's nonce, prf(SK_p, prover's ID body).

    `int_auth` is what IKE_INTERMEDIATE exchanges add (RFC 9242 section 3.3.2), empty if there were none.
    """
    return message + peer_nonce + hmac.digest(sk_p, identity.build(), prf.hash_name) + int_auth


def choose_key(keys: Sequence[CertifiedKey], *, authorities: bytes, peer_hashes: frozenset[int]) -> CertifiedKey:
    """Of our keys the first that the peer can verify, and beneath an authority that it asked for if there is one.

    `authorities` are its CERTREQ's, run together. They are a wish (RFC 7296 section 3.7): the peer may well trust what
    it has not named. Raises ExchangeRefused if it can verify none.
    """
    if len(keys) == 1:
        return keys[0]
    usable = [key for key in keys if can_sign(key.private_key, key.schemes, peer_hashes)]
    if not usable:
        raise ExchangeRefused(NotifyType.AUTHENTICATION_FAILED, "the peer can verify none of our keys' signatures")
    wanted = {authorities[start : start + AUTHORITY_BYTES] for start in range(0, len(authorities), AUTHORITY_BYTES)}
    return next((key for key in usable if not wanted.isdisjoint(key.authorities)), usable[0])


def prove(key: CertifiedKey | PreSharedKey, prf: Prf, octets: bytes, peer_hashes: frozenset[int]) -> Authentication:
    """Our AUTH payload. Raises ExchangeRefused if the peer can't verify what our key makes."""
    if isinstance(key, PreSharedKey):
        return Authentication(method=AuthMethod.SHARED_KEY, data=_shared_key_proof(key, prf, octets))
    return sign(key.private_key, key.schemes, octets, peer_hashes)


def verify_shared_key(key: PreSharedKey, prf: Prf, auth: Authentication, octets: bytes) -> None:
    """Raises ExchangeRefused (AUTHENTICATION_FAILED) unless whoever made `auth` knows the key."""
    if auth.method != AuthMethod.SHARED_KEY or not hmac.compare_digest(auth.data, _shared_key_proof(key, prf, octets)):
        raise ExchangeRefused(
            NotifyType.AUTHENTICATION_FAILED,
            "the pre-shared key is another",
            reason=RefusalReason.PRE_SHARED_KEY_INVALID,
        )


def _shared_key_proof(key: PreSharedKey, prf: Prf, octets: bytes) -> bytes:
    padded = hmac.digest(key.secret, KEY_PAD, prf.hash_name)
    return hmac.digest(padded, octets, prf.hash_name)
