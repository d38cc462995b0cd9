"""The API server, as the operator uses it: JSON in, JSON out, one error type. The only module that imports kubernetes.

Plain JSON rather than the client's models: the operator reads few fields of large objects, and its facts are its own
models. Everything here raises KubeError and nothing else for what the API server or the network does.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException, incluster_config, kube_config

from hauberk_api.kinds import GROUP
from hauberk_operator.facts import Json
from hauberk_operator.faults import FaultPoint
from hauberk_operator.recorder import EventRecorder, Repeat
from hauberk_operator.writes import EVENT, Resource, Verb, Write

PAGE: Final = 250
"""Objects per page of a listing: what bounds the memory that a listing of 5,000 Nodes takes."""

REQUEST_SECONDS: Final = 10.0
WATCH_SECONDS: Final = 300
"""How long the API server is asked to hold a watch open."""
_JSON_PATCH: Final = "application/json-patch+json"


class KubeError(Exception):
    """The API server refused, or was not reached (status 0). The message is its own, or the network's."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def conflict(self) -> bool:
        """Somebody else was faster: the object exists, or has changed."""
        return self.status == 409

    @property
    def unreachable(self) -> bool:
        return self.status == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where the API server is. With neither field set: the pod's service account and environment."""

    kubeconfig: Path | None = None
    api_server: str | None = None
    """Overrides the address alone; CA and credentials stay as they are."""


