"""Operators come and go: hand-over, restart, an API server that is not there, and the end of it all."""

from __future__ import annotations

import signal
import time

import pytest

from hauberk_api.names import FINALIZER
from tests.apiserver import ApiServer
from tests.integration.operator_bed import NAMESPACE, OperatorBed

SECRET = f"/api/v1/namespaces/{NAMESPACE}/secrets/hauberk-ca"
TAKE_OVER_SECONDS = 20.0
"""The Lease's duration, two looks at it, and a slow machine."""


@pytest.fixture
def bed(apiserver: ApiServer) -> OperatorBed:
    """Two nodes on an API server that has nothing else of ours."""
    return OperatorBed.anew(apiserver, nodes=2)


def test_a_rollout_survives_its_operator(bed: OperatorBed) -> None:
    with bed.operator("first") as first:
        bed.wait_for("a plan", lambda: bed.plan()["generation"], operator=first)
        bed.add_tunnel("pods", {})
        assert bed.follow_phases("n1", "n2", operator=first, last="Protect") == ["Accept", "Establish", "Protect"]
        first.stop(signal_number=signal.SIGKILL)
        plan = bed.plan()
    with bed.operator("second", port=9653) as second:
        assert bed.follow_phases("n1", "n2", operator=second, last="Block")[-2:] == ["Require", "Block"]
        assert bed.plan()["generation"] > plan["generation"]
        bed.remove_tunnel()
        assert bed.follow_phases("n1", operator=second, last="Require")[-1] == "Require", "n2 has not followed"
        time.sleep(1)
        assert bed.plan()["tunnels"][0]["phase"] == "Require"
        second.stop(signal_number=signal.SIGKILL)
    with bed.operator("third", port=9654) as third:
        back = bed.follow_phases("n1", "n2", operator=third, last="")
        assert [phase for phase in back if phase != "Require"] == ["Protect", "Establish", "Accept", ""]
        bed.wait_for("its end", lambda: bed.tunnel() is None, operator=third)


def test_one_leads_and_hands_over(bed: OperatorBed) -> None:
    with bed.operator("first") as first, bed.operator("second", port=9653) as second:
        bed.wait_for("a plan", lambda: bed.leader() and bed.plan()["generation"])
        leading, standing = (first, second) if bed.leader() == "first" else (second, first)
        other = {"first": "second", "second": "first"}[bed.leader()]
        standby_port = 9653 if standing is second else 9652
        bed.wait_for("a standby's answer", lambda: bed.probe("/readyz", port=standby_port) == 200)
        bed.wait_for("a standby's word", lambda: "standing by" in standing.log, operator=standing)
        assert standing.rss_mb() < leading.rss_mb(), "a standby has not loaded what only a leader needs"
        bed.add_tunnel()
        bed.wait_for("a plan", lambda: bed.plan()["tunnels"])
        plan, authority = bed.plan(), bed.get(SECRET)["data"]

        # an orderly stop: the Lease is given up, the other leads at once
        began = time.monotonic()
        assert leading.stop() == 0
        bed.wait_for("the other's lead", lambda: bed.leader() == other, operator=standing)
        assert time.monotonic() - began < TAKE_OVER_SECONDS / 2
        assert "stopped as asked" in leading.log
        bed.add_node(3)
        bed.wait_for("n3", lambda: "n3" in bed.members(), operator=standing)
        assert bed.plan() == plan
        assert bed.get(SECRET)["data"] == authority

        # a crash: the Lease runs out, then another leads
        with bed.operator("third", port=9654) as third:
            bed.wait_for("a standby", lambda: "standing by" in third.log, operator=third)
            began = time.monotonic()
            standing.stop(signal_number=signal.SIGKILL)
            bed.wait_for("the third's lead", lambda: bed.leader() == "third", operator=third)
            assert time.monotonic() - began < TAKE_OVER_SECONDS


def test_a_leader_that_was_asleep_stops_when_it_wakes(bed: OperatorBed) -> None:
    with bed.operator("sleeper") as sleeper:
        bed.wait_for("a plan", lambda: bed.plan()["generation"], operator=sleeper)
        with bed.operator("successor", port=9653) as successor:
            resume = sleeper.pause()
            assert bed.probe("/healthz") == 0, "nobody answers for a process that hangs"
            try:
                bed.wait_for("the successor's lead", lambda: bed.leader() == "successor", operator=successor)
            finally:
                resume()
            assert sleeper.wait() == 1
            assert "stopped leading" in sleeper.log
            assert bed.leader() == "successor"


