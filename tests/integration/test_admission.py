"""What the API server makes of people's objects: defaults for what is left out, a sentence for what can't be right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hauberk_api.kinds import API_VERSION, MESH_KIND, NODE_KIND, REPORT_KIND, REPORTS, TUNNEL_KIND, TUNNELS
from hauberk_api.mesh import MeshSpec
from hauberk_api.node import Membership, NodeSpec
from hauberk_api.plan import Phase, Plan, PlannedTunnel
from hauberk_api.report import MAX_UNWELL, KernelReport, ReportStatus, UnwellPeer, UnwellReason
from hauberk_api.tunnel import (
    Esp,
    Ike,
    LabelSelector,
    Overlay,
    OverlayProtocol,
    PortRange,
    Remote,
    Topology,
    Traffic,
    TrafficType,
    TunnelMode,
    TunnelSpec,
)
from tests.apiserver import ApiServer
from tests.integration.admission import PLURALS, Json, admitted, refusal, sentences
from tests.integration.operator_bed import OperatorBed
from tests.lab.api import ApiRefused

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
UID = "0b7c9d52-5d2e-4a3c-9a55-2f3b6b1f2c11"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@pytest.fixture(scope="module", autouse=True)
def empty(apiserver: ApiServer) -> None:
    """Whatever other tests have left is in nobody's way."""
    OperatorBed(apiserver).clear()


@pytest.mark.parametrize("spec", [None, {}], ids=["no spec", "an empty spec"])
def test_a_tunnel_without_settings_gets_the_defaults_that_the_programs_have(
    apiserver: ApiServer, spec: Json | None
) -> None:
    stored = admitted(apiserver, TUNNEL_KIND, spec)
    assert TunnelSpec.from_object(stored["spec"]) == TunnelSpec()
    assert stored["spec"]["ike"]["proposals"], "the defaults are written into the object, not left to the reader"


@pytest.mark.parametrize("spec", [None, {}], ids=["no spec", "an empty spec"])
def test_a_mesh_without_settings_gets_the_defaults_that_the_programs_have(
    apiserver: ApiServer, spec: Json | None
) -> None:
    assert MeshSpec.from_object(admitted(apiserver, MESH_KIND, spec)["spec"]) == MeshSpec()


@pytest.mark.parametrize(
    "spec",
    [
        TunnelSpec(),
        TunnelSpec(
            topology=Topology.HUB_AND_SPOKE,
            hub_selector=LabelSelector(match_labels={"node-restriction.kubernetes.io/hub": "yes"}),
        ),
        TunnelSpec(traffic=Traffic(type=TrafficType.HOST), mode=TunnelMode.TRANSPORT),
        TunnelSpec(
            traffic=Traffic(type=TrafficType.OVERLAY, overlay=Overlay(protocol=OverlayProtocol.VXLAN, port=8472))
        ),
        TunnelSpec(
            traffic=Traffic(type=TrafficType.SUBNETS, subnets=("10.0.0.0/16", "10.1.0.0/16", "fd00::/64", "::/1"))
        ),
        TunnelSpec(traffic=Traffic(protocol="UDP", ports=PortRange(first=53, last=53))),
        TunnelSpec(mode=TunnelMode.IPTFS),
        TunnelSpec(
            ike=Ike(proposals=("aes128gcm16-aes256gcm16-prfsha512-x25519-ecp384",), dpd_seconds=1, rekey_seconds=60),
            esp=Esp(proposals=("aes256gcm16-noesn",), rekey_seconds=60, rekey_packets=2**32 - 1),
        ),
        TunnelSpec(esp=Esp(rekey_packets=2**40, rekey_bytes=2**50)),
        TunnelSpec(remote=Remote(address="192.0.2.1", identity="gateway.example.com", subnets=("192.168.0.0/16",))),
    ],
    ids=["plain", "hubs", "host", "overlay", "subnets", "ports", "IP-TFS", "proposals", "limits", "remote"],
)
def test_what_the_programs_write_the_api_server_stores_as_it_is(apiserver: ApiServer, spec: TunnelSpec) -> None:
    assert TunnelSpec.from_object(admitted(apiserver, TUNNEL_KIND, spec.to_object())["spec"]) == spec


