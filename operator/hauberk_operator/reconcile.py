"""One look at the whole cluster, and the writes that bring it to what is wanted. Pure and level-triggered.

Called by operator.py whenever the view has changed. Writes come in stages, each of which is finished before the next
begins: for a tunnel that appears, the nodes' memberships come before the plan, so that it starts everywhere with one
event; for one that goes, the plan comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from hauberk_api.kinds import MESH_NAME
from hauberk_api.mesh import CertificateSettings, MeshSpec, PodCIDRSource
from hauberk_api.names import FINALIZER
from hauberk_api.plan import Plan
from hauberk_api.report import ReportStatus, UnwellReason
from hauberk_operator import news
from hauberk_operator.compile import Compiled, compile_mesh
from hauberk_operator.facts import MeshFacts, NodeFacts, TunnelFacts
from hauberk_operator.fold import fold_mesh, fold_tunnel, mesh_conditions, pod_range
from hauberk_operator.pod_cidrs import PodCIDRs, find_pod_cidrs
from hauberk_operator.standing import Standing, rfc3339
from hauberk_operator.view import ClusterView
from hauberk_operator.writes import (
    MEMBER,
    MESH,
    NODE,
    REPORT,
    TUNNEL,
    Write,
    create,
    delete,
    owner_reference,
    patch,
)

PHASES_LIMIT: Final = timedelta(seconds=45)
"""How long a tunnel that is deleted goes back phase by phase; then it leaves the plan whatever agents report."""

REMOVAL_LIMIT: Final = timedelta(seconds=60)
"""How long the removal of a tunnel waits for agents to take it down."""

SET_UP_LIMIT: Final = timedelta(seconds=10)
"""How long a new Node may take to get its pod CIDRs, or to be Ready without any. It is published once then, not twice:
every agent of the mesh is sent an event each time."""

_LOOK_AGAIN: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    stages: tuple[tuple[Write, ...], ...]
    untaint: tuple[NodeFacts, ...] = ()
    """Nodes that are ready for pods: their startup taint goes."""
    look_again: timedelta | None = None
    """When to look again though nothing has changed."""

    @property
    def writes(self) -> tuple[Write, ...]:
        return tuple(write for stage in self.stages for write in stage)


def reconcile(view: ClusterView, *, standing: Standing, now: datetime) -> Reconciliation:
    """What to write. view must be complete; standing is the authority's; now is aware."""
    mesh = view.mesh
    if mesh is None:
        return Reconciliation(stages=((create(MESH, MESH_NAME, spec={}, why="the mesh's settings and plan"),),))
    settings = mesh.spec or _settings_in_force(mesh)
    pod_cidrs = find_pod_cidrs(
        settings.pod_cidr_source, mesh.pod_cidr_source, nodes=view.nodes, members=view.members, cni=view.cni
    )
    compiled = compile_mesh(
        tunnels=view.tunnels.values(),
        mesh=settings,
        nodes=pod_cidrs.tell(view.nodes.values()),
        members=view.members,
        previous=mesh.plan,
        reports=view.reports,
        trust_bundle=standing.bundle,
        authority=standing.authority,
        overdue=[tunnel.uid for tunnel in view.tunnels.values() if _left(tunnel, PHASES_LIMIT, now) <= timedelta(0)],
    )
    member_writes, unsettled = _write_members(view, compiled, now)
    members = (member_writes, _write_mesh(mesh, view.nodes, compiled, standing, pod_cidrs, now))
    goes = mesh.plan is not None and {t.uid for t in mesh.plan.tunnels} - {t.uid for t in compiled.plan.tunnels}
    removals, removal_left = _finish_removals(view, mesh.plan, now)
    return Reconciliation(
        stages=(
            _hold_tunnels(view, compiled),
            *(reversed(members) if goes else members),
            (*_write_statuses(view, compiled, now), *removals, *_collect_garbage(view)),
        ),
        untaint=_ready_nodes(view, mesh.plan),
        look_again=min((wait for wait in (unsettled, removal_left) if wait is not None), default=None),
    )


