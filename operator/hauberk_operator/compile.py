"""From what people want (tunnels, mesh settings) and what there is (Nodes) to what every agent must know. Pure.

The plan changes only when its content does, and then its generation counts up: agents report the generation that they
follow. Which node is in which tunnel is in the IPsecNodes, so a node that joins changes its own IPsecNode alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from hauberk_api.conditions import Reason
from hauberk_api.mesh import MeshSpec
from hauberk_api.node import Membership, NodeSpec, Role
from hauberk_api.plan import Phase, Plan, PlannedTunnel, final_phase
from hauberk_api.tunnel import Enforcement, Establish, Interception, Rollout, TrafficType, TunnelSpec
from hauberk_operator.claims import Conflict, Granted, settle_claims
from hauberk_operator.facts import MemberFacts, NodeFacts, ReportFacts, TunnelFacts
from hauberk_operator.membership import select_members
from hauberk_operator.passage import Passages
from hauberk_operator.precedence import Precedence
from hauberk_operator.rollout import Rolling, roll_out, take_back, waits_for

MAX_TUNNELS: Final = 64
"""As many as an IPsecNode has memberships, and a report lines about tunnels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a tunnel: the Accepted condition."""

    accepted: bool
    reason: Reason
    message: str


_NOT_YET: Final = Verdict(
    accepted=False,
    reason=Reason.PAUSED,
    message="The tunnel is paused and was in no plan before: it begins when spec.paused is false.",
)

_TOO_MANY: Final = Verdict(
    accepted=False,
    reason=Reason.UNSUPPORTED,
    message=f"A mesh carries {MAX_TUNNELS} tunnels, and older ones are that many.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    plan: Plan
    nodes: Mapping[str, NodeSpec]
    """The IPsecNode that each Node should have, by name."""
    members: Mapping[str, Mapping[str, Role]]
    """The members of each planned tunnel, by its UID and the node's name."""
    verdicts: Mapping[str, Verdict]
    """By the tunnel's name; tunnels that are being deleted have none."""
    conflicts: tuple[Conflict, ...]
    on_their_way: Mapping[str, tuple[str, ...]]
    """By UID of a planned tunnel: the nodes that enter or leave it."""
    precedence: Precedence
    """Of the plan's tunnels."""
    waits_for: Mapping[str, tuple[str, ...]]
    """By UID of a planned tunnel that is on its way: the nodes and pairs that its next phase waits for."""


