"""The operator against a real API server: tunnels and Nodes in, plan, IPsecNodes and statuses out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from hauberk_api.names import FINALIZER, STARTUP_TAINT, TAINT_REMOVED
from tests.apiserver import ApiServer
from tests.integration.operator_bed import Operator, OperatorBed

MAX_BYTES = 1024
"""Of an IPsecNode in an ordinary mesh."""
MEMORY_MB = 150
QUIET_SECONDS = 5.0


@pytest.fixture(scope="module")
def bed(apiserver: ApiServer) -> OperatorBed:
    """Three nodes, each with an agent's pod."""
    return OperatorBed.anew(apiserver, nodes=3)


@pytest.fixture(scope="module")
def operator(bed: OperatorBed) -> Iterator[Operator]:
    with bed.operator() as operator:
        bed.wait_for("a plan", lambda: bed.plan()["generation"], operator=operator)
        yield operator


@pytest.fixture
def pods(bed: OperatorBed, operator: Operator) -> Iterator[None]:
    """The tunnel `pods`, planned; it and all reports of it are gone afterwards."""
    bed.add_tunnel()
    bed.wait_for("the tunnel's plan", lambda: bed.plan()["tunnels"], operator=operator)
    bed.wait_for("the tunnel's status", lambda: bed.condition("Ready"), operator=operator)
    yield
    if bed.tunnel() is not None:
        bed.remove_tunnel()
    bed.wait_for("a plan without it", lambda: not bed.plan()["tunnels"], operator=operator)
    for node in bed.members():
        bed.report(node)
    bed.wait_for("its removal", lambda: bed.tunnel() is None, operator=operator)


def test_every_node_is_published_before_there_is_any_tunnel(bed: OperatorBed, operator: Operator) -> None:
    members = bed.wait_for("IPsecNodes", lambda: len(bed.members()) >= 3 and bed.members(), operator=operator)
    assert members["n1"]["spec"] == {
        "nodeUID": bed.get("/api/v1/nodes/n1")["metadata"]["uid"],
        "addresses": ["10.250.0.1"],
        "podCIDRs": ["10.244.1.0/24", "fd00:244:1::/64"],
        "memberships": [],
    }
    assert bed.plan()["trustBundle"].startswith("-----BEGIN CERTIFICATE-----")


@pytest.mark.usefixtures("pods")
def test_a_tunnel_is_planned_for_all_nodes_and_waits_for_their_agents(bed: OperatorBed, operator: Operator) -> None:
    (planned,) = bed.plan()["tunnels"]
    assert (planned["name"], planned["phase"]) == ("pods", "Block")
    assert all(
        m["spec"]["memberships"] == [{"tunnel": planned["uid"], "role": "Member"}] for m in bed.members().values()
    )
    for member in bed.members().values():
        del member["metadata"]["managedFields"]
        assert len(json.dumps(member, separators=(",", ":"))) < MAX_BYTES
    tunnel = bed.wait_for("a held tunnel", lambda: bed.tunnel(), operator=operator)
    assert tunnel["metadata"]["finalizers"] == [FINALIZER]
    assert tunnel["status"]["nodes"] == {"wanted": 3, "ready": 0}
    assert tunnel["status"]["pairs"] == {"wanted": 3, "established": 0}
    assert bed.condition("Ready")["reason"] == "WaitingForAgents"
    assert bed.condition("Accepted")["observedGeneration"] == 1


@pytest.mark.usefixtures("pods")
def test_reports_make_it_ready_and_a_fault_degrades_it(bed: OperatorBed, operator: Operator) -> None:
    for node in ("n1", "n2", "n3"):
        bed.report(node)
    bed.wait_for("Ready", lambda: bed.condition("Ready").get("status") == "True", operator=operator)
    assert bed.wait_for("an Event", lambda: bed.events("AllPairsUp"))
    fault = {"node": "n2", "tunnel": "pods", "reason": "AuthenticationFailed", "message": "its certificate has expired"}
    (planned,) = bed.plan()["tunnels"]
    unready = [{"tunnel": planned["uid"], "generation": planned["generation"], "ready": False}]
    bed.report("n1", ready=False, tunnels=unready, unwell=[fault], unwellCount=1)
    degraded = bed.wait_for(
        "Degraded", lambda: bed.condition("Degraded").get("status") == "True" and bed.condition("Degraded")
    )
    assert degraded["reason"] == "AuthenticationFailed"
    assert "n1 and n2" in degraded["message"]
    assert bed.condition("Ready")["status"] == "False"
    # -> it recovers, and the same happens again: one Event that counts
    bed.report("n1")
    assert bed.wait_for("an Event", lambda: bed.events("Recovered"), operator=operator)
    bed.report("n1", ready=False, tunnels=unready, unwell=[fault], unwellCount=1)
    bed.wait_for(
        "a series",
        lambda: [event.get("series", {}).get("count") for event in bed.events("AuthenticationFailed")] == [2],
        operator=operator,
    )


