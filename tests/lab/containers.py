"""How containerd and kubelet are set up in every node: pure texts. Called by `node` and `disk`."""

import json
from pathlib import Path

from tests.lab.cni import CONFIGURATION_DIRECTORY
from tests.lab.oci import PAUSE_IMAGE

SOCKET = "/run/containerd/containerd.sock"


def containerd_configuration() -> str:
    """containerd's own configuration (version 3: containerd 2)."""
    return f"""version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE_IMAGE}"
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "{CONFIGURATION_DIRECTORY}"
"""


def kubelet_configuration(*, client_authority: Path) -> str:
    """kubelet's configuration (kubelet.config.k8s.io/v1beta1); JSON is YAML too."""
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(client_authority)},
            },
            "authorization": {"mode": "Webhook"},
            # There is no systemd and no swap in a node, and no DNS in the cluster.
            "cgroupDriver": "cgroupfs",
            "failSwapOn": False,
            "resolvConf": "",
            "enforceNodeAllocatable": [],
            "localStorageCapacityIsolation": False,
            "makeIPTablesUtilChains": False,
            # The node's root is the host's, read-only.
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            # No registry would give an image back that was collected.
            "imageGCHighThresholdPercent": 100,
            # Whatever is killed again and again is there again at once.
            "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
        },
        indent=1,
    )