def test_a_part_given_is_completed_with_the_defaults_of_the_rest(apiserver: ApiServer) -> None:
    stored = admitted(apiserver, TUNNEL_KIND, {"esp": {"rekeySeconds": 600}, "traffic": {"protocol": "TCP"}})
    assert TunnelSpec.from_object(stored["spec"]) == TunnelSpec(
        esp=Esp(rekey_seconds=600), traffic=Traffic(protocol="TCP")
    )


def test_every_example_is_admitted(apiserver: ApiServer) -> None:
    paths = sorted(EXAMPLES.glob("*.yaml"))
    assert paths, f"there are no examples in {EXAMPLES}"
    for path in paths:
        for document in yaml.safe_load_all(path.read_text()):
            if document.get("apiVersion") == API_VERSION:
                admitted(apiserver, document["kind"], document.get("spec"), name=document["metadata"]["name"])


def test_algorithms_of_all_kinds_are_admitted(apiserver: ApiServer) -> None:
    spec = {
        "ike": {
            "proposals": [
                "aes256gcm16-chacha20poly1305-prfsha512-prfsha384-x25519-ecp521-ke1_mlkem1024-ke1_mlkem768-ke1_none",
                "aes256-aes128-sha512-sha256-modp4096-modp2048",
                "aes128ccm16-prfsha256-mlkem768",
            ]
        },
        "esp": {"proposals": ["aes128-sha256-modp2048-noesn", "aes256gcm16-x25519-ke1_mlkem768-esn"]},
    }
    admitted(apiserver, TUNNEL_KIND, spec)


