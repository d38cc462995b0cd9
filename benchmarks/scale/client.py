"""Connections to the API server in its namespace, for very many small requests and for watches."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import aiohttp
from yarl import URL

from hauberk_agent.kube import KubeApi, KubeError
from tests.apiserver import ApiServer
from tests.lab.network import socket_inside

Json = dict[str, Any]

REQUEST_SECONDS: Final = 60.0
"""Longer than anything patient would wait: a machine that is busy is what is measured."""

MERGE_PATCH: Final = "application/merge-patch+json"
_LONGEST_EVENT_BYTES: Final = 1 << 21


class Client:
    """A pool of connections, as the admin or as whoever's token is given. An async context manager.

    Raises hauberk_agent.kube.KubeError for what the API server refuses, status 0 for what does not reach it.
    """

    def __init__(self, server: ApiServer, *, admin: bool, connections: int) -> None:
        self._url = server.url
        context = ssl.create_default_context(cafile=str(server.directory / "pki" / "ca.crt"))
        if admin:
            # A client certificate counts before a token: who speaks for others must have none.
            context.load_cert_chain(server.directory / "pki" / "admin.crt", server.directory / "pki" / "admin.key")
        self._context = context
        self._connections = connections
        self._namespace = server.netns
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        connector = aiohttp.TCPConnector(
            limit=self._connections, ssl=self._context, socket_factory=self._socket, keepalive_timeout=15
        )
        self._session = aiohttp.ClientSession(connector=connector, read_bufsize=_LONGEST_EVENT_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    def _socket(self, address: tuple[Any, ...]) -> socket.socket:
        made = socket_inside(self._namespace, address[0], socket.SOCK_STREAM)
        made.setblocking(False)
        return made

    async def request(
        self, method: str, path: str, body: Json | None = None, *, content_type: str = "", token: str = ""
    ) -> Json:
        """One request; the answer's JSON."""
        assert self._session is not None
        headers = {"Accept": "application/json", **_bearer(token)}
        if body is not None:
            headers["Content-Type"] = content_type or "application/json"
        try:
            async with self._session.request(
                method,
                URL(self._url + path, encoded=True),
                data=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            ) as response:
                data = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeError(f"{method} {path}: {str(error) or type(error).__name__}") from error
        answer: Json = json.loads(data) if data[:1] == b"{" else {}
        if response.status >= 300:
            raise KubeError(f"{method} {path}: {answer.get('message') or response.reason}", response.status)
        return answer

    async def lines(self, path: str, *, token: str) -> AsyncIterator[bytes]:
        """The events of a watch as they come over the wire, until the server ends it."""
        assert self._session is not None
        async with self._session.get(
            URL(self._url + path, encoded=True),
            headers=_bearer(token),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=None),
        ) as response:
            if response.status >= 300:
                raise KubeError(f"GET {path}: {response.reason}", response.status)
            while line := await response.content.readline():
                yield line


class AgentApi(KubeApi):
    """One agent's requests, over connections that many agents share; each request bears its own agent's token."""

    def __init__(self, client: Client, token: Callable[[], Awaitable[str]], *, settle: Client | None = None) -> None:
        """token: gets it, at the first request. settle: the admin's, who speaks for the agent until `join`."""
        self._client = client
        self._token = token
        self._settle = settle
        self._known = ""
        self._asking = asyncio.Lock()

    def join(self) -> None:
        """Speak for itself from now on."""
        self._settle = None

    async def request(self, method: str, path: str, body: Json | None = None, content_type: str = "") -> Json:
        if self._settle is not None:
            return await self._settle.request(method, path, body, content_type=content_type)
        async with self._asking:
            token = self._known = self._known or await self._token()
        return await self._client.request(method, path, body, content_type=content_type, token=token)

    async def watch(self, path: str, seconds: float) -> AsyncIterator[Json]:
        if self._settle is not None:
            async for line in self._settle.lines(path, token=""):
                yield json.loads(line)


def _bearer(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}
