"""cert-manager as the operator uses it: its CertificateRequests in the operator's namespace, made, watched, removed.

What is wanted is asked for by an Ask, again and again until it is there: the first time a CertificateRequest is made,
then it is looked at. One that fails, or whose certificate is not what was asked for (issuance.py), is followed by
another after a pause that grows. All that is known is in the objects, so whichever replica leads goes on from them.

The objects are watched, so nothing is polled; delegation.py and requests.py ask again when `changed` says so. kopf
can't do it: it watches what is there when it starts, and in all namespaces.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from hauberk_api.conditions import Reason
from hauberk_api.mesh import IssuerReference
from hauberk_operator.certificate_request import (
    CERTIFICATE_REQUEST,
    CertificateRequestFacts,
    Outcome,
    attempt_name,
    build,
)
from hauberk_operator.facts import Json
from hauberk_operator.issuance import BadIssuanceError, Verified, Wanted, check
from hauberk_operator.issuer import Pending
from hauberk_operator.kube import Kube, KubeError
from hauberk_operator.standing import Fault
from hauberk_operator.view import ClusterView, Table
from hauberk_operator.writes import REQUEST

LOOK_SECONDS: Final = 10.0
"""How often to look whether cert-manager is there, and may be used, while it is not."""

RETRY_SECONDS: Final = 5.0
SHORTEST_SECONDS: Final = 1.0
"""The least time between two listings."""

PATIENCE: Final = timedelta(seconds=10)
"""For so long a request that is under way is nothing to speak of."""

REFUSED_SECONDS: Final = 30.0
"""When to try again what the API server has refused."""

PROOF: Final = "proof-"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A certificate that is wanted."""

    wanted_for: str
    """A CertificateSigningRequest's UID, or PROOF and what it proves."""
    issuer: IssuerReference
    request: bytes
    """PKCS#10, PEM."""
    wanted: Wanted
    owner: Json
    """The ownerReference of what goes with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obtained:
    verified: Verified
    asked: datetime
    """When the request was made."""


class CertManager:
    """Keeps the CertificateRequests."""

    def __init__(
        self,
        kube: Kube,
        view: ClusterView,
        *,
        namespace: str,
        clock: Callable[[], datetime],
        changed: Callable[[], None],
        news: Callable[[], None],
    ) -> None:
        """changed: called when something has become of what is asked for nodes. news: when something has of a proof, or
        there is more or less to complain of."""
        self._kube = kube
        self._view = view
        self._namespace = namespace
        self._clock = clock
        self._changed = changed
        self._news = news
        self._table: Table[CertificateRequestFacts] = Table()
        self._latest: dict[str, str] = {}
        """What each is wanted for, and the name of the last attempt."""
        self._synced = False
        self._problem = ""
        """Why nothing can be asked for at all."""
        self._troubles: dict[str, str] = {}
        """What is wanted and not to be had, and why."""
        self._bad: dict[str, str] = {}
        """Attempts whose certificate is not what was asked for, and in what."""
        self._told = ""
        self._proof = ""
        self._woken = asyncio.Event()

    @property
    def problem(self) -> str:
        return self._problem

    def fault(self, issuer: IssuerReference) -> Fault | None:
        """What is amiss with nodes' certificates. One sentence of many, and the same while it holds: every agent is
        told of a change of the mesh's status."""
        waiting = {request.uid for request in self._view.requests.values() if request.open}
        self._troubles = {wanted: why for wanted, why in self._troubles.items() if wanted in waiting}
        whys = set(self._troubles.values())
        self._told = self._told if self._told in whys else min(whys, default="")
        if not self._told:
            return None
        message = f"{issuer} does not sign nodes' certificates: {self._told.rstrip('.')}"
        return Fault(reason=Reason.ISSUER_NOT_SIGNING, message=message)

    def trouble(self, wanted_for: str) -> str:
        """Why something is not to be had; empty while there is nothing to speak of."""
        return self._troubles.get(wanted_for, "")

    def poke(self) -> None:
        """The mesh's settings may be others."""
        self._woken.set()

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            self._woken.clear()
            try:
                version = await self.sync()
                if version is None:
                    await self._rest(LOOK_SECONDS)
                    continue
                await self.tidy()
                await self._follow(version)
                await asyncio.sleep(SHORTEST_SECONDS)
            except KubeError as error:
                log.warning("reading certificaterequests: %s; again in %.0f s", error, RETRY_SECONDS)
                await asyncio.sleep(RETRY_SECONDS)

    async def sync(self) -> int | None:
        """List what there is. The version that it was listed at, or None where there is nothing to follow.

        Raises KubeError.
        """
        mesh = self._view.mesh
        if mesh is None or mesh.spec is None or mesh.spec.certificates.issuer is None:
            self._note(synced=False)
            return None
        version, listing = 0, list[CertificateRequestFacts]()
        try:
            if CERTIFICATE_REQUEST.plural not in await self._kube.serves(
                CERTIFICATE_REQUEST.group, CERTIFICATE_REQUEST.version
            ):
                raise KubeError(404, "NotFound", "")
            async for page, listed_at in self._kube.pages(CERTIFICATE_REQUEST, namespace=self._namespace):
                version = version or listed_at
                listing.extend(facts for facts in map(CertificateRequestFacts.parse, page) if facts.attempt)
        except KubeError as error:
            if error.not_found:
                self._note(synced=False, problem="the API server has no CertificateRequests: install cert-manager")
            elif error.status == 403:
                self._note(synced=False, problem=_forbidden(error))
            else:
                raise
            return None
        changed = self._table.replace(listing, version)
        self._latest.clear()
        for facts in self._table.values():
            self._index(facts)
        self._note(synced=True)
        if changed:
            self._changed()
            self._news()
        return version

    def waits(self, wanted_for: str) -> Pending | None:
        """Whether an attempt is under way, or has failed a moment ago. None: ask obtain()."""
        if not self._synced:
            return Pending(message=self._problem or "CertificateRequests are not listed yet", look_in=RETRY_SECONDS)
        last = self._last(wanted_for)
        if last is None:
            return None
        now = self._clock()
        if last.outcome is Outcome.PENDING:
            return self._pend(wanted_for, last, now)
        why = last.message if last.outcome is Outcome.REFUSED else self._bad.get(last.name)
        if why is None or last.next_at <= now:
            return None
        self._trouble(wanted_for, why)
        return Pending(message=why, look_in=(last.next_at - now) / timedelta(seconds=1))

    async def obtain(self, ask: Ask, anchors: Collection[x509.Certificate]) -> Obtained | Pending:
        """The certificate, once it is there and what was asked for; until then what is being done. Raises KubeError."""
        last = self._last(ask.wanted_for)
        if last is not None and (last.issuer != _names(ask.issuer) or last.request != ask.request):
            # Another issuer is to sign by now; or somebody else has made an object of this name.
            return await self._attempt(ask, last)
        waits = self.waits(ask.wanted_for)
        if waits is not None:
            return waits
        if last is None or last.outcome is not Outcome.ISSUED or last.name in self._bad:
            return await self._attempt(ask, last)
        try:
            verified = check(last.certificate, ask.wanted, anchors, now=self._clock())
        except BadIssuanceError as error:
            self._bad[last.name] = f"a certificate came back, but {error}"
            log.warning("CertificateRequest %s: %s", last.name, self._bad[last.name])
            return self.waits(ask.wanted_for) or await self._attempt(ask, last)
        if self._troubles.pop(ask.wanted_for, None) is not None:
            self._news()
        return Obtained(verified=verified, asked=last.created)

    async def again(self, ask: Ask) -> Pending:
        """Ask anew, though what there is is good in itself. Raises KubeError."""
        return await self._attempt(ask, self._last(ask.wanted_for))

    def proving(self, wanted_for: str) -> bytes:
        """The request that a proof is made with, if there is one; "" for wanted_for: none is needed."""
        self._proof = wanted_for
        last = self._last(wanted_for)
        return last.request if last is not None else b""

    async def _attempt(self, ask: Ask, before: CertificateRequestFacts | None) -> Pending:
        """Make the next CertificateRequest, in the place of the one before."""
        attempt = before.attempt + 1 if before is not None else 1
        body = build(
            wanted_for=ask.wanted_for,
            attempt=attempt,
            namespace=self._namespace,
            issuer=ask.issuer,
            request=ask.request,
            lifetime_seconds=int(ask.wanted.lifetime.total_seconds()),
            owner=ask.owner,
        )
        name = attempt_name(ask.wanted_for, attempt)
        try:
            made = await self._kube.create(CERTIFICATE_REQUEST, body, namespace=self._namespace)
            log.info("asked %s by CertificateRequest %s", ask.issuer, name)
        except KubeError as error:
            if error.conflict:
                # Another operator was faster, and has not known that it leads no more; or the watch is late.
                found = await self._kube.find(CERTIFICATE_REQUEST, name, namespace=self._namespace)
                if found is None or CertificateRequestFacts.parse(found).wanted_for == ask.wanted_for:
                    if found is not None:
                        self._put(CertificateRequestFacts.parse(found))
                    return Pending(message=f"CertificateRequest {name} is there already", look_in=1.0)
                return self._refused(ask, f"somebody else has made CertificateRequest {name}: delete it")
            if error.status == 403:
                return self._refused(ask, _forbidden(error))
            if error.not_found or error.status in (400, 422):
                return self._refused(ask, f"CertificateRequest {name} can't be made: {error}")
            raise
        self._put(CertificateRequestFacts.parse(made))
        if before is not None:
            await self._delete(before, why="another attempt has been made")
        return Pending(message=f"{ask.issuer} is asked", look_in=PATIENCE / timedelta(seconds=1))

    def _refused(self, ask: Ask, why: str) -> Pending:
        self._trouble(ask.wanted_for, why)
        return Pending(message=why, look_in=REFUSED_SECONDS)

    def _pend(self, wanted_for: str, last: CertificateRequestFacts, now: datetime) -> Pending:
        left = last.created + PATIENCE - now
        if left > timedelta(0):
            return Pending(message=last.message, look_in=left / timedelta(seconds=1))
        self._trouble(wanted_for, last.message)
        return Pending(message=last.message)

    def _trouble(self, wanted_for: str, why: str) -> None:
        if self._troubles.get(wanted_for) != why:
            self._troubles[wanted_for] = why
            self._news()

    def _last(self, wanted_for: str) -> CertificateRequestFacts | None:
        return self._table.get(self._latest.get(wanted_for, ""))

    def _index(self, facts: CertificateRequestFacts) -> None:
        last = self._last(facts.wanted_for)
        if last is None or last.attempt < facts.attempt:
            self._latest[facts.wanted_for] = facts.name

    def _put(self, facts: CertificateRequestFacts) -> bool:
        changed = self._table.put(facts)
        if facts.name in self._table:
            self._index(facts)
        return changed

    def _remove(self, facts: CertificateRequestFacts) -> bool:
        changed = self._table.remove(facts.name, facts.resource_version)
        self._bad.pop(facts.name, None)
        if changed and self._latest.get(facts.wanted_for) == facts.name:
            del self._latest[facts.wanted_for]
        return changed

    def _note(self, *, synced: bool, problem: str = "") -> None:
        if (synced, problem) == (self._synced, self._problem):
            return
        self._synced, self._problem = synced, problem
        if not synced:
            self._table.clear()
            for known in (self._latest, self._troubles, self._bad):
                known.clear()
        if problem:
            log.warning("%s", problem)
        self._changed()
        self._news()

    async def _follow(self, version: int) -> None:
        """Until the watch ends, as all do after some minutes, or is useless. Raises KubeError."""
        async for kind, obj in self._kube.watch(CERTIFICATE_REQUEST, version, namespace=self._namespace):
            if kind == "ERROR":
                return  # the version is too old by now
            facts = CertificateRequestFacts.parse(obj)
            if not facts.attempt:
                continue
            if self._remove(facts) if kind == "DELETED" else self._put(facts):
                self._news() if facts.wanted_for.startswith(PROOF) else self._changed()

    async def tidy(self) -> None:
        """Remove what nothing waits for any more. The API server's own collector does it too, by owner, in its time.

        Raises KubeError.
        """
        for facts in tuple(self._table.values()):
            if self._latest.get(facts.wanted_for) != facts.name:
                await self._delete(facts, why="another attempt has been made")
            elif facts.wanted_for.startswith(PROOF):
                if facts.wanted_for != self._proof:
                    await self._delete(facts, why="nothing is to be proved by it any more")
            else:
                if await self._orphaned(facts):
                    await self._delete(facts, why="its CertificateSigningRequest is gone")

    async def _orphaned(self, facts: CertificateRequestFacts) -> bool:
        request = self._view.requests.get(facts.owner)
        if request is not None and request.uid == facts.wanted_for:
            return False
        # The view may be late. Without an owner it is none of ours, or somebody has changed it.
        owner = await self._kube.find(REQUEST, facts.owner) if facts.owner else None
        return owner is None or owner["metadata"]["uid"] != facts.wanted_for

    async def _delete(self, facts: CertificateRequestFacts, *, why: str) -> None:
        """This very object. One that may not be deleted, or has changed, is left for another time."""
        body: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": facts.uid}}
        try:
            await self._kube.delete(CERTIFICATE_REQUEST, facts.name, body=body, namespace=self._namespace)
        except KubeError as error:
            if error.unreachable:
                raise
            log.warning("CertificateRequest %s can't be deleted: %s", facts.name, error)
            return
        log.info("deleted CertificateRequest %s: %s", facts.name, why)
        self._remove(facts)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return


def proof_of(issuer: IssuerReference, anchors: Collection[x509.Certificate]) -> str:
    """What a proof is wanted for: another one for another issuer, or other CAs."""
    whole = hashlib.sha256("\n".join(_names(issuer)).encode())
    for anchor in anchors:
        whole.update(anchor.tbs_certificate_bytes)
    return f"{PROOF}{whole.hexdigest()[:16]}"


def _names(issuer: IssuerReference) -> tuple[str, str, str]:
    return issuer.name, issuer.kind, issuer.group


def _forbidden(error: KubeError) -> str:
    return f"the operator may not use CertificateRequests: set certManager.enabled in the chart's values ({error})"
