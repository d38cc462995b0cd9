"""To which peers ESP does not pass without UDP around it, and who has found that out.

Kept on disk, as it outlives the agent: a pair that was set up anew without UDP would lose everything until that is
found out again. It is forgotten when a trial has shown that ESP passes (hauberk_agent.esp_trial), and when one of the
two addresses is another.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import cast

from hauberk_agent.statefile import read_if_present, write_atomically
from hauberk_api.names import NodeUid
from hauberk_ike import IpAddress


class Finder(StrEnum):
    US = "us"
    PEER = "peer"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockedPath:
    """`since` is in seconds since the epoch: when it was found out, or last tried in vain."""

    local: IpAddress
    remote: IpAddress
    since: float
    finder: Finder


class BlockedPaths:
    """The table, in memory and on disk. `save` is to be called when something has changed."""

    def __init__(self, path: Path | None = None) -> None:
        """Reads the file, if there is one (path None: in memory alone). Raises OSError; a file that can't be understood
        counts as none."""
        self._path = path
        self._by_peer: dict[NodeUid, BlockedPath] = {}
        self._dirty = False
        data = read_if_present(path) if path is not None else None
        if data is not None:
            self._load(data)

    def _load(self, data: bytes) -> None:
        try:
            for uid, local, remote, since, finder in cast("list[list[object]]", json.loads(data)["blocked"]):
                self._by_peer[NodeUid(str(uid))] = BlockedPath(
                    local=ip_address(str(local)),
                    remote=ip_address(str(remote)),
                    since=float(cast("float", since)),
                    finder=Finder(str(finder)),
                )
        except (ValueError, KeyError, TypeError):
            self._by_peer.clear()

    def __len__(self) -> int:
        return len(self._by_peer)

    def find(self, peer: NodeUid, *, local: IpAddress, remote: IpAddress) -> BlockedPath | None:
        """What is known of the path between these addresses."""
        found = self._by_peer.get(peer)
        return found if found is not None and (found.local, found.remote) == (local, remote) else None

    def remember(self, peer: NodeUid, path: BlockedPath) -> None:
        self._by_peer[peer] = path
        self._dirty = True

    def forget(self, peer: NodeUid) -> None:
        if self._by_peer.pop(peer, None) is not None:
            self._dirty = True

    def save(self) -> None:
        """Writes what has changed. Raises OSError."""
        if self._dirty and self._path is not None:
            entries = [
                [uid, str(path.local), str(path.remote), path.since, path.finder.value]
                for uid, path in self._by_peer.items()
            ]
            write_atomically(self._path, json.dumps({"blocked": entries}).encode())
            self._dirty = False
