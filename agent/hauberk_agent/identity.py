"""This node's key and certificate: made here, kept here, renewed in time.

The key never leaves the node. A key lives as long as its certificate: a renewal makes a new one. Key and certificate
are one file, so that no crash can part them; the key of a request under way is a file of its own, so that a restart
asks for the same certificate again instead of one more.

**A certificate's life** begins when it is signed; notBefore lies earlier, for clocks that are behind. After two thirds
of it, and up to a twelfth later so that a mesh does not ask at once, it is renewed; at start, too, if that is over. It
is replaced earlier when it is no longer fit (another UID or name, no root that is trusted), by and by when another root
signs, and when the node's addresses have changed, since then the operator is to look at the node again. What fails is
tried again ever later, but never so late that what is left of the life would not do for more attempts.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hauberk_agent.source import Signer, SigningDenied
from hauberk_agent.statefile import create_exclusively, read_if_present, write_atomically
from hauberk_api.certificate import build_request, dns_names, fingerprint, node_dns_names, signed_at
from hauberk_api.mesh import Curve
from hauberk_api.names import NodeName, NodeUid
from hauberk_ike import Credentials
from hauberk_ike import Identity as IkeIdentity

_log = logging.getLogger("hauberk.identity")

_FIRST_RETRY: Final = 2.0
_LONGEST_RETRY: Final = 300.0
_ATTEMPTS_LEFT: Final = 8
"""A failed request is tried again before another such share of the certificate's time is gone."""
_ADDRESSES: Final = b"Addresses:"
_EXPIRED: Final = "it has expired"
_EXCHANGE_SPREAD: Final = timedelta(minutes=5)
"""Over which time a mesh exchanges its certificates when another root signs or its addresses change: no storm of
requests,"""
_EXCHANGE_SHARE: Final = 1 / 6
"""or over this share of a certificate's life, where that is less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A key and its certificates, the node's own first."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...]
    addresses: tuple[str, ...] = ()
    """The node's when it asked. They are not in the certificate; empty: not known."""

    @property
    def certificate(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def names(self) -> tuple[str, ...]:
        """Its dNSNames, the IKE identity first."""
        return tuple(dns_names(self.certificate.extensions))

    def root(self, roots: Sequence[x509.Certificate]) -> x509.Certificate | None:
        """The root that signed it, if it is among those trusted."""
        for root in roots:
            try:
                self.chain[-1].verify_directly_issued_by(root)
            except (ValueError, TypeError, InvalidSignature):
                continue
            return root
        return None

    @property
    def life(self) -> timedelta:
        """From its signing to its end."""
        return self.certificate.not_valid_after_utc - signed_at(self.certificate)

    def renew_at(self, share: float) -> datetime:
        """The moment at which `share` of its life is over."""
        return signed_at(self.certificate) + self.life * share

    def credentials(self, roots: Sequence[x509.Certificate]) -> Credentials:
        """As the IKE endpoint takes it. Raises ValueError if it can't be used."""
        return Credentials(
            identity=IkeIdentity.fqdn(self.names[0]),
            private_key=self.key,
            certificate_chain=self.chain,
            roots=tuple(roots),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Whom the certificate should name, and which roots peers trust."""

    uid: NodeUid
    name: NodeName
    mesh: str
    roots: tuple[x509.Certificate, ...]
    authority: str = ""
    """The fingerprint of the root that signs now. A certificate of another one is good, and to be exchanged."""
    curve: Curve = Curve.P256
    """Of a new key."""
    addresses: tuple[str, ...] = ()
    """The node's now."""

    @property
    def names(self) -> tuple[str, ...]:
        return node_dns_names(self.uid, self.name, self.mesh)


def parse_roots(bundle: str) -> tuple[x509.Certificate, ...]:
    """The certificates of a trust bundle (PEM). Raises ValueError for none."""
    return tuple(x509.load_pem_x509_certificates(bundle.encode()))


def unfit(identity: Identity, wanted: Wanted, *, now: datetime) -> str | None:
    """Why a certificate is of no use for what is wanted, as a clause for logs, or None."""
    if set(identity.names) != set(wanted.names) or identity.names[0] != wanted.names[0]:
        return "it names another node"
    if now >= identity.certificate.not_valid_after_utc:
        return _EXPIRED
    if identity.root(wanted.roots) is None:
        return "its root is not in the trust bundle"
    return None


def _outdated(identity: Identity, wanted: Wanted) -> str | None:
    """Why a good certificate should be exchanged before its time, as a clause for logs, or None."""
    root = identity.root(wanted.roots)
    if wanted.authority and root is not None and fingerprint(root) != wanted.authority:
        return "another root signs now"
    if identity.addresses and set(identity.addresses) != set(wanted.addresses):
        return "this node's addresses have changed"
    return None


class IdentityStore:
    """Keys and certificates on disk. All methods raise OSError."""

    def __init__(self, directory: Path) -> None:
        self._identity = directory / "identity.pem"
        self._pending = directory / "pending-key.pem"

    def load(self) -> Identity | None:
        """The identity, or None if there is none or the file is damaged."""
        data = read_if_present(self._identity)
        if data is None:
            return None
        preamble = data.partition(b"-----BEGIN")[0].strip()
        addresses = preamble.removeprefix(_ADDRESSES).split() if preamble.startswith(_ADDRESSES) else []
        try:
            return Identity(
                key=_parse_key(data),
                chain=tuple(x509.load_pem_x509_certificates(data)),
                addresses=tuple(address.decode("ascii", "replace") for address in addresses),
            )
        except ValueError:
            _log.warning("%s is damaged, asking for a new certificate", self._identity)
            return None

    def save(self, identity: Identity) -> None:
        """Replaces the identity; its key is no longer pending."""
        certificates = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in identity.chain)
        # What comes before the first block is for people, and for us (RFC 7468 section 2).
        preamble = b" ".join((_ADDRESSES, *(address.encode() for address in identity.addresses))) + b"\n"
        write_atomically(self._identity, preamble + _key_bytes(identity.key) + certificates)
        self._pending.unlink(missing_ok=True)

    def pending_key(self, curve: Curve = Curve.P256) -> ec.EllipticCurvePrivateKey:
        """The key of the request under way, or a fresh one that now is: also if that one is on another curve."""
        wanted = ec.SECP384R1() if curve is Curve.P384 else ec.SECP256R1()
        data = read_if_present(self._pending)
        if data is not None:
            try:
                key = _parse_key(data)
            except ValueError:
                key = None
            if key is not None and key.curve.name == wanted.name:
                return key
            self._pending.unlink()
        key = ec.generate_private_key(wanted)
        create_exclusively(self._pending, _key_bytes(key))
        return key

    def discard_pending(self) -> None:
        """The request was denied: the next one is with another key, under another name."""
        self._pending.unlink(missing_ok=True)


def request_name(uid: NodeUid, key: ec.EllipticCurvePrivateKey) -> str:
    """The CertificateSigningRequest's name: one for each key, so that asking twice is asking once."""
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"hauberk-{uid}-{hashlib.sha256(public).hexdigest()[:16]}"


class IdentityKeeper:
    """Sees to it that there is a certificate that fits. Run as a task."""

    def __init__(
        self,
        store: IdentityStore,
        signer: Signer,
        *,
        on_identity: Callable[[Identity], None],
        chance: Random,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """wall_clock may be wrong, and set at any time; clock counts seconds."""
        self._clock = clock
        self._store = store
        self._signer = signer
        self._on_identity = on_identity
        self._chance = chance
        self._wall_clock = wall_clock
        self._wanted: Wanted | None = None
        self._changed = asyncio.Event()
        self._renew_by: tuple[int, float] | None = None
        """The serial number of the certificate, and when it is renewed by a clock that nobody sets."""
        self._exchange_at: tuple[Wanted, datetime] | None = None
        """When the certificate is exchanged though it is good, and for what was wanted then."""
        self.identity: Identity | None = store.load()
        self.problem: str | None = None
        """Why there is no fitting certificate or no renewal, as a sentence."""

    def want(self, wanted: Wanted | None) -> None:
        """Names or roots may have changed; None: the mesh has no place for this node, so nothing is asked for."""
        if wanted != self._wanted:
            self._wanted = wanted
            self._changed.set()

    async def run(self) -> None:
        """Announces the identity on disk if it fits, asks for one if not, and renews it for ever."""
        failures = 0
        while True:
            self._changed.clear()
            wait = await self._step()
            if wait is None:
                failures, timeout = 0, None
            elif wait < 0:
                failures += 1
                timeout = self._retry_wait(failures)
            else:
                failures, timeout = 0, wait
            await self._sleep(timeout)

    def _retry_wait(self, failures: int) -> float:
        """Seconds until the next attempt: ever more, but for a good certificate's sake not too many."""
        longest = min(_FIRST_RETRY * 2 ** min(failures - 1, 10), _LONGEST_RETRY)
        left = 0.0
        if self.identity is not None:
            left = (self.identity.certificate.not_valid_after_utc - self._wall_clock()) / timedelta(seconds=1)
        if left > 0:
            longest = min(longest, max(left / _ATTEMPTS_LEFT, _FIRST_RETRY))
        return longest * self._chance.uniform(0.5, 1.0)

    async def _step(self) -> float | None:
        """One look. Returns the seconds until the next one, None for "when told", and less than 0 for a failure."""
        wanted = self._wanted
        if wanted is None:
            self.problem = None
            return None
        now = self._wall_clock()
        why: str | None = "there is none" if self.identity is None else unfit(self.identity, wanted, now=now)
        if self.identity is not None and why is None:
            self._on_identity(self.identity)
            renew_at = self.identity.renew_at(2 / 3 + self._chance.uniform(0, 1 / 12))
            why = "two thirds of its life are over"
            reason = _outdated(self.identity, wanted)
            exchange_at = self._exchange(self.identity, wanted, reason, now)
            if exchange_at is not None and exchange_at < renew_at:
                renew_at, why = exchange_at, reason
            wait = min((renew_at - now) / timedelta(seconds=1), self._renewal_wait(self.identity, renew_at, now))
            if wait > 0:
                self.problem = _not_yet(self.identity, now)
                return max(wait, 1.0)
        _log.info("asking for a certificate: %s", why)
        try:
            identity = await self._ask_unless_changed(wanted)
            if identity is None:
                return 0.0
        except SigningDenied as error:
            self.problem = f"the certificate request was denied: {error}"
            self._store.discard_pending()
        except OSError as error:
            self.problem = f"no certificate: {error}"
        else:
            now = self._wall_clock()
            reason = unfit(identity, wanted, now=now)
            if reason is None:
                self._store.save(identity)
                self.identity = identity
                _log.info(
                    "certificate %x until %s",
                    identity.certificate.serial_number,
                    identity.certificate.not_valid_after_utc.isoformat(),
                )
                return 0.0
            self.problem = f"the signed certificate is of no use: {reason}"
            if reason == _EXPIRED:
                self.problem += f" by this node's clock, which is at {now.isoformat(timespec='seconds')}"
            self._store.discard_pending()
        _log.warning("%s", self.problem)
        return -1.0

    def _renewal_wait(self, identity: Identity, renew_at: datetime, now: datetime) -> float:
        """Seconds until the certificate is renewed whatever becomes of the wall clock.

        Planned when the certificate is first seen. A clock that is set back makes nothing late after that; one that was
        behind already makes it no later than as much after its beginning.
        """
        serial = identity.certificate.serial_number
        if self._renew_by is None or self._renew_by[0] != serial:
            life = renew_at - signed_at(identity.certificate)
            self._renew_by = (serial, self._clock() + min(renew_at - now, life) / timedelta(seconds=1))
        return self._renew_by[1] - self._clock()

    def _exchange(self, identity: Identity, wanted: Wanted, reason: str | None, now: datetime) -> datetime | None:
        """When the certificate is to be exchanged though it is good; None: it is not."""
        if reason is None:
            self._exchange_at = None
        elif self._exchange_at is None or self._exchange_at[0] != wanted:
            spread = min(_EXCHANGE_SPREAD, identity.life * _EXCHANGE_SHARE)
            self._exchange_at = (wanted, now + spread * self._chance.random())
        return self._exchange_at[1] if self._exchange_at is not None else None

    async def _ask_unless_changed(self, wanted: Wanted) -> Identity | None:
        """What is signed, or None as soon as something else may be wanted: asking may take as long as an outage."""
        asking = asyncio.ensure_future(self._ask(wanted))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((asking, changed), return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else None
        finally:
            for task in (asking, changed):
                task.cancel()
            await asyncio.gather(asking, changed, return_exceptions=True)

    async def _ask(self, wanted: Wanted) -> Identity:
        key = self._store.pending_key(wanted.curve)
        request = build_request(key, uid=wanted.uid, name=wanted.name, mesh=wanted.mesh)
        self.problem = "waiting for the certificate request to be signed"
        signed = await self._signer.sign(name=request_name(wanted.uid, key), request=request)
        try:
            chain = tuple(x509.load_pem_x509_certificates(signed))
        except ValueError as error:
            raise SigningDenied(f"what was signed is no certificate: {error}") from error
        if chain[0].public_key() != key.public_key():
            raise SigningDenied("what was signed is for another key")
        return Identity(key=key, chain=chain, addresses=wanted.addresses)

    async def _sleep(self, seconds: float | None) -> None:
        """Until the time is over, or something is wanted anew."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return


def _not_yet(identity: Identity, now: datetime) -> str | None:
    """Peers take a certificate that this node thinks to be of the future: it is used, and its clock is not right."""
    begin = identity.certificate.not_valid_before_utc
    if now >= begin:
        return None
    return (
        f"the certificate begins at {begin.isoformat(timespec='seconds')}, and this node's clock is at "
        f"{now.isoformat(timespec='seconds')}"
    )


def fingerprints(roots: Sequence[x509.Certificate]) -> tuple[str, ...]:
    return tuple(fingerprint(root) for root in roots)


def _key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _parse_key(data: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(data, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic curve key")
    return key
