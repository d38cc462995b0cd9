"""The sides of the comparison: two nodes and a pod behind each, in namespaces of their own, all in one kernel.

    [S-p1] 10.244.1.2 ---- [S-n1] 192.0.2.1 ---- 192.0.2.2 [S-n2] ---- 10.244.2.2 [S-p2]

S is the side's name. What lies between the nodes' addresses is what is compared; all else is the same. The cipher is
ChaCha20-Poly1305 everywhere, as WireGuard has no other, and as it is the faster one in a kernel without instructions
for AES: what is not arithmetic counts for more.
"""

from __future__ import annotations

import fcntl
import json
import signal
import socket
import struct
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization

from hauberk_api.certificate import node_dns_names
from hauberk_api.kinds import API_VERSION, MESH_KIND, NODE_KIND
from hauberk_api.names import NodeName, NodeUid
from hauberk_api.node import Membership, NodeSpec
from hauberk_api.plan import Phase, Plan, PlannedTunnel
from hauberk_api.tunnel import Esp
from hauberk_xfrm import Mode, Xfrm
from tests.kernel.two_hosts import CHACHA, Host, associate, inside, protect, state_of
from tests.unit.ike.authority import Authority

PODS: Final = ("10.244.1.2", "10.244.2.2")
_TUNNEL: Final = "11111111-1111-1111-1111-111111111111"
_UP_SECONDS: Final = 600.0
_REPLAY_WINDOW: Final = 1024
"""As our agents have it."""
_SIOCETHTOOL: Final = 0x8946  # include/uapi/linux/sockios.h
# include/uapi/linux/ethtool.h
_ETHTOOL_SGRO: Final = 0x2C
"""Received packets are merged: network cards have it on, veths off."""
_ETHTOOL_SSG: Final = 0x19
"""Packets may consist of pieces when they are sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side, ready for load."""

    name: str
    what: str

    @property
    def ends(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """(namespace, address) of the one pod and of the other."""
        return (f"{self.name}-p1", PODS[0]), (f"{self.name}-p2", PODS[1])


def plain(name: str) -> Side:
    _lay(name)
    return Side(name=name, what="no encryption")


def by_hand(name: str) -> Side:
    """What a person would write: the fewest policies that protect the pods' traffic."""
    _lay(name)
    key = f"0x{bytes(range(36)).hex()}"
    for own, peer in ((1, 2), (2, 1)):
        lines = [
            f"xfrm state add src 192.0.2.{source} dst 192.0.2.{destination} proto esp spi {0x1000 + source} reqid 1"
            f" mode tunnel replay-window {_REPLAY_WINDOW} flag esn flag af-unspec"
            f" aead rfc7539esp(chacha20,poly1305) {key} 128"
            for source, destination in ((1, 2), (2, 1))
        ]
        for direction, source, destination in (("out", own, peer), ("in", peer, own), ("fwd", peer, own)):
            lines.append(
                f"xfrm policy add src 10.244.{source}.0/24 dst 10.244.{destination}.0/24 dir {direction}"
                f" tmpl src 192.0.2.{source} dst 192.0.2.{destination} proto esp reqid 1 mode tunnel"
            )
        _ip(f"{name}-n{own}", *lines)
    return Side(name=name, what="`ip xfrm` by hand")


def ours(name: str, *, peers: int) -> Side:
    """Our agents, on both nodes, with so many peers, of which all but one are never there. They end when they are up.

    Raises RuntimeError with an agent's log when it does not get there.
    """
    _lay(name)
    agents = [_Agent(name, number, peers) for number in (1, 2)]
    try:
        for agent in agents:
            agent.wait()
    finally:
        for agent in agents:
            agent.end()
    return Side(name=name, what=f"our agents, {peers} peer{'s' if peers > 1 else ''}")


def wireguard(name: str) -> Side:
    """Raises pyroute2's NetlinkError where the kernel has none."""
    from base64 import b64encode

    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from pyroute2 import WireGuard  # pyright: ignore[reportMissingTypeStubs]

    _lay(name)
    keys = [X25519PrivateKey.generate() for _ in PODS]
    for own, peer in ((1, 2), (2, 1)):
        _ip(f"{name}-n{own}", "link add wg0 type wireguard")
        with inside(f"{name}-n{own}"):
            controller: Any = WireGuard()
        controller.set(
            "wg0",
            private_key=b64encode(keys[own - 1].private_bytes_raw()),
            listen_port=51820,
            peer={
                "public_key": b64encode(keys[peer - 1].public_key().public_bytes_raw()),
                "endpoint_addr": f"192.0.2.{peer}",
                "endpoint_port": 51820,
                "allowed_ips": [f"10.244.{peer}.0/24"],
            },
        )
        controller.close()
        _ip(f"{name}-n{own}", "link set wg0 up", f"route replace 10.244.{peer}.0/24 dev wg0")
    return Side(name=name, what="WireGuard")


def in_mode(name: str, mode: Mode, what: str) -> Side:
    """States and policies of that mode, alike in all else."""
    _lay(name)
    hosts: list[Host] = []
    for number in (1, 2):
        with inside(f"{name}-n{number}"):
            # A veth hands packets over as they are. Lists of packets, as IP-TFS makes, come whole from a real wire, and
            # a kernel that gets them in pieces drops them (XfrmInBufferError).
            _set("wire", _ETHTOOL_SSG, on=False)
        xfrm = Xfrm()
        with inside(f"{name}-n{number}"):
            xfrm.dump_policies()  # opens its socket here
        address, pods = ip_address(f"192.0.2.{number}"), ip_network(f"10.244.{number}.0/24")
        nothing = ip_address(f"2001:db8::{number}"), ip_network(f"fd00:244:{number}::/64")
        hosts.append(
            Host(
                name=f"{name}-n{number}",
                addresses={4: address, 6: nothing[0]},
                pods={4: pods, 6: nothing[1]},
                xfrm=xfrm,
            )
        )
    one, other = hosts
    associate(one, other, state_of(mode=mode, aead=CHACHA, replay_window=_REPLAY_WINDOW))
    for host, peer in ((one, other), (other, one)):
        protect(host, peer, outer=4, mode=mode)
    return Side(name=name, what=what)


def _lay(name: str) -> None:
    """The namespaces and the wires between them."""
    for namespace in (f"{name}-n1", f"{name}-n2", f"{name}-p1", f"{name}-p2"):
        _ip(None, f"netns add {namespace}")
        _ip(namespace, "link set lo up")
    _ip(f"{name}-n1", f"link add wire type veth peer name wire netns {name}-n2")
    for number, other in ((1, 2), (2, 1)):
        node, pod = f"{name}-n{number}", f"{name}-p{number}"
        _ip(
            node,
            f"link add pod type veth peer name eth0 netns {pod}",
            f"addr add 192.0.2.{number}/24 dev wire",
            f"addr add 10.244.{number}.1/24 dev pod",
            "link set wire up",
            "link set pod up",
            f"route add 10.244.{other}.0/24 via 192.0.2.{other}",
        )
        _ip(
            pod,
            f"addr add 10.244.{number}.2/24 dev eth0",
            "link set eth0 up",
            f"route add default via 10.244.{number}.1",
        )
        with inside(node):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            _set("wire", _ETHTOOL_SGRO, on=True)


def _ip(namespace: str | None, *commands: str) -> None:
    where = () if namespace is None else ("-n", namespace)
    subprocess.run(("ip", *where, "-batch", "-"), input="\n".join(commands), text=True, check=True)


def _set(device: str, command: int, *, on: bool) -> None:
    """What `ethtool -K` does."""
    value = array("I", (command, on))
    address, _ = value.buffer_info()
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, struct.pack("16sP16x", device.encode(), address))