def _settings_in_force(mesh: MeshFacts) -> MeshSpec:
    """The settings to go on with when the mesh's spec cannot be read.

    Nodes that were revoked by a label stay so, as their UIDs are in the plan.
    """
    plan = mesh.plan
    source = mesh.pod_cidr_source or PodCIDRSource.AUTO
    if plan is None:
        return MeshSpec(podCIDRSource=source)
    return MeshSpec(
        podCIDRSource=source,
        pod_networks=plan.pod_networks,
        non_members=plan.non_members,
        revoked_nodes=plan.revoked_nodes,
        certificates=CertificateSettings(curve=plan.curve),
    )


def _hold_tunnels(view: ClusterView, compiled: Compiled) -> tuple[Write, ...]:
    """Our finalizer on what is in the plan, so that its removal can be waited for."""
    planned = {tunnel.uid for tunnel in compiled.plan.tunnels}
    return tuple(
        patch(
            TUNNEL,
            tunnel,
            {"/metadata/finalizers": [*tunnel.finalizers, FINALIZER]},
            why="its removal is to be waited for",
        )
        for tunnel in view.tunnels.values()
        if tunnel.uid in planned and not tunnel.held and not tunnel.deleted
    )


def _write_members(view: ClusterView, compiled: Compiled, now: datetime) -> tuple[tuple[Write, ...], timedelta | None]:
    """The IPsecNodes that are to be made or changed, and when to look again at Nodes that are being set up."""
    writes: list[Write] = []
    waits: list[timedelta] = []
    for name, spec in compiled.nodes.items():
        node, member = view.nodes[name], view.members.get(name)
        if member is None:
            left = datetime.fromisoformat(node.created) + SET_UP_LIMIT - now
            if not node.ready and not spec.pod_cidrs and left > timedelta(0):
                waits.append(left)
                continue
            writes.append(create(MEMBER, name, owner=node, spec=spec.to_object(), why="a new Node"))
        elif member.spec != spec or member.owner_uid != node.uid:
            values = {"/spec": spec.to_object(), "/metadata/ownerReferences": [owner_reference(node)]}
            writes.append(patch(MEMBER, member, values, why="its Node or its memberships have changed"))
    return tuple(writes), min(waits, default=None)


def _write_mesh(
    mesh: MeshFacts,
    nodes: Mapping[str, NodeFacts],
    compiled: Compiled,
    standing: Standing,
    pod_cidrs: PodCIDRs,
    now: datetime,
) -> tuple[Write, ...]:
    unchanged = mesh.plan == compiled.plan
    status = fold_mesh(
        plan=mesh.status["plan"] if unchanged else compiled.plan.to_object(),
        generation=mesh.generation,
        current=mesh.status,
        authority=standing.status,
        pod_cidr_source=pod_cidrs.source or mesh.pod_cidr_source,
        conditions=mesh_conditions(compiled.conflicts, mesh.problem, standing.fault, pod_cidrs),
        now=rfc3339(now),
    )
    if status == mesh.status:
        return ()
    why = "its conditions" if unchanged else f"plan generation {compiled.plan.generation}"
    write = patch(MESH, mesh, {"/status": status}, subresource="status", why=why)
    return (
        write,
        *news.of_conditions(MESH, mesh, mesh.status, status),
        *news.of_claims(mesh, compiled.conflicts, nodes),
        *news.of_revocations(mesh.plan, compiled.plan, nodes),
    )


def _write_statuses(view: ClusterView, compiled: Compiled, now: datetime) -> Iterable[Write]:
    planned = {tunnel.uid: tunnel for tunnel in compiled.plan.tunnels}
    pod_networks = pod_range(compiled.plan.pod_networks, compiled.nodes.values())
    for tunnel in view.tunnels.values():
        verdict = compiled.verdicts.get(tunnel.name)
        in_plan = tunnel.uid in planned
        if verdict is None or (in_plan and not tunnel.held):
            continue  # being deleted, or its version changes in this very pass: its turn comes in the next
        status = fold_tunnel(
            tunnel,
            verdict=verdict,
            members=compiled.members[tunnel.uid] if in_plan else None,
            generation=planned[tunnel.uid].generation if in_plan else tunnel.generation,
            planned=planned.get(tunnel.uid),
            precedence=compiled.precedence,
            waits_for=compiled.waits_for.get(tunnel.uid, ()),
            on_their_way=compiled.on_their_way.get(tunnel.uid, ()),
            nodes=compiled.nodes,
            reports=view.reports,
            conflicts=compiled.conflicts,
            pod_networks=pod_networks,
            came_tainted={node.name for node in view.nodes.values() if node.came_tainted},
            now=rfc3339(now),
        )
        if status != tunnel.status:
            yield patch(TUNNEL, tunnel, {"/status": status}, subresource="status", why="its status")
            yield from news.of_conditions(TUNNEL, tunnel, tunnel.status, status)


