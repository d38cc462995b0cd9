"""Nodes that come, go and change, and hands that meddle, told inside a kernel with ESP: nothing is left behind.

The network is that of `agent_stories`. What other programs have in the kernels is there from the beginning, and has to
be there at the end, untouched. What happens in between is a sequence that a seed gives.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

from hauberk_agent.boot_guard import FILE
from hauberk_agent.ownership import PRIORITIES, owns_policy, owns_state
from hauberk_xfrm import Action, DeletePolicy, Policy, ReqId, UpdatePolicy, Xfrm
from tests.kernel.agent_stories import NUMBERS, World, eventually, inside, ip, spis, tell_all

SEED: Final = 20261130
DEEDS: Final = 14
MENDED_SECONDS: Final = 60.0
"""An agent looks at everything twice a minute."""
OF_SOCKETS: Final = re.compile(r"0\.0\.0\.0/0 -> 0\.0\.0\.0/0|::/0 -> ::/0")
FOREIGN: Final[dict[int, Counter[str]]] = {}
"""By node: what was there before the agents."""
FOREIGN_SPI: Final = "0x00001001"
IN_OUR_SLOT: Final = ("src", "10.244.99.0/24", "dst", "0.0.0.0/0", "dir", "fwd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A node's XFRM database: ours without what a kernel or a table numbers anew, and what is foreign as it is."""

    policies: Counter[str]
    states: int
    foreign: Counter[str]


def kernel(number: int) -> Kernel:
    with inside(f"n{number}"), Xfrm() as xfrm:
        policies, states = xfrm.dump_policies(), xfrm.dump_states()
    ours = [policy for policy in policies if owns_policy(policy)]
    foreign = [str(policy) + str(policy.templates) for policy in policies if not owns_policy(policy)]
    foreign += [f"{state.destination} {state.spi} {state.reqid}" for state in states if not owns_state(state)]
    return Kernel(
        policies=Counter(_described(policy) for policy in ours),
        states=sum(1 for state in states if owns_state(state) and not state.larval),
        foreign=Counter(text for text in foreign if not OF_SOCKETS.search(text)),
    )


def _described(policy: Policy) -> str:
    templates = [replace(template, reqid=ReqId(0)) for template in policy.templates]
    return f"{policy} {templates}"


def kernels() -> dict[int, Kernel]:
    return {number: kernel(number) for number in NUMBERS}


def make_foreign_things(number: int) -> None:
    """What other IPsec programs and people may have: states, policies, also where ours are or could be."""
    node = ("-n", f"n{number}")
    template = ("tmpl", "src", "192.0.2.1", "dst", "192.0.2.2", "proto", "esp", "mode", "tunnel", "reqid", "1")
    key = "0x" + "11" * 20
    how = ("proto", "esp", "spi", FOREIGN_SPI, "reqid", "1", "mode", "tunnel", "aead", "rfc4106(gcm(aes))", key, "128")
    for source, destination in (("10.250.0.1", "10.250.0.2"), ("10.250.0.2", "10.250.0.1"), ("192.0.2.1", "192.0.2.2")):
        ip(*node, "xfrm", "state", "add", "src", source, "dst", destination, *how)
    by_hand = ("xfrm", "policy", "add", "src", "203.0.113.0/24", "dst", "198.51.100.0/24")
    ip(*node, *by_hand, "dir", "out", "priority", "9")
    ip(*node, *by_hand, "dir", "in", "priority", str(PRIORITIES.start + 5), *template)
    ip(*node, "xfrm", "policy", "add", *IN_OUR_SLOT, "priority", "9", *template)


def settled(world: World) -> bool:
    """Whether each node has an SA each way with each of its peers, and no other."""
    here = [number for number in NUMBERS if number in world.mesh.members]
    return all(
        len((spis(one) & spis(other)) - {FOREIGN_SPI}) == 2 for one in here for other in here if one < other
    ) and all(kernel(number).states == 2 * (len(here) - 1) for number in here)


