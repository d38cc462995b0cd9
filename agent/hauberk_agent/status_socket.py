"""The local socket on which an agent answers what it believes, and the client side of it.

The protocol: connect, read one JSON object until the end. Root alone may connect.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

_WRITE_SECONDS: Final = 10.0
_READ_SECONDS: Final = 10.0


class StatusServer:
    def __init__(self, path: Path, status: Callable[[], dict[str, Any]]) -> None:
        self._path = path
        self._status = status
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Raises OSError. A socket that a killed agent left is replaced: the state directory's lock says that it is
        alone."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, self._path)
        finally:
            os.umask(before)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_WRITE_SECONDS):
                writer.write(json.dumps(self._status()).encode())
                await writer.drain()
        except (ConnectionError, TimeoutError):
            pass  # whoever asked has gone away
        finally:
            writer.close()


def ask(path: Path) -> dict[str, Any]:
    """What the agent that listens there believes. Raises OSError when none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_READ_SECONDS)
        client.connect(str(path))
        parts: list[bytes] = []
        while part := client.recv(1 << 16):
            parts.append(part)
    try:
        return cast("dict[str, Any]", json.loads(b"".join(parts)))
    except ValueError as error:
        raise ConnectionError("the agent ended while it answered") from error
