"""Cluster objects as the operator sees them: only the fields that it decides by, parsed once from their JSON.

The view keeps these instead of whole objects (a Node is 15 KB of JSON, its facts are a few hundred bytes), and what
thousands of objects have in common, it keeps once. The resource version takes no part in equality, so that a heartbeat
in a Node's status is not a change.
"""

from __future__ import annotations

import base64
import binascii
import sys
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar, Final, NamedTuple, Self, TypeVar, cast

from pydantic import ValidationError

from hauberk_api.conditions import Condition
from hauberk_api.mesh import MeshSpec, PodCIDRSource
from hauberk_api.model import Model
from hauberk_api.names import FINALIZER, REVOKED_LABEL, STARTUP_TAINT, TAINT_REMOVED, NodeName, NodeUid, TunnelUid
from hauberk_api.node import NodeSpec
from hauberk_api.plan import Plan
from hauberk_api.report import ReportStatus
from hauberk_api.tunnel import TunnelSpec

Json = dict[str, Any]

_M = TypeVar("_M", bound=Model)
_V = TypeVar("_V")

OS_LABEL: Final = "kubernetes.io/os"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What every object has. resource_version orders the versions of one object (an int since Kubernetes 1.35)."""

    name: str
    uid: str
    resource_version: int = field(compare=False, default=0)


ANYBODY: Final = "*"


class Loan(NamedTuple):
    """A single address in one node's block that a pod on another node has (Calico)."""

    node: str
    address: str
    """As a prefix of full length."""
    lender: str
    """The block's node; empty when the block is nobody's any more, ANYBODY when it can't be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts(Facts):
    """A Node."""

    created: str
    labels: Mapping[str, str]
    linux: bool
    addresses: tuple[str, ...]
    """Its InternalIPs, in the Node's order."""
    pod_cidrs: tuple[str, ...]
    ready: bool
    startup_taint: bool
    loans: tuple[Loan, ...] = ()
    """What its pods have borrowed; pod_cidrs.py knows."""
    came_tainted: bool = False
    """Whether it has the startup taint, or had it until an operator took it off."""

    @property
    def node_name(self) -> NodeName:
        return NodeName(self.name)

    @property
    def node_uid(self) -> NodeUid:
        return NodeUid(self.uid)

    def revoked_by(self, revoked: Container[str]) -> bool:
        """Whether it is out of the mesh: by its UID or name in revokedNodes, or by its label."""
        return self.uid in revoked or self.name in revoked or REVOKED_LABEL in self.labels

    @classmethod
    def parse(cls, obj: Json) -> Self:
        spec, status = _section(obj, "spec"), _section(obj, "status")
        labels = cast("Mapping[str, str]", _section(_section(obj, "metadata"), "labels"))
        system = labels.get(OS_LABEL) or _section(status, "nodeInfo").get("operatingSystem", "linux")
        tainted = any(t.get("key") == STARTUP_TAINT for t in _items(spec, "taints"))
        annotations = _section(_section(obj, "metadata"), "annotations")
        cidrs = _items(spec, "podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
        return cls(
            **identity_of(obj),
            created=_section(obj, "metadata").get("creationTimestamp", ""),
            labels={sys.intern(key): sys.intern(value) for key, value in labels.items()},
            linux=system == "linux",
            addresses=tuple(a["address"] for a in _items(status, "addresses") if a.get("type") == "InternalIP"),
            pod_cidrs=tuple(cidrs),
            ready=any(c.get("type") == "Ready" and c.get("status") == "True" for c in _items(status, "conditions")),
            startup_taint=tainted,
            came_tainted=tainted or TAINT_REMOVED in annotations,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelFacts(Facts):
    """An IPsecTunnel."""

    created: str
    generation: int
    deleted: str | None
    """metadata.deletionTimestamp."""
    finalizers: tuple[str, ...]
    spec: TunnelSpec | None
    problem: str
    """Why spec is None."""
    status: Json

    @property
    def tunnel_uid(self) -> TunnelUid:
        return TunnelUid(self.uid)

    @property
    def held(self) -> bool:
        """Whether our finalizer is on it."""
        return FINALIZER in self.finalizers

    @classmethod
    def parse(cls, obj: Json) -> Self:
        metadata = _section(obj, "metadata")
        spec, problem = _model(TunnelSpec, _section(obj, "spec"))
        return cls(
            **identity_of(obj),
            created=metadata.get("creationTimestamp", ""),
            generation=metadata.get("generation", 0),
            deleted=metadata.get("deletionTimestamp"),
            finalizers=tuple(_items(metadata, "finalizers")),
            spec=spec,
            problem=problem,
            status=_section(obj, "status"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshFacts(Facts):
    """The IPsecMesh."""

    generation: int
    spec: MeshSpec | None
    problem: str
    plan: Plan | None
    status: Json

    @property
    def pod_cidr_source(self) -> PodCIDRSource | None:
        """The one in force."""
        source = self.status.get("podCIDRSource")
        return PodCIDRSource(source) if source in frozenset(PodCIDRSource) else None

    @classmethod
    def parse(cls, obj: Json) -> Self:
        status = _section(obj, "status")
        spec, problem = _model(MeshSpec, _section(obj, "spec"))
        plan, _ = _model(Plan, status["plan"]) if status.get("plan") else (None, "")
        return cls(
            **identity_of(obj),
            generation=_section(obj, "metadata").get("generation", 0),
            spec=spec,
            problem=problem,
            plan=plan,
            status=status,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFacts(Facts):
    """An IPsecNode: what is published about a Node."""

    spec: NodeSpec | None
    owner_uid: str
    """The UID in its ownerReference; empty when there is none."""

    @classmethod
    def parse(cls, obj: Json) -> Self:
        spec, _ = _model(NodeSpec, _section(obj, "spec"))
        if spec is not None:
            common = {"node_uid": sys.intern(spec.node_uid), "memberships": _once(spec.memberships)}
            spec = spec.model_copy(update=common)
        owners = _items(_section(obj, "metadata"), "ownerReferences")
        owner_uid = next((o["uid"] for o in owners if o["kind"] == "Node"), "")
        return cls(**identity_of(obj), spec=spec, owner_uid=sys.intern(owner_uid))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts(Facts):
    """An IPsecReport."""

    status: ReportStatus | None

    @classmethod
    def parse(cls, obj: Json) -> Self:
        status, _ = _model(ReportStatus, _section(obj, "status"))
        if status is not None:
            common = {name: _once(getattr(status, name)) for name in _IN_COMMON}
            status = status.model_copy(update={"node_uid": sys.intern(status.node_uid), **common})
        return cls(**identity_of(obj), status=status)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts(Facts):
    """A CertificateSigningRequest. Of one that is settled nothing is kept of what was asked for.

    When the CA of a mesh of thousands has rolled, there are as many of them for a quarter of an hour.
    """

    created: str
    """metadata.creationTimestamp."""
    signer: str
    username: str
    extra: Mapping[str, tuple[str, ...]]
    """What the API server stamped of the requester's token."""
    request: bytes
    """PKCS#10, PEM, as the requester sent it; empty when it was not base64."""
    usages: tuple[str, ...]
    expiration_seconds: int | None
    conditions: tuple[str, ...]
    """The types of its conditions: Approved, Denied, Failed."""
    issued: bool

    REFUSED: ClassVar[frozenset[str]] = frozenset({"Denied", "Failed"})

    @property
    def open(self) -> bool:
        """Whether it waits for us: neither refused nor issued. Whoever approved it, it is judged all the same."""
        return not self.issued and not self.REFUSED.intersection(self.conditions)

    @classmethod
    def parse(cls, obj: Json) -> Self:
        spec, status = _section(obj, "spec"), _section(obj, "status")
        try:
            request = base64.b64decode(spec.get("request", ""), validate=True)
        except binascii.Error:
            request = b""
        whole = cls(
            **identity_of(obj),
            created=_section(obj, "metadata").get("creationTimestamp", ""),
            signer=spec.get("signerName", ""),
            username=spec.get("username", ""),
            extra={key: tuple(values) for key, values in _section(spec, "extra").items()},
            request=request,
            usages=tuple(_items(spec, "usages")),
            expiration_seconds=spec.get("expirationSeconds"),
            conditions=tuple(c.get("type", "") for c in _items(status, "conditions")),
            issued=bool(status.get("certificate")),
        )
        if whole.open:
            return whole
        return replace(whole, username="", extra={}, request=b"", usages=(), expiration_seconds=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts(Facts):
    """A pod, read afresh when a request claims to come from it."""

    node_name: str
    service_account: str
    ended: bool

    @classmethod
    def parse(cls, obj: Json) -> Self:
        spec = _section(obj, "spec")
        return cls(
            **identity_of(obj),
            node_name=spec.get("nodeName", ""),
            service_account=spec.get("serviceAccountName", ""),
            ended=_section(obj, "status").get("phase") in ("Succeeded", "Failed"),
        )


def conditions_of(status: Json) -> tuple[Condition, ...]:
    """The conditions in a status; those that do not parse are dropped, to be written anew."""
    parsed = (_model(Condition, c)[0] for c in _items(status, "conditions"))
    return tuple(c for c in parsed if c is not None)


def identity_of(obj: Json) -> dict[str, Any]:
    """What Facts has of every object."""
    metadata = _section(obj, "metadata")
    return {
        "name": sys.intern(metadata["name"]),
        "uid": sys.intern(metadata.get("uid", "")),
        "resource_version": int(metadata.get("resourceVersion") or 0),
    }


_IN_COMMON: Final = ("agent_version", "reason", "kernel", "bundle", "tunnels", "boot")
"""Of reports, what most have alike."""


@lru_cache(maxsize=4096)
def _once(value: _V) -> _V:
    """The value that is kept of all that are equal."""
    return value


def _section(obj: Mapping[str, Any], key: str) -> Json:
    return obj.get(key) or {}


def _items(obj: Mapping[str, Any], key: str) -> Sequence[Any]:
    return obj.get(key) or ()


def _model(model: type[_M], data: object) -> tuple[_M | None, str]:
    try:
        return model.from_object(data), ""
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return None, f"{where}: {first['msg']}"
