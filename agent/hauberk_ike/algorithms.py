"""The algorithms that this implementation has, each under its word in strongSwan's spelling.

`hauberk_ike.proposals` reads and writes proposals with these tables, `hauberk_ike.negotiation` turns them into
transforms. What is deliberately absent (SHA-1, DES and 3DES, MODP below 2048 bits: RFC 8247) is in `REFUSED`, with
the reason that whoever asks for it is told. Each algorithm exists once, so they are compared by reference.
"""

from dataclasses import dataclass
from typing import Final

from hauberk_ike.numbers import EncryptionId, EsnId, IntegrityId, KeyExchangeId, PrfId


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Encryption:
    """A cipher, for IKE (RFC 7296, 5282, 7634) and ESP (RFC 3602, 4106, 4309, 7634) alike.

    Lengths are in bytes; the salt is the end of what the key derivation yields. `icv_length` is 0 for a cipher that
    needs an integrity algorithm beside it. `key_bits` is the Key Length attribute, which goes with AES alone.
    """

    word: str
    transform_id: int
    key_bits: int | None
    key_length: int
    salt_length: int
    iv_length: int
    icv_length: int
    kernel_name: str

    @property
    def keying_length(self) -> int:
        """Bytes of key material one direction needs, salt included."""
        return self.key_length + self.salt_length

    @property
    def is_aead(self) -> bool:
        """Whether it authenticates by itself."""
        return self.icv_length > 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Integrity:
    """HMAC with a truncated tag (RFC 4868), for ciphers that are no AEADs. Lengths are in bytes."""

    word: str
    transform_id: int
    hash_name: str
    key_length: int
    icv_length: int
    kernel_name: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prf:
    """A pseudorandom function (RFC 4868); `length` is its output and preferred key, in bytes."""

    word: str
    transform_id: int
    hash_name: str
    length: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeyExchange:
    """A key exchange method. What either side sends has an exact length, in bytes; anything else is refused.

    `answer_length` is the responder's: with a KEM the initiator sends an encapsulation key, the responder a ciphertext.
    """

    word: str
    transform_id: int
    public_length: int
    answer_length: int
    is_kem: bool = False


def _aes(bits: int, mode: str, transform_id: int, *, salt: int, iv: int, icv: int, kernel_name: str) -> Encryption:
    return Encryption(
        word=f"aes{bits}{mode}",
        transform_id=transform_id,
        key_bits=bits,
        key_length=bits // 8,
        salt_length=salt,
        iv_length=iv,
        icv_length=icv,
        kernel_name=kernel_name,
    )


def _gcm(bits: int) -> Encryption:
    return _aes(bits, "gcm16", EncryptionId.AES_GCM_16, salt=4, iv=8, icv=16, kernel_name="rfc4106(gcm(aes))")


def _ccm(bits: int) -> Encryption:
    return _aes(bits, "ccm16", EncryptionId.AES_CCM_16, salt=3, iv=8, icv=16, kernel_name="rfc4309(ccm(aes))")


def _cbc(bits: int) -> Encryption:
    return _aes(bits, "", EncryptionId.AES_CBC, salt=0, iv=16, icv=0, kernel_name="cbc(aes)")


AES128GCM16: Final = _gcm(128)
AES256GCM16: Final = _gcm(256)
CHACHA20POLY1305: Final = Encryption(
    word="chacha20poly1305",
    transform_id=EncryptionId.CHACHA20_POLY1305,
    key_bits=None,
    key_length=32,
    salt_length=4,
    iv_length=8,
    icv_length=16,
    kernel_name="rfc7539esp(chacha20,poly1305)",
)

ENCRYPTIONS: Final = {
    cipher.word: cipher
    for cipher in (
        AES128GCM16,
        _gcm(192),
        AES256GCM16,
        CHACHA20POLY1305,
        *map(_ccm, (128, 192, 256)),
        *map(_cbc, (128, 192, 256)),
    )
}


def _hmac(bits: int, transform_id: int) -> Integrity:
    return Integrity(
        word=f"sha{bits}",
        transform_id=transform_id,
        hash_name=f"sha{bits}",
        key_length=bits // 8,
        icv_length=bits // 16,
        kernel_name=f"hmac(sha{bits})",
    )