def compile_mesh(
    *,
    tunnels: Iterable[TunnelFacts],
    mesh: MeshSpec,
    nodes: Iterable[NodeFacts],
    members: Mapping[str, MemberFacts],
    previous: Plan | None,
    reports: Mapping[str, ReportFacts],
    trust_bundle: str,
    authority: str = "",
    overdue: Collection[str] = (),
) -> Compiled:
    """Compile everything.

    members are the IPsecNodes as they are (they hold addresses), previous the plan in force. reports say how far the
    agents are, and so whether a tunnel may go on to its next phase; a mesh made anew counts its generations from
    above the highest that any of them follows. trust_bundle and authority are as in the plan; without a bundle the one
    in force stays. overdue are the UIDs of tunnels whose removal waits no longer.
    """
    newest_generation = max((r.status.plan_generation for r in reports.values() if r.status is not None), default=0)
    nodes = sorted(nodes, key=lambda node: node.name)
    eligible = [node for node in nodes if not node.revoked_by(mesh.revoked_nodes)]
    in_force = {planned.uid: planned for planned in previous.tunnels} if previous else {}
    planned: list[PlannedTunnel] = []
    roles: dict[str, Mapping[str, Role]] = {}
    lags: dict[str, Mapping[str, Phase]] = {}
    verdicts: dict[str, Verdict] = {}
    going: dict[str, TunnelFacts] = {}
    by_name = {node.name: node for node in eligible}
    for tunnel in sorted(tunnels, key=lambda tunnel: (tunnel.created, tunnel.name)):
        last = in_force.get(tunnel.uid)
        rolling = Rolling(uid=tunnel.uid, nodes=nodes, reports=reports)
        if tunnel.deleted:
            if last is not None and tunnel.held and tunnel.uid not in overdue:
                roles[tunnel.uid], lags[tunnel.uid] = _members_now(tunnel.uid, members, eligible)
                going[tunnel.uid] = tunnel
                planned.append(last)
            continue
        verdicts[tunnel.name] = verdict = judge(tunnel) if len(planned) < MAX_TUNNELS else _TOO_MANY
        if verdict.accepted and tunnel.spec is not None and tunnel.spec.paused:
            if last is None:
                verdicts[tunnel.name] = _NOT_YET
                continue
            entry = last
            roles[tunnel.uid], lags[tunnel.uid] = _members_in_force(tunnel, members, eligible)
        elif verdict.accepted and tunnel.spec is not None:
            roles[tunnel.uid] = select_members(tunnel.spec, eligible)
            if last is not None:
                passages = Passages(
                    tunnel=last,
                    rollout=tunnel.spec.rollout,
                    non_members=mesh.non_members,
                    nodes=by_name,
                    members=members,
                    reports=reports,
                )
                roles[tunnel.uid], lags[tunnel.uid] = passages.pass_on(
                    roles[tunnel.uid], *_members_now(tunnel.uid, members, eligible)
                )
            entry = roll_out(
                _plan(tunnel, tunnel.spec),
                last,
                tunnel.spec.rollout,
                members=_settled(roles[tunnel.uid], lags.get(tunnel.uid)),
                rolling=rolling,
            )
        elif last is not None:
            # An edit that we cannot carry out must not put traffic in clear: what was accepted last stays in force.
            entry = last
            roles[tunnel.uid], lags[tunnel.uid] = _members_in_force(tunnel, members, eligible)
            still = f"{verdict.message} Generation {last.generation} stays in force."
            verdicts[tunnel.name] = Verdict(accepted=False, reason=verdict.reason, message=still)
        else:
            continue
        planned.append(entry)
    planned = _take_back(planned, going, roles, lags, nodes, reports, previous)
    uids = {entry.uid for entry in planned}
    roles = {uid: members_of for uid, members_of in roles.items() if uid in uids}
    granted, conflicts = settle_claims(nodes, members)
    # Always the oldest tunnel first, whatever the precedence is, or each node would be written with it.
    specs = _specs(nodes, granted, [(uid, of, lags.get(uid, {})) for uid, of in roles.items()], members)
    plan = Plan(
        generation=0,
        pod_networks=mesh.pod_networks,
        non_members=mesh.non_members,
        revoked_nodes=_revoked(mesh, nodes),
        host_exempt_ports=mesh.host_exempt_ports,
        trust_bundle=trust_bundle or (previous.trust_bundle if previous is not None else ""),
        authority=authority or (previous.authority if previous is not None else ""),
        curve=mesh.certificates.curve,
        tunnels=tuple(planned),
    )
    return Compiled(
        plan=_numbered(plan, previous, newest_generation),
        nodes=specs,
        members=roles,
        verdicts=verdicts,
        conflicts=conflicts,
        on_their_way={uid: tuple(sorted(of)) for uid, of in lags.items() if of},
        precedence=Precedence(planned, roles),
        waits_for={
            entry.uid: waits_for(
                entry,
                final_phase(entry.enforcement),
                members=_settled(roles[entry.uid], lags.get(entry.uid)),
                rolling=Rolling(uid=entry.uid, nodes=nodes, reports=reports),
            )
            for entry in planned
            if entry.phase is not final_phase(entry.enforcement)
        },
    )


