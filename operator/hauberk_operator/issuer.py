"""The one way to a node's certificate: an Issuer, given an Order that approval.py has granted.

OwnIssuer signs with the key in the Secret that authority.py keeps; cert_manager.py has an issuer of cert-manager's do
it, which takes a while. Who is given a certificate is decided before either is asked. Called by requests.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography import x509

from hauberk_api.kinds import MESH_NAME
from hauberk_operator.approval import Grant
from hauberk_operator.ca import Signer, issue
from hauberk_operator.facts import RequestFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A request that may be signed."""

    request: RequestFacts
    grant: Grant
    lifetime_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    chain: tuple[x509.Certificate, ...]
    """The node's certificate first, then those that lead from it to the root, without the root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Not yet. Whoever knows when pokes; look_in is for what only time changes, in seconds."""

    message: str
    look_in: float | None = None


class Issuer(Protocol):
    """What turns a granted request into a certificate."""

    @property
    def certificate(self) -> x509.Certificate:
        """The root that what it issues leads to."""
        ...

    def waits(self, request: RequestFacts) -> Pending | None:
        """Whether a request is under way and nothing can be done for it now. None: ask issue()."""
        ...

    async def issue(self, order: Order) -> Issued | Pending:
        """The certificate, or that it is being made. Raises KubeError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnIssuer:
    """Signs at once, with the mesh's own key."""

    signer: Signer
    clock: Callable[[], datetime]

    @property
    def certificate(self) -> x509.Certificate:
        return self.signer.certificate

    def waits(self, request: RequestFacts) -> Pending | None:
        return None

    async def issue(self, order: Order) -> Issued:
        certificate = issue(
            self.signer,
            public_key=order.grant.public_key,
            uid=order.grant.node_uid,
            name=order.grant.node_name,
            mesh=MESH_NAME,
            lifetime_seconds=order.lifetime_seconds,
            now=self.clock(),
        )
        return Issued(chain=(certificate,))
