"""Commands to a run, one a line, from standard input or `--command`, and what becomes of them.

    initiate [PEER]                  another IKE SA with a peer, and its children
    create-child LABEL [IKE_SA]      a CHILD SA of the configuration
    rekey-child [LABEL | SPI]
    rekey-ike [IKE_SA]
    reauthenticate [IKE_SA]
    delete-child [LABEL | SPI]
    delete [IKE_SA]
    status
    wait SECONDS
    quit

IKE_SA is the number that IkeSaUp named, SPI an inbound one; without them the newest is meant. A command is answered
once, when it has come to its end; the next one waits for that, unless the line ends in `&`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hauberk_diagnose.configuration import Peer
from hauberk_diagnose.installation import Installation
from hauberk_diagnose.report import Reporter, child_line, describe
from hauberk_ike import (
    ChildSaDown,
    ChildSaFailed,
    ChildSaUp,
    DownReason,
    Event,
    IkeEndpoint,
    IkeSaDown,
    IkeSaId,
    IkeSaInfo,
    IkeSaRekeyed,
    IkeSaUp,
    ReauthenticationNeeded,
    UnknownIkeSa,
)
from hauberk_xfrm import XfrmError

WAIT_SECONDS: Final = 120.0
"""A command that has not come to its end by then has failed."""
_NO_IKE_SA: Final = IkeSaId(0)


class _Wrong(Exception):  # noqa: N818 - says what happened
    """A command that can't be carried out, for this reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a command ended; `failure` is empty if well."""

    failure: str = ""


Ended = Callable[[Event, IkeSaId], Outcome | None]
"""Whether an event is a command's end. The IKE SA is the command's, under the handle that it has by now."""


@dataclass(slots=True, kw_only=True)
class _Pending:
    """A command that waits for its end."""

    line: str
    number: int
    in_background: bool
    until: float
    ike_sa: IkeSaId
    ended: Ended
    late: Outcome
    """What it comes to if its time is over."""


