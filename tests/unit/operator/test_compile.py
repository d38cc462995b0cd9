"""From tunnels, settings and Nodes to the plan and the IPsecNodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from hauberk_api.conditions import Reason
from hauberk_api.mesh import MeshSpec
from hauberk_api.names import FINALIZER, REVOKED_LABEL
from hauberk_api.node import Role
from hauberk_api.plan import Phase, Plan
from hauberk_api.tunnel import Encapsulation, Enforcement, Establish, Traffic, TunnelMode
from hauberk_operator.compile import Compiled, compile_mesh
from hauberk_operator.facts import MemberFacts, NodeFacts, ReportFacts, TunnelFacts
from tests.unit.operator.builders import carries, member, node, report, tunnel


def compiled(
    tunnels: Sequence[TunnelFacts] = (),
    nodes: Sequence[NodeFacts] = (),
    *,
    settings: dict[str, Any] | None = None,
    members: Sequence[MemberFacts] = (),
    previous: Plan | None = None,
    reports: Sequence[ReportFacts] = (),
    bundle: str = "PEM",
) -> Compiled:
    return compile_mesh(
        tunnels=tunnels,
        mesh=MeshSpec.from_object(settings or {}),
        nodes=nodes,
        members={m.name: m for m in members},
        previous=previous,
        reports={r.name: r for r in reports},
        trust_bundle=bundle,
    )


NODES = (node("n1"), node("n2"), node("w9", system="windows"))


def test_without_selectors_a_tunnel_takes_all_linux_nodes_and_an_immediate_one_blocks_at_once() -> None:
    result = compiled([tunnel("pods", generation=4)], NODES)
    (planned,) = result.plan.tunnels
    assert (planned.name, planned.uid, planned.generation, planned.phase) == ("pods", "tunnel-pods", 4, Phase.BLOCK)
    assert result.members == {"tunnel-pods": {"n1": Role.MEMBER, "n2": Role.MEMBER}}
    assert [m.tunnel for m in result.nodes["n1"].memberships] == ["tunnel-pods"]
    assert result.verdicts["pods"].accepted


def test_every_node_is_known_members_or_not() -> None:
    result = compiled([tunnel()], NODES)
    assert set(result.nodes) == {"n1", "n2", "w9"}
    assert result.nodes["w9"].memberships == ()
    assert result.nodes["w9"].pod_cidrs


def test_the_settings_are_in_the_plan() -> None:
    settings = {"podNetworks": ["10.244.0.0/16"], "nonMembers": "Deny", "revokedNodes": ["uid-n2"]}
    settings |= {"certificates": {"curve": "P-384"}, "hostExemptPorts": [22, 9345]}
    plan = compiled([tunnel()], NODES, settings=settings, bundle="ROOT").plan
    assert plan.to_object() | {"tunnels": []} == {
        "generation": 1,
        "mesh": "default",
        "podNetworks": ["10.244.0.0/16"],
        "nonMembers": "Deny",
        "revokedNodes": ["uid-n2"],
        "hostExemptPorts": [22, 9345],
        "trustBundle": "ROOT",
        "authority": "",
        "curve": "P-384",
        "tunnels": [],
    }


def test_without_an_authority_the_bundle_in_force_stays() -> None:
    before = compiled([tunnel()], NODES, bundle="ROOT").plan
    assert compiled([tunnel()], NODES, bundle="", previous=before).plan == before


def test_a_tunnels_encapsulation_is_in_the_plan() -> None:
    (planned,) = compiled([tunnel(spec={"encapsulation": "Always"})], NODES).plan.tunnels
    assert planned.encapsulation is Encapsulation.ALWAYS


@pytest.mark.parametrize(
    "traffic",
    [
        {"type": "PodNetwork"},
        {"type": "PodNetwork", "protocol": "TCP", "ports": {"first": 80, "last": 90}},
        {"type": "Overlay", "overlay": {"protocol": "VXLAN", "port": 8472}},
        {"type": "Host", "protocol": "UDP"},
        {"type": "Subnets", "subnets": ["192.0.2.0/24"]},
    ],
)
def test_a_tunnels_traffic_is_in_the_plan(traffic: dict[str, Any]) -> None:
    result = compiled([tunnel(spec={"traffic": traffic})], NODES)
    (planned,) = result.plan.tunnels
    assert result.verdicts["pods"].accepted
    assert planned.traffic == Traffic.from_object(traffic)
    assert planned.to_object()["traffic"] == {"subnets": [], **traffic}


@pytest.mark.parametrize(("listed", "labelled"), [("n2", False), ("uid-n2", False), ("", True)])
def test_a_node_is_revoked_by_uid_by_name_or_by_label(listed: str, labelled: bool) -> None:
    """Agents are told its UID, as that is what its certificate has."""
    nodes = (node("n1"), node("n2", labels={REVOKED_LABEL: ""} if labelled else {}))
    result = compiled([tunnel()], nodes, settings={"revokedNodes": [listed] if listed else []})
    assert set(result.members["tunnel-pods"]) == {"n1"}
    assert set(result.plan.revoked_nodes) == {"uid-n2", *filter(None, (listed,))}


def test_a_name_outlives_the_node_that_had_it() -> None:
    settings = {"revokedNodes": ["n2"]}
    first = compiled([tunnel()], (node("n1"), node("n2")), settings=settings).plan
    gone = compiled([tunnel()], (node("n1"),), settings=settings, previous=first).plan
    assert gone.revoked_nodes == ("n2",)
    again = compiled([tunnel()], (node("n1"), node("n2", uid="another")), settings=settings, previous=gone)
    assert again.plan.revoked_nodes == ("n2", "another")
    assert again.nodes["n2"].memberships == ()


def test_a_revoked_node_stays_known_and_is_in_no_tunnel() -> None:
    result = compiled([tunnel()], NODES, settings={"revokedNodes": ["uid-n2"]})
    assert result.members["tunnel-pods"] == {"n1": Role.MEMBER}
    assert result.nodes["n2"].memberships == ()


def test_the_oldest_tunnel_comes_first() -> None:
    tunnels = [
        tunnel("young", created="2026-03-03T00:00:00Z"),
        tunnel("old", created="2026-03-01T00:00:00Z"),
        tunnel("b-same", created="2026-03-02T00:00:00Z"),
        tunnel("a-same", created="2026-03-02T00:00:00Z"),
    ]
    result = compiled(tunnels, NODES)
    assert [t.name for t in result.plan.tunnels] == ["old", "a-same", "b-same", "young"]
    assert [m.tunnel for m in result.nodes["n1"].memberships] == [t.uid for t in result.plan.tunnels]


def test_a_tunnel_being_deleted_is_in_no_plan() -> None:
    result = compiled([tunnel(deleted="2026-03-01T00:00:00Z")], NODES)
    assert result.plan.tunnels == ()
    assert result.nodes["n1"].memberships == ()
    assert result.verdicts == {}


# The plan's generation


def test_the_same_content_keeps_its_generation() -> None:
    first = compiled([tunnel()], NODES).plan
    assert compiled([tunnel()], NODES, previous=first).plan == first


def test_a_node_that_joins_does_not_change_the_plan() -> None:
    first = compiled([tunnel()], NODES).plan
    assert compiled([tunnel()], [*NODES, node("n3")], previous=first).plan == first


@pytest.mark.parametrize(
    "change",
    [
        {"tunnels": [tunnel(generation=2)]},
        {"tunnels": []},
        {"settings": {"nonMembers": "Deny"}},
        {"bundle": "ANOTHER"},
    ],
)
def test_changed_content_counts_the_generation_up(change: dict[str, Any]) -> None:
    first = compiled([tunnel()], NODES).plan.model_copy(update={"generation": 41})
    arguments: dict[str, Any] = {"tunnels": [tunnel()], "nodes": NODES, "previous": first} | change
    assert compiled(**arguments).plan.generation == 42


def test_a_mesh_made_anew_counts_on_from_what_agents_follow() -> None:
    assert compiled([tunnel()], NODES, reports=[report("n1", plan=17)]).plan.generation == 18


def test_a_tunnel_that_is_rolled_out_says_what_it_waits_for() -> None:
    result = compiled([tunnel(spec={"rollout": "Gradual"})], NODES, reports=[report("n1", tunnels=[carries()])])
    assert result.plan.tunnels[0].phase is Phase.BLOCK, "an agent carries it"
    assert result.waits_for == {}
    result = compiled([tunnel(spec={"rollout": "Gradual"})], NODES)
    assert result.plan.tunnels[0].phase is Phase.ACCEPT
    assert result.waits_for == {"tunnel-pods": ("n1", "n2")}


def test_an_immediate_permissive_tunnel_is_in_its_last_phase_at_once() -> None:
    (planned,) = compiled([tunnel(spec={"rollout": "Immediate", "enforcement": "Permissive"})], NODES).plan.tunnels
    assert (planned.phase, planned.enforcement) == (Phase.PROTECT, Enforcement.PERMISSIVE)


# What is not carried out


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (
            {"interception": "Interface", "enforcement": "Permissive"},
            "interception: Interface with enforcement: Permissive",
        ),
        (
            {"interception": "Interface", "traffic": {"type": "Host"}},
            "interception: Interface with traffic.type: Host",
        ),
        (
            {"interception": "Interface", "traffic": {"protocol": "TCP"}},
            "interception: Interface with traffic.protocol",
        ),
        (
            {"establish": "OnDemand", "enforcement": "Permissive"},
            "establish: OnDemand with enforcement: Permissive",
        ),
        ({"remote": {"address": "192.0.2.1", "identity": "gw", "subnets": ["10.9.0.0/16"]}}, "remote"),
    ],
)
def test_what_this_version_does_not_carry_out_is_named_and_not_planned(spec: dict[str, Any], field: str) -> None:
    result = compiled([tunnel(spec=spec)], NODES)
    verdict = result.verdicts["pods"]
    assert result.plan.tunnels == ()
    assert (verdict.accepted, verdict.reason) == (False, Reason.UNSUPPORTED)
    assert verdict.message == f"This version does not carry out {field}."


def test_the_plan_says_in_which_mode_packets_go() -> None:
    (planned,) = compiled([tunnel(spec={"mode": "IPTFS"})], NODES).plan.tunnels
    assert planned.mode is TunnelMode.IPTFS


def test_a_tunnel_says_when_its_pairs_come_up_and_go_down() -> None:
    (planned,) = compiled([tunnel(spec={"establish": "OnDemand", "idleSeconds": 60})], NODES).plan.tunnels
    assert (planned.establish, planned.idle_seconds) == (Establish.ON_DEMAND, 60)


def test_a_spec_that_cannot_be_read_is_invalid_and_named() -> None:
    verdict = compiled([tunnel(spec={"topology": "Ring"})], NODES).verdicts["pods"]
    assert (verdict.accepted, verdict.reason) == (False, Reason.INVALID)
    assert "topology" in verdict.message


def test_no_more_tunnels_are_planned_than_an_ipsecnode_holds() -> None:
    tunnels = [tunnel(f"t{i:02}", created=f"2026-03-01T00:00:{i % 60:02}Z") for i in range(60)]
    tunnels += [tunnel(f"z{i}", created="2026-04-01T00:00:00Z") for i in range(6)]
    result = compiled(tunnels, NODES)
    assert len(result.plan.tunnels) == len(result.nodes["n1"].memberships) == 64
    assert [name for name, verdict in result.verdicts.items() if not verdict.accepted] == ["z4", "z5"]


def test_an_edit_that_cannot_be_carried_out_leaves_what_was_accepted_in_force() -> None:
    """Otherwise a slip of the pen would put the pods' traffic in clear."""
    before = compiled([tunnel(generation=1)], NODES)
    known = [member(name, memberships=[m.to_object() for m in spec.memberships]) for name, spec in before.nodes.items()]
    edited = tunnel(generation=2, spec={"interception": "Interface", "enforcement": "Permissive"})
    after = compiled([edited], NODES, previous=before.plan, members=known)
    assert after.plan == before.plan
    assert after.members == before.members
    assert not after.verdicts["pods"].accepted
    assert after.verdicts["pods"].message.endswith("Generation 1 stays in force.")