_SELECTOR = {"matchLabels": {"node-restriction.kubernetes.io/role": "hub"}}
_SELF_MADE_HUB = "a node could make itself a hub: select hubs by labels below node-restriction.kubernetes.io/"


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        # fields that contradict each other
        (
            {"topology": "HubAndSpoke"},
            "spec.hubSelector: Required value: topology HubAndSpoke needs hubSelector: say which nodes are hubs",
        ),
        ({"hubSelector": _SELECTOR}, "hubSelector is only for topology HubAndSpoke: remove hubSelector, or set"),
        ({"topology": "HubAndSpoke", "hubSelector": {"matchLabels": {"role": "hub"}}}, _SELF_MADE_HUB),
        (
            {"topology": "HubAndSpoke", "hubSelector": {"matchLabels": {"x.io/node-restriction.kubernetes.io": "a"}}},
            _SELF_MADE_HUB,
        ),
        (
            {
                "topology": "HubAndSpoke",
                "hubSelector": {
                    "matchExpressions": [{"key": "node-restriction.kubernetes.io/spoke", "operator": "DoesNotExist"}]
                },
            },
            _SELF_MADE_HUB,
        ),
        ({"traffic": {"type": "Overlay"}}, "spec.traffic.overlay: Required value: type Overlay needs overlay"),
        (
            {"traffic": {"overlay": {"protocol": "VXLAN", "port": 8472}}},
            "overlay is only for type Overlay: remove overlay, or set type to Overlay",
        ),
        ({"traffic": {"type": "Subnets"}}, "type Subnets needs subnets: list at least one CIDR"),
        ({"traffic": {"type": "Subnets", "subnets": []}}, "type Subnets needs subnets: list at least one CIDR"),
        ({"traffic": {"subnets": ["10.0.0.0/8"]}}, "subnets are only for type Subnets: remove subnets, or set"),
        (
            {"traffic": {"type": "Overlay", "overlay": {"protocol": "VXLAN", "port": 8472}, "protocol": "TCP"}},
            "protocol and ports don't apply to type Overlay",
        ),
        ({"traffic": {"ports": {"first": 1, "last": 2}}}, "ports need a protocol that has ports: set protocol to TCP"),
        (
            {"traffic": {"protocol": "ICMP", "ports": {"first": 1, "last": 2}}},
            "ports need a protocol that has ports: set protocol to TCP",
        ),
        (
            {"traffic": {"protocol": "TCP", "ports": {"first": 2, "last": 1}}},
            "spec.traffic.ports.last: Invalid value: the range ends before it begins: set last to first, or higher",
        ),
        ({"mode": "Transport"}, "traffic of type PodNetwork has others: set mode to Tunnel, or traffic.type to Host"),
        (
            {"mode": "Transport", "traffic": {"type": "Subnets", "subnets": ["10.0.0.0/8"]}},
            "traffic of type Subnets has others: set mode to Tunnel",
        ),
        (
            {
                "mode": "Transport",
                "traffic": {"type": "Host"},
                "remote": {"address": "192.0.2.1", "identity": "g", "subnets": ["10.0.0.0/8"]},
            },
            "mode Transport can't reach the subnets behind remote",
        ),
        # algorithms
        (
            {"ike": {"proposals": ["3des-md5-modp1024"]}},
            "'3des-md5-modp1024' is no IKE proposal that Hauberk knows: write CIPHER-PRF-KEYEXCHANGE, such as",
        ),
        ({"ike": {"proposals": ["aes256gcm16-x25519"]}}, "'aes256gcm16-x25519' is no IKE proposal"),
        ({"ike": {"proposals": ["aes256gcm16-prfsha384"]}}, "'aes256gcm16-prfsha384' is no IKE proposal"),
        ({"ike": {"proposals": ["aes256gcm16-prfsha384-x25519 "]}}, "is no IKE proposal"),
        ({"ike": {"proposals": ["aes256-prfsha384-x25519"]}}, "'aes256-prfsha384-x25519' is no IKE proposal"),
        ({"ike": {"proposals": ["aes256-aes128gcm16-sha256-x25519"]}}, "is no IKE proposal"),
        ({"ike": {"proposals": ["aes256gcm16-prfsha384-x25519-ke1_mlkem512"]}}, "is no IKE proposal"),
        ({"ike": {"proposals": []}}, "spec.ike.proposals in body should have at least 1"),
        (
            {"esp": {"proposals": ["aes128gcm16-esn", "null"]}},
            """spec.esp.proposals[1]: Invalid value: "null": 'null' is no ESP proposal that Hauberk knows: write""",
        ),
        ({"esp": {"proposals": ["aes128gcm16"]}}, "'aes128gcm16' is no ESP proposal"),
        ({"esp": {"proposals": ["aes128-esn"]}}, "'aes128-esn' is no ESP proposal"),
        ({"esp": {"proposals": []}}, "should have at least 1 items"),
        (
            {"esp": {"proposals": ["aes128gcm16-esn", "aes128gcm16-noesn"], "rekeyPackets": 2**32}},
            "without extended sequence numbers an SA carries fewer than 4294967296 packets: lower rekeyPackets",
        ),
        # networks and addresses
        (
            {"traffic": {"type": "Subnets", "subnets": ["10.0.0.0/8", "10.0.0.0/33"]}},
            """spec.traffic.subnets[1]: Invalid value: "10.0.0.0/33": '10.0.0.0/33' is no CIDR: write an address and""",
        ),
        ({"traffic": {"type": "Subnets", "subnets": ["10.0.0.0"]}}, "'10.0.0.0' is no CIDR"),
        (
            {"traffic": {"type": "Subnets", "subnets": ["10.1.2.3/8"]}},
            "10.1.2.3/8 has bits set beyond its prefix length",
        ),
        (
            {"traffic": {"type": "Subnets", "subnets": ["10.0.0.0/8", "fd00::/64", "10.2.0.0/16"]}},
            "spec.traffic.subnets: Invalid value: CIDRs overlap: 10.2.0.0/16 lies within another entry, or is",
        ),
        (
            {"traffic": {"type": "Subnets", "subnets": ["fd00::/64", "fd00::/64"]}},
            "CIDRs overlap: fd00::/64 lies within",
        ),
        (
            {"remote": {"address": "gw.example.com", "identity": "g", "subnets": ["10.0.0.0/8"]}},
            "'gw.example.com' is no IP address: write one",
        ),
        ({"remote": {"address": "192.0.2.1", "identity": "g", "subnets": ["10.0.0.1/8"]}}, "has bits set beyond its"),
        (
            {"remote": {"address": "192.0.2.1", "identity": "g", "subnets": ["10.0.0.0/8", "10.0.0.0/9"]}},
            "spec.remote.subnets: Invalid value: CIDRs overlap: 10.0.0.0/9",
        ),
        # values out of range
        ({"topology": "Ring"}, 'spec.topology: Unsupported value: "Ring": supported values: "FullMesh", "HubAndSpoke"'),
        ({"mode": "Beet"}, 'supported values: "Tunnel", "Transport", "IPTFS"'),
        ({"traffic": {"protocol": "tcp"}}, 'supported values: "TCP", "UDP", "SCTP", "ICMP", "ICMPv6"'),
        ({"esp": {"rekeySeconds": 9}}, "spec.esp.rekeySeconds in body should be greater than or equal to 10"),
        ({"ike": {"rekeySeconds": 9}}, "spec.ike.rekeySeconds in body should be greater than or equal to 10"),
        ({"ike": {"dpdSeconds": 0}}, "spec.ike.dpdSeconds in body should be greater than or equal to 1"),
        ({"esp": {"rekeyBytes": 1}}, "spec.esp.rekeyBytes in body should be greater than or equal to 1048576"),
        ({"ike": {"rekeySeconds": "4h"}}, "spec.ike.rekeySeconds in body must be of type integer"),
        # selectors
        (
            {"nodeSelector": {"matchExpressions": [{"key": "zone", "operator": "in", "values": ["a"]}]}},
            'supported values: "In", "NotIn", "Exists", "DoesNotExist"',
        ),
        (
            {"nodeSelector": {"matchExpressions": [{"key": "zone", "operator": "In"}]}},
            "spec.nodeSelector.matchExpressions[0].values: Required value: operator In needs values: list at least one",
        ),
        (
            {"nodeSelector": {"matchExpressions": [{"key": "zone", "operator": "Exists", "values": ["a"]}]}},
            "operator Exists takes no values: remove them, or use In or NotIn",
        ),
        (
            {"nodeSelector": {"matchExpressions": [{"key": "a zone", "operator": "Exists"}]}},
            "no label can have such a key",
        ),
        ({"nodeSelector": {"matchLabels": {"zone": "a b"}}}, "no node can have such a label"),
        (
            {"topology": "HubAndSpoke", "hubSelector": {"matchExpressions": [{"key": "zone", "operator": "NotIn"}]}},
            "operator NotIn needs values",
        ),
    ],
)
def test_a_tunnel_that_cannot_be_right_is_refused_with_a_sentence(
    apiserver: ApiServer, spec: Json, sentence: str
) -> None:
    assert sentence in refusal(apiserver, TUNNEL_KIND, spec)