def test_a_restart_changes_nothing(bed: OperatorBed) -> None:
    with bed.operator() as operator:
        bed.wait_for("a plan", lambda: bed.plan()["generation"], operator=operator)
        bed.add_tunnel()
        bed.wait_for("a status", lambda: bed.condition("Ready"), operator=operator)
        time.sleep(1)
        operator.stop()
    before = bed.audit_length()
    with bed.operator() as operator:
        bed.wait_for("its lead", lambda: "leading: 2 nodes, 1 tunnels" in operator.log, operator=operator)
        time.sleep(3)
        assert bed.operator_writes(before) == []


def test_it_waits_for_an_api_server_that_is_not_there_yet(bed: OperatorBed) -> None:
    bed.server.stop_answering()
    with bed.operator() as operator:
        bed.wait_for("its complaint", lambda: "will go on trying" in operator.log, operator=operator)
        assert bed.probe("/healthz") == 200
        bed.server.answer_again()
        bed.wait_for("a plan", lambda: bed.plan()["generation"], operator=operator)


def test_it_waits_for_the_crds() -> None:
    with ApiServer() as server:
        bed = OperatorBed(server)
        bed.prepare()
        with bed.operator() as operator:
            bed.wait_for("its complaint", lambda: "does not serve" in operator.log, operator=operator)
            server.apply_crds()
            bed.wait_for("a plan", lambda: bed.plan()["generation"], operator=operator)


def test_a_ca_secret_of_another_form_is_not_overwritten(bed: OperatorBed) -> None:
    bed.server.kubectl("create", "secret", "generic", "hauberk-ca", f"--namespace={NAMESPACE}", "--from-literal=a=b")
    with bed.operator() as operator:
        assert operator.wait() == 1
        assert "hauberk-ca is not a CA that can be used" in operator.log
        assert "Traceback" not in operator.log
    assert "a" in bed.get(SECRET)["data"]


def test_uninstalling_waits_for_the_nodes_and_leaves_nothing(bed: OperatorBed) -> None:
    with bed.operator() as operator:
        bed.wait_for("a plan", lambda: bed.plan()["generation"], operator=operator)
        bed.add_tunnel()
        bed.wait_for("the tunnel's plan", lambda: bed.plan()["tunnels"], operator=operator)
        bed.report("n1")
        bed.report("n2")
        bed.ask("csr", node="n1")
        bed.wait_for("a certificate", lambda: bed.outcome("csr").get("certificate"), operator=operator)

        # n2 never says that it is clean
        bed.report("n1", tunnels=[], stateLeft=False)
        done = bed.uninstall(timeout=3)
        assert done.returncode == 1
        assert "deleted IPsecTunnel pods" in done.stdout
        assert "not waiting any longer for" in done.stdout
        assert "n2" in done.stdout
        assert operator.wait() == 1, "it lost the Lease"
    assert bed.left() == []

    # Installed anew: this time both do.
    bed.server.kubectl("delete", "lease", "hauberk-operator", f"--namespace={NAMESPACE}")
    with bed.operator("again") as operator:
        bed.wait_for("a plan", lambda: bed.plan()["generation"], operator=operator)
        bed.add_tunnel()
        bed.wait_for("the tunnel's plan", lambda: bed.plan()["tunnels"], operator=operator)
        bed.report("n1", tunnels=[], stateLeft=False)
        done = bed.uninstall(timeout=30)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[-1] == "Hauberk is removed"
    assert bed.left() == []


def test_uninstalling_without_an_operator_lets_go_of_the_tunnels(bed: OperatorBed) -> None:
    with bed.operator() as operator:
        bed.wait_for("a plan", lambda: bed.plan()["generation"], operator=operator)
        bed.add_tunnel()
        bed.wait_for("a held tunnel", lambda: (bed.tunnel() or {})["metadata"].get("finalizers") == [FINALIZER])
        operator.stop(signal_number=signal.SIGKILL)
    done = bed.uninstall(timeout=1)
    assert done.returncode == 1, "nobody has told the agents"
    assert "let go of IPsecTunnel pods" in done.stdout
    assert bed.left() == []
