"""Takes Hauberk out of a cluster: the chart's pre-delete hook, run while operator and agents still work.

1. Delete the IPsecTunnels. The leading operator takes them out of the plan, the agents take down what is in their
   kernels and say so (state_left in their reports).
2. Wait for that, with a limit; nodes that are not Ready are not waited for.
3. Take the Lease, so that no operator makes anything again, and delete what Hauberk has made: IPsecNodes,
   IPsecReports, the IPsecMesh, the CA's Secret, certificate requests, and what finalizers are left.

The Lease stays taken: the operator's pods are still there, and go with the release.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from hauberk_api.names import CA_SECRET, FINALIZER, SIGNER
from hauberk_operator.facts import Json, NodeFacts, ReportFacts, TunnelFacts
from hauberk_operator.kube import Kube, KubeError
from hauberk_operator.lease import RETRY_SECONDS, Lease
from hauberk_operator.writes import MEMBER, MESH, NODE, REPORT, REQUEST, SECRET, TUNNEL, patch

LOOK_SECONDS: Final = 1.0
SETTLE_SECONDS: Final = RETRY_SECONDS * 2
"""How long after taking the Lease a leader may still write: until its next renewal, and the write under way."""

REMOVAL_SECONDS: Final = 30.0
MAX_NAMED: Final = 5

log = logging.getLogger(__name__)


class Uninstall:
    """One uninstallation."""

    def __init__(
        self,
        kube: Kube,
        lease: Lease,
        *,
        namespace: str,
        say: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._kube = kube
        self._lease = lease
        self._namespace = namespace
        self._say = say
        self._clock = clock

    async def run(self, *, timeout_seconds: float) -> bool:
        """Uninstall. Returns whether nothing is left, in the cluster and on its Ready nodes. Raises KubeError."""
        deadline = self._clock() + timeout_seconds
        await self._delete_tunnels()
        clean = await self._wait_for_nodes(deadline)
        await self._lease.seize()
        self._say("operator stopped: the Lease is taken")
        removed = await self._remove_objects()
        self._say("Hauberk is removed" if clean and removed else "Hauberk is removed, but for what is named above")
        return clean and removed

    async def _delete_tunnels(self) -> None:
        for tunnel in await self._tunnels():
            await self._kube.delete(TUNNEL, tunnel.name)
            self._say(f"deleted IPsecTunnel {tunnel.name}")

    async def _wait_for_nodes(self, deadline: float) -> bool:
        """Wait until no tunnel is left and every agent on a Ready node says that its kernel is clean."""
        said = ""
        while True:
            tunnels = [tunnel.name for tunnel in await self._tunnels()]
            dirty = await self._dirty_nodes()
            if not tunnels and not dirty:
                self._say("no Ready node has state of ours left")
                return True
            waiting = " and ".join(
                part
                for part, names in ((f"tunnels {_named(tunnels)}", tunnels), (f"nodes {_named(dirty)}", dirty))
                if names
            )
            if self._clock() >= deadline:
                self._say(f"not waiting any longer for {waiting}; hauberk-agent cleanup removes what a node has left")
                return False
            if said != waiting:
                said = waiting
                self._say(f"waiting for {waiting}")
            await asyncio.sleep(LOOK_SECONDS)

    async def _dirty_nodes(self) -> list[str]:
        """The Ready nodes whose agents have not reported a clean kernel; those without a report never had an agent."""
        ready: dict[str, str] = {}
        async for page, _ in self._kube.pages(NODE):
            nodes = [NodeFacts.parse(obj) for obj in page]
            ready.update({node.name: node.uid for node in nodes if node.ready})
        dirty: list[str] = []
        async for page, _ in self._kube.pages(REPORT):
            for report in map(ReportFacts.parse, page):
                status = report.status
                if status is None or ready.get(report.name) != status.node_uid:
                    continue
                if status.state_left or status.tunnels:
                    dirty.append(report.name)
        return sorted(dirty)

    async def _remove_objects(self) -> bool:
        """Delete until two looks in a row, the last after any leader has stopped, find nothing."""
        began = self._clock()
        empty_looks = 0
        while empty_looks < 2 or self._clock() - began < SETTLE_SECONDS:
            left = await self._remove_once()
            empty_looks = 0 if left else empty_looks + 1
            if left and self._clock() - began > REMOVAL_SECONDS:
                self._say(f"still there after {REMOVAL_SECONDS:.0f} s: {_named(left)}")
                return False
            await asyncio.sleep(LOOK_SECONDS)
        return True

    async def _remove_once(self) -> list[str]:
        """Delete all that is found. Returns what was."""
        found: list[str] = []
        for tunnel in await self._tunnels():
            found.append(f"IPsecTunnel {tunnel.name}")
            await self._let_go(tunnel)
        for resource in (MESH, MEMBER, REPORT):
            objects = await self._kube.list(resource)
            names = [_name(obj) for obj in objects]
            for name in names:
                await self._kube.delete(resource, name)
            found.extend(f"{resource.kind} {name}" for name in names)
            if names:
                self._say(f"deleted {len(names)} {resource.kind}{'s' if len(names) > 1 else ''}")
        for obj in await self._kube.list(REQUEST, field_selector=f"spec.signerName={SIGNER}"):
            found.append(f"{REQUEST.kind} {_name(obj)}")
            await self._kube.delete(REQUEST, _name(obj))
        if await self._kube.find(SECRET, CA_SECRET, namespace=self._namespace) is not None:
            # A leader that does not know yet that it has lost the Lease makes another one.
            found.append(f"Secret {CA_SECRET}")
            await self._kube.delete(SECRET, CA_SECRET, namespace=self._namespace)
            self._say(f"deleted Secret {self._namespace}/{CA_SECRET}")
        return found

    async def _let_go(self, tunnel: TunnelFacts) -> None:
        """A tunnel that no operator has let go of, as none runs, or as agents took too long."""
        await self._kube.delete(TUNNEL, tunnel.name)
        left = [finalizer for finalizer in tunnel.finalizers if finalizer != FINALIZER]
        try:
            await self._kube.carry_out(patch(TUNNEL, tunnel, {"/metadata/finalizers": left}, why="uninstalling"))
            self._say(f"let go of IPsecTunnel {tunnel.name}")
        except KubeError as error:
            if not error.conflict and not error.not_found:
                raise

    async def _tunnels(self) -> list[TunnelFacts]:
        return [TunnelFacts.parse(obj) for obj in await self._kube.list(TUNNEL)]


def _name(obj: Json) -> str:
    return obj["metadata"]["name"]


def _named(names: Sequence[str]) -> str:
    rest = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")