def test_an_unknown_field_is_refused_by_name(apiserver: ApiServer) -> None:
    with pytest.raises(ApiRefused, match=r"unknown field .*spec[.]trafic"):
        admitted(apiserver, TUNNEL_KIND, {"trafic": {}})


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"podNetworks": ["10.244.0.0"]}, "'10.244.0.0' is no CIDR: write an address and a prefix length"),
        ({"podNetworks": ["10.244.1.0/16"]}, "10.244.1.0/16 has bits set beyond its prefix length: clear them"),
        ({"podNetworks": ["fd00:244::1/32"]}, "fd00:244::1/32 has bits set beyond its prefix length: clear them"),
        ({"podNetworks": ["::ffff:10.0.0.0/104"]}, "'::ffff:10.0.0.0/104' is no CIDR"),
        (
            {"podNetworks": ["10.244.1.0/24", "fd00:244::/32", "10.244.0.0/16"]},
            "spec.podNetworks: Invalid value: CIDRs overlap: 10.244.1.0/24 lies within another entry",
        ),
        ({"podNetworks": ["0.0.0.0/0"]}, "0.0.0.0/0 can't hold pods"),
        ({"podNetworks": ["::/0"]}, "::/0 can't hold pods"),
        ({"podNetworks": ["224.0.0.0/4"]}, "224.0.0.0/4 can't hold pods"),
        ({"podNetworks": ["127.0.0.0/8"]}, "127.0.0.0/8 can't hold pods"),
        ({"podNetworks": ["fe80::/10"]}, "fe80::/10 can't hold pods"),
        (
            {"podNetworks": [f"10.{i}.0.0/16" for i in range(65)]},
            "spec.podNetworks: Too many: 65: must have at most 64 items",
        ),
        ({"nonMembers": "Drop"}, 'spec.nonMembers: Unsupported value: "Drop": supported values: "Allow", "Deny"'),
        ({"revokedNodes": ["N 1"]}, "'N 1' is no Node: write its metadata.uid or its metadata.name"),
        ({"revokedNodes": [UID, UID]}, "spec.revokedNodes[1]: Duplicate value"),
        ({"certificates": {"lifetimeSeconds": 30}}, "should be greater than or equal to 60"),
        (
            {"certificates": {"lifetimeSeconds": 3600, "caLifetimeSeconds": 3600}},
            "spec.certificates.lifetimeSeconds: Invalid value: the mesh's authority would expire before the",
        ),
        ({"certificates": {"curve": "P-521"}}, 'Unsupported value: "P-521": supported values: "P-256", "P-384"'),
        ({"certificates": {"caSecret": "Not A Name"}}, "no Secret can have this name"),
        ({"certificates": {"caSecret": "hauberk-ca"}}, "give the Secret to import another name"),
        ({"certificates": {"roll": {"mode": "Soon"}}}, 'supported values: "Overlap", "Distrust"'),
        (
            {"certificates": {"issuer": {"name": "company"}}},
            "an issuer is trusted by its CA, which cert-manager does not",
        ),
        (
            {"certificates": {"issuer": {"name": "company", "caBundle": PEM, "caConfigMap": {"name": "company"}}}},
            "give it in caBundle or in caConfigMap, and not in both",
        ),
        ({"certificates": {"issuer": {"name": "company", "caBundle": "MIIB"}}}, "this is no PEM certificate"),
        (
            {"certificates": {"issuer": {"name": "company", "caBundle": f"{PEM}-----BEGIN EC PRIVATE KEY-----"}}},
            "this holds a private key, which belongs to the issuer alone",
        ),
        (
            {"certificates": {"issuer": {"name": "company", "caBundle": PEM, "kind": "Certificate"}}},
            "cert-manager.io has the kinds Issuer and ClusterIssuer",
        ),
        (
            {"certificates": {"issuer": {"name": "company", "caBundle": PEM}, "caSecret": "hauberk-imported-ca"}},
            "spec.certificates.caSecret: Invalid value: the mesh has one authority",
        ),
    ],
)
def test_mesh_settings_that_cannot_be_right_are_refused_with_a_sentence(
    apiserver: ApiServer, spec: Json, sentence: str
) -> None:
    assert sentence in refusal(apiserver, MESH_KIND, spec)


