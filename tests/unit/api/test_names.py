"""Identities, and the names that the chart repeats in YAML."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_api.names import (
    AGENT_SERVICE_ACCOUNT,
    CA_SECRET,
    IMPORTED_CA_SECRET,
    LEASE,
    NODE_NAME_EXTRA,
    NODE_UID_EXTRA,
    OPERATOR_SERVICE_ACCOUNT,
    SIGNER,
    STARTUP_TAINT,
    STATE_DIRECTORY,
    STATUS_SOCKET,
    NodeUid,
    node_identity,
    uid_of_identity,
)

CHART = Path(__file__).resolve().parent.parent.parent.parent / "charts" / "hauberk"
UID = NodeUid("0b7c9d52-5d2e-4a3c-9a55-2f3b6b1f2c11")


@given(uid=st.uuids(), mesh=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True))
def test_a_nodes_identity_names_its_uid_and_mesh(uid: object, mesh: str) -> None:
    identity = node_identity(NodeUid(str(uid)), mesh)
    assert uid_of_identity(identity, mesh) == str(uid)
    assert uid_of_identity(identity, f"{mesh}x") is None
    assert len(identity) <= 253


@pytest.mark.parametrize(
    "identity",
    [
        "",
        ".",
        ".default.hauberk.internal",
        "default.hauberk.internal",
        "hauberk.internal",
        f"{UID}.other.hauberk.internal",
        f"{UID}.default.hauberk.internal.",
        f"{UID}.default.hauberk.internal.example.com",
        f"x.{UID}.default.hauberk.internal",
        f"{UID}.DEFAULT.hauberk.internal",
        f"{UID}.defaultxhauberk.internal",
        f" {UID}",
        UID,
    ],
)
def test_what_is_no_identity_of_this_mesh_has_no_uid(identity: str) -> None:
    assert uid_of_identity(identity) is None


@given(text=st.text())
def test_only_what_a_node_would_be_called_has_a_uid(text: str) -> None:
    uid = uid_of_identity(text)
    assert uid is None or node_identity(uid) == text


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("templates/agent/rbac.yaml", rf"kind: ServiceAccount\nmetadata:\n  name: {AGENT_SERVICE_ACCOUNT}\n"),
        ("templates/agent/daemonset.yaml", rf"serviceAccountName: {AGENT_SERVICE_ACCOUNT}\n"),
        ("templates/agent/daemonset.yaml", rf"mountPath: {STATE_DIRECTORY}\n"),
        ("templates/agent/daemonset.yaml", rf"hostPath:\n +path: {STATE_DIRECTORY}\n"),
        ("templates/agent/daemonset.yaml", rf"mountPath: {Path(STATUS_SOCKET).parent}\n"),
        ("templates/agent/admission.yaml", rf"'{NODE_NAME_EXTRA}' in request.userInfo.extra"),
        ("templates/agent/admission.yaml", rf"'{NODE_UID_EXTRA}' in request.userInfo.extra"),
        ("templates/agent/admission.yaml", rf"object.spec.signerName == '{SIGNER}'"),
        ("templates/agent/admission.yaml", rf"serviceaccount:%s:{AGENT_SERVICE_ACCOUNT}\""),
        ("templates/operator/rbac.yaml", rf"kind: ServiceAccount\nmetadata:\n  name: {OPERATOR_SERVICE_ACCOUNT}\n"),
        ("templates/operator/rbac.yaml", rf"resourceNames: \[{SIGNER}\]"),
        ("templates/operator/rbac.yaml", rf"resourceNames: \[{CA_SECRET}\]"),
        ("templates/operator/rbac.yaml", rf"resourceNames: \[{IMPORTED_CA_SECRET}\]"),
        ("templates/operator/rbac.yaml", rf"resourceNames: \[{LEASE}\]"),
        ("templates/operator/deployment.yaml", rf"serviceAccountName: {OPERATOR_SERVICE_ACCOUNT}\n"),
        ("values.yaml", rf"key: {STARTUP_TAINT}\n"),
    ],
)
def test_the_chart_uses_the_same_names(file: str, pattern: str) -> None:
    assert re.search(pattern, (CHART / file).read_text()), f"{file} lacks {pattern}"
