"""What the stories about classes of traffic have beside the network of `agent_stories`.

Each node has two VXLAN devices, one over each family, with 10.99.4.N and 10.99.6.N inside; n3 has a network behind it,
10.77.0.0/24 and fd00:77::/64, with one host [lan] in it; and [wire] is a stranger, 10.250.0.50, whom no IPsecNode
knows.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import time
from contextlib import suppress
from ipaddress import ip_address
from itertools import permutations
from typing import Final

from tests.kernel.agent_stories import MARKER, NUMBERS, World, inside, ip

PORT: Final = 7779
VXLAN_PORT: Final = 4789
STRANGER: Final = "10.250.0.50"
VNI: Final = {4: 74, 6: 76}
FAMILIES: Final = (4, 6)


def outer(number: int, version: int) -> str:
    return f"10.250.0.{number}" if version == 4 else f"fd00:250::{number}"


class TrafficWorld(World):
    """With a UDP socket in every node, on every address and overlay, and in the network behind n3."""

    def __init__(self) -> None:
        super().__init__()
        for number in NUMBERS:
            for version in FAMILIES:
                self._lay_overlay(number, version)
        self._lay_lan()
        ip("-n", "wire", "addr", "add", f"{STRANGER}/24", "dev", "br0")
        self.overlay = {
            (number, version): self._open(f"n{number}", f"10.99.{version}.{number}")
            for number in NUMBERS
            for version in FAMILIES
        }
        self.hosts = {
            (number, version): self._open(f"n{number}", outer(number, version))
            for number in NUMBERS
            for version in FAMILIES
        }
        self.lan = {4: self._open("lan", "10.77.0.2"), 6: self._open("lan", "fd00:77::2")}
        self.stranger = self._open("wire", STRANGER)

    def _lay_overlay(self, number: int, version: int) -> None:
        node, device = f"n{number}", f"vx{version}"
        ip(
            *("-n", node, "link", "add", device, "type", "vxlan", "id", str(VNI[version]), "dev", "eth0"),
            *("dstport", str(VXLAN_PORT), "local", outer(number, version), "nolearning"),
        )
        ip("-n", node, "link", "set", device, "address", f"02:00:00:00:0{version}:0{number}", "up")
        ip("-n", node, "addr", "add", f"10.99.{version}.{number}/24", "dev", device)
        for other in NUMBERS:
            if other != number:
                mac = f"02:00:00:00:0{version}:0{other}"
                ip("-n", node, "neigh", "add", f"10.99.{version}.{other}", "lladdr", mac, "dev", device)
                with inside(node):
                    _bridge("fdb", "append", mac, "dev", device, "dst", outer(other, version))

    def _lay_lan(self) -> None:
        ip("netns", "add", "lan")
        ip("-n", "lan", "link", "add", "eth0", "type", "veth", "peer", "name", "lan", "netns", "n3")
        for namespace, device, host in (("n3", "lan", 1), ("lan", "eth0", 2)):
            ip("-n", namespace, "link", "set", device, "up")
            ip("-n", namespace, "addr", "add", f"10.77.0.{host}/24", "dev", device)
            ip("-n", namespace, "addr", "add", f"fd00:77::{host}/64", "dev", device, "nodad")
        ip("-n", "lan", "route", "add", "default", "via", "10.77.0.1")
        ip("-n", "lan", "-6", "route", "add", "default", "via", "fd00:77::1")
        for number in (1, 2):
            ip("-n", f"n{number}", "route", "add", "10.77.0.0/24", "via", "10.250.0.3")
            ip("-n", f"n{number}", "-6", "route", "add", "fd00:77::/64", "via", "fd00:250::3")

    def _open(self, namespace: str, host: str) -> socket.socket:
        with inside(namespace):
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((host, PORT))
        sock.settimeout(1.0)
        return sock

    def silent_overlay(self, numbers: tuple[int, ...] = NUMBERS) -> list[str]:
        """The overlay paths on which a packet is lost."""
        return [
            f"n{one}->n{other} VXLAN over IPv{version}"
            for one, other in permutations(numbers, 2)
            for version in FAMILIES
            if not self.pods.passes(self.overlay[one, version], self.overlay[other, version])
        ]

    def silent_hosts(self, numbers: tuple[int, ...] = NUMBERS) -> list[str]:
        """The paths between nodes' own addresses on which a packet is lost."""
        return [
            f"n{one}->n{other} IPv{version}"
            for one, other in permutations(numbers, 2)
            for version in FAMILIES
            if not self.pods.passes(self.hosts[one, version], self.hosts[other, version])
        ]

    def silent_lan(self) -> list[str]:
        """The paths between the network behind n3 and spokes' pods and nodes on which a packet is lost."""
        lost: list[str] = []
        for number in (1, 2):
            for version in FAMILIES:
                ends = {f"p{number}": self.pods.sockets[number, version], f"n{number}": self.hosts[number, version]}
                for name, end in ends.items():
                    for way, sender, receiver in (("->", end, self.lan[version]), ("<-", self.lan[version], end)):
                        if not self.pods.passes(sender, receiver):
                            lost.append(f"{name}{way}lan IPv{version}")
        return lost

    def stranger_gets_into_the_overlay(self) -> bool:
        """Whether a frame that is sent to n1's overlay by somebody unknown arrives inside."""
        payload = MARKER + b"STRANGER"
        self.stranger.sendto(_frame(payload), (outer(1, 4), VXLAN_PORT))
        receiver = self.overlay[1, 4]
        with suppress(TimeoutError):
            while True:
                if receiver.recv(200) == payload:
                    return True
        return False


def tcp_answers(client: int, server: int, port: int, version: int) -> bool:
    """Whether a node's TCP port answers another node within two seconds."""
    with inside(f"n{server}"):
        listener = socket.create_server(
            (outer(server, version), port), family=socket.AF_INET6 if version == 6 else socket.AF_INET
        )
    listener.settimeout(2.0)
    with inside(f"n{client}"):
        sock = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(2.0)
    with listener, sock:
        try:
            sock.connect((outer(server, version), port))
            accepted, _ = listener.accept()
            with accepted:
                accepted.settimeout(2.0)
                accepted.sendall(MARKER)
                return sock.recv(100) == MARKER
        except OSError:
            return False


def _frame(payload: bytes) -> bytes:
    """VXLAN (RFC 7348 section 5) around an Ethernet frame with UDP in IPv4 to n1's address in the overlay over IPv4."""
    udp = struct.pack("!HHHH", PORT, PORT, 8 + len(payload), 0) + payload
    source, destination = ip_address("10.99.4.66").packed, ip_address("10.99.4.1").packed
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, source, destination)
    header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
    ethernet = bytes.fromhex("020000000401") + bytes.fromhex("020000000466") + b"\x08\x00"
    return struct.pack("!II", 0x08000000, VNI[4] << 8) + ethernet + header + udp


def _checksum(header: bytes) -> int:
    """RFC 791 section 3.1."""
    total = sum(struct.unpack("!10H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _bridge(*arguments: str) -> None:
    subprocess.run(["bridge", *arguments], check=True, capture_output=True, text=True)


def forget_states(number: int) -> None:
    """Removes a node's SAs by hand."""
    ip("-n", f"n{number}", "xfrm", "state", "deleteall")


def interfaces(number: int) -> list[str]:
    return [link["ifname"] for link in json.loads(ip("-n", f"n{number}", "-j", "link"))]


def settle(seconds: float = 0.3) -> None:
    time.sleep(seconds)
