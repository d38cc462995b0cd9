"""The program inside a node: looks at its kernel and its agent, and does harm when told to.

Started by `watch` in every node as `python3 in_node.py ADDRESS...` with the node's own addresses; speaks JSON lines on
its standard streams. Once a second, and when told, it prints a sample:

    {"boot": boot id, "counters": /proc/net/xfrm_stat, "states": [[source, destination, SPI, packets], ...],
     "installed": outbound states that the kernel was given since this program began,
     "agent": {"run": which run of which process, "rekeys": {"children": n, "ike": n}} or null}

What it is told is a line, and each has an answer `{"done": ...}`:

    {"do": "look"}                                     a sample, now
    {"do": "kill", "program": "hauberk-agent"}         SIGKILL to its process; the process ids
    {"do": "wear", "peer": ADDRESS}                    soft expiry of the newest outbound state to a peer, or to all
    {"do": "remove", "peer": ADDRESS}                  deletes all states with a peer, both directions; their number

It asks the kernel itself (include/uapi/linux/xfrm.h) and not the package that is on trial. Standard library only: a
node may have no other Python than Debian's.
"""

import glob
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

_NETLINK_XFRM = 6
_GROUP_SA = 3  # XFRMNLGRP_SA
_NEWSA, _DELSA, _GETSA, _EXPIRE = 0x10, 0x11, 0x12, 0x18
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
# Of struct xfrm_usersa_info: id (daddr, SPI in network order, protocol), saddr; packets; when it was added; family.
_INFO_BYTES = 224
_ID_AT, _SADDR_AT, _PACKETS_AT, _ADDED_AT, _FAMILY_AT = 56, 80, 168, 176, 212
_ID = struct.Struct("=16s4sB3x")
_USERSA_ID = struct.Struct("=16s4sHBx")
_ESP = 50
_ATTRIBUTE = struct.Struct("=HH")
_KEYS = (1, 2, 18, 20)  # XFRMA_ALG_AUTH, _CRYPT, _AEAD, _AUTH_TRUNC: a larval state has none

_INTERVAL_SECONDS = 1.0
_STATUS_SOCKET = "/var/lib/kubelet/pods/*/volumes/kubernetes.io~empty-dir/run/agent.sock"


class State:
    """One ESP state of the kernel."""

    def __init__(self, body: bytes) -> None:
        daddr, self.spi, self.protocol = _ID.unpack_from(body, _ID_AT)
        (self.family,) = struct.unpack_from("=H", body, _FAMILY_AT)
        size = 4 if self.family == socket.AF_INET else 16
        self.daddr = daddr
        self.destination = str(ip_address(daddr[:size]))
        self.source = str(ip_address(body[_SADDR_AT : _SADDR_AT + size]))
        (self.packets,) = struct.unpack_from("=Q", body, _PACKETS_AT)
        (self.added,) = struct.unpack_from("=Q", body, _ADDED_AT)
        self.larval = not any(kind in _KEYS for kind in _attributes(body))


def _attributes(body: bytes) -> set[int]:
    kinds: set[int] = set()
    at = _INFO_BYTES
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size:
            break
        kinds.add(kind)
        at += (length + 3) & ~3
    return kinds


