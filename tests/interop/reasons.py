"""Why a daemon, or one of the roles, is missing in a row of the table, and what is let pass where it is not.

`report` numbers them and shows each beneath the table; the tests see to it that none is missing and none is idle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.interop.case import LIBRESWAN, OPENIKED, PEERS, STRONGSWAN_6_0, Peer


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """What holds for some daemons in some rows. `is_allowance`: it says what may go wrong where they are played."""

    text: str
    peers: tuple[Peer, ...]
    rows: tuple[str, ...]
    is_allowance: bool = False


def _of(peers: Peer | tuple[Peer, ...], text: str, *rows: str) -> Reason:
    return Reason(text=text, peers=peers if isinstance(peers, tuple) else (peers,), rows=rows)


def _but(peers: Peer | tuple[Peer, ...], text: str, *rows: str) -> Reason:
    return replace(_of(peers, text, *rows), is_allowance=True)


REASONS = (
    _of(
        OPENIKED,
        "It signs with RSA by PKCS#1 v1.5 alone, which does not exist here.",
        "certificates RSA-PSS",
    ),
    _of(
        OPENIKED,
        "It has no post-quantum pre-shared keys (RFC 8784).",
        "post-quantum pre-shared key beside certificates",
        "post-quantum beside another pre-shared key",
    ),
    _of(
        OPENIKED,
        "On Linux it speaks PF_KEY: inner packets are of the outer family.",
        "IPv6 in IPv4",
        "IPv4 in IPv6",
        "both families in one SA",
    ),
    _of(
        OPENIKED,
        "As responder it widens selectors that are narrower than its own.",
        "selectors that we narrow",
    ),
    _of(PEERS, "The row is about one of the roles.", "they ask for a cookie", "we ask for a cookie"),
    _of(OPENIKED, "It answers COOKIE, and never asks for one.", "they ask for a cookie"),
    _of(
        OPENIKED,
        "For the IKE SA alone: through PF_KEY it has neither AEADs nor HMAC-SHA-256 for ESP.",
        "AES-GCM-128",
        "AES-CBC with SHA-256",
    ),
    _of(
        OPENIKED,
        "It has it for ESP alone, and there not through PF_KEY.",
        "ChaCha20-Poly1305",
    ),
    _of(OPENIKED, "It has no AES-CCM.", "AES-CCM", "AES-CCM for ESP"),
    _of(LIBRESWAN, "It has AES-CCM for ESP alone.", "AES-CCM"),
    _of(OPENIKED, "Through PF_KEY it has no extended sequence numbers.", "ESN"),
    _of(
        OPENIKED,
        "It has no command to rekey, and does so when a lifetime is over: not when a case wants it.",
        "all is rekeyed by both",
        "both rekey the child at once",
        "both rekey the IKE SA at once",
        "behind a NAT all is rekeyed by both",
    ),
    _of(
        LIBRESWAN,
        "It keeps the CHILD SA that is one too many (RFC 7296 section 2.8.1).",
        "both rekey the child at once",
    ),
    _of(LIBRESWAN, "It deletes the old IKE SA before the new one is up.", "they reauthenticate"),
    _of(OPENIKED, "It sends its own certificate, and no intermediates.", "chains of certificates in fragments"),
    _of(LIBRESWAN, "It moves only where a gateway leads to its peer: here both are on one network.", "they move"),
    _but(
        (LIBRESWAN, OPENIKED),
        "As a rekey's responder it sends on the new CHILD SA when its answer is out, as it may (RFC 7296 section 2.8):"
        " we may not have it yet. Three pings at most may be lost, which our kernel must have counted.",
        "we rekey the child",
        "we rekey the child that has carried enough",
        "we rekey the child with a key exchange",
        "all is rekeyed by both",
        "behind a NAT all is rekeyed by both",
    ),
    _but(
        OPENIKED,
        "It answers before its kernel has the new CHILD SA, and deletes the old one as soon as its DELETE is sent: what"
        " is sent to it then is dropped. Three pings at most may be lost, which its kernel must have counted.",
        "we rekey the child",
        "we rekey the child that has carried enough",
        "they rekey the child",
        "we rekey the child with a key exchange",
        "they rekey the child with a key exchange",
        "we reauthenticate",
    ),
    _of(OPENIKED, "It does not reauthenticate.", "they reauthenticate"),
    _of(OPENIKED, "It keeps the policies of a deleted CHILD SA until the IKE SA ends.", "we delete the child"),
    _of(
        OPENIKED,
        "As initiator it encapsulates by itself, without the pretence of a NAT that would tell its peer.",
        "they encapsulate without a NAT",
    ),
    _of(OPENIKED, "It has no command to delete a CHILD SA.", "they delete the child"),
    _of(
        OPENIKED,
        "It gives a silent peer up after two minutes (five retransmissions, each after twice the time), which nothing"
        " changes: longer than a case.",
        "we vanish",
    ),
    _of(OPENIKED, "It sends no INITIAL_CONTACT.", "they vanish and come back"),
    _of(
        PEERS,
        "Whoever is behind a NAT has to begin.",
        "we are behind a NAT",
        "they are behind a NAT",
        "behind a NAT all is rekeyed by both",
        "transport mode where we are behind a NAT",
        "transport mode where they are behind a NAT",
    ),
    _of(
        (LIBRESWAN, OPENIKED),
        "It has no setting for how long its fragments are.",
        "chains of certificates in small fragments",
    ),
    _of(
        LIBRESWAN,
        "It substitutes no traffic selectors for transport mode through a NAT (RFC 7296 section 2.23.1).",
        "transport mode where we are behind a NAT",
        "transport mode where they are behind a NAT",
    ),
    _of(PEERS, "We move nowhere: of MOBIKE (RFC 4555) there is the responder here.", "they move"),
    _of(OPENIKED, "It has MOBIKE as responder alone.", "they move"),
    _of(LIBRESWAN, "As initiator it leaves no CHILD SA out.", "childless at first"),
    _of(OPENIKED, "It has no IKE SA without CHILD SA (RFC 6023).", "childless at first"),
    _of(
        (STRONGSWAN_6_0, LIBRESWAN, OPENIKED),
        "It has no ML-KEM in this version.",
        "ML-KEM-768",
        "ML-KEM-768, we rekey the child",
        "ML-KEM-768, they rekey the child",
        "ML-KEM-768, we rekey the IKE SA",
        "ML-KEM-768, they rekey the IKE SA",
        "ML-KEM-1024 with P-384",
    ),
)


def reasons(row: str, peer: Peer) -> tuple[Reason, ...]:
    """Why a cell is not played, or half of it: the most particular reasons if there are any."""
    holding = [reason for reason in REASONS if row in reason.rows and peer in reason.peers and not reason.is_allowance]
    particular = [reason for reason in holding if reason.peers != PEERS]
    return tuple(particular or holding)


def allowances(row: str, peer: Peer) -> tuple[Reason, ...]:
    """What may go wrong in a cell."""
    return tuple(reason for reason in REASONS if row in reason.rows and peer in reason.peers and reason.is_allowance)
