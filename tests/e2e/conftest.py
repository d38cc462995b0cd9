"""The shared cluster with Hauberk installed in it, and checked traffic between all its pods.

The lab, the chart and the traffic are brought up once, by the first test that asks, and removed after the last. Tests
change the tunnel, kill agents, crash nodes; each leaves the cluster as it found it: no tunnel, all nodes Ready.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment import EXAMPLES, Deployment
from tests.e2e.wire import STEADY
from tests.lab.cluster import Lab
from tests.lab.fixtures import lab
from tests.lab.traffic import Traffic

__all__ = ["lab"]


@pytest.fixture(scope="session")
def deployment(lab: Lab) -> Iterator[Deployment]:
    """Hauberk, by `helm install` from this tree."""
    installed = Deployment.install(lab)
    yield installed
    if installed.installed():
        installed.uninstall()


@pytest.fixture(scope="session")
def traffic(lab: Lab) -> Iterator[Traffic]:
    """Traffic of every pair, family, protocol and path; not more of it than tells whether they work."""
    running = Traffic.apply(lab, pace=STEADY)
    running.wait_running()
    running.update_targets()
    yield running
    running.delete()


@pytest.fixture
def mesh(deployment: Deployment, traffic: Traffic) -> Iterator[str]:
    """The tunnel of examples/mesh.yaml, applied and up on every pair; its name. Deleted afterwards."""
    name = "mesh"
    deployment.lab.kubectl("apply", "-f", str(EXAMPLES / f"{name}.yaml"))
    try:
        deployment.wait_paired(timeout=60)
        deployment.lab.kubectl("wait", "--for=condition=Ready", f"ipsectunnel/{name}", "--timeout=60s", timeout=70)
        yield name
    finally:
        deployment.lab.kubectl("delete", "ipsectunnel", name, "--ignore-not-found", "--timeout=60s", timeout=70)


@pytest.fixture
def pcap(tmp_path: Path) -> Path:
    """Where a test's capture goes."""
    return tmp_path / "wire.pcap"
