"""The mesh's authority: what the Secret hauberk-ca holds, and the steps of a roll carried out on it.

The Secret, of type kubernetes.io/tls in the operator's namespace, has the root that signs (tls.crt, tls.key), in a
roll the next one (next.crt, next.key) or the ones before, without keys (previous.crt), and as annotations what
ca_roll.py goes by. Of a root whose key an issuer of cert-manager's has (delegation.py), the key is empty, and an
annotation says so. A new Secret is a POST and every change a PUT with the version that was read: of two operators one
wins, and the other reads what the first has written.

Called by lead.py as the step of a loop of its own. Keys stay in here: others get an Issuer, and certificates.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from hauberk_api.certificate import fingerprint
from hauberk_api.conditions import Reason
from hauberk_api.kinds import MESH_NAME
from hauberk_api.mesh import CertificateSettings, MeshSpec, RollMode
from hauberk_api.names import CA_SECRET
from hauberk_operator.ca import (
    BadAuthorityError,
    DelegatedRoot,
    Root,
    SecretSigner,
    certificate_pem,
    create_root,
    key_pem,
    load_root,
    prove,
)
from hauberk_operator.ca_roll import (
    LEAST_PATIENCE,
    Holdings,
    Move,
    Phase,
    Step,
    Wish,
    advance,
    rolls_at,
    witnesses_of,
)
from hauberk_operator.cert_manager import CertManager
from hauberk_operator.delegation import Delegation
from hauberk_operator.facts import Json
from hauberk_operator.issuer import Issuer, OwnIssuer
from hauberk_operator.kube import Kube, KubeError
from hauberk_operator.standing import Fault, rfc3339, standing_of
from hauberk_operator.view import ClusterView
from hauberk_operator.writes import MESH, SECRET, event

ROLLING_SECONDS: Final = 2.0
"""How often the agents' reports are looked at while a roll waits for them."""

IDLE_SECONDS: Final = 60.0
"""How often else: what people put into the imported Secret is seen after so long."""

MAX_STEPS: Final = 8
"""In one look."""

HANDLED: Final = "hauberk.dev/handled-roll"
SINCE: Final = "hauberk.dev/phase-since"
DELEGATED: Final = "hauberk.dev/delegated"
"""Which of the certificates, by their names in the Secret, have their keys with an issuer."""
_CERTIFICATE: Final = "tls.crt"
_KEY: Final = "tls.key"
_NEXT_CERTIFICATE: Final = "next.crt"
_NEXT_KEY: Final = "next.key"
_PREVIOUS: Final = "previous.crt"

log = logging.getLogger(__name__)


