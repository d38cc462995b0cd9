"""What the operator knows of the cluster: one table of facts per kind, fed by watch events and by full listings.

Watch events may come late, doubled or not at all (a watch that broke, a deletion while it was down), and the operator's
own writes come back before their events do. So every version of an object is ordered by its resource version, and
a full listing now and then mends what events missed. Used by handlers (put, remove), reconcile (read) and resync.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from hauberk_api.kinds import MESH_NAME
from hauberk_operator.cni_facts import BlockFacts, CiliumFacts
from hauberk_operator.facts import Facts, MemberFacts, MeshFacts, NodeFacts, ReportFacts, RequestFacts, TunnelFacts
from hauberk_operator.pod_cidrs import CniState

F = TypeVar("F", bound=Facts)


class Table(Mapping[str, F], Generic[F]):
    """The objects of one cluster-scoped kind, by name. Changing calls say whether anything did change."""

    def __init__(self) -> None:
        self._facts: dict[str, F] = {}
        self._removed: dict[str, int] = {}
        """Names removed since the last listing, with the version that they ended at."""

    def __getitem__(self, name: str) -> F:
        return self._facts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def put(self, facts: F) -> bool:
        """Take in a version of an object, unless a newer one, or its end, is known already."""
        old = self._facts.get(facts.name)
        if old is not None and facts.resource_version < old.resource_version:
            return False
        if old is None and facts.resource_version <= self._removed.get(facts.name, -1):
            return False
        self._facts[facts.name] = facts
        return old != facts

    def remove(self, name: str, resource_version: int) -> bool:
        """Take in that an object ended at a version; a younger object of the same name stays."""
        old = self._facts.get(name)
        if old is not None and old.resource_version > resource_version:
            return False
        self._removed[name] = max(resource_version, self._removed.get(name, 0))
        return self._facts.pop(name, None) is not None

    def replace(self, listing: Iterable[F], resource_version: int) -> bool:
        """Take in a full listing made at a version; what is younger than the listing stays as it is."""
        listed = {facts.name: facts for facts in listing}
        changed = False
        for name in [n for n, f in self._facts.items() if n not in listed and f.resource_version <= resource_version]:
            del self._facts[name]
            changed = True
        for facts in listed.values():
            changed |= self.put(facts)
        self._removed = {n: v for n, v in self._removed.items() if v > resource_version}
        return changed

    def clear(self) -> bool:
        """Take in that the kind is gone."""
        changed = bool(self._facts)
        self._facts.clear()
        self._removed.clear()
        return changed


class ClusterView:
    """All tables. Complete only once every kind has been listed (Operator.sync)."""

    def __init__(self) -> None:
        self.nodes: Table[NodeFacts] = Table()
        self.tunnels: Table[TunnelFacts] = Table()
        self.meshes: Table[MeshFacts] = Table()
        self.members: Table[MemberFacts] = Table()
        self.reports: Table[ReportFacts] = Table()
        self.requests: Table[RequestFacts] = Table()
        self.blocks: Table[BlockFacts] = Table()
        self.cilium_nodes: Table[CiliumFacts] = Table()
        self.cni = CniState(blocks=self.blocks, cilium_nodes=self.cilium_nodes)

    @property
    def mesh(self) -> MeshFacts | None:
        return self.meshes.get(MESH_NAME)
