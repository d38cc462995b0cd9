"""Pods' packets that pass a node's IP stack by, as eBPF host routing has them, told inside a kernel with ESP.

The network is that of `agent_stories`. A BPF program on the node's end of a pod's device hands the pod's packets to the
network's device, as CNIs do that route in eBPF: by bpf_redirect_neigh.
"""

from __future__ import annotations

import ctypes
import json
import signal
import socket
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from struct import pack
from typing import Any, Final

from pyroute2 import IPRoute  # pyright: ignore[reportMissingTypeStubs]

from hauberk_agent.bypass_watch import DOUBT_PAUSE_SECONDS, DOUBT_WINDOW_SECONDS, PAUSE_SECONDS, WINDOW_SECONDS
from tests.kernel.agent_stories import (
    MARKER,
    NUMBERS,
    PORT,
    TUNNEL,
    World,
    all_pairs_are_encrypted_and_nothing_crosses_in_clear,
    eventually,
    in_clear,
    inside,
    ip,
    is_esp,
    policies,
    spis,
    tell_all,
)

_SYS_BPF: Final = 321
_PROG_LOAD: Final = 5
_SCHED_CLS: Final = 3
_REDIRECT_NEIGH: Final = 152
_TC_INGRESS: Final = 0xFFFFFFF2

LONGEST_SECONDS: Final = PAUSE_SECONDS + 2 * WINDOW_SECONDS + DOUBT_PAUSE_SECONDS + DOUBT_WINDOW_SECONDS + 5
"""Until what passes by is found, or what does not would have been."""

_libc = ctypes.CDLL(None, use_errno=True)


def _program(device: int, destination: str, next_hop: str) -> int:
    """A file descriptor of a program that redirects IPv4 packets for one address to a device's neighbour.

    Instructions as in Documentation/bpf/standardization/instruction-set.rst, offsets of struct __sk_buff.
    """

    def instruction(code: int, to: int = 0, source: int = 0, offset: int = 0, number: int = 0) -> bytes:
        return pack("=BBhI", code, source << 4 | to, offset, number & 0xFFFFFFFF)

    wanted, neighbour = (int.from_bytes(ip_address(host).packed, sys.byteorder) for host in (destination, next_hop))
    instructions = (
        instruction(0x61, 2, 1, 16),  # r2 = protocol
        instruction(0x55, 2, 0, 19, socket.htons(0x0800)),  # unless it is IPv4: on to the end
        instruction(0x61, 3, 1, 76),  # r3 = data
        instruction(0x61, 4, 1, 80),  # r4 = data_end
        instruction(0xBF, 5, 3),  # r5 = r3 + 34
        instruction(0x07, 5, 0, 0, 34),
        instruction(0x2D, 5, 4, 14),  # if the headers are not there: on to the end
        instruction(0x61, 6, 3, 30),  # r6 = the destination
        instruction(0x56, 6, 0, 12, wanted),  # unless it is the one: on to the end
        # struct bpf_redir_neigh: the family, and an address of up to four words
        instruction(0x62, 10, 0, -20, socket.AF_INET),
        instruction(0x62, 10, 0, -16, neighbour),
        *(instruction(0x62, 10, 0, offset) for offset in (-12, -8, -4)),
        instruction(0xBF, 2, 10),
        instruction(0x07, 2, 0, 0, -20),
        instruction(0xB7, 1, 0, 0, device),
        instruction(0xB7, 3, 0, 0, 20),
        instruction(0xB7, 4),
        instruction(0x85, number=_REDIRECT_NEIGH),
        instruction(0x95),
        instruction(0xB7, 0, 0, 0, -1),  # the end: TC_ACT_UNSPEC
        instruction(0x95),
    )
    code = ctypes.create_string_buffer(b"".join(instructions))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    log = ctypes.create_string_buffer(65536)
    attributes = pack(
        "=IIQQIIQ",
        *(_SCHED_CLS, len(instructions), ctypes.addressof(code), ctypes.addressof(licence)),
        *(1, len(log), ctypes.addressof(log)),
    )
    descriptor: int = _libc.syscall(_SYS_BPF, _PROG_LOAD, ctypes.create_string_buffer(attributes), len(attributes))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), f"the kernel takes no BPF program: {log.value.decode()}")
    return descriptor


def route_in_ebpf(node: str, destination: str, next_hop: str) -> None:
    """What the node's pod sends to that address passes the IP stack by from now on."""
    with inside(node), IPRoute() as opened:
        route: Any = opened
        pods, network = (int(route.link_lookup(ifname=name)[0]) for name in ("pod", "eth0"))
        route.tc("add", "clsact", pods)
        descriptor = _program(network, destination, next_hop)
        arguments: dict[str, Any] = {"fd": descriptor, "name": "bypass", "parent": _TC_INGRESS, "classid": 1}
        route.tc("add-filter", "bpf", pods, ":1", direct_action=True, **arguments)


