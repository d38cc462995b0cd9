"""What the API server says to an object, without storing it. Called by test_admission."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hauberk_api.kinds import (
    API_VERSION,
    MESH_KIND,
    MESHES,
    NODE_KIND,
    NODES,
    REPORT_KIND,
    REPORTS,
    TUNNEL_KIND,
    TUNNELS,
)
from tests.apiserver import ApiServer
from tests.lab.api import ApiRefused

Json = dict[str, Any]

PLURALS = {TUNNEL_KIND: TUNNELS, MESH_KIND: MESHES, NODE_KIND: NODES, REPORT_KIND: REPORTS}


def admitted(server: ApiServer, kind: str, spec: Json | None, *, name: str = "default") -> Json:
    """The object as it would be stored. Raises ApiRefused."""
    body: Json = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}}
    if spec is not None:
        body["spec"] = spec
    path = f"/apis/{API_VERSION}/{PLURALS[kind]}?dryRun=All&fieldValidation=Strict"
    return json.loads(server.api.request("POST", path, body))


def refusal(server: ApiServer, kind: str, spec: Json | None, *, name: str = "default") -> str:
    """The sentences of a refusal, each with its field; fails when the object is admitted."""
    with pytest.raises(ApiRefused) as refused:
        admitted(server, kind, spec, name=name)
    assert refused.value.status == 422, refused.value
    return sentences(refused.value)


def sentences(refused: ApiRefused) -> str:
    """`FIELD: SENTENCE` of every cause in a metav1.Status, a line each."""
    status = json.loads(str(refused).partition(": ")[2])
    return "\n".join(f"{cause['field']}: {cause['message']}" for cause in status["details"]["causes"])
