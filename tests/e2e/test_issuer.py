"""The mesh's certificates come from a company's CA in cert-manager, and from the mesh's own again, under traffic."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from hauberk_api.certificate import fingerprint
from hauberk_api.kinds import API_VERSION, MESH_NAME, MESHES
from tests.cert_manager import CertManager, CompanyCA
from tests.deployment import CHART, NAMESPACE, RELEASE, Deployment
from tests.e2e.wire import eventually, names, silent_paths
from tests.ground import ground
from tests.lab.cluster import Lab
from tests.lab.traffic import Traffic
from tests.lab.vigil import Vigil

pytestmark = [pytest.mark.lab, pytest.mark.long]

MESH = f"/apis/{API_VERSION}/{MESHES}/{MESH_NAME}"
ROLL_SECONDS = 240.0


def upgrade(lab: Lab, *, cert_manager: bool) -> None:
    lab.helm(
        *("upgrade", RELEASE, str(CHART), "--namespace", NAMESPACE, "--reuse-values", "--wait"),
        *("--set", f"certManager.enabled={str(cert_manager).lower()}"),
    )


def shorten_lives(lab: Lab) -> None:
    """A mesh exchanges its certificates over a sixth of their life, and over five minutes at most."""
    certificates = {"lifetimeSeconds": 240, "roll": {"id": "shorter", "mode": "Distrust"}}
    lab.kubectl(
        "patch",
        f"{MESHES}/{MESH_NAME}",
        "--type=merge",
        f"--patch={json.dumps({'spec': {'certificates': certificates}})}",
    )


def change_issuer(lab: Lab, issuer: dict[str, Any] | None) -> None:
    patch = json.dumps({"spec": {"certificates": {"issuer": issuer}}})
    lab.kubectl("patch", f"{MESHES}/{MESH_NAME}", "--type=merge", f"--patch={patch}")


def trusted(lab: Lab) -> list[str]:
    """The fingerprints of the roots in the plan."""
    bundle: str = lab.api.get(MESH)["status"]["plan"]["trustBundle"]
    return [fingerprint(root) for root in x509.load_pem_x509_certificates(bundle.encode())]


def settled(lab: Lab) -> set[str]:
    """The root that all nodes' certificates are of, when the mesh is at rest and trusts no other; else nothing."""
    roots = trusted(lab)
    reports = lab.api.get(f"/apis/{API_VERSION}/ipsecreports")["items"]
    certificates: list[dict[str, str]] = [report.get("status", {}).get("certificate") or {} for report in reports]
    used = {certificate.get("issuerFingerprint", "") for certificate in certificates}
    stable = lab.api.get(MESH)["status"]["authority"]["phase"] == "Stable"
    return used if stable and used == set(roots) and len(roots) == 1 else set()


@contextmanager
def without_loss(deployment: Deployment, traffic: Traffic, scratch: Path) -> Generator[None]:
    """Whatever is done in the block, every message is answered, and nothing is in clear."""
    before = traffic.stats()
    with Vigil(deployment.lab, lambda: ground(deployment.lab), directory=scratch) as vigil:
        yield
        time.sleep(traffic.pace.patience_seconds)
    passed = traffic.stats().since(before)
    assert passed.total.sent > 1_000
    assert passed.total.lost == 0, passed.table()
    assert vigil.toll().faults(esp_between=names(deployment.lab)) == []


def test_agents_change_to_certificates_of_an_issuer_and_back_without_loss(
    deployment: Deployment, traffic: Traffic, mesh: str, tmp_path: Path
) -> None:
    lab, company = deployment.lab, CompanyCA("Example Corp")
    theirs = {fingerprint(company.certificate)}
    assert silent_paths(traffic) == []
    before = set(trusted(lab))
    shorten_lives(lab)
    own = eventually(lambda: settled(lab), until=lambda now: bool(now - before), timeout=ROLL_SECONDS)
    assert own
    deployment.wait_paired(timeout=60)
    cert_manager = CertManager(lab, logs=tmp_path)
    cert_manager.apply_crds()
    upgrade(lab, cert_manager=True)
    try:
        cert_manager.issue_by("company", company)
        with cert_manager.running():
            with without_loss(deployment, traffic, tmp_path):
                change_issuer(lab, {"name": "company", "caBundle": company.pem})
                assert eventually(lambda: settled(lab), until=theirs.__eq__, timeout=ROLL_SECONDS) == theirs
            assert lab.api.get(MESH)["status"]["authority"]["issuer"] == "Issuer company"
            with without_loss(deployment, traffic, tmp_path):
                change_issuer(lab, None)
                after = eventually(
                    lambda: settled(lab), until=lambda now: bool(now) and now != theirs, timeout=ROLL_SECONDS
                )
            assert len(after) == 1
            assert not after & (theirs | own), "a key that was deleted does not come back"
            assert deployment.unpaired() == []
    finally:
        lab.kubectl(
            "patch", f"{MESHES}/{MESH_NAME}", "--type=json", '--patch=[{"op":"remove","path":"/spec/certificates"}]'
        )
        cert_manager.delete_crds()
        upgrade(lab, cert_manager=False)
