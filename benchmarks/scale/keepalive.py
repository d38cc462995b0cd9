"""kwok (sigs.k8s.io/kwok) keeps the Nodes alive: it renews their Leases and repeats their status, as kubelets do."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.apiserver import ApiServer
from tests.lab.process import Process, spawn

ANNOTATION: Final = "hauberk.dev/kept-alive"
"""Nodes with this annotation live; one that dies loses it."""

_STAGES: Final = Path(__file__).resolve().parent / "kwok-stages.yaml"
LEASE_SECONDS: Final = 40
"""A kubelet's nodeLeaseDurationSeconds: renewed at a quarter of it. Of 5,000 nodes that is 500 writes a second."""


def start(server: ApiServer, kwok: Path, *, lease_seconds: int) -> Process:
    """Run it as admin. It lives in the server's network namespace, and so ends with the server at the latest."""
    command = server.command_inside(
        str(kwok),
        f"--kubeconfig={server.kubeconfig}",
        f"--config={_STAGES}",
        f"--manage-nodes-with-annotation-selector={ANNOTATION}=yes",
        f"--node-lease-duration-seconds={lease_seconds}",
    )
    return spawn(command, log=server.directory / "kwok.log")
