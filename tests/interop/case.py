"""A case: terms, a NAT or none, and an event; with which daemons and in which of our roles it is played."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from tests.interop.bed import Nat
from tests.interop.events import Event, nothing
from tests.interop.libreswan import Libreswan
from tests.interop.openiked import OpenIked
from tests.interop.roots import FORKY, TRIXIE, Suite
from tests.interop.strongswan import StrongSwan
from tests.interop.terms import Terms

DaemonClass = type[StrongSwan] | type[Libreswan] | type[OpenIked]


class Role(StrEnum):
    """Ours."""

    INITIATOR = "initiator"
    RESPONDER = "responder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A daemon of one version. `package` says which version that is."""

    name: str
    daemon: DaemonClass
    suite: Suite
    package: str

    @property
    def label(self) -> str:
        """Its name in the ids of tests, such as strongswan-forky."""
        return f"{self.name}-{self.suite.name}"

    @property
    def version(self) -> str:
        return self.suite.version(self.package)


STRONGSWAN_6_0 = Peer(name="strongswan", daemon=StrongSwan, suite=TRIXIE, package="charon-systemd")
STRONGSWAN_6_1 = Peer(name="strongswan", daemon=StrongSwan, suite=FORKY, package="charon-systemd")
LIBRESWAN = Peer(name="libreswan", daemon=Libreswan, suite=TRIXIE, package="libreswan")
OPENIKED = Peer(name="openiked", daemon=OpenIked, suite=TRIXIE, package="openiked")
PEERS = (STRONGSWAN_6_0, STRONGSWAN_6_1, LIBRESWAN, OPENIKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the table for one daemon and role."""

    name: str
    """What it is about, for people: the row."""
    peer: Peer
    role: Role
    terms: Terms
    event: Event
    nat: Nat

    @property
    def id(self) -> str:
        """Names it in tests and on command lines."""
        return f"{self.peer.label}-{self.role.value}-{self.name.replace(' ', '-')}"

    @classmethod
    def each(
        cls,
        name: str,
        peers: Iterable[Peer],
        *,
        terms: Terms,
        event: Event = nothing,
        nat: Nat = Nat.NOBODY,
        roles: Iterable[Role] = tuple(Role),
    ) -> tuple[Self, ...]:
        """The row with each of the daemons, in each of the roles."""
        return tuple(
            cls(name=name, peer=peer, role=role, terms=terms, event=event, nat=nat) for peer in peers for role in roles
        )
