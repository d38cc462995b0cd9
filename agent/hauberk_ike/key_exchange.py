"""Key exchange methods: X25519 (RFC 8031) and the NIST curves (RFC 5903) here, MODP and ML-KEM in `modp` and `ml_kem`.

Keys come out of the caller's entropy, and serve once. A method is a line here and one in
`hauberk_ike.algorithms.KEY_EXCHANGES`.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from hauberk_ike.algorithms import KeyExchange
from hauberk_ike.errors import MalformedMessage
from hauberk_ike.ml_kem import MlKemKeyPair, encapsulate
from hauberk_ike.modp import MODP_2048, MODP_3072, MODP_4096, ModpKeyPair
from hauberk_ike.numbers import KeyExchangeId


class KeyPair(Protocol):
    """One side's ephemeral key."""

    public: bytes

    def shared(self, peer_public: bytes) -> bytes:
        """The shared secret. Raises MalformedMessage for a public value that is no good."""
        ...


class X25519KeyPair:
    """RFC 8031: 32 bytes, little endian, as they come out of the function."""

    __slots__ = ("_private", "public")

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._private = X25519PrivateKey.from_private_bytes(entropy(32))
        self.public = self._private.public_key().public_bytes_raw()

    def shared(self, peer_public: bytes) -> bytes:
        """Raises MalformedMessage for points of small order too (RFC 7748 section 6.1: the all-zero check)."""
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(peer_public))
        except ValueError:
            raise MalformedMessage("an X25519 public value that is no good") from None


class EcpKeyPair:
    """RFC 5903: public values are x and y, each padded to the field's size; the secret is x."""

    __slots__ = ("_curve", "_private", "public")

    def __init__(self, curve: ec.EllipticCurve, order: int, entropy: Callable[[int], bytes]) -> None:
        size = (curve.key_size + 7) // 8
        # 64 bits more than the order's, so that the reduction is not biased (FIPS 186-5 appendix A.2.1).
        secret = int.from_bytes(entropy(size + 8)) % (order - 1) + 1
        self._curve = curve
        self._private = ec.derive_private_key(secret, curve)
        numbers = self._private.public_key().public_numbers()
        self.public = numbers.x.to_bytes(size) + numbers.y.to_bytes(size)

    def shared(self, peer_public: bytes) -> bytes:
        """Raises MalformedMessage for a point that is not on the curve."""
        try:
            peer = ec.EllipticCurvePublicKey.from_encoded_point(self._curve, b"\x04" + peer_public)
            return self._private.exchange(ec.ECDH(), peer)
        except ValueError:
            raise MalformedMessage("a public value that is not on the curve") from None


# Orders of the groups (FIPS 186-4 appendix D.1.2; SP 800-186 section 3.2.1).
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_P384_ORDER: Final = int(
    "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16
)
_P521_ORDER: Final = int(
    "01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA"
    "51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409",
    16,
)

_KEY_PAIRS: Final[dict[int, Callable[[Callable[[int], bytes]], KeyPair]]] = {
    KeyExchangeId.CURVE25519: X25519KeyPair,
    KeyExchangeId.ECP_256: partial(EcpKeyPair, ec.SECP256R1(), _P256_ORDER),
    KeyExchangeId.ECP_384: partial(EcpKeyPair, ec.SECP384R1(), _P384_ORDER),
    KeyExchangeId.ECP_521: partial(EcpKeyPair, ec.SECP521R1(), _P521_ORDER),
    KeyExchangeId.MODP_2048: partial(ModpKeyPair.generate, MODP_2048),
    KeyExchangeId.MODP_3072: partial(ModpKeyPair.generate, MODP_3072),
    KeyExchangeId.MODP_4096: partial(ModpKeyPair.generate, MODP_4096),
    KeyExchangeId.ML_KEM_768: partial(MlKemKeyPair, KeyExchangeId.ML_KEM_768),
    KeyExchangeId.ML_KEM_1024: partial(MlKemKeyPair, KeyExchangeId.ML_KEM_1024),
}


def generate_key_pair(method: KeyExchange, entropy: Callable[[int], bytes]) -> KeyPair:
    """A fresh key pair for a method: the initiator's side."""
    return _KEY_PAIRS[method.transform_id](entropy)


def respond(method: KeyExchange, peer_public: bytes, entropy: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    """The responder's side: what it answers, and the shared secret. Raises MalformedMessage for a bad public value."""
    if method.is_kem:
        return encapsulate(method.transform_id, peer_public)
    key_pair = generate_key_pair(method, entropy)
    return key_pair.public, key_pair.shared(peer_public)


def check_public_value(method: KeyExchange, data: bytes) -> None:
    """For a responder, before it does any work: MalformedMessage unless `data` has exactly the method's length."""
    if len(data) != method.public_length:
        raise MalformedMessage(f"a public value for {method.word} that has not its length")
