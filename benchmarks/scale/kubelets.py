"""The kubelets' part, and that of the controllers that Nodes need: Nodes, their heartbeats, agents' pods and tokens.

What is written here is not what is measured: the tally leaves it out.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from typing import Final

from benchmarks.scale.client import MERGE_PATCH, Client, Json
from benchmarks.scale.keepalive import ANNOTATION
from hauberk_agent.kube import KubeError
from hauberk_api.names import AGENT_SERVICE_ACCOUNT, NodeUid
from tests.integration.operator_bed import NAMESPACE

LEASE_SECONDS: Final = 10.0
"""How often a kubelet renews its Node's Lease (nodeLeaseDurationSeconds 40, renewed at a quarter of it)."""

STATUS_SECONDS: Final = 300.0
"""How often it writes its Node's status though nothing has changed (nodeStatusReportFrequency)."""

Act = Callable[[str], Awaitable[None]]
_LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_TOKEN_SECONDS: Final = 4 * 3600
_AT_A_TIME: Final = 64


class Kubelets:
    """All of them. Errors: hauberk_agent.kube.KubeError."""

    def __init__(self, admin: Client) -> None:
        self._admin = admin
        self.uids: dict[str, NodeUid] = {}
        """Of the Nodes that are there, by name."""
        self.dead: set[str] = set()
        self.heartbeats = 0

    async def settle(self, number: int) -> str:
        """A Node n<number> as it is when it has been there for long; its name."""
        name = f"n{number}"
        body = _node(name, number, ready=True)
        body["spec"] = _cidrs(number)
        node = await self._admin.request("POST", "/api/v1/nodes", body)
        self.uids[name] = NodeUid(node["metadata"]["uid"])
        return name

    async def add(self, number: int) -> str:
        """Register node n<number>, and all that follows until its agent's pod can run; its name."""
        name = f"n{number}"
        node = await self._admin.request("POST", "/api/v1/nodes", _node(name, number, ready=False))
        self.uids[name] = NodeUid(node["metadata"]["uid"])
        # -> the controller manager gives it its networks; the CNI is there, the kubelet says Ready
        spec: Json = {"spec": _cidrs(number)}
        await self._admin.request("PATCH", f"/api/v1/nodes/{name}", spec, content_type=MERGE_PATCH)
        await self._say(name, "True")
        return name

    async def token(self, node: str, *, pod: str = "agent") -> str:
        """Run an agent's pod on a node; the token that its kubelet mounts into it."""
        made = await self._admin.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", _pod(f"{pod}-{node}", node))
        request: Json = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "expirationSeconds": _TOKEN_SECONDS,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": made["metadata"]["name"],
                    "uid": made["metadata"]["uid"],
                },
            },
        }
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{AGENT_SERVICE_ACCOUNT}/token"
        return (await self._admin.request("POST", path, request))["status"]["token"]

    async def remove(self, name: str) -> None:
        """Delete a Node, and what the pod garbage collector deletes then."""
        self.dead.add(name)
        del self.uids[name]
        await self._admin.request("DELETE", f"/api/v1/nodes/{name}")
        with contextlib.suppress(KubeError):  # a settled node's agent may have had no need of its pod
            pod = f"/api/v1/namespaces/{NAMESPACE}/pods/agent-{name}"
            await self._admin.request("DELETE", f"{pod}?gracePeriodSeconds=0")

    async def kill(self, names: Collection[str]) -> None:
        """No more heartbeats; the node lifecycle controller says of each that its state is unknown."""
        self.dead |= set(names)
        slots = asyncio.Semaphore(_AT_A_TIME)

        async def end(name: str) -> None:
            async with slots:
                body: Json = {"metadata": {"annotations": {ANNOTATION: None}}}
                await self._admin.request("PATCH", f"/api/v1/nodes/{name}", body, content_type=MERGE_PATCH)
                await self._say(name, "Unknown")

        async with asyncio.TaskGroup() as tasks:
            for name in names:
                tasks.create_task(end(name))

    async def beat(self) -> None:
        """The heartbeats of all nodes, at kubelets' rates, for ever: where there is no kwok."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._for_all(self._renew, LEASE_SECONDS))
            tasks.create_task(self._for_all(self._repeat_status, STATUS_SECONDS))

    async def _for_all(self, act: Act, seconds: float) -> None:
        """Do something for every node that lives, evenly spread over a time, again and again."""
        while True:
            names = [name for name in self.uids if name not in self.dead]
            random.shuffle(names)
            began = asyncio.get_running_loop().time()
            for index, name in enumerate(names):
                due = began + seconds * index / len(names)
                await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
                if name not in self.dead:
                    await act(name)
            await asyncio.sleep(max(0.1, began + seconds - asyncio.get_running_loop().time()))

    async def _renew(self, name: str) -> None:
        body: Json = {"spec": {"renewTime": _micro_time()}}
        try:
            await self._admin.request("PATCH", f"{_LEASES}/{name}", body, content_type=MERGE_PATCH)
            self.heartbeats += 1
        except KubeError as error:
            if error.status != 404:
                raise
            if name not in self.dead:
                await self._admin.request("POST", _LEASES, _lease(name))

    async def _repeat_status(self, name: str) -> None:
        try:
            await self._say(name, "True")
        except KubeError as error:
            if error.status != 404:
                raise

    async def _say(self, name: str, ready: str) -> None:
        condition = {"type": "Ready", "status": ready, "reason": "x", "message": "x", "lastHeartbeatTime": _time()}
        body: Json = {"status": {"conditions": [condition]}}
        await self._admin.request("PATCH", f"/api/v1/nodes/{name}/status", body, content_type=MERGE_PATCH)


def _cidrs(number: int) -> Json:
    cidrs = [f"10.{64 + (number >> 8)}.{number & 255}.0/24", f"fd00:244:{number:x}::/64"]
    return {"podCIDR": cidrs[0], "podCIDRs": cidrs}


def _node(name: str, number: int, *, ready: bool) -> Json:
    """As a kubelet registers it, its size about that of a real one's."""
    labels = {
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "topology.kubernetes.io/zone": f"zone-{number % 3}",
        "node.kubernetes.io/instance-type": "example.large",
    }
    images = [
        {"names": [f"registry.example/team-{n}/image-{n}:v1.{n}"], "sizeBytes": 40_000_000 + n} for n in range(50)
    ]
    return {
        "metadata": {"name": name, "labels": labels, "annotations": {ANNOTATION: "yes"}},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": f"172.16.{number >> 8}.{number & 255}"},
                {"type": "InternalIP", "address": f"fd01::{number:x}"},
                {"type": "Hostname", "address": name},
            ],
            "conditions": [{"type": "Ready", "status": str(ready), "reason": "x", "message": "x"}],
            "capacity": {"cpu": "16", "memory": "64Gi", "pods": "110"},
            "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"},
            "images": images,
            "nodeInfo": {"operatingSystem": "linux", "architecture": "amd64", "kernelVersion": "7.3.4"},
        },
    }


def _pod(name: str, node: str) -> Json:
    return {
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "serviceAccountName": AGENT_SERVICE_ACCOUNT,
            "automountServiceAccountToken": False,
            "containers": [{"name": "agent", "image": "localhost/hauberk"}],
        },
    }


def _lease(name: str) -> Json:
    spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": _micro_time()}
    return {"metadata": {"name": name}, "spec": spec}


def _time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