INTEGRITIES: Final = {
    integrity.word: integrity
    for integrity in (
        _hmac(256, IntegrityId.HMAC_SHA2_256_128),
        _hmac(384, IntegrityId.HMAC_SHA2_384_192),
        _hmac(512, IntegrityId.HMAC_SHA2_512_256),
    )
}


def _prf(bits: int, transform_id: int) -> Prf:
    return Prf(word=f"prfsha{bits}", transform_id=transform_id, hash_name=f"sha{bits}", length=bits // 8)


PRFS: Final = {
    prf.word: prf
    for prf in (
        _prf(256, PrfId.HMAC_SHA2_256),
        _prf(384, PrfId.HMAC_SHA2_384),
        _prf(512, PrfId.HMAC_SHA2_512),
    )
}

PRF_OF_INTEGRITY: Final = {integrity: PRFS[f"prf{integrity.word}"] for integrity in INTEGRITIES.values()}
"""The PRF that goes with an integrity algorithm where a proposal names none: that of the same hash."""


def _method(word: str, transform_id: int, length: int) -> KeyExchange:
    return KeyExchange(word=word, transform_id=transform_id, public_length=length, answer_length=length)


def _kem(word: str, transform_id: int, key_length: int, ciphertext_length: int) -> KeyExchange:
    return KeyExchange(
        word=word,
        transform_id=transform_id,
        public_length=key_length,
        answer_length=ciphertext_length,
        is_kem=True,
    )


KEY_EXCHANGES: Final = {
    method.word: method
    for method in (
        _method("x25519", KeyExchangeId.CURVE25519, 32),
        _method("ecp256", KeyExchangeId.ECP_256, 64),
        _method("ecp384", KeyExchangeId.ECP_384, 96),
        _method("ecp521", KeyExchangeId.ECP_521, 132),
        _method("modp2048", KeyExchangeId.MODP_2048, 256),
        _method("modp3072", KeyExchangeId.MODP_3072, 384),
        _method("modp4096", KeyExchangeId.MODP_4096, 512),
        _kem("mlkem768", KeyExchangeId.ML_KEM_768, 1184, 1088),
        _kem("mlkem1024", KeyExchangeId.ML_KEM_1024, 1568, 1568),
    )
}

NO_KEY_EXCHANGE: Final = _method("none", KeyExchangeId.NONE, 0)
"""Where a key exchange may be left out: PFS of a CHILD SA, and additional key exchanges (RFC 9370 section 2.2.1)."""

ESNS: Final = {"esn": EsnId.ESN, "noesn": EsnId.NO_ESN}

ALIASES: Final = {
    "aes": "aes128",
    "curve25519": "x25519",
    "modpnone": "none",
    **{
        f"aes{bits}{mode}{icv}": f"aes{bits}{mode}16"
        for bits in (128, 192, 256)
        for mode in ("gcm", "ccm")
        for icv in ("", "128")
    },
    **{f"sha2_{bits}": f"sha{bits}" for bits in (256, 384, 512)},
}
"""Other words of strongSwan's for what is here."""

_DES: Final = "DES in all its forms is too weak (RFC 8247 section 2.1)"
_SHA1: Final = "SHA-1 is on its way out (RFC 8247 sections 2.2 and 2.3)"
_MD5: Final = "MD5 is broken (RFC 8247 sections 2.2 and 2.3)"
_SMALL_MODP: Final = "MODP groups of less than 2048 bits are too weak (RFC 8247 section 2.4)"
_SUBGROUPS: Final = "groups with small subgroups are advised against (RFC 8247 section 2.4)"

REFUSED: Final = {
    "des": _DES,
    "3des": _DES,
    "null": "a cipher that encrypts nothing does not belong here",
    **dict.fromkeys(("sha", "sha1", "sha1_160", "prfsha1"), _SHA1),
    **dict.fromkeys(("md5", "md5_128", "prfmd5"), _MD5),
    **dict.fromkeys(("sha256_96", "sha2_256_96"), "its tag is truncated to less than RFC 4868 says"),
    **dict.fromkeys(("modp768", "modp1024", "modp1536"), _SMALL_MODP),
    **dict.fromkeys(("modp1024s160", "modp2048s224", "modp2048s256"), _SUBGROUPS),
    "mlkem512": "the cryptography library has ML-KEM-768 and ML-KEM-1024 alone",
}
"""Words that people may well write, and why they get nothing."""
