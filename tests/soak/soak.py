"""The soak itself: fault after fault under steady traffic, and what became of that traffic.

Called by `__main__` and by the short form in `make test`. Each kind of fault is a span: the counters of the traffic
before and after it, and of the kernels. What is counted as a fault is what was seen to happen.

Packets that a fault takes with it by its nature are counted apart: those of a crashed node's flows, and those of a pair
whose states were removed by hand. Service traffic (NodePort) passes any node on its way, so it counts with them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Final

from tests.demo.claims import Claims
from tests.deployment import NAMESPACE, Deployment
from tests.ground import ground
from tests.lab.cluster import Lab
from tests.lab.errors import CommandFailed, NotInTime, Unreachable
from tests.lab.traffic import Count, Flow, Traffic
from tests.lab.vigil import Toll, Vigil
from tests.soak.sizes import Sizes
from tests.soak.watch import Watch

TUNNEL: Final = "mesh"
KILL_SECONDS: Final = (0.2, 5.0)
"""Between two kills of agents: shorter than a restart takes, and longer."""
ALL_AT_ONCE: Final = 0.1
"""How often all nodes' agents are killed at one moment."""
WEAR_SECONDS: Final = (0.5, 1.5)
OUTAGE_SECONDS: Final = (3.0, 10.0)
BACK_SECONDS: Final = 60.0
"""How long a fault may be felt before a pair counts as stuck."""
MENDED_SECONDS: Final = 10.0
REMOVED: Final[dict[str, float]] = dict.fromkeys(("XfrmInNoStates", "XfrmOutNoStates"), inf)
"""The counters that a removal of states provokes, and how far at most."""
UNHEARD_PROBES: Final = "XfrmInNoPols"
"""A peer's probe that comes while no agent runs finds no socket, and so no policy."""
PROBES_A_KILL: Final = 2
CRASHED: Final[dict[str, float]] = dict.fromkeys(
    ("XfrmInNoStates", "XfrmOutNoStates", "XfrmAcquireError", "XfrmInNoPols", "XfrmInStateInvalid", "XfrmOutPolBlock"),
    inf,
)
"""The counters that a crash provokes: peers go on sending by states that the node knows no more, and the node's own
packets are blocked or find no state until it has agreed on others."""
_REKEYS_A_SECOND: Final = 0.25
"""Slower than this the rekeys are given up."""

_DEFAULT_SPEC: Final[dict[str, object]] = {"rollout": "Immediate"}
_SHORT_LIVES: Final[dict[str, object]] = {
    "ike": {"rekeySeconds": 10},
    "esp": {"rekeySeconds": 15, "rekeyPackets": 1000},
}


@dataclass(slots=True, kw_only=True)
class Span:
    """What became of the traffic while one kind of fault went on. `apart`: what the fault itself took with it."""

    name: str
    ours: Count
    apart: Count


