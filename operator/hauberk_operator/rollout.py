"""In which phase a tunnel is: from the phase in force and the agents' reports to the next one. Pure; called by compile.

The phase is in the plan, in IPsecMesh.status, and nowhere else: an operator that starts goes on where the last one
was, and two of them cannot both advance it, as the write is preconditioned. A tunnel goes one phase at a time, up to
the last one of its enforcement and, when it is deleted, down and out. What a step waits for:

====================  ==============================================================================================
step                  every Ready member's agent reports the phase, and
====================  ==============================================================================================
Accept -> Establish   nothing else
Establish -> Protect  each of its pairs is up, or has been tried in vain
Protect -> Require    each of its pairs is up: whoever is left without SA would be cut off
Require -> Block      nothing else
down                  nothing else
====================  ==============================================================================================

Nodes that are not Ready hold nothing up, nor do pairs with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hauberk_api.conditions import Reason
from hauberk_api.node import Role
from hauberk_api.plan import Phase, PlannedTunnel, final_phase, next_phase, reached
from hauberk_api.report import ReportStatus, TunnelReport, UnwellReason
from hauberk_api.tunnel import Rollout, TunnelSpec
from hauberk_operator.facts import NodeFacts, ReportFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolling:
    """What is known of a tunnel's agents."""

    uid: str
    nodes: Iterable[NodeFacts]
    reports: Mapping[str, ReportFacts]

    def reported(self, members: Mapping[str, Role]) -> dict[str, tuple[ReportStatus, TunnelReport] | None]:
        """What the agents of the Ready members say of themselves and of the tunnel; None: nothing yet."""
        found: dict[str, tuple[ReportStatus, TunnelReport] | None] = {}
        for node in self.nodes:
            if node.name not in members or not node.ready:
                continue
            facts = self.reports.get(node.name)
            status = facts.status if facts is not None else None
            line = None
            if status is not None and status.node_uid == node.uid:
                line = next((line for line in status.tunnels if line.tunnel == self.uid), None)
            found[node.name] = (status, line) if status is not None and line is not None else None
        return found


def roll_out(
    wanted: PlannedTunnel,
    last: PlannedTunnel | None,
    rollout: Rollout,
    *,
    members: Mapping[str, Role],
    rolling: Rolling,
) -> PlannedTunnel:
    """The tunnel in the phase that it is in now. last is what is in force.

    A changed spec does not take a tunnel back: what it changes about SAs is made before it is broken. A tunnel that is
    not in the plan, and that agents carry all the same, goes on where they are: the plan has been lost.
    """
    target = final_phase(wanted.enforcement)
    if rollout is Rollout.IMMEDIATE:
        return _in_phase(wanted, target)
    if last is None:
        carried = [told[1].phase for told in rolling.reported(members).values() if told is not None]
        return _in_phase(
            wanted, max((phase for phase in carried if phase is not None), key=_order, default=wanted.phase)
        )
    changed = wanted.generation != last.generation
    if changed or last.phase is target or waits_for(last, target, members=members, rolling=rolling):
        return _in_phase(wanted, last.phase)
    return _in_phase(wanted, next_phase(last.phase, target))


def take_back(
    last: PlannedTunnel, spec: TunnelSpec | None, *, members: Mapping[str, Role], rolling: Rolling
) -> PlannedTunnel | None:
    """A tunnel that is being deleted, in the phase that it is in now; None once it leaves the plan."""
    if spec is not None and spec.rollout is Rollout.IMMEDIATE:
        return None
    if waits_for(last, None, members=members, rolling=rolling):
        return last
    if last.phase is Phase.ACCEPT:
        return None
    return _in_phase(last, next_phase(last.phase, Phase.ACCEPT))


def waits_for(
    planned: PlannedTunnel, target: Phase | None, *, members: Mapping[str, Role], rolling: Rolling
) -> tuple[str, ...]:
    """What keeps a tunnel in its phase: nodes by name, and pairs as "a and b". target is None for its removal."""
    held: list[str] = []
    untold: list[str] = []
    pairs: dict[str, bool] = {}
    reported = rolling.reported(members)
    for name, told in reported.items():
        if told is None or told[1].generation < planned.generation or told[1].phase is not planned.phase:
            held.append(name)
            continue
        status, line = told
        if line.ready:
            continue
        unwell = [peer for peer in status.unwell if peer.tunnel == planned.name]
        for peer in unwell:
            if peer.node in reported:
                pair = " and ".join(sorted((name, peer.node)))
                pairs[pair] = pairs.get(pair, False) or peer.reason is not UnwellReason.ESTABLISHING
        if not unwell or status.unwell_count > len(status.unwell):
            # Just started, a kernel that refuses, or more pairs than can be named.
            untold.append(name)
    if target is None or reached(planned.phase, target):
        return tuple(held)
    match planned.phase:
        case Phase.ESTABLISH:
            starting = [name for name in untold if _is_starting(reported[name])]
            return (*held, *starting, *(pair for pair, tried in pairs.items() if not tried))
        case Phase.PROTECT:
            return (*held, *pairs, *untold)
        case _:
            return tuple(held)


def _is_starting(told: tuple[ReportStatus, TunnelReport] | None) -> bool:
    return told is not None and told[0].reason == Reason.ESTABLISHING and not told[0].unwell


def _in_phase(planned: PlannedTunnel, phase: Phase) -> PlannedTunnel:
    return planned.model_copy(update={"phase": phase})


def _order(phase: Phase) -> int:
    return list(Phase).index(phase)
