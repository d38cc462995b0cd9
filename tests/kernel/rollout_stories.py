"""Tunnels that come, change and go phase by phase under traffic, told inside a kernel with ESP.

The network is that of `agent_stories`: three agents that follow directories. What the operator does in a cluster is
done here with its own functions: from the agents' reports to the next phase, and into the plan. Meanwhile every pod
sends numbered packets to every other one, in both families.
"""

from __future__ import annotations

import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from itertools import permutations
from pathlib import Path
from typing import Final

from hauberk_api.mesh import NonMembers
from hauberk_api.node import NodeSpec, Role
from hauberk_api.plan import Phase, PlannedTunnel, final_phase
from hauberk_api.report import ReportStatus
from hauberk_api.tunnel import Enforcement, Rollout
from hauberk_operator.facts import MemberFacts, NodeFacts, ReportFacts
from hauberk_operator.passage import Passages
from hauberk_operator.rollout import Rolling, roll_out, take_back, waits_for
from hauberk_xfrm import ClearCounter
from tests.kernel.agent_stories import MARKER, NUMBERS, TUNNEL, World, in_clear, inside, ip, policies, spis, tell_all

PORT: Final = 7778
INTERVAL_SECONDS: Final = 0.02
ROLLOUT_SECONDS: Final = 150.0
NODES: Final = tuple(
    NodeFacts(
        name=f"n{number}", uid=f"uid-{number}", created="", labels={}, linux=True, addresses=(), pod_cidrs=(),
        ready=True, startup_taint=False,
    )
    for number in NUMBERS
)  # fmt: skip
MEMBERS: Final = {node.name: Role.MEMBER for node in NODES}
Path_ = tuple[int, int, int]
"""From pod, to pod, IP version."""


class Traffic:
    """Numbered packets on every path, from a thread of its own."""

    def __init__(self) -> None:
        self.sent: dict[Path_, int] = {}
        self.arrived: dict[Path_, set[int]] = {}
        self._ended = threading.Event()
        self._sockets: dict[tuple[int, int], socket.socket] = {}
        self._hosts: dict[tuple[int, int], str] = {}
        for number in NUMBERS:
            for version, host in ((4, f"10.244.{number}.2"), (6, f"fd00:244:{number}::2")):
                with inside(f"p{number}"):
                    sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
                sock.bind((host, PORT))
                sock.setblocking(False)
                self._sockets[number, version], self._hosts[number, version] = sock, host
        self._thread = threading.Thread(target=self._run, name="traffic")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends it when what is under way has arrived."""
        self._ended.set()
        self._thread.join()
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            self._take(0.1)
        for sock in self._sockets.values():
            sock.close()

    def lost(self) -> dict[str, list[int]]:
        """The numbers that did not arrive, by path."""
        return {
            f"p{one}->p{other} IPv{version}": missing
            for (one, other, version), sent in self.sent.items()
            if (missing := sorted(set(range(sent)) - self.arrived.get((one, other, version), set())))
        }

    def total(self) -> int:
        return sum(self.sent.values())

    def _run(self) -> None:
        while not self._ended.is_set():
            for one, other in permutations(NUMBERS, 2):
                for version in (4, 6):
                    path = (one, other, version)
                    number = self.sent.get(path, 0)
                    payload = b"%s %d %d %d %d" % (MARKER, *path, number)
                    self.sent[path] = number + 1
                    try:
                        self._sockets[one, version].sendto(payload, (self._hosts[other, version], PORT))
                    except OSError:
                        continue  # it counts as sent, and is lost
            self._take(INTERVAL_SECONDS)

    def _take(self, seconds: float) -> None:
        """And all that has come, however late we are: what is left lying is lost when the socket is full."""
        deadline = time.monotonic() + seconds
        late = False
        while not late:
            late = (left := deadline - time.monotonic()) <= 0
            readable, _, _ = select.select(list(self._sockets.values()), [], [], max(left, 0.0))
            for sock in readable:
                with suppress(BlockingIOError):
                    while True:
                        one, other, version, number = (int(word) for word in sock.recv(200).split()[1:])
                        self.arrived.setdefault((one, other, version), set()).add(number)


@contextmanager
def traffic() -> Generator[Traffic]:
    """Traffic while the block runs."""
    running = Traffic()
    running.start()
    try:
        yield running
    finally:
        running.stop()


def report(number: int) -> ReportStatus:
    """What a node's agent has said last."""
    return ReportStatus.model_validate_json(_report_file(number).read_bytes())


