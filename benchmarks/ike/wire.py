"""Two hosts and a cable: network namespaces joined by a pair of veths, and what went over the cable.

Each namespace is held by a process that lives as long as a pipe of ours is open: however this process ends, the
namespaces go with it. Nothing leads out of them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from benchmarks.ike.errors import BenchmarkError

INITIATOR_ADDRESS: Final = IPv4Address("192.0.2.1")
RESPONDER_ADDRESS: Final = IPv4Address("192.0.2.2")

_CABLE: Final = "cable"
_ETHERNET_HEADER: Final = 14
# Without IPv6, whose own chatter would be counted. cat then lives as long as our end of its pipe is open.
_HOLD: Final = "f=/proc/sys/net/ipv6/conf/default/disable_ipv6; [ ! -e $f ] || echo 1 >$f; exec cat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What went over the cable, both ways together; bytes are those of IP packets."""

    packets: int
    octets: int

    def __sub__(self, earlier: Passed) -> Passed:
        return Passed(packets=self.packets - earlier.packets, octets=self.octets - earlier.octets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One end of the cable. `holder` is the process whose network namespace it is."""

    address: IPv4Address
    holder: int

    @property
    def hardware_address(self) -> str:
        """Locally administered, made from the IP address."""
        return "02:00:" + self.address.packed.hex(":")

    def command(self, *argv: str) -> list[str]:
        """The command that runs `argv` on this host; its process becomes the program itself."""
        return ["nsenter", f"--net=/proc/{self.holder}/ns/net", "--", *argv]

    def passed(self) -> Passed:
        """What this end of the cable has seen since it was laid."""
        for line in Path(f"/proc/{self.holder}/net/dev").read_text().splitlines():
            name, _, counters = line.partition(":")
            if name.strip() == _CABLE:
                fields = [int(field) for field in counters.split()]
                packets = fields[1] + fields[9]
                return Passed(packets=packets, octets=fields[0] + fields[8] - packets * _ETHERNET_HEADER)
        raise BenchmarkError("the cable between the hosts is gone")


@contextlib.contextmanager
def cable() -> Generator[tuple[Host, Host]]:
    """The initiator's and the responder's host, until the block ends. Raises BenchmarkError, also when not root."""
    if os.geteuid() != 0:
        raise BenchmarkError("both daemons need network namespaces of their own: run as root (sudo make bench-ike)")
    with contextlib.ExitStack() as stack:
        hosts = (
            Host(address=INITIATOR_ADDRESS, holder=stack.enter_context(_namespace())),
            Host(address=RESPONDER_ADDRESS, holder=stack.enter_context(_namespace())),
        )
        ends = [f"name {_CABLE} address {host.hardware_address} netns {host.holder}" for host in hosts]
        _run(["ip", "link", "add", *ends[0].split(), "type", "veth", "peer", *ends[1].split()])
        for host, other in (hosts, hosts[::-1]):
            for command in (
                f"ip link set {_CABLE} up",
                "ip link set lo up",
                f"ip address add {host.address}/24 dev {_CABLE}",
                # Neighbours are known beforehand, so that nothing but IKE is counted.
                f"ip neighbour replace {other.address} lladdr {other.hardware_address} dev {_CABLE}",
            ):
                _run(host.command(*command.split()))
        yield hosts


@contextlib.contextmanager
def _namespace() -> Generator[int]:
    """The process id of a holder of a network namespace of its own."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdin is not None
            assert holder.stdout is not None
            holder.stdin.write(b"made\n")
            holder.stdin.flush()
            if not holder.stdout.readline():  # cat answers from inside the namespace
                raise BenchmarkError("this machine makes no network namespace: in a container, run it privileged")
            yield holder.pid
        finally:
            holder.kill()


def _run(argv: list[str]) -> str:
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError as error:
        raise BenchmarkError(f"{argv[0]} is not installed: apt-get install iproute2 util-linux") from error
    except subprocess.CalledProcessError as error:
        raise BenchmarkError(f"`{' '.join(argv)}` failed: {str(error.stderr).strip()}") from error
