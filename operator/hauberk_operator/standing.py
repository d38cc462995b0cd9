"""What plan and status of the IPsecMesh say of its authority: from authority.py to reconcile.py and fold.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from hauberk_api.certificate import fingerprint
from hauberk_api.conditions import Reason
from hauberk_operator.ca import certificate_pem
from hauberk_operator.ca_roll import Holdings
from hauberk_operator.facts import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is amiss with the authority, for the mesh's Degraded condition."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    bundle: str = ""
    """PEM, the root that signs first; empty while there is none."""
    authority: str = ""
    """The fingerprint of the root that signs."""
    status: Json
    """status.authority."""
    fault: Fault | None = None


MISSING: Final[Json] = {"phase": "Missing"}


def standing_of(
    holdings: Holdings | None, fault: Fault | None, *, anchors: Sequence[x509.Certificate] = (), issuer: str = ""
) -> Standing:
    """anchors are trusted besides, as CAs of the issuer that signs."""
    if holdings is None:
        return Standing(status=MISSING, fault=fault)
    signs = fingerprint(holdings.current)
    trusted = tuple(dict.fromkeys((*holdings.trusted, *anchors)))
    return Standing(
        bundle="".join(certificate_pem(root) for root in trusted),
        authority=signs,
        status={
            "phase": holdings.phase.value,
            "since": rfc3339(holdings.since),
            "signs": signs,
            "notAfter": rfc3339(holdings.current.not_valid_after_utc),
            "trusted": [fingerprint(root) for root in trusted],
            "handledRoll": holdings.handled,
            **({"issuer": issuer} if issuer else {}),
        },
        fault=fault,
    )


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