def _report_file(number: int) -> Path:
    return Path(f"/run/state/n{number}/report.json")


def rolling() -> Rolling:
    """What the agents have reported by now."""
    reports: dict[str, ReportFacts] = {}
    for number in NUMBERS:
        if _report_file(number).exists():
            reports[f"n{number}"] = ReportFacts(name=f"n{number}", uid="", status=report(number))
    return Rolling(uid=TUNNEL, nodes=NODES, reports=reports)


def follow(world: World, wanted: PlannedTunnel | None, *, until: Callable[[], bool] | None = None) -> list[Phase]:
    """Does as the operator does, to the end or until something holds. The phases that the plan has been through.

    None: the tunnel is removed.
    """
    phases: list[Phase] = [tunnel.phase for tunnel in world.mesh.tunnels]
    started = time.monotonic()
    while True:
        last = next(iter(world.mesh.tunnels), None)
        if wanted is None:
            if last is None:
                return phases
            entry = take_back(last, None, members=MEMBERS, rolling=rolling())
        else:
            entry = roll_out(wanted, last, Rollout.GRADUAL, members=MEMBERS, rolling=rolling())
        if entry != last:
            world.mesh.tunnels = [] if entry is None else [entry]
            world.mesh.publish()
            if entry is not None and phases[-1:] != [entry.phase]:
                phases.append(entry.phase)
                print(f"{time.monotonic() - started:6.1f} s: {entry.phase}", flush=True)
        last_phase = final_phase(wanted.enforcement) if wanted is not None else None
        arrived = entry is not None and entry.phase is last_phase
        if arrived and entry and not waits_for(entry, entry.phase, members=MEMBERS, rolling=rolling()):
            return phases
        if until is not None and until():
            return phases
        assert time.monotonic() - started < ROLLOUT_SECONDS, (
            f"stays in {phases[-1]}, waiting for "
            f"{last and waits_for(last, final_phase(last.enforcement), members=MEMBERS, rolling=rolling())}"
        )
        time.sleep(0.1)


def mesh(enforcement: Enforcement = Enforcement.STRICT, generation: int = 1) -> PlannedTunnel:
    return PlannedTunnel(name="mesh", uid=TUNNEL, generation=generation, phase=Phase.ACCEPT, enforcement=enforcement)


def unlearn_what_crossed(world: World) -> None:
    time.sleep(0.3)
    world.wire.taken()


def a_tunnel_is_applied_under_traffic_without_losing_a_packet(world: World) -> None:
    world.mesh.tunnels = []
    world.mesh.publish()
    for number in NUMBERS:
        world.mesh.start(number)
    with traffic() as running:
        time.sleep(3)  # numbers go by in clear
        assert follow(world, mesh()) == list(Phase)
        unlearn_what_crossed(world)
        time.sleep(2)
        frames = world.wire.taken()
    assert frames
    assert in_clear(frames) == 0, "from Block on"
    assert running.lost() == {}, running.lost()
    assert running.total() > 2000


def a_permissive_tunnel_and_back_under_traffic(world: World) -> None:
    with traffic() as running:
        time.sleep(1)
        assert follow(world, mesh(Enforcement.PERMISSIVE, 2)) == [Phase.BLOCK, Phase.REQUIRE, Phase.PROTECT]
        unlearn_what_crossed(world)
        time.sleep(1)
        assert in_clear(world.wire.taken()) == 0, "a permissive tunnel encrypts where it can"
        before = spis(2)
        world.mesh.end(2, signal.SIGKILL)
        world.mesh.start(2)
        deadline = time.monotonic() + 120  # the old inbound SAs linger for more than half a minute
        while spis(2) & before or len(spis(2)) != 4:
            assert time.monotonic() < deadline, "fresh SAs under the old ones, and the old ones gone"
            time.sleep(0.1)
        assert in_clear(world.wire.taken()) == 0, "what the killed agent has left stands in"
        assert follow(world, mesh(Enforcement.STRICT, 3)) == [Phase.PROTECT, Phase.REQUIRE, Phase.BLOCK]
    assert in_clear(world.wire.taken()) == 0, "all the time"
    assert running.lost() == {}, running.lost()


