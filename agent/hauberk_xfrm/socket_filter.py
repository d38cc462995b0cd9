"""Which of what comes to a socket the kernel keeps for it: programs in classic BPF.

Instructions as in Documentation/networking/filter.rst.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Collection
from struct import Struct
from typing import Final

# struct sock_filter: code, where to jump if true and if false, k
_INSTRUCTION: Final = Struct("=HBBI")
# struct sock_fprog: number of instructions, pointer to them
_PROGRAM: Final = Struct("@HP")
_SO_ATTACH_FILTER: Final = 26

LOAD_WORD: Final = 0x20
LOAD_HALF: Final = 0x28
AND: Final = 0x54
JUMP: Final = 0x05
JUMP_IF_EQUAL: Final = 0x15
RETURN: Final = 0x06

_EVERYTHING: Final = 0xFFFFFFFF
_NETLINK_TYPE_OFFSET: Final = 4


def instruction(code: int, k: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, if_true, if_false, k)


def attach(sock: socket.socket, program: bytes) -> None:
    """Raises OSError."""
    kept = ctypes.create_string_buffer(program, len(program))
    given = _PROGRAM.pack(len(program) // _INSTRUCTION.size, ctypes.addressof(kept))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, given)


def drop_messages(kinds: Collection[int]) -> bytes:
    """Keeps all netlink messages but those of these types, of which there are fewer than 256."""
    # The kernel loads numbers as big-endian, and a message's header is in the machine's order.
    tests = [
        instruction(JUMP_IF_EQUAL, socket.htons(kind), if_true=len(kinds) - place) for place, kind in enumerate(kinds)
    ]
    ends = (instruction(RETURN, _EVERYTHING), instruction(RETURN, 0))
    return b"".join((instruction(LOAD_HALF, _NETLINK_TYPE_OFFSET), *tests, *ends))
