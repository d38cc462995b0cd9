"""Signatures in AUTH payloads: which there are, how they are written, and which keys may make them.

RFC 7427 (authentication method 14) names the algorithm by its DER AlgorithmIdentifier; a peer says by
SIGNATURE_HASH_ALGORITHMS which hashes it takes. Peers that say nothing know only the methods of RFC 4754 (9, 10, 11:
ECDSA with the curve's own hash), which are verified from anybody, and made for nobody else. RSA is RSASSA-PSS with the
parameters of RFC 7427 appendix A.4, byte for byte: PKCS#1 v1.5 (which is what method 1 is), SHA-1, and PSS with other
parameters do not exist here, and no parameter is ever taken from a peer.

RFC 7427 ties no hash to a curve: a peer may use whatever hash was named to it (section 4), and OpenIKED signs with
SHA-256 whatever its key. So ECDSA is verified with each hash that we name, whatever the curve, as other daemons do;
ours is made with a hash that is as strong as our key.

ML-DSA-65 is as draft-ietf-ipsecme-ikev2-pqc-auth has it: pure, with an empty context.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from hauberk_ike.errors import ExchangeRefused, RefusalReason
from hauberk_ike.numbers import AuthMethod, HashAlgorithm, NotifyType
from hauberk_ike.wire.payloads import Authentication

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | mldsa.MLDSA65PrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey | mldsa.MLDSA65PublicKey

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
MAX_RSA_EXPONENT_BITS: Final = 33
"""Verifying costs as many squarings; all exponents in use have 17 bits."""

CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureScheme:
    """An algorithm with all its parameters. `identifier` is its DER AlgorithmIdentifier."""

    name: str
    hash_id: HashAlgorithm
    identifier: bytes

    @abstractmethod
    def fits(self, key: PrivateKey | PublicKey) -> bool:
        """Whether it is an algorithm for such a key."""

    def weakens(self, key: PrivateKey) -> bool:
        """Whether it fits, and makes signatures that are weaker than the key."""
        return False

    @abstractmethod
    def sign(self, key: PrivateKey, octets: bytes) -> bytes:
        """The signature. The key fits."""

    @abstractmethod
    def verify(self, key: PublicKey, signature: bytes, octets: bytes) -> None:
        """Raises InvalidSignature. Also for a key that does not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EcdsaScheme(SignatureScheme):
    """RFC 7427 appendix A.3. `curves`: those that the hash is strong enough for."""

    curves: tuple[type[ec.EllipticCurve], ...]
    algorithm: ec.ECDSA = field(repr=False)

    def fits(self, key: PrivateKey | PublicKey) -> bool:
        return isinstance(key, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey))

    def weakens(self, key: PrivateKey) -> bool:
        return isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, self.curves)

    def sign(self, key: PrivateKey, octets: bytes) -> bytes:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key.sign(octets, self.algorithm)

    def verify(self, key: PublicKey, signature: bytes, octets: bytes) -> None:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        key.verify(signature, octets, self.algorithm)


@dataclass(frozen=True, slots=True, kw_only=True)
class PssScheme(SignatureScheme):
    """RFC 7427 appendix A.4: MGF1 with the same hash, and a salt as long as the hash."""

    algorithm: hashes.HashAlgorithm = field(repr=False)
    pss: padding.PSS = field(repr=False)

    def fits(self, key: PrivateKey | PublicKey) -> bool:
        return isinstance(key, (rsa.RSAPrivateKey, rsa.RSAPublicKey))

    def sign(self, key: PrivateKey, octets: bytes) -> bytes:
        assert isinstance(key, rsa.RSAPrivateKey)
        return key.sign(octets, self.pss, self.algorithm)

    def verify(self, key: PublicKey, signature: bytes, octets: bytes) -> None:
        if not isinstance(key, rsa.RSAPublicKey):
            raise InvalidSignature
        key.verify(signature, octets, self.pss, self.algorithm)


@dataclass(frozen=True, slots=True, kw_only=True)
class PureScheme(SignatureScheme):
    """An algorithm that takes the octets as they are (RFC 8420 section 2: the "identity" hash)."""

    keys: tuple[type[PrivateKey | PublicKey], ...] = field(repr=False)

    def fits(self, key: PrivateKey | PublicKey) -> bool:
        return isinstance(key, self.keys)

    def sign(self, key: PrivateKey, octets: bytes) -> bytes:
        assert isinstance(key, (ed25519.Ed25519PrivateKey, mldsa.MLDSA65PrivateKey))
        return key.sign(octets)

    def verify(self, key: PublicKey, signature: bytes, octets: bytes) -> None:
        if not isinstance(key, (ed25519.Ed25519PublicKey, mldsa.MLDSA65PublicKey)) or not self.fits(key):
            raise InvalidSignature
        key.verify(signature, octets)