def judge(tunnel: TunnelFacts) -> Verdict:
    """Whether this version can carry out a tunnel."""
    if tunnel.spec is None:
        return Verdict(accepted=False, reason=Reason.INVALID, message=f"The spec cannot be read: {tunnel.problem}.")
    fields = unsupported_fields(tunnel.spec)
    if fields:
        message = f"This version does not carry out {', '.join(fields)}."
        return Verdict(accepted=False, reason=Reason.UNSUPPORTED, message=message)
    return Verdict(accepted=True, reason=Reason.ACCEPTED, message="The tunnel is in the plan.")


def unsupported_fields(spec: TunnelSpec) -> tuple[str, ...]:
    """The fields that the schema knows and this version does not carry out, each with its value."""
    fields: list[str] = []
    if spec.remote is not None:
        fields.append("remote")
    if spec.establish is Establish.ON_DEMAND and spec.enforcement is Enforcement.PERMISSIVE:
        # Packets ask by meeting a policy without an SA, and Permissive has none: they would go in clear for ever.
        fields.append("establish: OnDemand with enforcement: Permissive")
    if spec.interception is Interception.INTERFACE:
        if spec.traffic.type is not TrafficType.POD_NETWORK:
            fields.append(f"interception: Interface with traffic.type: {spec.traffic.type}")
        elif spec.traffic.protocol is not None:
            # Routes go by addresses alone.
            fields.append("interception: Interface with traffic.protocol")
        if spec.enforcement is Enforcement.PERMISSIVE:
            # What passes in clear is counted by whether policies are to encrypt it, and here routes are.
            fields.append("interception: Interface with enforcement: Permissive")
    return tuple(fields)


def _plan(tunnel: TunnelFacts, spec: TunnelSpec) -> PlannedTunnel:
    """The tunnel in its first phase; the rollout says in which it is."""
    return PlannedTunnel(
        name=tunnel.name,
        uid=tunnel.uid,
        generation=tunnel.generation,
        phase=Phase.ACCEPT,
        topology=spec.topology,
        traffic=spec.traffic,
        mode=spec.mode,
        interception=spec.interception,
        enforcement=spec.enforcement,
        establish=spec.establish,
        idle_seconds=spec.idle_seconds,
        encapsulation=spec.encapsulation,
        ike=spec.ike,
        esp=spec.esp,
    )


def _specs(
    nodes: Iterable[NodeFacts],
    granted: Mapping[str, Granted],
    tunnels: Sequence[tuple[str, Mapping[str, Role], Mapping[str, Phase]]],
    members: Mapping[str, MemberFacts],
) -> dict[str, NodeSpec]:
    """The IPsecNode of each Node. One that is right already is taken as it is: thousands are, and one is not."""
    specs: dict[str, NodeSpec] = {}
    for node in nodes:
        addresses, cidrs = tuple(granted[node.name].addresses), tuple(granted[node.name].pod_cidrs)
        memberships = tuple(
            _membership(uid, role, lags.get(node.name))
            for uid, roles, lags in tunnels
            if (role := roles.get(node.name)) is not None
        )
        member = members.get(node.name)
        spec = member.spec if member is not None else None
        if (
            spec is None
            or spec.node_uid != node.uid
            or spec.addresses != addresses
            or spec.pod_cidrs != cidrs
            or spec.memberships != memberships
        ):
            spec = NodeSpec(nodeUID=node.uid, addresses=addresses, podCIDRs=cidrs, memberships=memberships)
        specs[node.name] = spec
    return specs


@lru_cache(maxsize=4 * MAX_TUNNELS)
def _membership(tunnel: str, role: Role, phase: Phase | None) -> Membership:
    """The same for all nodes, so one object is enough."""
    return Membership(tunnel=tunnel, role=role, phase=phase)


def _settled(roles: Mapping[str, Role], lags: Mapping[str, Phase] | None) -> Mapping[str, Role]:
    """The members that are not on their way in or out: these the tunnel's phases are about."""
    return {name: role for name, role in roles.items() if name not in lags} if lags else roles