class _Agent:
    """The agent of one node, following a directory; its peers beyond the first are in the plan alone."""

    _authority = Authority()

    def __init__(self, side: str, number: int, peers: int) -> None:
        self._node, self._peers = f"{side}-n{number}", peers
        self._socket = Path(f"/run/{self._node}.sock")
        self._log = Path(f"/run/results/{self._node}.log")
        directory = Path(f"/run/source/{self._node}")
        directory.mkdir(parents=True)
        now = datetime.now(UTC)
        names = node_dns_names(NodeUid(f"uid-{number}"), NodeName(f"n{number}"))
        key, certificate = self._authority.issue(
            *names, not_before=now - timedelta(hours=1), not_after=now + timedelta(hours=12)
        )
        (directory / "tls.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        (directory / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (directory / "objects.yaml").write_text(self._objects())
        command = [
            *("ip", "netns", "exec", self._node, str(Path(sys.executable).parent / "hauberk-agent"), "run"),
            *(f"--node-name=n{number}", f"--source-dir={directory}"),
            *(f"--state-dir=/run/state/{self._node}", f"--socket={self._socket}"),
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _objects(self) -> str:
        bundle = self._authority.certificate.public_bytes(serialization.Encoding.PEM).decode()
        tunnel = PlannedTunnel(
            name="mesh",
            uid=_TUNNEL,
            generation=1,
            phase=Phase.BLOCK,
            esp=Esp(proposals=("chacha20poly1305-esn",)),
        )
        plan = Plan(generation=1, pod_networks=("10.0.0.0/8", "fd00::/16"), trust_bundle=bundle, tunnels=(tunnel,))
        objects: list[dict[str, Any]] = [
            {"kind": MESH_KIND, "metadata": {"name": "default"}, "status": {"plan": plan.to_object()}}
        ]
        for number in range(1, self._peers + 2):
            there = number <= len(PODS)
            pods = 0x0AF40000 + (number << 8) if there else 0x0A000000 + (number << 8)  # 10.244.N.0, else 10.X.Y.0
            address = f"192.0.2.{number}" if there else str(IPv4Address(0xC6120000 + number))
            spec = NodeSpec(
                nodeUID=f"uid-{number}",
                addresses=(address, f"2001:db8::{number:x}"),
                podCIDRs=(f"{IPv4Address(pods)}/24", f"fd00:0:{number:x}::/64"),
                memberships=(Membership(tunnel=_TUNNEL),),
            )
            # The pair that is there comes first.
            name = f"n{number}" if there else f"z{number:05}"
            objects.append({"kind": NODE_KIND, "metadata": {"name": name}, "spec": spec.to_object()})
        return "\n---\n".join(json.dumps({"apiVersion": API_VERSION, **item}) for item in objects)

    def wait(self) -> None:
        """Until the policies for all peers stand, and the states with the one that is there. Raises RuntimeError."""

        def up() -> bool:
            with inside(self._node), Xfrm() as xfrm:
                states = [state for state in xfrm.dump_states() if not state.larval]
                return len(states) >= 2 and len(xfrm.dump_policies()) >= 12 * self._peers

        _wait(up, lambda: f"{self._node} is not up:\n{self._log.read_text()[-4000:]}")

    def end(self) -> None:
        """Nothing of what it has installed ends with it."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def _wait(until: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    deadline = time.monotonic() + _UP_SECONDS
    while not until():
        if time.monotonic() > deadline:
            raise RuntimeError(otherwise())
        time.sleep(0.5)
