"""The Security Association payload: proposals of transforms (RFC 7296 section 3.3)."""

from dataclasses import dataclass, field
from functools import lru_cache
from struct import Struct
from typing import ClassVar, Final

from hauberk_ike.errors import MalformedMessage
from hauberk_ike.numbers import PayloadType

# 0 (last) or 2 (more), reserved, length (2), number, protocol, SPI size, number of transforms
PROPOSAL: Final = Struct("!BxHBBBB")
# 0 (last) or 3 (more), reserved, length (2), transform type, reserved, transform id (2)
TRANSFORM: Final = Struct("!BxHBxH")
# attribute type with the format bit (2), value or length (2)
ATTRIBUTE: Final = Struct("!HH")

ATTRIBUTE_IS_SHORT: Final = 0x8000
KEY_LENGTH: Final = 14

_SPI_SIZE: Final = 6
"""Where the first proposal says it."""
_REMEMBERED: Final = 64
_REMEMBERED_LENGTH: Final = 512

MAX_PROPOSALS: Final = 64
MAX_TRANSFORMS: Final = 255
"""Over all proposals of a payload."""
MAX_ATTRIBUTES_LENGTH: Final = 64
"""Of a transform. Its one attribute that is in use takes 4 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """One algorithm on offer. `unsupported`: it carries an attribute that we don't know, so it can't be chosen."""

    type: int
    id: int
    key_bits: int | None = None
    unsupported: bool = False

    @classmethod
    def parse(cls, transform_type: int, transform_id: int, attributes: bytes) -> "Transform":
        """Reads what follows a transform's fixed part. Raises MalformedMessage."""
        key_bits: int | None = None
        unsupported = False
        offset, end = 0, len(attributes)
        if end > MAX_ATTRIBUTES_LENGTH:
            raise MalformedMessage("a transform with too many attributes")
        while offset < end:
            if end - offset < ATTRIBUTE.size:
                raise MalformedMessage("a transform's attribute is cut off")
            kind, value = ATTRIBUTE.unpack_from(attributes, offset)
            offset += ATTRIBUTE.size
            if kind == ATTRIBUTE_IS_SHORT | KEY_LENGTH and key_bits is None:
                key_bits = value
                continue
            unsupported = True
            if not kind & ATTRIBUTE_IS_SHORT:
                if end - offset < value:
                    raise MalformedMessage("a transform's attribute is longer than the transform")
                offset += value
        return cls(type=transform_type, id=transform_id, key_bits=key_bits, unsupported=unsupported)

    def build(self, *, last: bool) -> bytes:
        """The transform substructure. Attributes that we don't know are not kept."""
        if self.key_bits is None:
            return TRANSFORM.pack(0 if last else 3, TRANSFORM.size, self.type, self.id)
        return TRANSFORM.pack(0 if last else 3, TRANSFORM.size + ATTRIBUTE.size, self.type, self.id) + ATTRIBUTE.pack(
            ATTRIBUTE_IS_SHORT | KEY_LENGTH, self.key_bits
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One alternative: a protocol, its SPI (empty, 4 or 8 bytes) and transforms to choose from."""

    number: int
    protocol: int
    spi: bytes
    transforms: tuple[Transform, ...]

    @classmethod
    def parse(cls, number: int, protocol: int, spi_size: int, count: int, rest: bytes) -> "Proposal":
        """Reads what follows a proposal's fixed part. Raises MalformedMessage."""
        end = len(rest)
        if spi_size > end:
            raise MalformedMessage("a proposal's SPI is cut off")
        transforms: list[Transform] = []
        offset = spi_size
        while offset < end:
            if end - offset < TRANSFORM.size:
                raise MalformedMessage("a transform is cut off")
            more, length, transform_type, transform_id = TRANSFORM.unpack_from(rest, offset)
            if length < TRANSFORM.size or length > end - offset:
                raise MalformedMessage("a transform's length does not fit its proposal")
            if more != (3 if offset + length < end else 0):
                raise MalformedMessage("a transform's last-substructure field is wrong")
            transforms.append(
                Transform.parse(transform_type, transform_id, rest[offset + TRANSFORM.size : offset + length])
            )
            offset += length
        if len(transforms) != count:
            raise MalformedMessage("a proposal has another number of transforms than it says")
        return cls(number=number, protocol=protocol, spi=rest[:spi_size], transforms=tuple(transforms))

    def build(self, *, last: bool) -> bytes:
        """The proposal substructure."""
        final = len(self.transforms) - 1
        parts = [transform.build(last=index == final) for index, transform in enumerate(self.transforms)]
        length = PROPOSAL.size + len(self.spi) + sum(map(len, parts))
        return b"".join(
            (
                PROPOSAL.pack(
                    0 if last else 2, length, self.number, self.protocol, len(self.spi), len(self.transforms)
                ),
                self.spi,
                *parts,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityAssociation:
    """RFC 7296 section 3.3: what is proposed, or the one proposal that was chosen."""

    TYPE: ClassVar = PayloadType.SA
    proposals: tuple[Proposal, ...]
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # What is remembered of an association is looked up several times, and hashing it is a call for each transform.
        object.__setattr__(self, "_hash", hash(self.proposals))

    def __hash__(self) -> int:
        return self._hash

    @classmethod
    def parse(cls, body: bytes) -> "SecurityAssociation":
        """Raises MalformedMessage, also for proposals that are not numbered one after the other."""
        if PROPOSAL.size <= len(body) <= _REMEMBERED_LENGTH and not body[_SPI_SIZE]:
            return _parse_without_spi(body)
        return cls._parse(body)

    @classmethod
    def _parse(cls, body: bytes) -> "SecurityAssociation":
        proposals: list[Proposal] = []
        transforms = 0
        offset, end = 0, len(body)
        while offset < end:
            if end - offset < PROPOSAL.size:
                raise MalformedMessage("a proposal is cut off")
            more, length, number, protocol, spi_size, count = PROPOSAL.unpack_from(body, offset)
            if length < PROPOSAL.size or length > end - offset:
                raise MalformedMessage("a proposal's length does not fit its payload")
            if more != (2 if offset + length < end else 0):
                raise MalformedMessage("a proposal's last-substructure field is wrong")
            transforms += count
            if transforms > MAX_TRANSFORMS or len(proposals) == MAX_PROPOSALS:
                raise MalformedMessage("too many proposals or transforms")
            if proposals and number != proposals[-1].number + 1:
                raise MalformedMessage("proposals are not numbered one after the other")
            proposals.append(
                Proposal.parse(number, protocol, spi_size, count, body[offset + PROPOSAL.size : offset + length])
            )
            offset += length
        if not proposals:
            raise MalformedMessage("a security association payload without proposals")
        return cls(proposals=tuple(proposals))

    def build(self) -> bytes:
        """The payload's body."""
        if not self.proposals[0].spi:
            return _build_without_spi(self)
        return self._build()

    def _build(self) -> bytes:
        final = len(self.proposals) - 1
        return b"".join(proposal.build(last=index == final) for index, proposal in enumerate(self.proposals))


# In IKE_SA_INIT a mesh says the same all over.


@lru_cache(_REMEMBERED)
def _parse_without_spi(body: bytes) -> SecurityAssociation:
    return SecurityAssociation._parse(body)  # pyright: ignore[reportPrivateUsage]


@lru_cache(_REMEMBERED)
def _build_without_spi(association: SecurityAssociation) -> bytes:
    return association._build()  # pyright: ignore[reportPrivateUsage]
