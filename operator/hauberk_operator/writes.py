"""Writes to the API server as data: what the pure part of the operator decides and kube.py carries out.

Every change of an existing object is a JSON patch that first replaces metadata.resourceVersion by the version that the
decision was made on, so that the API server refuses it (409) when somebody, a newer leader for one, was faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from hauberk_api.kinds import (
    API_VERSION,
    MESH_KIND,
    MESHES,
    NODE_KIND,
    NODES,
    REPORT_KIND,
    REPORTS,
    TUNNEL_KIND,
    TUNNELS,
)
from hauberk_operator.facts import Facts, Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A kind as its REST path wants it."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, name: str = "", *, namespace: str = "", subresource: str = "") -> str:
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if namespace else ""
        return (
            f"{root}{scope}/{self.plural}" + (f"/{name}" if name else "") + (f"/{subresource}" if subresource else "")
        )


def _ours(plural: str, kind: str) -> Resource:
    group, version = API_VERSION.split("/")
    return Resource(group=group, version=version, plural=plural, kind=kind)


TUNNEL: Final = _ours(TUNNELS, TUNNEL_KIND)
MESH: Final = _ours(MESHES, MESH_KIND)
MEMBER: Final = _ours(NODES, NODE_KIND)
REPORT: Final = _ours(REPORTS, REPORT_KIND)
NODE: Final = Resource(group="", version="v1", plural="nodes", kind="Node")
POD: Final = Resource(group="", version="v1", plural="pods", kind="Pod")
CONFIG_MAP: Final = Resource(group="", version="v1", plural="configmaps", kind="ConfigMap")
SECRET: Final = Resource(group="", version="v1", plural="secrets", kind="Secret")
EVENT: Final = Resource(group="events.k8s.io", version="v1", plural="events", kind="Event")
LEASE_RESOURCE: Final = Resource(group="coordination.k8s.io", version="v1", plural="leases", kind="Lease")
REQUEST: Final = Resource(
    group="certificates.k8s.io", version="v1", plural="certificatesigningrequests", kind="CertificateSigningRequest"
)


class Verb(StrEnum):
    CREATE = "create"
    PATCH = "patch"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One write. Its text, for the log, is why."""

    verb: Verb
    resource: Resource
    name: str
    why: str
    subresource: str = ""
    namespace: str = ""
    body: Mapping[str, Any] | list[Json] | None = field(default=None, repr=False)
    only_if_gone: Resource | None = None
    """A deletion that is made only if no object of this kind has the same name: checked afresh just before."""


def create(resource: Resource, name: str, *, why: str, owner: Facts | None = None, spec: Json) -> Write:
    """Create a cluster-scoped object; owner is the Node that it goes with."""
    metadata: Json = {"name": name}
    if owner is not None:
        metadata["ownerReferences"] = [owner_reference(owner)]
    body: Json = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "spec": spec}
    return Write(verb=Verb.CREATE, resource=resource, name=name, why=why, body=body)


def patch(resource: Resource, facts: Facts, values: Mapping[str, Any], *, why: str, subresource: str = "") -> Write:
    """Set whole fields of an object, by JSON pointer, if it is still at the version that facts were read at."""
    operations: list[Json] = [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": str(facts.resource_version)},
        *({"op": "add", "path": path, "value": value} for path, value in values.items()),
    ]
    return Write(verb=Verb.PATCH, resource=resource, name=facts.name, why=why, subresource=subresource, body=operations)


def delete(resource: Resource, facts: Facts, *, why: str, only_if_gone: Resource | None = None) -> Write:
    """Delete this very object, and none that took its name."""
    body: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": facts.uid}}
    return Write(verb=Verb.DELETE, resource=resource, name=facts.name, why=why, body=body, only_if_gone=only_if_gone)


def owner_reference(node: Facts) -> Json:
    return {"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid}


def event(regarding: Resource, facts: Facts, *, reason: str, note: str, warning: bool, action: str) -> Write:
    """An Event about a cluster-scoped object; those live in the namespace default. kube.py adds time and reporter."""
    body: Json = {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"generateName": "hauberk-", "namespace": "default"},
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "action": action,
        "note": note[:1024],
        "regarding": {
            "apiVersion": regarding.api_version,
            "kind": regarding.kind,
            "name": facts.name,
            "uid": facts.uid,
        },
    }
    return Write(verb=Verb.CREATE, resource=EVENT, name="", namespace="default", why=note, body=body)
