"""The bed: two gateways with a pod each, in network namespaces of a kernel that has ESP, and everything between them.

    [lpod] 10.244.1.2 ---- [left] 192.0.2.1 ------------ 192.0.2.2 [right] ---- 10.244.2.2 [rpod]
           fd00:244:1::2          2001:db8::1          2001:db8::2          fd00:244:2::2

We are `left`, the foreign daemon is `right`. With a NAT in between, the one behind it has 10.99.0.1 and shows itself
with the same address as without. Every frame that a gateway sends to the other one is seen by `Wire`. Pings bear a
mark (`traffic`), so that they are known where they are in clear. Used within the kernel that `program` runs in.
"""

from __future__ import annotations

import ctypes
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from hauberk_xfrm import Policy, StateDump, Xfrm
from tests.interop.traffic import MARK, Pings
from tests.lab.packet import Kind, dissect

IpAddress = IPv4Address | IPv6Address

_CLONE_NEWNET = 0x40000000
_ETH_P_ALL, _PACKET_OUTGOING = 0x0003, 4
_libc = ctypes.CDLL(None, use_errno=True)


class Nat(StrEnum):
    """Who is behind a NAT."""

    NOBODY = "nobody"
    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """One end. `addresses` by family: its own; `seen`: where the other end sees it."""

    name: str
    pod_name: str
    addresses: dict[int, IpAddress]
    seen: dict[int, IpAddress]
    pods: dict[int, IpAddress]
    networks: dict[int, str]
    xfrm: Xfrm

    def states(self) -> list[StateDump]:
        """The complete ESP states in its kernel tables."""
        return [state for state in self.xfrm.dump_states() if not state.larval]

    def policies(self) -> list[Policy]:
        """The policies in its kernel tables, but for those of sockets."""
        return self.xfrm.dump_policies()


class Wire:
    """Counts what the gateways send to each other, by what it is.

    Only what leaves an interface: what comes in is shown once more after its decryption.
    """

    def __init__(self, gateways: tuple[Gateway, Gateway]) -> None:
        self._taps: list[socket.socket] = []
        self.seen: Counter[str] = Counter()
        """All that was taken so far."""
        for gateway in gateways:
            with inside(gateway.name):
                tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            tap.bind(("wire", _ETH_P_ALL))
            tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            tap.setblocking(False)
            self._taps.append(tap)

    def taken(self) -> Counter[str]:
        """How many frames since the last time, by kind (tests/lab/packet.py); `clear` are those with our mark."""
        counts: Counter[str] = Counter()
        for tap in self._taps:
            while True:
                try:
                    frame, (_, _, direction, *_) = tap.recvfrom(65536)
                except BlockingIOError:
                    break
                if direction != _PACKET_OUTGOING:
                    continue
                if MARK in frame:
                    counts["clear"] += 1
                counts["fragment of IP"] += _is_fragment(frame)
                counts[dissect(frame).kind.value] += 1
        self.seen += counts
        return counts

    def esp(self) -> int:
        """How many frames of ESP since the last time, in UDP or not. Raises AssertionError if a ping was in clear."""
        counts = self.taken()
        assert not counts["clear"], f"{counts['clear']} pings crossed in clear: {dict(counts)}"
        return counts[Kind.ESP.value] + counts[Kind.ESP_IN_UDP.value]

    def close(self) -> None:
        for tap in self._taps:
            tap.close()


class Bed:
    """What `lay` made; everything is gone after it."""

    def __init__(self, left: Gateway, right: Gateway) -> None:
        self.left, self.right = left, right
        self.wire = Wire((left, right))

    def ping(self, source: str, source_address: IpAddress, target: IpAddress, *, count: int = 2) -> int:
        """Sends echo requests from a namespace; how many were answered in time."""
        pings = self.pings(source, source_address, target)
        with closing(pings):
            return sum(pings.wait(pings.send()) for _ in range(count))

    def pings(self, source: str, source_address: IpAddress, target: IpAddress) -> Pings:
        """Echo requests from a namespace, to be sent and closed by the caller."""
        family, protocol = (
            (socket.AF_INET, socket.IPPROTO_ICMP) if target.version == 4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
        )
        with inside(source):
            sock = socket.socket(family, socket.SOCK_RAW, protocol)
        sock.bind((str(source_address), 0))
        return Pings(sock, str(target), target.version)

    def delay(self, milliseconds: int) -> None:
        """From now on every frame between the gateways takes so long."""
        for gateway in (self.left, self.right):
            argv = ("tc", "-n", gateway.name, "qdisc", "replace", "dev", "wire", "root", "netem")
            subprocess.run((*argv, "delay", f"{milliseconds}ms"), check=True)


def _is_fragment(frame: bytes) -> bool:
    """Of IPv4: more fragments follow, or it has an offset (RFC 791)."""
    return frame[12:14] == b"\x08\x00" and (frame[20] & 0x3F or frame[21]) != 0


