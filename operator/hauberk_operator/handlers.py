"""kopf's part: watches what the operator decides by, and feeds it to the view. Nothing else happens here.

Only on.event handlers: kopf then writes nothing at all, neither annotations nor finalizers. kopf's own peering is off,
as the Lease decides who leads. Imported by lead.py once this replica leads, because importing kopf costs memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from hauberk_api.kinds import GROUP
from hauberk_api.names import SIGNER
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
from hauberk_operator.kube import PAGE, Kube
from hauberk_operator.view import ClusterView, Table
from hauberk_operator.writes import MEMBER, MESH, NODE, REPORT, REQUEST, TUNNEL, Resource

WORKERS: Final = 256
IDLE_SECONDS: Final = 0.05
"""A worker keeps one of the WORKERS slots until it has been idle so long: 5,000 Nodes go through in a second."""

OWN_REQUESTS: Final = f"spec.signerName={SIGNER}"

Poke = Callable[[], None]
F = TypeVar("F", bound=Facts)


class _NoMemories(ResourceMemories):
    """kopf remembers a kilobyte of every object for kinds of handlers that we don't have: 15 MB of a mesh of 5,000."""

    async def recall(
        self,
        raw_body: Any,
        *,
        memobase: Any = None,
        noticed_by_listing: bool = False,
        ephemeral: bool = False,
    ) -> ResourceMemory:
        return await super().recall(raw_body, memobase=memobase, noticed_by_listing=noticed_by_listing, ephemeral=True)


async def watch(kube: Kube, view: ClusterView, *, changed: Poke, requested: Poke, settled: Poke) -> None:
    """Watch until cancelled. changed is called when what the mesh is made of has changed, requested for requests, and
    settled for the mesh's own settings and plan."""
    registry = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=kube.server, aiohttp_session=await kube.session())

    def published() -> None:
        # A request may have been waiting for its node's IPsecNode.
        changed()
        requested()

    kopf.on.login(registry=registry)(login)
    _observe(registry, NODE, view.nodes, NodeFacts.parse, changed)
    _observe(registry, TUNNEL, view.tunnels, TunnelFacts.parse, changed)
    _observe(registry, MESH, view.meshes, MeshFacts.parse, settled)
    _observe(registry, MEMBER, view.members, MemberFacts.parse, published)
    _observe(registry, REPORT, view.reports, ReportFacts.parse, changed)
    _observe(registry, REQUEST, view.requests, RequestFacts.parse, requested)
    await kopf.operator(
        registry=registry,
        memories=_NoMemories(),
        settings=_settings(),
        clusterwide=True,
        standalone=True,
        # Left to itself kopf makes a name for its peering, which we don't use, from the user's name, and a user id
        # without an entry in /etc/passwd has none.
        identity=cast("Any", "hauberk-operator"),
    )


def _observe(
    registry: kopf.OperatorRegistry,
    resource: Resource,
    table: Table[F],
    parse: Callable[[Json], F],
    poke: Poke,
) -> None:
    """Keep a table as the watch events of its kind say."""

    async def observe(event: kopf.RawEvent, **_: Any) -> None:
        facts = parse(cast("Json", event["object"]))
        gone = event["type"] == "DELETED"
        if table.remove(facts.name, facts.resource_version) if gone else table.put(facts):
            poke()

    kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=resource.plural)(observe)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.queueing.worker_limit = WORKERS
    settings.queueing.idle_timeout = IDLE_SECONDS
    settings.queueing.exit_timeout = 0.1
    settings.watching.chunk_size = PAGE
    settings.watching.server_timeout = 300
    settings.watching.field_selectors[REQUEST.group, REQUEST.version, REQUEST.plural] = OWN_REQUESTS
    # Never set on anything, as no handler needs them. Not the finalizer that reconcile.py sets: kopf takes its own off
    # whatever it thinks does not need it.
    settings.persistence.finalizer = f"{GROUP}/unused"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    return settings
