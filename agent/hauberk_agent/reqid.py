"""Request ids: what ties policies to the states of a CHILD SA in the kernel.

One per (tunnel UID, peer UID, index). They are kept on disk because they outlive the agent: after a restart the states
in the kernel are recognised by them. One is not given anew as long as it is in use or in the kernel.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hauberk_agent.ownership import REQIDS, owns_reqid
from hauberk_agent.statefile import read_if_present, write_atomically
from hauberk_api.names import NodeUid, TunnelUid
from hauberk_xfrm import ReqId


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildKey:
    """What both ends know a CHILD SA by, apart from this node: its tunnel, and which of the tunnel's with this peer."""

    tunnel: TunnelUid
    peer: NodeUid
    index: int = 0


class ReqIdTable:
    """The table, in memory and on disk. `save` is the caller's to call, before the kernel sees a new id."""

    def __init__(self, path: Path) -> None:
        """Reads the file, if there is one. Raises OSError; a file that can't be understood counts as none, since
        the states it spoke of are recognised as ours by their band and removed once replaced."""
        self._path = path
        self._ids: dict[ChildKey, ReqId] = {}
        self._last = REQIDS.start - 1
        self._dirty = False
        data = read_if_present(path)
        if data is not None:
            self._load(data)
        self._given = set(self._ids.values())

    def _load(self, data: bytes) -> None:
        try:
            parsed = cast("dict[str, object]", json.loads(data))
            pairs = cast("list[list[object]]", parsed["pairs"])
            further = cast("list[list[object]]", parsed.get("further", []))
            for tunnel, peer, reqid, index in (*((*pair, 0) for pair in pairs), *further):
                if isinstance(reqid, int) and owns_reqid(ReqId(reqid)) and isinstance(index, int):
                    key = ChildKey(tunnel=TunnelUid(str(tunnel)), peer=NodeUid(str(peer)), index=index)
                    self._ids[key] = ReqId(reqid)
            last = parsed.get("last")
            if isinstance(last, int) and last in REQIDS:
                self._last = last
        except (ValueError, KeyError, TypeError):
            self._ids.clear()

    def __len__(self) -> int:
        return len(self._ids)

    def get(self, key: ChildKey) -> ReqId | None:
        return self._ids.get(key)

    def assign(self, key: ChildKey, in_kernel: Collection[int] = ()) -> ReqId:
        """The CHILD SA's id, a new one if it has none. Raises OverflowError when 65,535 are in use."""
        found = self._ids.get(key)
        if found is not None:
            return found
        for candidate in self._candidates():
            if candidate not in self._given and candidate not in in_kernel:
                self._ids[key] = candidate
                self._given.add(candidate)
                self._last = candidate
                self._dirty = True
                return candidate
        raise OverflowError(f"all {len(REQIDS)} request ids are in use")

    def release(self, wanted: Collection[ChildKey], in_kernel: Collection[int]) -> None:
        """Forget the ids of CHILD SAs that are neither wanted nor in the kernel any more."""
        for key in [k for k, reqid in self._ids.items() if k not in wanted and reqid not in in_kernel]:
            self._given.discard(self._ids.pop(key))
            self._dirty = True

    def save(self) -> None:
        """Write what changed. Raises OSError."""
        if self._dirty:
            pairs = [[key.tunnel, key.peer, reqid] for key, reqid in self._ids.items() if not key.index]
            # Apart, as an agent of the version before knows one a pair only, and thinks other lines damaged.
            further = [[key.tunnel, key.peer, reqid, key.index] for key, reqid in self._ids.items() if key.index]
            write_atomically(self._path, json.dumps({"last": self._last, "pairs": pairs, "further": further}).encode())
            self._dirty = False

    def _candidates(self) -> Iterator[ReqId]:
        """All ids, the least recently given first: a late packet must not meet its id's next owner."""
        yield from map(ReqId, range(self._last + 1, REQIDS.stop))
        yield from map(ReqId, range(REQIDS.start, self._last + 1))
