"""The pods: on the host's network, and with no more rights than they need."""

import pytest

from hauberk_api.names import LEASE
from tests.unit.chart.helm import Helm, Object, Rendered

PODS = ("hauberk-operator", "hauberk-uninstall", "hauberk-agent")


@pytest.mark.parametrize("name", PODS)
def test_pods_need_neither_the_tunnel_nor_dns(chart: Rendered, name: str) -> None:
    pod = chart.pod_templates()[name]
    assert pod["hostNetwork"] is True
    assert pod["dnsPolicy"] == "Default"
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}


@pytest.mark.parametrize("name", PODS)
def test_containers_have_no_privileges(chart: Rendered, name: str) -> None:
    pod = chart.pod_templates()[name]
    assert "hostPID" not in pod
    assert "hostIPC" not in pod
    security = _container(pod)["securityContext"]
    assert "privileged" not in security
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["capabilities"]["drop"] == ["ALL"]


def test_the_agent_alone_is_root_and_has_three_capabilities(chart: Rendered) -> None:
    for name, pod in chart.pod_templates().items():
        security = _container(pod)["securityContext"]
        if name == "hauberk-agent":
            assert security["runAsUser"] == 0
            assert security["capabilities"]["add"] == ["NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW"]
        else:
            assert security["runAsNonRoot"] is True
            assert security["runAsUser"] > 0
            assert "add" not in security["capabilities"]
            assert "volumes" not in pod


@pytest.mark.parametrize("name", ["hauberk-operator", "hauberk-agent"])
def test_probes_ask_the_program_itself_and_no_other_node(chart: Rendered, name: str) -> None:
    container = _container(chart.pod_templates()[name])
    probes = [container[kind]["httpGet"] for kind in ("livenessProbe", "readinessProbe")]
    assert {probe["host"] for probe in probes} == {"127.0.0.1"}
    assert len({probe["port"] for probe in probes}) == 1


def test_the_agent_runs_on_every_linux_node_and_is_replaced_in_place(chart: Rendered) -> None:
    pod = chart.pod_templates()["hauberk-agent"]
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["priorityClassName"] == "system-node-critical"
    update = chart.one("DaemonSet", "hauberk-agent")["spec"]["updateStrategy"]["rollingUpdate"]
    assert update == {"maxSurge": 0, "maxUnavailable": "10%"}


def test_operators_share_no_node(chart: Rendered) -> None:
    # They would share the port of the probes too.
    deployment = chart.one("Deployment", "hauberk-operator")["spec"]
    assert deployment["replicas"] == 2
    pod = deployment["template"]
    (term,) = pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_the_uninstaller_is_no_operator_to_services_and_budgets(chart: Rendered) -> None:
    job = chart.one("Job", "hauberk-uninstall")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    labels = job["spec"]["template"]["metadata"]["labels"]
    budget = chart.one("PodDisruptionBudget", "hauberk-operator")["spec"]["selector"]["matchLabels"]
    assert not budget.items() <= labels.items()
    # kubelet ends it only after it had time to say what it could not clean.
    timeout = int(_container(chart.pod_templates()["hauberk-uninstall"])["command"][-1].rpartition("=")[2])
    assert job["spec"]["activeDeadlineSeconds"] > timeout


