"""The API server's side of the seams, against a small HTTP server that says what API servers say.

tests/integration/test_agent.py does the same against a real one; here are the answers that a real one gives seldom.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiohttp import web

from hauberk_agent.clock import ClockWatch
from hauberk_agent.kube import Access, KubeApi, KubeError, KubeReporter, KubeSigner, KubeSource, in_cluster
from hauberk_agent.source import SigningDenied
from hauberk_api.kinds import GROUP, MESHES, NODES, REPORTS, VERSION
from hauberk_api.names import SIGNER, NodeName
from hauberk_api.report import KernelReport, ReportStatus
from tests.unit.agent.mesh import node, plan, tunnel

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
BASE = f"/apis/{GROUP}/{VERSION}"
CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
OWN = NodeName("n1")


@asynccontextmanager
async def api_server(
    routes: dict[tuple[str, str], Handler], clock: ClockWatch | None = None
) -> AsyncGenerator[KubeApi]:
    """An API server of these routes, and a client of it."""
    application = web.Application()
    for (method, path), handler in routes.items():
        application.router.add_route(method, path, handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]

    async def token() -> str:
        return "Bearer secret"

    api = KubeApi(Access(host=f"http://127.0.0.1:{port}", ssl=ssl.create_default_context(), token=token), clock)
    try:
        yield api
    finally:
        await api.close()
        await runner.cleanup()


def listed(version: str, *items: dict[str, Any]) -> web.Response:
    return web.json_response({"metadata": {"resourceVersion": version}, "items": list(items)})


def mesh_object(version: str, *tunnels: str) -> dict[str, Any]:
    the_plan = plan(*(tunnel(uid) for uid in tunnels), trust_bundle="bundle")
    return {
        "metadata": {"name": "default", "resourceVersion": version},
        "status": {"plan": the_plan.to_object()},
    }


def node_object(number: int, version: str = "5") -> dict[str, Any]:
    return {"metadata": {"name": f"n{number}", "resourceVersion": version}, "spec": node(number).to_object()}


async def stream(request: web.Request, *events: dict[str, Any], hold: bool = True) -> web.StreamResponse:
    """A watch's answer: the events, then silence, or the end."""
    response = web.StreamResponse()
    await response.prepare(request)
    for event in events:
        await response.write(json.dumps(event).encode() + b"\n")
    if hold:
        await asyncio.sleep(60)
    return response


async def collect(source: KubeSource, done: Callable[[list[int]], bool]) -> list[int]:
    """The numbers of nodes in the snapshots, until enough."""
    task = asyncio.create_task(source.run())
    sizes: list[int] = []
    try:
        async with asyncio.timeout(10):
            async for snapshot in source.snapshots():
                sizes.append(len(snapshot.nodes))
                if done(sizes):
                    return sizes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    raise AssertionError("the stream ended")


def test_lists_come_from_the_cache_and_watches_go_on_from_there() -> None:
    queries: list[dict[str, str]] = []

    async def meshes(request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == "Bearer secret"
        assert request.query["fieldSelector"] == "metadata.name=default"
        return await stream(request) if "watch" in request.query else listed("7", mesh_object("7", "a"))

    async def nodes(request: web.Request) -> web.StreamResponse:
        queries.append(dict(request.query))
        if "watch" not in request.query:
            return listed("9", node_object(1))
        return await stream(
            request,
            {"type": "ADDED", "object": node_object(2, "10")},
            {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "11"}}},
            {"type": "ADDED", "object": {"metadata": {"name": "n9", "resourceVersion": "12"}, "spec": {"bad": 1}}},
            {"type": "DELETED", "object": node_object(1, "13")},
            {"type": "ADDED", "object": node_object(3, "14")},
            {"type": "ADDED", "object": node_object(4, "15")},
        )

    async def story() -> None:
        routes: dict[tuple[str, str], Handler] = {
            ("GET", f"{BASE}/{MESHES}"): meshes,
            ("GET", f"{BASE}/{NODES}"): nodes,
        }
        async with api_server(routes) as api:
            source = KubeSource(api, OWN, chance=Random(1))
            sizes = await collect(source, lambda sizes: sizes[-1] == 3)
            assert sizes[-1] == 3, "n2, n3 and n4; what can't be understood is left out"
            assert source.problem is None

    asyncio.run(story())
    assert queries[0] == {"resourceVersion": "0"}
    assert queries[1]["resourceVersion"] == "9"
    assert queries[1]["allowWatchBookmarks"] == "true"


