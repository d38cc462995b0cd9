"""Encrypted messages (RFC 7296 section 3.14, RFC 5282), whole or in fragments (RFC 7383 section 2.5).

    IKE header | generic header of SK | IV | ciphertext of (payloads | padding | pad length) | tag
    IKE header | generic header of SKF | number | total | IV | ciphertext of (piece | padding | pad length) | tag

All that is before the tag is authenticated. One `Protection` belongs to one side of one IKE SA. Who collects fragments
is `hauberk_ike.reassembly`.
"""

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final, NamedTuple

from hauberk_ike.errors import MalformedMessage
from hauberk_ike.keys import IkeKeys
from hauberk_ike.numbers import PayloadType
from hauberk_ike.payload_cipher import AeadCipher, CbcCipher, PayloadCipher
from hauberk_ike.proposals import IkeProposal
from hauberk_ike.wire.header import HEADER, VERSION, Header
from hauberk_ike.wire.message import GENERIC, KnownPayload, build_payloads

# number, counted from 1; total
FRAGMENT: Final = Struct("!HH")

MAX_FRAGMENTS: Final = 128
"""Of one message, both ways. 64 pieces of 512 bytes would hold more than any message that there is."""

_START: Final = HEADER.size + GENERIC.size
_FRAGMENT_START: Final = _START + FRAGMENT.size


class Fragment(NamedTuple):
    """One piece of a message's payloads, authenticated. In the first one, `first` is the first payload's type."""

    number: int
    total: int
    first: int
    piece: bytes


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

    def room(self, message_bytes: int) -> int:
        """How many bytes of payloads a message of so many bytes holds whole; negative if none."""
        return self._outbound.room(message_bytes - _START)

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
        return self._seal_whole(spi_i, spi_r, exchange_type, flags, message_id, *build_payloads(payloads))

    def _seal_whole(
        self, spi_i: bytes, spi_r: bytes, exchange_type: int, flags: int, message_id: int, first: int, chain: bytes
    ) -> bytes:
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

    def seal_fragments(
        self,
        *,
        spi_i: bytes,
        spi_r: bytes,
        exchange_type: int,
        flags: int,
        message_id: int,
        payloads: Sequence[KnownPayload],
        mtu: int,
    ) -> list[bytes]:
        """The message, encrypted, in as many fragments as it takes for none to be longer than `mtu` bytes.

        That is the length of a UDP datagram's data. A message that fits is sealed whole, and is the only one. Raises
        ValueError for an `mtu` that leaves no room, or one of which more than MAX_FRAGMENTS would be needed.
        """
        first, chain = build_payloads(payloads)
        outbound = self._outbound
        if _START + outbound.sealed_length(len(chain)) <= mtu:
            return [self._seal_whole(spi_i, spi_r, exchange_type, flags, message_id, first, chain)]
        room = outbound.room(mtu - _FRAGMENT_START)
        if room < 1 or len(chain) > room * MAX_FRAGMENTS:
            raise ValueError(f"{mtu} bytes are too few for fragments of a message with {len(chain)} of payloads")
        pieces = [chain[at : at + room] for at in range(0, len(chain), room)]
        fragments: list[bytes] = []
        for number, piece in enumerate(pieces, 1):
            payload_length = GENERIC.size + FRAGMENT.size + outbound.sealed_length(len(piece))
            start = b"".join(
                (
                    HEADER.pack(
                        spi_i,
                        spi_r,
                        PayloadType.SKF,
                        VERSION,
                        exchange_type,
                        flags,
                        message_id,
                        HEADER.size + payload_length,
                    ),
                    GENERIC.pack(first if number == 1 else PayloadType.NONE, 0, payload_length),
                    FRAGMENT.pack(number, len(pieces)),
                )
            )
            fragments.append(outbound.seal(start, piece))
        return fragments

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

    def open_fragment(self, header: Header, data: bytes) -> Fragment:
        """Raises MalformedMessage and IntegrityFailed, as `open` does."""
        number, total = fragment_position(header, data)
        return Fragment(number, total, data[HEADER.size], self._inbound.open(data, _FRAGMENT_START))


def fragment_position(header: Header, data: bytes) -> tuple[int, int]:
    """A fragment's number and the total, unauthenticated: to tell what need not be opened at all.

    Raises MalformedMessage for what is no fragment, or one that RFC 7383 section 2.6 says to discard.
    """
    if header.next_payload != PayloadType.SKF:
        raise MalformedMessage("not a fragment")
    if len(data) < _FRAGMENT_START:
        raise MalformedMessage("a fragment that is cut off")
    first, _, length = GENERIC.unpack_from(data, HEADER.size)
    number, total = FRAGMENT.unpack_from(data, _START)
    if length != len(data) - HEADER.size:
        raise MalformedMessage("a fragment that does not fill its message")
    if not 1 <= number <= total <= MAX_FRAGMENTS:
        raise MalformedMessage("a fragment whose number or total is out of range")
    if number > 1 and first != PayloadType.NONE:
        raise MalformedMessage("a fragment that is not the first and still names a payload")
    return number, total


def intermediate_octets(message: bytes, first: int, chain: bytes) -> bytes:
    """RFC 9242 section 3.3.2: what AUTH covers of an encrypted message, A | P, whoever sent it.

    A is the IKE header and the generic header of SK, with lengths as if `chain` (P) were in there unencrypted. Of a
    message in fragments `message` is the first one, and the octets are those of the whole, had it not been fragmented.
    Only its two headers are looked at.
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
