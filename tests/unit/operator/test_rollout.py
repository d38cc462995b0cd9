"""A tunnel's phases as tables: what is in force and what agents report, and which phase comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from hauberk_api.node import Role
from hauberk_api.plan import Phase, PlannedTunnel
from hauberk_api.tunnel import Enforcement, Rollout, TunnelSpec
from hauberk_operator.facts import Json
from hauberk_operator.rollout import Rolling, roll_out, take_back, waits_for
from tests.unit.operator.builders import carries, node, report

A, E, P, R, B = Phase
STRICT, PERMISSIVE = Enforcement.STRICT, Enforcement.PERMISSIVE
MEMBERS = {"n1": Role.MEMBER, "n2": Role.MEMBER, "n3": Role.MEMBER}


def unwell(peer: str, reason: str = "Unreachable") -> Json:
    return {"node": peer, "tunnel": "pods", "reason": reason}


@dataclass(kw_only=True)
class Agents:
    """Three members' agents: all in one phase and well, but for what is said of one."""

    phase: Phase
    generation: int = 1
    not_ready: Sequence[str] = ()
    """Nodes that are not Ready, whose agents have said nothing for long."""

    def rolling(self, **said: Any) -> Rolling:
        reports = {
            name: report(name, tunnels=[carries(generation=self.generation, phase=self.phase)])
            for name in MEMBERS
            if name not in self.not_ready
        }
        for name, values in said.items():
            reports[name] = report(name, **values)
        nodes = [node(name, ready=name not in self.not_ready) for name in (*MEMBERS, "n4")]
        return Rolling(uid="tunnel-pods", nodes=nodes, reports=reports)


def planned(phase: Phase, enforcement: Enforcement = STRICT, generation: int = 1) -> PlannedTunnel:
    return PlannedTunnel(name="pods", uid="tunnel-pods", generation=generation, phase=phase, enforcement=enforcement)


def after(
    last: PlannedTunnel | None,
    rolling: Rolling,
    *,
    enforcement: Enforcement = STRICT,
    generation: int = 1,
    rollout: Rollout = Rollout.GRADUAL,
) -> Phase:
    wanted = planned(A, enforcement, generation)
    return roll_out(wanted, last, rollout, members=MEMBERS, rolling=rolling).phase


@pytest.mark.parametrize(
    ("enforcement", "phase", "following"),
    [
        (STRICT, A, E),
        (STRICT, E, P),
        (STRICT, P, R),
        (STRICT, R, B),
        (STRICT, B, B),
        (PERMISSIVE, A, E),
        (PERMISSIVE, E, P),
        (PERMISSIVE, P, P),
        # -> from Strict to Permissive
        (PERMISSIVE, B, R),
        (PERMISSIVE, R, P),
    ],
)
def test_a_tunnel_goes_one_phase_when_all_agents_have_followed(
    enforcement: Enforcement, phase: Phase, following: Phase
) -> None:
    assert after(planned(phase), Agents(phase=phase).rolling(), enforcement=enforcement) is following


@pytest.mark.parametrize("phase", [A, E, P, R])
@pytest.mark.parametrize(
    "said",
    [
        {"tunnels": []},
        {"tunnels": [carries(phase="Block", generation=0)]},
        {"node_uid": "a former node's", "tunnels": [carries(phase="Block")]},
    ],
    ids=["nothing of the tunnel", "an older generation", "a former node"],
)
def test_a_ready_node_that_has_not_followed_holds_every_phase(phase: Phase, said: Json) -> None:
    rolling = Agents(phase=phase).rolling(n2=said)
    assert after(planned(phase), rolling) is phase
    assert waits_for(planned(phase), B, members=MEMBERS, rolling=rolling) == ("n2",)


def test_an_agent_that_is_a_phase_behind_holds_the_next_one() -> None:
    rolling = Agents(phase=R).rolling(n2={"tunnels": [carries(phase="Protect")]})
    assert after(planned(R), rolling) is R


@pytest.mark.parametrize(
    ("phase", "why", "following"),
    [
        # A pair that is still at it may yet come up; one that was tried in vain lets the others go on without it,
        (E, "Establishing", E),
        (E, "Unreachable", P),
        (E, "AuthenticationFailed", P),
        # but as soon as encryption is required it would be cut off.
        (P, "Establishing", P),
        (P, "Unreachable", P),
        # Later it is cut off already: what is in force is what was wanted.
        (R, "Unreachable", B),
    ],
)
def test_a_pair_without_sas(phase: Phase, why: str, following: Phase) -> None:
    line = [carries(phase=phase, ready=False)]
    rolling = Agents(phase=phase).rolling(
        n1={"ready": False, "tunnels": line, "unwell": [unwell("n2", why)]},
        n2={"ready": False, "tunnels": line, "unwell": [unwell("n1", why)]},
    )
    assert after(planned(phase), rolling) is following
    held = waits_for(planned(phase), B, members=MEMBERS, rolling=rolling)
    assert held == (() if following is not phase else ("n1 and n2",))