class Soak:
    """One soak of a deployment that is installed, with traffic that runs. The tunnel is the soak's own."""

    def __init__(
        self,
        claims: Claims,
        deployment: Deployment,
        traffic: Traffic,
        sizes: Sizes,
        *,
        scratch: Path,
        chance: Random,
        encapsulation: str = "Auto",
    ) -> None:
        self._claims, self._deployment, self._traffic, self._sizes = claims, deployment, traffic, sizes
        self._lab: Lab = deployment.lab
        self._scratch, self._chance = scratch, chance
        self._encapsulation = encapsulation
        self._spans: list[Span] = []
        self._stuck: set[str] = set()
        self._names = [node.name for node in self._lab.nodes]

    def run(self) -> None:
        """All of it. Errors: LabError, subprocess.SubprocessError, TimeoutError: then it could not be run."""
        self._apply_tunnel()
        try:
            self._deployment.wait_paired(timeout=BACK_SECONDS)
            self._wait_answered()
            self._wait_over()  # what the beginning of the tunnel took with it is nobody's
            vigil = Vigil(self._lab, lambda: ground(self._lab), directory=self._scratch)
            with Watch(self._lab) as watch, vigil:
                watch.look()
                self._faults(watch)
                self._settle(watch)
            self._conclude(vigil.toll())
        finally:
            self._lab.kubectl("delete", "ipsectunnel", TUNNEL, "--ignore-not-found", "--timeout=60s", timeout=70)

    def _faults(self, watch: Watch) -> None:
        sizes = self._sizes
        with self._span("no fault", watch):
            time.sleep(sizes.baseline_seconds)
        if sizes.child_rekeys or sizes.ike_rekeys:
            with self._span("rekeys", watch):
                self._rekey(watch)
        for name, fault, count, agents_killed in (
            ("agent kills", self._kill_agents, sizes.agent_kills, sizes.agent_kills),
            ("operator kills", self._kill_operators, sizes.operator_kills, 0),
            ("API outages", self._cut_api, sizes.api_outages, sizes.api_outages // 2),
        ):
            if count:
                with self._span(name, watch, provokes={UNHEARD_PROBES: agents_killed * PROBES_A_KILL}):
                    fault(watch, count)
                    self._wait_paired(watch)
        for _ in range(sizes.removals):
            self._remove_states(watch)
        for _ in range(sizes.node_crashes):
            self._crash_node(watch)

    # Spans

    @contextmanager
    def _span(
        self,
        name: str,
        watch: Watch,
        *,
        provokes: Mapping[str, float] = MappingProxyType({}),
        takes: Callable[[Flow], bool] = lambda flow: False,
    ) -> Generator[None]:
        """Count what the block does to the traffic and to the kernels. takes: the flows that the fault takes down."""
        claims = self._claims
        claims.progress(f"{name}: begins")
        traffic_before, sums_before = self._traffic.stats(), watch.sums()
        started = time.monotonic()
        yield
        self._wait_over()
        watch.look()
        stats = self._traffic.stats()
        moved = stats.since(traffic_before)
        span = Span(name=name, ours=moved.where(lambda f: not takes(f)).total, apart=moved.where(takes).total)
        self._spans.append(span)
        seconds = time.monotonic() - started
        lost = f"{span.ours.lost} lost, {span.ours.wrong} wrong of {span.ours.sent} sent"
        if span.apart.sent:
            lost += f" (the fault took {span.apart.lost} with it)"
        claims.progress(f"{name}: {seconds:.0f} s, {lost}")
        if span.ours.lost or span.ours.wrong or stats.unreachable:
            claims.show(moved.where(lambda f: not takes(f)).table())
        grown = {n: c for n, c in watch.sums().counted_since(sums_before).items() if c > provokes.get(n, 0)}
        claims.check(f"{name}: /proc/net/xfrm_stat is flat", not grown, grown or "")
        silent = len(self._traffic.flows() - stats.flows.keys())
        claims.check(f"{name}: every traffic pod tells its counters", not silent, f"{silent} flows untold")

    # Faults

    def _rekey(self, watch: Watch) -> None:
        """By time and packets, as the tunnel says, and by the kernel's word that a state has done enough: to one end of
        all its pairs, or to both ends at the same moment."""
        sizes, before = self._sizes, watch.sums()
        limit = time.monotonic() + 60 + (sizes.child_rekeys + 10 * sizes.ike_rekeys) / _REKEYS_A_SECOND
        self._apply_tunnel(_SHORT_LIVES)
        said_at = time.monotonic()
        while True:
            sums = watch.sums()
            children = sums.child_rekeys - before.child_rekeys
            ike = sums.ike_rekeys - before.ike_rekeys
            enough = children >= sizes.child_rekeys
            if enough and ike >= sizes.ike_rekeys:
                break
            if time.monotonic() > limit:
                break
            if time.monotonic() > said_at + 15:
                said_at = time.monotonic()
                self._claims.progress(f"rekeys: {children} of children, {ike} of IKE SAs")
            time.sleep(self._chance.uniform(*WEAR_SECONDS))
            if not enough:
                both = self._chance.random() < 0.5
                for name in self._names if both else [self._chance.choice(self._names)]:
                    watch.nodes[name].tell("wear", peer=None)
        self._claims.check(
            f"at least {sizes.child_rekeys} child rekeys and {sizes.ike_rekeys} IKE rekeys",
            enough and ike >= sizes.ike_rekeys,
            f"{children} and {ike}",
        )
        installed = sums.installed - before.installed
        self._claims.check(
            "the kernels took an outbound state at both ends for each child rekey",
            installed >= 2 * children,
            f"{installed} outbound states",
        )

    def _kill_agents(self, watch: Watch, count: int) -> None:
        killed, said_at = 0, time.monotonic()
        limit = time.monotonic() + 60 + 15 * count
        while killed < count and time.monotonic() < limit:
            time.sleep(self._chance.uniform(*KILL_SECONDS))
            at_once = self._chance.random() < ALL_AT_ONCE
            for name in self._names if at_once else [self._chance.choice(self._names)]:
                killed += len(watch.nodes[name].tell("kill", program="hauberk-agent"))
            if time.monotonic() > said_at + 15:
                said_at = time.monotonic()
                self._claims.progress(f"agent kills: {killed}")
        self._count("agent_kills", killed, count)

    def _kill_operators(self, watch: Watch, count: int) -> None:
        """The one that leads, each time."""
        killed = 0
        limit = time.monotonic() + 60 + 60 * count
        while killed < count and time.monotonic() < limit:
            leader = self._leader()
            if leader is not None:
                killed += len(watch.nodes[leader].tell("kill", program="hauberk-operator"))
            time.sleep(self._chance.uniform(1.0, 3.0))
        self._count("operator_kills", killed, count)

    def _leader(self) -> str | None:
        """The node whose operator leads. The Lease's holder is a pod."""
        lease = self._lab.kubectl("-n", NAMESPACE, "get", "lease", "hauberk-operator", "-o", "json", check=False)
        if lease.returncode != 0:
            return None
        holder = json.loads(lease.stdout)["spec"].get("holderIdentity") or ""
        try:
            pods = self._deployment.pods("hauberk-operator")
        except CommandFailed:
            return None
        return next((pod["spec"].get("nodeName") for pod in pods if pod["metadata"]["name"] == holder), None)

    def _cut_api(self, watch: Watch, count: int) -> None:
        """With an agent killed in every other outage: it starts from what it has on disk."""
        cut = 0
        for number in range(count):
            self._lab.stop_control_plane()
            try:
                if not self._api_answers():
                    cut += 1
                time.sleep(self._chance.uniform(*OUTAGE_SECONDS) / 2)
                if number % 2:
                    killed = watch.nodes[self._chance.choice(self._names)].tell("kill", program="hauberk-agent")
                    self._add("agent_kills", len(killed))
                time.sleep(self._chance.uniform(*OUTAGE_SECONDS) / 2)
            finally:
                self._lab.start_control_plane()
            time.sleep(self._chance.uniform(1.0, 3.0))
        self._count("api_outages", cut, count)
        self._lab.wait_ready(timeout=BACK_SECONDS)

    def _api_answers(self) -> bool:
        try:
            self._lab.api.get("/readyz")
        except Unreachable:
            return False
        return True

    def _remove_states(self, watch: Watch) -> None:
        node, peer = self._chance.sample(self._names, 2)
        pair = {node, peer}

        def takes(flow: Flow) -> bool:
            return flow.path == "pod-nodeport" or {flow.source, flow.destination} == pair

        with self._span(f"{node}'s states with {peer} removed by hand", watch, provokes=REMOVED, takes=takes):
            removed = sum(
                watch.nodes[node].tell("remove", peer=address) for address in watch.nodes[peer].node.addresses
            )
            self._add("removals", 1)
            seconds = self._wait_paired(watch)
            self._claims.check(
                f"mended within {MENDED_SECONDS:.0f} s", seconds < MENDED_SECONDS, f"{removed} states, {seconds:.1f} s"
            )

    def _crash_node(self, watch: Watch) -> None:
        lab, node = self._lab, self._chance.choice(self._names)

        def takes(flow: Flow) -> bool:
            return flow.path == "pod-nodeport" or node in (flow.source, flow.destination)

        with self._span(f"crash of {node}", watch, provokes=CRASHED, takes=takes):
            lab.crash(node)
            time.sleep(self._chance.uniform(2.0, 10.0))
            lab.start(node)
            lab.wait_ready([node], timeout=90)
            self._add("node_crashes", 1)
            self._deployment.wait_running(timeout=90)
            self._wait_paired(watch)
            self._traffic.wait_running()
            self._traffic.update_targets()
            self._wait_answered()

    # What came of it

    def _apply_tunnel(self, more: dict[str, object] | None = None) -> None:
        spec = _DEFAULT_SPEC | {"encapsulation": self._encapsulation} | (more or {})
        tunnel = {
            "apiVersion": "hauberk.dev/v1alpha1",
            "kind": "IPsecTunnel",
            "metadata": {"name": TUNNEL},
            "spec": spec,
        }
        self._lab.kubectl("apply", "-f", "-", stdin=json.dumps(tunnel))

    def _settle(self, watch: Watch) -> None:
        """With long lives again: one state a direction and pair is left in the end, and everybody is answered."""
        self._claims.progress("the tunnel's lives are long again; waiting until what was replaced is gone")
        self._apply_tunnel()
        with self._span("the end", watch):
            self._wait_paired(watch)
            wanted = 2 * (len(self._names) - 1)
            deadline = time.monotonic() + BACK_SECONDS
            while (counts := {n: len(s.states) for n, s in watch.look().items()}) and time.monotonic() < deadline:
                if all(count == wanted for count in counts.values()):
                    break
                time.sleep(1)
            self._claims.check(
                "each node holds one state for each peer and direction, and no other",
                all(count == wanted for count in counts.values()),
                ", ".join(f"{name} {count}" for name, count in counts.items()),
            )
            self._wait_answered()
        sums = watch.sums()
        peak = max(node.peak_states for node in watch.nodes.values())
        self._claims.figures |= {
            "child_rekeys": sums.child_rekeys,
            "ike_rekeys": sums.ike_rekeys,
            "most_states": peak,
        }

    def _conclude(self, toll: Toll) -> None:
        claims = self._claims
        baseline, *others = self._spans
        lost = sum(span.ours.lost + span.ours.wrong for span in others)
        figures = claims.figures
        for name in ("agent_kills", "node_crashes", "api_outages", "operator_kills", "removals"):
            figures.setdefault(name, 0)
        figures |= {
            "sent": sum(span.ours.sent for span in self._spans),
            "lost": lost,
            "lost_without_fault": baseline.ours.lost + baseline.ours.wrong,
            "sent_without_fault": baseline.ours.sent,
            "lost_with_the_fault": sum(span.apart.lost for span in others),
            "clear": toll.clear,
            "packets": toll.packets,
            "stuck_pairs": len(self._stuck),
        }
        faults = toll.faults(esp_between=self._names)
        claims.check(
            f"all that crossed between the nodes was encrypted, {toll.packets} packets", not faults, "; ".join(faults)
        )
        claims.check("no pair is stuck", not self._stuck, ", ".join(sorted(self._stuck)))
        # What the machine loses by itself it loses in the other spans, too, as often.
        expected = baseline.ours.lost * sum(span.ours.sent for span in others) / max(1, baseline.ours.sent)
        claims.check(
            "no packet is lost beyond what is lost without a fault", lost <= expected, f"{lost} of {figures['sent']}"
        )

    def _wait_paired(self, watch: Watch) -> float:
        """Seconds until every pair has its states; a pair that doesn't get them is remembered as stuck."""
        started = time.monotonic()
        try:
            watch.wait_paired(seconds=BACK_SECONDS)
        except NotInTime as stuck:
            self._claims.progress(str(stuck))
            self._stuck |= set(watch.unpaired())
        return time.monotonic() - started

    def _wait_over(self) -> None:
        """Messages under way are answered or lost by then."""
        time.sleep(self._traffic.pace.patience_seconds + 2 * self._traffic.pace.interval_seconds)

    def _wait_answered(self) -> None:
        deadline = time.monotonic() + BACK_SECONDS
        while silent := self._silent():
            if time.monotonic() > deadline:
                self._claims.progress(f"not answered: {', '.join(silent[:5])}")
                # "n1 > n2 pod-pod IPv4 tcp"
                self._stuck |= {">".join(flow.split(" ", 3)[0:3:2]) for flow in silent}
                return

    def _silent(self) -> list[str]:
        try:
            return self._traffic.silent()
        except CommandFailed as failure:
            return [str(failure)]

    def _count(self, figure: str, happened: int, wanted: int) -> None:
        self._claims.check(f"{wanted} {figure.replace('_', ' ')}", happened >= wanted, happened)
        self._add(figure, happened)

    def _add(self, figure: str, count: int) -> None:
        self._claims.figures[figure] = self._claims.figures.get(figure, 0) + count
