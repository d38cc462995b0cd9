"""The kubelet's probes, answered on the loopback address. They ask this agent about itself, and nobody else.

`/livez` answers as long as the loop turns; `/readyz` once the agent does what the mesh wants of this node, whether or
not its peers do theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_REQUEST_SECONDS: Final = 5.0
_REQUEST_LIMIT: Final = 8192


class HealthServer:
    """HTTP, as much of it as a probe needs. `ready` returns None, or why not."""

    def __init__(self, port: int, *, ready: Callable[[], str | None]) -> None:
        self._port = port
        self._ready = ready
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=_REQUEST_LIMIT)

    @property
    def port(self) -> int:
        """The port in use; interesting where 0 was asked for."""
        return self._server.sockets[0].getsockname()[1] if self._server is not None else self._port

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1] if head.count(b" ") >= 2 else b""
                writer.write(self._answer(path))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, TimeoutError):
            pass  # whoever asked has gone away, or it was no request
        finally:
            writer.close()

    def _answer(self, path: bytes) -> bytes:
        match path:
            case b"/livez":
                status, text = "200 OK", "ok"
            case b"/readyz":
                reason = self._ready()
                status, text = ("200 OK", "ok") if reason is None else ("503 Service Unavailable", reason)
            case _:
                status, text = "404 Not Found", "there are /livez and /readyz"
        body = text.encode() + b"\n"
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        return head.encode() + b"\r\n" + body
