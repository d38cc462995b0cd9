"""What three agents promise each other, told inside a kernel with ESP.

`worlds` has one booted and starts this program (`python -m tests.kernel.agent_stories OUTCOMES`). Nodes and
pods are network namespaces:

    [p1] 10.244.1.2 ---- [n1] 10.250.0.1 --+
    [p2] 10.244.2.2 ---- [n2] 10.250.0.2 --+-- bridge in [wire], where every packet between nodes is seen
    [p3] 10.244.3.2 ---- [n3] 10.250.0.3 --+

and the same in IPv6: fd00:244:N::2, fd00:250::N. The stories are told in order: each begins where the one before it
ended, and none is told after one that failed. OUTCOMES gets a JSON object: the story's name, and null or what went
wrong.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import combinations, permutations
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives import serialization

from hauberk_api.certificate import node_dns_names
from hauberk_api.kinds import API_VERSION, MESH_KIND, NODE_KIND
from hauberk_api.mesh import NonMembers
from hauberk_api.names import NodeName, NodeUid
from hauberk_api.node import Membership, NodeSpec, Role
from hauberk_api.plan import Phase, Plan, PlannedTunnel
from hauberk_api.tunnel import Encapsulation, Esp
from hauberk_xfrm import AddState, Aead, Lifetime, ReqId, Spi, State, Xfrm
from tests.unit.ike.authority import Authority

MARKER: Final = b"HAUBERK-CLEAR-MARKER"
TUNNEL: Final = "11111111-1111-1111-1111-111111111111"
NUMBERS: Final = (1, 2, 3)
CLONE_NEWNET: Final = 0x40000000
ETH_P_ALL: Final = 3
ESP: Final = 50
OVERRUN: Final = "the kernel had more to say than could be heard"
"""What an agent says whose event socket was too small."""
PORT: Final = 7777
PATIENCE_SECONDS: Final = 120.0
"""Generous: the machine may be busy. What a story promises within a time is asserted apart."""

_libc = ctypes.CDLL(None, use_errno=True)


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


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
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Pods:
    """A UDP socket in every pod and family, and one in node n1; packets between them."""

    def __init__(self) -> None:
        self.sockets: dict[tuple[int, int], socket.socket] = {}
        for number in NUMBERS:
            for version, host in ((4, f"10.244.{number}.2"), (6, f"fd00:244:{number}::2")):
                self.sockets[number, version] = self._open(f"p{number}", version, host)
        self.host = self._open("n1", 4, "10.250.0.1")
        self.count = 0

    def _open(self, namespace: str, version: int, host: str) -> socket.socket:
        with inside(namespace):
            sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        sock.bind((host, PORT))
        sock.settimeout(1.0)
        return sock

    def passes(self, sender: socket.socket, receiver: socket.socket) -> bool:
        """Whether a packet arrives, before a second is over."""
        self.count += 1
        payload = MARKER + str(self.count).encode()
        try:
            sender.sendto(payload, receiver.getsockname()[:2])
            while receiver.recv(100) != payload:
                pass
        except (TimeoutError, OSError):
            return False
        return True

    def silent(self) -> list[str]:
        """The paths on which a packet is lost: pods of each pair, both families, and a node with a peer's pod."""
        lost: list[str] = []
        for (one, other), version in ((pair, version) for pair in permutations(NUMBERS, 2) for version in (4, 6)):
            if not self.passes(self.sockets[one, version], self.sockets[other, version]):
                lost.append(f"p{one}->p{other} IPv{version}")
        if not self.passes(self.host, self.sockets[2, 4]):
            lost.append("n1->p2")
        if not self.passes(self.sockets[2, 4], self.host):
            lost.append("p2->n1")
        return lost


class Wire:
    """All that crosses between the nodes, as the bridge's ports see it (twice: coming and going)."""

    def __init__(self) -> None:
        with inside("wire"):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            self._socket.setblocking(False)

    def taken(self) -> list[bytes]:
        """The frames since the last time."""
        frames: list[bytes] = []
        while True:
            try:
                frames.append(self._socket.recv(65535))
            except BlockingIOError:
                return frames


