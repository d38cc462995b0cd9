"""What the leading replica does, from taking the Lease to losing it.

Three loops read the view and write: the mesh (plan, IPsecNodes, statuses), the requests (certificates) and the
authority (the mesh CA and its roll). kopf's
watches and full listings keep the view. Every task has its place in one TaskGroup: if one fails, the process ends, and
the other replica, or this one started again, begins afresh. There is nothing in memory that matters.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Final, TypeVar

from hauberk_api.kinds import GROUP, MESH_NAME, MESHES, NODES, REPORTS, TUNNELS, VERSION
from hauberk_api.names import SIGNER, STARTUP_TAINT, TAINT_REMOVED
from hauberk_operator.authority import Authority
from hauberk_operator.cert_manager import CertManager
from hauberk_operator.cni_watch import CniWatch
from hauberk_operator.facts import (
    Facts,
    Json,
    MemberFacts,
    MeshFacts,
    NodeFacts,
    ReportFacts,
    RequestFacts,
    TunnelFacts,
)
from hauberk_operator.health import Health
from hauberk_operator.kube import Kube, KubeError
from hauberk_operator.lease import Lease
from hauberk_operator.loop import Loop
from hauberk_operator.reconcile import reconcile
from hauberk_operator.requests import Requests
from hauberk_operator.standing import rfc3339
from hauberk_operator.view import ClusterView, Table
from hauberk_operator.writes import MEMBER, MESH, NODE, REPORT, REQUEST, TUNNEL, Resource, Verb, Write, create

CONCURRENCY: Final = 16
"""Writes under way at a time."""

RESYNC_SECONDS: Final = 600.0
"""How often everything is listed, to mend what watch events missed. The first time is soon after the watches began."""

FIRST_RESYNC_SECONDS: Final = 15.0
REFUSED_SECONDS: Final = 30.0
"""When to try again what the API server refused as such."""

RETRY_SECONDS: Final = 2.0

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Facts)
T = TypeVar("T")


class StoppedError(Exception):
    """Asked to stop, by a signal."""


class Leader:
    """One term of leadership."""

    def __init__(self, kube: Kube, *, namespace: str, health: Health) -> None:
        self._kube = kube
        self._namespace = namespace
        self._health = health
        self._view = ClusterView()
        self._cert_manager = CertManager(
            kube,
            self._view,
            namespace=namespace,
            clock=_now,
            changed=lambda: self._request_loop.poke(),
            news=lambda: self._authority_loop.poke(),
        )
        self._authority = Authority(
            kube,
            self._view,
            self._cert_manager,
            namespace=namespace,
            clock=_now,
            changed=self._authority_changed,
            look=lambda: self._authority_loop.poke(),
        )
        self._refused: dict[tuple[str, str, str], str] = {}
        """What the API server refused last, so that the log has it once."""
        self._mesh_loop = Loop("mesh", self._reconcile, clock=time.monotonic)
        requests = Requests(
            kube,
            self._view,
            self._authority.published_issuer,
            namespace=namespace,
            clock=_now,
            progress=lambda: self._request_loop.progress(),
        )
        self._cni = CniWatch(kube, self._view, changed=self._mesh_loop.poke)
        self._request_loop = Loop("requests", requests.step, clock=time.monotonic)
        self._authority_loop = Loop("authority", self._authority.step, clock=time.monotonic)

    async def run(self, lease: Lease) -> None:
        """Lead until cancelled, or until something ends it: LeaseLostError, BadAuthorityError, or a defect."""
        self._health.leading = True
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(lease.renew(), name="lease")
            tasks.create_task(self._lead(), name="lead")

    async def _lead(self) -> None:
        await _persist("waiting for Hauberk's CRDs", self._find_crds)
        await _persist("listing the cluster", self._sync)
        await _persist("looking for what the CNI plugin writes down", self._cni.sync)
        await _persist("making the IPsecMesh", self._make_mesh)
        await _persist("looking for cert-manager's CertificateRequests", self._cert_manager.sync)
        await _persist("reading the mesh CA", self._authority.step)
        resync_loop = Loop("resync", self._resync(), clock=time.monotonic)
        self._health.loops = (self._mesh_loop, self._request_loop, self._authority_loop, resync_loop)
        self._health.synced = True
        # Facts stay for as long as their objects do: a collector that looks at all of them again and again takes a
        # tenth of a second each time in a mesh of thousands.
        gc.freeze()
        log.info("leading: %d nodes, %d tunnels", len(self._view.nodes), len(self._view.tunnels))
        async with asyncio.TaskGroup() as tasks:
            for loop in self._health.loops:
                tasks.create_task(loop.run())
            tasks.create_task(self._cni.run(), name="cni")
            tasks.create_task(self._cert_manager.run(), name="cert-manager")
            # Last, as kopf ends by waiting for whatever was started after it.
            tasks.create_task(self._watch(), name="watch")

    async def _watch(self) -> None:
        from hauberk_operator import handlers  # imports kopf

        await handlers.watch(
            self._kube,
            self._view,
            changed=self._mesh_loop.poke,
            requested=self._request_loop.poke,
            settled=self._mesh_changed,
        )
        raise StoppedError  # kopf has taken the signals over, and returns on SIGTERM

    async def _find_crds(self) -> None:
        missing = {TUNNELS, MESHES, NODES, REPORTS} - await self._kube.serves(GROUP, VERSION)
        if missing:
            raise KubeError(404, "NotFound", f"the API server does not serve {', '.join(sorted(missing))} yet")

    async def _make_mesh(self) -> None:
        if self._view.mesh is None:
            write = create(MESH, MESH_NAME, spec={}, why="the mesh's settings and plan")
            try:
                self._learn(write, await self._kube.carry_out(write))
            except KubeError as error:
                if not error.conflict:
                    raise
                await self._sync()

    def _authority_changed(self) -> None:
        self._mesh_loop.poke()
        self._request_loop.poke()

    def _mesh_changed(self) -> None:
        """Settings, or what is published, are others."""
        self._cert_manager.poke()
        self._mesh_loop.poke()
        self._authority_loop.poke()
        self._request_loop.poke()

    async def _sync(self) -> bool:
        """List every kind. Returns whether the view has changed."""
        view, changed = self._view, False
        changed |= await self._list(NODE, view.nodes, NodeFacts.parse)
        changed |= await self._list(TUNNEL, view.tunnels, TunnelFacts.parse)
        changed |= await self._list(MESH, view.meshes, MeshFacts.parse)
        changed |= await self._list(MEMBER, view.members, MemberFacts.parse)
        changed |= await self._list(REPORT, view.reports, ReportFacts.parse)
        selector = f"spec.signerName={SIGNER}"
        changed |= await self._list(REQUEST, view.requests, RequestFacts.parse, field_selector=selector)
        return changed

    async def _list(
        self, resource: Resource, table: Table[F], parse: Callable[[Json], F], *, field_selector: str = ""
    ) -> bool:
        listing: list[F] = []
        version = 0
        async for page, listed_at in self._kube.pages(resource, field_selector=field_selector):
            # Later pages of a listing are of the first one's version.
            version = version or listed_at
            listing.extend(parse(obj) for obj in page)
        return table.replace(listing, version)

    def _resync(self) -> Callable[[], Awaitable[float]]:
        first = True

        async def step() -> float:
            nonlocal first
            if first:
                first = False
                return FIRST_RESYNC_SECONDS
            if await self._sync():
                self._mesh_changed()
            return RESYNC_SECONDS * random.uniform(0.9, 1.1)  # noqa: S311 - jitter, not a secret

        return step

    async def _reconcile(self) -> float | None:
        plan = reconcile(self._view, standing=self._authority.standing, now=_now())
        refused = 0
        for stage in plan.stages:
            refused += await self._carry_out(stage)
        for node in plan.untaint:
            await self._untaint(node)
        waits = [plan.look_again.total_seconds()] if plan.look_again is not None else []
        if refused:
            waits.append(REFUSED_SECONDS)
        return min(waits, default=None)

    async def _carry_out(self, writes: Iterable[Write]) -> int:
        """Do all writes of a stage; one that is refused does not hold up the others. Returns how many were.

        Raises KubeError when the API server cannot be reached or cannot serve.
        """
        slots = asyncio.Semaphore(CONCURRENCY)
        outages: list[KubeError] = []
        refused = 0

        async def carry_out(write: Write) -> None:
            nonlocal refused
            async with slots:
                if outages:
                    return
                try:
                    self._learn(write, await self._kube.carry_out(write))
                except KubeError as error:
                    if error.unreachable or error.status in (401, 429) or error.status >= 500:
                        outages.append(error)
                    elif error.conflict or error.not_found:
                        await self._read_again(write, outages)
                    else:
                        refused += 1
                        self._tell_refusal(write, error)

        async with asyncio.TaskGroup() as tasks:
            for write in writes:
                tasks.create_task(carry_out(write))
        if outages:
            raise outages[0]
        return refused

    def _learn(self, write: Write, obj: Json | None) -> None:
        """Take a write's outcome into the view at once; its watch event comes later, and says nothing new."""
        what = f"{write.resource.kind} {write.name}".rstrip()
        log.info("%s %s%s: %s", write.verb, what, f"/{write.subresource}" if write.subresource else "", write.why)
        self._refused.pop((write.verb, write.resource.kind, write.name), None)
        self._mesh_loop.progress()
        if obj is not None:
            self._put(write.resource, obj)

    def _put(self, resource: Resource, obj: Json) -> None:
        view, changed = self._view, False
        if resource == TUNNEL:
            changed = view.tunnels.put(TunnelFacts.parse(obj))
        elif resource == MESH:
            if view.meshes.put(MeshFacts.parse(obj)):
                self._mesh_changed()
        elif resource == MEMBER:
            changed = view.members.put(MemberFacts.parse(obj))
        elif resource == NODE:
            changed = view.nodes.put(NodeFacts.parse(obj))
        if changed:
            self._mesh_loop.poke()

    async def _read_again(self, write: Write, outages: list[KubeError]) -> None:
        """After a conflict: see what the object is now, and decide anew."""
        self._mesh_loop.poke()
        if write.verb is Verb.DELETE or not write.name:
            return
        try:
            obj = await self._kube.find(write.resource, write.name, namespace=write.namespace)
        except KubeError as error:
            outages.append(error)
            return
        if obj is not None:
            self._put(write.resource, obj)

    def _tell_refusal(self, write: Write, error: KubeError) -> None:
        key = (write.verb, write.resource.kind, write.name)
        if self._refused.get(key) != str(error):
            self._refused[key] = str(error)
            log.error("the API server refused to %s %s %s: %s", write.verb, write.resource.kind, write.name, error)

    async def _untaint(self, node: NodeFacts) -> None:
        """Take our startup taint off a Node whose agent follows the plan. Operators only ever remove it.

        The annotation remembers that the Node came with it, for the tunnels' status.
        """
        obj = await self._kube.find(NODE, node.name)
        if obj is None or obj["metadata"]["uid"] != node.uid:
            return
        taints = [taint for taint in obj["spec"].get("taints", ()) if taint["key"] != STARTUP_TAINT]
        annotations = {**obj["metadata"].get("annotations", {}), TAINT_REMOVED: rfc3339(_now())}
        version = obj["metadata"]["resourceVersion"]
        operations: list[Json] = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": "/spec/taints", "value": taints},
            {"op": "add", "path": "/metadata/annotations", "value": annotations},
        ]
        try:
            self._put(NODE, await self._kube.patch(NODE, node.name, operations))
            log.info("node %s is protected: took its startup taint off", node.name)
        except KubeError as error:
            if not error.conflict:
                raise
            self._mesh_loop.poke()


async def _persist(what: str, step: Callable[[], Awaitable[T]]) -> T:
    """Go on trying something that needs the API server, and say what is being waited for."""
    told = ""
    while True:
        try:
            return await step()
        except KubeError as error:
            if told != str(error):
                told = str(error)
                log.warning("%s: %s; will go on trying", what, error)
        await asyncio.sleep(RETRY_SECONDS)


def _now() -> datetime:
    return datetime.now(UTC)
