"""The network plugin's pieces fit each other."""

import json

from tests.lab import cni, containers


def test_pods_get_addresses_of_both_families_from_the_nodes_own_networks() -> None:
    network = json.loads(cni.bridge(("10.244.12.0/24", "fd00:244:12::/64")))
    ipam = network["plugins"][0]["ipam"]
    assert ipam["ranges"] == [[{"subnet": "10.244.12.0/24"}], [{"subnet": "fd00:244:12::/64"}]]
    assert ipam["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]


def test_it_is_installed_where_containerd_looks_and_written_where_it_does_not() -> None:
    assert f'conf_dir = "{cni.CONFIGURATION_DIRECTORY}"' in containers.containerd_configuration()
    pod = json.loads(json.dumps(cni.daemon_set()))["spec"]["template"]["spec"]
    script = pod["containers"][0]["command"][-1]
    assert f"cp {cni.DIRECTORY}/{cni.FILE} " in script
    assert f"{cni.CONFIGURATION_DIRECTORY}/{cni.FILE}\n" in script
    assert pod["volumes"][0]["hostPath"]["path"] == cni.DIRECTORY


def test_it_comes_to_nodes_that_are_not_ready() -> None:
    pod = json.loads(json.dumps(cni.daemon_set()))["spec"]["template"]["spec"]
    assert pod["hostNetwork"] is True
    assert pod["tolerations"] == [{"operator": "Exists"}]