class Control:
    """Carries out commands on an endpoint."""

    def __init__(
        self,
        endpoint: IkeEndpoint,
        peers: tuple[Peer, ...],
        installation: Installation,
        reporter: Reporter,
    ) -> None:
        self._endpoint = endpoint
        self._peers = peers
        self._installation = installation
        self._reporter = reporter
        self._pending: list[_Pending] = []
        self._count = 0
        self.attempts: set[IkeSaId] = set()
        """IKE SAs that we have begun, and that are neither up nor down yet."""
        self.failed = False
        """Whether any command has failed."""
        self.wants_to_quit = False

    @property
    def busy(self) -> bool:
        """Whether a command waits for its end."""
        return any(not pending.in_background for pending in self._pending)

    def submit(self, line: str, *, now: float) -> None:
        """Carries out one line; an empty one and one that begins with # is nothing."""
        line = line.strip()
        words = line.split()
        if not words or words[0].startswith("#"):
            return
        in_background = words[-1] == "&"
        if in_background:
            words.pop()
        self._count += 1
        number = self._count
        try:
            waits = self._carry_out(words[0], words[1:], now)
        except (_Wrong, UnknownIkeSa) as wrong:
            self._answer(line, number, Outcome(failure=str(wrong)))
            return
        if waits is not None:
            is_wait = words[0] == "wait"
            pending = _Pending(
                line=line,
                number=number,
                in_background=in_background,
                until=now + (float(words[1]) if is_wait else WAIT_SECONDS),
                ike_sa=waits[0],
                ended=waits[1],
                late=Outcome(failure="" if is_wait else f"no end after {WAIT_SECONDS:.0f} s"),
            )
            self._pending.append(pending)
        elif words[0] != "status":
            self._answer(line, number, Outcome())

    def refuse(self, line: str, reason: str) -> None:
        """A command that is not carried out."""
        self._count += 1
        self._answer(line, self._count, Outcome(failure=reason))

    def observe(self, event: Event) -> None:
        """Ends the commands that waited for this."""
        if isinstance(event, (IkeSaUp, IkeSaDown)):
            self.attempts.discard(event.ike_sa)
        for pending in tuple(self._pending):
            outcome = pending.ended(event, pending.ike_sa)
            if isinstance(event, IkeSaRekeyed) and event.old == pending.ike_sa:
                pending.ike_sa = event.new
            if outcome is not None:
                self._pending.remove(pending)
                self._answer(pending.line, pending.number, outcome)

    def handle_timer(self, now: float) -> None:
        """Gives up what took too long."""
        for pending in [pending for pending in self._pending if pending.until <= now]:
            self._pending.remove(pending)
            self._answer(pending.line, pending.number, pending.late)

    def abandon(self, reason: str) -> None:
        """The run ends: whatever waits has failed."""
        while self._pending:
            pending = self._pending.pop(0)
            self._answer(pending.line, pending.number, Outcome(failure=reason))

    def next_due(self) -> float | None:
        return min((pending.until for pending in self._pending), default=None)

    def _carry_out(self, word: str, arguments: list[str], now: float) -> tuple[IkeSaId, Ended] | None:
        """What the command waits for, if for anything."""
        endpoint = self._endpoint
        match word, arguments:
            case "initiate", ([] | [_]):
                peer = self._peer(arguments)
                handle = endpoint.initiate(peer.config, now=now)
                self.attempts.add(handle)
                return handle, _set_up({child.label for child in peer.config.children})
            case "create-child", ([label] | [label, _]):
                sa = self._ike_sa(arguments[1:])
                child = next((child for child in sa.peer.children if child.label == label), None)
                if child is None:
                    raise _Wrong(f"{sa.peer.name} has no child {label!r} in the configuration")
                endpoint.create_child(sa.ike_sa, child, now=now)
                return sa.ike_sa, _child_up(label)
            case "rekey-child", ([] | [_]):
                sa, spi_in = self._child(arguments)
                endpoint.rekey_child(sa.ike_sa, spi_in, now=now)
                return sa.ike_sa, _child_down(spi_in)
            case "rekey-ike", ([] | [_]):
                sa = self._ike_sa(arguments)
                endpoint.rekey_ike(sa.ike_sa, now=now)
                return sa.ike_sa, _ike_rekeyed
            case "reauthenticate", ([] | [_]):
                sa = self._ike_sa(arguments)
                handle = endpoint.reauthenticate(sa.ike_sa, now=now)
                self.attempts.add(handle)
                return sa.ike_sa, _ike_replaced(handle)
            case "delete-child", ([] | [_]):
                sa, spi_in = self._child(arguments)
                endpoint.delete_child(sa.ike_sa, spi_in, now=now)
                return sa.ike_sa, _child_down(spi_in)
            case "delete", ([] | [_]):
                sa = self._ike_sa(arguments)
                endpoint.delete(sa.ike_sa, now=now, reason="asked for")
                return sa.ike_sa, _ike_down
            case "status", []:
                self._status(now)
                return None
            case "wait", [seconds] if _is_number(seconds):
                return _NO_IKE_SA, _never
            case "quit", []:
                self.wants_to_quit = True
                return None
            case _:
                raise _Wrong(f"{word!r} with {len(arguments)} arguments is no command; see hauberk-ike --help")

    def _answer(self, line: str, number: int, outcome: Outcome) -> None:
        self.failed = self.failed or bool(outcome.failure)
        members: dict[str, Any] = {"answer": number, "command": line, "ok": not outcome.failure}
        if outcome.failure:
            members["reason"] = outcome.failure
        self._reporter.answer(members, f"{line}: {outcome.failure or 'done'}")

    def _status(self, now: float) -> None:
        established = self._endpoint.established()
        members: dict[str, Any] = {"answer": self._count, "command": "status", "ok": True, "ike_sas": []}
        lines = [f"{len(established)} IKE SAs"]
        for sa in established:
            described = describe(sa)
            described["established_seconds"] = round(now - described.pop("established_at"), 3)
            lines.append(f"IKE SA {sa.ike_sa} with {sa.identity} at {sa.peer.remote}: {sa.proposal}")
            for child, shown in zip(sa.children, described["children"], strict=True):
                counters = self._counters(child.spi_in)
                shown.update(counters)
                line = child_line(child)
                if counters:
                    line += f", {counters['packets_in']} packets in, {counters['packets_out']} out"
                lines.append(line)
            members["ike_sas"].append(described)
        self._reporter.answer(members, "\n".join(lines))

    def _counters(self, spi_in: int) -> dict[str, int]:
        try:
            return self._installation.counters(spi_in)
        except XfrmError:
            return {}

    def _peer(self, arguments: list[str]) -> Peer:
        for peer in self._peers:
            if not arguments or peer.config.name == arguments[0]:
                if peer.any_address or peer.any_identity:
                    raise _Wrong(f"peer {peer.config.name!r} has no address or identity of its own to initiate to")
                return peer
        raise _Wrong(f"no peer {arguments[0]!r} in the configuration")

    def _ike_sa(self, arguments: list[str]) -> IkeSaInfo:
        established = self._endpoint.established()
        if not arguments:
            if not established:
                raise _Wrong("there is no IKE SA")
            return established[-1]
        for sa in established:
            if str(sa.ike_sa) == arguments[0]:
                return sa
        raise _Wrong(f"there is no IKE SA {arguments[0]}")

    def _child(self, arguments: list[str]) -> tuple[IkeSaInfo, int]:
        for sa in reversed(self._endpoint.established()):
            for child in reversed(sa.children):
                if not arguments or arguments[0].lower() in (child.label, f"{child.spi_in:08x}"):
                    return sa, child.spi_in
        raise _Wrong(f"there is no CHILD SA {arguments[0]}" if arguments else "there is no CHILD SA")


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


