"""A CertificateRequest of cert-manager's (cert-manager.io/v1): how one is asked for, and what has become of it. Pure.

It is a one-shot object: it comes to Ready=True (Issued), or to Denied, InvalidRequest or Ready=False with reason Failed
or Denied, and stays so. Until then it is pending, whatever else its conditions say. A second attempt is a second
object. Its name is made of what it is for and of the attempt's number, so that of two operators one makes it and the
other finds it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self

from hauberk_api.certificate import CSR_USAGES
from hauberk_api.mesh import IssuerReference
from hauberk_api.names import CERTIFICATE_REQUEST_LABEL
from hauberk_operator.facts import Facts, Json, identity_of
from hauberk_operator.writes import Resource

CERTIFICATE_REQUEST: Final = Resource(
    group="cert-manager.io", version="v1", plural="certificaterequests", kind="CertificateRequest"
)
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 600.0
"""Between the end of an attempt and the next one."""

_PREFIX: Final = "hauberk-"
MAX_MESSAGE: Final = 400


class Outcome(StrEnum):
    PENDING = "Pending"
    ISSUED = "Issued"
    REFUSED = "Refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRequestFacts(Facts):
    """One attempt."""

    wanted_for: str
    """What its label says: the UID of a CertificateSigningRequest, or what a proof is of."""
    owner: str
    """The name of what it is made for."""
    attempt: int
    """From 1; 0 if its name is not one of ours."""
    created: datetime
    issuer: tuple[str, str, str]
    """Name, kind and group."""
    request: bytes
    """PKCS#10, PEM."""
    outcome: Outcome
    message: str
    """Why, unless it is issued."""
    ended: datetime
    """When it came to its outcome."""
    certificate: bytes
    """PEM; empty unless it is issued."""

    @property
    def next_at(self) -> datetime:
        """When the next attempt is due, should this one have failed: ever later, and not everybody's at once."""
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(max(self.attempt, 1) - 1, 10), LONGEST_PAUSE_SECONDS)
        spread = int(hashlib.sha256(self.name.encode()).hexdigest()[:4], 16) / 0xFFFF
        return self.ended + timedelta(seconds=pause * (1 + spread / 4))

    @classmethod
    def parse(cls, obj: Json) -> Self:
        """Of an object as the API server has it; what is missing or damaged is a refusal or nothing."""
        metadata: Json = obj["metadata"]
        spec: Json = obj.get("spec") or {}
        status: Json = obj.get("status") or {}
        conditions: dict[str, Json] = {c.get("type", ""): c for c in status.get("conditions") or ()}
        reference: Json = spec.get("issuerRef") or {}
        labels: Json = metadata.get("labels") or {}
        wanted_for: str = labels.get(CERTIFICATE_REQUEST_LABEL, "")
        certificate = _decode(status.get("certificate"))
        outcome, condition = _outcome(conditions, issued=bool(certificate))
        created = _moment(metadata.get("creationTimestamp"))
        owners: Sequence[Json] = metadata.get("ownerReferences") or ()
        return cls(
            **identity_of(obj),
            wanted_for=wanted_for,
            owner=next((owner["name"] for owner in owners), ""),
            attempt=_attempt(metadata["name"], wanted_for),
            created=created,
            issuer=(
                reference.get("name", ""),
                reference.get("kind", "Issuer"),
                reference.get("group", "cert-manager.io"),
            ),
            request=_decode(spec.get("request")),
            outcome=outcome,
            message=_message(condition)[:MAX_MESSAGE],
            ended=_moment(status.get("failureTime") or condition.get("lastTransitionTime"), created),
            certificate=certificate if outcome is Outcome.ISSUED else b"",
        )


def attempt_name(wanted_for: str, attempt: int) -> str:
    return f"{_PREFIX}{wanted_for}-{attempt}"


def build(
    *,
    wanted_for: str,
    attempt: int,
    namespace: str,
    issuer: IssuerReference,
    request: bytes,
    lifetime_seconds: int,
    owner: Json,
) -> Json:
    """The object that asks an issuer. request is a PKCS#10 request, PEM; owner an ownerReference."""
    usages: Sequence[str] = CSR_USAGES
    return {
        "apiVersion": CERTIFICATE_REQUEST.api_version,
        "kind": CERTIFICATE_REQUEST.kind,
        "metadata": {
            "name": attempt_name(wanted_for, attempt),
            "namespace": namespace,
            "labels": {CERTIFICATE_REQUEST_LABEL: wanted_for, "app.kubernetes.io/managed-by": "hauberk-operator"},
            "ownerReferences": [owner],
        },
        "spec": {
            "request": base64.b64encode(request).decode(),
            "issuerRef": {"name": issuer.name, "kind": issuer.kind, "group": issuer.group},
            "duration": f"{lifetime_seconds}s",
            "usages": list(usages),
            "isCA": False,
        },
    }


def _outcome(conditions: dict[str, Json], *, issued: bool) -> tuple[Outcome, Json]:
    """And the condition that says so."""
    ready = conditions.get("Ready") or {}
    for kind in ("Denied", "InvalidRequest"):
        found = conditions.get(kind) or {}
        if found.get("status") == "True":
            return Outcome.REFUSED, found
    if ready.get("status") == "True":
        return (Outcome.ISSUED if issued else Outcome.REFUSED), ready
    if ready.get("reason") in ("Failed", "Denied"):
        return Outcome.REFUSED, ready
    return Outcome.PENDING, ready or conditions.get("Approved") or {}


def _message(condition: Json) -> str:
    match condition.get("type"):
        case None:
            return "no approver has looked at it yet: does cert-manager run?"
        case "Approved":
            return "it is approved, and no issuer has taken it up yet: does the issuer's controller run?"
        case kind:
            return f"{condition.get('reason') or kind}: {condition.get('message') or 'without a word'}"


def _attempt(name: str, wanted_for: str) -> int:
    number = name.removeprefix(f"{_PREFIX}{wanted_for}-")
    return int(number) if number.isdecimal() and attempt_name(wanted_for, int(number)) == name else 0


def _decode(text: str | None) -> bytes:
    try:
        return base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        return b""


def _moment(text: str | None, otherwise: datetime | None = None) -> datetime:
    """RFC 3339, as the API server checks it; nothing is `otherwise`, or long ago."""
    if text:
        return datetime.fromisoformat(text)
    return otherwise if otherwise is not None else datetime.fromisoformat("1970-01-01T00:00:00Z")