def is_esp(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\x00" and frame[23] == ESP


def in_clear(frames: Iterable[bytes]) -> int:
    return sum(1 for frame in frames if MARKER in frame)


class Mesh:
    """The agents, and the directories that they follow."""

    def __init__(self) -> None:
        self.agents: dict[int, subprocess.Popen[bytes]] = {}
        self.holders: list[subprocess.Popen[bytes]] = []
        self.members: list[int] = [*NUMBERS]
        self.passing: dict[int, Phase] = {}
        """Nodes that enter or leave the tunnels, and how far they are."""
        self.revoked: tuple[str, ...] = ()
        """Names or UIDs of nodes."""
        self.roles: dict[tuple[int, str], Role | None] = {}
        """By number and tunnel UID: what a node is there if not a Member; None: not in it."""
        self.non_members = NonMembers.ALLOW
        self.tunnels = [PlannedTunnel(name="mesh", uid=TUNNEL, generation=1, phase=Phase.BLOCK)]
        self.altered: dict[int, dict[str, Any]] = {}
        """By number: fields of a node's spec that are not as usual."""
        self.authority = Authority()
        for number in NUMBERS:
            self.directory(number).mkdir(parents=True)
            self.certify(number, f"uid-{number}")
        self.publish()

    def certify(self, number: int, uid: str) -> None:
        """Gives a node a key and a certificate for a UID; to be read with what is published next."""
        now = datetime.now(UTC)
        names = node_dns_names(NodeUid(uid), NodeName(f"n{number}"))
        key, certificate = self.authority.issue(
            *names, not_before=now - timedelta(hours=1), not_after=now + timedelta(hours=1)
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.directory(number) / "tls.key").write_bytes(pem)
        (self.directory(number) / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def directory(self, number: int) -> Path:
        return Path(f"/run/source/n{number}")

    def publish(self, *, seconds_apart: float = 0.0) -> None:
        """Tells all agents what is wanted, one after the other."""
        bundle = self.authority.certificate.public_bytes(serialization.Encoding.PEM).decode()
        plan = Plan(
            generation=1,
            pod_networks=("10.244.0.0/16", "fd00:244::/32"),
            non_members=self.non_members,
            trust_bundle=bundle,
            revoked_nodes=self.revoked,
            tunnels=tuple(self.tunnels),
        )
        objects: list[dict[str, Any]] = [
            {"kind": MESH_KIND, "metadata": {"name": "default"}, "status": {"plan": plan.to_object()}}
        ]
        for number in self.members:
            spec = NodeSpec(
                nodeUID=f"uid-{number}",
                addresses=(f"10.250.0.{number}", f"fd00:250::{number}"),
                podCIDRs=(f"10.244.{number}.0/24", f"fd00:244:{number}::/64"),
                memberships=self._memberships(number),
            ).model_copy(update=self.altered.get(number, {}))
            objects.append({"kind": NODE_KIND, "metadata": {"name": f"n{number}"}, "spec": spec.to_object()})
        text = "\n---\n".join(json.dumps({"apiVersion": API_VERSION, **item}) for item in objects)
        for place, number in enumerate(NUMBERS):
            if place and seconds_apart:
                time.sleep(seconds_apart)
            new = self.directory(number) / "objects.new"
            new.write_text(text)
            new.rename(self.directory(number) / "objects.yaml")

    def _memberships(self, number: int) -> tuple[Membership, ...]:
        roles = {tunnel.uid: self.roles.get((number, tunnel.uid), Role.MEMBER) for tunnel in self.tunnels}
        phase = self.passing.get(number)
        return tuple(Membership(tunnel=uid, role=role, phase=phase) for uid, role in roles.items() if role is not None)

    def start(self, number: int, *options: str) -> None:
        command = self._command(
            number, "run", f"--node-name=n{number}", f"--source-dir={self.directory(number)}",
            f"--state-dir=/run/state/n{number}", f"--socket=/run/state/n{number}.sock",
            f"--holder-socket=/run/holder/n{number}/sockets", *options,
        )  # fmt: skip
        with open(f"/run/results/n{number}.log", "ab") as log:
            self.agents[number] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def hold(self, number: int) -> None:
        """Starts a node's socket holder."""
        command = [str(Path(sys.executable).parent / "hauberk-holder"), f"--socket=/run/holder/n{number}/sockets"]
        with open(f"/run/results/holder{number}.log", "ab") as log:
            self.holders.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def held(self, number: int) -> bool:
        """Whether the node's agent has given it all its sockets: two ports for two addresses."""
        said = Path(f"/run/results/holder{number}.log").read_text().splitlines()
        return said[-1].count(f"10.250.0.{number}:") == said[-1].count(f"[fd00:250::{number}]:") == 2

    def end(self, number: int, signal_number: int) -> int:
        agent = self.agents.pop(number)
        agent.send_signal(signal_number)
        return agent.wait(timeout=PATIENCE_SECONDS)

    def status(self, number: int) -> dict[str, Any]:
        command = self._command(number, "status", "-o", "json", f"--socket=/run/state/n{number}.sock")
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def cleanup(self, number: int) -> subprocess.CompletedProcess[str]:
        command = self._command(number, "cleanup", f"--state-dir=/run/state/n{number}")
        return subprocess.run(command, check=False, capture_output=True, text=True)

    def _command(self, number: int, *arguments: str) -> list[str]:
        program = Path(sys.executable).parent / "hauberk-agent"
        return ["ip", "netns", "exec", f"n{number}", str(program), *arguments]


def spis(number: int) -> set[str]:
    """The complete states of a node, as the kernel shows them."""
    blocks = re.split(r"\n(?=src )", ip("-n", f"n{number}", "xfrm", "state"))
    found = (re.search(r"spi (0x[0-9a-f]+)", block) for block in blocks if "aead" in block)
    return {match[1] for match in found if match is not None}


def encapsulated(number: int) -> bool:
    """Whether all complete states of a node, and there are some, are ESP in UDP."""
    blocks = [block for block in re.split(r"\n(?=src )", ip("-n", f"n{number}", "xfrm", "state")) if "aead" in block]
    return blocks != [] and all("encap type espinudp" in block for block in blocks)


def settled(numbers: Iterable[int]) -> bool:
    """Whether every pair holds one SA each way, both ends the same two, and nothing else is left."""
    held = {number: spis(number) for number in numbers}
    shared = [one & other for one, other in combinations(held.values(), 2)]
    return all(len(pair) == 2 for pair in shared) and set().union(*held.values()) == set().union(*shared)


def policies(number: int) -> int:
    return ip("-n", f"n{number}", "xfrm", "policy", "list", "nosock").count("src ") - _templates(number)


def _templates(number: int) -> int:
    return ip("-n", f"n{number}", "xfrm", "policy", "list", "nosock").count("tmpl src ")


def eventually(look: Callable[[], bool], what: str) -> float:
    """Seconds until it holds. Raises AssertionError when it does not."""
    started = time.monotonic()
    while not look():
        if time.monotonic() - started > PATIENCE_SECONDS:
            raise AssertionError(f"not within {PATIENCE_SECONDS:.0f} s: {what}")
        time.sleep(0.1)
    return time.monotonic() - started


def lay_wires() -> None:
    """Namespaces, bridge, addresses and routes."""
    ip("netns", "add", "wire")
    ip("-n", "wire", "link", "add", "br0", "type", "bridge")
    ip("-n", "wire", "link", "set", "br0", "up")
    for number in NUMBERS:
        node, pod = f"n{number}", f"p{number}"
        for namespace in (node, pod):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", node, "link", "add", "eth0", "type", "veth", "peer", "name", node, "netns", "wire")
        ip("-n", "wire", "link", "set", node, "master", "br0", "up")
        ip("-n", pod, "link", "add", "eth0", "type", "veth", "peer", "name", "pod", "netns", node)
        for namespace, device, addresses in (
            (node, "eth0", (f"10.250.0.{number}/24", f"fd00:250::{number}/64")),
            (node, "pod", (f"10.244.{number}.1/24", f"fd00:244:{number}::1/64")),
            (pod, "eth0", (f"10.244.{number}.2/24", f"fd00:244:{number}::2/64")),
        ):
            ip("-n", namespace, "link", "set", device, "up")
            for address in addresses:
                ip("-n", namespace, "addr", "add", address, "dev", device, *(["nodad"] if ":" in address else []))
        ip("-n", pod, "route", "add", "default", "via", f"10.244.{number}.1")
        ip("-n", pod, "-6", "route", "add", "default", "via", f"fd00:244:{number}::1")
        ip("netns", "exec", node, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    for number in NUMBERS:
        # The address range of pods that nobody has is routed to n2, so that it would cross if it were not blocked.
        for other in (*NUMBERS, 99):
            if other != number and (other, number) != (99, 2):
                via = 2 if other == 99 else other
                ip("-n", f"n{number}", "route", "add", f"10.244.{other}.0/24", "via", f"10.250.0.{via}")
                ip("-n", f"n{number}", "-6", "route", "add", f"fd00:244:{other}::/64", "via", f"fd00:250::{via}")


class World:
    """Namespaces, sockets and agents."""

    def __init__(self) -> None:
        lay_wires()
        self.pods, self.wire, self.mesh = Pods(), Wire(), Mesh()


AnyWorld = TypeVar("AnyWorld", bound=World)


def tell_all(stories: Sequence[Callable[[World], None]], outcomes_file: Path) -> None:
    """Tells stories in order, to the first that fails, and writes what became of each."""
    tell_in(World, stories, outcomes_file)


def tell_in(
    make_world: Callable[[], AnyWorld], stories: Sequence[Callable[[AnyWorld], None]], outcomes_file: Path
) -> None:
    """`tell_all`, of a world that has more in it."""
    outcomes: dict[str, str | None] = {}
    world = make_world()
    for story in stories:
        started = time.monotonic()
        try:
            story(world)
            outcomes[story.__name__] = None
        except Exception:  # noqa: BLE001 - whatever went wrong is the outcome
            logs = [f"n{number}: {Path(f'/run/results/n{number}.log').read_text()}" for number in world.mesh.agents]
            outcomes[story.__name__] = "\n".join((traceback.format_exc(), *logs))
            break
        print(f"{story.__name__}: {time.monotonic() - started:.1f} s", flush=True)
    for story in stories[len(outcomes) :]:
        outcomes[story.__name__] = "not told, because one before it failed"
    for process in (*world.mesh.agents.values(), *world.mesh.holders):
        process.kill()
    outcomes_file.write_text(json.dumps(outcomes))
    os.sync()


def without_agents_the_wire_shows_everything(world: World) -> None:
    eventually(lambda: world.pods.silent() == [], "all paths carry packets")
    assert in_clear(world.wire.taken()) > 0, "a wire that shows nothing now proves nothing later"


def all_pairs_are_encrypted_and_nothing_crosses_in_clear(world: World) -> None:
    for number in NUMBERS:
        world.mesh.start(number)
    eventually(lambda: [len(spis(number)) for number in NUMBERS] == [4, 4, 4], "an SA each way for each pair")
    world.wire.taken()
    for _ in range(5):
        assert world.pods.silent() == []
    frames = world.wire.taken()
    assert in_clear(frames) == 0
    pairs = {(frame[26:30], frame[30:34]) for frame in frames if is_esp(frame)}
    assert len(pairs) == 6, "ESP both ways between all nodes"


def both_ends_hold_the_same_spis_and_count_bytes(world: World) -> None:
    def counting() -> bool:
        """Whether each of n1's peers has one child, and it counts packets both ways."""
        assert world.pods.silent() == []
        children = [peer["children"] for peer in world.mesh.status(1)["peers"]]
        return all(len(c) == 1 and c[0]["in"]["bytes"] > 0 and c[0]["out"]["packets"] > 0 for c in children)

    # All three have begun at once: crossing IKE SAs have been set up, and the losing ones' SAs go by and by.
    eventually(lambda: settled(NUMBERS) and counting(), "one SA each way for each pair, the same at both ends, in use")
    status = world.mesh.status(1)
    assert status["ready"] is True
    assert [peer["node"] for peer in status["peers"]] == ["n2", "n3"]


def unknown_addresses_in_the_pod_range_are_blocked(world: World) -> None:
    world.wire.taken()
    for version, host in ((4, "10.244.99.2"), (6, "fd00:244:99::2")):
        for _ in range(3):
            with suppress(OSError):  # the kernel may say so
                world.pods.sockets[1, version].sendto(MARKER, (host, PORT))
    time.sleep(0.5)
    assert in_clear(world.wire.taken()) == 0


def a_killed_agent_is_replaced_without_losing_a_packet(world: World) -> None:
    before = spis(2)
    world.wire.taken()
    assert world.mesh.end(2, signal.SIGKILL) != 0
    for _ in range(3):
        assert world.pods.silent() == []
    assert spis(2) == before, "the kernel goes on"
    world.mesh.start(2)
    lost: list[str] = []

    def replaced() -> bool:
        lost.extend(world.pods.silent())
        return not spis(2) & before and len(spis(2)) == 4

    eventually(replaced, "fresh SAs under the old ones, and the old ones gone")
    assert lost == []
    assert in_clear(world.wire.taken()) == 0


def sigterm_leaves_everything_in_place(world: World) -> None:
    before, held = spis(3), policies(3)
    assert world.mesh.end(3, signal.SIGTERM) == 0
    assert (spis(3), policies(3)) == (before, held)
    assert world.pods.silent() == []


def a_peer_that_is_gone_leaves_nothing_in_the_others_kernels(world: World) -> None:
    world.mesh.members = [1, 2]
    world.mesh.publish()
    eventually(lambda: len(spis(1)) == len(spis(2)) == 2, "n3's SAs are gone from n1 and n2")
    assert len(spis(1) & spis(2)) == 2


def cleanup_removes_ours_and_nothing_else(world: World) -> None:
    foreign = (
        "xfrm",
        "policy",
        "add",
        "src",
        "203.0.113.0/24",
        "dst",
        "198.51.100.0/24",
        "dir",
        "out",
        "priority",
        "9",
    )
    ip("-n", "n3", *foreign)
    held, states = policies(3) - 1, len(spis(3))
    assert held > 0
    assert states >= 4
    done = world.mesh.cleanup(3)
    assert done.returncode == 0, done.stderr
    said = re.fullmatch(r"removed (\d+) policies and (\d+) states\n", done.stdout)
    assert said is not None
    assert (int(said[1]), int(said[2])) == (held, states)
    assert (spis(3), policies(3)) == (set(), 1)
    refused = world.mesh.cleanup(1)
    assert refused.returncode == 1
    assert "an agent runs on this node" in refused.stderr
    ip("-n", "n3", *("delete" if word == "add" else word for word in foreign[:-2]))


def a_node_that_lost_its_kernel_state_is_back(world: World) -> None:
    world.mesh.members = [1, 2, 3]
    world.mesh.publish()
    world.mesh.start(3)
    eventually(lambda: [len(spis(number)) for number in NUMBERS] == [4, 4, 4], "an SA each way for each pair")
    assert world.pods.silent() == []


def states_that_somebody_removes_are_replaced_within_seconds(world: World) -> None:
    world.wire.taken()
    with inside("n1"), Xfrm() as xfrm:
        eventually(lambda: settled(NUMBERS), "nothing but what stays")
        removed = [
            state for state in xfrm.dump_states() if ip_address("10.250.0.2") in (state.source, state.destination)
        ]
        assert len(removed) == 2
        for state in removed:
            xfrm.delete_state(destination=state.destination, spi=state.spi, missing_ok=False)
    seconds = eventually(lambda: len(spis(1) & spis(2)) >= 2 and not world.pods.silent(), "other SAs in their place")
    assert seconds < 8, "it was found by chance, half a minute later"
    assert in_clear(world.wire.taken()) == 0
    eventually(lambda: settled(NUMBERS), "the peer has given up what it had")


def what_is_for_pods_that_have_no_route_is_not_sent_out_again_in_clear(world: World) -> None:
    """As at a boot, when the CNI makes its bridge with the first pod."""
    defaults = (("-4", "10.250.0.3"), ("-6", "fd00:250::3"))
    for family, gateway in defaults:
        ip("-n", "n1", family, "route", "add", "default", "via", gateway)
    ip("-n", "n1", "link", "set", "pod", "down")
    world.wire.taken()
    for version, host in ((4, "10.244.1.2"), (6, "fd00:244:1::2")):
        for _ in range(3):
            world.pods.sockets[2, version].sendto(MARKER, (host, PORT))
    time.sleep(0.5)
    frames = world.wire.taken()
    assert sum(map(is_esp, frames)) >= 6, "they have come to n1"
    assert in_clear(frames) == 0
    ip("-n", "n1", "link", "set", "pod", "up")
    ip("-n", "n1", "addr", "add", "fd00:244:1::1/64", "dev", "pod", "nodad")
    for family, _ in defaults:
        ip("-n", "n1", family, "route", "del", "default")
    eventually(lambda: world.pods.silent() == [], "the CNI's own routes come first")


def errors_about_packets_do_not_show_what_was_in_them(world: World) -> None:
    """What a node's own program sends to a pod that is not there is answered by the other node, which quotes it."""
    assert world.pods.silent() == []
    world.wire.taken()
    for version, host in ((4, "10.244.2.77"), (6, "fd00:244:2::77")):
        with inside("n1"):
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            sender = socket.socket(family, socket.SOCK_DGRAM)
        with sender:
            sender.bind(("10.250.0.1" if version == 4 else "fd00:250::1", 0))
            sender.connect((host, PORT))
            sender.settimeout(1.0)
            # IP_RECVERR, IPV6_RECVERR: so that it is told of errors that may pass, too
            sender.setsockopt(*((socket.IPPROTO_IP, 11) if version == 4 else (socket.IPPROTO_IPV6, 25)), 1)

            def told(sender: socket.socket = sender) -> bool:
                """The first look for the pod takes seconds."""
                try:
                    sender.send(MARKER)
                    sender.recv(100)
                except TimeoutError:
                    return False
                except OSError as error:
                    return error.errno in (errno.EHOSTUNREACH, errno.ECONNREFUSED)
                return False

            eventually(told, f"IPv{version}: the sender is told")
    frames = world.wire.taken()
    assert sum(map(is_esp, frames)) > 0
    assert in_clear(frames) == 0


def sas_that_have_carried_enough_are_rekeyed_without_losing_a_packet(world: World) -> None:
    tunnel = world.mesh.tunnels[0]
    before = spis(1)
    world.mesh.tunnels = [tunnel.model_copy(update={"generation": 2, "esp": Esp(rekey_packets=60)})]
    world.mesh.publish()
    eventually(lambda: not spis(1) & before and settled(NUMBERS), "SAs with the new limit")
    limited = spis(1)
    world.wire.taken()
    lost: list[str] = []

    def rekeyed() -> bool:
        lost.extend(world.pods.silent())
        return not spis(1) & limited

    eventually(rekeyed, "other SAs after some dozens of packets")
    assert lost == []
    assert in_clear(world.wire.taken()) == 0
    world.mesh.tunnels = [tunnel.model_copy(update={"generation": 3})]
    world.mesh.publish()
    eventually(lambda: settled(NUMBERS), "SAs without the limit")


def an_agent_that_could_not_hear_everything_compares_everything(world: World) -> None:
    agent = world.mesh.agents[1]
    said = Path("/run/results/n1.log").read_text().count(OVERRUN)
    before = spis(1)
    with inside("n1"), Xfrm() as xfrm:
        agent.send_signal(signal.SIGSTOP)
        # Strangers' states end by the thousand, while one of ours is removed: more to say than a socket holds.
        foreign = [
            State(
                source=ip_address("203.0.113.1"),
                destination=ip_address("203.0.113.2"),
                spi=Spi(0x10000 + number),
                reqid=ReqId(1),
                aead=Aead(name="rfc4106(gcm(aes))", key=b"k" * 20, icv_bits=128),
                lifetime=Lifetime(hard_seconds=1),
            )
            for number in range(4000)
        ]
        assert not any(xfrm.apply([AddState(state=state) for state in foreign]))
        removed = next(state for state in xfrm.dump_states() if str(state.destination) == "10.250.0.2")
        xfrm.delete_state(destination=removed.destination, spi=removed.spi, missing_ok=False)
        eventually(lambda: xfrm.state_table().states < len(before), "the strangers' states are gone")
        agent.send_signal(signal.SIGCONT)
    seconds = eventually(lambda: len(spis(1)) == 4 and settled(NUMBERS), "an SA in the place of the one removed")
    assert seconds < 20, "it was found by chance, half a minute later"
    assert Path("/run/results/n1.log").read_text().count(OVERRUN) == said + 1
    assert world.pods.silent() == []


def a_peer_that_gets_another_port_of_its_nat_is_followed_by_its_esp(world: World) -> None:
    tunnel = world.mesh.tunnels[0]
    world.mesh.tunnels = [
        tunnel.model_copy(update={"generation": tunnel.generation + 1, "encapsulation": Encapsulation.ALWAYS})
    ]
    world.mesh.publish()
    eventually(lambda: all(udp_ports(n) == {(4500, 4500)} for n in NUMBERS) and settled(NUMBERS), "ESP in UDP")
    # Whoever initiated pretends to be behind a NAT, and now is: of the pair n1 and n2, the one that is `behind`.
    behind, peer = (1, 2) if initiated(1, other=2) else (2, 1)
    before = spis(peer)
    # It says nothing, so that its peer hears of its port by ESP alone.
    world.mesh.agents[behind].send_signal(signal.SIGSTOP)
    rule = f"ip daddr 10.250.0.{peer} udp sport 4500 snat to 10.250.0.{behind}:40001"
    nat = f"table ip nat {{ chain out {{ type nat hook postrouting priority 100; {rule}; }}; }}"
    subprocess.run(["ip", "netns", "exec", f"n{behind}", "nft", nat], check=True)
    world.wire.taken()
    pods = world.pods.sockets
    assert world.pods.passes(pods[behind, 4], pods[peer, 4])
    seconds = eventually(lambda: {(40001, 4500), (4500, 40001)} <= udp_ports(peer), "the peer's states have the port")
    assert seconds < 5
    assert spis(peer) == before
    for version in (4, 6):
        assert world.pods.passes(pods[peer, version], pods[behind, version])
    frames = world.wire.taken()
    assert in_clear(frames) == 0
    assert any(frame[34:38] == (40001).to_bytes(2) + (4500).to_bytes(2) for frame in frames), "the NAT did nothing"
    world.mesh.agents[behind].send_signal(signal.SIGCONT)
    subprocess.run(["ip", "netns", "exec", f"n{behind}", "nft", "delete table ip nat"], check=True)
    world.mesh.tunnels = [tunnel.model_copy(update={"generation": tunnel.generation + 2})]
    world.mesh.publish()
    eventually(lambda: not any(udp_ports(n) for n in NUMBERS) and settled(NUMBERS), "ESP without UDP")
    assert world.pods.silent() == []


def initiated(number: int, *, other: int) -> bool:
    """Whether a node began the IKE SA that it has with another, as it said last."""
    found = re.findall(rf"n{other}: encrypted, .* by (us|the peer)", Path(f"/run/results/n{number}.log").read_text())
    return found[-1] == "us"


def udp_ports(number: int) -> set[tuple[int, int]]:
    """Between which ports a node's states are, where they are in UDP."""
    found = re.findall(r"espinudp sport (\d+) dport (\d+)", ip("-n", f"n{number}", "xfrm", "state"))
    return {(int(source), int(destination)) for source, destination in found}


def esp_in_udp_outlives_an_agent_whose_sockets_are_held(world: World) -> None:
    tunnel = world.mesh.tunnels[0]
    world.mesh.hold(2)
    changed = {"generation": tunnel.generation + 1, "encapsulation": Encapsulation.ALWAYS}
    world.mesh.tunnels = [tunnel.model_copy(update=changed)]
    world.mesh.publish()
    eventually(lambda: all(encapsulated(number) for number in NUMBERS) and settled(NUMBERS), "ESP in UDP everywhere")
    eventually(lambda: world.mesh.held(2), "n2's holder has its sockets")
    world.wire.taken()
    before = spis(2)
    assert world.mesh.end(2, signal.SIGKILL) != 0
    for _ in range(3):
        assert world.pods.silent() == []
    assert spis(2) == before
    world.mesh.start(2)
    lost: list[str] = []

    def replaced() -> bool:
        lost.extend(world.pods.silent())
        return not spis(2) & before and settled(NUMBERS)

    eventually(replaced, "fresh SAs under the old ones, and the old ones gone")
    assert lost == []
    frames = world.wire.taken()
    assert in_clear(frames) == 0
    assert not any(is_esp(frame) for frame in frames), "ESP crosses in UDP and not by itself"


def esp_in_udp_does_not_outlive_one_whose_sockets_nobody_holds(world: World) -> None:
    """So the story before this one proves something."""
    assert world.mesh.end(1, signal.SIGKILL) != 0
    assert any(path.startswith(("p2->p1", "p3->p1")) for path in world.pods.silent())
    world.mesh.start(1)
    eventually(lambda: settled(NUMBERS) and world.pods.silent() == [], "n1 is back")


def a_removed_tunnel_leaves_no_state_and_no_policy(world: World) -> None:
    world.mesh.tunnels = []
    world.mesh.publish()
    eventually(lambda: not any(spis(number) or policies(number) for number in NUMBERS), "empty kernels")
    assert world.pods.silent() == []
    for number in NUMBERS:
        report = Path(f"/run/state/n{number}/report.json")
        eventually(lambda report=report: json.loads(report.read_text())["stateLeft"] is False, "a clean report")
        assert world.mesh.end(number, signal.SIGTERM) == 0


STORIES: Final[tuple[Callable[[World], None], ...]] = (
    without_agents_the_wire_shows_everything,
    all_pairs_are_encrypted_and_nothing_crosses_in_clear,
    both_ends_hold_the_same_spis_and_count_bytes,
    unknown_addresses_in_the_pod_range_are_blocked,
    a_killed_agent_is_replaced_without_losing_a_packet,
    sigterm_leaves_everything_in_place,
    a_peer_that_is_gone_leaves_nothing_in_the_others_kernels,
    cleanup_removes_ours_and_nothing_else,
    a_node_that_lost_its_kernel_state_is_back,
    states_that_somebody_removes_are_replaced_within_seconds,
    what_is_for_pods_that_have_no_route_is_not_sent_out_again_in_clear,
    errors_about_packets_do_not_show_what_was_in_them,
    sas_that_have_carried_enough_are_rekeyed_without_losing_a_packet,
    an_agent_that_could_not_hear_everything_compares_everything,
    a_peer_that_gets_another_port_of_its_nat_is_followed_by_its_esp,
    esp_in_udp_outlives_an_agent_whose_sockets_are_held,
    esp_in_udp_does_not_outlive_one_whose_sockets_nobody_holds,
    a_removed_tunnel_leaves_no_state_and_no_policy,
)


if __name__ == "__main__":
    tell_all(STORIES, Path(sys.argv[1]))
