"""When the mesh's root gives way to another one: a pure state machine over what the Secret holds.

    Stable      one root, which signs
      | Prepare: the next root and its key are in the Secret
    Publishing  both are in the plan's trust bundle; the old one signs
      | Switch, when all agents that count report the next root: it signs, and the old key is gone
    Draining    both are in the bundle; agents see whose root signs, and exchange their certificates
      | Drop, when none that counts reports a certificate of the old root
    Stable

Replace is the way for a root that is believed by nobody any more (its key may be in wrong hands, or its time is over):
from any phase to Stable with a new root, in one step. Existing certificates are worth nothing then, and agents ask
again at once.

Each step is one write of the Secret, on the version that the decision was made on. The Secret is all the state that
there is, so whichever replica leads looks at it and does what comes next, wherever the last one died. The plan's trust
bundle follows from the Secret.

An agent counts while its Node is Ready and its certificate is good: absent nodes hold nothing up. Nor can an agent that
counts and never follows, such as one in wrong hands: after `patience` the roll goes on without it. Whoever comes late
finds its certificate's root no longer in the bundle, and asks again.

Called by authority.py, which carries the steps out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from cryptography import x509

from hauberk_api.certificate import fingerprint
from hauberk_operator.facts import NodeFacts, ReportFacts

ROLL_SHARE: Final = 2 / 3
"""The share of a root's life after which it is rolled, as with the nodes' certificates."""

REPORT_AGE: Final = timedelta(minutes=3)
"""A report may be so old: where certificates live for a minute, the one it names has ended and there is a newer."""

LEAST_PATIENCE: Final = timedelta(minutes=2)


class Phase(StrEnum):
    STABLE = "Stable"
    PUBLISHING = "Publishing"
    DRAINING = "Draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What is in the Secret, without the keys."""

    current: x509.Certificate
    """The root that signs."""
    next: x509.Certificate | None = None
    previous: tuple[x509.Certificate, ...] = ()
    """Trusted still, though their keys are gone."""
    delegated: bool = False
    """Whether the key of the root that signs is an issuer's, and not ours."""
    handled: str = ""
    """The id of the last request for a roll that was taken up."""
    since: datetime
    """When the phase began."""

    @property
    def phase(self) -> Phase:
        if self.next is not None:
            return Phase.PUBLISHING
        return Phase.DRAINING if self.previous else Phase.STABLE

    @property
    def trusted(self) -> tuple[x509.Certificate, ...]:
        """The trust bundle, the root that signs first."""
        return tuple(dict.fromkeys((self.current, *((self.next,) if self.next is not None else ()), *self.previous)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What people want, and with what material."""

    roll: str = ""
    distrust: bool = False
    importing: bool = False
    """Whether roots come from a Secret of people's, or with an issuer, rather than from us."""
    delegating: bool = False
    """Whether it is an issuer that signs."""
    imported: x509.Certificate | None = None
    """What is there, if it can be used and is news."""
    patience: timedelta = LEAST_PATIENCE
    """How long a phase waits for agents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """An agent that counts, and what it reports."""

    node: str
    bundle: frozenset[str]
    """The fingerprints of the roots that it trusts."""
    issuer: str
    """Its certificate's root."""


class Step(StrEnum):
    CREATE = "Create"
    PREPARE = "Prepare"
    SWITCH = "Switch"
    DROP = "Drop"
    REPLACE = "Replace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A step that is due. handled is what Holdings.handled will be."""

    step: Step
    why: str
    handled: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing is due before `until` (None: before something changes). waits_for are nodes' names."""

    until: datetime | None = None
    waits_for: tuple[str, ...] = ()


def advance(
    holdings: Holdings | None,
    wish: Wish,
    witnesses: Collection[Witness],
    *,
    published: Collection[str],
    now: datetime,
) -> Move | Wait:
    """The step that is due. published are the fingerprints of the plan in force; now is aware."""
    if holdings is None:
        if wish.importing and wish.imported is None:
            return Wait()
        return Move(step=Step.CREATE, why="the mesh has no authority", handled=wish.roll)
    if (replacement := _replacement(holdings, wish, now)) is not None:
        return replacement
    patience = wish.patience
    if holdings.delegated and holdings.phase is Phase.PUBLISHING:
        # The issuer is gone, or signs with its next CA already: who asks now gets nothing until this is over.
        patience = LEAST_PATIENCE
    limit = holdings.since + patience
    match holdings.phase:
        case Phase.STABLE:
            return _begin(holdings, wish, now)
        case Phase.PUBLISHING:
            return _switch(holdings, witnesses, published, limit, now)
        case Phase.DRAINING:
            return _drop(holdings, witnesses, limit, now)


def _replacement(holdings: Holdings, wish: Wish, now: datetime) -> Move | None:
    if not _has_new(holdings, wish):
        return None
    asked = bool(wish.roll) and wish.roll != holdings.handled
    if asked and wish.distrust:
        return Move(step=Step.REPLACE, why=f"roll {wish.roll!r}: the old root is distrusted", handled=wish.roll)
    if holdings.current.not_valid_after_utc <= now:
        # Prepared in time or not: the present bundle is worth nothing to anybody.
        return Move(step=Step.REPLACE, why="the root has expired", handled=wish.roll)
    return None


def _has_new(holdings: Holdings, wish: Wish) -> bool:
    """Whether there is something to roll to: our own roots are made as wanted, people's must have come."""
    if not wish.importing:
        return True
    # The same root is news, too, when another has its key by now.
    moved = wish.imported == holdings.current and wish.delegating is not holdings.delegated
    return wish.imported is not None and (wish.imported != holdings.current or moved)


def _begin(holdings: Holdings, wish: Wish, now: datetime) -> Move | Wait:
    due = rolls_at(holdings.current)
    if wish.importing:
        if _has_new(holdings, wish):
            where = (
                "the issuer signs with another root" if wish.delegating else "the imported Secret holds another root"
            )
            return Move(step=Step.PREPARE, why=where, handled=wish.roll)
        return Wait(until=holdings.current.not_valid_after_utc)
    if holdings.delegated:
        return Move(step=Step.PREPARE, why="no issuer is to sign any more", handled=wish.roll)
    if wish.roll and wish.roll != holdings.handled:
        return Move(step=Step.PREPARE, why=f"roll {wish.roll!r}", handled=wish.roll)
    if now >= due:
        return Move(step=Step.PREPARE, why="two thirds of the root's life are over", handled=holdings.handled)
    return Wait(until=due)


def _switch(
    holdings: Holdings,
    witnesses: Collection[Witness],
    published: Collection[str],
    limit: datetime,
    now: datetime,
) -> Move | Wait:
    assert holdings.next is not None
    mark = fingerprint(holdings.next)
    if mark not in published:
        return Wait()
    late = tuple(sorted(witness.node for witness in witnesses if mark not in witness.bundle))
    if late and now < limit:
        return Wait(until=limit, waits_for=late)
    return Move(step=Step.SWITCH, why=_why("trust the next root", late), handled=holdings.handled)


def _drop(holdings: Holdings, witnesses: Collection[Witness], limit: datetime, now: datetime) -> Move | Wait:
    old = {fingerprint(root) for root in holdings.previous}
    late = tuple(sorted(witness.node for witness in witnesses if witness.issuer in old))
    if late and now < limit:
        return Wait(until=limit, waits_for=late)
    return Move(step=Step.DROP, why=_why("have certificates of the new root", late), handled=holdings.handled)


def _why(done: str, late: Collection[str]) -> str:
    return f"the agents {done}" + (f"; not awaited any longer: {', '.join(sorted(late)[:3])}" if late else "")


def rolls_at(root: x509.Certificate) -> datetime:
    """When a root that we have made is rolled by itself."""
    begin, end = root.not_valid_before_utc, root.not_valid_after_utc
    return begin + (end - begin) * ROLL_SHARE


def witnesses_of(
    nodes: Mapping[str, NodeFacts], reports: Mapping[str, ReportFacts], *, now: datetime
) -> tuple[Witness, ...]:
    """The agents that count."""
    found: list[Witness] = []
    for name, report in reports.items():
        node, status = nodes.get(name), report.status
        if node is None or not node.ready or status is None or status.node_uid != node.uid:
            continue
        certificate = status.certificate
        if certificate is None or _moment(certificate.not_after) + REPORT_AGE <= now:
            continue
        found.append(Witness(node=name, bundle=frozenset(status.bundle), issuer=certificate.issuer_fingerprint))
    return tuple(found)


def _moment(text: str) -> datetime:
    """An agent's RFC 3339; what is none is long ago."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.fromisoformat("1970-01-01T00:00:00Z")
    return moment if moment.tzinfo is not None else datetime.fromisoformat("1970-01-01T00:00:00Z")
