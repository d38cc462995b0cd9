"""Scratch pods: one on a node, made when first asked for, to run commands in a pod's network. Called by `cli`."""

import json
import time

from tests.lab.cluster import Lab
from tests.lab.errors import NodeUnknown, NotInTime

NAMESPACE = "scratch"
IMAGE = "localhost/hauberk-tools:dev"
START_SECONDS = 90.0


def ensure(lab: Lab, node: str) -> str:
    """The name of the scratch pod on a node, which runs when this returns. Errors: LabError, CommandFailed."""
    if node not in {member.name for member in lab.nodes}:
        raise NodeUnknown(f"the lab {lab.name} has no node {node}")
    name = f"on-{node}"
    if _runs(lab, name):
        return name
    if IMAGE not in lab.node_run(node, ["ctr", "-n", "k8s.io", "images", "ls", "-q"]).stdout.split():
        from tests.lab import image  # builds with buildah: only when it must

        lab.load_image(image.build_tools())
    lab.kubectl("apply", "-f", "-", stdin=json.dumps(_manifest(name, node)))
    deadline = time.monotonic() + START_SECONDS
    while not _runs(lab, name):
        if time.monotonic() > deadline:
            said = lab.kubectl("describe", "pod", name, "-n", NAMESPACE).stdout.splitlines()[-5:]
            raise NotInTime(f"the scratch pod on {node} did not run after {START_SECONDS:.0f} s: {' '.join(said)}")
        time.sleep(0.5)
    return name


def _runs(lab: Lab, name: str) -> bool:
    """Asks the pod itself: after a crash of its node its status says for a while what was true before."""
    return lab.kubectl("exec", name, "-n", NAMESPACE, "--", "true", check=False).returncode == 0


def _manifest(name: str, node: str) -> dict[str, object]:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "nodeName": node,
            "tolerations": [{"operator": "Exists"}],
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "tools",
                    "image": IMAGE,
                    "imagePullPolicy": "Never",
                    "command": ["sleep", "infinity"],
                    "securityContext": {"capabilities": {"add": ["NET_RAW", "NET_ADMIN"]}},
                }
            ],
        },
    }
    return {"apiVersion": "v1", "kind": "List", "items": [namespace, pod]}
