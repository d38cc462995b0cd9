"""A real cert-manager beside a real API server: its controllers of issuers and requests, and its CRDs, from the lab.

Without its webhook, as nothing here depends on what that checks. Called by the tests of delegated authorities.
"""

from __future__ import annotations

import base64
import contextlib
import subprocess
import time
from collections.abc import Generator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.deployment import NAMESPACE
from tests.lab import build, network
from tests.lab.api import Api

Json = dict[str, Any]

GROUP: Final = "/apis/cert-manager.io/v1"
REQUESTS: Final = f"{GROUP}/namespaces/{NAMESPACE}/certificaterequests"
HOME: Final = "cert-manager"
"""The namespace in which ClusterIssuers have their Secrets."""
SERVE_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0


class CompanyCA:
    """A CA as cert-manager's own Certificates make them by default: with an RSA key."""

    def __init__(self, name: str) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        usage = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=90))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def secret_data(self) -> Mapping[str, str]:
        key = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "tls.crt": base64.b64encode(self.pem.encode()).decode(),
            "tls.key": base64.b64encode(key).decode(),
        }


class Server(Protocol):
    """An API server in a namespace, and its admin."""

    @property
    def netns(self) -> str: ...
    @property
    def kubeconfig(self) -> Path: ...
    @property
    def api(self) -> Api: ...
    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]: ...


class CertManager:
    """cert-manager for one API server. Its logs go into a directory."""

    def __init__(self, server: Server, *, logs: Path) -> None:
        self._server = server
        self._logs = logs
        self._parts = build.ensure_cert_manager(print)
        self._count = 0

    def delete_crds(self) -> None:
        """And with them all that was made of them."""
        self._server.kubectl("delete", f"--filename={self._parts / 'crds'}")

    def apply_crds(self) -> None:
        """Apply its CRDs and wait until the API server serves them."""
        self._server.kubectl("apply", "--server-side", f"--filename={self._parts / 'crds'}")
        deadline = time.monotonic() + SERVE_SECONDS
        while "certificaterequests" not in self._server.kubectl("get", "--raw", GROUP, check=False).stdout:
            assert time.monotonic() < deadline, "cert-manager's CRDs are not served"
            time.sleep(0.1)

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        """Run its controllers; the approver approves all, as cert-manager does unless told otherwise."""
        self._count += 1
        log = self._logs / f"cert-manager-{self._count}.log"
        command = network.command_inside(
            self._server.netns,
            [
                str(self._parts / "cert-manager"),
                f"--kubeconfig={self._server.kubeconfig}",
                f"--cluster-resource-namespace={HOME}",
            ],
        )
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield
            assert process.poll() is None, f"cert-manager ended:\n{log.read_text()}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def issue_by(self, name: str, authority: CompanyCA, *, cluster: bool = False) -> None:
        """An Issuer in the operator's namespace, or a ClusterIssuer; one that exists signs with this CA from now on."""
        home = {"namespace": HOME if cluster else NAMESPACE}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"{name}-ca"} | home,
            "type": "kubernetes.io/tls",
            "data": authority.secret_data,
        }
        issuer = {
            "apiVersion": "cert-manager.io/v1",
            "kind": "ClusterIssuer" if cluster else "Issuer",
            "metadata": {"name": name} | ({} if cluster else home),
            "spec": {"ca": {"secretName": f"{name}-ca"}},
        }
        self._server.kubectl("apply", "--filename=-", stdin=yaml.safe_dump_all([namespace, secret, issuer]))

    def requests(self, wanted_for: str = "") -> list[Json]:
        """The CertificateRequests, of all or for one CertificateSigningRequest's UID."""
        found: list[Json] = self._server.api.get(REQUESTS)["items"]
        return [obj for obj in found if wanted_for in ("", obj["metadata"]["labels"]["hauberk.dev/for"])]

    def deny(self, request: Json, message: str) -> None:
        """As an approver of people's does."""
        denied = {"type": "Denied", "status": "True", "reason": "policy.example.com", "message": message}
        body = request | {"status": {"conditions": [denied]}}
        self._server.api.request("PUT", f"{REQUESTS}/{request['metadata']['name']}/status", body)
