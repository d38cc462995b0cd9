"""From the agents' reports to a tunnel's status. Pure; called by reconcile.

A report lists at most MAX_UNWELL of the peers that are not well, plus a count of all of them, so the number of
established pairs is a lower bound: a pair counts as established when both ends have reported that they follow the
tunnel's generation and neither calls it unwell, and what was not listed by name is subtracted in full. Of a node that
several others miss no pair counts, as only a few of those that miss a node say so. It never claims more than is true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from hauberk_api.conditions import Condition, ConditionStatus, ConditionType, Reason, set_conditions
from hauberk_api.mesh import PodCIDRSource
from hauberk_api.node import NodeSpec, Role
from hauberk_api.plan import Phase, PlannedTunnel, final_phase, reached
from hauberk_api.report import (
    WITNESSES,
    BootGuardState,
    PacketsReport,
    ReportStatus,
    TunnelReport,
    UnwellPeer,
    UnwellReason,
)
from hauberk_api.tunnel import Enforcement, Establish, TrafficType
from hauberk_operator.claims import Conflict
from hauberk_operator.compile import Verdict
from hauberk_operator.facts import Json, ReportFacts, TunnelFacts, conditions_of
from hauberk_operator.pod_cidrs import KNOWN_REASONS, PodCIDRs
from hauberk_operator.precedence import Loss, Precedence
from hauberk_operator.span import parse_span, union
from hauberk_operator.standing import Fault

MAX_NAMED: Final = 3
"""How many nodes or pairs a message names; the others are counted."""

MAX_POD_NETWORKS: Final = 64

WORST_FIRST: Final = (
    Reason.UNSUPPORTED_KERNEL,
    Reason.UNSUPPORTED_DATAPATH,
    Reason.NO_POD_CIDRS,
    Reason.ADDRESS_CONFLICT,
    Reason.AUTHENTICATION_FAILED,
    Reason.NO_PROPOSAL_CHOSEN,
    Reason.KERNEL_REFUSED,
    Reason.UNREACHABLE,
    Reason.NO_IDENTITY,
    Reason.CLOCK_SKEW,
    Reason.IN_CLEAR,
)
"""Reasons of Degraded. Establishing is not among them: it is the way to Ready."""

_NODE_WIDE: Final = frozenset({Reason.NO_IDENTITY, Reason.KERNEL_REFUSED, Reason.CLOCK_SKEW})
"""What an agent may say of its whole node, with no pair to name."""

_HEADINGS: Final[Mapping[Reason, str]] = {
    Reason.UNSUPPORTED_KERNEL: "The kernel cannot encrypt",
    Reason.UNSUPPORTED_DATAPATH: "The tunnel's traffic does not pass the host's IP stack",
    Reason.NO_POD_CIDRS: "Has no pod CIDRs, so that nothing of its pods is encrypted",
    Reason.ADDRESS_CONFLICT: "Claims an address of another node",
    Reason.AUTHENTICATION_FAILED: "Not authenticated",
    Reason.NO_PROPOSAL_CHOSEN: "No common proposal",
    Reason.KERNEL_REFUSED: "Refused by the kernel",
    Reason.UNREACHABLE: "Not reachable",
    Reason.NO_IDENTITY: "No certificate yet",
    Reason.CLOCK_SKEW: "The clock is wrong",
    Reason.IN_CLEAR: "Packets pass in clear",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fault:
    reason: Reason
    who: str
    """A node's name, or "a and b"."""
    message: str


