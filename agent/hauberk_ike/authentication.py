"""The AUTH payload: what it covers, and how either side proves itself (RFC 7296 section 2.15).

By a pre-shared key (authentication method 2), or by a signature (RFC 7427, method 14): only ECDSA over P-256 with
SHA-256 and over P-384 with SHA-384. RSA, SHA-1 and the older methods do not exist here.
"""

import hmac
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from hauberk_ike.algorithms import Prf
from hauberk_ike.credentials import CertifiedKey, PreSharedKey
from hauberk_ike.errors import ExchangeRefused, RefusalReason
from hauberk_ike.numbers import AuthMethod, HashAlgorithm, NotifyType
from hauberk_ike.wire.payloads import Authentication, Identification


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureScheme:
    """A curve with its hash, and its DER AlgorithmIdentifier as RFC 7427 appendix A.3 lists it."""

    hash_id: HashAlgorithm
    curve: type[ec.EllipticCurve]
    algorithm: ec.ECDSA
    identifier: bytes


SCHEMES: Final = (
    SignatureScheme(
        hash_id=HashAlgorithm.SHA2_256,
        curve=ec.SECP256R1,
        algorithm=ec.ECDSA(hashes.SHA256()),
        identifier=bytes.fromhex("300a06082a8648ce3d040302"),
    ),
    SignatureScheme(
        hash_id=HashAlgorithm.SHA2_384,
        curve=ec.SECP384R1,
        algorithm=ec.ECDSA(hashes.SHA384()),
        identifier=bytes.fromhex("300a06082a8648ce3d040303"),
    ),
)

HASH_ALGORITHMS: Final = b"".join(int(scheme.hash_id).to_bytes(2) for scheme in SCHEMES)
"""The data of our SIGNATURE_HASH_ALGORITHMS notify (RFC 7427 section 4)."""


@lru_cache(16)  # there are few, and every IKE SA keeps its peer's
def parse_hash_algorithms(data: bytes) -> frozenset[int]:
    """The hash algorithms of a peer's SIGNATURE_HASH_ALGORITHMS notify; an odd byte at the end is ignored."""
    return frozenset(int.from_bytes(data[index : index + 2]) for index in range(0, len(data) - 1, 2))


KEY_PAD: Final = b"Key Pad for IKEv2"


def signed_octets(
    prf: Prf, *, message: bytes, peer_nonce: bytes, sk_p: bytes, identity: Identification, int_auth: bytes = b""
) -> bytes:
    """What an AUTH payload covers: the prover's IKE_SA_INIT message, the other's nonce, prf(SK_p, prover's ID body).

    `int_auth` is what IKE_INTERMEDIATE exchanges add (RFC 9242 section 3.3.2), empty if there were none.
    """
    return message + peer_nonce + hmac.digest(sk_p, identity.build(), prf.hash_name) + int_auth


def prove(key: CertifiedKey | PreSharedKey, prf: Prf, octets: bytes, peer_hashes: frozenset[int]) -> Authentication:
    """Our AUTH payload. Raises ExchangeRefused if the peer can't verify what our key makes."""
    if isinstance(key, PreSharedKey):
        return Authentication(method=AuthMethod.SHARED_KEY, data=_shared_key_proof(key, prf, octets))
    return sign(key.private_key, octets, peer_hashes)


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


def sign(private_key: ec.EllipticCurvePrivateKey, octets: bytes, peer_hashes: frozenset[int]) -> Authentication:
    """Our AUTH payload. Raises ExchangeRefused if the peer did not say that it takes our key's hash."""
    scheme = next(scheme for scheme in SCHEMES if isinstance(private_key.curve, scheme.curve))
    if scheme.hash_id not in peer_hashes:
        raise ExchangeRefused(
            NotifyType.AUTHENTICATION_FAILED, f"the peer does not take signatures with {scheme.hash_id.name}"
        )
    signature = private_key.sign(octets, scheme.algorithm)
    return Authentication(
        method=AuthMethod.DIGITAL_SIGNATURE,
        data=bytes((len(scheme.identifier),)) + scheme.identifier + signature,
    )


def verify(public_key: CertificatePublicKeyTypes, auth: Authentication, octets: bytes) -> None:
    """Raises ExchangeRefused (AUTHENTICATION_FAILED) unless `auth` signs `octets` by a scheme that fits the key."""
    if auth.method != AuthMethod.DIGITAL_SIGNATURE:
        raise _refusal(f"authentication method {auth.method} is not supported")
    length = auth.data[0]
    identifier, signature = auth.data[1 : 1 + length], auth.data[1 + length :]
    scheme = next((scheme for scheme in SCHEMES if scheme.identifier == identifier), None)
    if scheme is None:
        raise _refusal("the signature algorithm is not supported")
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, scheme.curve):
        raise _refusal("the signature algorithm does not fit the certificate's key")
    try:
        public_key.verify(signature, octets, scheme.algorithm)
    except InvalidSignature:
        raise _refusal("the signature is wrong") from None


def _refusal(message: str) -> ExchangeRefused:
    return ExchangeRefused(NotifyType.AUTHENTICATION_FAILED, message, reason=RefusalReason.SIGNATURE_INVALID)
