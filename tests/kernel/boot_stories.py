"""What protects a node from its kernel's boot on, told inside a kernel with ESP.

The network is that of `agent_stories`. n1 reboots again and again: its agent is killed, and its kernel's policies and
states are gone. A pod of it starts before the agent does, and sends.
"""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from hauberk_agent.boot_guard import FILE, MARK
from hauberk_agent.ownership import owns_policy
from hauberk_api.report import BootGuardState
from hauberk_xfrm import Action, Policy, Xfrm
from tests.kernel.agent_stories import (
    MARKER,
    NUMBERS,
    PORT,
    World,
    eventually,
    in_clear,
    inside,
    ip,
    spis,
    tell_all,
)

SCRIPT: Final = Path(__file__).parents[2] / "charts/hauberk/files/boot-guard/hauberk-guard.sh"
STATE: Final = Path("/run/state/n1")
OPTION: Final = "--boot-guard"


def crash(world: World) -> None:
    """n1's agent and all that it had in the kernel are gone, and the mark is of another boot."""
    world.mesh.end(1, signal.SIGKILL)
    ip("-n", "n1", "xfrm", "policy", "flush")
    ip("-n", "n1", "xfrm", "state", "flush")
    (STATE / MARK).unlink(missing_ok=True)


def load() -> str:
    """What the host's unit does before kubelet starts; what it said."""
    command = ["ip", "netns", "exec", "n1", "sh", str(SCRIPT), str(STATE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{done.stdout}{done.stderr}exit code {done.returncode}"


def crossed(world: World) -> int:
    """How many packets have crossed in clear by now. A pod of n1, and n1, send to all that is to be protected."""
    pods = world.pods
    for version, pod, address in ((4, "10.244.{}.2", "10.250.0.2"), (6, "fd00:244:{}::2", "fd00:250::2")):
        for host in (*(pod.format(number) for number in (2, 3, 99)), address):
            with suppress(OSError):  # the kernel may say so
                pods.sockets[1, version].sendto(MARKER, (host, PORT))
    with suppress(OSError):
        pods.host.sendto(MARKER, ("10.244.2.2", PORT))
    time.sleep(0.2)
    # Nobody else reads them, and what comes later has to find room.
    while readable := select.select(list(pods.sockets.values()), [], [], 0)[0]:
        for receiver in readable:
            receiver.recv(100)
    return in_clear(world.wire.taken())


def back() -> bool:
    """Whether n1 has SAs with both, and they with it. What they had with its former self goes by and by."""
    return len(spis(1)) == 4 and spis(1) <= spis(2) | spis(3)


def held() -> dict[str, Policy]:
    """n1's policies of ours, by slot."""
    with inside("n1"), Xfrm() as xfrm:
        return {str(policy.slot): policy for policy in xfrm.dump_policies() if owns_policy(policy)}


def foreign() -> list[Policy]:
    """n1's policies that are not ours, those of sockets aside."""
    with inside("n1"), Xfrm() as xfrm:
        return [policy for policy in xfrm.dump_policies() if not owns_policy(policy)]


@contextmanager
def changes() -> Generator[Callable[[], str]]:
    """What the kernel says of n1's policies, as `ip xfrm monitor` shows it, up to the end of the block."""
    command = ["ip", "netns", "exec", "n1", "ip", "xfrm", "monitor", "policy"]
    with Path("/run/changes").open("w+") as said:
        monitor = subprocess.Popen(command, stdout=said, stdin=subprocess.DEVNULL)
        time.sleep(0.3)
        try:
            yield Path("/run/changes").read_text
        finally:
            monitor.terminate()
            monitor.wait()


def boot() -> dict[str, Any]:
    """What n1's agent has reported of its boot."""
    return json.loads((STATE / "report.json").read_text())["boot"]


def all_pairs_are_up(world: World) -> None:
    for number in NUMBERS:
        world.mesh.start(number)
    eventually(back, "SAs with n1")
    assert world.pods.silent() == []
    assert not (STATE / FILE).exists(), "nobody asked for a guard"
    assert world.mesh.status(1)["boot"] == {"cachedPlan": False, "guard": "Absent"}, "/run is no disk"


def an_agent_that_can_ask_nobody_puts_up_the_policies_of_its_cached_plan(world: World) -> None:
    before = held()
    crash(world)
    here, away = world.mesh.directory(1), Path("/run/source/away")
    here.rename(away)
    world.mesh.start(1)
    eventually(lambda: held() == before, "the policies of before")
    status = world.mesh.status(1)
    assert status["source"]["fromCache"] is True
    assert status["source"]["problem"]
    assert status["peers"][0]["children"] == [], "policies come before SAs"
    world.wire.taken()
    assert crossed(world) == 0
    away.rename(here)
    eventually(lambda: back() and world.pods.silent() == [], "n1 is back")


def without_the_guard_a_pod_that_starts_before_the_agent_sends_in_clear(world: World) -> None:
    """So the stories after this one prove something."""
    crash(world)
    world.wire.taken()
    assert crossed(world) > 0
    world.mesh.start(1, OPTION)
    eventually(lambda: back() and world.pods.silent() == [], "n1 is back")
    eventually((STATE / FILE).exists, "a file for the guard")


def with_the_guard_nothing_leaves_in_clear_from_the_boot_on(world: World) -> None:
    before = held()
    crash(world)
    said = load()
    assert said == f"hauberk-guard: {len(before)} of {len(before)} policies are loaded\nexit code 0"
    guard = held()
    assert {slot: policy.priority for slot, policy in guard.items()} == {s: p.priority for s, p in before.items()}
    assert not any(policy.templates for policy in guard.values())
    world.wire.taken()
    assert crossed(world) == 0
    with changes() as seen:
        world.mesh.start(1, OPTION)
        sent = 0

        def encrypted() -> bool:
            nonlocal sent
            sent += 1
            assert crossed(world) == 0
            return back()

        eventually(encrypted, "SAs with n1")
        assert sent > 1
        eventually(lambda: held() == before, "the policies of before the boot")
        told = seen()
    assert re.search(r"^Updated src", told, re.MULTILINE), told
    assert "Deleted" not in told, "a policy that is replaced is never away"
    assert world.pods.silent() == []
    assert world.mesh.status(1)["boot"]["guard"] == BootGuardState.LOADED
    eventually(lambda: boot()["guard"] == BootGuardState.LOADED, "a report that says so")


def a_guarded_node_reaches_what_it_needs_to_get_its_agent(world: World) -> None:
    crash(world)
    assert "exit code 0" in load()
    pods = world.pods
    with inside("n2"):
        peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with peer:
        peer.bind(("10.250.0.2", PORT))
        peer.settimeout(1.0)
        # -> API server, IKE and ssh are at nodes' own addresses; kubelet probes pods of its own node
        assert pods.passes(pods.host, peer)
        assert pods.passes(peer, pods.host)
        assert pods.passes(pods.host, pods.sockets[1, 4])
        assert pods.passes(pods.sockets[1, 4], pods.host)
        assert not pods.passes(pods.sockets[1, 4], peer)
    world.mesh.start(1, OPTION)
    eventually(lambda: back() and pods.silent() == [], "n1 is back")


def the_guard_does_nothing_on_a_node_that_has_long_booted(world: World) -> None:
    """Somebody may start the unit by hand, and the file is of the next boot by then."""
    before = held()
    world.mesh.end(1, signal.SIGTERM)
    (STATE / FILE).write_text("# policies: 1; x\nsrc 0.0.0.0/0 dst 0.0.0.0/0 dir out priority 1 action block\n")
    assert load() == "hauberk-guard: it has run at this boot\nexit code 0"
    assert (held(), foreign()) == (before, [])
    world.mesh.start(1, OPTION)
    eventually(lambda: "10.244.2.0/24" in (STATE / FILE).read_text(), "the agent's file")


def what_the_file_says_is_no_command_and_what_is_foreign_stays(world: World) -> None:
    """Whoever may write the file, as the agent may, can make policies with it, and nothing else."""
    before = held()
    hand_made = ("src", "0.0.0.0/0", "dst", "10.244.0.0/16", "dir", "out")
    crash(world)
    ip("-n", "n1", "xfrm", "policy", "add", *hand_made, "priority", "9", "action", "block")
    lines = (STATE / FILE).read_text().splitlines()
    evil = ["netns exec n2 touch /run/evil", "src 10.0.0.0/8 dst 10.0.0.0/8 dir out priority 1 action block; x", "$(x)"]
    (STATE / FILE).write_text("\n".join([*lines, *evil, ""]))
    said = load()
    assert f"{len(before) - 1} of {len(before)} policies are loaded" in said
    assert "exit code 1" in said
    assert not Path("/run/evil").exists()
    (kept,) = foreign()
    assert (kept.priority, kept.action) == (9, Action.BLOCK)
    world.mesh.start(1, OPTION)
    eventually(back, "n1 is back")
    assert [policy.priority for policy in foreign() if policy.priority == 9] == [9]
    status = world.mesh.status(1)
    assert status["boot"]["guard"] == BootGuardState.PARTIAL
    assert any("not Hauberk's" in problem for problem in status["problems"])
    ip("-n", "n1", "xfrm", "policy", "delete", *hand_made)
    eventually(lambda: held() == before, "ours, in its place")


def what_the_guard_made_of_an_old_plan_goes_when_the_agent_knows_better(world: World) -> None:
    crash(world)
    world.mesh.members = [1, 2]
    world.mesh.publish()
    assert "exit code 0" in load()
    world.mesh.start(1, OPTION)
    eventually(lambda: len(spis(1)) == 2 and not any("10.244.3.0" in slot for slot in held()), "n3 is forgotten")
    eventually(lambda: "10.244.3.0" not in (STATE / FILE).read_text(), "by the guard too")
    world.mesh.members = [*NUMBERS]
    world.mesh.publish()
    eventually(lambda: back() and world.pods.silent() == [], "n3 is back")


def without_tunnels_there_is_no_file_and_no_policy(world: World) -> None:
    world.mesh.tunnels = []
    world.mesh.publish()
    eventually(lambda: json.loads((STATE / "report.json").read_text())["stateLeft"] is False, "a clean report")
    assert not (STATE / FILE).exists(), "who waits for a clean node waits for this too"
    crash(world)
    assert load() == "hauberk-guard: 0 of 0 policies are loaded\nexit code 0"
    assert (held(), foreign()) == ({}, [])
    world.mesh.start(1, OPTION)
    eventually(lambda: boot()["guard"] == BootGuardState.EMPTY, "an honest report")


STORIES: Final[tuple[Callable[[World], None], ...]] = (
    all_pairs_are_up,
    an_agent_that_can_ask_nobody_puts_up_the_policies_of_its_cached_plan,
    without_the_guard_a_pod_that_starts_before_the_agent_sends_in_clear,
    with_the_guard_nothing_leaves_in_clear_from_the_boot_on,
    a_guarded_node_reaches_what_it_needs_to_get_its_agent,
    the_guard_does_nothing_on_a_node_that_has_long_booted,
    what_the_file_says_is_no_command_and_what_is_foreign_stays,
    what_the_guard_made_of_an_old_plan_goes_when_the_agent_knows_better,
    without_tunnels_there_is_no_file_and_no_policy,
)


if __name__ == "__main__":
    tell_all(STORIES, Path(sys.argv[1]))
