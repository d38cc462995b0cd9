"""What `make bench-scale` counts in an audit log, and what it leaves out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.scale.audit import AuditLog, Tally, Written

OPERATOR = "system:serviceaccount:hauberk-system:hauberk-operator"
AGENT = "system:serviceaccount:hauberk-system:hauberk-agent"


def event(user: str, verb: str, resource: str, *, subresource: str = "", code: int = 200) -> dict[str, Any]:
    return {
        "user": {"username": user},
        "verb": verb,
        "stage": "ResponseComplete",
        "stageTimestamp": "2026-05-01T00:00:01.500000Z",
        "objectRef": {"resource": resource} | ({"subresource": subresource} if subresource else {}),
        "responseStatus": {"code": code},
    }


def test_operators_and_agents_writes_are_counted_and_nobody_elses(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    before = event(OPERATOR, "create", "ipsecnodes")
    log.write_text(json.dumps(before) + "\n")
    audit = AuditLog(log)
    since = audit.length()
    events = [
        event(OPERATOR, "create", "ipsecnodes"),
        event(AGENT, "patch", "ipsecreports", subresource="status"),
        event(AGENT, "patch", "ipsecreports", subresource="status", code=404),
        event(AGENT, "get", "ipsecreports"),
        event(OPERATOR, "update", "leases"),
        event("admin", "create", "nodes"),
    ]
    with log.open("a") as lines:
        lines.writelines(json.dumps(one) + "\n" for one in events)
        lines.write(json.dumps(events[0])[:40])  # still being written
    tally = audit.tally(since)
    assert tally.by_what == {"agent patch ipsecreports/status": 2, "operator create ipsecnodes": 1}
    assert tally.refused == 1


def test_the_busiest_minute_is_any_minute() -> None:
    moments = [0.0, 50.0, 70.0, 100.0, 105.0, 110.0, 111.0, 300.0]
    writes = [Written(at=at, by="hauberk-agent", what="patch x", status=200) for at in moments]
    assert Tally(writes=writes).most_a_minute() == 5
    assert Tally(writes=[]).most_a_minute() == 0


def test_what_belongs_to_something_earlier_is_left_out() -> None:
    whats = ["patch x", "delete y", "patch x", "delete y"]
    tally = Tally(writes=[Written(at=0.0, by="hauberk-operator", what=what, status=200) for what in whats])
    assert tally.without("delete y").by_what == {"operator patch x": 2}
    assert len(tally.writes) == 4