def test_an_issuer_of_another_groups_may_be_of_any_kind(apiserver: ApiServer) -> None:
    issuer = {"name": "company", "caBundle": PEM, "kind": "AWSPCAClusterIssuer", "group": "awspca.cert-manager.io"}
    stored = admitted(apiserver, MESH_KIND, {"certificates": {"issuer": issuer}})
    assert stored["spec"]["certificates"]["issuer"] == issuer
    plain = admitted(apiserver, MESH_KIND, {"certificates": {"issuer": {"name": "company", "caBundle": PEM}}})
    assert plain["spec"]["certificates"]["issuer"] == issuer | {"kind": "Issuer", "group": "cert-manager.io"}


def test_an_issuers_authority_is_not_rolled_from_here(apiserver: ApiServer) -> None:
    """On objects that are stored, as the rule is about a change."""
    path = f"/apis/{API_VERSION}/ipsecmeshes"
    body = {"apiVersion": API_VERSION, "kind": MESH_KIND, "metadata": {"name": "default"}}
    settings: Json = {"issuer": {"name": "company", "caBundle": PEM}}
    mesh = json.loads(apiserver.api.request("POST", path, body | {"spec": {"certificates": settings}}))

    def rolled(mode: str) -> Json:
        spec = {"certificates": settings | {"roll": {"id": "spring", "mode": mode}}}
        return json.loads(apiserver.api.request("PUT", f"{path}/default?dryRun=All", mesh | {"spec": spec}))

    try:
        with pytest.raises(ApiRefused) as refused:
            rolled("Overlap")
        assert "an issuer's CA is rolled at the issuer: put its next CA into" in sentences(refused.value)
        assert rolled("Distrust")["spec"]["certificates"]["roll"]["id"] == "spring"
    finally:
        apiserver.api.request("DELETE", f"{path}/default")