class Churn:
    """Deeds, each of which leaves the mesh in another shape; `restore` gives it its own again."""

    def __init__(self, world: World, chance: Random) -> None:
        self.mesh = world.mesh
        self.chance = chance
        self.deeds: tuple[Callable[[], None], ...] = (
            self.leave, self.come, self.recycle_pod_cidrs, self.recycle_addresses, self.register_again,
            self.reboot_with_a_new_address, self.restart, self.meddle_with_policies, self.meddle_with_states,
            self.pod_cidrs_change,
        )  # fmt: skip

    def run(self, count: int) -> None:
        """Each deed once at least, in an order of the seed's."""
        assert count >= len(self.deeds)
        chosen = [*self.deeds, *self.chance.choices(self.deeds, k=count - len(self.deeds))]
        self.chance.shuffle(chosen)
        for deed in chosen:
            print(f"  {deed.__name__}", flush=True)
            deed()
            self.mesh.publish()
            time.sleep(self.chance.uniform(0, 2))

    def restore(self) -> None:
        self.mesh.members, self.mesh.altered = [*NUMBERS], {}
        for number in NUMBERS:
            self.mesh.certify(number, f"uid-{number}")
        self.mesh.publish()
        ip("-n", "n3", "addr", "replace", "10.250.0.3/24", "dev", "eth0")

    def leave(self) -> None:
        self.mesh.members = [number for number in self.mesh.members if number != self.chance.choice((2, 3))]

    def come(self) -> None:
        """One that nobody answers for."""
        self.mesh.members = [*NUMBERS, 9]

    def recycle_pod_cidrs(self) -> None:
        """n3 is gone, and its pods' range is another node's at once."""
        self.mesh.members = [1, 2, 9]
        self.mesh.altered[9] = {"pod_cidrs": ("10.244.3.0/24", "fd00:244:3::/64")}

    def recycle_addresses(self) -> None:
        """n3 is gone, and another node is where it was."""
        self.mesh.members = [1, 2, 9]
        self.mesh.altered[9] = {"addresses": ("10.250.0.3", "fd00:250::3")}

    def pod_cidrs_change(self) -> None:
        self.mesh.altered[2] = {"pod_cidrs": (f"10.244.{self.chance.randrange(20, 90)}.0/24",)}

    def register_again(self) -> None:
        """The Node is deleted, and is back under its name with another UID."""
        number = self.chance.choice(NUMBERS)
        uid = f"uid-{number}-{self.chance.randrange(10_000)}"
        self.mesh.certify(number, uid)
        self.mesh.altered[number] = {"node_uid": uid}

    def reboot_with_a_new_address(self) -> None:
        self.mesh.end(3, signal.SIGKILL)
        ours = [policy for policy in _policies(3) if owns_policy(policy)]
        with inside("n3"), Xfrm() as xfrm:
            xfrm.apply([DeletePolicy(slot=policy.slot) for policy in ours])
            for state in xfrm.dump_states():
                if owns_state(state):
                    xfrm.delete_state(destination=state.destination, spi=state.spi)
        ip("-n", "n3", "addr", "replace", "10.250.0.13/24", "dev", "eth0")
        self.mesh.members = [*NUMBERS]
        self.mesh.altered[3] = {"addresses": ("10.250.0.13", "fd00:250::3")}
        self.mesh.start(3)

    def restart(self) -> None:
        number = self.chance.choice(NUMBERS)
        self.mesh.end(number, self.chance.choice((signal.SIGKILL, signal.SIGTERM)))
        self.mesh.start(number)

    def meddle_with_policies(self) -> None:
        meddle_with_policies(self.chance.choice(NUMBERS), self.chance)

    def meddle_with_states(self) -> None:
        with inside(f"n{self.chance.choice(NUMBERS)}"), Xfrm() as xfrm:
            ours = [state for state in xfrm.dump_states() if owns_state(state)]
            for state in self.chance.sample(ours, k=min(2, len(ours))):
                xfrm.delete_state(destination=state.destination, spi=state.spi)