def fold_tunnel(
    tunnel: TunnelFacts,
    *,
    verdict: Verdict,
    members: Mapping[str, Role] | None,
    generation: int,
    planned: PlannedTunnel | None,
    precedence: Precedence,
    waits_for: Sequence[str],
    on_their_way: Sequence[str] = (),
    nodes: Mapping[str, NodeSpec],
    reports: Mapping[str, ReportFacts],
    conflicts: Iterable[Conflict],
    pod_networks: Sequence[str],
    now: str,
    came_tainted: Collection[str] = (),
) -> Json:
    """The whole status of a tunnel.

    members and planned are None when the tunnel is not in the plan, generation is the planned one, waits_for what its
    next phase waits for; nodes are the compiled IPsecNodes, came_tainted names those whose Nodes came with the startup
    taint, and now is RFC 3339.

    Equal input gives an equal status, so a caller that compares writes only what has changed.
    """
    if members is None:
        members = dict[str, Role]()
    wanted = precedence.carried(tunnel.uid, members) if planned is not None else 0
    losses = precedence.losses(tunnel.uid) if planned is not None else ()
    following = _following(tunnel.uid, generation, members, nodes, reports)
    unwell = _unwell_pairs(tunnel.name, members, following)
    established = 0
    if planned is not None and reached(planned.phase, Phase.ESTABLISH):
        established = _established(tunnel, generation, precedence, following, unwell)
    idle = 0
    if planned is not None and planned.establish is Establish.ON_DEMAND:
        up = _up(tunnel.uid, generation, following)
        idle = max(0, established - up)
        established = min(established, up)
    ready_nodes = sum(1 for report in following.values() if _tunnel_report(report, tunnel.uid, generation).ready)
    permissive = planned is not None and planned.enforcement is Enforcement.PERMISSIVE
    of_pods = planned is None or planned.traffic.type is TrafficType.POD_NETWORK
    faults = _faults(members, nodes, reports, unwell, conflicts, uid=tunnel.uid, permissive=permissive, of_pods=of_pods)
    conditions = [
        _condition(ConditionType.ACCEPTED, verdict.accepted, verdict.reason, verdict.message),
        _ready(
            verdict=verdict,
            members=members,
            missing=sorted(set(members) - set(following)),
            unready=sorted(
                name for name, report in following.items() if not _tunnel_report(report, tunnel.uid, generation).ready
            ),
            wanted=wanted,
            established=established,
            idle=idle,
            losses=losses,
            paused=tunnel.spec is not None and tunnel.spec.paused,
            planned=planned,
            waits_for=waits_for,
            on_their_way=on_their_way,
        ),
        _degraded(faults),
        _conflicted(losses, wanted),
        _oversized(members, nodes, reports, planned),
        _paused(tunnel, planned),
    ]
    stamped = [condition.model_copy(update={"observed_generation": tunnel.generation}) for condition in conditions]
    return {
        "observedGeneration": tunnel.generation,
        "nodes": {"wanted": len(members), "ready": ready_nodes},
        "boot": _boot(members, nodes, reports, came_tainted),
        "pairs": {"wanted": wanted, "established": established, **_idle(planned, idle)},
        "podNetworks": list(pod_networks),
        **({"phase": planned.phase.value} if planned is not None else {}),
        "conditions": [c.to_object() for c in set_conditions(conditions_of(tunnel.status), stamped, now=now)],
    }


def pod_range(given: Sequence[str], nodes: Iterable[NodeSpec]) -> tuple[str, ...]:
    """The pod range that Strict tunnels block: as people gave it, else the union of the nodes' pod CIDRs, collapsed."""
    if given:
        return tuple(given)
    spans = (parse_span(cidr) for node in nodes for cidr in node.pod_cidrs)
    return tuple(islice(union(span for span in spans if span is not None), MAX_POD_NETWORKS))


def _following(
    uid: str,
    generation: int,
    members: Mapping[str, Role],
    nodes: Mapping[str, NodeSpec],
    reports: Mapping[str, ReportFacts],
) -> dict[str, ReportStatus]:
    """The reports of those members that follow this generation of the tunnel, and are of the Node that is there now."""
    following: dict[str, ReportStatus] = {}
    for name in members:
        report = _current(name, nodes, reports)
        if report is not None and any(t.tunnel == uid and t.generation >= generation for t in report.tunnels):
            following[name] = report
    return following


def _current(name: str, nodes: Mapping[str, NodeSpec], reports: Mapping[str, ReportFacts]) -> ReportStatus | None:
    report = reports.get(name)
    node = nodes.get(name)
    if report is None or report.status is None or node is None or report.status.node_uid != node.node_uid:
        return None
    return report.status


def _boot(
    members: Mapping[str, Role],
    nodes: Mapping[str, NodeSpec],
    reports: Mapping[str, ReportFacts],
    came_tainted: Collection[str],
) -> Json:
    """How many members have which protection from their kernel's boot on; only what was found out counts."""
    told = [report.boot for name in members if (report := _current(name, nodes, reports)) is not None]
    return {
        "cachedPlan": sum(1 for boot in told if boot is not None and boot.cached_plan),
        "startupTaint": sum(1 for name in members if name in came_tainted),
        "guard": sum(1 for boot in told if boot is not None and boot.guard is BootGuardState.LOADED),
    }


def _tunnel_report(report: ReportStatus, uid: str, generation: int) -> TunnelReport:
    return next(t for t in report.tunnels if t.tunnel == uid and t.generation >= generation)