def test_the_largest_lists_are_within_the_cost_that_the_api_server_allows(apiserver: ApiServer) -> None:
    networks = [f"10.{i}.0.0/16" for i in range(32)] + [f"fd00:{i:x}::/32" for i in range(32)]
    stored = admitted(apiserver, MESH_KIND, {"podNetworks": networks})
    assert stored["spec"]["podNetworks"] == networks


def test_a_second_mesh_is_refused(apiserver: ApiServer) -> None:
    assert "a cluster has one IPsecMesh, named default: change metadata.name" in refusal(
        apiserver, MESH_KIND, {}, name="other"
    )


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (None, "spec: Required value"),
        ({"nodeUID": UID}, "spec.addresses: Required value"),
        ({"addresses": []}, "spec.nodeUID: Required value"),
        ({"nodeUID": "a.b", "addresses": []}, "'a.b' can't be the first label of a DNS name"),
        ({"nodeUID": UID, "addresses": ["10.0.0.1/24"]}, "'10.0.0.1/24' is no IP address"),
        ({"nodeUID": UID, "addresses": [], "podCIDRs": ["10.0.0.1/24"]}, "10.0.0.1/24 has bits set beyond its prefix"),
        (
            {"nodeUID": UID, "addresses": [], "memberships": [{"tunnel": "t", "role": "King"}]},
            '"Member", "Hub", "Spoke"',
        ),
    ],
)
def test_a_node_that_cannot_be_right_is_refused(apiserver: ApiServer, spec: Json | None, sentence: str) -> None:
    assert sentence in refusal(apiserver, NODE_KIND, spec, name="n1")


@pytest.fixture
def stored(apiserver: ApiServer) -> Iterator[ApiServer]:
    """One object of each kind, as the programs write them."""
    node = NodeSpec(
        nodeUID=UID,
        addresses=("10.250.0.11", "fd00:250::11"),
        podCIDRs=("10.244.11.0/24",),
        memberships=(Membership(tunnel=UID),),
    )
    for kind, name, spec in (
        (TUNNEL_KIND, "mesh", {}),
        (MESH_KIND, "default", {}),
        (NODE_KIND, "n1", node.to_object()),
        (REPORT_KIND, "n1", None),
    ):
        body: Json = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}}
        apiserver.api.post(f"/apis/{API_VERSION}/{PLURALS[kind]}", body if spec is None else body | {"spec": spec})
    yield apiserver
    apiserver.kubectl("delete", "ipt,ipm,ipn,ipr", "--all")


def _write_status(server: ApiServer, resource: str, status: Json) -> Json:
    """Write a status as the programs do, through the subresource; returns what is stored of it."""
    path = f"/apis/{API_VERSION}/{resource}"
    current = server.api.get(path)
    answer = server.api.request("PUT", f"{path}/status", current | {"status": status})
    written: Json = json.loads(answer)["status"]
    return written


_NOW = "2026-11-23T23:00:00Z"


def _condition(kind: str, status: str, reason: str, message: str) -> Json:
    return {
        "type": kind, "status": status, "reason": reason, "message": message,
        "observedGeneration": 1, "lastTransitionTime": _NOW,
    }  # fmt: skip


