"""An opt-in log of IKE SAs' keys, in the format of Wireshark's IKEv2 decryption table.

Whoever has such a line reads, and can forge, every message of its IKE SA, and computes the keys of CHILD SAs without
a key exchange of their own. It is for debugging against other daemons, never for a mesh: the agent has no way to turn
it on. The owner of an endpoint gives it a callable that takes lines; `hauberk-ike --key-log` is one.

The columns are the initiator's and the responder's SPI, SK_ei, SK_er, the encryption algorithm, SK_ai, SK_ar and the
integrity algorithm: values in hexadecimal, names as Wireshark 4 spells them (its packet-isakmp.c; seen in version
4.0.17). A cipher that it has no name for would make it refuse the whole file, so that such a line is a comment to it.
"""

from typing import Final

from hauberk_ike.keys import IkeKeys
from hauberk_ike.proposals import IkeProposal

COMMENT: Final = "#"

ENCRYPTIONS: Final = {
    **{f"aes{bits}": f"AES-CBC-{bits} [RFC3602]" for bits in (128, 192, 256)},
    **{f"aes{bits}gcm16": f"AES-GCM-{bits} with 16 octet ICV [RFC5282]" for bits in (128, 192, 256)},
    **{f"aes{bits}ccm16": f"AES-CCM-{bits} with 16 octet ICV [RFC5282]" for bits in (128, 192, 256)},
    "chacha20poly1305": "ChaCha20-Poly1305 [RFC7634]",
}
"""By our words; the last is a name of our own."""
INTEGRITIES: Final = {
    "": "NONE [RFC4306]",
    "sha256": "HMAC_SHA2_256_128 [RFC4868]",
    "sha384": "HMAC_SHA2_384_192 [RFC4868]",
    "sha512": "HMAC_SHA2_512_256 [RFC4868]",
}
"""By our words; the empty one is an AEAD's."""
_UNKNOWN_TO_WIRESHARK: Final = frozenset({"chacha20poly1305"})


def build_line(proposal: IkeProposal, keys: IkeKeys, *, spi_i: bytes, spi_r: bytes) -> str:
    """The line of an IKE SA whose keys have come about or changed, without a newline."""
    cipher = proposal.encryption[0].word
    integrity = proposal.integrity[0].word if proposal.integrity else ""
    columns = (
        *(value.hex() for value in (spi_i, spi_r, keys.sk_ei, keys.sk_er)),
        f'"{ENCRYPTIONS[cipher]}"',
        *(value.hex() for value in (keys.sk_ai, keys.sk_ar)),
        f'"{INTEGRITIES[integrity]}"',
    )
    return (COMMENT if cipher in _UNKNOWN_TO_WIRESHARK else "") + ",".join(columns)
