"""Netlink attributes, `struct nlattr`: a length, a type, a value, and padding to four bytes. Used by all that packs or
reads messages."""

from collections.abc import Iterator
from struct import Struct

# struct nlattr: length, this header included, and type, whose two upper bits are flags
_HEADER = Struct("=HH")
_TYPE_MASK = 0x3FFF


class Malformed(ValueError):  # noqa: N818
    """Bytes that no kernel would send: a message that ends within a field."""


def build_attribute(kind: int, value: bytes) -> bytes:
    """One attribute with its padding."""
    return _HEADER.pack(_HEADER.size + len(value), kind) + value + b"\0" * (-len(value) & 3)


def parse_attributes(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """The attributes (type, value) from `offset` to the end of `data`. Raises Malformed."""
    end = len(data)
    while end - offset >= _HEADER.size:
        length, kind = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > end:
            raise Malformed(f"a netlink attribute of {length} bytes where {end - offset} are left")
        yield kind & _TYPE_MASK, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3
