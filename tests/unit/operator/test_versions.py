"""One version apart: what an earlier operator and its agents have written is read, and what is written now they read.

earlier/objects.json is what the operator and the agent of commit 619940a made of four nodes and a tunnel in its phase
Protect; earlier/models.json are that commit's models, by pydantic's model_json_schema.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from hauberk_api.report import ReportStatus
from hauberk_operator.facts import Json, MemberFacts, MeshFacts, ReportFacts, TunnelFacts
from hauberk_operator.reconcile import reconcile
from hauberk_operator.standing import Standing
from hauberk_operator.view import ClusterView
from hauberk_operator.writes import MEMBER, MESH, NODE, REPORT, TUNNEL, Resource
from tests.unit.operator.builders import carries, node_json, report_json, tunnel_json
from tests.unit.operator.fake_api import FakeApi

EARLIER: Final = Path(__file__).parent / "earlier"
WRITTEN: Final[Json] = json.loads((EARLIER / "objects.json").read_text())
MODELS: Final[dict[str, Json]] = json.loads((EARLIER / "models.json").read_text())
NOW: Final = datetime(2026, 5, 1, tzinfo=UTC)
STANDING: Final = Standing(bundle="ROOT", authority="aa", status={"phase": "Stable"})
RESOURCES: Final = {resource.kind: resource for resource in (MEMBER, MESH, NODE, REPORT, TUNNEL)}


def cluster() -> FakeApi:
    """The earlier operator's cluster, as it left it."""
    api = FakeApi()
    for obj in WRITTEN["objects"]:
        api.add(RESOURCES[obj["kind"]], obj)
    return api


def settled(api: FakeApi) -> ClusterView:
    for _ in range(6):
        writes = reconcile(api.view(), standing=STANDING, now=NOW).writes
        for write in writes:
            asyncio.run(api.carry_out(write))
        if not writes:
            return api.view()
    raise AssertionError("does not come to rest")


def objects(api: FakeApi, resource: Resource) -> list[Json]:
    return [obj for (kind, _), obj in api.objects.items() if kind == resource.kind]


def test_everything_that_the_earlier_version_has_written_is_understood() -> None:
    api = cluster()
    for obj in objects(api, MESH):
        mesh = MeshFacts.parse(obj)
        assert (mesh.problem, mesh.plan is not None) == ("", True)
    for obj in objects(api, TUNNEL):
        assert TunnelFacts.parse(obj).problem == ""
    assert all(MemberFacts.parse(obj).spec is not None for obj in objects(api, MEMBER))
    assert all(ReportFacts.parse(obj).status is not None for obj in objects(api, REPORT))
    report = ReportStatus.from_object(WRITTEN["report"])
    assert [peer.reason for peer in report.unwell] == ["Unreachable", "Establishing"]


def test_an_upgrade_in_the_midst_of_a_rollout_takes_nothing_back() -> None:
    api = cluster()
    (before,) = api.view().meshes.values()
    assert before.plan is not None
    members = {name: member.spec for name, member in api.view().members.items()}
    view = settled(api)
    assert view.mesh is not None
    assert view.mesh.plan is not None
    (earlier,), (later,) = before.plan.tunnels, view.mesh.plan.tunnels
    assert (later.uid, later.generation, later.phase) == (earlier.uid, earlier.generation, earlier.phase)
    assert view.mesh.plan.revoked_nodes == before.plan.revoked_nodes
    assert view.mesh.plan.trust_bundle == before.plan.trust_bundle
    # -> no agent loses a membership, or an address
    for name, spec in members.items():
        now = view.members[name].spec
        assert spec is not None
        assert now is not None
        assert (now.addresses, now.pod_cidrs, now.memberships) == (spec.addresses, spec.pod_cidrs, spec.memberships)


def test_a_downgrade_finds_what_it_needs() -> None:
    """The earlier models ignore fields that they don't know; those that they do know must be as they were."""
    api = FakeApi()
    for name in ("n1", "n2", "n3"):
        api.add(NODE, node_json(name))
    api.add(TUNNEL, tunnel_json(spec={"rollout": "Gradual"}))
    settled(api)
    for name in ("n1", "n2", "n3"):
        lines = [carries(phase="Accept")]
        api.add(REPORT, report_json(name, tunnels=lines))
    settled(api)
    (mesh,) = objects(api, MESH)
    assert faults(mesh["status"]["plan"], MODELS["Plan"]) == []
    assert mesh["status"]["plan"]["tunnels"]
    for member in objects(api, MEMBER):
        assert faults(member["spec"], MODELS["NodeSpec"]) == []
    for kind in (objects(api, TUNNEL), [mesh]):
        for condition in kind[0]["status"]["conditions"]:
            assert faults(condition, MODELS["Condition"]) == []
    for report in api.view().reports.values():
        assert report.status is not None
        assert faults(report.status.model_dump(mode="json", by_alias=True), MODELS["ReportStatus"]) == []


def faults(value: Any, schema: Json, root: Json | None = None, where: str = "") -> list[str]:
    """What an earlier model would not take of a value."""
    root = root or schema
    if "$ref" in schema:
        found: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return faults(value, found, root, where)
    if "anyOf" in schema:
        tried = [faults(value, option, root, where) for option in schema["anyOf"]]
        return min(tried, key=len)
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where}: {value!r} is unknown"]
    kinds: dict[str, type] = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "null": type(None),
        "integer": int,
    }
    if not isinstance(value, kinds[schema["type"]]):
        return [f"{where}: {value!r} is no {schema['type']}"]
    if schema["type"] == "array":
        return [
            fault
            for i, item in enumerate(value)
            for fault in faults(item, schema.get("items", {}), root, f"{where}[{i}]")
        ]
    if schema["type"] == "object":
        missing = [f"{where}.{name}: missing" for name in schema.get("required", ()) if name not in value]
        wrong = [
            fault
            for name, field in schema.get("properties", {}).items()
            if name in value
            for fault in faults(value[name], field, root, f"{where}.{name}")
        ]
        return missing + wrong
    return []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"generation": None}, ".generation: None is no integer"),
        ({"generation": "1"}, ".generation: '1' is no integer"),
        ({"nonMembers": "Perhaps"}, ".nonMembers: 'Perhaps' is unknown"),
        ({"invented": 1}, None),
    ],
)
def test_the_judge_itself_finds_what_a_downgrade_would_trip_over(change: Json, fault: str | None) -> None:
    plan: Json = {"generation": 1, "trustBundle": "ROOT"} | change
    assert faults(plan, MODELS["Plan"]) == ([fault] if fault else [])
    assert faults({"generation": 1}, MODELS["Plan"]) == [".trustBundle: missing"]