class Kube:
    """One connection pool to one API server, with credentials that are read anew as they rotate."""

    def __init__(self, configuration: client.Configuration, *, identity: str, fault: FaultPoint | None = None) -> None:
        self._identity = identity
        self._fault = fault
        self._configuration = configuration
        self._events = EventRecorder(time.monotonic)
        self._client: Any = client.ApiClient(configuration)  # which has no types that say anything
        self._client.user_agent = "hauberk-operator"

    @classmethod
    async def connect(cls, access: Access, *, identity: str, fault: FaultPoint | None = None) -> Kube:
        """Read the credentials; nothing is sent yet. Raises KubeError if there are none.

        identity is this process's name in the Events that it writes; fault is for tests.
        """
        configuration = client.Configuration()
        incluster: Any = incluster_config
        outside: Any = kube_config
        try:
            if access.kubeconfig is not None:
                await outside.load_kube_config(config_file=str(access.kubeconfig), client_configuration=configuration)
            else:
                incluster.load_incluster_config(client_configuration=configuration)
        except (ConfigException, OSError) as error:
            where = f"the kubeconfig {access.kubeconfig}" if access.kubeconfig else "the pod's service account"
            raise KubeError(0, "NoCredentials", f"no API server found in {where}: {error}") from error
        if access.api_server is not None:
            _pin_host(configuration, access.api_server.rstrip("/"))
        # client-go does not ask for RFC 5280's strictness either, and clusters' CAs do not all have it.
        configuration.disable_strict_ssl_verification = True
        return cls(configuration, identity=identity, fault=fault)

    @property
    def server(self) -> str:
        return self._configuration.host

    async def close(self) -> None:
        await self._client.close()

    async def get(self, resource: Resource, name: str, *, namespace: str = "") -> Json:
        return await self._call("GET", resource.path(name, namespace=namespace))

    async def find(self, resource: Resource, name: str, *, namespace: str = "") -> Json | None:
        """The object, or None if there is none."""
        try:
            return await self.get(resource, name, namespace=namespace)
        except KubeError as error:
            if error.not_found:
                return None
            raise

    async def pages(
        self, resource: Resource, *, namespace: str = "", field_selector: str = ""
    ) -> AsyncIterator[tuple[Sequence[Json], int]]:
        """All objects of a kind, a page at a time, each with the listing's resource version."""
        token = ""
        while True:
            query: dict[str, str | int] = {"limit": PAGE}
            if token:
                query["continue"] = token
            if field_selector:
                query["fieldSelector"] = field_selector
            page = await self._call("GET", resource.path(namespace=namespace), query=query)
            metadata = page.get("metadata", {})
            yield page.get("items") or (), int(metadata.get("resourceVersion") or 0)
            token = metadata.get("continue") or ""
            if not token:
                return

    async def list(self, resource: Resource, *, field_selector: str = "") -> list[Json]:
        """All objects of a cluster-scoped kind that is small."""
        return [obj async for page, _ in self.pages(resource, field_selector=field_selector) for obj in page]

    async def create(self, resource: Resource, body: Mapping[str, Any], *, namespace: str = "") -> Json:
        return await self._call("POST", resource.path(namespace=namespace), body=body)

    async def replace(
        self, resource: Resource, name: str, body: Mapping[str, Any], *, namespace: str = "", subresource: str = ""
    ) -> Json:
        path = resource.path(name, namespace=namespace, subresource=subresource)
        return await self._call("PUT", path, body=body)

    async def patch(
        self,
        resource: Resource,
        name: str,
        operations: Sequence[Json],
        *,
        namespace: str = "",
        subresource: str = "",
    ) -> Json:
        """A JSON patch (RFC 6902)."""
        path = resource.path(name, namespace=namespace, subresource=subresource)
        return await self._call("PATCH", path, body=operations, content_type=_JSON_PATCH)

    async def delete(
        self, resource: Resource, name: str, *, body: Mapping[str, Any] | None = None, namespace: str = ""
    ) -> None:
        """Delete an object; one that is gone already is no error."""
        try:
            await self._call("DELETE", resource.path(name, namespace=namespace), body=body)
        except KubeError as error:
            if not error.not_found:
                raise

    async def carry_out(self, write: Write) -> Json | None:
        """Do one write. Returns the object as it is now, or None if it is gone or was left alone."""
        match write.verb:
            case Verb.CREATE if write.resource == EVENT:
                return await self._tell(cast("Json", write.body), write.namespace)
            case Verb.CREATE:
                return await self.create(write.resource, cast("Json", write.body), namespace=write.namespace)
            case Verb.PATCH:
                operations = cast("Sequence[Json]", write.body)
                return await self.patch(write.resource, write.name, operations, subresource=write.subresource)
            case Verb.DELETE:
                if write.only_if_gone is not None and await self.find(write.only_if_gone, write.name) is not None:
                    return None
                await self.delete(write.resource, write.name, body=cast("Json | None", write.body))
                return None

    async def _tell(self, event: Json, namespace: str) -> Json | None:
        """Write an Event, or that the one before has happened again, or nothing."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        told = self._events.take(event)
        try:
            if isinstance(told, Repeat):
                series = {"count": told.count, "lastObservedTime": now}
                operations: list[Json] = [{"op": "add", "path": "/series", "value": series}]
                return await self.patch(EVENT, told.name, operations, namespace=namespace)
            if told is None:
                return None
            body = event | {
                "eventTime": now,
                "reportingController": f"{GROUP}/operator",
                "reportingInstance": self._identity,
            }
            made = await self.create(EVENT, body, namespace=namespace)
        except KubeError:
            self._events.forget(event)
            raise
        self._events.made(event, made["metadata"]["name"])
        return made

    async def serves(self, group: str, version: str) -> frozenset[str]:
        """The plural names of a group's kinds that the API server serves; empty if it does not know the group."""
        try:
            found = await self._call("GET", f"/apis/{group}/{version}")
        except KubeError as error:
            if error.not_found:
                return frozenset()
            raise
        return frozenset(resource["name"] for resource in found.get("resources", ()))

    async def watch(self, resource: Resource, version: int, *, namespace: str = "") -> AsyncIterator[tuple[str, Json]]:
        """What becomes of a kind's objects from a version on: the event's type and the object, until the API server
        ends the watch. An ERROR's object is a metav1.Status. Raises KubeError."""
        query = {"watch": "1", "resourceVersion": str(version), "timeoutSeconds": str(WATCH_SECONDS)}
        timeout = aiohttp.ClientTimeout(total=2 * WATCH_SECONDS, sock_connect=REQUEST_SECONDS)
        try:
            async with (
                await self.session() as session,
                session.get(
                    f"{self.server}{resource.path(namespace=namespace)}", params=query, timeout=timeout
                ) as response,
            ):
                if response.status >= 400:
                    raise _refusal(response.status, await response.read())
                rest = b""
                # Not by readline, which has a limit that a large object is beyond.
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        event = json.loads(line)
                        yield event["type"], event["object"]
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise KubeError(0, "Unreachable", f"{self.server}: {str(error) or type(error).__name__}") from error

    async def session(self) -> aiohttp.ClientSession:
        """A session of its own for long watches, with the present credentials; the caller closes it."""
        headers: dict[str, str] = {}
        await self._authorize(headers)
        context: ssl.SSLContext = self._client.rest_client.ssl_context
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=context), headers=headers)

    async def _authorize(self, headers: dict[str, str]) -> None:
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], "", "", None)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> Json:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        if self._fault is not None:
            self._fault.reach("before", method, path)
        try:
            serialized: Any = await self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            response: Any = await self._client.call_api(*serialized, _request_timeout=REQUEST_SECONDS)
            data: bytes = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError, ApiException) as error:
            text = str(error) or type(error).__name__
            raise KubeError(0, "Unreachable", f"{self.server}: {text}") from error
        if response.status >= 400:
            raise _refusal(response.status, data)
        if self._fault is not None:
            self._fault.reach("after", method, path)
        return cast("Json", json.loads(data))


def _refusal(status: int, data: bytes) -> KubeError:
    """A metav1.Status, or whatever a proxy in between has sent."""
    try:
        found = json.loads(data)
        return KubeError(status, str(found.get("reason", "")), str(found.get("message", "")) or f"HTTP {status}")
    except (ValueError, AttributeError):
        return KubeError(status, "", f"HTTP {status}")


def _pin_host(configuration: Any, host: str) -> None:
    """Keep an address though the in-cluster loader sets its own whenever it refreshes the token."""
    refresh = configuration.refresh_api_key_hook
    configuration.host = host

    def refresh_and_pin(current: Any) -> None:
        if refresh is not None:
            refresh(current)
        current.host = host
        current.refresh_api_key_hook = refresh_and_pin  # the loader's refresh has put itself back

    if refresh is not None:
        configuration.refresh_api_key_hook = refresh_and_pin
