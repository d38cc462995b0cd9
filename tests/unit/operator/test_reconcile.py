"""Whatever the cluster is like, looking at it and writing comes to rest at what is wanted, and then writes nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hauberk_api.names import FINALIZER, TAINT_REMOVED
from hauberk_operator.facts import Json
from hauberk_operator.reconcile import PHASES_LIMIT, REMOVAL_LIMIT, SET_UP_LIMIT, reconcile
from hauberk_operator.standing import Standing
from hauberk_operator.writes import MEMBER, MESH, NODE, REPORT, TUNNEL
from tests.unit.operator.builders import carries, mesh_json, node_json, report_json, tunnel_json
from tests.unit.operator.fake_api import FakeApi

NOW = datetime(2026, 5, 1, tzinfo=UTC)
BUNDLE = "ROOT"
STANDING = Standing(bundle=BUNDLE, authority="aa", status={"phase": "Stable"})
MAX_PASSES = 6


def settle(api: FakeApi, *, now: datetime = NOW) -> list[str]:
    """Reconcile until nothing is written any more. Returns what was written."""
    api.writes.clear()
    for _ in range(MAX_PASSES):
        before = len(api.writes)
        for stage in reconcile(api.view(), standing=STANDING, now=now).stages:
            for write in stage:
                asyncio.run(api.carry_out(write))
        if len(api.writes) == before:
            return list(api.writes)
    raise AssertionError(f"does not come to rest: {api.writes}")


def cluster(*names: str, tunnels: tuple[Json, ...] = (tunnel_json(),)) -> FakeApi:
    api = FakeApi()
    for name in names:
        api.add(NODE, node_json(name))
    for tunnel in tunnels:
        api.add(TUNNEL, tunnel)
    return api


def plan(api: FakeApi) -> dict[str, Any]:
    return api.objects[MESH.kind, "default"]["status"]["plan"]


def tunnel_of(api: FakeApi, name: str = "pods") -> dict[str, Any]:
    return api.objects[TUNNEL.kind, name]


def conditions(api: FakeApi, name: str = "pods") -> dict[str, str]:
    return {c["type"]: c["reason"] for c in tunnel_of(api, name)["status"]["conditions"]}


def test_an_empty_cluster_gets_a_mesh_and_a_plan_without_tunnels() -> None:
    api = cluster(tunnels=())
    settle(api)
    assert plan(api)["tunnels"] == []
    assert plan(api)["trustBundle"] == BUNDLE


def test_a_tunnel_is_compiled_held_and_reported() -> None:
    api = cluster("n1", "n2")
    settle(api)
    assert [t["name"] for t in plan(api)["tunnels"]] == ["pods"]
    assert tunnel_of(api)["metadata"]["finalizers"] == [FINALIZER]
    assert conditions(api) == {
        "Accepted": "Accepted",
        "Ready": "WaitingForAgents",
        "Degraded": "AsWanted",
        "Conflicted": "NoConflict",
        "Paused": "NotPaused",
        "Oversized": "Fits",
    }
    for name in ("n1", "n2"):
        member = api.objects[MEMBER.kind, name]
        assert member["spec"]["memberships"] == [{"tunnel": "tunnel-pods", "role": "Member"}]
        assert member["metadata"]["ownerReferences"][0]["uid"] == f"uid-{name}"


def test_nothing_is_written_when_nothing_has_changed() -> None:
    api = cluster("n1", "n2")
    settle(api)
    assert settle(api, now=NOW + timedelta(hours=1)) == []


def test_a_heartbeat_writes_nothing() -> None:
    api = cluster("n1", "n2")
    settle(api)
    api.add(NODE, node_json("n1"))
    assert settle(api) == []


def test_for_a_new_tunnel_memberships_come_before_the_plan() -> None:
    api = cluster("n1", "n2", tunnels=())
    settle(api)
    api.add(TUNNEL, tunnel_json())
    written = settle(api)
    assert written.index("patch IPsecNode n2") < written.index("patch IPsecMesh default/status")


def test_for_a_tunnel_that_goes_the_plan_comes_first() -> None:
    api = cluster("n1", "n2")
    settle(api)
    asyncio.run(api.delete(TUNNEL, "pods"))
    written = settle(api)
    assert written.index("patch IPsecMesh default/status") < written.index("patch IPsecNode n1")


def test_a_node_that_joins_costs_one_ipsecnode_and_the_tunnels_status() -> None:
    api = cluster("n1", "n2", "n3")
    settle(api)
    api.add(NODE, node_json("n4"))
    assert settle(api) == ["create IPsecNode n4", "patch IPsecTunnel pods/status"]


def test_a_node_that_is_being_set_up_is_published_once() -> None:
    """A kubelet registers its Node, and a controller gives it its pod CIDRs a moment later."""
    api = cluster("n1", "n2")
    settle(api)
    api.add(NODE, node_json("n3", created="2026-05-01T00:00:00Z", pod_cidrs=[], ready=False))
    assert "create IPsecNode n3" not in settle(api)
    assert reconcile(api.view(), standing=STANDING, now=NOW).look_again == SET_UP_LIMIT
    api.add(NODE, node_json("n3", created="2026-05-01T00:00:00Z", ready=False))
    assert [write for write in settle(api) if "IPsecNode" in write] == ["create IPsecNode n3"]


@pytest.mark.parametrize(("ready", "after"), [(True, timedelta(0)), (False, SET_UP_LIMIT)])
def test_a_node_that_gets_no_pod_cidrs_is_published_all_the_same(ready: bool, after: timedelta) -> None:
    api = cluster("n1")
    api.add(NODE, node_json("n2", created="2026-05-01T00:00:00Z", pod_cidrs=[], ready=ready))
    settle(api, now=NOW + after)
    assert (MEMBER.kind, "n2") in api.objects


def test_a_node_that_goes_takes_its_objects_with_it() -> None:
    api = cluster("n1", "n2", "n3")
    api.add(REPORT, report_json("n3"))
    settle(api)
    api.take(NODE, "n3")
    settle(api)
    assert (MEMBER.kind, "n3") not in api.objects
    assert (REPORT.kind, "n3") not in api.objects


def test_an_object_is_kept_if_its_node_is_there_after_all() -> None:
    """The view was behind: the deletion looks once more."""
    api = cluster("n1", "n2")
    settle(api)
    view = api.view()
    view.nodes.remove("n2", 10_000)
    for write in reconcile(view, standing=STANDING, now=NOW).writes:
        if write.name == "n2":
            asyncio.run(api.carry_out(write))
    assert (MEMBER.kind, "n2") in api.objects


def test_a_node_registered_again_is_published_anew() -> None:
    api = cluster("n1", "n2")
    settle(api)
    api.add(NODE, node_json("n2", uid="fresh"))
    settle(api)
    member = api.objects[MEMBER.kind, "n2"]
    assert member["spec"]["nodeUID"] == "fresh"
    assert member["metadata"]["ownerReferences"][0]["uid"] == "fresh"


def test_an_ipsecnode_that_somebody_has_changed_is_mended() -> None:
    api = cluster("n1", "n2")
    settle(api)
    api.objects[MEMBER.kind, "n1"]["spec"]["addresses"] = ["192.0.2.66"]
    assert settle(api) == ["patch IPsecNode n1"]
    assert api.objects[MEMBER.kind, "n1"]["spec"]["addresses"] == ["10.0.0.1"]


def test_reports_make_a_tunnel_ready_and_the_person_hears_of_it() -> None:
    api = cluster("n1", "n2")
    settle(api)
    for name in ("n1", "n2"):
        api.add(REPORT, report_json(name, tunnels=[carries()]))
    written = settle(api)
    assert conditions(api)["Ready"] == "AllPairsUp"
    assert written[0] == "patch IPsecTunnel pods/status"
    assert [w for w in written[1:] if not w.startswith("create Event")] == []
    events = [obj for (kind, _), obj in api.objects.items() if kind == "Event"]
    assert [event["reason"] for event in events] == ["AllPairsUp"]


def test_a_refused_tunnel_says_so_and_is_not_held() -> None:
    api = cluster("n1", tunnels=(tunnel_json(spec={"interception": "Interface", "enforcement": "Permissive"}),))
    settle(api)
    assert conditions(api)["Accepted"] == "Unsupported"
    assert tunnel_of(api)["metadata"]["finalizers"] == []
    assert plan(api)["tunnels"] == []


# Removal


def deleted_but_carried(*, ready: bool = True) -> FakeApi:
    """A tunnel deleted at NOW that n2 still has in its kernel."""
    api = cluster("n1")
    api.add(NODE, node_json("n2", ready=ready))
    settle(api)
    api.add(REPORT, report_json("n1"))
    api.add(REPORT, report_json("n2", tunnels=[carries()]))
    asyncio.run(api.delete(TUNNEL, "pods"))
    return api


def test_a_deleted_tunnel_leaves_the_plan_and_waits_for_its_agents() -> None:
    api = deleted_but_carried()
    settle(api)
    assert plan(api)["tunnels"] == []
    assert (TUNNEL.kind, "pods") in api.objects
    look_again = reconcile(api.view(), standing=STANDING, now=NOW + timedelta(seconds=10)).look_again
    assert look_again == REMOVAL_LIMIT - timedelta(seconds=10)


def test_a_deleted_tunnel_goes_when_no_agent_carries_it() -> None:
    api = deleted_but_carried()
    settle(api)
    api.add(REPORT, report_json("n2", tunnels=[]))
    settle(api)
    assert (TUNNEL.kind, "pods") not in api.objects


def test_a_deleted_tunnel_does_not_wait_for_a_node_that_is_not_ready() -> None:
    api = deleted_but_carried(ready=False)
    settle(api)
    assert (TUNNEL.kind, "pods") not in api.objects


def test_a_deleted_tunnel_does_not_wait_for_ever() -> None:
    api = deleted_but_carried()
    settle(api, now=NOW + REMOVAL_LIMIT)
    assert (TUNNEL.kind, "pods") not in api.objects


# Rolling out

GRADUAL = {"rollout": "Gradual"}


def phases_followed(api: FakeApi, *names: str, now: datetime = NOW) -> list[str]:
    """Agents follow every plan, and the operator looks again, until nothing changes. The phases that were planned."""
    seen: list[str] = []
    while True:
        settle(api, now=now)
        here = [tunnel["phase"] for tunnel in plan(api)["tunnels"]]
        if here == seen[-1:]:
            return seen
        if not here:
            return [*seen, "gone"]
        seen += here
        follow(api, *names)


def follow(api: FakeApi, *names: str) -> None:
    for name in names:
        lines = [
            carries(tunnel["name"], generation=tunnel["generation"], phase=tunnel["phase"])
            for tunnel in plan(api)["tunnels"]
        ]
        api.add(REPORT, report_json(name, plan=plan(api)["generation"], tunnels=lines))


def test_a_gradual_tunnel_goes_through_its_phases_and_back() -> None:
    api = cluster("n1", "n2", tunnels=(tunnel_json(spec=GRADUAL),))
    assert phases_followed(api, "n1", "n2") == ["Accept", "Establish", "Protect", "Require", "Block"]
    assert conditions(api)["Ready"] == "AllPairsUp"
    tunnel_of(api)["spec"]["enforcement"] = "Permissive"
    tunnel_of(api)["metadata"]["generation"] = 2
    assert phases_followed(api, "n1", "n2") == ["Block", "Require", "Protect"]
    asyncio.run(api.delete(TUNNEL, "pods"))
    assert phases_followed(api, "n1", "n2") == ["Establish", "Accept", "gone"]
    follow(api, "n1", "n2")
    settle(api)
    assert (TUNNEL.kind, "pods") not in api.objects


def test_a_phase_waits_for_an_agent_and_the_condition_names_it() -> None:
    api = cluster("n1", "n2", tunnels=(tunnel_json(spec=GRADUAL),))
    settle(api)
    follow(api, "n1", "n2")
    settle(api)
    assert phases_followed(api, "n1") == ["Establish"]
    (ready,) = (c for c in tunnel_of(api)["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["reason"], ready["message"]) == (
        "RollingOut",
        "Phase Establish, on the way to Block. The next one waits for n2.",
    )
    assert tunnel_of(api)["status"]["phase"] == "Establish"


def test_a_node_that_joins_a_blocking_mesh_takes_no_phase_back() -> None:
    api = cluster("n1", "n2", tunnels=(tunnel_json(spec=GRADUAL),))
    phases_followed(api, "n1", "n2")
    api.add(NODE, node_json("n3"))
    assert phases_followed(api, "n1", "n2") == ["Block"]


def test_a_mesh_made_anew_goes_on_in_the_phase_that_agents_carry() -> None:
    api = cluster("n1", "n2", tunnels=(tunnel_json(spec=GRADUAL),))
    phases_followed(api, "n1", "n2")
    api.objects[MESH.kind, "default"]["status"] = {}
    assert phases_followed(api, "n1", "n2") == ["Block"]


def test_the_phases_of_a_removal_wait_for_a_silent_agent_and_not_for_ever() -> None:
    api = cluster("n1", "n2", tunnels=(tunnel_json(spec=GRADUAL),))
    phases_followed(api, "n1", "n2")
    asyncio.run(api.delete(TUNNEL, "pods"))
    settle(api)
    assert phases_followed(api, "n1") == ["Require"]
    assert reconcile(api.view(), standing=STANDING, now=NOW).look_again == PHASES_LIMIT
    settle(api, now=NOW + PHASES_LIMIT)
    assert plan(api)["tunnels"] == []
    assert (TUNNEL.kind, "pods") in api.objects, "n2 still carries it"
    settle(api, now=NOW + REMOVAL_LIMIT)
    assert (TUNNEL.kind, "pods") not in api.objects


def test_a_deleted_tunnel_keeps_its_members_until_it_leaves_the_plan() -> None:
    api = cluster("n1", "n2", tunnels=(tunnel_json(spec=GRADUAL),))
    phases_followed(api, "n1", "n2")
    asyncio.run(api.delete(TUNNEL, "pods"))
    settle(api)
    assert plan(api)["tunnels"][0]["phase"] == "Require"
    assert api.objects[MEMBER.kind, "n1"]["spec"]["memberships"]


# Several tunnels


def test_the_younger_of_two_tunnels_is_conflicted_until_the_older_goes() -> None:
    young = tunnel_json("young", created="2026-03-01T00:00:00Z")
    api = cluster("n1", "n2", "n3", tunnels=(tunnel_json(), young))
    settle(api)
    assert conditions(api)["Conflicted"] == "NoConflict"
    assert conditions(api, "young")["Conflicted"] == "OlderTunnel"
    told = [obj for (kind, _), obj in api.objects.items() if kind == "Event" and obj["reason"] == "OlderTunnel"]
    assert [(event["regarding"]["name"], event["type"]) for event in told] == [("young", "Warning")]
    asyncio.run(api.delete(TUNNEL, "pods"))
    settle(api)
    assert conditions(api, "young")["Conflicted"] == "NoConflict"


def test_a_tunnel_that_goes_hands_its_pairs_over_and_then_goes_back_phase_by_phase() -> None:
    young = tunnel_json("young", created="2026-03-01T00:00:00Z", spec=GRADUAL)
    api = cluster("n1", "n2", tunnels=(tunnel_json(spec=GRADUAL), young))
    seen: list[list[str]] = []
    deleted = False
    while True:
        settle(api)
        here = [f"{tunnel['name']} {tunnel['phase']}" for tunnel in plan(api)["tunnels"]]
        if here in seen and deleted:
            break
        if here in seen:
            asyncio.run(api.delete(TUNNEL, "pods"))
            deleted = True
            continue
        seen.append(here)
        follow(api, "n1", "n2")
    assert seen[-6:] == [
        ["pods Block", "young Block"],
        ["young Block", "pods Require"],
        ["young Block", "pods Protect"],
        ["young Block", "pods Establish"],
        ["young Block", "pods Accept"],
        ["young Block"],
    ]


# Nodes that enter and leave


def membership(api: FakeApi, name: str) -> str:
    """How a node is in the one tunnel: "out", "in", or the phase that it is in on its way."""
    found = api.objects[MEMBER.kind, name]["spec"]["memberships"]
    return found[0].get("phase", "in") if found else "out"


def test_a_node_whose_label_changes_enters_and_leaves_step_by_step() -> None:
    blue = {"nodeSelector": {"matchLabels": {"pool": "blue"}}}
    api = cluster(tunnels=(tunnel_json(spec=GRADUAL | blue),))
    for name in ("n1", "n2"):
        api.add(NODE, node_json(name, labels={"pool": "blue"}))
    api.add(NODE, node_json("n3"))
    phases_followed(api, "n1", "n2")
    generation = plan(api)["generation"]
    seen: list[str] = []
    for labels in ({"pool": "blue"}, {}):
        api.add(NODE, node_json("n3", labels=labels))
        while True:
            settle(api)
            if seen[-1:] == [membership(api, "n3")]:
                break
            seen.append(membership(api, "n3"))
            (ready,) = (c for c in tunnel_of(api)["status"]["conditions"] if c["type"] == "Ready")
            if seen[-1] not in ("in", "out"):
                assert ready["reason"] in ("RollingOut", "WaitingForAgents")
            phase = "Block" if seen[-1] == "in" else seen[-1]
            tunnels = [carries(phase=phase)] if seen[-1] != "out" else []
            api.add(REPORT, report_json("n3", plan=generation, tunnels=tunnels))
    assert seen == ["Protect", "in", "Protect", "Establish", "out"]
    assert plan(api)["generation"] == generation, "nobody else's policies change"
    assert membership(api, "n1") == "in"


def test_a_new_node_with_the_label_is_in_at_once() -> None:
    blue = {"nodeSelector": {"matchLabels": {"pool": "blue"}}}
    api = cluster(tunnels=(tunnel_json(spec=GRADUAL | blue),))
    for name in ("n1", "n2"):
        api.add(NODE, node_json(name, labels={"pool": "blue"}))
    phases_followed(api, "n1", "n2")
    api.add(NODE, node_json("n3", labels={"pool": "blue"}))
    settle(api)
    assert membership(api, "n3") == "in"


def test_a_node_that_is_revoked_is_out_at_once() -> None:
    api = cluster("n1", "n2", tunnels=(tunnel_json(spec=GRADUAL),))
    phases_followed(api, "n1", "n2")
    api.objects[MESH.kind, "default"]["spec"] = {"revokedNodes": ["n2"]}
    settle(api)
    assert membership(api, "n2") == "out"


# What people are told


def told(api: FakeApi) -> list[tuple[str, str, str]]:
    """Events as reason, kind and name of what they are about; they are gone afterwards."""
    found = [obj for (kind, _), obj in api.objects.items() if kind == "Event"]
    for key in [key for key in api.objects if key[0] == "Event"]:
        del api.objects[key]
    return [(obj["reason"], obj["regarding"]["kind"], obj["regarding"]["name"]) for obj in found]


def test_the_end_of_a_rollout_is_told_once() -> None:
    api = cluster("n1", "n2", tunnels=(tunnel_json(spec=GRADUAL),))
    phases_followed(api, "n1", "n2")
    assert told(api) == [("RolledOut", "IPsecTunnel", "pods"), ("AllPairsUp", "IPsecTunnel", "pods")]
    settle(api, now=NOW + timedelta(hours=1))
    assert told(api) == []


def test_a_fault_is_told_and_that_it_is_over() -> None:
    api = cluster("n1", "n2")
    settle(api)
    unwell = [{"node": "n2", "tunnel": "pods", "reason": "Unreachable", "message": "no answer"}]
    api.add(REPORT, report_json("n2", tunnels=[carries()]))
    api.add(REPORT, report_json("n1", tunnels=[carries(ready=False)], unwell=unwell))
    settle(api)
    assert told(api) == [("Unreachable", "IPsecTunnel", "pods")]
    api.add(REPORT, report_json("n1", tunnels=[carries()]))
    settle(api)
    assert told(api) == [("AllPairsUp", "IPsecTunnel", "pods"), ("Recovered", "IPsecTunnel", "pods")]


def test_an_address_conflict_is_told_on_the_node_that_claims() -> None:
    api = cluster("n1", "n2")
    settle(api)
    told(api)
    api.add(NODE, node_json("n3", addresses=["10.0.0.1", "10.0.0.3"]))
    settle(api)
    told_of = told(api)
    assert ("AddressConflict", "Node", "n3") in told_of
    assert ("AddressConflict", "IPsecMesh", "default") in told_of
    # -> another one is news, the first one is not
    api.add(NODE, node_json("n4", addresses=["10.0.0.2", "10.0.0.4"]))
    settle(api)
    assert [reason for reason in told(api) if reason[1] == "Node"] == [("AddressConflict", "Node", "n4")]


def test_a_revocation_is_told_on_its_node() -> None:
    api = cluster("n1", "n2")
    settle(api)
    told(api)
    api.objects[MESH.kind, "default"]["spec"] = {"revokedNodes": ["n2", "unknown"]}
    settle(api)
    assert ("Revoked", "Node", "n2") in told(api)
    settle(api)
    assert told(api) == []


# The startup taint


def test_the_startup_taint_goes_once_the_agent_follows_the_plan() -> None:
    api = cluster("n1")
    api.add(NODE, node_json("n2", tainted=True))
    settle(api)
    generation = plan(api)["generation"]
    for report, goes in (
        (None, False),
        (report_json("n2", plan=generation - 1), False),
        (report_json("n2", plan=generation, ready=False), False),
        (report_json("n2", plan=generation, node_uid="former"), False),
        (report_json("n2", plan=generation), True),
    ):
        if report is not None:
            api.add(REPORT, report)
        found = reconcile(api.view(), standing=STANDING, now=NOW).untaint
        assert [node.name for node in found] == (["n2"] if goes else [])


def test_a_peer_that_is_down_does_not_keep_pods_from_new_nodes() -> None:
    api = cluster("n1")
    api.add(NODE, node_json("n2", tainted=True))
    settle(api)
    generation = plan(api)["generation"]
    certificate = {"serial": "1", "notAfter": "2026-06-01T00:00:00Z", "issuerFingerprint": "aa"}

    def untainted(*, reason: str, phase: str = "Block", **changed: Any) -> bool:
        unwell = [{"node": "n1", "tunnel": "pods", "reason": reason, "message": ""}]
        tunnels = [carries(ready=False, phase=phase)]
        told: dict[str, Any] = {
            "ready": False,
            "tunnels": tunnels,
            "unwell": unwell,
            "certificate": certificate,
            "plan": generation,
        }
        api.add(REPORT, report_json("n2", **(told | changed)))
        return reconcile(api.view(), standing=STANDING, now=NOW).untaint != ()

    # -> it is being tried, then it has been
    assert not untainted(reason="Establishing")
    assert untainted(reason="Unreachable")
    # -> what the node itself lacks is waited for
    assert not untainted(reason="Unreachable", phase="Require")
    assert not untainted(reason="Unreachable", certificate=None)
    assert not untainted(reason="Unreachable", esp=False)
    assert not untainted(reason="Unreachable", unwell=[])


def test_the_status_counts_what_protects_nodes_from_their_boot_on() -> None:
    api = cluster("n1")
    api.add(NODE, node_json("n2", tainted=True))
    api.add(NODE, node_json("n3"))
    api.objects[NODE.kind, "n3"]["metadata"]["annotations"] = {TAINT_REMOVED: "2026-05-01T00:00:00Z"}
    settle(api)
    assert tunnel_of(api)["status"]["boot"] == {"cachedPlan": 0, "startupTaint": 2, "guard": 0}
    api.add(REPORT, report_json("n1", boot={"cachedPlan": True, "guard": "Loaded"}))
    api.add(REPORT, report_json("n2", boot={"cachedPlan": True, "guard": "Partial"}))
    api.add(REPORT, report_json("n3"))
    settle(api)
    assert tunnel_of(api)["status"]["boot"] == {"cachedPlan": 2, "startupTaint": 2, "guard": 1}


def test_an_unreadable_mesh_spec_keeps_the_settings_in_force() -> None:
    api = cluster("n1")
    api.add(MESH, mesh_json(spec={"nonMembers": "Deny"}))
    settle(api)
    api.objects[MESH.kind, "default"]["spec"] = {"nonMembers": "Perhaps"}
    settle(api)
    assert plan(api)["nonMembers"] == "Deny"
    found = {c["type"]: c["reason"] for c in api.objects[MESH.kind, "default"]["status"]["conditions"]}
    assert found["Accepted"] == "Invalid"