# Pausing


def frozen(spec: dict[str, Any], *nodes: NodeFacts, generation: int = 2) -> Compiled:
    """A tunnel that was in force for n1 and n2 in generation 1, and is edited while it is paused."""
    before = compiled([tunnel(generation=1)], NODES)
    known = [member(name, memberships=[m.to_object() for m in spec.memberships]) for name, spec in before.nodes.items()]
    edited = tunnel(generation=generation, spec={"paused": True} | spec)
    return compiled([edited], nodes or NODES, previous=before.plan, members=known)


def test_a_paused_tunnel_stays_in_the_plan_as_it_is() -> None:
    before = compiled([tunnel(generation=1)], NODES)
    after = frozen({"enforcement": "Permissive", "nodeSelector": {"matchLabels": {"pool": "blue"}}})
    assert after.plan == before.plan
    assert after.members == before.members
    assert after.verdicts["pods"].accepted


def test_of_the_nodes_only_new_ones_join_a_paused_tunnel_and_gone_ones_leave() -> None:
    selecting = {"nodeSelector": {"matchLabels": {"pool": "blue"}}}
    blue = {"pool": "blue"}
    after = frozen(selecting, node("n1"), node("w9", labels=blue), node("n3", labels=blue), node("n4"))
    assert after.members["tunnel-pods"] == {"n1": Role.MEMBER, "n3": Role.MEMBER}