def a_tunnel_is_removed_under_traffic_without_losing_a_packet(world: World) -> None:
    with traffic() as running:
        time.sleep(1)
        assert follow(world, None) == list(reversed(Phase))
        deadline = time.monotonic() + 60
        while any(spis(number) or policies(number) for number in NUMBERS):
            assert time.monotonic() < deadline, "empty kernels"
            time.sleep(0.1)
        unlearn_what_crossed(world)
        time.sleep(1)
        assert in_clear(world.wire.taken()) > 0
    assert running.lost() == {}, running.lost()


def block_ike(*, block: bool) -> None:
    """Whether n2 drops n1's IKE, silently: by routing rules ahead of the local table's, which is moved for them."""
    if not any(line.startswith("10:") for line in ip("-n", "n2", "rule").splitlines()):
        ip("-n", "n2", "rule", "add", "pref", "10", "lookup", "local")
        ip("-n", "n2", "rule", "del", "pref", "0")
    for pref, port in (("5", "500"), ("6", "4500")):
        rule = ("pref", pref, "from", "10.250.0.1", "ipproto", "udp", "dport", port, "blackhole")
        ip("-n", "n2", "rule", "add" if block else "del", *rule)


def a_permissive_tunnel_counts_what_passes_in_clear(world: World) -> None:
    block_ike(block=True)
    with traffic() as running:
        assert follow(world, mesh(Enforcement.PERMISSIVE, 4)) == [Phase.ACCEPT, Phase.ESTABLISH, Phase.PROTECT]
        deadline = time.monotonic() + 60
        while not all(report(number).clear_packets for number in (1, 2)):
            assert time.monotonic() < deadline, "n1 and n2 report packets in clear"
            time.sleep(0.5)
        assert report(1).unwell[0].node == "n2"
        clear = world.mesh.status(1)["clear"]
        assert min(clear["arriving"], clear["leaving"]) > 20, clear
        block_ike(block=False)
        while [len(spis(number)) for number in NUMBERS] != [4, 4, 4]:
            assert time.monotonic() < deadline, "that pair's SAs"
            time.sleep(0.1)
        time.sleep(6)  # the responder waits until the initiator holds the SA for sure
        unlearn_what_crossed(world)
        time.sleep(11)  # the counter is looked at every 10 s
        assert in_clear(world.wire.taken()) == 0
        before = world.mesh.status(1)["clear"]
        time.sleep(11)
        assert world.mesh.status(1)["clear"] == before, "what is encrypted is not counted"
        assert follow(world, None) == [Phase.PROTECT, Phase.ESTABLISH, Phase.ACCEPT]
    assert running.lost() == {}, running.lost()
    with inside("n1"):
        assert ClearCounter().read() is None, "the table goes with its tunnel"


def a_pair_that_cannot_speak_ike_holds_the_phase_and_loses_nothing(world: World) -> None:
    block_ike(block=True)
    with traffic() as running:
        time.sleep(1)

        def held() -> bool:
            """Whether the others are encrypted, and the plan has waited for that pair for a while."""
            now = next(iter(world.mesh.tunnels), None)
            return (
                now is not None
                and now.phase is Phase.PROTECT
                and waits_for(now, Phase.BLOCK, members=MEMBERS, rolling=rolling()) == ("n1 and n2",)
                and [len(spis(number)) for number in NUMBERS] == [2, 2, 4]
            )

        assert follow(world, mesh(generation=5), until=held) == [Phase.ACCEPT, Phase.ESTABLISH, Phase.PROTECT]
        time.sleep(8)
        unlearn_what_crossed(world)
        time.sleep(1)
        clear = {frame[26:34] for frame in world.wire.taken() if MARKER in frame and frame[12:14] == b"\x08\x00"}
        pods = {bytes((10, 244, number, 2)) for number in (1, 2)}
        assert clear == {one + other for one, other in permutations(sorted(pods), 2)}, "that pair and no other"
        block_ike(block=False)
        assert follow(world, mesh(generation=5)) == [Phase.PROTECT, Phase.REQUIRE, Phase.BLOCK]
    assert running.lost() == {}, running.lost()