def _unwell_pairs(
    name: str, members: Mapping[str, Role], following: Mapping[str, ReportStatus]
) -> dict[tuple[str, str], UnwellPeer]:
    """The listed unwell pairs, each once, with the worse of the two ends' reasons."""
    order = list(UnwellReason)
    pairs: dict[tuple[str, str], UnwellPeer] = {}
    for node, report in following.items():
        for peer in report.unwell:
            if peer.tunnel != name or peer.node not in members or peer.node == node:
                continue
            pair = (min(node, peer.node), max(node, peer.node))
            if pair not in pairs or order.index(peer.reason) < order.index(pairs[pair].reason):
                pairs[pair] = peer
    return pairs


def _established(
    tunnel: TunnelFacts,
    generation: int,
    precedence: Precedence,
    following: Mapping[str, ReportStatus],
    unwell: Mapping[tuple[str, str], UnwellPeer],
) -> int:
    """A node that is not ready and names no pair (no identity, no ESP, just started) vouches for none of its pairs.

    Nor does one that several others miss: its witnesses report that for all of its peers (hauberk_agent.witness).
    """
    uid, missed = tunnel.uid, _missed(tunnel.name, following)
    vouching = {
        name: report
        for name, report in following.items()
        if name not in missed
        and (_tunnel_report(report, uid, generation).ready or any(peer.tunnel == tunnel.name for peer in report.unwell))
    }
    listed = sum(1 for a, b in unwell if a in vouching and b in vouching and precedence.carries(uid, a, b))
    unlisted = sum(max(0, report.unwell_count - len(report.unwell)) for report in vouching.values())
    return max(0, precedence.carried(uid, vouching) - listed - unlisted)


def _missed(tunnel: str, following: Mapping[str, ReportStatus]) -> set[str]:
    """The nodes that more than one other misses, where not all who miss a node say so."""
    if len(following) <= WITNESSES + 1:
        return set()
    times = Counter(peer.node for report in following.values() for peer in report.unwell if peer.tunnel == tunnel)
    return {name for name, count in times.items() if count > 1}


def _up(uid: str, generation: int, following: Mapping[str, ReportStatus]) -> int:
    """Of a tunnel whose pairs come up on demand: how many are, as both ends of each count it."""
    return sum(_tunnel_report(report, uid, generation).up or 0 for report in following.values()) // 2


def _idle(planned: PlannedTunnel | None, idle: int) -> Json:
    return {"idle": idle} if planned is not None and planned.establish is Establish.ON_DEMAND else {}


def _faults(
    members: Mapping[str, Role],
    nodes: Mapping[str, NodeSpec],
    reports: Mapping[str, ReportFacts],
    unwell: Mapping[tuple[str, str], UnwellPeer],
    conflicts: Iterable[Conflict],
    *,
    uid: str,
    permissive: bool,
    of_pods: bool,
) -> list[_Fault]:
    faults = [
        _Fault(reason=Reason.ADDRESS_CONFLICT, who=conflict.node, message=conflict.sentence())
        for conflict in conflicts
        if conflict.node in members
    ]
    for name in members:
        report = _current(name, nodes, reports)
        if report is None:
            continue
        if not report.kernel.esp:
            problems = " ".join(report.kernel.problems)
            faults.append(_Fault(reason=Reason.UNSUPPORTED_KERNEL, who=name, message=problems))
        elif report.reason in _NODE_WIDE and not report.unwell:
            faults.append(_Fault(reason=Reason(report.reason), who=name, message=report.message))
        faults += [
            _Fault(reason=Reason.UNSUPPORTED_DATAPATH, who=name, message=line.problem)
            for line in report.tunnels
            if line.tunnel == uid and line.problem
        ]
        if of_pods and not nodes[name].pod_cidrs:
            # Said only of nodes whose agents report: a new Node gets its own a moment after it has registered.
            faults.append(_Fault(reason=Reason.NO_POD_CIDRS, who=name, message=""))
        if permissive and report.clear_packets:
            # How many is in the report: here it would write a status for every report.
            faults.append(_Fault(reason=Reason.IN_CLEAR, who=name, message=""))
    for (one, other), peer in unwell.items():
        if peer.reason is not UnwellReason.ESTABLISHING:
            faults.append(_Fault(reason=Reason(peer.reason.value), who=f"{one} and {other}", message=peer.message))
    return sorted(faults, key=lambda fault: (WORST_FIRST.index(fault.reason), fault.who))


