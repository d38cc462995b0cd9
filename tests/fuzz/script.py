"""Bytes from a fuzzer, read as a script: all bytes are one, and a small change of them is a small change of it.

Also written here, so that seeds can be made from messages of our own.
"""

from __future__ import annotations


class Script:
    """Reads bytes to their end; beyond it there are zeros, and `is_over` is true."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    @property
    def is_over(self) -> bool:
        return self._offset >= len(self._data)

    def number(self, below: int = 256) -> int:
        """One byte, as a number below `below` (256 at most)."""
        if self.is_over:
            return 0
        self._offset += 1
        return self._data[self._offset - 1] % below

    def text(self) -> bytes:
        """Bytes with their length, two bytes, in front; as many as there are."""
        length = self.number() << 8 | self.number()
        taken = self._data[self._offset : self._offset + length]
        self._offset += len(taken)
        return taken


class Writer:
    """Makes what `Script` reads."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def number(self, number: int) -> Writer:
        self._parts.append(bytes((number,)))
        return self

    def text(self, text: bytes) -> Writer:
        self._parts.append(len(text).to_bytes(2) + text)
        return self

    def done(self) -> bytes:
        return b"".join(self._parts)