def test_the_lease_goes_last_and_whoever_wrote_it(chart: Rendered) -> None:
    # Operators write the Lease themselves, and Helm deletes nothing that doesn't look like its own.
    annotations = chart.one("Lease", LEASE)["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "post-delete"
    assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"


@pytest.mark.parametrize("name", PODS)
def test_another_way_to_the_api_server(helm: Helm, name: str) -> None:
    pods = helm.render({"apiServer": {"host": "10.0.0.1", "port": 6443}}).pod_templates()
    environment = {variable["name"]: variable.get("value") for variable in _container(pods[name])["env"]}
    assert environment["KUBERNETES_SERVICE_HOST"] == "10.0.0.1"
    assert environment["KUBERNETES_SERVICE_PORT"] == "6443"


def test_the_image_by_tag_and_by_digest(helm: Helm, chart: Rendered) -> None:
    assert {_container(pod)["image"] for pod in chart.pod_templates().values()} == {"localhost/hauberk:0.1.0"}
    digest = f"sha256:{'ab' * 32}"
    values = {"image.repository": "registry.example/hauberk", "image.tag": "x", "image.digest": digest}
    pods = helm.render(values).pod_templates()
    assert {_container(pod)["image"] for pod in pods.values()} == {f"registry.example/hauberk@{digest}"}


def _container(pod: Object) -> Object:
    (container,) = pod["containers"]
    return container


def test_the_holder_is_there_when_wanted_has_no_capability_and_outlives_upgrades(helm: Helm, chart: Rendered) -> None:
    assert "hauberk-holder" not in chart.pod_templates()
    agent = _container(chart.pod_templates()["hauberk-agent"])
    assert not any(word.startswith("--holder-socket") for word in agent["command"])

    wanted = helm.render({"holder.enabled": True})
    pod = wanted.pod_templates()["hauberk-holder"]
    holder, agent = _container(pod), _container(wanted.pod_templates()["hauberk-agent"])
    assert wanted.one("DaemonSet", "hauberk-holder")["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert pod["hostNetwork"] is True
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert holder["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert holder["securityContext"]["readOnlyRootFilesystem"] is True
    place = holder["command"][-1].partition("=")[2]
    assert f"--holder-socket={place}" in agent["command"]
    mounts = [{m["mountPath"] for m in container["volumeMounts"]} for container in (holder, agent)]
    assert all(place.rpartition("/")[0] in paths for paths in mounts)


def test_an_agent_that_does_not_watch_what_leaves_has_no_raw_sockets(helm: Helm, chart: Rendered) -> None:
    assert "--no-bypass-watch" not in _container(chart.pod_templates()["hauberk-agent"])["command"]
    agent = _container(helm.render({"agent.bypassWatch": False}).pod_templates()["hauberk-agent"])
    assert "--no-bypass-watch" in agent["command"]
    assert agent["securityContext"]["capabilities"]["add"] == ["NET_ADMIN", "NET_BIND_SERVICE"]


def test_the_boot_guard_is_there_when_wanted_and_may_write_units_and_nothing_else(helm: Helm, chart: Rendered) -> None:
    assert "hauberk-boot-guard" not in chart.pod_templates()
    assert "--boot-guard" not in _container(chart.pod_templates()["hauberk-agent"])["command"]

    wanted = helm.render({"bootGuard.enabled": True, "bootGuard.unitDirectory": "/var/lib/units"})
    assert "--boot-guard" in _container(wanted.pod_templates()["hauberk-agent"])["command"]
    pod = wanted.pod_templates()["hauberk-boot-guard"]
    guard = _container(pod)
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod
    assert guard["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert guard["securityContext"]["readOnlyRootFilesystem"] is True
    assert guard["command"] == ["sh", "/boot-guard/keep.sh", "keep", "/var/lib/units"]
    assert [m["mountPath"] for m in guard["volumeMounts"] if not m.get("readOnly")] == ["/var/lib/units"]
    files = wanted.one("ConfigMap", "hauberk-boot-guard")["data"]
    assert files.keys() == {"keep.sh", "hauberk-guard.sh", "hauberk-guard.service"}
    assert "ExecStart=/bin/sh /var/lib/units/hauberk-guard.sh /var/lib/hauberk\n" in files["hauberk-guard.service"]


def test_the_agent_cannot_write_the_hosts_units(helm: Helm) -> None:
    # It speaks with strangers; whoever gets hold of it must not get the host at its next boot.
    agent = helm.render({"bootGuard.enabled": True}).pod_templates()["hauberk-agent"]
    paths = {volume["hostPath"]["path"] for volume in agent["volumes"] if "hostPath" in volume}
    assert paths == {"/var/lib/hauberk"}


def test_a_boot_guard_that_is_not_wanted_any_more_is_removed(helm: Helm) -> None:
    rendered = helm.render({"bootGuard.remove": True})
    assert _container(rendered.pod_templates()["hauberk-boot-guard"])["command"][2] == "remove"
    assert "--boot-guard" not in _container(rendered.pod_templates()["hauberk-agent"])["command"]
