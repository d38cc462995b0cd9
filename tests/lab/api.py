"""Plain requests to the lab's API server, for what the lab itself does with it. Called by `cluster` and `controlplane`.

kubectl would do too, but takes a fifth of a second of CPU each time, and bringing up a lab asks often.
"""

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.errors import LabError, Unreachable
from tests.lab.network import socket_inside

PORT = 6443


class ApiRefused(LabError):  # noqa: N818 (it reads as what happened)
    """The API server answered with an error."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """An API server in a lab's namespace, as a client with a certificate sees it."""

    namespace: str
    address: str
    pki: Path  # holds ca.crt, admin.crt and admin.key

    def get(self, path: str) -> dict[str, Any]:
        """Errors: Unreachable, ApiRefused."""
        return json.loads(self.request("GET", path))

    def post(self, path: str, body: dict[str, Any]) -> None:
        """Errors: Unreachable, ApiRefused."""
        self.request("POST", path, body)

    def delete(self, path: str) -> None:
        """Errors: Unreachable, ApiRefused."""
        self.request("DELETE", path)

    def is_ready(self) -> bool:
        """What /readyz says; False when nobody answers."""
        try:
            return self.request("GET", "/readyz") == b"ok"
        except (Unreachable, ApiRefused):
            return False

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        """One request on a connection of its own. Errors: Unreachable, ApiRefused."""
        try:
            family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
            context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
            context.load_cert_chain(self.pki / "admin.crt", self.pki / "admin.key")
            plain = socket_inside(self.namespace, family, socket.SOCK_STREAM)
            try:
                plain.settimeout(10)
                plain.connect((self.address, PORT))
                tls = context.wrap_socket(plain, server_hostname=self.address)
            except BaseException:
                plain.close()
                raise
            connection = http.client.HTTPConnection(self.address, PORT)
            connection.sock = tls
            try:
                connection.request(
                    method,
                    path,
                    body=None if body is None else json.dumps(body),
                    headers={"Content-Type": "application/json", "Accept": "application/json"},
                )
                response = connection.getresponse()
                content = response.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"kube-apiserver does not answer: {error}") from error
        if response.status >= 400:
            raise ApiRefused(response.status, f"{method} {path}: {content.decode(errors='replace').strip()}")
        return content
