"""charon's control socket (VICI), as far as the benchmark needs it: a request, and its answer.

The protocol is described in strongSwan's documentation (src/libcharon/plugins/vici/README.md): packets with a length of
four bytes in front; messages are trees of sections, lists and values.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from struct import Struct
from typing import Final

from benchmarks.ike.errors import BenchmarkError

_LENGTH: Final = Struct("!I")
_VALUE_LENGTH: Final = Struct("!H")

_REQUEST: Final = 0
_RESPONSE: Final = 1

_SECTION_START: Final = 1
_SECTION_END: Final = 2
_KEY_VALUE: Final = 3
_LIST_START: Final = 4
_LIST_ITEM: Final = 5
_LIST_END: Final = 6


class Vici:
    """A connection to charon's control socket."""

    def __init__(self, path: Path) -> None:
        """Raises OSError while charon does not listen there yet."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(30)
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def request(self, command: str, arguments: Mapping[str, str] | None = None) -> dict[str, str]:
        """The answer's values, those in sections as `section.key`; values in lists are left out.

        Raises BenchmarkError when charon does not know the command or says `success = no`.
        """
        packet = bytearray((_REQUEST, len(command)))
        packet += command.encode()
        for key, value in (arguments or {}).items():
            data = value.encode()
            packet += bytes((_KEY_VALUE, len(key))) + key.encode() + _VALUE_LENGTH.pack(len(data)) + data
        self._socket.sendall(_LENGTH.pack(len(packet)) + packet)
        (length,) = _LENGTH.unpack(self._receive(_LENGTH.size))
        answer = self._receive(length)
        if answer[0] != _RESPONSE:
            raise BenchmarkError(f"charon knows no VICI command {command!r}")
        values = _parse(answer[1:])
        if values.get("success") == "no":
            raise BenchmarkError(f"charon refuses {command!r}: {values.get('errmsg', 'no reason given')}")
        return values

    def _receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise BenchmarkError("charon has closed its control socket")
            data += more
        return bytes(data)


def _parse(message: bytes) -> dict[str, str]:
    values: dict[str, str] = {}
    path: list[str] = []
    offset = 0

    def take(size: int) -> bytes:
        nonlocal offset
        offset += size
        return message[offset - size : offset]

    def take_value() -> bytes:
        return take(*_VALUE_LENGTH.unpack(take(_VALUE_LENGTH.size)))

    while offset < len(message):
        (element,) = take(1)
        if element in (_SECTION_START, _LIST_START, _KEY_VALUE):
            name = take(take(1)[0]).decode()
            if element == _SECTION_START:
                path.append(name)
            elif element == _KEY_VALUE:
                values[".".join((*path, name))] = take_value().decode(errors="replace")
        elif element == _LIST_ITEM:
            take_value()
        elif element == _SECTION_END:
            path.pop()
        elif element != _LIST_END:
            raise BenchmarkError(f"an element of an unknown kind in charon's answer: {element}")
    return values
