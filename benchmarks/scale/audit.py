"""What was written between two moments, from the API server's audit log: by whom, to what, and when."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from hauberk_api.names import AGENT_SERVICE_ACCOUNT, OPERATOR_SERVICE_ACCOUNT

_READING: Final = frozenset({"get", "list", "watch"})
_MARK: Final = b":hauberk-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One write that the API server carried out or refused."""

    at: float
    """Seconds since the epoch."""
    by: str
    """The service account."""
    what: str
    """Verb and resource: "patch ipsectunnels/status"."""
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The writes of operator and agents in a stretch of the log, the leader's Lease apart."""

    writes: Sequence[Written]

    @property
    def by_what(self) -> dict[str, int]:
        """Counts by who and what, the most frequent first."""
        return dict(Counter(f"{write.by.removeprefix('hauberk-')} {write.what}" for write in self.writes).most_common())

    @property
    def refused(self) -> int:
        return sum(write.status >= 400 for write in self.writes)

    def without(self, what: str) -> Tally:
        """The others."""
        return Tally(writes=[write for write in self.writes if write.what != what])

    def most_a_minute(self) -> int:
        """The most writes that any 60 seconds hold."""
        moments = sorted(write.at for write in self.writes)
        return max((bisect_right(moments, begin + 60.0) - index for index, begin in enumerate(moments)), default=0)


class AuditLog:
    """The log of a running API server."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def length(self) -> int:
        """Where the log ends now: the beginning of a later tally."""
        return self._path.stat().st_size

    def tally(self, since: int, until: int | None = None) -> Tally:
        """What operator and agents wrote between two lengths of the log."""
        writes: list[Written] = []
        with self._path.open("rb") as lines:
            lines.seek(since)
            for line in lines:
                if until is not None and lines.tell() > until:
                    break
                if _MARK in line and line.endswith(b"\n") and (found := _written(json.loads(line))) is not None:
                    writes.append(found)
        return Tally(writes=writes)


def _written(event: dict[str, Any]) -> Written | None:
    account = str(event["user"].get("username", "")).rpartition(":")[2]
    target: dict[str, Any] = event.get("objectRef") or {}
    if account not in (OPERATOR_SERVICE_ACCOUNT, AGENT_SERVICE_ACCOUNT) or event["verb"] in _READING:
        return None
    if target.get("resource") == "leases" or event["stage"] != "ResponseComplete":
        return None
    subresource = f"/{target['subresource']}" if target.get("subresource") else ""
    answer: dict[str, Any] = event.get("responseStatus") or {}
    return Written(
        at=datetime.fromisoformat(event["stageTimestamp"]).timestamp(),
        by=account,
        what=f"{event['verb']} {target.get('resource')}{subresource}",
        status=int(answer.get("code") or 0),
    )
