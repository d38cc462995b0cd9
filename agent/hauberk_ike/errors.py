"""What can go wrong, and whose fault it is.

::

    Exception
    |-- ProposalError           local misuse: a proposal's text that cannot be read (also a ValueError)
    |-- UnknownIkeSa            local misuse: a handle that names no IKE SA (also a LookupError)
    |-- Refused                 a policy's "no" to an authenticated peer, raised by PeerPolicy.authorize
    |-- SpiUnavailable          the kernel's "no", raised by PeerPolicy.allocate_spi
    `-- ProtocolError           a peer's fault; never leaves the package
        |-- MalformedMessage    bytes that are no IKEv2 message (RFC 7296 INVALID_SYNTAX)
        |-- UnsupportedCritical an unknown payload with the critical bit (UNSUPPORTED_CRITICAL_PAYLOAD)
        |-- IntegrityFailed     an Encrypted payload that does not open: dropped in silence
        `-- ExchangeRefused     a request that is answered with an error notify

Nothing that a peer sends raises anything but `ProtocolError`, and the endpoint turns that into events
and notifies. No message holds a secret, and none repeats a peer's bytes unescaped.
"""

# ruff: noqa: N818 - names say what happened; a tree above says that all are exceptions

from enum import StrEnum

from hauberk_ike.numbers import NotifyType


class RefusalReason(StrEnum):
    """Our own words in `PeerRefused.reason`; a policy's `Refused` adds words of its own."""

    NO_PROPOSAL_CHOSEN = "NoProposalChosen"
    INVALID_SYNTAX = "InvalidSyntax"
    UNSUPPORTED_CRITICAL_PAYLOAD = "UnsupportedCriticalPayload"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    CERTIFICATE_INVALID = "CertificateInvalid"
    IDENTITY_MISMATCH = "IdentityMismatch"
    SIGNATURE_INVALID = "SignatureInvalid"
    NAT_DETECTED = "NatDetected"
    NOT_ENCAPSULATED = "NotEncapsulated"
    PPK_MISSING = "PpkMissing"
    PRE_SHARED_KEY_INVALID = "PreSharedKeyInvalid"
    UNKNOWN_PEER = "UnknownPeer"
    HALF_OPEN_LIMIT = "HalfOpenLimit"
    HALF_OPEN_TIMEOUT = "HalfOpenTimeout"


class ProposalError(ValueError):
    """A proposal's text names something that this implementation does not have."""


class UnknownIkeSa(LookupError):
    """The handle belongs to no IKE SA of this endpoint (any more)."""


class Refused(Exception):
    """Raised by a policy: the peer is who it says, and still is not let in.

    `reason` is a CamelCase word for counters, `message` a sentence for logs.
    """

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason
        self.message = message or reason


class SpiUnavailable(Exception):
    """Raised by a policy: the kernel gave no SPI for an inbound SA."""


class ProtocolError(Exception):
    """The peer's fault. The only thing that bytes from the network may raise."""

    notify: NotifyType = NotifyType.INVALID_SYNTAX


class MalformedMessage(ProtocolError):
    """Bytes that do not follow RFC 7296's formats."""


class UnsupportedCritical(ProtocolError):
    """An unknown payload type with the critical bit set (RFC 7296 section 2.5)."""

    notify = NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD

    def __init__(self, payload_type: int) -> None:
        super().__init__(f"critical payload of unknown type {payload_type}")
        self.payload_type = payload_type


class IntegrityFailed(ProtocolError):
    """The Encrypted payload's integrity check failed (RFC 7296 section 2.21.2: drop in silence)."""


class ExchangeRefused(ProtocolError):
    """A request that is answered with `notify` (and its `data`, `protocol` and `spi`), for `reason`'s sake."""

    def __init__(
        self,
        notify: NotifyType,
        message: str,
        *,
        data: bytes = b"",
        protocol: int = 0,
        spi: bytes = b"",
        reason: str = "",
    ) -> None:
        super().__init__(message)
        self.notify = notify
        self.data = data
        self.protocol = protocol
        self.spi = spi
        self.reason = reason or notify.name
