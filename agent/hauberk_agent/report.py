"""What the agent says of itself to the operator, and when.

`compose` is pure; the pacer decides when a new report is worth a write: at once when what the operator waits for
changes, and otherwise once a minute at most. Once a tunnel has been ready, a pair of it counts as unwell only after
some seconds, so that a node that joins, or one that restarts, makes nobody write; of a node that is dead its witnesses
write (hauberk_agent.witness), and not all at the same time. Until a tunnel is ready every pair that is not up is named,
so that nobody takes it for encrypted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random
from typing import Final

from cryptography import x509

from hauberk_agent.identity import Identity, fingerprints
from hauberk_agent.packet_sizes import Fit
from hauberk_agent.pair import Pair, TunnelStanding
from hauberk_agent.roster import Roster
from hauberk_agent.witness import SPREAD_SECONDS_PER_NODE
from hauberk_api.conditions import Reason
from hauberk_api.plan import Phase, reached
from hauberk_api.report import (
    MAX_UNWELL,
    WORST_FIRST,
    BootReport,
    CertificateReport,
    DatapathReport,
    EncapsulatedPeer,
    KernelReport,
    PacketsReport,
    ReportStatus,
    TunnelReport,
    UnwellPeer,
    UnwellReason,
)
from hauberk_api.tunnel import Establish
from hauberk_xfrm import KernelAbilities

HOLD_BACK_SECONDS: Final = 30.0
"""For so long a pair of a tunnel that was ready may be without SAs before it is reported."""
UNREADY_SECONDS: Final = 2.0
"""For so long the news that this node is not ready is held back: a new tunnel is up before that is over."""
MINIMUM_INTERVAL_SECONDS: Final = 60.0
TALLY_INTERVAL_SECONDS: Final = 600.0
STEP_SECONDS_PER_NODE: Final = 0.002
"""A mesh that follows a new plan reports it over so long: 500 nodes a second."""
_MESSAGE_LIMIT: Final = 400
_PEERS_REASONS: Final = frozenset(reason.value for reason in UnwellReason)
"""Of what ails a pair. (KernelRefused may be of the node alone: then it waits, too.)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a report is made of."""

    version: str
    plan_generation: int
    roster: Roster
    abilities: KernelAbilities
    identity: Identity | None
    identity_problem: str | None
    roots: Sequence[x509.Certificate]
    problems: tuple[str, ...]
    """What keeps the node from doing as planned: policies or sockets."""
    state_left: bool
    phases: Mapping[str, Phase]
    """By tunnel UID: the plan's phase that has been carried out."""
    clock_problem: str | None = None
    """That this node's clock is wrong, as a sentence."""
    up: Mapping[str, int] = field(default_factory=dict[str, int])
    """By UID of each tunnel whose pairs come up on demand: how many are."""
    encapsulated: tuple[EncapsulatedPeer, ...] = ()
    """All of them."""
    clear_packets: int = 0
    """Of Permissive tunnels, in about the last minute."""
    boot: BootReport | None = None
    datapath: DatapathReport | None = None
    misfits: Mapping[str, str] = field(default_factory=dict[str, str])
    """By UID of each tunnel that the datapath does not suit: why."""
    fit: Fit | None = None
    """What fits into the tunnels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the node's tunnels are: `ready` by UID, and the pairs that are to be named, each for its tunnel."""

    ready: Mapping[str, bool]
    unwell: Sequence[TunnelStanding]


class Readiness:
    """Which tunnels have once had all their pairs: from then on only a pair unwell for long makes them unready."""

    def __init__(self) -> None:
        self._established: set[str] = set()

    def assess(
        self, roster: Roster, pairs: Collection[Pair], now: float, *, complete: bool, silent: Collection[str] = ()
    ) -> Health:
        """How it is now. complete: whether the roster is thought to hold all members; until then nothing is ready.

        silent: the peers of which others report, in tunnels that have been ready, that they are missed.
        """
        # A tunnel in Accept wants no pairs yet, and what comes later has never been.
        early = {tunnel.uid for tunnel in roster.tunnels if not reached(tunnel.phase, Phase.ESTABLISH)}
        uids = {tunnel.uid for tunnel in roster.tunnels} - early
        unwell = [each for pair in pairs for each in pair.tunnels() if each.unwell_since is not None]
        self._established &= uids
        if complete:
            self._established |= uids - {each.tunnel for each in unwell}
        named = [
            each
            for each in unwell
            if each.tunnel not in self._established
            or (
                each.unwell_since is not None
                and now >= each.unwell_since + HOLD_BACK_SECONDS
                and each.node not in silent
            )
        ]
        unready = {each.tunnel for each in named}
        ready = {uid: uid in self._established and uid not in unready for uid in uids}
        return Health(ready=ready | dict.fromkeys(early, complete), unwell=named)