@pytest.mark.usefixtures("pods")
def test_a_kernel_without_esp_is_named(bed: OperatorBed, operator: Operator) -> None:
    kernel = {"release": "6.1", "esp": False, "problems": ["The kernel has no ESP."]}
    bed.report("n3", ready=False, reason="UnsupportedKernel", kernel=kernel)
    degraded = bed.wait_for(
        "Degraded",
        lambda: bed.condition("Degraded").get("status") == "True" and bed.condition("Degraded"),
        operator=operator,
    )
    assert degraded["reason"] == "UnsupportedKernel"
    assert "n3" in degraded["message"]


@pytest.mark.usefixtures("pods")
def test_nothing_is_written_while_nothing_changes(bed: OperatorBed, operator: Operator) -> None:
    """A heartbeat in a Node's status, and the full listing after a while, are nothing that changes."""
    bed.report("n1")
    bed.wait_for("its count", lambda: (bed.tunnel() or {})["status"]["nodes"]["ready"] == 1, operator=operator)
    time.sleep(1)
    before = bed.audit_length()
    bed.server.kubectl("annotate", "node", "n2", f"beat={time.time()}", "--overwrite")
    time.sleep(QUIET_SECONDS)
    assert bed.operator_writes(before) == []


@pytest.mark.usefixtures("pods")
def test_a_node_that_joins_costs_two_writes_and_leaves_no_trace(bed: OperatorBed, operator: Operator) -> None:
    plan, before = bed.plan(), bed.audit_length()
    bed.add_node(4)
    bed.wait_for(
        "its membership", lambda: bed.members().get("n4", {}).get("spec", {}).get("memberships"), operator=operator
    )
    bed.wait_for("its count", lambda: (bed.tunnel() or {})["status"]["nodes"]["wanted"] == 4, operator=operator)
    assert bed.plan() == plan
    writes = bed.operator_writes(before)
    # A Node is born without addresses: its kubelet adds them in a second write, which may be seen as a second change.
    assert len(writes) <= 3, writes
    bed.report("n4")
    bed.remove_node(4)
    bed.wait_for("its end", lambda: "n4" not in bed.members(), operator=operator)
    reports = "/apis/hauberk.dev/v1alpha1/ipsecreports"
    bed.wait_for("its report's end", lambda: "n4" not in [r["metadata"]["name"] for r in bed.get(reports)["items"]])


@pytest.mark.usefixtures("pods")
def test_an_address_claimed_twice_stays_with_its_holder(bed: OperatorBed, operator: Operator) -> None:
    bed.add_node(5, addresses=["10.250.0.1", "10.250.0.5"])
    member = bed.wait_for(
        "n5", lambda: bed.members().get("n5", {}).get("spec", {}).get("addresses") and bed.members()["n5"]
    )
    assert member["spec"]["addresses"] == ["10.250.0.5"]
    assert bed.members()["n1"]["spec"]["addresses"] == ["10.250.0.1"]
    found = bed.wait_for(
        "Degraded",
        lambda: bed.condition("Degraded").get("status") == "True" and bed.condition("Degraded"),
        operator=operator,
    )
    assert found["reason"] == "AddressConflict"
    assert "n5 claims 10.250.0.1, which n1 holds" in found["message"]
    bed.remove_node(5)
    bed.wait_for("the end of it", lambda: bed.condition("Degraded")["status"] == "False", operator=operator)


def test_a_tunnel_that_is_not_carried_out_says_which_fields(bed: OperatorBed, operator: Operator) -> None:
    bed.add_tunnel("later", {"establish": "OnDemand", "enforcement": "Permissive"})
    accepted = bed.wait_for("a verdict", lambda: bed.condition("Accepted", tunnel="later"), operator=operator)
    assert (accepted["status"], accepted["reason"]) == ("False", "Unsupported")
    assert "establish: OnDemand with enforcement: Permissive" in accepted["message"]
    assert bed.plan()["tunnels"] == []
    bed.remove_tunnel("later")
    bed.wait_for("its end", lambda: bed.tunnel("later") is None)


