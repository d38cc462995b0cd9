"""An API server in memory: objects, resource versions, JSON patches, conflicts. A fake at the seam that kube.py is."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from hauberk_operator.facts import (
    Json,
    MemberFacts,
    MeshFacts,
    NodeFacts,
    ReportFacts,
    TunnelFacts,
)
from hauberk_operator.kube import KubeError
from hauberk_operator.view import ClusterView
from hauberk_operator.writes import MEMBER, MESH, NODE, REPORT, TUNNEL, Resource, Verb, Write


class FakeApi:
    """Holds objects by kind and name. `fault`, when set, is raised by every call."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Json] = {}
        self.writes: list[str] = []
        """What was written, in order: "verb Kind name[/subresource]"."""
        self.fault: KubeError | None = None
        self.created: str | None = None
        """The creationTimestamp of what is made, if it is to have one."""
        self.served: frozenset[str] = frozenset()
        """The plural names of the kinds that discovery finds, whatever their group."""
        self._version = 100

    def add(self, resource: Resource, obj: Json) -> Json:
        """Put an object there, as somebody else would."""
        obj = copy.deepcopy(obj)
        obj["metadata"].setdefault("uid", f"{resource.plural}-{obj['metadata'].get('name')}")
        self._store(resource, obj)
        return obj

    def take(self, resource: Resource, name: str) -> None:
        """Remove an object, as somebody else would."""
        del self.objects[resource.kind, name]

    async def get(self, resource: Resource, name: str, *, namespace: str = "") -> Json:
        self._fail()
        try:
            return copy.deepcopy(self.objects[resource.kind, name])
        except KeyError:
            raise KubeError(404, "NotFound", f"{resource.plural} {name} not found") from None

    async def find(self, resource: Resource, name: str, *, namespace: str = "") -> Json | None:
        self._fail()
        return copy.deepcopy(self.objects.get((resource.kind, name)))

    async def list(self, resource: Resource, *, field_selector: str = "") -> list[Json]:
        self._fail()
        return [copy.deepcopy(obj) for (kind, _), obj in self.objects.items() if kind == resource.kind]

    async def pages(
        self, resource: Resource, *, namespace: str = "", field_selector: str = ""
    ) -> AsyncIterator[tuple[Sequence[Json], int]]:
        yield await self.list(resource), self._version

    async def serves(self, group: str, version: str) -> frozenset[str]:
        self._fail()
        return self.served

    async def create(self, resource: Resource, body: Mapping[str, Any], *, namespace: str = "") -> Json:
        self._fail()
        obj = copy.deepcopy(dict(body))
        name = obj["metadata"].setdefault("name", f"{obj['metadata'].get('generateName', '')}{self._version}")
        if (resource.kind, name) in self.objects:
            raise KubeError(409, "AlreadyExists", f"{name} already exists")
        obj["metadata"] |= {"uid": f"{resource.plural}-{name}", "generation": 1}
        if self.created is not None:
            obj["metadata"]["creationTimestamp"] = self.created
        self.writes.append(f"create {resource.kind} {name}")
        return self._store(resource, obj)

    async def replace(
        self, resource: Resource, name: str, body: Mapping[str, Any], *, namespace: str = "", subresource: str = ""
    ) -> Json:
        old = await self.get(resource, name)
        version = body["metadata"].get("resourceVersion")
        if version is not None and version != old["metadata"]["resourceVersion"]:
            raise KubeError(409, "Conflict", f"{name} has been modified")
        self.writes.append(f"replace {resource.kind} {name}" + (f"/{subresource}" if subresource else ""))
        return self._store(resource, copy.deepcopy(dict(body)))

    async def patch(
        self,
        resource: Resource,
        name: str,
        operations: Sequence[Json],
        *,
        namespace: str = "",
        subresource: str = "",
    ) -> Json:
        obj = await self.get(resource, name)
        for operation in operations:
            *parents, field = operation["path"].strip("/").split("/")
            target = obj
            for parent in parents:
                target = target.setdefault(parent, {})
            if field == "resourceVersion" and operation["value"] != target[field]:
                raise KubeError(409, "Conflict", f"{name} has been modified")
            target[field] = copy.deepcopy(operation["value"])
        self.writes.append(f"patch {resource.kind} {name}" + (f"/{subresource}" if subresource else ""))
        if obj["metadata"].get("deletionTimestamp") and not obj["metadata"].get("finalizers"):
            del self.objects[resource.kind, name]
            return obj
        return self._store(resource, obj)

    async def delete(
        self, resource: Resource, name: str, *, body: Mapping[str, Any] | None = None, namespace: str = ""
    ) -> None:
        self._fail()
        obj = self.objects.get((resource.kind, name))
        if obj is None:
            return
        self.writes.append(f"delete {resource.kind} {name}")
        if obj["metadata"].get("finalizers"):
            obj["metadata"].setdefault("deletionTimestamp", "2026-05-01T00:00:00Z")
            self._store(resource, obj)
        else:
            del self.objects[resource.kind, name]

    async def carry_out(self, write: Write) -> Json | None:
        body: Any = write.body
        match write.verb:
            case Verb.CREATE:
                return await self.create(write.resource, body)
            case Verb.PATCH:
                return await self.patch(write.resource, write.name, body, subresource=write.subresource)
            case Verb.DELETE:
                if write.only_if_gone is None or await self.find(write.only_if_gone, write.name) is None:
                    await self.delete(write.resource, write.name)
                return None

    def view(self) -> ClusterView:
        """A complete view of what is there now."""
        view = ClusterView()
        for (kind, _), obj in self.objects.items():
            match kind:
                case NODE.kind:
                    view.nodes.put(NodeFacts.parse(obj))
                case TUNNEL.kind:
                    view.tunnels.put(TunnelFacts.parse(obj))
                case MESH.kind:
                    view.meshes.put(MeshFacts.parse(obj))
                case MEMBER.kind:
                    view.members.put(MemberFacts.parse(obj))
                case REPORT.kind:
                    view.reports.put(ReportFacts.parse(obj))
                case _:
                    pass
        return view

    def _store(self, resource: Resource, obj: Json) -> Json:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self.objects[resource.kind, obj["metadata"]["name"]] = obj
        return copy.deepcopy(obj)

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault
