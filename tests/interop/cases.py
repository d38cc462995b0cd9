"""The table: everything that is played, row by row.

Where a daemon is missing in a row it can't do what the row is about: `reasons` says what it lacks.
"""

from __future__ import annotations

from dataclasses import replace

from tests.interop import events
from tests.interop.bed import Nat
from tests.interop.case import LIBRESWAN, OPENIKED, STRONGSWAN_6_0, STRONGSWAN_6_1, Case, Peer, Role
from tests.interop.events import Event
from tests.interop.terms import Authentication, Side, Terms

_STRONGSWANS = (STRONGSWAN_6_0, STRONGSWAN_6_1)
_COMMANDED = (*_STRONGSWANS, LIBRESWAN)
_ALL = (*_COMMANDED, OPENIKED)
_FOR_OPENIKED = "aes256-sha384"
_I, _R = (Role.INITIATOR,), (Role.RESPONDER,)


def _each(
    name: str,
    peers: tuple[Peer, ...],
    terms: Terms | None = None,
    event: Event = events.nothing,
    *,
    nat: Nat = Nat.NOBODY,
    roles: tuple[Role, ...] = tuple(Role),
) -> tuple[Case, ...]:
    """The row, with an ESP proposal that OpenIKED can do where nothing else is said."""
    terms = terms or Terms()
    cases: list[Case] = []
    for peer in peers:
        its_terms = replace(terms, esp=_FOR_OPENIKED) if peer is OPENIKED and terms.esp == Terms().esp else terms
        cases += Case.each(name, (peer,), terms=its_terms, event=event, nat=nat, roles=roles)
    return tuple(cases)


_NARROW = Side(local=("10.244.1.0/25",), remote=("10.244.2.0/25",))
_NARROW_THERE = Side(local=("10.244.2.0/25",), remote=("10.244.1.0/25",))
_NARROWED = events.narrowed("10.244.1.0-10.244.1.127", "10.244.2.0-10.244.2.127")

SET_UP = (
    *_each("certificates P-256", _ALL),
    *_each("certificates P-384", _ALL, Terms(authentication=Authentication.P384)),
    *_each("certificates P-521", _ALL, Terms(authentication=Authentication.P521)),
    *_each("certificates RSA-PSS", _COMMANDED, Terms(authentication=Authentication.RSA)),
    *_each("post-quantum pre-shared key beside certificates", _COMMANDED, Terms(ppk=True)),
    *_each(
        "post-quantum beside another pre-shared key",
        _COMMANDED,
        Terms(ppk=True, authentication=Authentication.PSK),
    ),
    *_each("pre-shared key", _ALL, Terms(authentication=Authentication.PSK)),
    *_each("transport mode", _ALL, Terms(transport=True)),
    *_each("IPv6 in IPv4", _COMMANDED, Terms(inner=(6,))),
    *_each("IPv4 in IPv6", _COMMANDED, Terms(outer=6)),
    *_each("IPv6 in IPv6", _ALL, Terms(outer=6, inner=(6,))),
    *_each("both families in one SA", _COMMANDED, Terms(inner=(4, 6))),
    *_each("transport mode over IPv6", _ALL, Terms(outer=6, transport=True)),
    *_each("selectors that we narrow", _COMMANDED, Terms(ours=_NARROW), _NARROWED),
    *_each("selectors that we narrow", (OPENIKED,), Terms(ours=_NARROW), _NARROWED, roles=_R),
    *_each("selectors that they narrow", _ALL, Terms(theirs=_NARROW_THERE), _NARROWED),
    *_each(
        "selectors with a protocol",
        _ALL,
        Terms(
            ours=Side(local=("10.244.1.0/24[icmp]",), remote=("10.244.2.0/24[icmp]",)),
            theirs=Side(local=("10.244.2.0/24[icmp]",), remote=("10.244.1.0/24[icmp]",)),
        ),
    ),
    *_each("they ask for a cookie", _COMMANDED, Terms(cookie=True), events.cookie_asked, roles=_I),
    *_each("we ask for a cookie", _ALL, Terms(cookie=True), events.cookie_asked, roles=_R),
    *_each(
        "another key exchange is asked for",
        _ALL,
        Terms(ours=Side(ike="aes256gcm16-prfsha384-x25519-ecp256"), theirs=Side(ike="aes256gcm16-prfsha384-ecp256")),
        roles=_I,
    ),
    *_each(
        "another key exchange is asked for",
        _ALL,
        Terms(ours=Side(ike="aes256gcm16-prfsha384-ecp256"), theirs=Side(ike="aes256gcm16-prfsha384-x25519-ecp256")),
        roles=_R,
    ),
)

ALGORITHMS = (
    *_each("AES-GCM-128", _COMMANDED, Terms(ike="aes128gcm16-prfsha256-ecp256", esp="aes128gcm16")),
    *_each("AES-GCM-128", (OPENIKED,), Terms(ike="aes128gcm16-prfsha256-ecp256")),
    *_each("ChaCha20-Poly1305", _COMMANDED, Terms(ike="chacha20poly1305-prfsha256-x25519", esp="chacha20poly1305")),
    *_each("AES-CBC with SHA-256", _COMMANDED, Terms(ike="aes128-sha256-modp2048", esp="aes128-sha256")),
    *_each("AES-CBC with SHA-256", (OPENIKED,), Terms(ike="aes128-sha256-modp2048")),
    *_each("AES-CBC with SHA-384", _ALL, Terms(ike="aes256-sha384-ecp384", esp="aes256-sha384")),
    *_each("AES-CBC with SHA-512", _ALL, Terms(ike="aes256-sha512-ecp521", esp="aes256-sha512")),
    *_each("AES-CCM", _STRONGSWANS, Terms(ike="aes256ccm16-prfsha256-modp3072", esp="aes128ccm16")),
    *_each("AES-CCM for ESP", _COMMANDED, Terms(esp="aes128ccm16")),
    *_each("MODP-2048", _ALL, Terms(ike="aes256gcm16-prfsha256-modp2048")),
    *_each("MODP-3072", _ALL, Terms(ike="aes256gcm16-prfsha256-modp3072")),
    *_each("MODP-4096", _ALL, Terms(ike="aes256gcm16-prfsha512-modp4096")),
    *_each("ESN", _COMMANDED, Terms(esp="aes256gcm16-esn")),
)

DELETES = (
    *_each("we delete the child", _COMMANDED, event=events.we_delete_the_child),
    *_each("we delete the child", (OPENIKED,), event=events.we_delete_the_child_and_their_policies_stay),
    *_each("they delete the child", _COMMANDED, event=events.they_delete_the_child),
    *_each("we delete the IKE SA", _ALL, event=events.we_delete_the_ike_sa),
    *_each("they delete the IKE SA", _ALL, event=events.they_delete_the_ike_sa),
    *_each("they vanish", _ALL, Terms(ours=Side(dpd_seconds=1)), events.they_vanish),
    *_each("we vanish", _COMMANDED, Terms(theirs=Side(dpd_seconds=1)), events.we_vanish),
    *_each("we vanish and come back", _ALL, event=events.we_come_back),
    *_each("they vanish and come back", _COMMANDED, event=events.they_come_back),
)

_PFS = Terms(esp="aes256gcm16-x25519")
_PFS_FOR_OPENIKED = Terms(esp=f"{_FOR_OPENIKED}-x25519")
_MLKEM = Terms(ike="aes256gcm16-prfsha384-x25519-ke1_mlkem768", esp="aes256gcm16-x25519-ke1_mlkem768")

REKEYS = (
    *_each("we rekey the child", _ALL, event=events.we_rekey_the_child),
    *_each(
        "we rekey the child that has carried enough",
        _ALL,
        # At a hundred a second that is longer than the replaced SA lingers: there is a time with the new one alone.
        Terms(ours=Side(rekey_child_packets=750)),
        events.we_rekey_what_has_carried_enough,
    ),
    *_each("they rekey the child", _COMMANDED, event=events.they_rekey_the_child),
    *_each("we rekey the child with a key exchange", _COMMANDED, _PFS, events.we_rekey_the_child),
    *_each("we rekey the child with a key exchange", (OPENIKED,), _PFS_FOR_OPENIKED, events.we_rekey_the_child),
    *_each("they rekey the child with a key exchange", _COMMANDED, _PFS, events.they_rekey_the_child),
    *_each("we rekey the IKE SA", _ALL, event=events.we_rekey_the_ike_sa),
    *_each("they rekey the IKE SA", _COMMANDED, event=events.they_rekey_the_ike_sa),
    *_each("all is rekeyed by both", _COMMANDED, _PFS, events.everything_is_rekeyed_by_both),
    *_each("both rekey the child at once", _STRONGSWANS, event=events.both_rekey_the_child),
    *_each("both rekey the IKE SA at once", _COMMANDED, event=events.both_rekey_the_ike_sa),
    *_each("we reauthenticate", _ALL, event=events.we_reauthenticate),
    *_each("they reauthenticate", _STRONGSWANS, event=events.they_reauthenticate),
    *_each(
        "they rekey the child",
        (OPENIKED,),
        Terms(theirs=Side(rekey_child_seconds=10)),
        events.they_rekey_the_child,
    ),
    *_each(
        "they rekey the child with a key exchange",
        (OPENIKED,),
        replace(_PFS_FOR_OPENIKED, theirs=Side(rekey_child_seconds=10)),
        events.they_rekey_the_child,
    ),
    *_each(
        "they rekey the IKE SA",
        (OPENIKED,),
        Terms(theirs=Side(rekey_ike_seconds=6)),
        events.they_rekey_the_ike_sa,
    ),
)

