"""Two nodes with a router between them, each with a pod, in one kernel with ESP: for stories about packets' sizes.

    [p1] 10.244.1.2 ---- [n1] 10.250.1.1 ---- [r] ---- 10.250.2.1 [n2] ---- 10.244.2.2 [p2]

and the same in IPv6: fd00:244:N::2, fd00:250:N::1. The link between the router and n2 may be narrower than the others.
"""

from __future__ import annotations

import select
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from enum import StrEnum
from ipaddress import ip_address, ip_network
from typing import Final

from hauberk_xfrm import Xfrm
from tests.kernel.two_hosts import ETH_P_ALL, Host, inside

MARKER: Final = b"HAUBERK-CLEAR-MARKER"
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER = 10, 23
PMTUDISC_DONT, PMTUDISC_DO = 0, 2
PORT: Final = 7779
_HEADERS: Final = {4: 28, 6: 48}


class Fate(StrEnum):
    """What becomes of packets of some size, sent a few times."""

    ARRIVES = "arrives"
    TOLD = "the sender is told"
    LOST = "lost"


def ip(namespace: str, *commands: str) -> None:
    subprocess.run(
        ("ip", "-n", namespace, "-batch", "-"), input="\n".join(commands), text=True, check=True, capture_output=True
    )


class PathWorld:
    """The namespaces, with sockets in the pods."""

    def __init__(self, cleanup: ExitStack, *, wire_mtu: int, pod_mtu: int) -> None:
        for name in ("p1", "n1", "r", "n2", "p2"):
            subprocess.run(("ip", "netns", "add", name), check=True)
            cleanup.callback(subprocess.run, ("ip", "netns", "delete", name), check=True)
            with inside(name):
                for path in ("net/ipv6/conf/default/accept_dad", "net/ipv6/conf/all/accept_dad"):
                    _write(path, "0")
                _write("net/ipv4/ip_forward", "1" if name in ("n1", "r", "n2") else "0")
                _write("net/ipv6/conf/all/forwarding", "1" if name in ("n1", "r", "n2") else "0")
            ip(name, "link set lo up")
        for number in (1, 2):
            node, pod = f"n{number}", f"p{number}"
            ip(
                node,
                f"link add eth0 mtu {wire_mtu} type veth peer name {node} netns r mtu {wire_mtu}",
                f"link add pod mtu {pod_mtu} type veth peer name eth0 netns {pod} mtu {pod_mtu}",
                "link set eth0 up",
                "link set pod up",
                f"addr add 10.250.{number}.1/24 dev eth0",
                f"addr add fd00:250:{number}::1/64 dev eth0 nodad",
                f"addr add 10.244.{number}.1/24 dev pod",
                f"addr add fd00:244:{number}::1/64 dev pod nodad",
                f"route add default via 10.250.{number}.254",
                f"route add default via fd00:250:{number}::254",
            )
            ip(
                "r",
                f"link set {node} up",
                f"addr add 10.250.{number}.254/24 dev {node}",
                f"addr add fd00:250:{number}::254/64 dev {node} nodad",
                f"route add 10.244.{number}.0/24 via 10.250.{number}.1",
                f"route add fd00:244:{number}::/64 via fd00:250:{number}::1",
            )
            ip(
                pod,
                "link set eth0 up",
                f"addr add 10.244.{number}.2/24 dev eth0",
                f"addr add fd00:244:{number}::2/64 dev eth0 nodad",
                f"route add default via 10.244.{number}.1",
                f"route add default via fd00:244:{number}::1",
            )
            self._know_neighbours(pod, "eth0", node, "pod", f"10.244.{number}.", f"fd00:244:{number}::", ("2", "1"))
            self._know_neighbours(node, "eth0", "r", node, f"10.250.{number}.", f"fd00:250:{number}::", ("1", "254"))
        self.hosts: list[Host] = []
        for number in (1, 2):
            xfrm = cleanup.enter_context(Xfrm())
            with inside(f"n{number}"):
                xfrm.dump_policies()  # opens its socket there
            self.hosts.append(
                Host(
                    name=f"n{number}",
                    addresses={4: ip_address(f"10.250.{number}.1"), 6: ip_address(f"fd00:250:{number}::1")},
                    pods={4: ip_network(f"10.244.{number}.0/24"), 6: ip_network(f"fd00:244:{number}::/64")},
                    xfrm=xfrm,
                )
            )
        self._wire = [self._tap(cleanup, "r", device) for device in ("n1", "n2")]
        self.was_told: set[int] = set()
        """What came to the last pod whose packet did not arrive."""
        self._pods = {number: self._tap(cleanup, f"p{number}", "eth0") for number in (1, 2)}

    @staticmethod
    def _tap(cleanup: ExitStack, namespace: str, device: str) -> socket.socket:
        with inside(namespace):
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL))
        cleanup.enter_context(tap)
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
        tap.bind((device, ETH_P_ALL))
        return tap

    @staticmethod
    def _know_neighbours(
        one: str, one_device: str, other: str, other_device: str, four: str, six: str, hosts: tuple[str, str]
    ) -> None:
        """Without ARP and neighbour discovery, so that ICMP can be blocked as a whole."""
        ends = ((one, one_device, hosts[0]), (other, other_device, hosts[1]))
        for (here, device, _), (there, there_device, host) in (ends, ends[::-1]):
            with inside(there):
                address = _read_device_address(there_device)
            neighbours = (f"{prefix}{host} lladdr {address} dev {device}" for prefix in (four, six))
            ip(here, *(f"neigh replace {neighbour} nud permanent" for neighbour in neighbours))

    def narrow(self, mtu: int) -> None:
        """The link between router and n2, at the router's end alone: n2 does not know."""
        ip("r", f"link set n2 mtu {mtu}")

    def block_icmp(self, namespace: str) -> None:
        """What comes in as ICMP by eth0 is dropped silently: by routing rules ahead of the local table's."""
        for family, protocol in (("-4", "icmp"), ("-6", "ipv6-icmp")):
            for arguments in (
                ("rule", "add", "pref", "10", "lookup", "local"),
                ("rule", "del", "pref", "0"),
                ("rule", "add", "pref", "5", "iif", "eth0", "ipproto", protocol, "blackhole"),
            ):
                subprocess.run(("ip", "-n", namespace, family, *arguments), check=True)

    def crossed(self) -> list[bytes]:
        """The packets that the router has seen since the last time, from their IP headers on."""
        return [packet for tap in self._wire for packet in _taken(tap)]

    def told(self, number: int) -> set[int]:
        """The sizes that a pod was told to fit, since the last time: by ICMP that came to its device, heard or not."""
        return {size for packet in _taken(self._pods[number]) if (size := _told_size(packet)) is not None}

    def fate(self, size: int, *, family: int, df: bool, tries: int = 3, back: bool = False) -> Fate:
        """Of UDP packets from p1 to p2 (or back) of `size` bytes in all."""
        one, other = (2, 1) if back else (1, 2)
        hosts = [f"10.244.{n}.2" if family == 4 else f"fd00:244:{n}::2" for n in (one, other)]
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        with inside(f"p{one}"):
            sender = socket.socket(kind, socket.SOCK_DGRAM)
        with inside(f"p{other}"):
            receiver = socket.socket(kind, socket.SOCK_DGRAM)
        told = False
        self.told(one)
        with sender, receiver:
            level, option = (
                (socket.IPPROTO_IP, IP_MTU_DISCOVER) if family == 4 else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)
            )
            sender.setsockopt(level, option, PMTUDISC_DO if df else PMTUDISC_DONT)
            receiver.bind((hosts[1], PORT))
            receiver.settimeout(0.1)
            sender.bind((hosts[0], 0))
            sender.connect((hosts[1], PORT))
            payload = (MARKER * (size // len(MARKER) + 1))[: size - _HEADERS[family]]
            for _ in range(tries):
                try:
                    sender.send(payload)
                    if receiver.recv(65536) == payload:
                        return Fate.ARRIVES
                except TimeoutError:
                    continue
                except OSError:
                    told = True
        self.was_told = self.told(one)
        return Fate.TOLD if told or self.was_told else Fate.LOST

    def stream(self, *, family: int, size: int = 299_008, back: bool = False, seconds: float = 3.0) -> int:
        """Bytes of a TCP stream that arrive, as they were sent, from p1 to p2 (or back)."""
        one, other = (2, 1) if back else (1, 2)
        host = f"10.244.{other}.2" if family == 4 else f"fd00:244:{other}::2"
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        sent = bytes(index * 7 & 0xFF for index in range(4096)) * (size // 4096)
        with inside(f"p{other}"):
            server = socket.socket(kind, socket.SOCK_STREAM)
        with inside(f"p{one}"):
            client = socket.socket(kind, socket.SOCK_STREAM)
        got = b""
        with server, client:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((host, PORT))
            server.listen()
            client.settimeout(seconds)
            try:
                client.connect((host, PORT))
            except OSError:
                return 0
            accepted, _ = server.accept()
            with accepted:
                client.setblocking(False)
                accepted.setblocking(False)
                deadline = time.monotonic() + seconds
                left = memoryview(sent)
                while len(got) < len(sent) and time.monotonic() < deadline:
                    select.select([accepted], [client] if left else [], [], 0.05)
                    if left:
                        with suppress(BlockingIOError):
                            left = left[client.send(left) :]
                    with suppress(BlockingIOError):
                        got += accepted.recv(1 << 20)
        return len(got) if sent.startswith(got) else -1


def _taken(tap: socket.socket) -> list[bytes]:
    packets: list[bytes] = []
    while True:
        try:
            packets.append(tap.recv(65536))
        except BlockingIOError:
            return packets


def _told_size(packet: bytes) -> int | None:
    """The size in "fragmentation needed" (RFC 1191) and "packet too big" (RFC 4443)."""
    if packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_ICMP and packet[20:22] == b"\3\4":
        return int.from_bytes(packet[26:28])
    if packet[0] >> 4 == 6 and packet[6] == socket.IPPROTO_ICMPV6 and packet[40] == 2:
        return int.from_bytes(packet[44:48])
    return None


def _write(path: str, value: str) -> None:
    with open(f"/proc/sys/{path}", "w") as file:
        file.write(value)


def _read_device_address(device: str) -> str:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((device, 0))
        return sock.getsockname()[4].hex(":")


@contextmanager
def path_world(*, wire_mtu: int = 1500, pod_mtu: int = 1500) -> Generator[PathWorld, None, None]:
    with ExitStack() as cleanup:
        yield PathWorld(cleanup, wire_mtu=wire_mtu, pod_mtu=pod_mtu)
