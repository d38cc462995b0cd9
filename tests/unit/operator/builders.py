"""Cluster objects for tests, as the API server's JSON and parsed into facts. Every one says only what matters to it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from hauberk_api.certificate import CSR_USAGES, build_request
from hauberk_api.names import (
    AGENT_SERVICE_ACCOUNT,
    NODE_NAME_EXTRA,
    NODE_UID_EXTRA,
    POD_NAME_EXTRA,
    POD_UID_EXTRA,
    SIGNER,
    STARTUP_TAINT,
    NodeName,
    NodeUid,
)
from hauberk_operator.facts import (
    Json,
    MemberFacts,
    MeshFacts,
    NodeFacts,
    PodFacts,
    ReportFacts,
    RequestFacts,
    TunnelFacts,
)

NAMESPACE = "hauberk-system"
KEY = ec.generate_private_key(ec.SECP256R1())


def node_json(
    name: str,
    *,
    uid: str = "",
    created: str = "2026-01-01T00:00:00Z",
    addresses: Sequence[str] | None = None,
    pod_cidrs: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    system: str = "linux",
    ready: bool = True,
    tainted: bool = False,
    version: int = 1,
) -> Json:
    number = int(name[1:]) if name[1:].isdecimal() else 99
    addresses = [f"10.0.0.{number}"] if addresses is None else addresses
    pod_cidrs = [f"10.244.{number}.0/24"] if pod_cidrs is None else pod_cidrs
    taints = [{"key": STARTUP_TAINT, "effect": "NoSchedule"}] if tainted else []
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": uid or f"uid-{name}",
            "resourceVersion": str(version),
            "creationTimestamp": created,
            "labels": {"kubernetes.io/os": system, **(labels or {})},
        },
        "spec": {"podCIDRs": list(pod_cidrs), "taints": taints},
        "status": {
            "addresses": [
                *({"type": "InternalIP", "address": address} for address in addresses),
                {"type": "Hostname", "address": name},
            ],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "nodeInfo": {"operatingSystem": system},
        },
    }


def node(name: str, **values: Any) -> NodeFacts:
    return NodeFacts.parse(node_json(name, **values))


def tunnel_json(
    name: str = "pods",
    *,
    uid: str = "",
    created: str = "2026-02-01T00:00:00Z",
    generation: int = 1,
    spec: Json | None = None,
    status: Json | None = None,
    deleted: str | None = None,
    finalizers: Sequence[str] = (),
    version: int = 1,
) -> Json:
    metadata: Json = {
        "name": name,
        "uid": uid or f"tunnel-{name}",
        "resourceVersion": str(version),
        "creationTimestamp": created,
        "generation": generation,
        "finalizers": list(finalizers),
    }
    if deleted:
        metadata["deletionTimestamp"] = deleted
    return {"metadata": metadata, "spec": {"rollout": "Immediate", **(spec or {})}, "status": status or {}}


def tunnel(name: str = "pods", **values: Any) -> TunnelFacts:
    return TunnelFacts.parse(tunnel_json(name, **values))


def mesh_json(*, spec: Json | None = None, status: Json | None = None, generation: int = 1, version: int = 1) -> Json:
    return {
        "metadata": {
            "name": "default",
            "uid": "mesh",
            "resourceVersion": str(version),
            "generation": generation,
        },
        "spec": spec or {},
        "status": status or {},
    }


def mesh(**values: Any) -> MeshFacts:
    return MeshFacts.parse(mesh_json(**values))


def member_json(
    name: str,
    *,
    node_uid: str = "",
    addresses: Sequence[str] = (),
    pod_cidrs: Sequence[str] = (),
    memberships: Sequence[Json] = (),
    version: int = 1,
) -> Json:
    uid = node_uid or f"uid-{name}"
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}
    return {
        "metadata": {
            "name": name,
            "uid": f"member-{name}",
            "resourceVersion": str(version),
            "ownerReferences": [owner],
        },
        "spec": {
            "nodeUID": uid,
            "addresses": list(addresses),
            "podCIDRs": list(pod_cidrs),
            "memberships": list(memberships),
        },
    }


def member(name: str, **values: Any) -> MemberFacts:
    return MemberFacts.parse(member_json(name, **values))


def report_json(
    name: str,
    *,
    node_uid: str = "",
    plan: int = 1,
    ready: bool = True,
    reason: str = "AsPlanned",
    message: str = "",
    esp: bool = True,
    problems: Sequence[str] = (),
    tunnels: Sequence[Json] = (),
    unwell: Sequence[Json] = (),
    unwell_count: int | None = None,
    clear_packets: int = 0,
    packets: Json | None = None,
    state_left: bool = False,
    certificate: Json | None = None,
    bundle: Sequence[str] = (),
    boot: Json | None = None,
    version: int = 1,
) -> Json:
    return {
        "metadata": {"name": name, "uid": f"report-{name}", "resourceVersion": str(version)},
        "status": {
            "nodeUID": node_uid or f"uid-{name}",
            "agentVersion": "0.1.0",
            "planGeneration": plan,
            "ready": ready,
            "reason": reason,
            "message": message,
            "kernel": {"release": "7.3", "esp": esp, "problems": list(problems)},
            "tunnels": list(tunnels),
            "unwell": list(unwell),
            "unwellCount": len(unwell) if unwell_count is None else unwell_count,
            "clearPackets": clear_packets,
            "stateLeft": state_left,
            "bundle": list(bundle),
            **({"certificate": certificate} if certificate is not None else {}),
            **({"boot": boot} if boot is not None else {}),
            **({"packets": packets} if packets is not None else {}),
        },
    }


def report(name: str, **values: Any) -> ReportFacts:
    return ReportFacts.parse(report_json(name, **values))


def carries(tunnel_name: str = "pods", *, generation: int = 1, ready: bool = True, phase: str = "Block") -> Json:
    """A report's line about a tunnel."""
    return {"tunnel": f"tunnel-{tunnel_name}", "generation": generation, "ready": ready, "phase": phase}


