"""The mesh's authority in the hands of a cert-manager issuer: by which CA it is known, and what it signs.

cert-manager vouches for no CA: what agents are to trust, people say (caBundle, caConfigMap), and status.ca of a
CertificateRequest counts for nothing. Before an issuer takes over it proves itself by a certificate that is thrown
away, made and checked as nodes' are: so one that does not exist, is not approved, or signs with another CA takes
nothing away from a mesh that works. The CA that the proof leads to is then rolled to as any other root (ca_roll.py).
When nodes' certificates come to lead to another of the CAs, the issuer has rolled, and the mesh follows.

Called by authority.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from hauberk_api.certificate import build_request, fingerprint, node_dns_names
from hauberk_api.conditions import Reason
from hauberk_api.kinds import MESH_NAME
from hauberk_api.mesh import CertificateSettings, IssuerReference
from hauberk_api.names import NodeName, NodeUid
from hauberk_operator.ca_roll import Holdings
from hauberk_operator.cert_manager import Ask, CertManager, Obtained, proof_of
from hauberk_operator.facts import Json, RequestFacts
from hauberk_operator.issuance import UNREADABLE, BadBundleError, Wanted, parse_bundle
from hauberk_operator.issuer import Issued, Order, Pending
from hauberk_operator.kube import Kube, KubeError
from hauberk_operator.standing import Fault
from hauberk_operator.view import ClusterView
from hauberk_operator.writes import CONFIG_MAP, MESH, REQUEST, Resource

_PROOF_NAME: Final = NodeName("proof")
_PROOF_UID: Final = NodeUid("00000000-0000-0000-0000-000000000000")
"""No node's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One look at an issuer."""

    imported: x509.Certificate | None = None
    """The CA that it signs with, if that is known and news."""
    fault: Fault | None = None
    look_in: float | None = None
    """Seconds."""


