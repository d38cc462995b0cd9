"""The command line, the health port and the status socket, without an agent behind them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from hauberk_agent.cli import main
from hauberk_agent.health import HealthServer
from hauberk_agent.lock import AgentLock
from hauberk_agent.status import render
from hauberk_agent.status_socket import StatusServer, ask

DOCUMENT: dict[str, Any] = {
    "boot": {"cachedPlan": True, "guard": "Partial"},
    "clear": {"arriving": 12, "leaving": 34, "problem": "packets can't be counted"},
    "node": "n1", "version": "0.1.0", "pid": 7, "startedAt": "2026-01-01T00:00:00Z",
    "ready": False, "reason": "Unreachable", "message": "n2: no answer",
    "source": {"fromCache": True, "problem": "the API server can't be reached"},
    "plan": {"generation": 3, "tunnels": ["mesh (Block)"]},
    "identity": {"name": "uid-1.default.hauberk.internal", "serial": "a", "notAfter": "2026-01-02", "problem": None},
    "kernel": {"release": "7.3", "problems": [], "policies": 33, "states": 1},
    "problems": [], "reportProblem": None, "podRange": ["10.244.0.0/16"],
    "peers": [{
        "node": "n2", "tunnel": "mesh", "reqid": 1, "local": "10.250.0.1", "remote": "10.250.0.2", "well": False,
        "unwellSeconds": 12.5, "ike": None, "attempting": True, "lastError": "Unreachable: no answer",
        "children": [{"proposal": "", "out": None, "in": {
            "spi": "c0000001", "bytes": 100, "packets": 1, "since": "2026-01-01T00:00:00Z", "dropped": 0}}],
    }],
}  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "hauberk-agent run --node-name n1 --source-dir /etc/hauberk" in out


def test_run_wants_to_know_the_node(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAUBERK_NODE_NAME", raising=False)
    code, _, err = run(capsys, "run")
    assert code == 1
    assert err == "hauberk-agent: which node is this? Give --node-name NAME or set HAUBERK_NODE_NAME\n"


def test_status_without_an_agent_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "status", "--socket", str(tmp_path / "none"))
    assert code == 1
    assert "no agent answers" in err
    assert err.count("\n") == 1


def test_cleanup_refuses_while_an_agent_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lock = AgentLock(tmp_path)
    assert lock.acquire()
    try:
        code, _, err = run(capsys, "cleanup", "--state-dir", str(tmp_path))
    finally:
        lock.release()
    assert code == 1
    assert "--force" in err


def test_one_agent_a_node(tmp_path: Path) -> None:
    first, second = AgentLock(tmp_path), AgentLock(tmp_path)
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


def test_status_is_asked_over_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.sock"

    async def story() -> dict[str, Any]:
        server = StatusServer(path, lambda: DOCUMENT)
        await server.start()
        try:
            assert path.stat().st_mode & 0o777 == 0o600
            return await asyncio.to_thread(ask, path)
        finally:
            server.close()

    assert asyncio.run(story()) == DOCUMENT
    assert not path.exists()


def test_status_for_people_names_what_is_wrong() -> None:
    text = render(DOCUMENT)
    assert "n1: not ready: Unreachable (n2: no answer)" in text
    assert "generation 3, from the cache: mesh (Block)" in text
    assert "problem    the API server can't be reached" in text
    assert "NOT encrypted for 12.5 s" in text
    assert "boot       a cached plan; at this boot the boot guard could not load everything" in text
    assert "in clear   12 packets from and 34 to peers' pods" in text
    assert "problem    packets can't be counted" in text
    assert "spi c0000001, 100 bytes in 1 packets" in text


@pytest.mark.parametrize(
    ("request_line", "reason", "status"),
    [
        (b"GET /livez HTTP/1.1", "waiting", b"200"),
        (b"GET /readyz HTTP/1.1", None, b"200"),
        (b"GET /readyz HTTP/1.1", "waiting for the plan", b"503"),
        (b"GET /else HTTP/1.1", None, b"404"),
        (b"nonsense", None, b"404"),
    ],
)
def test_probes(request_line: bytes, reason: str | None, status: bytes) -> None:
    async def story() -> bytes:
        server = HealthServer(0, ready=lambda: reason)
        await server.start()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request_line + b"\r\nHost: x\r\n\r\n")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer
        finally:
            server.close()

    answer = asyncio.run(story())
    assert answer.split(b" ", 2)[1] == status
    if status == b"503":
        assert b"waiting for the plan" in answer