def pod(name: str, **values: Any) -> PodFacts:
    facts: dict[str, Any] = {
        "name": name,
        "uid": f"uid-{name}",
        "node_name": "n1",
        "service_account": AGENT_SERVICE_ACCOUNT,
        "ended": False,
    }
    return PodFacts(**(facts | values))


def request_json(
    name: str = "csr-1",
    *,
    node_name: str = "n1",
    pem: bytes | None = None,
    username: str = f"system:serviceaccount:{NAMESPACE}:{AGENT_SERVICE_ACCOUNT}",
    extra: Mapping[str, Sequence[str]] | None = None,
    usages: Sequence[str] = CSR_USAGES,
    signer: str = SIGNER,
    conditions: Sequence[Json] = (),
    created: str = "2026-05-01T00:00:00Z",
    version: int = 1,
) -> Json:
    pem = build_request(KEY, uid=NodeUid(f"uid-{node_name}"), name=NodeName(node_name)) if pem is None else pem
    stamps: dict[str, list[str]] = {
        NODE_NAME_EXTRA: [node_name],
        NODE_UID_EXTRA: [f"uid-{node_name}"],
        POD_NAME_EXTRA: [f"agent-{node_name}"],
        POD_UID_EXTRA: [f"uid-agent-{node_name}"],
    }
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "creationTimestamp": created,
        },
        "spec": {
            "signerName": signer,
            "username": username,
            "request": base64.b64encode(pem).decode(),
            "usages": list(usages),
            "extra": stamps | {key: list(values) for key, values in (extra or {}).items()},
        },
        "status": {"conditions": list(conditions)} if conditions else {},
    }


def request(name: str = "csr-1", **values: Any) -> RequestFacts:
    return RequestFacts.parse(request_json(name, **values))