def a_node_that_joins_a_blocking_mesh_goes_straight_there(world: World) -> None:
    world.mesh.members = [1, 2]
    world.mesh.publish()
    deadline = time.monotonic() + 60
    while [len(spis(number)) for number in (1, 2)] != [2, 2]:
        assert time.monotonic() < deadline, "n3 is out"
        time.sleep(0.1)
    unlearn_what_crossed(world)
    with traffic():
        world.mesh.members = [1, 2, 3]
        world.mesh.publish()
        while [len(spis(number)) for number in NUMBERS] != [4, 4, 4]:
            assert time.monotonic() < deadline, "n3 is in"
            time.sleep(0.1)
    assert [line.phase for line in report(3).tunnels] == [Phase.BLOCK]
    # n3 alone did not know of the tunnel for a moment; n1 and n2 had their block all the time.
    sent_in_clear = [
        frame for frame in world.wire.taken() if MARKER in frame and frame[26:30] != bytes((10, 244, 3, 2))
    ]
    assert [frame for frame in sent_in_clear if frame[12:14] == b"\x08\x00"] == []


def pass_on(world: World, number: int, *, inwards: bool) -> list[str]:
    """Does as the operator does while a node's labels let it into the tunnel, or out. The steps that it took."""
    name = f"n{number}"
    mesh, steps = world.mesh, list[str]()
    wanted = {node.name: Role.MEMBER for node in NODES if node.name != name or inwards}
    deadline = time.monotonic() + ROLLOUT_SECONDS
    while not steps or steps[-1] not in ("in", "out"):
        passages = Passages(
            tunnel=mesh.tunnels[0],
            rollout=Rollout.GRADUAL,
            non_members=NonMembers.ALLOW,
            nodes={node.name: node for node in NODES},
            members={
                node.name: MemberFacts(
                    name=node.name, uid="", spec=NodeSpec(nodeUID=node.uid, addresses=()), owner_uid=""
                )
                for node in NODES
            },
            reports=rolling().reports,
        )
        present = {f"n{other}": Role.MEMBER for other in NUMBERS if (other, TUNNEL) not in mesh.roles}
        roles, lags = passages.pass_on(wanted, present, {f"n{other}": at for other, at in mesh.passing.items()})
        here = lags[name].value if name in lags else "in" if name in roles else "out"
        if [here] != steps[-1:]:
            steps.append(here)
            mesh.roles = {} if name in roles else {(number, TUNNEL): None}
            mesh.passing = {number: lags[name]} if name in lags else {}
            mesh.publish(seconds_apart=0.5)
        assert time.monotonic() < deadline, f"stays where it is: {steps}, {report(number).to_object()}"
        time.sleep(0.1)
    return steps


def of_others(frames: list[bytes], number: int) -> int:
    """How many frames in clear are not a node's pod's."""
    pod = [ip_address(address).packed for address in (f"10.244.{number}.2", f"fd00:244:{number}::2")]
    return in_clear([frame for frame in frames if not any(address in frame[22:54] for address in pod)])


def a_node_leaves_a_blocking_tunnel_and_enters_it_again_without_losing_a_packet(world: World) -> None:
    """Each step reaches the nodes one after the other, and the node itself last."""
    with traffic() as running:
        time.sleep(1)
        unlearn_what_crossed(world)
        assert pass_on(world, 3, inwards=False) == ["Protect", "Establish", "out"]
        time.sleep(3)
        frames = world.wire.taken()
        assert in_clear(frames) > 0, "n3's are in clear"
        assert of_others(frames, 3) == 0, "and nobody else's"
        deadline = time.monotonic() + 60
        while spis(3) or policies(3):
            assert time.monotonic() < deadline, "an empty kernel"
            time.sleep(0.1)
        assert pass_on(world, 3, inwards=True) == ["Protect", "in"]
        time.sleep(2)
        assert of_others(world.wire.taken(), 3) == 0
        time.sleep(2)
        assert in_clear(world.wire.taken()) == 0
    assert running.lost() == {}, running.lost()
    assert [line.phase for line in report(3).tunnels] == [Phase.BLOCK]


STORIES: Final[tuple[Callable[[World], None], ...]] = (
    a_tunnel_is_applied_under_traffic_without_losing_a_packet,
    a_permissive_tunnel_and_back_under_traffic,
    a_tunnel_is_removed_under_traffic_without_losing_a_packet,
    a_permissive_tunnel_counts_what_passes_in_clear,
    a_pair_that_cannot_speak_ike_holds_the_phase_and_loses_nothing,
    a_node_that_joins_a_blocking_mesh_goes_straight_there,
    a_node_leaves_a_blocking_tunnel_and_enters_it_again_without_losing_a_packet,
)

if __name__ == "__main__":
    tell_all(STORIES, Path(sys.argv[1]))
