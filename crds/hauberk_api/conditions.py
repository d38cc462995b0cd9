"""Conditions of Hauberk's objects, their reasons, and the pure function that sets one.

Reasons are part of the API: people alert on them. Each is documented in docs/reference/conditions.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from hauberk_api.model import Model


class ConditionType(StrEnum):
    ACCEPTED = "Accepted"
    READY = "Ready"
    DEGRADED = "Degraded"
    CONFLICTED = "Conflicted"
    PAUSED = "Paused"
    POD_CIDRS_KNOWN = "PodCIDRsKnown"
    OVERSIZED = "Oversized"


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Reason(StrEnum):
    # Accepted
    ACCEPTED = "Accepted"
    INVALID = "Invalid"
    UNSUPPORTED = "Unsupported"
    # Ready
    ALL_PAIRS_UP = "AllPairsUp"
    ON_DEMAND = "OnDemand"
    NO_PAIRS = "NoPairs"
    WAITING_FOR_AGENTS = "WaitingForAgents"
    ESTABLISHING = "Establishing"
    ROLLING_OUT = "RollingOut"
    NOT_ACCEPTED = "NotAccepted"
    # Degraded
    AS_WANTED = "AsWanted"
    UNSUPPORTED_KERNEL = "UnsupportedKernel"
    UNSUPPORTED_DATAPATH = "UnsupportedDatapath"
    AUTHORITY_UNUSABLE = "AuthorityUnusable"
    AUTHORITY_EXPIRES = "AuthorityExpires"
    ISSUER_NOT_SIGNING = "IssuerNotSigning"
    ADDRESS_CONFLICT = "AddressConflict"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    NO_PROPOSAL_CHOSEN = "NoProposalChosen"
    KERNEL_REFUSED = "KernelRefused"
    UNREACHABLE = "Unreachable"
    CLOCK_SKEW = "ClockSkew"
    NO_IDENTITY = "NoIdentity"
    IN_CLEAR = "InClear"
    NO_POD_CIDRS = "NoPodCIDRs"
    # Conflicted
    NO_CONFLICT = "NoConflict"
    OLDER_TUNNEL = "OlderTunnel"
    # Oversized
    FITS = "Fits"
    POD_MTU_TOO_LARGE = "PodMTUTooLarge"
    # Paused
    NOT_PAUSED = "NotPaused"
    PAUSED = "Paused"
    # PodCIDRsKnown
    FROM_NODE = "FromNode"
    FROM_CALICO = "FromCalico"
    FROM_CILIUM = "FromCilium"
    SOURCES_DISAGREE = "SourcesDisagree"
    SOURCE_UNREADABLE = "SourceUnreadable"
    SOURCE_MISSING = "SourceMissing"


class Condition(Model):
    """metav1.Condition."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str = ""
    """RFC 3339; set by set_conditions."""


def set_conditions(current: Iterable[Condition], wanted: Sequence[Condition], *, now: str) -> tuple[Condition, ...]:
    """The wanted conditions, each with the transition time kept unless its status changed.

    now is RFC 3339. Conditions of other types in current are kept. Equal input gives equal output, so a caller that
    compares before writing writes nothing when nothing changed.
    """
    before = {condition.type: condition for condition in current}
    result = dict(before)
    for condition in wanted:
        old = before.get(condition.type)
        since = old.last_transition_time if old is not None and old.status is condition.status else now
        result[condition.type] = condition.model_copy(update={"last_transition_time": since})
    return tuple(result.values())
