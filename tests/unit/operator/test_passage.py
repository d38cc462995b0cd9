"""Nodes that enter and leave a running tunnel: step by step where packets could be lost, at once where none could."""

from __future__ import annotations

from typing import Any

import pytest

from hauberk_api.mesh import NonMembers
from hauberk_api.node import Role
from hauberk_api.plan import Phase, PlannedTunnel
from hauberk_api.tunnel import Rollout, Traffic, TrafficType
from hauberk_operator.facts import NodeFacts, ReportFacts
from hauberk_operator.passage import Passages
from tests.unit.operator.builders import carries, member, node, report

BOTH = {"n1": Role.MEMBER, "n2": Role.MEMBER}
ONE = {"n1": Role.MEMBER}
UNWELL = [{"node": "n1", "tunnel": "pods", "reason": "Establishing"}]


def passages(
    *reports: ReportFacts,
    phase: Phase = Phase.BLOCK,
    traffic: Traffic | None = None,
    nodes: tuple[NodeFacts, ...] = (node("n1"), node("n2")),
    known: tuple[str, ...] = ("n1", "n2"),
    **values: Any,
) -> Passages:
    tunnel = PlannedTunnel(name="pods", uid="tunnel-pods", generation=1, phase=phase, traffic=traffic or Traffic())
    given: dict[str, Any] = {"rollout": Rollout.GRADUAL, "non_members": NonMembers.ALLOW} | values
    return Passages(
        tunnel=tunnel,
        nodes={one.name: one for one in nodes},
        members={name: member(name) for name in known},
        reports={one.name: one for one in reports},
        **given,
    )


def enters(found: Passages, phase: Phase | None = None) -> Phase | None:
    """The phase that n2 enters in, after having been in one; None: it is in."""
    present, lags = (BOTH, {"n2": phase}) if phase is not None else (ONE, {})
    roles, on_their_way = found.pass_on(BOTH, present, lags)
    assert roles == BOTH
    return on_their_way.get("n2")


def leaves(found: Passages, phase: Phase | None = None) -> Phase | str | None:
    """The phase that n2 leaves in; "out" when it has left."""
    roles, on_their_way = found.pass_on(ONE, BOTH, {"n2": phase} if phase is not None else {})
    return on_their_way.get("n2") if "n2" in roles else "out"


def n2(phase: str, **values: Any) -> ReportFacts:
    return report("n2", tunnels=[carries(phase=phase, ready=not values.get("unwell"))], **values)


def test_who_stays_is_in_no_phase_of_its_own() -> None:
    assert passages().pass_on(BOTH, BOTH, {}) == (BOTH, {})


def test_a_known_node_enters_in_protect_and_is_in_when_its_pairs_are_up() -> None:
    assert enters(passages()) is Phase.PROTECT
    assert enters(passages(), Phase.PROTECT) is Phase.PROTECT, "nothing is reported yet"
    assert enters(passages(n2("Establish")), Phase.PROTECT) is Phase.PROTECT
    assert enters(passages(n2("Protect", unwell=UNWELL)), Phase.PROTECT) is Phase.PROTECT
    assert enters(passages(n2("Protect")), Phase.PROTECT) is None


def test_a_pair_with_a_node_that_is_not_ready_holds_nobody_back() -> None:
    down = (node("n1", ready=False), node("n2"))
    assert enters(passages(n2("Protect", unwell=UNWELL), nodes=down), Phase.PROTECT) is None
    more = n2("Protect", unwell=UNWELL, unwell_count=40)
    assert enters(passages(more, nodes=down), Phase.PROTECT) is Phase.PROTECT, "who the others are is not known"


def test_a_report_of_the_node_that_had_the_name_before_counts_for_nothing() -> None:
    assert enters(passages(n2("Protect", node_uid="former")), Phase.PROTECT) is Phase.PROTECT


def test_a_node_leaves_by_protect_and_establish_as_its_agent_follows() -> None:
    assert leaves(passages(n2("Block"))) is Phase.PROTECT
    assert leaves(passages(n2("Block")), Phase.PROTECT) is Phase.PROTECT
    assert leaves(passages(n2("Protect")), Phase.PROTECT) is Phase.ESTABLISH
    assert leaves(passages(n2("Protect")), Phase.ESTABLISH) is Phase.ESTABLISH
    assert leaves(passages(n2("Establish")), Phase.ESTABLISH) == "out"


def test_who_turns_back_on_its_way_goes_by_protect() -> None:
    assert enters(passages(n2("Establish")), Phase.ESTABLISH) is Phase.PROTECT
    assert leaves(passages(n2("Protect")), Phase.PROTECT) is Phase.ESTABLISH


def test_what_a_tunnel_does_not_require_yet_needs_fewer_steps() -> None:
    assert enters(passages(phase=Phase.PROTECT)) is None
    assert leaves(passages(phase=Phase.PROTECT)) is Phase.ESTABLISH
    assert leaves(passages(phase=Phase.ESTABLISH)) == "out"


@pytest.mark.parametrize(
    "values",
    [
        {"rollout": Rollout.IMMEDIATE},
        {"non_members": NonMembers.DENY},
        {"traffic": Traffic(type=TrafficType.HOST)},
        {"nodes": (node("n1"), node("n2", ready=False))},
    ],
)
def test_who_has_nothing_to_lose_goes_at_once(values: dict[str, Any]) -> None:
    assert enters(passages(**values)) is None
    assert leaves(passages(**values)) == "out"


def test_a_new_node_is_in_at_once_as_its_pods_were_never_in_clear() -> None:
    assert enters(passages(known=("n1",))) is None
    assert enters(passages(nodes=(node("n1"), node("n2", tainted=True)))) is None


def test_a_node_that_is_gone_or_revoked_is_out_at_once() -> None:
    assert leaves(passages(nodes=(node("n1"),))) == "out"
