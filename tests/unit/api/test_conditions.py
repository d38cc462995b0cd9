"""set_conditions: the transition time changes with the status, and with nothing else."""

from __future__ import annotations

import pytest

from hauberk_api.conditions import Condition, ConditionStatus, Reason, set_conditions

BEFORE, NOW = "2026-11-23T10:00:00Z", "2026-11-23T11:00:00Z"


def _condition(
    status: str, *, kind: str = "Ready", reason: str = "NoPairs", message: str = "", at: str = ""
) -> Condition:
    return Condition(
        type=kind, status=ConditionStatus(status), reason=reason, message=message, last_transition_time=at
    )  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "time"),
    [
        # a new condition begins now
        (None, _condition("True"), NOW),
        (None, _condition("Unknown"), NOW),
        # the same status keeps its time, whatever else changes
        (_condition("True", at=BEFORE), _condition("True"), BEFORE),
        (_condition("False", at=BEFORE), _condition("False", reason="Establishing"), BEFORE),
        (_condition("False", at=BEFORE), _condition("False", message="2 of 3 pairs"), BEFORE),
        # every change of status counts
        (_condition("True", at=BEFORE), _condition("False"), NOW),
        (_condition("False", at=BEFORE), _condition("True"), NOW),
        (_condition("Unknown", at=BEFORE), _condition("True"), NOW),
        # the caller's own time is not asked for
        (None, _condition("True", at="1999-01-01T00:00:00Z"), NOW),
        # another type's condition is no predecessor
        (_condition("True", kind="Degraded", at=BEFORE), _condition("True"), NOW),
    ],
)
def test_the_transition_time_changes_with_the_status_only(old: Condition | None, new: Condition, time: str) -> None:
    result = set_conditions([old] if old else [], [new], now=NOW)
    assert next(c for c in result if c.type == new.type) == new.model_copy(update={"last_transition_time": time})


def test_conditions_of_other_types_and_the_order_are_kept() -> None:
    foreign = _condition("True", kind="example.com/Audited", at=BEFORE)
    ready = _condition("True", at=BEFORE)
    result = set_conditions([foreign, ready], [_condition("False")], now=NOW)
    assert result == (foreign, _condition("False", at=NOW))


def test_setting_the_same_again_changes_nothing() -> None:
    wanted = [_condition("True"), _condition("False", kind="Degraded", reason="AsWanted")]
    once = set_conditions([], wanted, now=BEFORE)
    assert set_conditions(once, wanted, now=NOW) == once


def test_a_condition_is_written_as_kubernetes_writes_them() -> None:
    (condition,) = set_conditions([], [_condition("True", reason=Reason.ALL_PAIRS_UP, message="All.")], now=NOW)
    assert condition.to_object() == {
        "type": "Ready",
        "status": "True",
        "reason": "AllPairsUp",
        "message": "All.",
        "observedGeneration": 0,
        "lastTransitionTime": NOW,
    }
    assert Condition.from_object(condition.to_object()) == condition
