"""`helm uninstall` is a deed of its own: it leaves no state on any node and nothing but the CRDs in the API server."""

from __future__ import annotations

import pytest

from tests.deployment import NAMESPACE, Deployment
from tests.e2e.wire import silent_paths
from tests.lab.traffic import Traffic

pytestmark = pytest.mark.lab


def test_uninstalling_leaves_nothing_and_installing_again_works(
    deployment: Deployment, traffic: Traffic, mesh: str
) -> None:
    lab = deployment.lab
    # Pods of nodes that other tests have crashed meanwhile have other addresses now.
    traffic.wait_running()
    traffic.update_targets()
    try:
        deployment.uninstall()
        assert deployment.all_left() == []
        assert silent_paths(traffic) == [], "traffic flows on, in clear, as without Hauberk"
        left = lab.kubectl("get", "ipsectunnels,ipsecmeshes,ipsecnodes,ipsecreports,csr", "-o", "name").stdout.split()
        assert [name for name in left if "hauberk" in name] == []
        in_namespace = lab.kubectl("-n", NAMESPACE, "get", "all,secrets,leases,serviceaccounts", "-o", "name").stdout
        assert [name for name in in_namespace.split() if "hauberk" in name] == []
        cluster_wide = lab.kubectl(
            "get",
            "clusterroles,clusterrolebindings,flowschemas,validatingadmissionpolicies,validatingadmissionpolicybindings",
            "-o",
            "name",
        ).stdout
        assert [name for name in cluster_wide.split() if "hauberk" in name] == []
    finally:
        if not deployment.installed():
            Deployment.install(lab)
