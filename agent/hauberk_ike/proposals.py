"""Proposals as people write them: `aes128gcm16-prfsha256-x25519`, strongSwan's spelling, and as what they mean.

Configuration and status use the text; `hauberk_ike.negotiation` turns proposals into transforms and back. A new
algorithm is a line in one of the tables here.
"""

from dataclasses import dataclass
from typing import TypeVar

from hauberk_ike.errors import ProposalError
from hauberk_ike.numbers import EncryptionId, EsnId, KeyExchangeId, PrfId


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """An AEAD cipher, for IKE (RFC 5282) and ESP (RFC 4106) alike.

    `key_length` and `salt_length` are in bytes; the salt is the end of what the key derivation yields.
    """

    word: str
    transform_id: int
    key_length: int
    salt_length: int
    iv_length: int
    icv_length: int
    kernel_name: str

    @property
    def keying_length(self) -> int:
        """Bytes of key material one direction needs, salt included."""
        return self.key_length + self.salt_length


@dataclass(frozen=True, slots=True, kw_only=True)
class Prf:
    """A pseudorandom function (RFC 4868); `length` is its output and preferred key, in bytes."""

    word: str
    transform_id: int
    hash_name: str
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyExchange:
    """A key exchange method; `public_length` is exact, in bytes, and anything else is refused."""

    word: str
    transform_id: int
    public_length: int


def _aes_gcm(bits: int) -> Encryption:
    return Encryption(
        word=f"aes{bits}gcm16",
        transform_id=EncryptionId.AES_GCM_16,
        key_length=bits // 8,
        salt_length=4,
        iv_length=8,
        icv_length=16,
        kernel_name="rfc4106(gcm(aes))",
    )


AES128GCM16 = _aes_gcm(128)
AES256GCM16 = _aes_gcm(256)
ENCRYPTIONS = {cipher.word: cipher for cipher in (AES128GCM16, AES256GCM16)}

PRFS = {
    prf.word: prf
    for prf in (
        Prf(word="prfsha256", transform_id=PrfId.HMAC_SHA2_256, hash_name="sha256", length=32),
        Prf(word="prfsha384", transform_id=PrfId.HMAC_SHA2_384, hash_name="sha384", length=48),
        Prf(word="prfsha512", transform_id=PrfId.HMAC_SHA2_512, hash_name="sha512", length=64),
    )
}

KEY_EXCHANGES = {
    method.word: method
    for method in (
        KeyExchange(word="x25519", transform_id=KeyExchangeId.CURVE25519, public_length=32),
        KeyExchange(word="ecp256", transform_id=KeyExchangeId.ECP_256, public_length=64),
        KeyExchange(word="ecp384", transform_id=KeyExchangeId.ECP_384, public_length=96),
    )
}

ESNS = {"esn": EsnId.ESN, "noesn": EsnId.NO_ESN}

_Value = TypeVar("_Value")


def _take(words: list[str], table: dict[str, _Value]) -> tuple[_Value, ...]:
    """The values of those of `words` that `table` knows, in order; they are removed from `words`."""
    found = tuple(dict.fromkeys(table[word] for word in words if word in table))
    words[:] = [word for word in words if word not in table]
    return found


def _refuse_leftovers(text: str, words: list[str], known: list[str]) -> None:
    if words:
        raise ProposalError(f"{text!r}: {words[0]!r} is not supported here; known words are {', '.join(known)}")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class IkeProposal:
    """What may protect an IKE SA: any one of each kind, the first preferred. A negotiated one has one of each."""

    encryption: tuple[Encryption, ...]
    prf: tuple[Prf, ...]
    key_exchange: tuple[KeyExchange, ...]

    @classmethod
    def parse(cls, text: str) -> "IkeProposal":
        """Reads strongSwan's spelling, e.g. `aes256gcm16-prfsha384-x25519`. Raises ProposalError."""
        words = text.strip().lower().split("-")
        encryption, prf = _take(words, ENCRYPTIONS), _take(words, PRFS)
        key_exchange = _take(words, KEY_EXCHANGES)
        _refuse_leftovers(text, words, [*ENCRYPTIONS, *PRFS, *KEY_EXCHANGES])
        for found, kind, table in (
            (encryption, "an encryption algorithm", ENCRYPTIONS),
            (prf, "a pseudorandom function", PRFS),
            (key_exchange, "a key exchange method", KEY_EXCHANGES),
        ):
            if not found:
                raise ProposalError(f"{text!r} lacks {kind} ({', '.join(table)})")
        return cls(encryption=encryption, prf=prf, key_exchange=key_exchange)

    def __str__(self) -> str:
        return "-".join(item.word for item in (*self.encryption, *self.prf, *self.key_exchange))

    def __repr__(self) -> str:
        return f"IkeProposal.parse({str(self)!r})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EspProposal:
    """What may protect a CHILD SA. `esn` holds the choices of 64-bit sequence numbers, the first preferred."""

    encryption: tuple[Encryption, ...]
    esn: tuple[EsnId, ...] = (EsnId.NO_ESN,)

    @classmethod
    def parse(cls, text: str) -> "EspProposal":
        """Reads strongSwan's spelling, e.g. `aes128gcm16-esn`; without `esn` it is `noesn`. Raises ProposalError."""
        words = text.strip().lower().split("-")
        encryption, esn = _take(words, ENCRYPTIONS), _take(words, ESNS)
        _refuse_leftovers(text, words, [*ENCRYPTIONS, *ESNS])
        if not encryption:
            raise ProposalError(f"{text!r} lacks an encryption algorithm ({', '.join(ENCRYPTIONS)})")
        return cls(encryption=encryption, esn=esn or (EsnId.NO_ESN,))

    def __str__(self) -> str:
        words = [cipher.word for cipher in self.encryption]
        if self.esn != (EsnId.NO_ESN,):
            words += ["esn" if esn is EsnId.ESN else "noesn" for esn in self.esn]
        return "-".join(words)

    def __repr__(self) -> str:
        return f"EspProposal.parse({str(self)!r})"