@contextmanager
def inside(namespace: str) -> Generator[None]:
    """Sockets opened meanwhile belong to that network namespace."""
    with open("/proc/self/ns/net") as home, open(f"/run/netns/{namespace}") as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def ip(namespace: str | None, *commands: str) -> None:
    """iproute2, as one batch."""
    where = ("-n", namespace) if namespace else ()
    subprocess.run(("ip", *where, "-batch", "-"), input="\n".join(commands), text=True, check=True)


@contextmanager
def lay(nat: Nat = Nat.NOBODY) -> Generator[Bed]:
    """Makes the namespaces of the picture above, and proves that the wire shows what is in clear."""
    names = ("left", "right", "lpod", "rpod", *(("nat",) if nat is not Nat.NOBODY else ()))
    with ExitStack() as cleanup:
        ip(None, *(f"netns add {name}" for name in names))
        cleanup.callback(ip, None, *(f"netns delete {name}" for name in names))
        for name in names:
            with inside(name):  # nobody else can have our addresses: don't wait to hear so
                Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
                Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
                Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
        left, right = (_gateway(number, cleanup, behind_nat=nat.value == name) for number, name in _NUMBERED)
        _connect(left, right, nat)
        bed = Bed(left, right)
        cleanup.callback(bed.wire.close)
        one, other = (right, left) if nat is Nat.RIGHT else (left, right)
        for version in (4, 6) if nat is Nat.NOBODY else (4,):
            _wait_for_ping(bed, one, other, version)
        assert bed.wire.taken()["clear"] > 0, "a wire that shows nothing now proves nothing later"
        yield bed


_NUMBERED = ((1, "left"), (2, "right"))


def _gateway(number: int, cleanup: ExitStack, *, behind_nat: bool) -> Gateway:
    seen: dict[int, IpAddress] = {4: ip_address(f"192.0.2.{number}"), 6: ip_address(f"2001:db8::{number}")}
    name = dict(_NUMBERED)[number]
    xfrm = cleanup.enter_context(Xfrm())
    with inside(name):
        xfrm.dump_policies()  # opens its socket here
    return Gateway(
        name=name,
        pod_name=f"{name[0]}pod",
        addresses={4: ip_address("10.99.0.1")} if behind_nat else seen,
        seen={4: seen[4]} if behind_nat else seen,
        pods={4: ip_address(f"10.244.{number}.2"), 6: ip_address(f"fd00:244:{number}::2")},
        networks={4: f"10.244.{number}.0/24", 6: f"fd00:244:{number}::/64"},
        xfrm=xfrm,
    )


def _connect(left: Gateway, right: Gateway, nat: Nat) -> None:
    """A veth between the gateways, with a NAT two, and one to each pod."""
    pods = [
        f"link add eth0 netns {gateway.pod_name} type veth peer name pod netns {gateway.name}"
        for gateway in (left, right)
    ]
    if nat is Nat.NOBODY:
        ip(None, "link add wire netns left type veth peer name wire netns right", *pods)
        for here, there in ((left, right), (right, left)):
            routes = [f"route add {there.networks[version]} via {there.addresses[version]}" for version in (4, 6)]
            _bring_up(here, *routes)
        return
    hidden, public = (left, right) if nat is Nat.LEFT else (right, left)
    ip(
        None,
        f"link add wire netns {hidden.name} type veth peer name inner netns nat",
        f"link add wire netns {public.name} type veth peer name outer netns nat",
        *pods,
    )
    ip(
        "nat",
        "addr add 10.99.0.254/24 dev inner",
        f"addr add {hidden.seen[4]}/24 dev outer",
        "link set inner up",
        "link set outer up",
    )
    _bring_up(hidden, "route add default via 10.99.0.254")
    _bring_up(public, f"route add {hidden.networks[4]} via {hidden.seen[4]}")
    rules = "table ip nat { chain post { type nat hook postrouting priority srcnat; oifname outer masquerade; }; }"
    subprocess.run(("ip", "netns", "exec", "nat", "nft", rules), check=True)


_LENGTHS = {4: 24, 6: 64}


def _bring_up(gateway: Gateway, *routes: str) -> None:
    """Addresses and routes of a gateway and its pod."""
    routers = {version: ip_address(int(pod) - 1) for version, pod in gateway.pods.items()}
    ip(
        gateway.name,
        "link set lo up",
        *(_address(address, version, "wire") for version, address in gateway.addresses.items()),
        *(_address(address, version, "pod") for version, address in routers.items()),
        "link set wire up",
        "link set pod up",
        *routes,
    )
    ip(
        gateway.pod_name,
        *(_address(address, version, "eth0") for version, address in gateway.pods.items()),
        "link set eth0 up",
        *(f"route add default via {router}" for router in routers.values()),
    )


def _address(address: IpAddress, version: int, device: str) -> str:
    return f"addr add {address}/{_LENGTHS[version]} dev {device}{' nodad' if version == 6 else ''}"


def _wait_for_ping(bed: Bed, one: Gateway, other: Gateway, version: int) -> None:
    deadline = time.monotonic() + 5
    while not bed.ping(one.name, one.addresses[version], other.seen[version], count=1):
        assert time.monotonic() < deadline, f"no plain packet of IPv{version} passes"