def test_a_deleted_tunnel_waits_for_the_agents_that_carry_it(bed: OperatorBed, operator: Operator) -> None:
    bed.add_tunnel()
    bed.wait_for("a plan", lambda: bed.plan()["tunnels"], operator=operator)
    for node in ("n1", "n2", "n3"):
        bed.report(node)
    bed.wait_for("Ready", lambda: bed.condition("Ready").get("status") == "True", operator=operator)
    bed.remove_tunnel()
    bed.wait_for("a plan without it", lambda: not bed.plan()["tunnels"], operator=operator)
    bed.report("n1")
    bed.report("n2")
    time.sleep(1)
    assert bed.tunnel() is not None, "n3 still carries it"
    bed.report("n3")
    bed.wait_for("its end", lambda: bed.tunnel() is None, operator=operator)


def test_a_gradual_tunnel_goes_on_as_its_agents_report(bed: OperatorBed, operator: Operator) -> None:
    nodes = ("n1", "n2", "n3")
    bed.add_tunnel("pods", {})
    assert bed.follow_phases(*nodes, operator=operator, last="Establish") == ["Accept", "Establish"]
    assert bed.follow_phases(operator=operator, last="Protect")[-1] == "Protect"
    # -> a pair that does not come up
    (planned,) = bed.plan()["tunnels"]
    for node, peer in (("n1", "n2"), ("n2", "n1"), ("n3", "")):
        line = {"tunnel": planned["uid"], "generation": 1, "ready": not peer, "phase": "Protect"}
        unwell = [{"node": peer, "tunnel": "pods", "reason": "Unreachable", "message": "no answer"}] if peer else []
        bed.report(node, ready=not peer, tunnels=[line], unwell=unwell, unwellCount=len(unwell))

    def message() -> str:
        return bed.condition("Ready").get("message", "")

    bed.wait_for("its name", lambda: "waits for n1 and n2" in message(), operator=operator)
    assert bed.condition("Ready")["reason"] == "RollingOut"
    assert bed.condition("Degraded")["reason"] == "Unreachable"
    time.sleep(1)
    assert bed.plan()["tunnels"][0]["phase"] == "Protect"
    # -> it is up
    for node in nodes:
        bed.report(node)
    assert bed.follow_phases(*nodes, operator=operator, last="Block")[-2:] == ["Require", "Block"]
    bed.wait_for("Ready", lambda: bed.condition("Ready").get("status") == "True", operator=operator)
    assert (bed.tunnel() or {})["status"]["phase"] == "Block"
    bed.remove_tunnel()
    back = bed.follow_phases(*nodes, operator=operator, last="")
    assert back[-5:] == ["Require", "Protect", "Establish", "Accept", ""]
    bed.wait_for("its end", lambda: bed.tunnel() is None, operator=operator)


def test_the_startup_taint_goes_when_the_agent_follows_the_plan(bed: OperatorBed, operator: Operator) -> None:
    bed.add_node(6, tainted=True)
    bed.wait_for("n6", lambda: "n6" in bed.members(), operator=operator)

    def tainted() -> bool:
        taints = bed.get("/api/v1/nodes/n6")["spec"].get("taints", ())
        return STARTUP_TAINT in [taint["key"] for taint in taints]

    bed.report("n6", ready=False)
    time.sleep(1)
    assert tainted()
    bed.report("n6")
    bed.wait_for("an untainted node", lambda: not tainted(), operator=operator)
    assert TAINT_REMOVED in bed.get("/api/v1/nodes/n6")["metadata"]["annotations"]
    bed.remove_node(6)


def test_the_meshs_settings_reach_the_plan(bed: OperatorBed, operator: Operator) -> None:
    generation = bed.plan()["generation"]
    bed.change_mesh({"nonMembers": "Deny", "podNetworks": ["10.244.0.0/16"]})
    bed.wait_for("nonMembers", lambda: bed.plan()["nonMembers"] == "Deny", operator=operator)
    assert bed.plan()["podNetworks"] == ["10.244.0.0/16"]
    assert bed.plan()["generation"] == generation + 1
    bed.change_mesh({})
    bed.wait_for("the defaults", lambda: bed.plan()["nonMembers"] == "Allow", operator=operator)


def test_probes_are_answered_and_memory_is_modest(bed: OperatorBed, operator: Operator) -> None:
    assert bed.probe("/healthz") == 200
    assert bed.probe("/readyz") == 200
    assert operator.rss_mb() < MEMORY_MB