def _ready(
    *,
    verdict: Verdict,
    members: Mapping[str, Role],
    missing: Sequence[str],
    unready: Sequence[str],
    wanted: int,
    established: int,
    idle: int,
    losses: Sequence[Loss],
    paused: bool,
    planned: PlannedTunnel | None,
    waits_for: Sequence[str],
    on_their_way: Sequence[str],
) -> Condition:
    if not verdict.accepted:
        return _condition(ConditionType.READY, False, Reason.NOT_ACCEPTED, verdict.message)
    if not members:
        return _condition(ConditionType.READY, False, Reason.NO_PAIRS, "No Linux node is selected.")
    if missing:
        message = f"{len(missing)} of {len(members)} nodes have not taken up this generation: {_named(missing)}."
        return _condition(ConditionType.READY, False, Reason.WAITING_FOR_AGENTS, message)
    if planned is not None and planned.phase is not final_phase(planned.enforcement):
        if paused:
            message = f"Paused in phase {planned.phase}, on the way to {final_phase(planned.enforcement)}."
            return _condition(ConditionType.READY, False, Reason.PAUSED, message)
        message = f"Phase {planned.phase}, on the way to {final_phase(planned.enforcement)}."
        if waits_for:
            message += f" The next one waits for {_named(waits_for)}."
        return _condition(ConditionType.READY, False, Reason.ROLLING_OUT, message)
    if on_their_way:
        message = f"Nodes enter or leave, phase by phase: {_named(on_their_way)}."
        return _condition(ConditionType.READY, False, Reason.ROLLING_OUT, message)
    if unready or established + idle < wanted:
        message = f"{established} of {wanted} pairs are encrypted."
        if unready:
            message += f" Not ready: {_named(unready)}."
        return _condition(ConditionType.READY, False, Reason.ESTABLISHING, message)
    if not wanted and losses:
        message = f"All its pairs are carried by {_named([loss.to for loss in losses])}."
        return _condition(ConditionType.READY, True, Reason.NO_PAIRS, message)
    if not wanted:
        message = f"{_named(sorted(members))}: no two nodes to peer, so nothing to encrypt."
        return _condition(ConditionType.READY, True, Reason.NO_PAIRS, message)
    if planned is not None and planned.establish is Establish.ON_DEMAND:
        message = (
            f"{established} of {wanted} pairs are encrypted; {idle} are idle, and come up when packets ask for them."
        )
        return _condition(ConditionType.READY, True, Reason.ON_DEMAND, message)
    message = f"All {wanted} pairs of {len(members)} nodes are encrypted."
    return _condition(ConditionType.READY, True, Reason.ALL_PAIRS_UP, message)


def _degraded(faults: Sequence[_Fault]) -> Condition:
    if not faults:
        return _condition(ConditionType.DEGRADED, False, Reason.AS_WANTED, "Nothing is amiss.")
    worst = [fault for fault in faults if fault.reason is faults[0].reason]
    message = f"{_HEADINGS[worst[0].reason]}: {_named(_unique(worst, lambda fault: fault.who))}."
    details = [detail for detail in _unique(worst, lambda fault: fault.message) if detail][:MAX_NAMED]
    if details:
        message = f"{message} {' '.join(detail.rstrip('.') + '.' for detail in details)}"
    others = len(faults) - len(worst)
    if others:
        message += f" {others} other {'fault' if others == 1 else 'faults'}."
    return _condition(ConditionType.DEGRADED, True, worst[0].reason, message)


def _conflicted(losses: Sequence[Loss], wanted: int) -> Condition:
    if not losses:
        message = "No older tunnel wants pairs of this one."
        return _condition(ConditionType.CONFLICTED, False, Reason.NO_CONFLICT, message)
    total = wanted + sum(loss.pairs for loss in losses)
    shares = [f"{loss.pairs} to {loss.to}, on {loss.nodes} nodes" for loss in losses]
    message = f"Of {total} pairs it loses {_named(shares, '; ')}. The oldest tunnel of a pair carries it."
    return _condition(ConditionType.CONFLICTED, True, Reason.OLDER_TUNNEL, message)