def _messages(data: bytes) -> list[tuple[int, bytes]]:
    """(type, body) of each message in a datagram."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        found.append((kind, data[at + _HEADER.size : at + length]))
        at += (length + 3) & ~3
    return found


class Kernel:
    """The node's XFRM. Methods raise OSError."""

    def __init__(self, own: set[str]) -> None:
        self._own = own
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_XFRM)
        self._socket.bind((0, 0))
        self.events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_XFRM)
        self.events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.events.bind((0, 1 << (_GROUP_SA - 1)))
        self.events.setblocking(False)
        self.installed = 0

    def hear(self) -> None:
        """Count the outbound states that the kernel says it was given."""
        while True:
            try:
                data = self.events.recv(1 << 16)
            except BlockingIOError:
                return
            for kind, body in _messages(data):
                if kind == _NEWSA and State(body).destination not in self._own:
                    self.installed += 1

    def states(self) -> list[State]:
        """All complete ESP states."""
        self._send(_GETSA, _REQUEST | _DUMP, b"")
        found: list[State] = []
        while True:
            for kind, body in _messages(self._socket.recv(1 << 18)):
                if kind == _DONE:
                    return [state for state in found if state.protocol == _ESP and not state.larval]
                if kind == _NEWSA:
                    found.append(State(body))

    def outbound(self, peer: str | None) -> list[State]:
        """The newest outbound state to each peer, or to one."""
        newest: dict[str, State] = {}
        for state in self.states():
            if state.source in self._own and peer in (None, state.destination):
                before = newest.get(state.destination)
                if before is None or state.added >= before.added:
                    newest[state.destination] = state
        return list(newest.values())

    def wear(self, state: State) -> None:
        """Have the kernel tell that a state has reached its soft limit (`xfrm_add_sa_expire`)."""
        body = bytearray(_INFO_BYTES + 8)  # struct xfrm_user_expire; hard stays 0
        _ID.pack_into(body, _ID_AT, state.daddr, state.spi, _ESP)
        struct.pack_into("=H", body, _FAMILY_AT, state.family)
        self._ask(_EXPIRE, bytes(body))

    def remove(self, state: State) -> None:
        self._ask(_DELSA, _USERSA_ID.pack(state.daddr, state.spi, state.family, _ESP))

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)

    def _ask(self, kind: int, body: bytes) -> None:
        self._send(kind, _REQUEST | _ACK, body)
        for answer, said in _messages(self._socket.recv(1 << 16)):
            if answer == _ERROR and (number := -struct.unpack_from("=i", said)[0]):
                raise OSError(number, os.strerror(number))


def agent_status() -> dict[str, Any] | None:
    """What of the agent's own words is wanted; None when none answers."""
    for path in glob.glob(_STATUS_SOCKET):
        # The whole path is longer than the name of a socket may be.
        with suppress(OSError, ValueError, KeyError), socket.socket(socket.AF_UNIX) as client:
            os.chdir(os.path.dirname(path))
            client.settimeout(2)
            client.connect(os.path.basename(path))
            parts: list[bytes] = []
            while part := client.recv(1 << 16):
                parts.append(part)
            said = json.loads(b"".join(parts))
            return {"run": f"{said['startedAt']}/{said['pid']}", "rekeys": said["rekeys"]}
    return None


def processes(program: str) -> list[int]:
    """The processes of `PROGRAM run`, whatever starts it."""
    found: list[int] = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with suppress(OSError):
            words = Path(path).read_bytes().split(b"\0")
            if any(os.path.basename(word) == program.encode() for word in words[:2]) and b"run" in words:
                found.append(int(path.split("/")[2]))
    return found


def counters() -> dict[str, int]:
    """/proc/net/xfrm_stat, without what is zero."""
    lines = (line.split() for line in Path("/proc/net/xfrm_stat").read_text().splitlines())
    return {name: int(count) for name, count in lines if int(count)}


def sample(kernel: Kernel) -> dict[str, Any]:
    kernel.hear()
    return {
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "counters": counters(),
        "states": [[s.source, s.destination, int.from_bytes(s.spi, "big"), s.packets] for s in kernel.states()],
        "installed": kernel.installed,
        "agent": agent_status(),
    }


def obey(kernel: Kernel, command: dict[str, Any]) -> object:
    """Does what it is told. Raises OSError."""
    peer = command.get("peer")
    match command["do"]:
        case "look":
            print(json.dumps(sample(kernel)), flush=True)
            return None
        case "kill":
            killed = processes(command["program"])
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            return killed
        case "wear":
            worn = kernel.outbound(peer)
            for state in worn:
                kernel.wear(state)
            return len(worn)
        case "remove":
            removed = [state for state in kernel.states() if peer in (state.source, state.destination)]
            for state in removed:
                kernel.remove(state)
            return len(removed)
        case unknown:
            return f"unknown: {unknown}"


def main() -> None:
    kernel = Kernel(set(sys.argv[1:]))
    waiting = selectors.DefaultSelector()
    waiting.register(sys.stdin, selectors.EVENT_READ)
    waiting.register(kernel.events, selectors.EVENT_READ)
    due = 0.0
    pending = b""
    while True:
        for key, _ in waiting.select(max(0.0, due - time.monotonic())):
            if key.fileobj is kernel.events:
                kernel.hear()
                continue
            data = os.read(sys.stdin.fileno(), 1 << 16)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                try:
                    done = obey(kernel, json.loads(line))
                except OSError as error:
                    done = str(error)
                print(json.dumps({"done": done}), flush=True)
        if time.monotonic() >= due:
            print(json.dumps(sample(kernel)), flush=True)
            due = time.monotonic() + _INTERVAL_SECONDS


if __name__ == "__main__":
    main()
