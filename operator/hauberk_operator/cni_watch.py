"""Reads what CNI plugins write down (cni_facts.py), wherever the API server has their kinds, and for as long as it has.

Called by lead.py. kopf watches only kinds that are there when it starts; a CNI plugin may come, and go, at any time. So
discovery is asked now and then, and each kind that is there is listed and watched. A failure leaves what is known as it
is; a refusal (403) is shown, as then nobody can tell what the nodes' pods have.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from hauberk_api.mesh import PodCIDRSource
from hauberk_operator.cni_facts import CALICO_BLOCK, CILIUM_NODE, BlockFacts, CiliumFacts
from hauberk_operator.facts import Json
from hauberk_operator.kube import Kube, KubeError
from hauberk_operator.view import ClusterView, Table
from hauberk_operator.writes import Resource

LOOK_SECONDS: Final = 10.0
"""How often discovery is asked for a kind that is not there, or that may not be read."""

RETRY_SECONDS: Final = 5.0
SHORTEST_SECONDS: Final = 1.0
"""The least time between two listings."""

log = logging.getLogger(__name__)

F = TypeVar("F", BlockFacts, CiliumFacts)


class CniWatch:
    """Keeps the view's tables of CNI plugins' objects."""

    def __init__(self, kube: Kube, view: ClusterView, *, changed: Callable[[], None]) -> None:
        """changed: called when what the mesh is made of may be another."""
        self._kinds: tuple[_Kind[BlockFacts] | _Kind[CiliumFacts], ...] = (
            _Kind(kube, view, PodCIDRSource.CALICO, CALICO_BLOCK, view.blocks, BlockFacts.parse, changed),
            _Kind(kube, view, PodCIDRSource.CILIUM, CILIUM_NODE, view.cilium_nodes, CiliumFacts.parse, changed),
        )

    async def sync(self) -> None:
        """Look once, so that the first plan is made with what there is. Raises KubeError."""
        for kind in self._kinds:
            await kind.sync()

    async def run(self) -> None:
        """Follow for ever."""
        async with asyncio.TaskGroup() as tasks:
            for kind in self._kinds:
                tasks.create_task(kind.run())


class _Kind(Generic[F]):
    """One kind, with its table."""

    def __init__(
        self,
        kube: Kube,
        view: ClusterView,
        source: PodCIDRSource,
        resource: Resource,
        table: Table[F],
        parse: Callable[[Json], F],
        changed: Callable[[], None],
    ) -> None:
        self._kube = kube
        self._view = view
        self._source = source
        self._resource = resource
        self._table = table
        self._parse = parse
        self._changed = changed

    async def run(self) -> None:
        while True:
            try:
                version = await self.sync()
                if version is None:
                    await asyncio.sleep(LOOK_SECONDS * random.uniform(0.9, 1.1))  # noqa: S311 - jitter, not a secret
                    continue
                await self._follow(version)
                await asyncio.sleep(SHORTEST_SECONDS)
            except KubeError as error:
                log.warning("reading %s: %s; again in %.0f s", self._resource.plural, error, RETRY_SECONDS)
                await asyncio.sleep(RETRY_SECONDS)

    async def sync(self) -> int | None:
        """List all. The version that they were listed at, or None where there is nothing to watch. Raises KubeError."""
        served = self._resource.plural in await self._kube.serves(self._resource.group, self._resource.version)
        version, problem, listing = 0, "", list[F]()
        try:
            if served:
                async for page, listed_at in self._kube.pages(self._resource):
                    version = version or listed_at
                    listing.extend(self._parse(obj) for obj in page)
        except KubeError as error:
            if error.not_found:
                served = False  # it has gone this moment
            elif error.status == 403:
                problem = str(error)
            else:
                raise
        self._note(served=served, problem=problem)
        if not served:
            # What is gone was gone before anything that may come back.
            if self._table.clear():
                self._changed()
            return None
        if problem:
            return None
        if self._table.replace(listing, version):
            self._changed()
        return version

    def _note(self, *, served: bool, problem: str) -> None:
        cni, source = self._view.cni, self._source
        after = cni.with_state(source, served=served, problem=problem)
        if after == cni:
            return
        self._view.cni = after
        kind = f"{self._resource.plural}.{self._resource.group}"
        log.info("%s: %s", kind, problem or ("followed" if served else "not there"))
        self._changed()

    async def _follow(self, version: int) -> None:
        """Until the watch ends, as all do after some minutes. Raises KubeError."""
        async for kind, obj in self._kube.watch(self._resource, version):
            if kind == "ERROR":
                return  # the version is too old by now
            facts = self._parse(obj)
            gone = kind == "DELETED"
            if self._table.remove(facts.name, facts.resource_version) if gone else self._table.put(facts):
                self._changed()
