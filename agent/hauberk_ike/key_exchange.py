"""Key exchange methods: X25519 (RFC 8031) and the NIST curves (RFC 5903), with a key from the caller's entropy.

A method is a class here and a line in `hauberk_ike.algorithms.KEY_EXCHANGES`.
"""

from collections.abc import Callable
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from hauberk_ike.algorithms import KeyExchange
from hauberk_ike.errors import MalformedMessage
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
        # 64 bits more than the order's, so that the reduction is not biased (FIPS 186-5 appendix A.2.1).
        secret = int.from_bytes(entropy(curve.key_size // 8 + 8)) % (order - 1) + 1
        self._curve = curve
        self._private = ec.derive_private_key(secret, curve)
        numbers = self._private.public_key().public_numbers()
        size = curve.key_size // 8
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


def generate_key_pair(method: KeyExchange, entropy: Callable[[int], bytes]) -> KeyPair:
    """A fresh key pair for a method."""
    if method.transform_id == KeyExchangeId.CURVE25519:
        return X25519KeyPair(entropy)
    if method.transform_id == KeyExchangeId.ECP_256:
        return EcpKeyPair(ec.SECP256R1(), _P256_ORDER, entropy)
    if method.transform_id == KeyExchangeId.ECP_384:
        return EcpKeyPair(ec.SECP384R1(), _P384_ORDER, entropy)
    raise ValueError(f"no key exchange {method.word}")


def respond(method: KeyExchange, peer_public: bytes, entropy: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    """The responder's side, with a key of its own: what it answers, and the shared secret.

    Raises MalformedMessage for a public value that is no good.
    """
    key_pair = generate_key_pair(method, entropy)
    return key_pair.public, key_pair.shared(peer_public)


def check_public_value(method: KeyExchange, data: bytes) -> None:
    """For a responder, before it does any work: MalformedMessage unless `data` has exactly the method's length."""
    if len(data) != method.public_length:
        raise MalformedMessage(f"a public value for {method.word} that has not its length")
