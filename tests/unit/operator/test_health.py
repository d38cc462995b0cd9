"""What the kubelet's probes are told."""

from __future__ import annotations

import asyncio
import time

import pytest

from hauberk_operator.health import STUCK_SECONDS, Health, respond, serve
from hauberk_operator.loop import Loop


class StuckLoop(Loop):
    """A loop whose step hangs."""

    def busy_seconds(self) -> float:
        return STUCK_SECONDS + 1


async def _step() -> float | None:
    return None


FINE = Loop("fine", _step, clock=time.monotonic)
STUCK = StuckLoop("stuck", _step, clock=time.monotonic)


@pytest.mark.parametrize(
    ("health", "alive", "ready", "text"),
    [
        (Health(), 200, 200, "standby"),
        (Health(leading=True), 200, 503, "leading"),
        (Health(leading=True, synced=True, loops=[FINE]), 200, 200, "leading"),
        (Health(leading=True, synced=True, loops=[FINE, STUCK]), 503, 503, "a step has been running for 121 s"),
    ],
)
def test_standby_leader_and_stuck_leader(health: Health, alive: int, ready: int, text: str) -> None:
    answer = respond(b"GET /healthz HTTP/1.1\r\n", health).decode()
    assert int(answer.split()[1]) == alive
    assert answer.endswith(f"\r\n\r\n{text}\n")
    assert int(respond(b"GET /readyz HTTP/1.1\r\n", health).split()[1]) == ready


@pytest.mark.parametrize(
    "request_line", [b"", b"\n", b"POST /healthz HTTP/1.1", b"GET /", b"GET /metrics", b"\xff\xfe"]
)
def test_anything_else_is_not_found(request_line: bytes) -> None:
    assert respond(request_line, Health()).startswith(b"HTTP/1.1 404 ")


def test_it_answers_over_tcp_and_survives_bad_clients() -> None:
    async def ask(port: int, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    async def story() -> list[bytes]:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        serving = asyncio.create_task(serve(Health(), host="127.0.0.1", port=port))
        await asyncio.sleep(0.05)
        answers = [
            await ask(port, b"x" * 10_000),
            await ask(port, b""),
            await ask(port, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"),
        ]
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return answers

    assert asyncio.run(story())[-1].startswith(b"HTTP/1.1 200 OK")
