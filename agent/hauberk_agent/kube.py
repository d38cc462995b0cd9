"""The Kubernetes API: the agent's source, signer and reporter in a cluster. The only module that talks to it.

Objects are read as JSON and parsed by hauberk_api. In a pod the generated client is not even imported: it costs 12 MB
on every node, for requests that are few and plain. It reads the kubeconfig where one is given.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Final, cast
from urllib.parse import quote, urlencode

import aiohttp
from pydantic import ValidationError
from yarl import URL

from hauberk_agent.clock import ClockWatch
from hauberk_agent.desired import Desired
from hauberk_agent.source import SigningDenied
from hauberk_api.certificate import CSR_USAGES
from hauberk_api.kinds import API_VERSION, GROUP, MESH_NAME, MESHES, NODES, REPORT_KIND, REPORTS, VERSION
from hauberk_api.names import SIGNER, NodeName
from hauberk_api.node import NodeSpec
from hauberk_api.plan import Plan
from hauberk_api.report import ReportStatus

_log = logging.getLogger("hauberk.kube")

_Object = dict[str, Any]
_GROUP_PATH: Final = f"/apis/{GROUP}/{VERSION}"
_CSR_PATH: Final = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_CONNECT_SECONDS: Final = 5.0
_REQUEST_SECONDS: Final = 20.0
_WATCH_SECONDS: Final = 300
_WATCH_GRACE_SECONDS: Final = 15.0
"""A watch that the server has not ended by then is not waited for. Silence within means nothing: an API server sends
bookmarks only where something moves."""
_LONGEST_EVENT_BYTES: Final = 1 << 21
"""Of an object in a watch; larger than what etcd takes."""
_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
"""So a server that is gone without a word is noticed within half a minute, also by a watch that is silent."""
_COALESCE_SECONDS: Final = 0.02
_SAY_EVERY_SECONDS: Final = 30.0
_LONGEST_BACKOFF_SECONDS: Final = 10.0


class KubeError(OSError):
    """The API server can't be reached, or refused; the message says which and what."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.status = status

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How the API server is reached. `token` is called for every request: tokens are replaced while we run."""

    host: str
    ssl: ssl.SSLContext
    token: Callable[[], Awaitable[str | None]]
    """The Authorization header's value."""


async def load_access(*, api_server: str | None, kubeconfig: Path | None) -> Access:
    """From a kubeconfig if given, else from the pod's service account; api_server overrides the address.

    Raises KubeError that says what is missing.
    """
    access = await _from_kubeconfig(kubeconfig) if kubeconfig is not None else in_cluster()
    return access if api_server is None else replace(access, host=api_server.rstrip("/"))


def in_cluster(directory: Path = _SERVICE_ACCOUNT, environment: Mapping[str, str] = os.environ) -> Access:
    """As a pod's service account. Raises KubeError outside a pod."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise KubeError(
            "this is no pod (KUBERNETES_SERVICE_HOST is not set): give --kubeconfig FILE, or --source-dir DIR"
        )
    token = directory / "token"

    async def bearer() -> str:
        # A few hundred bytes, a few times an hour; kubelet replaces the file long before the token expires.
        return f"Bearer {token.read_text().strip()}"

    try:
        context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
        token.read_text()
    except OSError as error:
        raise KubeError(f"the pod's service account in {directory} can't be used: {error}") from error
    return Access(host=f"https://{f'[{host}]' if ':' in host else host}:{port}", ssl=context, token=bearer)


async def _from_kubeconfig(path: Path) -> Access:
    from kubernetes.aio.client import Configuration
    from kubernetes.aio.config import (
        ConfigException,
        load_kube_config,  # pyright: ignore[reportUnknownVariableType]
    )

    configuration: Any = Configuration()
    try:
        await load_kube_config(config_file=str(path), client_configuration=configuration)
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    except (ConfigException, OSError) as error:
        raise KubeError(f"kubeconfig {path}: {error}") from error
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE

    async def token() -> str | None:
        return cast("str | None", await configuration.get_api_key_with_prefix("BearerToken"))

    return Access(host=str(configuration.host).rstrip("/"), ssl=context, token=token)


def _kept_alive(address: tuple[Any, ...]) -> socket.socket:
    """A socket for one of getaddrinfo's answers."""
    sock = socket.socket(*address[:3])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    return sock


