"""Answers the kubelet's probes: GET /healthz (alive) and /readyz (ready), and nothing else.

On the host network the port is bound to 127.0.0.1, so that only this node can ask. A standby is alive and ready: there
is nothing wrong with it. A leader is ready once it has seen the whole cluster, and not alive when a step hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from hauberk_operator.loop import Loop

STUCK_SECONDS: Final = 120.0
_REQUEST_SECONDS: Final = 2.0
_MAX_HEADERS: Final = 100


@dataclass(slots=True, kw_only=True)
class Health:
    """What the probes are told; filled in by operator.py."""

    leading: bool = False
    synced: bool = False
    loops: Sequence[Loop] = field(default=())

    def alive(self) -> str:
        """Why this process should be ended, or nothing."""
        stuck = max((loop.busy_seconds() for loop in self.loops), default=0.0)
        return f"a step has been running for {stuck:.0f} s" if stuck > STUCK_SECONDS else ""

    def ready(self) -> str:
        """Why this process is not ready, or nothing."""
        return "leading, but the cluster is not listed yet" if self.leading and not self.synced else self.alive()


async def serve(health: Health, *, host: str, port: int) -> None:
    """Serve for ever. Raises OSError when the port is taken."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                request = await reader.readline()
                for _ in range(_MAX_HEADERS):
                    if not (await reader.readline()).strip():
                        break
                writer.write(respond(request, health))
                await writer.drain()
        except (OSError, ValueError, TimeoutError):
            return  # an impatient or broken prober
        finally:
            writer.close()

    server = await asyncio.start_server(answer, host, port, limit=4096)
    async with server:
        await server.serve_forever()


def respond(request: bytes, health: Health) -> bytes:
    """The whole HTTP response to a request line."""
    match request.split()[:2]:
        case [b"GET", b"/healthz"]:
            problem = health.alive()
        case [b"GET", b"/readyz"]:
            problem = health.ready()
        case _:
            return _response("404 Not Found", "GET /healthz or /readyz")
    if problem:
        return _response("503 Service Unavailable", problem)
    return _response("200 OK", "leading" if health.leading else "standby")


def _response(status: str, text: str) -> bytes:
    body = f"{text}\n".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