def taps(number: int) -> int:
    """How many packet sockets there are in a node's network namespace."""
    return len(ip("netns", "exec", f"n{number}", "cat", "/proc/net/packet").splitlines()) - 1


def nobody_finds_a_bypass_where_there_is_none(world: World) -> None:
    """And packets in clear to a node that is no member are none; it is one again afterwards. n2 is told not to look."""
    before = spis(2)
    world.mesh.end(2, signal.SIGTERM)
    world.mesh.start(2, "--no-bypass-watch")
    eventually(lambda: len(spis(2) - before) >= 4, "n2's agent is back")
    world.mesh.roles[3, TUNNEL] = None
    world.mesh.publish()
    pods = world.pods.sockets
    eventually(lambda: spis(3) == set() and world.pods.passes(pods[1, 4], pods[3, 4]), "n3 is no member")
    world.wire.taken()
    seen: dict[int, list[int]] = {1: [], 2: []}
    deadline = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < deadline:
        for version in (4, 6):
            assert world.pods.passes(pods[1, version], pods[2, version])
            assert world.pods.passes(pods[1, version], pods[3, version])
        for number, counts in seen.items():
            counts.append(taps(number))
        time.sleep(0.2)
    assert in_clear(world.wire.taken()) > 0, "packets to n3"
    assert max(seen[1]) >= 1, "nobody looks"
    assert seen[1].count(0) > len(seen[1]) / 2, "taps are open for short"
    assert max(seen[2]) == 0
    assert {world.mesh.status(number)["datapath"]["kind"] for number in NUMBERS} == {"Routed"}
    assert [world.mesh.status(number)["problems"] for number in NUMBERS] == [[], [], []]
    del world.mesh.roles[3, TUNNEL]
    world.mesh.publish()
    eventually(lambda: [len(spis(number)) for number in NUMBERS] == [4, 4, 4], "an SA each way for each pair")
    eventually(lambda: world.pods.silent() == [], "all paths carry packets")


def packets_that_pass_the_stack_by_are_found_out(world: World) -> None:
    """And its blocks stay, and the other family goes on."""
    pods = world.pods.sockets
    blocks = policies(1)
    world.wire.taken()
    route_in_ebpf("n1", "10.244.2.2", "10.250.0.2")
    pods[1, 4].sendto(MARKER, ("10.244.2.2", PORT))
    eventually(lambda: in_clear(world.wire.taken()) > 0, "nothing passes by")

    log = Path("/run/results/n1.log")

    def found() -> bool:
        pods[1, 4].sendto(MARKER, ("10.244.2.2", PORT))
        return "leave eth0 in clear" in log.read_text()

    seconds = eventually(found, "n1's agent says what passes by")
    assert seconds < 2 * LONGEST_SECONDS
    assert world.mesh.status(1)["datapath"]["kind"] == "Bypass"
    assert world.mesh.status(1)["datapath"]["device"] == "eth0"

    def reported() -> bool:
        status = json.loads(Path("/run/state/n1/report.json").read_text())
        return not status["ready"] and status["reason"] == "UnsupportedDatapath"

    eventually(reported, "a report that says so")
    status = json.loads(Path("/run/state/n1/report.json").read_text())
    assert "leave eth0 in clear" in status["tunnels"][0]["problem"]
    assert world.mesh.status(2)["datapath"]["kind"] == "Routed"
    assert policies(1) == blocks
    world.wire.taken()
    assert world.pods.passes(pods[1, 6], pods[2, 6])
    assert world.pods.passes(pods[1, 4], pods[3, 4])
    frames = world.wire.taken()
    assert in_clear(frames) == 0
    assert any(map(is_esp, frames))


def a_bypass_is_over_with_its_tunnel(world: World) -> None:
    world.mesh.tunnels = []
    world.mesh.publish()
    eventually(lambda: not any(policies(number) for number in NUMBERS), "empty kernels")
    eventually(lambda: not any(taps(number) for number in NUMBERS), "no taps")
    assert {world.mesh.status(number)["datapath"]["kind"] for number in NUMBERS} == {"Routed"}


STORIES: Final[tuple[Callable[[World], None], ...]] = (
    all_pairs_are_encrypted_and_nothing_crosses_in_clear,
    nobody_finds_a_bypass_where_there_is_none,
    packets_that_pass_the_stack_by_are_found_out,
    a_bypass_is_over_with_its_tunnel,
)


if __name__ == "__main__":
    tell_all(STORIES, Path(sys.argv[1]))
