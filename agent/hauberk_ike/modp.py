"""MODP Diffie-Hellman (RFC 3526) of 2048, 3072 and 4096 bits, for peers that have nothing better.

Public values and the secret are as long as the prime, with leading zeros (RFC 7296 sections 2.14 and 3.4).

The library means to drop this some day, and warns whoever imports it. As long as it is there it computes in constant
time what `pow` takes nine times as long for.
"""

import warnings
from collections.abc import Callable
from typing import Final

from cryptography.utils import CryptographyDeprecationWarning

from hauberk_ike.errors import MalformedMessage

with warnings.catch_warnings(category=CryptographyDeprecationWarning, action="ignore"):
    from cryptography.hazmat.primitives.asymmetric.dh import (
        DHParameterNumbers,
        DHPrivateKey,
        DHPrivateNumbers,
        DHPublicKey,
        DHPublicNumbers,
    )

GENERATOR: Final = 2

# The three primes begin with the same bits of pi. Sections 3, 4 and 5 of RFC 3526.
_PI: Final = (
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD"
    "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F"
    "83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B"
    "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510"
)
_PI_3072: Final = (
    "15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7"
    "ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C"
    "BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E"
)
_PI_4096: Final = (
    "4B82D120A92108011A723C12A787E6D788719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8"
    "DBBBC2DB04DE8EF92E8EFC141FBECAA6287C59474E6BC05D99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AF"
    "B81BDD762170481CD0069127D5B05AA993B4EA988D8FDDC186FFB7DC90A6C08F4DF435C9"
)


class ModpGroup:
    """A prime, and how long our exponents are: at least as strong as the group (RFC 3526 section 8)."""

    __slots__ = ("_generator", "_numbers", "exponent_size", "prime", "size")

    def __init__(self, prime: str, exponent_bits: int) -> None:
        self.prime: Final = int(prime, 16)
        self.size: Final = len(prime) // 2
        self.exponent_size: Final = exponent_bits // 8
        self._numbers = DHParameterNumbers(self.prime, GENERATOR)
        self._generator = self.public_key(GENERATOR)

    def public_key(self, value: int) -> DHPublicKey:
        """A public value that has been checked."""
        return DHPublicNumbers(value, self._numbers).public_key()

    def key_pair(self, secret: int) -> tuple[DHPrivateKey, bytes]:
        """The key for an exponent, and its public value.

        The library wants that value before it takes a key, and does not look at it. So the key is made with another,
        and exchanged with the generator: that is g^x, in constant time.
        """
        private = DHPrivateNumbers(secret, DHPublicNumbers(GENERATOR, self._numbers)).private_key()
        return private, private.exchange(self._generator)


MODP_2048: Final = ModpGroup(_PI + "15728E5A8AACAA68FFFFFFFFFFFFFFFF", 320)
MODP_3072: Final = ModpGroup(_PI + _PI_3072 + "4B82D120A93AD2CAFFFFFFFFFFFFFFFF", 424)
MODP_4096: Final = ModpGroup(_PI + _PI_3072 + _PI_4096 + "34063199FFFFFFFFFFFFFFFF", 480)


class ModpKeyPair:
    """One side's ephemeral key."""

    __slots__ = ("_group", "_private", "public")

    def __init__(self, group: ModpGroup, secret: int) -> None:
        self._group = group
        self._private, self.public = group.key_pair(secret)

    @classmethod
    def generate(cls, group: ModpGroup, entropy: Callable[[int], bytes]) -> "ModpKeyPair":
        return cls(group, int.from_bytes(entropy(group.exponent_size)) + 1)

    def shared(self, peer_public: bytes) -> bytes:
        """Raises MalformedMessage for a public value of another length, or not from 2 to p - 2.

        That is all there is to check where p is a safe prime (RFC 6989 section 2.1): the only small subgroup is that of
        1 and p - 1.
        """
        value = int.from_bytes(peer_public)
        if len(peer_public) != self._group.size or not 1 < value < self._group.prime - 1:
            raise MalformedMessage("a MODP public value that is no good")
        return self._private.exchange(self._group.public_key(value))