_TUNNEL_STATUS: Json = {
    "observedGeneration": 1,
    "nodes": {"wanted": 3, "ready": 2},
    "pairs": {"wanted": 3, "established": 1},
    "podNetworks": ["10.244.0.0/16"],
    "conditions": [
        _condition("Accepted", "True", "Accepted", "The tunnel is in the plan."),
        _condition("Ready", "False", "Establishing", "1 of 3 pairs are encrypted."),
        _condition("Degraded", "True", "Unreachable", "Not reachable: n1 and n2."),
    ],
}

_REPORT = ReportStatus.from_object(
    {
        "nodeUID": UID, "agentVersion": "0.1.0", "planGeneration": 7, "ready": False, "reason": "Establishing",
        "message": "Waiting.", "kernel": {"release": "7.3.0", "esp": True, "problems": ["No IP-TFS."]},
        "certificate": {"serial": "1f", "notAfter": _NOW, "issuerFingerprint": "ab" * 32},
        "bundle": ["ab" * 32], "tunnels": [{"tunnel": UID, "generation": 1, "ready": False}],
        "unwell": [{"node": f"n{i}", "tunnel": "mesh", "reason": "Unreachable"} for i in range(MAX_UNWELL)],
        "unwellCount": 40, "stateLeft": True,
    }
)  # fmt: skip


def test_a_status_is_stored_as_it_was_written(stored: ApiServer) -> None:
    """Nothing is pruned from it and nothing added: the operator, comparing, would write for ever."""
    tunnel = PlannedTunnel(
        name="mesh", uid=UID, generation=3, phase=Phase.BLOCK, esp=Esp(rekey_bytes=2**40, rekey_packets=2**40)
    )
    plan = Plan(
        generation=7, pod_networks=("10.244.0.0/16",), revoked_nodes=(UID,), trust_bundle="PEM", tunnels=(tunnel,)
    )
    mesh: Json = {
        "observedGeneration": 1,
        "plan": plan.to_object(),
        "conditions": [_condition("Accepted", "True", "Accepted", "")],
    }
    report = _REPORT.to_object()
    assert _write_status(stored, f"{TUNNELS}/mesh", _TUNNEL_STATUS) == _TUNNEL_STATUS
    assert _write_status(stored, "ipsecmeshes/default", mesh) == mesh
    assert _write_status(stored, f"{REPORTS}/n1", report) == report


def test_a_status_is_not_written_with_the_spec(stored: ApiServer) -> None:
    path = f"/apis/{API_VERSION}/{TUNNELS}/mesh"
    answer = stored.api.request("PUT", path, stored.api.get(path) | {"status": _TUNNEL_STATUS})
    assert "status" not in json.loads(answer)


def test_a_report_lists_no_more_unwell_peers_than_agreed(stored: ApiServer) -> None:
    peer = UnwellPeer(node="n2", tunnel="mesh", reason=UnwellReason.UNREACHABLE)
    report = _REPORT.model_copy(update={"unwell": (peer,) * (MAX_UNWELL + 1)})
    with pytest.raises(ApiRefused) as refused:
        _write_status(stored, f"{REPORTS}/n1", report.to_object())
    assert "status.unwell: Too many: 17: must have at most 16 items" in sentences(refused.value)


def test_a_short_report_of_an_agent_without_identity_is_stored(stored: ApiServer) -> None:
    report = ReportStatus(
        nodeUID=UID, agent_version="0.1.0", plan_generation=0, ready=False, reason="UnsupportedKernel",
        kernel=KernelReport(release="6.1", esp=False, problems=("The kernel has no ESP.",)),
    )  # fmt: skip
    assert ReportStatus.from_object(_write_status(stored, f"{REPORTS}/n1", report.to_object())) == report


def test_a_node_that_registers_again_may_change_its_uid(stored: ApiServer) -> None:
    path = f"/apis/{API_VERSION}/ipsecnodes/n1"
    current = stored.api.get(path)
    spec: Json = current["spec"] | {"nodeUID": "11111111-2222-3333-4444-555555555555"}
    answer = json.loads(stored.api.request("PUT", path, current | {"spec": spec}))
    assert answer["spec"]["nodeUID"].startswith("11111111")


