"""Who the two ends are: a P-256 certificate each, from one root, valid today."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.unit.ike.authority import Authority

INITIATOR = "initiator.bench.hauberk.internal"
RESPONDER = "responder.bench.hauberk.internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What an end holds, in PEM."""

    name: str
    key: str
    certificate: str
    root: str


@cache
def identities() -> tuple[Identity, Identity]:
    """The initiator's and the responder's."""
    authority = Authority()
    now = datetime.now(UTC)

    def issue(name: str) -> Identity:
        key, certificate = authority.issue(
            name, common_name=name, not_before=now - timedelta(hours=1), not_after=now + timedelta(days=1)
        )
        return Identity(
            name=name,
            key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            certificate=certificate.public_bytes(Encoding.PEM).decode(),
            root=authority.certificate.public_bytes(Encoding.PEM).decode(),
        )

    return issue(INITIATOR), issue(RESPONDER)
