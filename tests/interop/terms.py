"""What two ends of a case agree on, in words that are nobody's configuration; the drivers translate.

Proposals are in strongSwan's spelling, which is ours too. Everything has the plainest default.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LEFT_IDENTITY = "left.hauberk.test"
RIGHT_IDENTITY = "right.hauberk.test"
CHILD = "pods"
PSK = "correct horse battery staple"
PPK_IDENTITY = "quantum"
PPK = "a key that no quantum computer finds out"


class Authentication(StrEnum):
    """How each end proves itself; all but PSK by a certificate of that kind."""

    PSK = "psk"
    P256 = "p256"
    P384 = "p384"
    P521 = "p521"
    RSA = "rsa"
    """RSA-2048 with PSS (RFC 7427)."""
    CHAIN = "chain"
    """P-256 beneath four intermediates, which are sent: over 2 KB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Where one side's word differs from the other's. Empty: the same as agreed."""

    ike: str = ""
    esp: str = ""
    local: tuple[str, ...] = ()
    """Traffic selectors: its own end and the other one, e.g. 10.244.1.2/32 or 10.244.1.0/24[udp/53]."""
    remote: tuple[str, ...] = ()
    encapsulate: bool = False
    """ESP in UDP without a NAT."""
    rekey_child_seconds: int = 0
    rekey_child_packets: int = 0
    rekey_ike_seconds: int = 0
    dpd_seconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The terms of one case. `outer`: the family of the gateways' addresses; `inner`: those of the pods' traffic."""

    authentication: Authentication = Authentication.P256
    ike: str = "aes256gcm16-prfsha384-x25519"
    esp: str = "aes256gcm16"
    transport: bool = False
    outer: int = 4
    inner: tuple[int, ...] = (4,)
    fragment_size: int = 0
    """At most so many bytes a datagram; 0: whatever the ends do by themselves."""
    childless: bool = False
    """The initiator sets up the IKE SA alone, and then the CHILD SA."""
    cookie: bool = False
    """The responder asks for a COOKIE, strongSwan from the second half-open IKE SA on."""
    mobike: bool = False
    ppk: bool = False
    """A post-quantum pre-shared key is mixed in, and required (RFC 8784)."""
    ours: Side = Side()
    theirs: Side = Side()
