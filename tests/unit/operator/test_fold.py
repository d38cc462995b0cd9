"""Reports in, status out: the cases are in fold_cases.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hauberk_api.conditions import Reason
from hauberk_api.mesh import PodCIDRSource
from hauberk_api.node import NodeSpec, Role
from hauberk_api.plan import Phase, PlannedTunnel
from hauberk_api.tunnel import Enforcement, Establish
from hauberk_operator.claims import Conflict
from hauberk_operator.compile import Verdict
from hauberk_operator.fold import fold_mesh, fold_tunnel, mesh_conditions, pod_range
from hauberk_operator.pod_cidrs import PodCIDRs
from hauberk_operator.precedence import Precedence
from hauberk_operator.standing import Fault
from tests.unit.operator.builders import report, tunnel

CASES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "fold_cases.yaml").read_text())
ACCEPTED = Verdict(accepted=True, reason=Reason.ACCEPTED, message="The tunnel is in the plan.")
REFUSED = Verdict(
    accepted=False, reason=Reason.UNSUPPORTED, message="This version does not carry out interception: Interface."
)
FROM_NODES = PodCIDRs(source=PodCIDRSource.NODE, reason=Reason.FROM_NODE, message="The Nodes say it.")
NOW, LATER = "2026-05-01T00:00:00Z", "2026-05-01T00:01:00Z"


def fold(case: dict[str, Any], *, current: dict[str, Any] | None = None, now: str = NOW) -> dict[str, Any]:
    names: list[str] = case["nodes"]
    roles: dict[str, str] = case.get("roles", {})
    accepted: bool = case.get("accepted", True)
    members = {name: Role(roles.get(name, "Member")) for name in names}
    bare: list[str] = case.get("withoutPodCIDRs", [])
    spec: dict[str, Any] = {"paused": True} if case.get("paused") else {}
    return fold_tunnel(
        tunnel(generation=2, status=current, spec=spec),
        verdict=ACCEPTED if accepted else REFUSED,
        members=members if accepted else None,
        generation=2,
        planned=planned(case) if accepted else None,
        precedence=precedence(case, members if accepted else {}),
        waits_for=case.get("waitsFor", ()),
        nodes={
            name: NodeSpec(nodeUID=f"uid-{name}", addresses=(), podCIDRs=() if name in bare else ("10.244.0.0/24",))
            for name in names
        },
        reports={name: report(name, **values) for name, values in case["reports"].items()},
        conflicts=[Conflict(**conflict) for conflict in case.get("conflicts", ())],
        pod_networks=["10.244.0.0/16"],
        now=now,
    )


def planned(case: dict[str, Any]) -> PlannedTunnel:
    return PlannedTunnel(
        name="pods",
        uid="tunnel-pods",
        generation=2,
        phase=Phase(case.get("phase", "Block")),
        enforcement=Enforcement(case.get("enforcement", "Strict")),
        establish=Establish(case.get("establish", "Eager")),
    )


def precedence(case: dict[str, Any], members: dict[str, Role]) -> Precedence:
    """Of the tunnel and those before it, which the case names with their nodes."""
    older: dict[str, list[str]] = case.get("older", {})
    before = [planned(case).model_copy(update={"name": name, "uid": f"tunnel-{name}"}) for name in older]
    roles = {f"tunnel-{name}": dict.fromkeys(nodes, Role.MEMBER) for name, nodes in older.items()}
    return Precedence([*before, planned(case)], roles | {"tunnel-pods": members})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_a_tunnels_status(case: dict[str, Any]) -> None:
    status = fold(case)
    conditions = {c["type"]: c for c in status["conditions"]}
    for expected, value in case["status"].items():
        if expected in ("nodes", "pairs"):
            assert status[expected] == value
        else:
            found = conditions[expected]
            assert [found["status"], found["reason"], found["message"]] == value
    assert status["observedGeneration"] == 2
    assert {c["observedGeneration"] for c in status["conditions"]} == {2}
    assert status.get("phase") == (case.get("phase", "Block") if case.get("accepted", True) else None)
    assert status["podNetworks"] == ["10.244.0.0/16"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_the_same_reports_give_the_same_status_later(case: dict[str, Any]) -> None:
    status = fold(case)
    assert fold(case, current=status, now=LATER) == status


def test_a_transition_time_moves_with_its_status_alone() -> None:
    waiting, up = CASES[0], CASES[1]
    before = fold(waiting)
    after = fold(up, current=before, now=LATER)
    times = {c["type"]: c["lastTransitionTime"] for c in after["conditions"]}
    assert times == {
        "Accepted": NOW,
        "Ready": LATER,
        "Degraded": NOW,
        "Conflicted": NOW,
        "Oversized": NOW,
        "Paused": NOW,
    }


def test_a_condition_of_somebody_else_stays() -> None:
    theirs = {
        "type": "Audited",
        "status": "True",
        "reason": "ByUs",
        "message": "",
        "observedGeneration": 1,
        "lastTransitionTime": NOW,
    }
    assert theirs in fold(CASES[0], current={"conditions": [theirs]})["conditions"]


def test_the_pod_range_is_the_given_one_or_the_collapsed_union() -> None:
    nodes = [
        NodeSpec(nodeUID=str(i), addresses=(), podCIDRs=(f"10.244.{i}.0/24", f"fd00:244:{i}::/64")) for i in range(4)
    ]
    assert pod_range(["10.0.0.0/8"], nodes) == ("10.0.0.0/8",)
    assert pod_range([], nodes) == ("10.244.0.0/22", *(f"fd00:244{f':{i}' if i else ''}::/64" for i in range(4)))
    assert pod_range([], []) == ()


def test_the_meshs_status_names_conflicts_and_an_unreadable_spec() -> None:
    conflict = Conflict(node="n2", claim="10.0.0.1", holder="n1")
    status = fold_mesh(
        plan={"generation": 1},
        generation=3,
        current={},
        authority={},
        pod_cidr_source=PodCIDRSource.NODE,
        conditions=mesh_conditions([conflict], "spec: bad", None, FROM_NODES),
        now=NOW,
    )
    found = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
    assert found == {
        "Accepted": ("False", "Invalid"),
        "Degraded": ("True", "AddressConflict"),
        "PodCIDRsKnown": ("True", "FromNode"),
    }
    assert status["podCIDRSource"] == "Node"
    assert "n2 claims 10.0.0.1, which n1 holds" in status["conditions"][1]["message"]
    assert status["plan"] == {"generation": 1}
    assert status["observedGeneration"] == 3


def test_a_fault_of_the_authority_comes_before_address_conflicts() -> None:
    fault = Fault(reason=Reason.AUTHORITY_UNUSABLE, message="Secret x can't be imported: it is no CA")
    _, alone, _ = mesh_conditions([], "", fault, FROM_NODES)
    assert (alone.status, alone.reason) == ("True", "AuthorityUnusable")
    assert alone.message == "Secret x can't be imported: it is no CA."
    conflict = Conflict(node="n2", claim="10.0.0.1", holder="n1")
    _, both, _ = mesh_conditions([conflict], "", fault, FROM_NODES)
    assert both.message == "Secret x can't be imported: it is no CA. 1 address conflict besides."