_THEY_ENCAPSULATE = Terms(theirs=Side(encapsulate=True))
_CHAIN = Terms(authentication=Authentication.CHAIN)

NETWORK = (
    *_each("we are behind a NAT", _ALL, event=events.encapsulated, nat=Nat.LEFT, roles=_I),
    *_each("they are behind a NAT", _ALL, event=events.encapsulated, nat=Nat.RIGHT, roles=_R),
    *_each(
        "behind a NAT all is rekeyed by both",
        _COMMANDED,
        _PFS,
        events.everything_is_rekeyed_by_both,
        nat=Nat.LEFT,
        roles=_I,
    ),
    *_each(
        "transport mode where we are behind a NAT",
        (*_STRONGSWANS, OPENIKED),
        Terms(transport=True),
        nat=Nat.LEFT,
        roles=_I,
    ),
    *_each(
        "transport mode where they are behind a NAT",
        (*_STRONGSWANS, OPENIKED),
        Terms(transport=True),
        nat=Nat.RIGHT,
        roles=_R,
    ),
    *_each("we encapsulate without a NAT", _ALL, Terms(ours=Side(encapsulate=True)), events.encapsulated),
    *_each("they encapsulate without a NAT", _COMMANDED, _THEY_ENCAPSULATE, events.encapsulated),
    *_each("they encapsulate without a NAT", (OPENIKED,), _THEY_ENCAPSULATE, events.encapsulated, roles=_I),
    *_each("chains of certificates in fragments", _COMMANDED, _CHAIN, events.in_fragments),
    *_each(
        "chains of certificates in small fragments",
        _STRONGSWANS,
        replace(_CHAIN, fragment_size=576),
        events.in_fragments,
    ),
    *_each("they move", _STRONGSWANS, Terms(mobike=True), events.they_move, roles=_R),
    *_each("childless at first", _COMMANDED, Terms(childless=True), events.set_up_apart, roles=_I),
    *_each("childless at first", _STRONGSWANS, Terms(childless=True), events.set_up_apart, roles=_R),
)

QUANTUM = (
    *_each("ML-KEM-768", (STRONGSWAN_6_1,), _MLKEM),
    *_each("ML-KEM-768, we rekey the child", (STRONGSWAN_6_1,), _MLKEM, events.we_rekey_the_child),
    *_each("ML-KEM-768, they rekey the child", (STRONGSWAN_6_1,), _MLKEM, events.they_rekey_the_child),
    *_each("ML-KEM-768, we rekey the IKE SA", (STRONGSWAN_6_1,), _MLKEM, events.we_rekey_the_ike_sa),
    *_each("ML-KEM-768, they rekey the IKE SA", (STRONGSWAN_6_1,), _MLKEM, events.they_rekey_the_ike_sa),
    *_each(
        "ML-KEM-1024 with P-384",
        (STRONGSWAN_6_1,),
        Terms(ike="aes256gcm16-prfsha512-ecp384-ke1_mlkem1024", esp="aes256gcm16"),
    ),
)

CASES: tuple[Case, ...] = (*SET_UP, *ALGORITHMS, *REKEYS, *DELETES, *NETWORK, *QUANTUM)

BETWEEN_ALL = (
    "certificates P-256",
    "pre-shared key",
    "transport mode",
    "IPv6 in IPv6",
    "selectors that we narrow",
    "selectors that they narrow",
    "we rekey the child",
    "they rekey the child",
    "we rekey the IKE SA",
    "they rekey the IKE SA",
    "we delete the child",
    "they delete the child",
    "we delete the IKE SA",
    "they delete the IKE SA",
    "they vanish",
    "we are behind a NAT",
    "they are behind a NAT",
    "chains of certificates in fragments",
)
"""The rows that the tests play with every daemon."""

IN_TESTS: tuple[Case, ...] = tuple(case for case in CASES if case.peer is STRONGSWAN_6_1 or case.name in BETWEEN_ALL)
"""What the tests play: the whole table with one daemon, and the heart of it with all. `make interop` plays all."""

HEART: tuple[Case, ...] = tuple(case for case in IN_TESTS if case.name in BETWEEN_ALL or case in QUANTUM)
"""Of these, what `make test` plays; the others are long tests."""