@pytest.mark.parametrize("how", ["event", "status"])
def test_a_version_that_is_too_old_is_listed_anew(how: str) -> None:
    lists = 0

    async def meshes(request: web.Request) -> web.StreamResponse:
        return await stream(request) if "watch" in request.query else listed("7", mesh_object("7"))

    async def nodes(request: web.Request) -> web.StreamResponse:
        nonlocal lists
        if "watch" not in request.query:
            lists += 1
            return listed(str(lists), *(node_object(number) for number in range(1, lists + 1)))
        if request.query["resourceVersion"] != "1":
            return await stream(request)
        if how == "status":
            return web.json_response({"message": "too old"}, status=410)
        error = {"kind": "Status", "code": 410, "message": "too old resource version"}
        return await stream(request, {"type": "ERROR", "object": error}, hold=False)

    async def story() -> None:
        routes: dict[tuple[str, str], Handler] = {
            ("GET", f"{BASE}/{MESHES}"): meshes,
            ("GET", f"{BASE}/{NODES}"): nodes,
        }
        async with api_server(routes) as api:
            await collect(KubeSource(api, OWN, chance=Random(1)), lambda sizes: sizes[-1] == 2)

    asyncio.run(story())
    assert lists == 2


def test_an_api_server_that_refuses_is_named_and_asked_again() -> None:
    refusals = 2

    async def meshes(request: web.Request) -> web.StreamResponse:
        nonlocal refusals
        if refusals:
            refusals -= 1
            return web.json_response({"message": "forbidden: no RBAC"}, status=403)
        return await stream(request) if "watch" in request.query else listed("7", mesh_object("7"))

    async def nodes(request: web.Request) -> web.StreamResponse:
        return await stream(request) if "watch" in request.query else listed("7", node_object(1))

    async def story() -> None:
        routes: dict[tuple[str, str], Handler] = {
            ("GET", f"{BASE}/{MESHES}"): meshes,
            ("GET", f"{BASE}/{NODES}"): nodes,
        }
        async with api_server(routes) as api:
            source = KubeSource(api, OWN, chance=Random(1))
            problems: list[str | None] = []
            task = asyncio.create_task(source.run())
            async with asyncio.timeout(10):
                async for _ in source.snapshots():
                    break
                problems.append(source.problem)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert problems == [None]

    asyncio.run(story())
    assert refusals == 0


def test_an_unreachable_api_server_is_a_problem_in_words() -> None:
    async def story() -> str:
        # Port 1 of the loopback: nobody listens.
        api = KubeApi(Access(host="http://127.0.0.1:1", ssl=ssl.create_default_context(), token=_no_token))
        try:
            with pytest.raises(KubeError) as raised:
                await api.request("GET", "/version")
            assert raised.value.status == 0
            return str(raised.value)
        finally:
            await api.close()

    assert asyncio.run(story()).startswith("the API server http://127.0.0.1:1 can't be reached: ")


async def _no_token() -> None:
    return None


def test_a_request_is_asked_once_and_waited_for() -> None:
    created: list[dict[str, Any]] = []
    answers = [{}, {"conditions": [{"type": "Approved"}]}, {"certificate": base64.b64encode(b"PEM").decode()}]

    async def create(request: web.Request) -> web.StreamResponse:
        created.append(await request.json())
        return web.json_response({"message": "already exists"}, status=409 if len(created) > 1 else 201)

    async def get(_: web.Request) -> web.StreamResponse:
        return web.json_response({"status": answers.pop(0)})

    async def story() -> bytes:
        async with api_server({("POST", CSRS): create, ("GET", f"{CSRS}/asked"): get}) as api:
            signer = KubeSigner(api, chance=Random(1))
            return await signer.sign(name="asked", request=b"request")

    assert asyncio.run(story()) == b"PEM"
    (body,) = created
    assert body["metadata"] == {"name": "asked"}
    assert body["spec"]["signerName"] == SIGNER
    assert base64.b64decode(body["spec"]["request"]) == b"request"


