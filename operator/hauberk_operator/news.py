"""What a person should be told of, as Events: from the statuses before and after, and the plans. Pure; for reconcile.

The authority tells of its own steps (authority.py), and so does who refuses requests (requests.py). That the same is
not told again and again is recorder.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from hauberk_api.conditions import Condition, ConditionStatus, ConditionType, Reason
from hauberk_api.plan import Plan
from hauberk_operator.claims import Conflict
from hauberk_operator.facts import Facts, Json, MeshFacts, NodeFacts, conditions_of
from hauberk_operator.writes import NODE, Resource, Write, event

MAX_TOLD: Final = 10
"""Conflicts, and revocations, that one look tells of; the mesh's status counts them all."""

_TOLD: Final[Mapping[tuple[str, str], bool]] = {
    (ConditionType.ACCEPTED, ConditionStatus.FALSE): True,
    (ConditionType.READY, ConditionStatus.TRUE): False,
    (ConditionType.DEGRADED, ConditionStatus.TRUE): True,
    (ConditionType.CONFLICTED, ConditionStatus.TRUE): True,
    (ConditionType.POD_CIDRS_KNOWN, ConditionStatus.FALSE): True,
}
"""Which conditions are worth an Event, and whether it is a warning."""

_OVER: Final[Mapping[tuple[str, str], str]] = {
    (ConditionType.ACCEPTED, ConditionStatus.TRUE): "Accepted",
    (ConditionType.DEGRADED, ConditionStatus.FALSE): "Recovered",
    (ConditionType.CONFLICTED, ConditionStatus.FALSE): "ConflictEnded",
    (ConditionType.POD_CIDRS_KNOWN, ConditionStatus.TRUE): "PodCIDRsKnown",
}
"""The reasons of Events that say that such a thing is over."""

_AFTER_ROLLOUT: Final = frozenset({Reason.ALL_PAIRS_UP, Reason.ESTABLISHING})


def of_conditions(resource: Resource, facts: Facts, before: Json, after: Json) -> Iterator[Write]:
    """Of conditions that have just become, or stopped being, what a person should know."""
    known = {condition.type: condition for condition in conditions_of(before)}
    for condition in conditions_of(after):
        old = known.get(condition.type)
        if old is not None and (old.status, old.reason) == (condition.status, condition.reason):
            continue
        state = (condition.type, condition.status)
        if old is not None and _rolled_out(old, condition):
            yield _tell(resource, facts, "RolledOut", f"The rollout has come to its last phase, {after['phase']}.")
        if state in _TOLD:
            yield _tell(resource, facts, condition.reason, condition.message, warning=_TOLD[state])
        elif old is not None and old.status is not condition.status and state in _OVER:
            yield _tell(resource, facts, _OVER[state], condition.message)


def _rolled_out(old: Condition, new: Condition) -> bool:
    return new.type == ConditionType.READY and old.reason == Reason.ROLLING_OUT and new.reason in _AFTER_ROLLOUT


def of_claims(mesh: MeshFacts, conflicts: Sequence[Conflict], nodes: Mapping[str, NodeFacts]) -> Iterator[Write]:
    """Of addresses that are claimed twice, on the Node that does not get them: those that the mesh's status has not
    named before."""
    messages = [c.message for c in conditions_of(mesh.status) if c.type == ConditionType.DEGRADED]
    fresh = [conflict for conflict in conflicts if not any(conflict.sentence() in text for text in messages)]
    for conflict in fresh[:MAX_TOLD]:
        yield _tell(NODE, nodes[conflict.node], Reason.ADDRESS_CONFLICT, f"{conflict.sentence()}.", warning=True)


def of_revocations(before: Plan | None, after: Plan, nodes: Mapping[str, NodeFacts]) -> Iterator[Write]:
    """Of Nodes that are shut out from now on, on these."""
    if before is None:
        return
    revoked = frozenset(after.revoked_nodes) - frozenset(before.revoked_nodes)
    if not revoked:
        return
    out = [node for node in nodes.values() if node.uid in revoked]
    for node in out[:MAX_TOLD]:
        note = "The node is out of the mesh, by revokedNodes or by its label: no peer speaks with it any more."
        yield _tell(NODE, node, "Revoked", note, warning=True)


def _tell(resource: Resource, facts: Facts, reason: str, note: str, *, warning: bool = False) -> Write:
    return event(resource, facts, reason=reason, note=note, warning=warning, action="Reconcile")
