"""What the chart renders, and which values it refuses."""

from typing import Any

import pytest
import yaml

from hauberk_api.names import (
    AGENT_SERVICE_ACCOUNT,
    LEASE,
    OPERATOR_SERVICE_ACCOUNT,
    STARTUP_TAINT,
    STATE_DIRECTORY,
    STATUS_SOCKET,
)
from tests.unit.chart.helm import CHART, NAMESPACE, Helm, Rendered

KINDS_WITHOUT_NAMESPACE = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "FlowSchema",
    "PriorityLevelConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}


def test_lint_has_nothing_to_say(helm: Helm) -> None:
    done = helm.run("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"operator.replicas": 1, "flowControl.enabled": False, "uninstall.enabled": False, "crds.install": False},
        {"image": {"repository": "registry.example:5000/a/hauberk", "digest": f"sha256:{'0' * 64}"}},
        {"apiServer": {"host": "fd00::1", "port": 6443}, "imagePullSecrets": [{"name": "mine"}]},
        {"operator.tolerations": [], "operator.nodeSelector": {"a": "b"}, "agent.podAnnotations": {"a": "b"}},
        {"bootGuard.enabled": True, "holder.enabled": True},
        {"agent.maxUnavailable": 3, "agent.resources": {}, "operator.resources": {}},
    ],
)
def test_every_rendered_object_is_named_and_labelled(helm: Helm, values: dict[str, Any]) -> None:
    for obj in helm.render(values).objects:
        assert obj["apiVersion"]
        assert obj["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        has_namespace = "namespace" in obj["metadata"]
        assert has_namespace == (obj["kind"] not in KINDS_WITHOUT_NAMESPACE), obj["metadata"]["name"]
        name = obj["metadata"]["name"]
        assert name.startswith("hauberk-") or name.endswith(".hauberk.dev")


def test_everything_goes_to_the_releases_namespace_but_the_events_role(helm: Helm) -> None:
    elsewhere = {
        (obj["kind"], obj["metadata"]["name"], obj["metadata"]["namespace"])
        for obj in helm.render(namespace="armour").objects
        if obj["metadata"].get("namespace", "armour") != "armour"
    }
    assert elsewhere == {
        ("Role", "hauberk-operator-events", "default"),
        ("RoleBinding", "hauberk-operator-events", "default"),
    }
    assert NAMESPACE not in yaml.safe_dump_all(helm.render(namespace="armour").objects)


def test_crds_are_those_of_the_repository_and_stay(chart: Rendered) -> None:
    sources = [yaml.safe_load(path.read_text()) for path in sorted((CHART.parents[1] / "crds").glob("*.yaml"))]
    rendered = {obj["metadata"]["name"]: obj for obj in chart.of("CustomResourceDefinition")}
    assert sorted(rendered) == sorted(source["metadata"]["name"] for source in sources)
    for source in sources:
        crd = rendered[source["metadata"]["name"]]
        assert crd["spec"] == source["spec"]
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_a_packaged_chart_holds_the_crds_themselves(helm: Helm, tmp_path: Any, chart: Rendered) -> None:
    # schemas/ holds links out of the chart: whoever gets the package has no repository around it.
    done = helm.run("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("hauberk-*.tgz")
    rendered = helm.run("template", "hauberk", str(package), f"--namespace={NAMESPACE}")
    assert [obj for obj in yaml.safe_load_all(rendered.stdout) if obj] == list(chart.objects)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"oprator": {}}, "oprator"),
        ({"operator.replicas": 0}, "/operator/replicas"),
        ({"operator.replicas": "two"}, "/operator/replicas"),
        ({"operator.nodeselector": {}}, "nodeselector"),
        ({"image.pullPolicy": "Sometimes"}, "/image/pullPolicy"),
        ({"image.repository": ""}, "/image/repository"),
        ({"image.digest": "sha256:12"}, "/image/digest"),
        ({"apiServer.host": "https://10.0.0.1"}, "/apiServer/host"),
        ({"apiServer.port": 70000}, "/apiServer/port"),
        ({"agent.logLevel": "loud"}, "/agent/logLevel"),
        ({"agent.maxUnavailable": "0%"}, "/agent/maxUnavailable"),
        ({"agent.resources": {"limit": {}}}, "limit"),
        ({"operator.tolerations": [{"operator": "Sometimes"}]}, "/operator/tolerations"),
        ({"bootGuard.unitDirectory": "etc/systemd"}, "/bootGuard/unitDirectory"),
        ({"bootGuard.unitDirectory": "/etc/a b"}, "/bootGuard/unitDirectory"),
        ({"uninstall.timeoutSeconds": -1}, "/uninstall/timeoutSeconds"),
    ],
)
def test_nonsense_is_refused_by_name(helm: Helm, values: dict[str, Any], complaint: str) -> None:
    done = helm.template(values)
    assert done.returncode != 0
    assert complaint in done.stderr


def test_names_are_those_that_operator_and_agent_use(chart: Rendered) -> None:
    assert {obj["metadata"]["name"] for obj in chart.of("ServiceAccount")} == {
        AGENT_SERVICE_ACCOUNT,
        OPERATOR_SERVICE_ACCOUNT,
    }
    assert chart.one("Lease", LEASE)["metadata"]["namespace"] == NAMESPACE
    agent = chart.pod_templates()["hauberk-agent"]
    mounts = {mount["mountPath"]: mount["name"] for mount in agent["containers"][0]["volumeMounts"]}
    assert set(mounts) == {STATE_DIRECTORY, STATUS_SOCKET.rpartition("/")[0]}
    (state,) = (volume for volume in agent["volumes"] if volume["name"] == mounts[STATE_DIRECTORY])
    assert state["hostPath"] == {"path": STATE_DIRECTORY, "type": "DirectoryOrCreate"}
    tolerated = {toleration.get("key") for toleration in chart.pod_templates()["hauberk-operator"]["tolerations"]}
    assert STARTUP_TAINT in tolerated