def test_a_tunnel_that_is_paused_from_its_beginning_is_in_no_plan() -> None:
    result = compiled([tunnel(spec={"paused": True})], NODES)
    assert result.plan.tunnels == ()
    verdict = result.verdicts["pods"]
    assert (verdict.accepted, verdict.reason) == (False, Reason.PAUSED)


def test_what_was_changed_in_the_pause_comes_into_force_after_it() -> None:
    paused = frozen({"enforcement": "Permissive"})
    after = compiled([tunnel(generation=3, spec={"enforcement": "Permissive"})], NODES, previous=paused.plan)
    (planned,) = after.plan.tunnels
    assert (planned.generation, planned.enforcement) == (3, Enforcement.PERMISSIVE)


# A tunnel that goes, and another one that wants its pairs


def heir_and(phase: str, *, rollout: str = "Gradual") -> Compiled:
    """An old tunnel of all nodes is deleted while a young one of all nodes is in a phase."""
    old = tunnel("old", spec={"rollout": rollout}, created="2026-01-01T00:00:00Z")
    young = tunnel("young", spec={"rollout": "Gradual"}, created="2026-01-02T00:00:00Z")
    before = compiled([old, young], NODES).plan
    entries = [before.tunnels[0].model_copy(update={"phase": Phase.BLOCK})]
    entries.append(before.tunnels[1].model_copy(update={"phase": Phase(phase)}))
    previous = before.model_copy(update={"tunnels": tuple(entries)})
    memberships = [{"tunnel": "tunnel-old", "role": "Member"}, {"tunnel": "tunnel-young", "role": "Member"}]
    gone = tunnel(
        "old", spec={"rollout": rollout}, created=old.created, deleted="2026-05-01T00:00:00Z", finalizers=[FINALIZER]
    )
    lines = [carries("old", phase="Block"), carries("young", phase="Accept")]
    return compiled(
        [gone, young],
        NODES,
        previous=previous,
        members=[member(name, memberships=memberships) for name in ("n1", "n2")],
        reports=[report(name, tunnels=lines) for name in ("n1", "n2")],
    )


