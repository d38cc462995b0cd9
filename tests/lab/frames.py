"""The wire between `remote` and `node_commands`: frames over one TCP connection per command.

    kind (1 byte) | length of the payload (4 bytes, network order) | payload

A client sends one START, then any number of STDIN and one STDIN_END; the server answers with STDOUT and STDERR as they
come and ends with one EXIT. A connection that ends early is the wish that the command be killed. Standard library only,
as a node's Python need not have any packages.
"""

import enum
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

HEADER = struct.Struct("!BI")
PORT = 10250 + 1000  # any will do: the management network carries nothing else
CHUNK = 65536
MAXIMUM_PAYLOAD = 4 * CHUNK


class Kind(enum.IntEnum):
    """What a frame carries."""

    START = 1
    STDIN = 2
    STDIN_END = 3
    STDOUT = 4
    STDERR = 5
    EXIT = 6


class FrameError(Exception):
    """Bytes that are no frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The command to run, and the lab's token: pods can reach the server's port too, but don't know it."""

    argv: list[str]
    token: str = field(repr=False)

    @classmethod
    def parse(cls, payload: bytes) -> "Start":
        """Errors: FrameError."""
        try:
            content = json.loads(payload)
            argv = [str(word) for word in content["argv"]]
            token = str(content["token"])
        except (ValueError, TypeError, KeyError) as error:
            raise FrameError("malformed START") from error
        if not argv:
            raise FrameError("no command")
        return cls(argv=argv, token=token)

    def build(self) -> bytes:
        """The payload of a START."""
        return json.dumps({"argv": self.argv, "token": self.token}).encode()


def build(kind: Kind, payload: bytes = b"") -> bytes:
    """One frame."""
    return HEADER.pack(kind, len(payload)) + payload


def parse_header(data: bytes) -> tuple[Kind, int]:
    """The kind and the payload's length. Errors: FrameError."""
    kind, length = HEADER.unpack(data)
    if kind not in Kind.__members__.values() or length > MAXIMUM_PAYLOAD:
        raise FrameError(f"kind {kind}, length {length}")
    return Kind(kind), length


def chunks(data: bytes) -> Iterator[bytes]:
    """Cuts bytes into payloads of at most CHUNK bytes."""
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK]


def build_exit(returncode: int) -> bytes:
    """An EXIT; negative for a signal, as `subprocess` has it."""
    return build(Kind.EXIT, struct.pack("!i", returncode))


def parse_exit(payload: bytes) -> int:
    """Errors: FrameError."""
    if len(payload) != 4:
        raise FrameError("malformed EXIT")
    (returncode,) = struct.unpack("!i", payload)
    return int(returncode)
