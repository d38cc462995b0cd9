"""The cluster's network plugin: a bridge in every node, configured by a DaemonSet, as CNIs are installed anywhere.

A node is Ready when its network is, so what has to stand before pods run starts beside the plugin, as in any cluster.
A node's own configuration is written by `node_init` where no runtime looks, and the DaemonSet's pod moves a copy into
containerd's directory. Its image is the sandboxes' own, which is on every disk. Called by `node_init` and `cluster`.
"""

import json
from collections.abc import Sequence

from tests.lab.oci import PAUSE_IMAGE

DIRECTORY = "/run/cni"
CONFIGURATION_DIRECTORY = f"{DIRECTORY}/net.d"
FILE = "10-bridge.conflist"
NAMESPACE = "kube-system"
NAME = "lab-cni"

_INSTALL = f"""set -e
b=/bin/busybox
trap 'exit 0' TERM
$b mkdir -p {CONFIGURATION_DIRECTORY}
$b cp {DIRECTORY}/{FILE} {CONFIGURATION_DIRECTORY}/.{FILE}
$b mv {CONFIGURATION_DIRECTORY}/.{FILE} {CONFIGURATION_DIRECTORY}/{FILE}
$b sleep inf & wait
"""


def bridge(pod_cidrs: Sequence[str]) -> str:
    """The configuration of one node: pods get addresses from its own pod networks, on a bridge of its own."""
    network = {
        "cniVersion": "1.0.0",
        "name": "lab",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": f"{DIRECTORY}/ipam",
                    "ranges": [[{"subnet": cidr}] for cidr in pod_cidrs],
                    "routes": [{"dst": "::/0" if ":" in cidr else "0.0.0.0/0"} for cidr in pod_cidrs],
                },
            }
        ],
    }
    return json.dumps(network)


def daemon_set() -> dict[str, object]:
    """What installs it on every node, whatever its taints."""
    labels = {"app": NAME}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "hostNetwork": True,
                    "priorityClassName": "system-node-critical",
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 1,
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [
                        {
                            "name": "install",
                            "image": PAUSE_IMAGE,
                            "imagePullPolicy": "Never",
                            "command": ["/bin/busybox", "sh", "-c", _INSTALL],
                            "volumeMounts": [{"name": "cni", "mountPath": DIRECTORY}],
                        }
                    ],
                    "volumes": [{"name": "cni", "hostPath": {"path": DIRECTORY, "type": "Directory"}}],
                },
            },
        },
    }