def _finish_removals(view: ClusterView, plan: Plan | None, now: datetime) -> tuple[tuple[Write, ...], timedelta | None]:
    """Let go of deleted tunnels that the plan in force no longer has and no agent on a Ready node still carries."""
    writes: list[Write] = []
    waits: list[timedelta] = []
    in_force = {tunnel.uid for tunnel in plan.tunnels} if plan is not None else set[str]()
    for tunnel in view.tunnels.values():
        if not tunnel.deleted or not tunnel.held:
            continue
        if tunnel.uid in in_force:
            waits.append(max(_left(tunnel, PHASES_LIMIT, now), _LOOK_AGAIN))
            continue
        left = _left(tunnel, REMOVAL_LIMIT, now)
        carriers = _carriers(view, tunnel)
        if carriers and left > timedelta(0):
            waits.append(left)
            continue
        why = f"not awaited any longer: {', '.join(carriers[:3])}" if carriers else "no agent carries it any more"
        finalizers = [finalizer for finalizer in tunnel.finalizers if finalizer != FINALIZER]
        writes.append(patch(TUNNEL, tunnel, {"/metadata/finalizers": finalizers}, why=why))
    return tuple(writes), min(waits, default=None)


def _left(tunnel: TunnelFacts, limit: timedelta, now: datetime) -> timedelta:
    """What is left of a time that began with the tunnel's deletion; all of it while it is not deleted."""
    return datetime.fromisoformat(tunnel.deleted) + limit - now if tunnel.deleted else limit


def _carriers(view: ClusterView, tunnel: TunnelFacts) -> list[str]:
    """The Ready nodes whose agents report the tunnel."""
    return [
        name
        for name, report in view.reports.items()
        if (node := view.nodes.get(name)) is not None
        and node.ready
        and report.status is not None
        and report.status.node_uid == node.uid
        and any(carried.tunnel == tunnel.uid for carried in report.status.tunnels)
    ]


def _collect_garbage(view: ClusterView) -> Iterable[Write]:
    """Objects of Nodes that are gone. The API server's own collector does it too, by owner, in its own time."""
    for name, member in view.members.items():
        if name not in view.nodes:
            yield delete(MEMBER, member, why="its Node is gone", only_if_gone=NODE)
    for name, report in view.reports.items():
        if name not in view.nodes:
            yield delete(REPORT, report, why="its Node is gone", only_if_gone=NODE)


def _ready_nodes(view: ClusterView, plan: Plan | None) -> tuple[NodeFacts, ...]:
    """Tainted nodes whose agents have carried out the plan in force."""
    if plan is None:
        return ()
    ready: list[NodeFacts] = []
    for node in view.nodes.values():
        report = view.reports.get(node.name)
        if not node.startup_taint or report is None or report.status is None:
            continue
        status = report.status
        if status.node_uid == node.uid and status.plan_generation == plan.generation and _protects(status, plan):
            ready.append(node)
    return tuple(ready)


def _protects(status: ReportStatus, plan: Plan) -> bool:
    """Whether a node is fit for pods: all its tunnels' policies stand, and each pair is up or has been tried in vain.

    Were every pair waited for, one node that is down would keep pods from all new ones.
    """
    if status.ready:
        return True
    phases = {tunnel.uid: tunnel.phase for tunnel in plan.tunnels}
    return (
        status.certificate is not None
        and status.kernel.esp
        and status.unwell_count > 0
        and all(tunnel.phase is not None and tunnel.phase is phases.get(tunnel.tunnel) for tunnel in status.tunnels)
        and all(peer.reason is not UnwellReason.ESTABLISHING for peer in status.unwell)
    )