def _pss(hash_id: HashAlgorithm, algorithm: hashes.HashAlgorithm, identifier: str) -> PssScheme:
    return PssScheme(
        name=f"RSASSA-PSS with {algorithm.name}",
        hash_id=hash_id,
        identifier=bytes.fromhex(identifier),
        algorithm=algorithm,
        pss=padding.PSS(mgf=padding.MGF1(algorithm), salt_length=algorithm.digest_size),
    )


def _ecdsa(
    hash_id: HashAlgorithm,
    algorithm: hashes.HashAlgorithm,
    identifier: str,
    *curves: type[ec.EllipticCurve],
) -> EcdsaScheme:
    return EcdsaScheme(
        name=f"ECDSA with {algorithm.name}",
        hash_id=hash_id,
        identifier=bytes.fromhex(identifier),
        curves=curves,
        algorithm=ec.ECDSA(algorithm),
    )


ECDSA_SHA256: Final = _ecdsa(HashAlgorithm.SHA2_256, hashes.SHA256(), "300a06082a8648ce3d040302", *CURVES[:1])
ECDSA_SHA384: Final = _ecdsa(HashAlgorithm.SHA2_384, hashes.SHA384(), "300a06082a8648ce3d040303", *CURVES[:2])
ECDSA_SHA512: Final = _ecdsa(HashAlgorithm.SHA2_512, hashes.SHA512(), "300a06082a8648ce3d040304", *CURVES)
PSS_SHA256: Final = _pss(
    HashAlgorithm.SHA2_256,
    hashes.SHA256(),
    "304106092a864886f70d01010a3034a00f300d06096086480165030402010500"
    "a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120",
)
PSS_SHA384: Final = _pss(
    HashAlgorithm.SHA2_384,
    hashes.SHA384(),
    "304106092a864886f70d01010a3034a00f300d06096086480165030402020500"
    "a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130",
)
PSS_SHA512: Final = _pss(
    HashAlgorithm.SHA2_512,
    hashes.SHA512(),
    "304106092a864886f70d01010a3034a00f300d06096086480165030402030500"
    "a11c301a06092a864886f70d010108300d06096086480165030402030500a203020140",
)
ED25519: Final = PureScheme(
    name="Ed25519",
    hash_id=HashAlgorithm.IDENTITY,
    identifier=bytes.fromhex("300506032b6570"),
    keys=(ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey),
)
ML_DSA_65: Final = PureScheme(
    name="ML-DSA-65",
    hash_id=HashAlgorithm.IDENTITY,
    identifier=bytes.fromhex("300b0609608648016503040312"),
    keys=(mldsa.MLDSA65PrivateKey, mldsa.MLDSA65PublicKey),
)

SCHEMES: Final[tuple[SignatureScheme, ...]] = (
    ECDSA_SHA256,
    ECDSA_SHA384,
    ECDSA_SHA512,
    PSS_SHA256,
    PSS_SHA384,
    PSS_SHA512,
    ED25519,
    ML_DSA_65,
)
"""In the order in which a key that fits several uses them, if its peer takes the hash."""

_BY_IDENTIFIER: Final = {scheme.identifier: scheme for scheme in SCHEMES}

_RFC_4754: Final[dict[int, tuple[EcdsaScheme, type[ec.EllipticCurve], int]]] = {
    AuthMethod.ECDSA_SHA256_P256: (ECDSA_SHA256, ec.SECP256R1, 32),
    AuthMethod.ECDSA_SHA384_P384: (ECDSA_SHA384, ec.SECP384R1, 48),
    AuthMethod.ECDSA_SHA512_P521: (ECDSA_SHA512, ec.SECP521R1, 66),
}
"""With the length of each of the two numbers that a signature is (RFC 4754 section 7)."""

HASH_ALGORITHMS: Final = b"".join(
    int(hash_id).to_bytes(2)
    for hash_id in (HashAlgorithm.SHA2_256, HashAlgorithm.SHA2_384, HashAlgorithm.SHA2_512, HashAlgorithm.IDENTITY)
)
"""The data of our SIGNATURE_HASH_ALGORITHMS notify (RFC 7427 section 4)."""


@lru_cache(16)  # there are few, and every IKE SA keeps its peer's
def parse_hash_algorithms(data: bytes) -> frozenset[int]:
    """The hash algorithms of a peer's SIGNATURE_HASH_ALGORITHMS notify; an odd byte at the end is ignored."""
    return frozenset(int.from_bytes(data[index : index + 2]) for index in range(0, len(data) - 1, 2))


def schemes_for(key: PrivateKey) -> tuple[SignatureScheme, ...]:
    """The schemes that a key of ours signs with, best first. Raises ValueError for a key that signs nothing here."""
    refusal = unfit(key)
    if refusal is not None:
        raise ValueError(refusal)
    return tuple(scheme for scheme in schemes_of(key) if not scheme.weakens(key))