class Authority:
    """Keeps the Secret, and with it what signs and what is trusted."""

    def __init__(
        self,
        kube: Kube,
        view: ClusterView,
        manager: CertManager,
        *,
        namespace: str,
        clock: Callable[[], datetime],
        changed: Callable[[], None],
        look: Callable[[], None] = lambda: None,
    ) -> None:
        """changed: called when standing or issuer is another; look: when there is something for step() to see."""
        self._kube = kube
        self._view = view
        self._namespace = namespace
        self._clock = clock
        self._changed = changed
        self._delegation = Delegation(kube, view, manager, namespace=namespace, clock=clock, changed=look)
        self._store: _Store | None = None
        self._waited_for: tuple[str, ...] = ()
        self.standing = standing_of(None, None)

    def published_issuer(self) -> Issuer | None:
        """Who signs, once the plan in force has its root: before that, no agent would take what it signs."""
        mesh, store = self._view.mesh, self._store
        if store is None or mesh is None or mesh.plan is None or mesh.plan.authority != self.standing.authority:
            return None
        if isinstance(store.current, DelegatedRoot):
            return self._delegation.issuer(self._settings, store.holdings)
        return OwnIssuer(signer=store.current, clock=self._clock)

    async def step(self) -> float:
        """Look at the Secret and do what is due. Returns in how many seconds to look again.

        Raises KubeError, or BadAuthorityError when the Secret hauberk-ca holds something else.
        """
        for _ in range(MAX_STEPS):
            secret = await self._kube.find(SECRET, CA_SECRET, namespace=self._namespace)
            store = _Store.parse(secret, self._namespace) if secret is not None else None
            holdings = store.holdings if store is not None else None
            found = await self._delegation.look(self._settings, holdings)
            imported, fault = await self._read_import()
            if found.imported is not None:
                imported = DelegatedRoot(certificate=found.imported)
            now = self._clock()
            move = advance(
                holdings,
                self._wish(imported),
                witnesses_of(self._view.nodes, self._view.reports, now=now),
                published=self._published(),
                now=now,
            )
            if isinstance(move, Move):
                await self._carry_out(move, secret, store, imported)
                continue
            self._take(store, fault or found.fault or self._expiry(holdings, now))
            self._tell_wait(move.waits_for)
            if holdings is not None and holdings.phase is not Phase.STABLE:
                return ROLLING_SECONDS
            until = (move.until - now) / timedelta(seconds=1) if move.until is not None else IDLE_SECONDS
            if found.look_in is not None:
                until = min(until, found.look_in)
            return max(1.0, min(until, IDLE_SECONDS))
        return ROLLING_SECONDS

    @property
    def _settings(self) -> CertificateSettings:
        mesh = self._view.mesh
        return (mesh.spec if mesh is not None and mesh.spec is not None else MeshSpec()).certificates

    @property
    def _unreadable(self) -> bool:
        mesh = self._view.mesh
        return mesh is not None and mesh.spec is None

    def _wish(self, imported: Root | None) -> Wish:
        settings = self._settings
        return Wish(
            roll=settings.roll.id,
            distrust=settings.roll.mode is RollMode.DISTRUST,
            # While the spec can't be read nothing is rolled to anything.
            importing=bool(settings.ca_secret) or settings.issuer is not None or self._unreadable,
            delegating=settings.issuer is not None,
            imported=imported.certificate if imported is not None else None,
            patience=max(timedelta(seconds=settings.lifetime_seconds), LEAST_PATIENCE),
        )

    def _published(self) -> set[str]:
        return {fingerprint(root) for root in self._published_roots()}

    def _published_roots(self) -> tuple[x509.Certificate, ...]:
        mesh = self._view.mesh
        bundle = mesh.plan.trust_bundle if mesh is not None and mesh.plan is not None else ""
        try:
            return tuple(x509.load_pem_x509_certificates(bundle.encode()))
        except ValueError:
            return ()

    async def _read_import(self) -> tuple[SecretSigner | None, Fault | None]:
        """The authority that people have put there, or why it can't be used."""
        name = self._settings.ca_secret
        if not name:
            return None, None
        where = f"Secret {self._namespace}/{name}"
        try:
            secret = await self._kube.find(SECRET, name, namespace=self._namespace)
            if secret is None:
                raise BadAuthorityError("there is none")
            imported = parse_secret(secret, now=self._clock())
            prove(imported, now=self._clock())
        except KubeError as error:
            if error.status != 403:
                raise
            return None, Fault(reason=Reason.AUTHORITY_UNUSABLE, message=f"{where} may not be read: {error}")
        except BadAuthorityError as error:
            return None, Fault(reason=Reason.AUTHORITY_UNUSABLE, message=f"{where} can't be imported: {error}")
        return imported, None

    def _expiry(self, holdings: Holdings | None, now: datetime) -> Fault | None:
        """A root that is not of our making is not ours to replace: people are told in good time."""
        settings = self._settings
        if holdings is None or now < rolls_at(holdings.current) or not (settings.ca_secret or settings.issuer):
            return None
        end = rfc3339(holdings.current.not_valid_after_utc)
        verb = "expired" if holdings.current.not_valid_after_utc <= now else "expires"
        message = f"The imported authority {verb} at {end}: put its successor into Secret {settings.ca_secret}"
        if settings.issuer is not None:
            message = f"The CA of {settings.issuer} {verb} at {end}: put its successor beside it for the mesh to trust"
        return Fault(reason=Reason.AUTHORITY_EXPIRES, message=message)

    async def _carry_out(self, move: Move, secret: Json | None, store: _Store | None, imported: Root | None) -> None:
        fresh = imported or self._make() if move.step in (Step.CREATE, Step.PREPARE, Step.REPLACE) else None
        after = _after(move, store, fresh, self._clock())
        body = after.secret(secret, self._namespace)
        try:
            if secret is None:
                await self._kube.create(SECRET, body, namespace=self._namespace)
            else:
                await self._kube.replace(SECRET, CA_SECRET, body, namespace=self._namespace)
        except KubeError as error:
            if not error.conflict and not error.not_found:
                raise
            log.info("somebody else has written the Secret %s: looking again", CA_SECRET)
            return
        log.info("authority: %s: %s", move.step, move.why)
        await self._announce(move, after.holdings)

    def _make(self) -> SecretSigner:
        settings = self._settings
        return create_root(
            mesh=MESH_NAME,
            lifetime_seconds=settings.ca_lifetime_seconds,
            now=self._clock(),
            curve=settings.curve,
        )

    async def _announce(self, move: Move, holdings: Holdings) -> None:
        mesh = self._view.mesh
        if mesh is None:
            return
        note = f"{move.why[:1].upper()}{move.why[1:]}. {holdings.phase}: {fingerprint(holdings.current)[:16]} signs."
        told = event(
            MESH,
            mesh,
            reason=f"Authority{_DONE[move.step]}",
            note=note,
            warning=move.step is Step.REPLACE,
            action=move.step,
        )
        await self._kube.carry_out(told)

    def _take(self, store: _Store | None, fault: Fault | None) -> None:
        """Make known what there is."""
        holdings = store.holdings if store is not None else None
        standing = standing_of(holdings, fault, anchors=self._anchors(store), issuer=self._issuer_name(holdings))
        if store is not None and store.current.certificate.not_valid_after_utc <= self._clock():
            store = None
        if standing != self.standing or store != self._store:
            self.standing, self._store = standing, store
            self._changed()

    def _anchors(self, store: _Store | None) -> tuple[x509.Certificate, ...]:
        """What is trusted besides: the other CAs of the issuer. Where they can't be read, what is published stays."""
        if store is None or not store.delegates or not (self._settings.issuer or self._unreadable):
            return ()
        return self._published_roots() if self._delegation.anchors is None else self._delegation.anchors

    def _issuer_name(self, holdings: Holdings | None) -> str:
        issuer = self._settings.issuer
        return str(issuer) if issuer is not None and holdings is not None and holdings.delegated else ""

    def _tell_wait(self, nodes: tuple[str, ...]) -> None:
        if nodes != self._waited_for:
            self._waited_for = nodes
            if nodes:
                log.info("the roll waits for %d agents: %s", len(nodes), ", ".join(nodes[:3]))


