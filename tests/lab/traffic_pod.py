"""The program of the traffic pods: answers messages, sends its own to every target, and counts what comes back.

It runs inside pods, needs nothing but Python's standard library (3.11 or later), and is put there by
tests/lab/traffic.py.

    server   TCP and UDP echo on ECHO_PORT; what fails its checksum is not answered
    client   to every target, each interval, one numbered message by TCP, UDP or ICMP echo
    HTTP     on HTTP_PORT: /readyz for kubelet's probe, /stats for the counters as JSON

Targets come from a JSON file, which is read again whenever it changes:

    {"interval_seconds": 0.3, "patience_seconds": 5, "size_bytes": 256,
     "targets": [{"path": "pod-pod", "to": "n2", "address": "10.244.12.3", "port": 7207, "protocol": "tcp"}, ...]}

Every message carries MARKER in clear, for the judge to find. ICMP needs a raw socket: CAP_NET_RAW.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MARKER = b"HAUBERK-CLEAR-MARKER"
ECHO_PORT, HTTP_PORT = 7207, 7280

_STREAM = struct.Struct("!IQ")  # stream, sequence number; after MARKER, and before padding and checksum
_LENGTH = struct.Struct("!H")  # of a message, before it, in TCP
_CHECKSUM = struct.Struct("!I")
SHORTEST = len(MARKER) + _STREAM.size + _CHECKSUM.size
_ICMP = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number: of ICMP and ICMPv6 alike
_ECHO_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
_ECHO_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
_SOL_RAW = 255  # include/linux/socket.h
_ICMP_FILTER = 1  # include/uapi/linux/icmp.h; also the number of ICMPV6_FILTER (include/uapi/linux/icmpv6.h)

# A TCP connection is given up for a new one after this many messages: a Service chooses a backend per connection.
_MESSAGES_PER_CONNECTION = 50
_REREAD_SECONDS = 0.5


def build_message(stream: int, sequence: int, size: int) -> bytes:
    """A message of `size` bytes (at least SHORTEST)."""
    body = MARKER + _STREAM.pack(stream, sequence)
    body += b"." * (size - len(body) - _CHECKSUM.size)
    return body + _CHECKSUM.pack(zlib.crc32(body))


def is_message(data: bytes) -> bool:
    """Whether this is a whole and undamaged message."""
    return (
        len(data) >= SHORTEST
        and data.startswith(MARKER)
        and _CHECKSUM.unpack(data[-_CHECKSUM.size :])[0] == zlib.crc32(data[: -_CHECKSUM.size])
    )


def stream_and_sequence(message: bytes) -> tuple[int, int]:
    """Which stream a message is of, and which of its messages it is."""
    stream, sequence = _STREAM.unpack_from(message, len(MARKER))
    return stream, sequence


def internet_checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1])) + (data[-1] << 8 if len(data) & 1 else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@dataclass(frozen=True)
class Target:
    """Where one stream of messages goes. `path` and `to` (a node's name) only come back in the counters."""

    path: str
    to: str
    address: str
    port: int
    protocol: str  # tcp, udp, icmp


@dataclass(frozen=True)
class Pace:
    """How often, how long an answer may take, and how large a message is."""

    interval_seconds: float = 0.3
    patience_seconds: float = 5.0
    size_bytes: int = 256


@dataclass
class Counters:
    """Of one stream. Messages neither answered nor lost are still on their way."""

    sent: int = 0
    answered: int = 0
    lost: int = 0  # not answered within the patience, or the connection broke
    wrong: int = 0  # an answer that is not what was sent
    slowest_seconds: float = 0.0
    last_error: str = ""


@dataclass
class Stream:
    """The messages to one target."""

    number: int
    target: Target
    pace: Pace
    counters: Counters = field(default_factory=Counters)
    waiting: dict[int, tuple[float, bytes]] = field(default_factory=dict[int, tuple[float, bytes]])

    def next_message(self) -> bytes:
        """The next message, counted as sent."""
        self.counters.sent += 1
        message = build_message(self.number, self.counters.sent, self.pace.size_bytes)
        self.waiting[self.counters.sent] = (time.monotonic(), message)
        return message

    def receive(self, data: bytes) -> None:
        """Count an answer. What is too late, or a duplicate, counts for nothing."""
        if not is_message(data):
            self.counters.wrong += 1
            return
        stream, sequence = stream_and_sequence(data)
        sent_at, message = self.waiting.pop(sequence, (0.0, b""))
        if stream != self.number or (message and data != message):
            self.counters.wrong += 1
        elif message:
            self.counters.answered += 1
            self.counters.slowest_seconds = max(self.counters.slowest_seconds, time.monotonic() - sent_at)

    def give_up(self, patience_seconds: float) -> None:
        """Count as lost what has waited longer than that."""
        before = time.monotonic() - patience_seconds
        for sequence in [sequence for sequence, (sent_at, _) in self.waiting.items() if sent_at <= before]:
            del self.waiting[sequence]
            self.counters.lost += 1

    async def tick(self) -> None:
        """Wait for the next turn, and see what was lost meanwhile."""
        await asyncio.sleep(self.pace.interval_seconds)
        self.give_up(self.pace.patience_seconds)

    def failed(self, error: Exception) -> None:
        self.counters.last_error = f"{type(error).__name__}: {error}"


class Pinger:
    """A raw socket for the echo requests of all streams of one family."""

    def __init__(self, family: socket.AddressFamily, deliver: Callable[[bytes], None]) -> None:
        self._family, self._deliver = family, deliver
        protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
        self._socket = socket.socket(family, socket.SOCK_RAW, protocol)
        self._socket.setblocking(False)
        # The host network sees everybody's ICMP: let nothing but echo replies through.
        reply = _ECHO_REPLY[family]
        if family == socket.AF_INET:
            self._socket.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~(1 << reply) & 0xFFFFFFFF))
        else:
            blocked = [0xFFFFFFFF] * 8
            blocked[reply >> 5] &= ~(1 << (reply & 31))
            self._socket.setsockopt(socket.IPPROTO_ICMPV6, _ICMP_FILTER, struct.pack("=8I", *blocked))
        asyncio.get_running_loop().add_reader(self._socket, self._receive)

    def send(self, address: str, identifier: int, sequence: int, message: bytes) -> None:
        """Send one echo request. Raises OSError."""
        kind, sequence = _ECHO_REQUEST[self._family], sequence & 0xFFFF
        # Of ICMPv6 the kernel computes the checksum itself (RFC 3542 section 3.1).
        whole = _ICMP.pack(kind, 0, 0, identifier, sequence) + message
        checksum = internet_checksum(whole) if self._family == socket.AF_INET else 0
        self._socket.sendto(_ICMP.pack(kind, 0, checksum, identifier, sequence) + message, (address, 0))

    def _receive(self) -> None:
        for _ in range(64):
            try:
                packet = self._socket.recv(65536)
            except OSError:
                return
            # IPv4 raw sockets receive the IP header too.
            start = 4 * (packet[0] & 0x0F) if self._family == socket.AF_INET and packet else 0
            message = packet[start + _ICMP.size :]
            if is_message(message):
                self._deliver(message)