def _table(text: str) -> list[dict[str, str]]:
    """kubectl's table by column; cells are cut where the headings begin, as they may hold spaces."""
    heading, *rows = text.splitlines()
    names = heading.split()
    starts = [heading.index(name) for name in names]
    ends = [*starts[1:], None]
    return [
        {name: row[start:end].strip() for name, start, end in zip(names, starts, ends, strict=True)} for row in rows
    ]


def test_kubectl_get_shows_what_people_ask_for(stored: ApiServer) -> None:
    _write_status(stored, f"{TUNNELS}/mesh", _TUNNEL_STATUS)
    _write_status(stored, f"{REPORTS}/n1", _REPORT.to_object())

    (tunnel,) = _table(stored.kubectl("get", "ipt").stdout)
    assert tunnel.pop("AGE")
    assert tunnel == {
        "NAME": "mesh", "READY": "False", "REASON": "Establishing", "NODES": "2", "NODES-WANTED": "3",
        "PAIRS": "1", "PAIRS-WANTED": "3", "FAULT": "Unreachable",
    }  # fmt: skip
    (wide,) = _table(stored.kubectl("get", "ipsectunnels", "--output=wide").stdout)
    assert wide["FAULT"] == "Unreachable"
    assert wide["TRAFFIC"] == "PodNetwork"
    assert wide["MESSAGE"] == "1 of 3 pairs are encrypted."

    (node,) = _table(stored.kubectl("get", "ipn").stdout)
    assert node["ADDRESSES"] == '["10.250.0.11","fd00:250::11"]'
    assert node["POD-CIDRS"] == '["10.244.11.0/24"]'
    assert node["ROLES"] == "Member"

    (report,) = _table(stored.kubectl("get", "ipr", "--output=wide").stdout)
    assert report["READY"] == "false"
    assert report["REASON"] == "Establishing"
    assert report["KERNEL"] == "7.3.0"
    assert report["PLAN"] == "7"
    assert report["UNWELL"] == "40"
    assert report["CERTIFICATE-UNTIL"] == _NOW

    (mesh,) = _table(stored.kubectl("get", "ipm").stdout)
    assert mesh["NON-MEMBERS"] == "Allow"


def test_one_word_lists_all_kinds(stored: ApiServer) -> None:
    listed = stored.kubectl("get", "hauberk", "--output=name").stdout.split()
    assert sorted(listed) == [
        "ipsecmesh.hauberk.dev/default",
        "ipsecnode.hauberk.dev/n1",
        "ipsecreport.hauberk.dev/n1",
        "ipsectunnel.hauberk.dev/mesh",
    ]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("ipsectunnel.spec.enforcement", "Strict drops the tunnel's traffic"),
        ("ipsectunnel.spec.esp.rekeySeconds", "After how many seconds"),
        ("ipsectunnel.spec.hubSelector.matchExpressions", "Requirements on labels"),
        ("ipsecmesh.status.plan.tunnels.phase", "How far this generation has been rolled out"),
        ("ipsecnode.spec.podCIDRs", "The addresses of its pods"),
        ("ipsecreport.status.kernel.problems", "What it can't do"),
    ],
)
def test_kubectl_explains_every_depth(apiserver: ApiServer, path: str, words: str) -> None:
    assert words in " ".join(apiserver.kubectl("explain", path).stdout.split())


def test_people_see_the_sentence_on_kubectl_apply(apiserver: ApiServer) -> None:
    manifest: Any = {
        "apiVersion": API_VERSION,
        "kind": TUNNEL_KIND,
        "metadata": {"name": "mesh"},
        "spec": {"esp": {"proposals": ["des-md5"]}},
    }
    done = apiserver.kubectl("apply", "--filename=-", stdin=json.dumps(manifest), check=False)
    assert done.returncode == 1
    assert "'des-md5' is no ESP proposal that Hauberk knows: write CIPHER-esn" in done.stderr