_DONE: Final = {
    Step.CREATE: "Created",
    Step.PREPARE: "Prepared",
    Step.SWITCH: "Switched",
    Step.DROP: "Dropped",
    Step.REPLACE: "Replaced",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Store:
    """The Secret, with its keys."""

    current: Root
    next: Root | None
    previous: tuple[x509.Certificate, ...]
    handled: str
    since: datetime

    @property
    def holdings(self) -> Holdings:
        return Holdings(
            current=self.current.certificate,
            next=self.next.certificate if self.next is not None else None,
            previous=self.previous,
            delegated=isinstance(self.current, DelegatedRoot),
            handled=self.handled,
            since=self.since,
        )

    @property
    def delegates(self) -> bool:
        """Whether an issuer signs, or will."""
        return isinstance(self.current, DelegatedRoot) or isinstance(self.next, DelegatedRoot)

    @classmethod
    def parse(cls, secret: Json, namespace: str) -> _Store:
        """Raises BadAuthorityError. An expired root is none of its errors: it is replaced."""
        data: Json = secret.get("data") or {}
        annotations: Json = secret["metadata"].get("annotations") or {}
        try:
            previous = _decode(data, _PREVIOUS) if _PREVIOUS in data else b""
            return cls(
                current=_parse_root(secret, _CERTIFICATE, _KEY),
                next=_parse_root(secret, _NEXT_CERTIFICATE, _NEXT_KEY) if _NEXT_CERTIFICATE in data else None,
                previous=tuple(x509.load_pem_x509_certificates(previous)) if previous else (),
                handled=annotations.get(HANDLED, ""),
                since=datetime.fromisoformat(annotations.get(SINCE, "1970-01-01T00:00:00Z")),
            )
        except BadAuthorityError as error:
            reason = str(error)
        except ValueError:
            reason = f"{_PREVIOUS} or the annotation {SINCE} can't be read"
        raise BadAuthorityError(
            f"Secret {namespace}/{CA_SECRET} is not a CA that can be used: {reason}. "
            "Mend it, or delete it to have a new one made (all nodes then ask for new certificates)."
        )

    def secret(self, before: Json | None, namespace: str) -> Json:
        """The whole Secret, in the place of the one before."""
        data = {_CERTIFICATE: certificate_pem(self.current.certificate), _KEY: key_pem(self.current)}
        if self.next is not None:
            data |= {_NEXT_CERTIFICATE: certificate_pem(self.next.certificate), _NEXT_KEY: key_pem(self.next)}
        if self.previous:
            data[_PREVIOUS] = "".join(certificate_pem(root) for root in self.previous)
        metadata: Json = dict(before["metadata"]) if before is not None else {"name": CA_SECRET, "namespace": namespace}
        delegated = [
            name
            for name, root in ((_CERTIFICATE, self.current), (_NEXT_CERTIFICATE, self.next))
            if isinstance(root, DelegatedRoot)
        ]
        before_that: Json = metadata.get("annotations") or {}
        annotations = {name: value for name, value in before_that.items() if name != DELEGATED}
        annotations |= {HANDLED: self.handled, SINCE: rfc3339(self.since)}
        metadata["annotations"] = annotations | ({DELEGATED: ",".join(delegated)} if delegated else {})
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": before["type"] if before is not None else "kubernetes.io/tls",
            "data": {name: base64.b64encode(text.encode()).decode() for name, text in data.items()},
        }


