"""ML-KEM (FIPS 203) as a key exchange (draft-ietf-ipsecme-ikev2-mlkem): the initiator sends an encapsulation key, the
responder a ciphertext.

A key comes out of the caller's entropy; the 32 bytes of randomness that an encapsulation takes are the library's own.
"""

from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric import mlkem

from hauberk_ike.errors import MalformedMessage
from hauberk_ike.numbers import KeyExchangeId

SEED_LENGTH: Final = 64
"""d | z (FIPS 203 section 7.1)."""

_PRIVATE: Final[dict[int, type[mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey]]] = {
    KeyExchangeId.ML_KEM_768: mlkem.MLKEM768PrivateKey,
    KeyExchangeId.ML_KEM_1024: mlkem.MLKEM1024PrivateKey,
}
_PUBLIC: Final[dict[int, type[mlkem.MLKEM768PublicKey | mlkem.MLKEM1024PublicKey]]] = {
    KeyExchangeId.ML_KEM_768: mlkem.MLKEM768PublicKey,
    KeyExchangeId.ML_KEM_1024: mlkem.MLKEM1024PublicKey,
}


class MlKemKeyPair:
    """The initiator's ephemeral key."""

    __slots__ = ("_private", "public")

    def __init__(self, transform_id: int, entropy: Callable[[int], bytes]) -> None:
        self._private = _PRIVATE[transform_id].from_seed_bytes(entropy(SEED_LENGTH))
        self.public = self._private.public_key().public_bytes_raw()

    def shared(self, peer_public: bytes) -> bytes:
        """The secret in the responder's ciphertext. Raises MalformedMessage for another length.

        A ciphertext that was tampered with gives a secret that nobody else has (FIPS 203 section 6.3): it is the next
        message that fails.
        """
        try:
            return self._private.decapsulate(peer_public)
        except ValueError:
            raise MalformedMessage("an ML-KEM ciphertext that has not its length") from None


def encapsulate(transform_id: int, peer_public: bytes) -> tuple[bytes, bytes]:
    """The responder's ciphertext, and the secret in it.

    Raises MalformedMessage for an encapsulation key of another length, or one that fails the modulus check of FIPS 203
    section 7.2.
    """
    try:
        secret, ciphertext = _PUBLIC[transform_id].from_public_bytes(peer_public).encapsulate()
    except ValueError:
        raise MalformedMessage("an ML-KEM encapsulation key that is no good") from None
    return ciphertext, secret