def carried_out(roster: Roster, *, awaits: Collection[str]) -> dict[str, Phase]:
    """The phase of each tunnel, by UID, of a node whose policies are as planned.

    awaits: the tunnels of which a pair has its SAs and is not sent to by them yet. Then Protect has not been carried
    out, though it may have been before that pair came up: were encryption required now, that pair's packets would be
    dropped.
    """
    return {
        tunnel.uid: Phase.ESTABLISH if tunnel.uid in awaits and tunnel.phase is Phase.PROTECT else tunnel.phase
        for tunnel in roster.tunnels
    }


def count_up(roster: Roster, pairs: Collection[Pair]) -> dict[str, int]:
    """How many pairs are up, of each tunnel whose pairs come up on demand; by UID."""
    counts = {tunnel.uid: 0 for tunnel in roster.tunnels if tunnel.establish is Establish.ON_DEMAND}
    for pair in pairs if counts else ():
        for standing in () if pair.is_idle else pair.tunnels():
            if standing.tunnel in counts and standing.unwell_since is None:
                counts[standing.tunnel] += 1
    return counts


def compose(facts: Facts, health: Health) -> ReportStatus:
    """The report at this moment."""
    roster = facts.roster
    names = {tunnel.uid: tunnel.name for tunnel in roster.tunnels}
    unwell = [
        UnwellPeer(
            node=each.node,
            tunnel=names.get(each.tunnel, ""),
            reason=each.failure.reason if each.failure is not None else UnwellReason.ESTABLISHING,
            message=each.failure.message[:_MESSAGE_LIMIT] if each.failure is not None else "",
        )
        for each in health.unwell
    ]
    unwell.sort(key=lambda peer: (WORST_FIRST.index(peer.reason), peer.node))
    esp = not facts.abilities.problems
    usable = esp and facts.identity is not None
    tunnels = tuple(
        TunnelReport(
            tunnel=tunnel.uid,
            generation=tunnel.generation,
            ready=usable
            and not facts.problems
            and tunnel.uid not in facts.misfits
            and health.ready.get(tunnel.uid, False),
            phase=facts.phases.get(tunnel.uid),
            problem=facts.misfits.get(tunnel.uid, "")[:_MESSAGE_LIMIT],
            up=facts.up.get(tunnel.uid),
        )
        for tunnel in roster.tunnels
    )
    reason, message = _reason(facts, unwell, all(health.ready.values()))
    return ReportStatus(
        nodeUID=roster.own.uid,
        agent_version=facts.version,
        plan_generation=facts.plan_generation,
        ready=usable and not facts.problems and all(tunnel.ready for tunnel in tunnels),
        reason=reason,
        message=message[:_MESSAGE_LIMIT],
        kernel=KernelReport(
            release=facts.abilities.release,
            esp=esp,
            iptfs=facts.abilities.iptfs,
            problems=facts.abilities.problems,
        ),
        certificate=_certificate(facts.identity, facts.roots),
        bundle=fingerprints(facts.roots),
        tunnels=tunnels,
        unwell=tuple(unwell[:MAX_UNWELL]),
        unwell_count=len(unwell),
        encapsulated=tuple(sorted(facts.encapsulated, key=lambda peer: peer.node)[:MAX_UNWELL]),
        clear_packets=facts.clear_packets,
        boot=facts.boot,
        datapath=facts.datapath,
        packets=_packets(facts.fit),
        state_left=facts.state_left,
    )


def _reason(facts: Facts, unwell: Sequence[UnwellPeer], all_ready: bool) -> tuple[Reason, str]:
    """The worst of what there is to say. Nothing in it may change with every join."""
    if facts.abilities.problems:
        return Reason.UNSUPPORTED_KERNEL, " ".join(facts.abilities.problems)
    if facts.identity is None:
        return Reason.NO_IDENTITY, _and_the_clock(facts.identity_problem or "", facts)
    if facts.problems:
        return Reason.KERNEL_REFUSED, "; ".join(facts.problems)
    if facts.misfits:
        names = {tunnel.uid: tunnel.name for tunnel in facts.roster.tunnels}
        return Reason.UNSUPPORTED_DATAPATH, "; ".join(
            f"tunnel {names.get(uid, uid)}: {why}" for uid, why in facts.misfits.items()
        )
    if unwell:
        worst = unwell[0]
        message = f"{worst.node}: {worst.message}" if worst.message else worst.node
        if worst.reason is UnwellReason.AUTHENTICATION_FAILED:
            message = _and_the_clock(message, facts)
        return Reason(worst.reason.value), message
    if facts.clock_problem is not None:
        return Reason.CLOCK_SKEW, facts.clock_problem
    if not all_ready:
        return Reason.ESTABLISHING, ""
    return Reason.AS_WANTED, " ".join(facts.roster.problems)


def _packets(fit: Fit | None) -> PacketsReport | None:
    if fit is None:
        return None
    return PacketsReport(podMTU=fit.pod_mtu, carried=fit.carried, narrowest=fit.node, pathMTU=fit.path_mtu)