class Client:
    """All streams of this pod."""

    def __init__(self) -> None:
        self._streams: dict[Target, tuple[Stream, asyncio.Task[None]]] = {}
        self._by_number: dict[int, Stream] = {}
        self._pingers: dict[socket.AddressFamily, Pinger] = {}
        # Others on the same host network ping too: no two pods should use the same numbers.
        self._next_number = random.randrange(1 << 16) << 16
        self._identifier = random.randrange(1, 1 << 16)

    async def follow(self, path: Path) -> None:
        """Do what the file at `path` says, for ever. An unreadable file changes nothing until it is readable."""
        known = ""
        async with asyncio.TaskGroup() as group:
            while True:
                wanted = self._read(path)
                if wanted is not None and wanted != known:
                    known = wanted
                    try:
                        self._obey(json.loads(wanted), group)
                    except (ValueError, TypeError, KeyError) as error:
                        print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                await asyncio.sleep(_REREAD_SECONDS)

    @staticmethod
    def _read(path: Path) -> str | None:
        try:
            return path.read_text()
        except OSError:
            return None  # nobody has told us anything yet

    def _obey(self, wanted: dict[str, Any], group: asyncio.TaskGroup) -> None:
        """Start streams to new targets, end those to others; the rest goes on, and keeps its counters."""
        targets = [Target(**target) for target in wanted.pop("targets")]
        pace = Pace(**wanted)
        for target in set(self._streams) - set(targets):
            stream, task = self._streams.pop(target)
            del self._by_number[stream.number]
            task.cancel()
        for target in targets:
            if target in self._streams:
                self._streams[target][0].pace = pace
                continue
            self._next_number += 1
            stream = Stream(self._next_number & 0xFFFFFFFF, target, pace)
            run = {"tcp": self._run_tcp, "udp": self._run_udp, "icmp": self._run_icmp}[target.protocol]
            self._by_number[stream.number] = stream
            self._streams[target] = stream, group.create_task(run(stream))

    def stats(self) -> list[dict[str, object]]:
        """One entry for each target."""
        return [
            {**asdict(target), "waiting": len(stream.waiting), **asdict(stream.counters)}
            for target, (stream, _) in self._streams.items()
        ]

    async def _run_icmp(self, stream: Stream) -> None:
        await asyncio.sleep(random.random() * stream.pace.interval_seconds)
        family = family_of(stream.target.address)
        while True:
            message = stream.next_message()
            try:
                if family not in self._pingers:
                    self._pingers[family] = Pinger(family, self._deliver_echo)
                self._pingers[family].send(stream.target.address, self._identifier, stream.counters.sent, message)
            except OSError as error:
                stream.failed(error)
            await stream.tick()

    def _deliver_echo(self, message: bytes) -> None:
        if stream := self._by_number.get(stream_and_sequence(message)[0]):
            stream.receive(message)

    async def _run_udp(self, stream: Stream) -> None:
        await asyncio.sleep(random.random() * stream.pace.interval_seconds)
        loop = asyncio.get_running_loop()
        with socket.socket(family_of(stream.target.address), socket.SOCK_DGRAM) as datagrams:
            datagrams.setblocking(False)

            def receive() -> None:
                try:
                    stream.receive(datagrams.recv(65536))
                except OSError as error:
                    stream.failed(error)  # such as ECONNREFUSED: an ICMP error came back

            loop.add_reader(datagrams, receive)
            connected = False
            try:
                while True:
                    message = stream.next_message()
                    try:
                        if not connected:
                            datagrams.connect((stream.target.address, stream.target.port))
                            connected = True
                        datagrams.send(message)
                    except OSError as error:
                        stream.failed(error)
                    await stream.tick()
            finally:
                loop.remove_reader(datagrams)

    async def _run_tcp(self, stream: Stream) -> None:
        """One message at a time. A connection is kept for a while; when it breaks, the message under way is lost."""
        await asyncio.sleep(random.random() * stream.pace.interval_seconds)
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                message = stream.next_message()
                try:
                    async with asyncio.timeout(stream.pace.patience_seconds):
                        if connection is None:
                            connection = await asyncio.open_connection(stream.target.address, stream.target.port)
                        reader, writer = connection
                        writer.write(_LENGTH.pack(len(message)) + message)
                        (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                        stream.receive(await reader.readexactly(size))
                    broken = False
                except (OSError, EOFError, TimeoutError) as error:
                    broken = True
                    stream.failed(error)
                    stream.give_up(0)  # no answer can come any more
                if connection is not None and (broken or stream.counters.sent % _MESSAGES_PER_CONNECTION == 0):
                    connection[1].close()
                    connection = None
                await stream.tick()
        finally:
            if connection is not None:
                connection[1].close()


class Server:
    """What this pod answers."""

    def __init__(self, node: str, client: Client) -> None:
        self._node, self._client = node, client
        self._listening: list[asyncio.Server] = []
        self._answered = self._refused = 0

    async def start(self, echo_port: int, http_port: int) -> None:
        """Listen, on all addresses of both families. Raises OSError."""
        for family, every in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 (a pod's only)
            for serve, port in ((self._echo_stream, echo_port), (self._http, http_port)):
                self._listening.append(await asyncio.start_server(serve, every, port, family=family, backlog=256))
            datagrams = socket.socket(family, socket.SOCK_DGRAM)
            datagrams.setblocking(False)
            if family == socket.AF_INET6:
                datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            datagrams.bind((every, echo_port))
            asyncio.get_running_loop().add_reader(datagrams, self._echo_datagrams, datagrams)

    def _echo_datagrams(self, datagrams: socket.socket) -> None:
        for _ in range(64):
            try:
                data, sender = datagrams.recvfrom(65536)
                if self._accept(data):
                    datagrams.sendto(data, sender)
            except OSError:
                return  # nothing more, or an ICMP error for an answer of ours

    async def _echo_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = await reader.readexactly(_LENGTH.size)
                data = await reader.readexactly(_LENGTH.unpack(size)[0])
                if not self._accept(data):
                    return
                writer.write(size + data)
                await writer.drain()
        except (OSError, EOFError):
            return  # the other end has gone
        finally:
            writer.close()

    def _accept(self, data: bytes) -> bool:
        if is_message(data):
            self._answered += 1
            return True
        self._refused += 1
        return False

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1] if head.count(b" ") >= 2 else b""
                status, body = (
                    ("200 OK", self._bodies(path)) if path in (b"/readyz", b"/stats") else ("404 Not Found", b"")
                )
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
                )
                await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            return  # it went away, or was no HTTP
        finally:
            writer.close()

    def _bodies(self, path: bytes) -> bytes:
        if path == b"/readyz":
            return b"ok\n"
        stats = {
            "node": self._node,
            "served": {"answered": self._answered, "refused": self._refused},
            "streams": self._client.stats(),
        }
        return json.dumps(stats).encode() + b"\n"


async def run(node: str, targets: Path, echo_port: int, http_port: int) -> None:
    """Serve and send until SIGTERM. Raises OSError if the ports are taken."""
    client = Client()
    await Server(node, client).start(echo_port, http_port)
    following = asyncio.create_task(client.follow(targets))
    # As process 1 of a container it would ignore signals that it has no handler for.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, following.cancel)
    print("ready", flush=True)
    try:
        await following
    except asyncio.CancelledError:
        return


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer and send test messages, and count them.")
    parser.add_argument("--node", default=os.environ.get("NODE_NAME", socket.gethostname()), help="the node's name")
    parser.add_argument("--targets", type=Path, required=True, help="JSON file with the targets; may appear later")
    parser.add_argument("--echo-port", type=int, default=ECHO_PORT)
    parser.add_argument("--http-port", type=int, default=HTTP_PORT)
    given = parser.parse_args()
    asyncio.run(run(given.node, given.targets, given.echo_port, given.http_port))


if __name__ == "__main__":
    main()
