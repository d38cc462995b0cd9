"""The agent on a real API server, beside a real operator: identity, report, outages. No peers, and no ESP needed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from hauberk_api.kinds import API_VERSION, REPORTS
from hauberk_api.names import AGENT_SERVICE_ACCOUNT, node_identity
from tests.apiserver import ApiServer
from tests.integration.operator_bed import NAMESPACE, REQUESTS, Operator, OperatorBed

PATIENCE_SECONDS: Final = 60.0
T = TypeVar("T")


class AgentProcess:
    """A running agent of node n1, with its files in a directory of its own."""

    def __init__(self, server: ApiServer, kubeconfig: Path, directory: Path) -> None:
        self.directory = directory
        self._server = server
        self._kubeconfig = kubeconfig
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def start(self) -> None:
        self.directory.mkdir(exist_ok=True)
        command = self._command(
            "run", "--node-name=n1", f"--kubeconfig={self._kubeconfig}", "--health-port=9471",
            f"--state-dir={self.directory / 'state'}", f"--socket={self.directory / 'sock'}",
        )  # fmt: skip
        with (self.directory / "log").open("ab") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        try:
            return self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the agent does not end:\n{self.log}") from None

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def rss_mb(self) -> float:
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024 / 1e6

    def status(self) -> dict[str, Any]:
        """What `hauberk-agent status -o json` says; empty as long as nobody answers."""
        command = self._command("status", "-o", "json", f"--socket={self.directory / 'sock'}")
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def wait_for(self, what: str, look: Callable[[], T]) -> T:
        """The first true answer. Fails with the agent's log."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := look()):
            assert self.running(), f"the agent ended:\n{self.log}"
            assert time.monotonic() < deadline, f"no {what} after {PATIENCE_SECONDS:.0f} s:\n{self.log}"
            time.sleep(0.1)
        return found

    def _command(self, *arguments: str) -> list[str]:
        return self._server.command_inside(str(Path(sys.executable).parent / "hauberk-agent"), *arguments)


@pytest.fixture(scope="module")
def bed() -> Iterator[OperatorBed]:
    with ApiServer() as server:
        server.apply_crds()
        yield OperatorBed.anew(server, nodes=2)


@contextlib.contextmanager
def running_operator(bed: OperatorBed) -> Generator[Operator]:
    """An operator that leads. It does not outlive an API server's outage: it loses its Lease and ends."""
    with bed.operator() as operator:
        bed.wait_for("IPsecNodes", lambda: {"n1", "n2"} <= set(bed.members()), operator=operator)
        yield operator


@contextlib.contextmanager
def running_agent(bed: OperatorBed, directory: Path) -> Generator[AgentProcess]:
    """An agent as its pod would run it: with a token bound to that pod."""
    pod = bed.get(f"/api/v1/namespaces/{NAMESPACE}/pods/agent-n1")["metadata"]
    token = bed.server.token(AGENT_SERVICE_ACCOUNT, namespace=NAMESPACE, pod={"name": pod["name"], "uid": pod["uid"]})
    agent = AgentProcess(bed.server, bed.server.kubeconfig_for_token(token, "agent-n1"), directory)
    try:
        yield agent
    finally:
        if agent.running():
            agent.stop(signal.SIGKILL)


def report(bed: OperatorBed) -> dict[str, Any]:
    """The status of n1's IPsecReport; empty while there is none."""
    listed: list[dict[str, Any]] = bed.get(f"/apis/{API_VERSION}/{REPORTS}")["items"]
    found: dict[str, dict[str, Any]] = {item["metadata"]["name"]: item.get("status", {}) for item in listed}
    return found.get("n1", {})