def _and_the_clock(message: str, facts: Facts) -> str:
    """A wrong clock is why certificates don't verify, more often than not."""
    return "; ".join(filter(None, (facts.clock_problem, message)))


def _certificate(identity: Identity | None, roots: Sequence[x509.Certificate]) -> CertificateReport | None:
    root = identity.root(roots) if identity is not None else None
    if identity is None or root is None:
        return None
    return CertificateReport(
        serial=f"{identity.certificate.serial_number:x}",
        not_after=identity.certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        issuer_fingerprint=fingerprints((root,))[0],
    )


class _News(Enum):
    """Of which kind the news in a report is."""

    OWN = auto()
    """Of this node alone."""
    STEP = auto()
    """The node has followed the plan, as all others do now."""
    PEERS = auto()
    """A peer is missed, or back: others may see the same."""
    DETAIL = auto()
    TALLY = auto()
    """Pairs have come up on demand, or are idle again: that happens all the time."""


class Pacer:
    """Says when a report is to be written. Times are seconds on the agent's clock.

    What happens to all nodes at once makes all of them write, so that larger meshes take longer over it.
    """

    def __init__(self, chance: Random | None = None) -> None:
        self._chance = chance or Random()  # noqa: S311 - jitter, not a secret
        self._written: ReportStatus | None = None
        self._written_at = float("-inf")
        self._unready_since: float | None = None
        self._been_ready: set[str] = set()
        """Tunnels that were reported ready."""
        self._news: tuple[_News, float] | None = None
        """What there is to be told, and since when."""
        self._share = self._chance.random()
        """Of the time that the mesh takes over something, when this node does it."""
        self._failures = 0
        self._not_before = float("-inf")

    def due_at(self, report: ReportStatus, now: float, *, mesh_size: int = 0) -> float | None:
        """When this report should be written, or None if there is nothing new in it."""
        written = self._written
        if report.ready or written is None:
            self._unready_since = None
        elif self._unready_since is None:
            self._unready_since = now
        if report == written:
            self._news = None
            return None
        news = self._classify(report, written)
        if self._news is None or self._news[0] is not news:
            self._news = (news, now)
        since = self._news[1]
        soonest = now if self._unready_since is None else self._unready_since + UNREADY_SECONDS
        match news:
            case _News.OWN:
                at = soonest
            case _News.STEP:
                at = max(soonest, since + self._share * STEP_SECONDS_PER_NODE * mesh_size)
            case _News.PEERS:
                at = max(soonest, since + self._share * SPREAD_SECONDS_PER_NODE * mesh_size)
            case _News.DETAIL:
                at = self._written_at + MINIMUM_INTERVAL_SECONDS
            case _News.TALLY:
                at = self._written_at + TALLY_INTERVAL_SECONDS
        return max(at, self._not_before, now)

    def _classify(self, report: ReportStatus, written: ReportStatus | None) -> _News:
        if written is None:
            return _News.OWN
        if _steps(report) != _steps(written):
            return _News.STEP
        if _readiness(report) == _readiness(written):
            return _News.TALLY if _without_tally(report) == _without_tally(written) else _News.DETAIL
        ready = {line.tunnel for line in report.tunnels if line.ready}
        of_peers = (report if not report.ready else written).reason in _PEERS_REASONS
        return _News.PEERS if of_peers and ready <= self._been_ready else _News.OWN

    def wrote(self, report: ReportStatus, now: float) -> None:
        self._written, self._written_at = report, now
        self._been_ready |= {line.tunnel for line in report.tunnels if line.ready}
        self._news, self._share = None, self._chance.random()
        self._failures, self._not_before = 0, float("-inf")

    def failed(self, now: float) -> None:
        """The write failed: later, ever later."""
        self._failures += 1
        self._not_before = now + min(2.0 ** min(self._failures - 1, 10), 30.0)


def _tries(report: ReportStatus) -> bool:
    """Whether a tunnel waits for pairs that have not been tried in vain yet."""
    return any(tunnel.phase is Phase.ESTABLISH for tunnel in report.tunnels) and any(
        peer.reason is UnwellReason.ESTABLISHING for peer in report.unwell
    )


def _steps(report: ReportStatus) -> tuple[object, ...]:
    """What the operator waits for, of all nodes at once."""
    return (
        report.node_uid,
        report.plan_generation,
        tuple((line.tunnel, line.generation, line.phase) for line in report.tunnels),
        _tries(report),
        report.kernel,
        report.certificate is None or report.certificate.issuer_fingerprint,
        report.bundle,
        report.state_left,
    )


def _without_tally(report: ReportStatus) -> ReportStatus:
    tunnels = tuple(line.model_copy(update={"up": None}) for line in report.tunnels)
    return report.model_copy(update={"tunnels": tunnels})


def _readiness(report: ReportStatus) -> tuple[object, ...]:
    return report.ready, tuple(line.ready for line in report.tunnels)