class KubeApi:
    """Requests to the API server. Raises KubeError, whose status is 0 when there was no answer."""

    def __init__(self, access: Access, clock: ClockWatch | None = None) -> None:
        """clock: hears the dates of the answers."""
        self._access = access
        self._clock = clock
        connector = aiohttp.TCPConnector(limit=16, ssl=access.ssl, socket_factory=_kept_alive)
        self._session = aiohttp.ClientSession(connector=connector, trust_env=True, read_bufsize=_LONGEST_EVENT_BYTES)

    async def close(self) -> None:
        await self._session.close()

    async def request(self, method: str, path: str, body: _Object | None = None, content_type: str = "") -> _Object:
        """One request; the answer's JSON."""
        response = await self._send(method, path, body, content_type, _REQUEST_SECONDS, _REQUEST_SECONDS)
        try:
            data = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error
        parsed: object = json.loads(data) if data[:1] == b"{" else {}
        document = cast("_Object", parsed)
        if response.status >= 300:
            message = document.get("message") or response.reason or "refused"
            raise KubeError(f"API server: {message}", response.status)
        return document

    async def watch(self, path: str, seconds: float) -> AsyncIterator[_Object]:
        """The events of a watch, until the server ends it or the time is over."""
        response = await self._send("GET", path, None, "", None, seconds)
        try:
            if response.status >= 300:
                raise KubeError(f"API server: {response.reason}", response.status)
            while True:
                line = await response.content.readline()
                if not line:
                    return
                yield cast("_Object", json.loads(line))
        except aiohttp.SocketTimeoutError:
            return
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise self._unreachable(error) from error
        finally:
            response.close()

    async def _send(
        self,
        method: str,
        path: str,
        body: _Object | None,
        content_type: str,
        total_seconds: float | None,
        read_seconds: float,
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": "application/json", "User-Agent": "hauberk-agent"}
        timeout = aiohttp.ClientTimeout(total=total_seconds, sock_connect=_CONNECT_SECONDS, sock_read=read_seconds)
        data = None
        if body is not None:
            headers["Content-Type"] = content_type or "application/json"
            data = json.dumps(body).encode()
        try:
            token = await self._access.token()
            if token is not None:
                headers["Authorization"] = token
            # The path is ready for the wire: yarl must not decode and encode it anew.
            url = URL(self._access.host + path, encoded=True)
            asked = datetime.now(UTC)
            response = await self._session.request(method, url, headers=headers, data=data, timeout=timeout)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        if self._clock is not None:
            self._clock.hear(response.headers.get("Date"), asked=asked, answered=datetime.now(UTC))
        return response

    def _unreachable(self, error: Exception) -> KubeError:
        return KubeError(f"the API server {self._access.host} can't be reached: {str(error) or type(error).__name__}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One collection to follow, and what to do with its objects."""

    path: str
    selector: str
    put: Callable[[str, _Object], None]
    drop: Callable[[str], None]
    clear: Callable[[set[str]], None]


class KubeSource:
    """Implements hauberk_agent.source.Source: follows the IPsecMesh and the IPsecNodes."""

    def __init__(self, api: KubeApi, own_name: NodeName, *, chance: Random) -> None:
        self._api = api
        self._own_name = own_name
        self._chance = chance
        self._plan: Plan | None = None
        self._nodes: dict[NodeName, NodeSpec] = {}
        self._synced: set[str] = set()
        self._problems: dict[str, str] = {}
        self._changed = asyncio.Event()

    @property
    def problem(self) -> str | None:
        return next(iter(self._problems.values()), None)

    async def run(self) -> None:
        """Follows both collections for ever."""
        meshes = _Kind(
            path=f"{_GROUP_PATH}/{MESHES}",
            selector=f"metadata.name={MESH_NAME}",
            put=self._put_mesh,
            drop=self._drop_mesh,
            clear=self._keep_meshes,
        )
        nodes = _Kind(
            path=f"{_GROUP_PATH}/{NODES}",
            selector="",
            put=self._put_node,
            drop=self._drop_node,
            clear=self._keep_nodes,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(meshes))
            group.create_task(self._follow(nodes))

    async def snapshots(self) -> AsyncIterator[Desired]:
        while True:
            await self._changed.wait()
            await asyncio.sleep(_COALESCE_SECONDS)
            self._changed.clear()
            if len(self._synced) == 2:
                yield Desired(own_name=self._own_name, plan=self._plan, nodes=dict(self._nodes))

    async def _follow(self, kind: _Kind) -> None:
        """List, then watch from there, for ever; what fails is tried again, ever later, and said so."""
        failures = 0
        said_at = float("-inf")
        version: str | None = None
        loop = asyncio.get_running_loop()
        while True:
            try:
                if version is None:
                    version = await self._list(kind)
                    failures = 0
                if kind.path in self._problems:
                    del self._problems[kind.path]
                    _log.info("following %s again", kind.path)
                async for seen in self._watch(kind, version):
                    version = seen
                    failures = 0
                continue
            except KubeError as error:
                if error.status == 410:
                    version = None
                    continue
                if error.status:
                    version = None
                failures += 1
                self._problems[kind.path] = str(error)
                if loop.time() >= said_at + _SAY_EVERY_SECONDS:
                    said_at = loop.time()
                    _log.warning("%s; going on with what is known, and trying again", error)
            longest = min(0.5 * 2 ** min(failures - 1, 10), _LONGEST_BACKOFF_SECONDS)
            await asyncio.sleep(longest * self._chance.uniform(0.5, 1.0))

    async def _list(self, kind: _Kind) -> str:
        """Takes over the whole collection from the API server's cache; returns its resourceVersion."""
        query = {"resourceVersion": "0"}
        if kind.selector:
            query["fieldSelector"] = kind.selector
        listed = await self._api.request("GET", f"{kind.path}?{urlencode(query)}")
        names: set[str] = set()
        for item in cast("list[_Object]", listed.get("items") or []):
            name = str(item["metadata"]["name"])
            names.add(name)
            self._put(kind, name, item)
        kind.clear(names)
        self._synced.add(kind.path)
        self._changed.set()
        return str(listed["metadata"]["resourceVersion"])

    async def _watch(self, kind: _Kind, version: str) -> AsyncIterator[str]:
        """One watch; yields the resourceVersion after each event. Raises KubeError, with 410 when it is too old."""
        seconds = int(_WATCH_SECONDS * self._chance.uniform(0.8, 1.2))
        query = {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version, "timeoutSeconds": seconds}
        if kind.selector:
            query["fieldSelector"] = kind.selector
        async for event in self._api.watch(f"{kind.path}?{urlencode(query)}", seconds + _WATCH_GRACE_SECONDS):
            item = cast("_Object", event["object"])
            if event["type"] == "ERROR":
                raise KubeError(f"watching: {item.get('message')}", int(item.get("code") or 500))
            metadata = cast("_Object", item["metadata"])
            if event["type"] == "DELETED":
                kind.drop(str(metadata["name"]))
                self._changed.set()
            elif event["type"] in ("ADDED", "MODIFIED"):
                self._put(kind, str(metadata["name"]), item)
                self._changed.set()
            yield str(metadata["resourceVersion"])

    def _put(self, kind: _Kind, name: str, item: _Object) -> None:
        try:
            kind.put(name, item)
        except (ValidationError, KeyError, TypeError) as error:
            _log.warning("%s/%s can't be understood, keeping what was known of it: %s", kind.path, name, error)

    def _put_mesh(self, name: str, item: _Object) -> None:
        plan = cast("_Object", item.get("status") or {}).get("plan")
        if name == MESH_NAME and plan is not None:
            self._plan = Plan.from_object(plan)

    def _drop_mesh(self, name: str) -> None:
        if name == MESH_NAME:
            self._plan = None

    def _keep_meshes(self, names: set[str]) -> None:
        if MESH_NAME not in names:
            self._plan = None

    def _put_node(self, name: str, item: _Object) -> None:
        self._nodes[NodeName(name)] = NodeSpec.from_object(item["spec"])

    def _drop_node(self, name: str) -> None:
        self._nodes.pop(NodeName(name), None)

    def _keep_nodes(self, names: set[str]) -> None:
        for name in [name for name in self._nodes if name not in names]:
            del self._nodes[name]


class KubeSigner:
    """Implements hauberk_agent.source.Signer by CertificateSigningRequests."""

    def __init__(self, api: KubeApi, *, chance: Random) -> None:
        self._api = api
        self._chance = chance

    async def sign(self, *, name: str, request: bytes) -> bytes:
        await self._create(name, request)
        wait = 0.1
        while True:
            try:
                found = await self._api.request("GET", f"{_CSR_PATH}/{quote(name)}")
            except KubeError as error:
                if error.status != 404:
                    raise
                # Cleaned up by the controller manager before anybody signed it.
                await self._create(name, request)
                found = {}
            status = cast("_Object", found.get("status") or {})
            for condition in cast("list[_Object]", status.get("conditions") or []):
                if condition.get("type") in ("Denied", "Failed"):
                    raise SigningDenied(str(condition.get("message") or condition.get("reason")))
            certificate = status.get("certificate")
            if certificate:
                return base64.b64decode(certificate)
            await asyncio.sleep(wait * self._chance.uniform(0.8, 1.2))
            wait = min(wait * 1.2, 5.0)

    async def _create(self, name: str, request: bytes) -> None:
        body: _Object = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {
                "request": base64.b64encode(request).decode(),
                "signerName": SIGNER,
                "usages": list(CSR_USAGES),
            },
        }
        try:
            await self._api.request("POST", _CSR_PATH, body)
        except KubeError as error:
            if error.status != 409:
                raise


class KubeReporter:
    """Implements hauberk_agent.source.Reporter: the IPsecReport named after the node."""

    def __init__(self, api: KubeApi, own_name: NodeName) -> None:
        self._api = api
        self._own_name = own_name

    async def write(self, status: ReportStatus) -> None:
        path = f"{_GROUP_PATH}/{REPORTS}"
        try:
            await self._patch(path, status)
        except KubeError as error:
            if error.status != 404:
                raise
            body: _Object = {
                "apiVersion": API_VERSION,
                "kind": REPORT_KIND,
                "metadata": {"name": self._own_name},
            }
            await self._api.request("POST", path, body)
            await self._patch(path, status)

    async def read(self, node: NodeName) -> ReportStatus | None:
        # From the API server's cache: what matters was written a minute ago.
        path = f"{_GROUP_PATH}/{REPORTS}/{quote(node)}?resourceVersion=0"
        try:
            found = await self._api.request("GET", path)
            return ReportStatus.from_object(found.get("status") or {})
        except KubeError as error:
            if error.status == 404:
                return None
            raise
        except ValidationError:
            return None

    async def _patch(self, path: str, status: ReportStatus) -> None:
        # Fields that are None are sent as null: a merge patch removes them.
        content = status.model_dump(mode="json", by_alias=True)
        await self._api.request(
            "PATCH", f"{path}/{quote(self._own_name)}/status", {"status": content}, "application/merge-patch+json"
        )
