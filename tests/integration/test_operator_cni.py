"""The operator, CNI plugins and a real API server: who says which addresses a node's pods have, and when that changes.

The kinds are made here, as small as they may be: what the operator reads of them is what the plugins write.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from hauberk_operator.cni_facts import CALICO_BLOCK, CILIUM_NODE
from hauberk_operator.writes import Resource
from tests.apiserver import ApiServer
from tests.integration.operator_bed import Operator, OperatorBed
from tests.lab.api import ApiRefused
from tests.unit.operator.test_pod_cidrs import block_json

Json = dict[str, Any]


@pytest.fixture(scope="module")
def bed() -> Iterator[OperatorBed]:
    with ApiServer() as server:
        server.apply_crds()
        yield OperatorBed.anew(server, nodes=2)


@pytest.fixture(scope="module")
def operator(bed: OperatorBed) -> Iterator[Operator]:
    with bed.operator() as operator:
        bed.wait_for("a plan", lambda: bed.plan()["generation"], operator=operator)
        yield operator


def serve(bed: OperatorBed, resource: Resource) -> None:
    """Make a kind."""
    crd: Json = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{resource.group}"},
        "spec": {
            "group": resource.group,
            "scope": "Cluster",
            "names": {"kind": resource.kind, "plural": resource.plural},
            "versions": [
                {
                    "name": resource.version,
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                        }
                    },
                }
            ],
        },
    }
    bed.server.kubectl("apply", "--filename=-", stdin=yaml.safe_dump(crd))
    bed.server.kubectl("wait", "--for=condition=Established", f"crd/{resource.plural}.{resource.group}")


def write(bed: OperatorBed, resource: Resource, obj: Json) -> None:
    """Make or change an object."""
    name: str = obj["metadata"]["name"]
    body: Json = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name},
        "spec": obj["spec"],
    }
    try:
        version = bed.get(resource.path(name))["metadata"]["resourceVersion"]
    except ApiRefused:
        bed.server.api.request("POST", resource.path(), body)
        return
    body["metadata"]["resourceVersion"] = version
    bed.server.api.request("PUT", resource.path(name), body)


def pod_cidrs(bed: OperatorBed, node: str) -> list[str]:
    return bed.members()[node]["spec"]["podCIDRs"]


def known(bed: OperatorBed) -> tuple[str, str, str]:
    """The source in force, and the status and the reason of the mesh's condition."""
    status: Json = bed.mesh().get("status") or {}
    conditions: list[Json] = status.get("conditions") or []
    (condition,) = (c for c in conditions if c["type"] == "PodCIDRsKnown")
    return status.get("podCIDRSource", ""), condition["status"], condition["reason"]


def test_a_cni_plugin_comes_lends_addresses_meets_another_one_and_goes(bed: OperatorBed, operator: Operator) -> None:
    assert known(bed) == ("Node", "True", "FromNode")
    assert pod_cidrs(bed, "n1") == ["10.244.1.0/24", "fd00:244:1::/64"]

    # -> Calico comes while the operator runs
    serve(bed, CALICO_BLOCK)
    write(bed, CALICO_BLOCK, block_json("10.1.0.0/26", "host:n1", {0: "n1"}))
    write(bed, CALICO_BLOCK, block_json("10.1.0.64/26", "host:n2"))
    bed.wait_for("Calico's blocks", lambda: known(bed) == ("Calico", "True", "FromCalico"), operator=operator)
    bed.wait_for("n1's", lambda: pod_cidrs(bed, "n1") == ["10.1.0.0/26"], operator=operator)
    bed.wait_for("n2's", lambda: pod_cidrs(bed, "n2") == ["10.1.0.64/26"], operator=operator)

    # -> a pod on n2 gets an address out of n1's block, and one on n1 an ordinary one, which is no news
    before = bed.audit_length()
    write(bed, CALICO_BLOCK, block_json("10.1.0.0/26", "host:n1", {0: "n1", 7: "n2", 8: "n1"}))
    bed.wait_for("the loan", lambda: pod_cidrs(bed, "n2") == ["10.1.0.64/26", "10.1.0.7/32"], operator=operator)
    assert pod_cidrs(bed, "n1") == ["10.1.0.0/26"]
    assert len(bed.operator_writes(before)) == 1

    # -> many blocks, more than fit into the schema before
    for third in range(1, 41):
        write(bed, CALICO_BLOCK, block_json(f"10.2.{third}.0/26", "host:n1"))
    bed.wait_for("41 blocks", lambda: len(pod_cidrs(bed, "n1")) == 41, operator=operator)

    # -> the address is given back
    write(bed, CALICO_BLOCK, block_json("10.1.0.0/26", "host:n1", {0: "n1"}))
    bed.wait_for("its end", lambda: pod_cidrs(bed, "n2") == ["10.1.0.64/26"], operator=operator)

    # -> people choose what is not there: nobody loses what there is
    bed.change_mesh({"podCIDRSource": "Cilium"})
    bed.wait_for("a sentence", lambda: known(bed) == ("Calico", "False", "SourceMissing"), operator=operator)
    assert pod_cidrs(bed, "n2") == ["10.1.0.64/26"]
    bed.change_mesh({})

    # -> Cilium comes too: what is in force stays, and people hear of it
    serve(bed, CILIUM_NODE)
    for name in ("n1", "n2"):
        cidr = f"10.9.{name[1:]}.0/24"
        write(bed, CILIUM_NODE, {"metadata": {"name": name}, "spec": {"ipam": {"podCIDRs": [cidr]}}})
    bed.wait_for("a doubt", lambda: known(bed) == ("Calico", "False", "SourcesDisagree"), operator=operator)
    assert bed.wait_for("an Event", lambda: bed.events("SourcesDisagree"))
    assert pod_cidrs(bed, "n2") == ["10.1.0.64/26"]
    bed.change_mesh({"podCIDRSource": "Cilium"})
    bed.wait_for("their choice", lambda: known(bed) == ("Cilium", "True", "FromCilium"), operator=operator)
    bed.wait_for("n2's", lambda: pod_cidrs(bed, "n2") == ["10.9.2.0/24"], operator=operator)

    # -> it is gone again
    bed.server.kubectl("delete", "crd", f"{CILIUM_NODE.plural}.{CILIUM_NODE.group}")
    bed.change_mesh({})
    bed.wait_for("Calico", lambda: known(bed) == ("Calico", "True", "FromCalico"), operator=operator)

    # -> an operator that starts finds Calico at once, and never takes the Nodes' for it
    assert operator.stop() == 0
    before = bed.audit_length()
    with bed.operator("op-2") as successor:
        bed.wait_for("its lead", lambda: bed.leader() == "op-2", operator=successor)
        bed.wait_for("its work", lambda: "leading:" in successor.log, operator=successor)
        time.sleep(1)
        assert [line for line in bed.operator_writes(before) if "ipsec" in line] == []
        bed.wait_for("n2's", lambda: pod_cidrs(bed, "n2") == ["10.1.0.64/26"], operator=successor)

        # -> it may not read them any more
        role = bed.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/hauberk-operator")
        role["rules"] = [rule for rule in role["rules"] if "ipamblocks" not in rule["resources"]]
        bed.server.kubectl("replace", "--filename=-", stdin=json.dumps(role))
    with bed.operator("op-3") as last:
        bed.wait_for("a sentence", lambda: known(bed) == ("Calico", "False", "SourceUnreadable"), operator=last)
        assert pod_cidrs(bed, "n2") == ["10.1.0.64/26"]