def _take_back(
    planned: Sequence[PlannedTunnel],
    going: Mapping[str, TunnelFacts],
    roles: Mapping[str, Mapping[str, Role]],
    lags: Mapping[str, Mapping[str, Phase]],
    nodes: Collection[NodeFacts],
    reports: Mapping[str, ReportFacts],
    previous: Plan | None,
) -> list[PlannedTunnel]:
    """The plan's tunnels, those that are being deleted (going) a phase further back.

    They come last: what they carried is at once another tunnel's that wants it too, and never in clear in between. So
    as long as such a tunnel is not in its own last phase the one that goes stays as it is.
    """
    if not going:
        return list(planned)
    precedence = Precedence(planned, roles)
    order = [tunnel.uid for tunnel in previous.tunnels] if previous is not None else []
    staying: list[PlannedTunnel] = []
    last: list[PlannedTunnel] = []
    for entry in planned:
        if entry.uid not in going:
            staying.append(entry)
            continue
        heirs = [
            heir
            for heir in planned
            if heir.uid not in going
            and heir.phase is not final_phase(heir.enforcement)
            and any(loss.to == entry.name for loss in precedence.losses(heir.uid))
        ]
        spec = going[entry.uid].spec
        at_once = spec is not None and spec.rollout is Rollout.IMMEDIATE
        if not at_once and any(heir.uid not in order[: order.index(entry.uid)] for heir in heirs):
            staying.append(entry)
            continue
        rolling = Rolling(uid=entry.uid, nodes=nodes, reports=reports)
        back = take_back(entry, spec, members=_settled(roles[entry.uid], lags.get(entry.uid)), rolling=rolling)
        if back is not None:
            last.append(back)
    return staying + last


def _members_in_force(
    tunnel: TunnelFacts, members: Mapping[str, MemberFacts], nodes: Iterable[NodeFacts]
) -> tuple[dict[str, Role], dict[str, Phase]]:
    """Who is in a tunnel whose plan stays: whoever was, and Nodes that register meanwhile, as the spec selects.

    A new node's pods would else speak with the others' in clear.
    """
    nodes = list(nodes)
    roles, lags = _members_now(tunnel.uid, members, nodes)
    if tunnel.spec is not None:
        roles |= select_members(tunnel.spec, [node for node in nodes if not _known(node, members)])
    return roles, lags


def _known(node: NodeFacts, members: Mapping[str, MemberFacts]) -> bool:
    member = members.get(node.name)
    return member is not None and member.spec is not None and member.spec.node_uid == node.uid


def _members_now(
    uid: str, members: Mapping[str, MemberFacts], nodes: Iterable[NodeFacts]
) -> tuple[dict[str, Role], dict[str, Phase]]:
    """Who is in a tunnel according to the IPsecNodes, and the phases of those that are on their way."""
    roles: dict[str, Role] = {}
    lags: dict[str, Phase] = {}
    for node in nodes:
        member = members.get(node.name)
        if member is None or member.spec is None or not _known(node, members):
            continue
        for membership in member.spec.memberships:
            if membership.tunnel == uid:
                roles[node.name] = membership.role
                if membership.phase is not None:
                    lags[node.name] = membership.phase
    return roles, lags


def _revoked(mesh: MeshSpec, nodes: Iterable[NodeFacts]) -> tuple[str, ...]:
    """What people have listed, and the UIDs of the Nodes that are there and are meant by a name or a label.

    Agents so shut out a Node by its UID alone, which is in its certificate: an earlier version's too.
    """
    meant = [node.uid for node in nodes if node.revoked_by(mesh.revoked_nodes)]
    return tuple(dict.fromkeys((*mesh.revoked_nodes, *meant)))


def _numbered(plan: Plan, previous: Plan | None, newest_generation: int) -> Plan:
    if previous is not None and plan == previous.model_copy(update={"generation": 0}):
        return previous
    before = max(previous.generation if previous else 0, newest_generation)
    return plan.model_copy(update={"generation": before + 1})