def _oversized(
    members: Mapping[str, Role],
    nodes: Mapping[str, NodeSpec],
    reports: Mapping[str, ReportFacts],
    planned: PlannedTunnel | None,
) -> Condition:
    """Whether members' pods send packets that don't fit into their node's tunnels. In IP-TFS mode all do."""
    found: list[tuple[int, str, int, PacketsReport]] = []
    for name in members if planned is not None else ():
        report = _current(name, nodes, reports)
        packets = report.packets if report is not None else None
        if packets is not None and packets.pod_mtu is not None and packets.pod_mtu > packets.carried:
            found.append((packets.carried, name, packets.pod_mtu, packets))
    if not found:
        message = "No pod is known to send packets that are too large."
        return _condition(ConditionType.OVERSIZED, False, Reason.FITS, message)
    carried, name, _, narrow = min(found, key=lambda each: each[:2])
    largest = max(pod_mtu for _, _, pod_mtu, _ in found)
    who = _named(sorted(name for _, name, _, _ in found))
    message = (
        f"Pods of {who} send packets of up to {largest} bytes, and {carried} fit from {name} to {narrow.narrowest},"
        f" whose path carries {narrow.path_mtu}. TCP is made to fit, other senders are told."
        f" Set the CNI's MTU to {carried}, or spec.mode to IPTFS."
    )
    return _condition(ConditionType.OVERSIZED, True, Reason.POD_MTU_TOO_LARGE, message)


def _paused(tunnel: TunnelFacts, planned: PlannedTunnel | None) -> Condition:
    if tunnel.spec is None or not tunnel.spec.paused:
        return _condition(ConditionType.PAUSED, False, Reason.NOT_PAUSED, "The tunnel is not paused.")
    message = "Nothing of it is in the plan."
    if planned is not None:
        message = f"The plan keeps generation {planned.generation} in phase {planned.phase}; new Nodes join it."
    return _condition(ConditionType.PAUSED, True, Reason.PAUSED, message)


def _unique(faults: Sequence[_Fault], text: Callable[[_Fault], str]) -> list[str]:
    return list(dict.fromkeys(text(fault) for fault in faults))


def _named(names: Sequence[str], separator: str = ", ") -> str:
    """Up to MAX_NAMED names, and how many more there are."""
    rest = len(names) - MAX_NAMED
    return separator.join(names[:MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _condition(kind: ConditionType, holds: bool, reason: Reason, message: str) -> Condition:
    status = ConditionStatus.TRUE if holds else ConditionStatus.FALSE
    return Condition(type=kind, status=status, reason=reason, message=message)


def fold_mesh(
    *,
    plan: Json,
    generation: int,
    current: Json,
    authority: Json,
    pod_cidr_source: PodCIDRSource | None,
    conditions: Sequence[Condition],
    now: str,
) -> dict[str, Any]:
    """The whole status of the IPsecMesh. plan and authority are their JSON forms."""
    stamped = [condition.model_copy(update={"observed_generation": generation}) for condition in conditions]
    return {
        "observedGeneration": generation,
        "plan": plan,
        "authority": authority,
        **({"podCIDRSource": pod_cidr_source.value} if pod_cidr_source is not None else {}),
        "conditions": [c.to_object() for c in set_conditions(conditions_of(current), stamped, now=now)],
    }


def mesh_conditions(
    conflicts: Sequence[Conflict], problem: str, fault: Fault | None, pod_cidrs: PodCIDRs
) -> tuple[Condition, Condition, Condition]:
    """Accepted (whether the spec can be read), Degraded (the authority's fault, addresses claimed twice) and
    PodCIDRsKnown of the IPsecMesh."""
    known = _condition(
        ConditionType.POD_CIDRS_KNOWN, pod_cidrs.reason in KNOWN_REASONS, pod_cidrs.reason, pod_cidrs.message
    )
    if problem:
        accepted = _condition(
            ConditionType.ACCEPTED,
            False,
            Reason.INVALID,
            f"The spec cannot be read, so the last plan stays: {problem}.",
        )
    else:
        accepted = _condition(ConditionType.ACCEPTED, True, Reason.ACCEPTED, "The plan follows the spec.")
    if fault is not None:
        more = f" {len(conflicts)} address {'conflict' if len(conflicts) == 1 else 'conflicts'} besides."
        message = f"{fault.message}.{more if conflicts else ''}"
        return accepted, _condition(ConditionType.DEGRADED, True, fault.reason, message), known
    if conflicts:
        sentences = [conflict.sentence() for conflict in conflicts]
        message = f"{_named(sentences)}. Refused claims are left out of the IPsecNodes."
        return accepted, _condition(ConditionType.DEGRADED, True, Reason.ADDRESS_CONFLICT, message), known
    return accepted, _condition(ConditionType.DEGRADED, False, Reason.AS_WANTED, "Nothing is amiss."), known