def test_a_pair_has_been_tried_when_one_end_says_so() -> None:
    line = [carries(phase="Establish", ready=False)]
    rolling = Agents(phase=E).rolling(
        n1={"tunnels": line, "unwell": [unwell("n2", "Establishing")]},
        n2={"tunnels": line, "unwell": [unwell("n1", "Unreachable")]},
    )
    assert after(planned(E), rolling) is P


@pytest.mark.parametrize(("phase", "following"), [(A, E), (E, P), (P, R), (R, B)])
def test_a_node_that_is_not_ready_holds_nothing_up(phase: Phase, following: Phase) -> None:
    line = [carries(phase=phase, ready=False)]
    rolling = Agents(phase=phase, not_ready=["n3"]).rolling(
        n1={"tunnels": line, "unwell": [unwell("n3", "Establishing")]},
        n2={"tunnels": line, "unwell": [unwell("n3")]},
    )
    assert after(planned(phase), rolling) is following


def test_more_unwell_pairs_than_can_be_named_hold_what_would_cut_them_off() -> None:
    said = {"tunnels": [carries(phase="Protect", ready=False)], "unwell": [unwell("n3")], "unwell_count": 2}
    assert after(planned(P), Agents(phase=P, not_ready=["n3"]).rolling(n1=said)) is P


@pytest.mark.parametrize(
    ("phase", "reason", "following"),
    [(E, "Establishing", E), (E, "UnsupportedKernel", P), (P, "UnsupportedKernel", P)],
)
def test_a_node_that_names_no_pair(phase: Phase, reason: str, following: Phase) -> None:
    said = {"ready": False, "reason": reason, "tunnels": [carries(phase=phase, ready=False)]}
    assert after(planned(phase), Agents(phase=phase).rolling(n2=said)) is following


def test_a_new_tunnel_begins_with_the_first_phase_or_at_once_with_the_last() -> None:
    nobody = Rolling(uid="tunnel-pods", nodes=[node(name) for name in MEMBERS], reports={})
    assert after(None, nobody) is A
    assert after(None, nobody, rollout=Rollout.IMMEDIATE) is B
    assert after(None, nobody, rollout=Rollout.IMMEDIATE, enforcement=PERMISSIVE) is P
    assert after(planned(B), nobody, rollout=Rollout.IMMEDIATE, enforcement=PERMISSIVE) is P


def test_a_plan_that_was_lost_takes_no_tunnel_back() -> None:
    assert after(None, Agents(phase=B).rolling()) is B
    assert after(None, Agents(phase=A).rolling(n2={"tunnels": [carries(phase="Require")]})) is R


def test_a_changed_spec_stays_in_its_phase_until_agents_follow_it() -> None:
    assert after(planned(B), Agents(phase=B).rolling(), generation=2) is B
    changed = roll_out(
        planned(A, generation=2), planned(P), Rollout.GRADUAL, members=MEMBERS, rolling=Agents(phase=P).rolling()
    )
    assert (changed.generation, changed.phase) == (2, P)
    assert after(planned(P, generation=2), Agents(phase=P).rolling(), generation=2) is P
    assert after(planned(P, generation=2), Agents(phase=P, generation=2).rolling(), generation=2) is R


# Removal


def removed(phase: Phase, rolling: Rolling, spec: Json | None = None) -> Phase | None:
    parsed = TunnelSpec.from_object({"rollout": "Gradual"} if spec is None else spec)
    result = take_back(planned(phase), parsed, members=MEMBERS, rolling=rolling)
    return None if result is None else result.phase


@pytest.mark.parametrize(("phase", "following"), [(B, R), (R, P), (P, E), (E, A), (A, None)])
def test_a_removal_goes_backwards(phase: Phase, following: Phase | None) -> None:
    assert removed(phase, Agents(phase=phase).rolling()) is following
    lagging = {"tunnels": [carries(phase="Block" if phase is not B else "Require")]}
    assert removed(phase, Agents(phase=phase).rolling(n1=lagging)) is phase


@pytest.mark.parametrize("phase", [B, R, P, E, A])
def test_a_removal_waits_for_no_pair_and_no_node_that_is_not_ready(phase: Phase) -> None:
    line = [carries(phase=phase, ready=False)]
    rolling = Agents(phase=phase, not_ready=["n3"]).rolling(n1={"tunnels": line, "unwell": [unwell("n2")]})
    assert removed(phase, rolling) is not phase


def test_an_immediate_removal_is_one_step() -> None:
    assert removed(B, Agents(phase=A).rolling(), {"rollout": "Immediate"}) is None