def _policies(number: int) -> list[Policy]:
    with inside(f"n{number}"), Xfrm() as xfrm:
        return xfrm.dump_policies()


def meddle_with_policies(number: int, chance: Random) -> None:
    """Somebody removes some of ours, and makes others let everything pass."""
    ours = [policy for policy in _policies(number) if owns_policy(policy)]
    removed = chance.sample(ours, k=min(3, len(ours)))
    opened = [policy for policy in ours if policy.action is Action.BLOCK]
    with inside(f"n{number}"), Xfrm() as xfrm:
        xfrm.apply([DeletePolicy(slot=policy.slot) for policy in removed])
        xfrm.apply([UpdatePolicy(policy=replace(policy, action=Action.ALLOW)) for policy in opened])


def all_pairs_are_up_beside_what_is_foreign(world: World) -> None:
    for number in NUMBERS:
        make_foreign_things(number)
        FOREIGN[number] = kernel(number).foreign
        assert sum(FOREIGN[number].values()) == 6
    for number in NUMBERS:
        world.mesh.start(number)
    eventually(lambda: settled(world), "an SA each way for each pair, and no other")
    assert {number: kernel(number).foreign for number in NUMBERS} == FOREIGN


def what_hands_change_is_mended(world: World) -> None:
    chance = Random(SEED)
    before = kernels()
    for number in NUMBERS:
        meddle_with_policies(number, chance)
    assert kernels() != before
    seconds = eventually(lambda: kernels() == before, "the policies of before")
    assert seconds < MENDED_SECONDS


def after_much_churn_kernels_are_as_before(world: World) -> None:
    before = kernels()
    churn = Churn(world, Random(SEED))
    churn.run(DEEDS)
    churn.restore()
    eventually(lambda: settled(world), "an SA each way for each pair, and no other")
    eventually(lambda: kernels() == before, "policies as before")
    eventually(lambda: world.pods.silent() == [], "traffic on all paths")


def a_policy_in_a_slot_that_we_want_is_reported_and_stays(world: World) -> None:
    world.mesh.members = [*NUMBERS, 99]
    world.mesh.publish()

    def conflicts(number: int) -> bool:
        return any("not Hauberk's" in problem for problem in world.mesh.status(number)["problems"])

    eventually(lambda: all(conflicts(number) for number in NUMBERS), "a report of what is in the way")
    assert {number: kernel(number).foreign for number in NUMBERS} == FOREIGN
    world.mesh.members = [*NUMBERS]
    world.mesh.publish()
    eventually(lambda: not any(conflicts(number) for number in NUMBERS), "nothing is in the way")


def at_the_end_there_is_what_is_foreign_and_nothing_else(world: World) -> None:
    world.mesh.tunnels = []
    world.mesh.publish()
    empty: Counter[str] = Counter()
    wanted = {number: Kernel(policies=empty, states=0, foreign=FOREIGN[number]) for number in NUMBERS}
    eventually(lambda: kernels() == wanted, "what was there before the agents")
    for number in NUMBERS:
        assert not re.search(r"reqid 12079\d+", ip("-n", f"n{number}", "xfrm", "state")), "larval ones neither"
        assert not Path(f"/run/state/n{number}", FILE).exists()


STORIES: Final[tuple[Callable[[World], None], ...]] = (
    all_pairs_are_up_beside_what_is_foreign,
    what_hands_change_is_mended,
    after_much_churn_kernels_are_as_before,
    a_policy_in_a_slot_that_we_want_is_reported_and_stays,
    at_the_end_there_is_what_is_foreign_and_nothing_else,
)


if __name__ == "__main__":
    tell_all(STORIES, Path(sys.argv[1]))
