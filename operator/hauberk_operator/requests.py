"""Certificate requests: gathers the evidence on each open one, has it judged, and denies or has it signed.

Called by lead.py as the step of a loop of its own, so that a busy mesh never delays a node's identity. A request is
read afresh before it is written, and written with its resourceVersion, so nothing is approved that has changed since.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from hauberk_api.kinds import MESH_NAME
from hauberk_api.mesh import MeshSpec
from hauberk_operator.approval import Evidence, Grant, Later, Opened, Refusal, judge, open_request
from hauberk_operator.ca import certificate_pem, lifetime
from hauberk_operator.facts import Json, NodeFacts, PodFacts, RequestFacts
from hauberk_operator.issuer import Issuer, Order, Pending
from hauberk_operator.kube import Kube, KubeError
from hauberk_operator.view import ClusterView
from hauberk_operator.writes import NODE, POD, REQUEST, delete, event

CONCURRENCY: Final = 8
MOST_REMOVED: Final = 64
"""Old requests that a step removes: a mesh that joined at once is not waited for by a node that asks now."""

LATER_SECONDS: Final = 1.0
KEPT: Final = timedelta(minutes=15)
"""For so long from its beginning a settled request is there to be looked at. The controller manager's cleaner takes an
hour, in which a large mesh of short certificates makes thousands."""

log = logging.getLogger(__name__)


class Requests:
    """The signer's side of the CertificateSigningRequests."""

    def __init__(
        self,
        kube: Kube,
        view: ClusterView,
        issuer: Callable[[], Issuer | None],
        *,
        namespace: str,
        clock: Callable[[], datetime],
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """issuer: who signs now, or None while requests have to wait. progress is called after each request."""
        self._kube = kube
        self._view = view
        self._issuer = issuer
        self._namespace = namespace
        self._clock = clock
        self._progress = progress

    async def step(self) -> float | None:
        """Settle every open request, and remove old ones. Returns when to look again."""
        waiting = [request for request in self._view.requests.values() if request.open]
        slots = asyncio.Semaphore(CONCURRENCY)
        faults: list[KubeError] = []

        async def settle(request: RequestFacts) -> float | None:
            async with slots:
                if faults and faults[0].unreachable:
                    return LATER_SECONDS
                try:
                    look_in = await self._settle(request)
                    self._progress()
                    return look_in
                except KubeError as error:
                    if error.conflict or error.not_found:
                        await self._read_again(request)
                        return LATER_SECONDS
                    faults.append(error)
                    return LATER_SECONDS

        async with asyncio.TaskGroup() as tasks:
            settling = [tasks.create_task(settle(request)) for request in waiting]
        if faults:
            raise faults[0]
        waits = [look_in for task in settling if (look_in := task.result()) is not None]
        waits.extend(await self._collect())
        return min(waits, default=None)

    async def _collect(self) -> list[float]:
        """Remove settled requests that are old. Returns in how many seconds the others are."""
        waits: list[float] = []
        removed = 0
        for request in [request for request in self._view.requests.values() if not request.open and request.created]:
            left = datetime.fromisoformat(request.created) + KEPT - self._clock()
            if left > timedelta(0):
                waits.append(left / timedelta(seconds=1))
                continue
            if removed == MOST_REMOVED:
                return [0.0]
            removed += 1
            try:
                await self._kube.carry_out(delete(REQUEST, request, why="it was settled long ago"))
            except KubeError as error:
                if not error.conflict:
                    raise
            self._view.requests.remove(request.name, request.resource_version)
        return waits

    async def _settle(self, request: RequestFacts) -> float | None:
        """Settle one request. In how many seconds to look at it again; None: it is settled, or its issuer pokes."""
        issuer = self._issuer()
        pending = issuer.waits(request) if issuer is not None else None
        if pending is not None:
            return pending.look_in
        opened = open_request(request, namespace=self._namespace)
        decision = opened if isinstance(opened, Refusal) else judge(await self._gather(request, opened))
        match decision:
            case Later():
                log.info("request %s waits: %s", request.name, decision.message)
                return LATER_SECONDS
            case Refusal():
                await self._refuse(request, decision)
            case Grant():
                issuer = self._issuer()
                if issuer is None:
                    log.info("request %s waits: the root that signs is not in the plan yet", request.name)
                    return LATER_SECONDS
                return await self._grant(request, decision, issuer)
        return None

    async def _gather(self, request: RequestFacts, opened: Opened) -> Evidence:
        """Node and pod are read from the API server itself: the view may be late, and a pod may have moved."""
        stamps = opened.stamps
        node, pod = await asyncio.gather(
            self._kube.find(NODE, stamps.node_name),
            self._kube.find(POD, stamps.pod_name, namespace=self._namespace),
        )
        return Evidence(
            request=request,
            stamps=stamps,
            pkcs10=opened.pkcs10,
            namespace=self._namespace,
            mesh=MESH_NAME,
            revoked_nodes=frozenset(self._settings().revoked_nodes),
            node=NodeFacts.parse(node) if node is not None else None,
            pod=PodFacts.parse(pod) if pod is not None else None,
            member=self._view.members.get(stamps.node_name),
        )

    async def _refuse(self, request: RequestFacts, refusal: Refusal) -> None:
        obj = await self._fresh(request)
        if obj is None:
            return
        # What somebody else has approved can only be failed by the signer, not be denied any more.
        approved = "Approved" in request.conditions
        kind, subresource = ("Failed", "status") if approved else ("Denied", "approval")
        _add_condition(obj, kind, refusal.reason, refusal.message, self._clock())
        await self._write(obj, subresource)
        log.warning("refused request %s of %s: %s: %s", request.name, request.username, refusal.reason, refusal.message)
        note = f"Refused: {refusal.message}"
        told = event(REQUEST, request, reason=refusal.reason, note=note, warning=True, action="Refuse")
        await self._kube.carry_out(told)

    async def _grant(self, request: RequestFacts, grant: Grant, issuer: Issuer) -> float | None:
        obj = await self._fresh(request)
        if obj is None:
            return None
        if "Approved" not in request.conditions:
            message = f"Asked by an agent on node {grant.node_name} for itself."
            _add_condition(obj, "Approved", "NodeIdentity", message, self._clock())
            obj = await self._write(obj, "approval")
        seconds = lifetime(
            configured_seconds=self._settings().certificates.lifetime_seconds,
            requested_seconds=request.expiration_seconds,
        )
        outcome = await issuer.issue(Order(request=request, grant=grant, lifetime_seconds=seconds))
        if isinstance(outcome, Pending):
            log.info("request %s waits: %s", request.name, outcome.message)
            return outcome.look_in
        certificate = outcome.chain[0]
        chain = "".join(map(certificate_pem, outcome.chain))
        obj.setdefault("status", {})["certificate"] = base64.b64encode(chain.encode()).decode()
        await self._write(obj, "status")
        until = certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
        serial = f"{certificate.serial_number:x}"
        log.info("signed request %s for node %s: serial %s, until %s", request.name, grant.node_name, serial, until)
        return None

    def _settings(self) -> MeshSpec:
        mesh = self._view.mesh
        return mesh.spec if mesh is not None and mesh.spec is not None else MeshSpec()

    async def _fresh(self, request: RequestFacts) -> Json | None:
        """The request as it is now, or None if it is not the one that was judged, or is settled by now."""
        obj = await self._kube.get(REQUEST, request.name)
        facts = RequestFacts.parse(obj)
        self._view.requests.put(facts)
        return obj if facts == request else None

    async def _read_again(self, request: RequestFacts) -> None:
        obj = await self._kube.find(REQUEST, request.name)
        if obj is None:
            self._view.requests.remove(request.name, request.resource_version)
        else:
            self._view.requests.put(RequestFacts.parse(obj))

    async def _write(self, obj: Json, subresource: str) -> Json:
        written = await self._kube.replace(REQUEST, obj["metadata"]["name"], obj, subresource=subresource)
        self._view.requests.put(RequestFacts.parse(written))
        return written


def _add_condition(obj: Json, kind: str, reason: str, message: str, now: datetime) -> None:
    stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {
        "type": kind,
        "status": "True",
        "reason": str(reason),
        "message": message,
        "lastUpdateTime": stamp,
        "lastTransitionTime": stamp,
    }
    status = obj.setdefault("status", {})
    status["conditions"] = [*status.get("conditions", ()), condition]