def _never(event: Event, ike_sa: IkeSaId) -> Outcome | None:
    return None


def _set_up(labels: set[str]) -> Ended:
    """Done when the IKE SA is up and each child has come or failed."""
    waiting = set(labels)
    failures: list[str] = []
    is_up = False

    def ended(event: Event, ike_sa: IkeSaId) -> Outcome | None:
        nonlocal is_up
        match event:
            case IkeSaDown(ike_sa=handle) if handle == ike_sa:
                return _failed(event)
            case IkeSaUp(ike_sa=handle) if handle == ike_sa:
                is_up = True
            case ChildSaUp(ike_sa=handle) if handle == ike_sa:
                waiting.discard(event.label)
            case ChildSaFailed(ike_sa=handle) if handle == ike_sa:
                waiting.discard(event.label)
                failures.append(f"{event.label}: {event.reason}")
            case _:
                return None
        return Outcome(failure="; ".join(failures)) if is_up and not waiting else None

    return ended


def _child_up(label: str) -> Ended:
    def ended(event: Event, ike_sa: IkeSaId) -> Outcome | None:
        match event:
            case ChildSaUp(ike_sa=handle, initiator=True) if handle == ike_sa and event.label == label:
                return Outcome()
            case ChildSaFailed(ike_sa=handle) if handle == ike_sa and event.label == label:
                return Outcome(failure=event.reason)
            case IkeSaDown(ike_sa=handle) if handle == ike_sa:
                return _failed(event)
            case _:
                return None

    return ended


def _child_down(spi_in: int) -> Ended:
    """Of a rekey as well: what is replaced is deleted in the end, whoever's replacement stays."""

    def ended(event: Event, ike_sa: IkeSaId) -> Outcome | None:
        match event:
            case ChildSaDown() if event.spi_in == spi_in:
                return Outcome()
            case ChildSaFailed() if event.rekeyed_spi_in == spi_in:
                return Outcome(failure=event.reason)
            case IkeSaDown(ike_sa=handle) if handle == ike_sa:
                return _failed(event)
            case _:
                return None

    return ended


def _ike_rekeyed(event: Event, ike_sa: IkeSaId) -> Outcome | None:
    match event:
        case IkeSaRekeyed() if event.old == ike_sa:
            return Outcome()
        case ReauthenticationNeeded(ike_sa=handle) if handle == ike_sa:
            return Outcome(failure=event.reason)
        case IkeSaDown(ike_sa=handle) if handle == ike_sa:
            return _failed(event)
        case _:
            return None


def _ike_replaced(new: IkeSaId) -> Ended:
    def ended(event: Event, ike_sa: IkeSaId) -> Outcome | None:
        match event:
            case IkeSaDown(ike_sa=handle) if handle == ike_sa:
                return Outcome() if event.reason is DownReason.DELETED else _failed(event)
            case IkeSaDown(ike_sa=handle) if handle == new:
                return _failed(event)
            case _:
                return None

    return ended


def _ike_down(event: Event, ike_sa: IkeSaId) -> Outcome | None:
    match event:
        case IkeSaDown(ike_sa=handle) if handle == ike_sa:
            return Outcome()
        case _:
            return None


def _failed(event: IkeSaDown) -> Outcome:
    return Outcome(failure=event.message or event.reason.value)
