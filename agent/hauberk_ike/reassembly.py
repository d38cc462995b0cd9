"""Collects the fragments of a message (RFC 7383 section 2.6), one message at a time and within bounds.

Whoever receives requests has one of these, and whoever receives answers another, so that the two do not displace each
other. What a `Reassembly` holds is authenticated, by a peer that need not be: hence the bounds.
"""

from typing import Final, NamedTuple

from hauberk_ike.errors import MalformedMessage
from hauberk_ike.protection import Protection, fragment_position
from hauberk_ike.wire.header import HEADER, Header
from hauberk_ike.wire.message import GENERIC

MAX_BYTES: Final = 32768
"""Of payloads in one message. A chain of certificates with ML-DSA-65 keys takes half of that."""

_START: Final = HEADER.size + GENERIC.size


class Reassembled(NamedTuple):
    """A whole message: the type of its first payload, the chain, and the two headers of its first fragment.

    The headers are what `protection.intermediate_octets` wants.
    """

    first: int
    chain: bytes
    headers: bytes


class Reassembly:
    """The fragments of the newest message that has come in part."""

    __slots__ = ("_first", "_headers", "_length", "_message_id", "_pieces", "_total")

    def __init__(self) -> None:
        self._pieces: dict[int, bytes] = {}
        self.clear()

    def clear(self) -> None:
        """Forgets what has come: the message has arrived otherwise, or is not wanted any more."""
        self._pieces = {}
        self._message_id = -1
        self._total = 0
        self._length = 0
        self._first = 0
        self._headers = b""

    def receive(self, protection: Protection, header: Header, data: bytes) -> Reassembled | None:
        """Takes a fragment; returns the message that is complete with it, and forgets it.

        Whether the message id is one that is expected now is the caller's to check, before. Raises MalformedMessage and
        IntegrityFailed for a fragment that is to be dropped; what has come before stays.
        """
        number, total = fragment_position(header, data)
        same = header.message_id == self._message_id
        # Before any decryption: what is here already, and what a smaller total makes useless. A larger total is a peer
        # that fragments anew with a smaller MTU, if it is authentic.
        if same and (total < self._total or (total == self._total and number in self._pieces)):
            return None
        fragment = protection.open_fragment(header, data)
        if not same or total > self._total:
            self.clear()
            self._message_id = header.message_id
            self._total = total
        if self._length + len(fragment.piece) > MAX_BYTES:
            self.clear()
            raise MalformedMessage(f"a message in fragments with more than {MAX_BYTES} bytes")
        self._length += len(fragment.piece)
        self._pieces[number] = fragment.piece
        if number == 1:
            self._first, self._headers = fragment.first, data[:_START]
        if len(self._pieces) < total:
            return None
        whole = Reassembled(self._first, b"".join(self._pieces[each] for each in range(1, total + 1)), self._headers)
        self.clear()
        return whole