def order_and_phases(result: Compiled) -> list[tuple[str, Phase]]:
    return [(planned.name, planned.phase) for planned in result.plan.tunnels]


def test_a_tunnel_that_goes_yields_its_pairs_at_once_to_one_that_is_in_its_last_phase() -> None:
    result = heir_and("Block")
    assert order_and_phases(result) == [("young", Phase.BLOCK), ("old", Phase.REQUIRE)]
    assert result.precedence.losses("tunnel-young") == ()
    assert [m.tunnel for m in result.nodes["n1"].memberships] == ["tunnel-old", "tunnel-young"], "not written anew"


def test_a_tunnel_that_goes_waits_for_the_one_that_takes_its_pairs() -> None:
    """Else these would be in clear while the other one is still on its way."""
    assert order_and_phases(heir_and("Accept")) == [("old", Phase.BLOCK), ("young", Phase.ESTABLISH)]


def test_a_tunnel_that_goes_at_once_waits_for_no_other() -> None:
    assert order_and_phases(heir_and("Accept", rollout="Immediate")) == [("young", Phase.ESTABLISH)]


# Addresses


def test_a_refused_claim_is_left_out_of_the_ipsecnode() -> None:
    nodes = [node("n1"), node("n2", created="2026-09-01T00:00:00Z", addresses=["10.0.0.1", "10.0.0.2"])]
    result = compiled([tunnel()], nodes)
    assert result.nodes["n2"].addresses == ("10.0.0.2",)
    assert [c.node for c in result.conflicts] == ["n2"]