class Delegation:
    """The issuer that the mesh's settings name."""

    def __init__(
        self,
        kube: Kube,
        view: ClusterView,
        manager: CertManager,
        *,
        namespace: str,
        clock: Callable[[], datetime],
        changed: Callable[[], None],
    ) -> None:
        """changed: called when the issuer is seen to sign with another of its CAs."""
        self._kube = kube
        self._view = view
        self._manager = manager
        self._namespace = namespace
        self._clock = clock
        self._changed = changed
        self._signs: x509.Certificate | None = None
        """The CA that the last certificate led to."""
        self.anchors: tuple[x509.Certificate, ...] | None = None
        """The CAs that the issuer is known by; None: that is not known."""

    @property
    def followed(self) -> x509.Certificate | None:
        """The CA that nodes' certificates have been seen to lead to, though another one is the mesh's."""
        return self._signs

    async def look(self, settings: CertificateSettings, holdings: Holdings | None) -> Found:
        """What there is to roll to, and what is amiss. Raises KubeError."""
        issuer = settings.issuer
        if issuer is None:
            self._signs, self.anchors = None, None
            self._manager.proving("")
            return Found()
        try:
            self.anchors = parse_bundle(await self._bundle(issuer))
        except BadBundleError as error:
            self.anchors = None
            return Found(fault=_unusable(f"the CA of {issuer} is not known: {error}"))
        if self._signs not in self.anchors or (holdings is not None and self._signs == holdings.current):
            self._signs = None
        if holdings is not None and holdings.delegated and holdings.current in self.anchors:
            self._manager.proving("")
            return Found(imported=self._signs, fault=self._manager.fault(issuer))
        return await self._prove(settings, issuer, self.anchors)

    def issuer(self, settings: CertificateSettings, holdings: Holdings) -> DelegatedIssuer | None:
        """Who signs, if an issuer does."""
        if settings.issuer is None or self.anchors is None:
            return None
        return DelegatedIssuer(
            certificate=holdings.current,
            manager=self._manager,
            reference=settings.issuer,
            anchors=self.anchors,
            since=holdings.since,
            coming=holdings.next,
            learn=self._learn,
        )

    def _learn(self, root: x509.Certificate) -> None:
        if self._signs != root:
            self._signs = root
            self._changed()

    async def _bundle(self, issuer: IssuerReference) -> str:
        """PEM. Raises BadBundleError, KubeError."""
        if issuer.ca_config_map is None:
            return issuer.ca_bundle
        name, key = issuer.ca_config_map.name, issuer.ca_config_map.key
        where = f"ConfigMap {self._namespace}/{name}"
        try:
            found = await self._kube.find(CONFIG_MAP, name, namespace=self._namespace)
        except KubeError as error:
            if error.status != 403:
                raise
            raise BadBundleError(
                f"{where} may not be read: set certManager.caConfigMap in the chart's values"
            ) from None
        if found is None:
            raise BadBundleError(f"there is no {where}")
        data: Json = found.get("data") or {}
        text: str | None = data.get(key)
        if text is None:
            raise BadBundleError(f"{where} has no key {key}")
        return text

    async def _prove(
        self, settings: CertificateSettings, issuer: IssuerReference, anchors: tuple[x509.Certificate, ...]
    ) -> Found:
        mesh = self._view.mesh
        assert mesh is not None
        if self._manager.problem:
            return Found(fault=_unusable(f"{issuer} can't be asked: {self._manager.problem}"))
        wanted_for = proof_of(issuer, anchors)
        request = self._manager.proving(wanted_for)
        try:
            key = x509.load_pem_x509_csr(request).public_key()
        except UNREADABLE:
            secret = ec.generate_private_key(ec.SECP256R1())
            request = build_request(secret, uid=_PROOF_UID, name=_PROOF_NAME, mesh=MESH_NAME)
            key = secret.public_key()
        ask = Ask(
            wanted_for=wanted_for,
            issuer=issuer,
            request=request,
            wanted=Wanted(
                public_key=key,
                dns_names=node_dns_names(_PROOF_UID, _PROOF_NAME, MESH_NAME),
                lifetime=timedelta(seconds=settings.lifetime_seconds),
            ),
            owner=_owner(MESH, mesh.name, mesh.uid),
        )
        outcome = await self._manager.obtain(ask, anchors)
        if isinstance(outcome, Obtained):
            return Found(imported=outcome.verified.root)
        trouble = self._manager.trouble(wanted_for).rstrip(".")
        fault = _unusable(f"{issuer} has not signed a first certificate yet: {trouble}") if trouble else None
        return Found(fault=fault, look_in=outcome.look_in)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DelegatedIssuer:
    """Has an issuer of cert-manager's sign (issuer.Issuer)."""

    certificate: x509.Certificate
    manager: CertManager
    reference: IssuerReference
    anchors: tuple[x509.Certificate, ...]
    since: datetime
    """When `certificate` became what signs, or later."""
    coming: x509.Certificate | None
    """What will sign next."""
    learn: Callable[[x509.Certificate], None]

    def waits(self, request: RequestFacts) -> Pending | None:
        return self.manager.waits(request.uid)

    async def issue(self, order: Order) -> Issued | Pending:
        request, grant = order.request, order.grant
        ask = Ask(
            wanted_for=request.uid,
            issuer=self.reference,
            request=request.request,
            wanted=Wanted(
                public_key=grant.public_key,
                dns_names=node_dns_names(grant.node_uid, grant.node_name, MESH_NAME),
                lifetime=timedelta(seconds=order.lifetime_seconds),
            ),
            owner=_owner(REQUEST, request.name, request.uid),
        )
        outcome = await self.manager.obtain(ask, self.anchors)
        if isinstance(outcome, Pending):
            return outcome
        root = outcome.verified.root
        if root == self.certificate:
            return Issued(chain=outcome.verified.chain)
        if root != self.coming and outcome.asked <= self.since:
            # Signed by the CA before: agents would exchange it at once. Both moments are whole seconds.
            return await self.manager.again(ask)
        self.learn(root)
        return Pending(
            message=f"{self.reference} signs with {fingerprint(root)[:16]} by now, which agents are to trust first"
        )


def _unusable(message: str) -> Fault:
    return Fault(reason=Reason.AUTHORITY_UNUSABLE, message=f"{message[:1].upper()}{message[1:]}")


def _owner(resource: Resource, name: str, uid: str) -> Json:
    return {"apiVersion": resource.api_version, "kind": resource.kind, "name": name, "uid": uid}