def test_an_agent_gets_its_certificate_and_reports(bed: OperatorBed, tmp_path: Path) -> None:
    uid = bed.get("/api/v1/nodes/n1")["metadata"]["uid"]
    with running_operator(bed), running_agent(bed, tmp_path / "agent") as agent:
        agent.start()
        said = agent.wait_for("report of a certificate", lambda: report(bed) if report(bed).get("certificate") else {})
        assert said["nodeUID"] == uid
        assert len(said["bundle"]) == 1
        assert said["certificate"]["issuerFingerprint"] == said["bundle"][0]
        status = agent.status()
        assert status["identity"]["name"] == node_identity(uid)
        assert status["source"] == {"fromCache": False, "problem": None}
        state = agent.directory / "state"
        assert (state / "identity.pem").stat().st_mode & 0o777 == 0o600
        assert state.stat().st_mode & 0o777 == 0o700
        assert not (state / "pending-key.pem").exists()
        assert "PRIVATE" not in agent.log
        assert agent.rss_mb() <= 90

        # -> a tunnel: the plan and both memberships are followed
        bed.add_tunnel()
        agent.wait_for("the tunnel in the report", lambda: report(bed).get("tunnels"))
        assert report(bed)["planGeneration"] == bed.plan()["generation"]
        if report(bed)["kernel"]["esp"]:
            assert [peer["node"] for peer in agent.status()["peers"]] == ["n2"]
        else:
            assert report(bed)["reason"] == "UnsupportedKernel"
            assert report(bed)["ready"] is False
        bed.remove_tunnel()
        agent.wait_for("a report without the tunnel", lambda: not report(bed)["tunnels"])
        agent.wait_for("a clean kernel", lambda: report(bed)["stateLeft"] is False)

        serial = agent.status()["identity"]["serial"]
        assert agent.stop() == 0
        agent.start()
        agent.wait_for("the same certificate after a restart", lambda: agent.status().get("identity", {}).get("serial"))
        assert agent.status()["identity"]["serial"] == serial


def test_an_unreachable_api_server_is_waited_for_and_named(bed: OperatorBed, tmp_path: Path) -> None:
    with running_agent(bed, tmp_path / "agent") as agent:
        bed.server.stop_answering()
        try:
            agent.start()
            problem = agent.wait_for("a problem", lambda: agent.status().get("source", {}).get("problem"))
            assert "API server" in problem
            assert "can't be reached" in problem
            assert agent.running()
        finally:
            bed.server.answer_again()
        with running_operator(bed):
            agent.wait_for("a certificate", lambda: agent.status().get("identity", {}).get("serial"))
        assert agent.status()["source"]["problem"] is None

        # The second start without an API server goes on from the cache.
        agent.wait_for("the cache", (agent.directory / "state" / "desired.json").exists)
        assert agent.stop() == 0
        bed.server.stop_answering()
        try:
            agent.start()
            agent.wait_for("the cached plan", lambda: agent.status().get("plan"))
            status = agent.status()
            assert status["source"]["fromCache"] is True
            assert status["identity"]["serial"]
        finally:
            bed.server.answer_again()
        agent.wait_for("the live plan", lambda: agent.status()["source"] == {"fromCache": False, "problem": None})


def test_what_the_api_server_says_while_an_agent_watches_is_followed(bed: OperatorBed, tmp_path: Path) -> None:
    with running_operator(bed), running_agent(bed, tmp_path / "agent") as agent:
        agent.start()
        agent.wait_for("the plan", lambda: agent.status().get("plan"))
        pid = agent.status()["pid"]
        assert pid != os.getpid()
        bed.add_node(3)
        bed.add_tunnel("late")
        agent.wait_for("the tunnel", lambda: agent.status()["plan"]["tunnels"])
        agent.wait_for("the pod range of three nodes", lambda: "10.244.2.0/23" in agent.status()["podRange"])
        bed.remove_node(3)
        agent.wait_for("the pod range of two nodes", lambda: "10.244.2.0/24" in agent.status()["podRange"])
        bed.remove_tunnel("late")
        agent.wait_for("no tunnel", lambda: not agent.status()["plan"]["tunnels"])
        assert agent.status()["pid"] == pid


def test_no_agent_asks_for_anything_once_hauberk_is_removed(bed: OperatorBed, tmp_path: Path) -> None:
    """Last in this file: the mesh goes. A request that is made after that nobody settles, and nobody removes."""
    with running_operator(bed) as operator:
        bed.wait_for("a plan with roots", lambda: bed.plan().get("trustBundle"), operator=operator)
    with running_agent(bed, tmp_path / "agent") as agent:
        agent.start()
        agent.wait_for("a request", lambda: bed.get(REQUESTS)["items"])
        done = bed.uninstall(timeout=5)
        assert bed.left() == [], done.stdout + done.stderr
        time.sleep(6)  # longer than the first tries of an agent whose request has gone
        assert bed.left() == [], agent.log