def _after(move: Move, store: _Store | None, fresh: Root | None, now: datetime) -> _Store:
    """What the Secret holds once a step is done."""
    if fresh is not None and (store is None or move.step is Step.REPLACE):
        return _Store(current=fresh, next=None, previous=(), handled=move.handled, since=now)
    assert store is not None
    store = replace(store, handled=move.handled, since=now)
    if move.step is Step.PREPARE:
        return replace(store, next=fresh)
    if move.step is Step.SWITCH:
        assert store.next is not None
        before = (store.current.certificate, *store.previous)
        previous = tuple(root for root in before if root != store.next.certificate)
        return replace(store, current=store.next, next=None, previous=previous)
    return replace(store, previous=())


def parse_secret(
    secret: Json, *, now: datetime | None = None, certificate: str = _CERTIFICATE, key: str = _KEY
) -> SecretSigner:
    """The CA in a Secret of type kubernetes.io/tls. Raises BadAuthorityError; without now, its time may be over."""
    data: Json = secret.get("data") or {}
    try:
        found = _decode(data, certificate), _decode(data, key)
    except ValueError:
        raise BadAuthorityError(f"it does not have {certificate} and {key}") from None
    return load_root(*found, now=now)


def _parse_root(secret: Json, certificate: str, key: str) -> Root:
    """One of the Secret hauberk-ca's. Raises BadAuthorityError."""
    annotations: Json = secret["metadata"].get("annotations") or {}
    if certificate not in str(annotations.get(DELEGATED, "")).split(","):
        return parse_secret(secret, certificate=certificate, key=key)
    try:
        return DelegatedRoot(certificate=x509.load_pem_x509_certificate(_decode(secret.get("data") or {}, certificate)))
    except ValueError:
        raise BadAuthorityError(f"{certificate} can't be read") from None


def _decode(data: Json, name: str) -> bytes:
    """Raises ValueError."""
    try:
        return base64.b64decode(data[name], validate=True)
    except (KeyError, binascii.Error):
        raise ValueError(name) from None
