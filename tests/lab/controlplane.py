"""The control plane: etcd and the Kubernetes servers, processes inside the lab's namespace. Called by `cluster`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lab import addresses
from tests.lab.addresses import Family
from tests.lab.api import PORT

ETCD = "etcd"
APISERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
SERVERS = (ETCD, APISERVER, CONTROLLER_MANAGER, SCHEDULER)  # in the order in which they start

_AUDIT_LOG_MEGABYTES = 100_000
"""It is one file to its readers, whatever happens in a mesh of thousands: never begun anew."""
_ETCD_CLIENTS = "http://127.0.0.1:2379"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """Where the control plane's files lie, and so how its servers are started."""

    family: Family
    run_directory: Path
    binaries: Path  # Kubernetes' own; etcd is Debian's

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.run_directory / "pki"

    @property
    def audit_log(self) -> Path:
        """What the API server was asked: one JSON event (audit.k8s.io/v1) a line."""
        return self.run_directory / "audit.log"

    @property
    def url(self) -> str:
        """The API server's address for nodes, pods and people."""
        address = addresses.control_plane(self.family)[0]
        return f"https://[{address}]:{PORT}" if ":" in address else f"https://{address}:{PORT}"

    def server_names(self) -> list[str]:
        """The names that the API server's certificate must have."""
        return [
            *addresses.control_plane(self.family),
            *addresses.first_services(self.family),
            *("127.0.0.1", "::1"),
            *("kubernetes", "kubernetes.default", "kubernetes.default.svc"),
            "kubernetes.default.svc.cluster.local",
        ]

    def write_audit_policy(self) -> None:
        """Every request once, when it is done, without its body; but for the nodes' heartbeats, which say nothing."""
        heartbeats = {
            "level": "None",
            "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}],
            "namespaces": ["kube-node-lease"],
        }
        policy = {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [heartbeats, {"level": "Metadata"}],
        }
        (self.run_directory / "audit-policy.json").write_text(json.dumps(policy))

    def commands(self) -> Mapping[str, list[str]]:
        """The command line of each of SERVERS."""
        return {
            ETCD: self._etcd(),
            APISERVER: self._apiserver(),
            CONTROLLER_MANAGER: self._controller_manager(),
            SCHEDULER: self._scheduler(),
        }

    def _etcd(self) -> list[str]:
        return [
            "etcd",
            f"--data-dir={self.run_directory / 'etcd'}",
            "--unsafe-no-fsync",  # the lab does not outlive the machine
            f"--listen-client-urls={_ETCD_CLIENTS}",
            f"--advertise-client-urls={_ETCD_CLIENTS}",
            "--listen-peer-urls=http://127.0.0.1:2380",
        ]

    def _apiserver(self) -> list[str]:
        return [
            str(self.binaries / APISERVER),
            f"--etcd-servers={_ETCD_CLIENTS}",
            f"--bind-address={'0.0.0.0' if self.family is Family.IPV4 else '::'}",  # noqa: S104 (in a namespace)
            f"--secure-port={PORT}",
            f"--advertise-address={addresses.control_plane(self.family)[0]}",
            f"--service-cluster-ip-range={','.join(addresses.service_networks(self.family))}",
            f"--tls-cert-file={self.pki / 'apiserver.crt'}",
            f"--tls-private-key-file={self.pki / 'apiserver.key'}",
            f"--client-ca-file={self.pki / 'ca.crt'}",
            f"--kubelet-client-certificate={self.pki / 'apiserver-kubelet-client.crt'}",
            f"--kubelet-client-key={self.pki / 'apiserver-kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={self.pki / 'service-accounts.pub'}",
            f"--service-account-signing-key-file={self.pki / 'service-accounts.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
            f"--audit-policy-file={self.run_directory / 'audit-policy.json'}",
            f"--audit-log-path={self.audit_log}",
            f"--audit-log-maxsize={_AUDIT_LOG_MEGABYTES}",
        ]

    def _controller_manager(self) -> list[str]:
        return [
            str(self.binaries / CONTROLLER_MANAGER),
            f"--kubeconfig={self.run_directory / 'kube-controller-manager.kubeconfig'}",
            f"--service-account-private-key-file={self.pki / 'service-accounts.key'}",
            f"--root-ca-file={self.pki / 'ca.crt'}",
            f"--cluster-signing-cert-file={self.pki / 'ca.crt'}",
            f"--cluster-signing-key-file={self.pki / 'ca.key'}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        ]

    def _scheduler(self) -> list[str]:
        return [
            str(self.binaries / SCHEDULER),
            f"--kubeconfig={self.run_directory / 'kube-scheduler.kubeconfig'}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        ]
