"""A sample of agents' watches, on connections of their own: how many events each of them is sent, and how large.

Like hauberk_agent.kube they list from the API server's cache and watch from there, the IPsecMesh and the IPsecNodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from benchmarks.scale.client import Client
from hauberk_agent.kube import KubeError
from hauberk_api.kinds import API_VERSION, MESH_NAME, MESHES, NODES

_PATH: Final = f"/apis/{API_VERSION}"
_CHANGES: Final = (b'{"type":"ADDED"', b'{"type":"MODIFIED"', b'{"type":"DELETED"')
_KINDS: Final = ((MESHES, f"metadata.name={MESH_NAME}"), (NODES, ""))


class Watcher:
    """The watches of one agent. `events` and `bytes_sent` count what has come since the lists."""

    def __init__(self, client: Client, token: str) -> None:
        self._client = client
        self._token = token
        self.events = 0
        self.bytes_sent = 0

    async def run(self) -> None:
        """For ever, on two connections."""
        async with asyncio.TaskGroup() as tasks:
            for plural, selector in _KINDS:
                tasks.create_task(self._follow(plural, selector))

    async def _follow(self, plural: str, selector: str) -> None:
        query = {"resourceVersion": "0"} | ({"fieldSelector": selector} if selector else {})
        while True:
            listed = await self._client.request("GET", f"{_PATH}/{plural}?{urlencode(query)}", token=self._token)
            version = listed["metadata"]["resourceVersion"]
            watch = query | {"watch": "1", "resourceVersion": version, "timeoutSeconds": "3600"}
            try:
                async for line in self._client.lines(f"{_PATH}/{plural}?{urlencode(watch)}", token=self._token):
                    if line.startswith(_CHANGES):
                        self.events += 1
                        self.bytes_sent += len(line)
            except KubeError as error:
                if error.status not in (0, 410):
                    raise


def events_per_watcher(watchers: Sequence[Watcher]) -> float:
    return sum(watcher.events for watcher in watchers) / max(1, len(watchers))