def test_the_dates_of_answers_are_heard() -> None:
    clock = ClockWatch()
    ahead = datetime.now(UTC) + timedelta(hours=1, seconds=10)

    async def get(_: web.Request) -> web.StreamResponse:
        return web.json_response({}, headers={"Date": format_datetime(ahead, usegmt=True)})

    async def story() -> None:
        async with api_server({("GET", "/healthz"): get}, clock) as api:
            await api.request("GET", "/healthz")

    asyncio.run(story())
    assert clock.problem == "this node's clock is 60 minutes behind the API server's"


def test_a_request_that_was_cleaned_up_is_made_again_and_a_denied_one_is_not() -> None:
    created = 0

    async def create(_: web.Request) -> web.StreamResponse:
        nonlocal created
        created += 1
        return web.json_response({}, status=201)

    async def get(_: web.Request) -> web.StreamResponse:
        if created == 1:
            return web.json_response({"message": "not found"}, status=404)
        denied = {"type": "Denied", "reason": "NodeRevoked", "message": "n1 is revoked"}
        return web.json_response({"status": {"conditions": [denied]}})

    async def story() -> None:
        async with api_server({("POST", CSRS): create, ("GET", f"{CSRS}/asked"): get}) as api:
            with pytest.raises(SigningDenied, match="n1 is revoked"):
                await KubeSigner(api, chance=Random(1)).sign(name="asked", request=b"request")

    asyncio.run(story())
    assert created == 2


def test_a_report_is_made_where_there_is_none_and_patched_from_then_on() -> None:
    seen: list[tuple[str, str]] = []
    there = False

    async def create(request: web.Request) -> web.StreamResponse:
        nonlocal there
        there = True
        seen.append(("POST", request.content_type))
        return web.json_response(await request.json(), status=201)

    async def patch(request: web.Request) -> web.StreamResponse:
        seen.append(("PATCH", request.content_type))
        body = await request.json()
        assert body["status"]["certificate"] is None, "what is gone must go"
        return web.json_response({}) if there else web.json_response({"message": "not found"}, status=404)

    status = ReportStatus(
        nodeUID="uid-1", agent_version="1", plan_generation=1, ready=True, reason="AsWanted",
        kernel=KernelReport(release="7.3", esp=True),
    )  # fmt: skip

    async def story() -> None:
        path = f"{BASE}/{REPORTS}"
        routes: dict[tuple[str, str], Handler] = {("POST", path): create, ("PATCH", f"{path}/n1/status"): patch}
        async with api_server(routes) as api:
            reporter = KubeReporter(api, OWN)
            await reporter.write(status)
            await reporter.write(status)

    asyncio.run(story())
    merge = ("PATCH", "application/merge-patch+json")
    assert seen == [merge, ("POST", "application/json"), merge, merge]


def test_a_pod_s_service_account(tmp_path: Path) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "fd00:96::1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(KubeError, match="--kubeconfig"):
        in_cluster(tmp_path, {})
    with pytest.raises(KubeError, match="service account"):
        in_cluster(tmp_path, environment)
    default = ssl.get_default_verify_paths().cafile
    roots = Path(default) if default else Path("/etc/ssl/certs/ca-certificates.crt")
    (tmp_path / "ca.crt").write_bytes(roots.read_bytes())
    (tmp_path / "token").write_text("one\n")
    access = in_cluster(tmp_path, environment)
    assert access.host == "https://[fd00:96::1]:443"
    assert asyncio.run(_token(access)) == "Bearer one"
    (tmp_path / "token").write_text("two")
    assert asyncio.run(_token(access)) == "Bearer two", "kubelet has replaced it"


async def _token(access: Access) -> str | None:
    return await access.token()
