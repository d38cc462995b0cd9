"""The rights of operator and agents: all of them, so that one more needs a change here."""

from collections.abc import Iterator

from hauberk_api.kinds import GROUP
from hauberk_api.names import CA_SECRET, IMPORTED_CA_SECRET, LEASE, SIGNER
from tests.unit.chart.helm import NAMESPACE, Helm, Object, Rendered

Right = tuple[str, str, str, str]
"""Group, resource, name ("" for any), verb."""


def test_nothing_is_granted_by_wildcard(chart: Rendered) -> None:
    for role in (*chart.of("ClusterRole"), *chart.of("Role")):
        for rule in role["rules"]:
            for values in rule.values():
                assert not any("*" in value for value in values), role["metadata"]["name"]
            assert "nonResourceURLs" not in rule


def test_what_agents_may_do(chart: Rendered) -> None:
    assert _rights(chart.one("ClusterRole", "hauberk-agent")) == {
        *_grant(GROUP, "ipsecmeshes", "get list watch"),
        *_grant(GROUP, "ipsecnodes", "get list watch"),
        *_grant(GROUP, "ipsecreports", "get create"),
        *_grant(GROUP, "ipsecreports/status", "get patch"),
        *_grant("certificates.k8s.io", "certificatesigningrequests", "get create"),
    }


def test_what_the_operator_may_do_everywhere(chart: Rendered) -> None:
    assert _rights(chart.one("ClusterRole", "hauberk-operator")) == {
        *_grant("", "nodes", "get list watch patch"),
        *_grant(GROUP, "ipsectunnels", "get list watch patch delete"),
        *_grant(GROUP, "ipsectunnels/status", "get patch"),
        *_grant(GROUP, "ipsecmeshes", "get list watch create delete"),
        *_grant(GROUP, "ipsecmeshes/status", "get patch"),
        *_grant(GROUP, "ipsecnodes", "get list watch create patch delete"),
        *_grant(GROUP, "ipsecreports", "get list watch delete"),
        *_grant("certificates.k8s.io", "certificatesigningrequests", "get list watch delete"),
        *_grant("certificates.k8s.io", "certificatesigningrequests/approval", "update"),
        *_grant("certificates.k8s.io", "certificatesigningrequests/status", "update"),
        *_grant("certificates.k8s.io", "signers", "approve sign", name=SIGNER),
        *_grant("crd.projectcalico.org", "ipamblocks", "list watch"),
        *_grant("cilium.io", "ciliumnodes", "list watch"),
    }


def test_what_the_operator_may_do_in_its_namespace(chart: Rendered) -> None:
    role = chart.one("Role", "hauberk-operator")
    assert role["metadata"]["namespace"] == NAMESPACE
    assert _rights(role) == {
        *_grant("", "pods", "get"),
        *_grant("", "secrets", "create"),
        *_grant("", "secrets", "get update delete", name=CA_SECRET),
        *_grant("", "secrets", "get", name=IMPORTED_CA_SECRET),
        *_grant("coordination.k8s.io", "leases", "create"),
        *_grant("coordination.k8s.io", "leases", "get update", name=LEASE),
    }


def test_what_the_operator_may_do_for_an_issuer_of_cert_managers(helm: Helm, chart: Rendered) -> None:
    without = _rights(chart.one("Role", "hauberk-operator"))
    enabled = _rights(helm.render({"certManager.enabled": True}).one("Role", "hauberk-operator"))
    assert enabled - without == _grant("cert-manager.io", "certificaterequests", "get list watch create delete")
    values = {"certManager.enabled": True, "certManager.caConfigMap": "company-ca"}
    named = _rights(helm.render(values).one("Role", "hauberk-operator"))
    assert named - enabled == _grant("", "configmaps", "get", name="company-ca")


def test_roles_go_to_their_own_account(chart: Rendered) -> None:
    for binding in (*chart.of("ClusterRoleBinding"), *chart.of("RoleBinding")):
        (subject,) = binding["subjects"]
        assert subject["kind"] == "ServiceAccount"
        assert subject["namespace"] == NAMESPACE
        assert binding["roleRef"]["name"].startswith(subject["name"])
    bound = {binding["roleRef"]["name"] for binding in (*chart.of("ClusterRoleBinding"), *chart.of("RoleBinding"))}
    assert bound == {role["metadata"]["name"] for role in (*chart.of("ClusterRole"), *chart.of("Role"))}


def _rights(role: Object) -> set[Right]:
    return set(_expand(role))


def _expand(role: Object) -> Iterator[Right]:
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for name in rule.get("resourceNames", [""]):
                    for verb in rule["verbs"]:
                        yield group, resource, name, verb


def _grant(group: str, resource: str, verbs: str, *, name: str = "") -> set[Right]:
    return {(group, resource, name, verb) for verb in verbs.split()}