def schemes_of(key: PrivateKey | PublicKey) -> tuple[SignatureScheme, ...]:
    """The schemes for such a key, in their order."""
    return tuple(scheme for scheme in SCHEMES if scheme.fits(key))


def can_sign(key: PrivateKey, schemes: tuple[SignatureScheme, ...], peer_hashes: frozenset[int]) -> bool:
    """Whether a peer takes what a key makes."""
    return any(scheme.hash_id in peer_hashes for scheme in schemes) or (
        not peer_hashes and _older_method(key) is not None
    )


def sign(
    key: PrivateKey, schemes: tuple[SignatureScheme, ...], octets: bytes, peer_hashes: frozenset[int]
) -> Authentication:
    """Our AUTH payload. Raises ExchangeRefused if the peer takes nothing that our key makes."""
    for scheme in schemes:
        if scheme.hash_id in peer_hashes:
            return Authentication(
                method=AuthMethod.DIGITAL_SIGNATURE,
                data=bytes((len(scheme.identifier),)) + scheme.identifier + scheme.sign(key, octets),
            )
    method = _older_method(key) if not peer_hashes else None
    if method is None:
        names = ", ".join(scheme.name for scheme in schemes)
        raise ExchangeRefused(NotifyType.AUTHENTICATION_FAILED, f"the peer does not take signatures by {names}")
    scheme, _, length = _RFC_4754[method]
    r, s = decode_dss_signature(scheme.sign(key, octets))
    return Authentication(method=method, data=r.to_bytes(length) + s.to_bytes(length))


def verify(key: PublicKey, schemes: tuple[SignatureScheme, ...], auth: Authentication, octets: bytes) -> None:
    """Raises ExchangeRefused (AUTHENTICATION_FAILED) unless `auth` signs `octets` by one of the key's schemes."""
    older = _RFC_4754.get(auth.method)
    if older is not None:
        scheme, curve, length = older
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, curve):
            raise _refusal("the signature algorithm does not fit the certificate's key")
        if len(auth.data) != 2 * length:
            raise _refusal("the signature is wrong")
        signature = encode_dss_signature(int.from_bytes(auth.data[:length]), int.from_bytes(auth.data[length:]))
    elif auth.method == AuthMethod.DIGITAL_SIGNATURE:
        end = 1 + auth.data[0]
        found = _BY_IDENTIFIER.get(auth.data[1:end])
        if found is None:
            raise _refusal("the signature algorithm is not supported")
        scheme, signature = found, auth.data[end:]
        if scheme not in schemes:
            raise _refusal("the signature algorithm does not fit the certificate's key")
    else:
        raise _refusal(f"authentication method {auth.method} is not supported")
    try:
        scheme.verify(key, signature, octets)
    except (InvalidSignature, ValueError):
        raise _refusal("the signature is wrong") from None


def unfit(key: object) -> str | None:
    """Why a key, of either kind, is none that we sign or verify with; looks at its parameters alone."""
    if isinstance(key, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)):
        return None if isinstance(key.curve, CURVES) else f"keys are on P-256, P-384 or P-521, not on {key.curve.name}"
    if isinstance(key, (rsa.RSAPrivateKey, rsa.RSAPublicKey)):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            return f"RSA keys have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, not {key.key_size}"
        public = key.public_key() if isinstance(key, rsa.RSAPrivateKey) else key
        if public.public_numbers().e.bit_length() > MAX_RSA_EXPONENT_BITS:
            return "the RSA key's exponent is too long"
        return None
    if isinstance(key, ED25519.keys + ML_DSA_65.keys):
        return None
    return f"keys of type {type(key).__name__} are not supported"


def certified_key(certificate: x509.Certificate) -> PublicKey:
    """A certificate's key, if it is one that we verify with. Raises ExchangeRefused before any arithmetic with it."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise _unfit("the certificate's key can't be read") from None
    refusal = unfit(key)
    if refusal is not None:
        raise _unfit(refusal)
    assert isinstance(key, PublicKey)
    return key


def _older_method(key: PrivateKey) -> int | None:
    """The method of RFC 4754 that a key has."""
    for method, (_, curve, _) in _RFC_4754.items():
        if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, curve):
            return method
    return None


def _refusal(message: str) -> ExchangeRefused:
    return ExchangeRefused(NotifyType.AUTHENTICATION_FAILED, message, reason=RefusalReason.SIGNATURE_INVALID)


def _unfit(message: str) -> ExchangeRefused:
    return ExchangeRefused(NotifyType.AUTHENTICATION_FAILED, message, reason=RefusalReason.CERTIFICATE_INVALID)
