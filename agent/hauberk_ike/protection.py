"""Encrypted messages (RFC 7296 section 3.14, RFC 5282).

    IKE header | generic header of SK | IV | ciphertext of (payloads | padding | pad length) | tag

All that is before the tag is authenticated. One `Protection` belongs to one side of one IKE SA.
"""

from collections.abc import Callable, Sequence
from typing import Final

from hauberk_ike.errors import MalformedMessage
from hauberk_ike.keys import IkeKeys
from hauberk_ike.numbers import PayloadType
from hauberk_ike.payload_cipher import AeadCipher, CbcCipher, PayloadCipher
from hauberk_ike.proposals import IkeProposal
from hauberk_ike.wire.header import HEADER, VERSION, Header
from hauberk_ike.wire.message import GENERIC, KnownPayload, build_payloads

_START: Final = HEADER.size + GENERIC.size


class Protection:
    """Seals what we send and opens what we receive."""

    __slots__ = ("_inbound", "_outbound")

    def __init__(
        self, proposal: IkeProposal, keys: IkeKeys, *, initiator: bool, entropy: Callable[[int], bytes]
    ) -> None:
        """initiator: whether we are the IKE SA's. entropy: for the IVs of ciphers whose IV must be unpredictable."""
        from_initiator = _cipher(proposal, keys.sk_ei, keys.sk_ai, entropy)
        from_responder = _cipher(proposal, keys.sk_er, keys.sk_ar, entropy)
        self._outbound, self._inbound = (
            (from_initiator, from_responder) if initiator else (from_responder, from_initiator)
        )

    def seal(
        self,
        *,
        spi_i: bytes,
        spi_r: bytes,
        exchange_type: int,
        flags: int,
        message_id: int,
        payloads: Sequence[KnownPayload],
    ) -> bytes:
        """The whole message, encrypted."""
        first, chain = build_payloads(payloads)
        payload_length = GENERIC.size + self._outbound.sealed_length(len(chain))
        start = HEADER.pack(
            spi_i,
            spi_r,
            PayloadType.SK,
            VERSION,
            exchange_type,
            flags,
            message_id,
            HEADER.size + payload_length,
        ) + GENERIC.pack(first, 0, payload_length)
        return self._outbound.seal(start, chain)

    def open(self, header: Header, data: bytes) -> tuple[int, bytes]:
        """The type of the first payload inside, and the chain.

        Raises MalformedMessage if `data` is not one Encrypted payload, IntegrityFailed if it does not verify. Nothing
        inside is interpreted before it verified.
        """
        if header.next_payload != PayloadType.SK:
            raise MalformedMessage("not an encrypted message")
        if len(data) < _START:
            raise MalformedMessage("an encrypted message that is cut off")
        first, _, length = GENERIC.unpack_from(data, HEADER.size)
        if length != len(data) - HEADER.size:
            raise MalformedMessage("an encrypted payload that does not fill its message")
        return first, self._inbound.open(data, _START)


def intermediate_octets(message: bytes, first: int, chain: bytes) -> bytes:
    """RFC 9242 section 3.3.2: what AUTH covers of an encrypted message, A | P, whoever sent it.

    A is the IKE header and the generic header of SK, with lengths as if `chain` (P) were in there unencrypted. Of a
    message in fragments `message` is the first one, and the octets are those of the whole, had it not been fragmented.
    """
    return b"".join(
        (
            message[:16],
            bytes((PayloadType.SK,)),
            message[17:24],
            (_START + len(chain)).to_bytes(4),
            GENERIC.pack(first, message[HEADER.size + 1], GENERIC.size + len(chain)),
            chain,
        )
    )


def _cipher(proposal: IkeProposal, key: bytes, integrity_key: bytes, entropy: Callable[[int], bytes]) -> PayloadCipher:
    if proposal.integrity:
        return CbcCipher(proposal.integrity[0], key, integrity_key, entropy)
    return AeadCipher(proposal.encryption[0], key)
