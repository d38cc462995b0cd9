"""A run of `initiate` or `respond`: the loop between sockets, clock, standard input, endpoint and kernel.

One thread, and no more than the endpoint's contract asks for: what arrived is acted on before anything is sent. The
run ends when it is told to (a signal, `quit`, `--for`, the last `--command`), or when an initiator has no IKE SA left;
it then deletes its IKE SAs in good order and removes what it installed.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum
from functools import partial
from types import FrameType
from typing import Final

from hauberk_diagnose.configuration import Configuration
from hauberk_diagnose.control import Control
from hauberk_diagnose.installation import Installation
from hauberk_diagnose.report import Reporter
from hauberk_diagnose.sockets import Sockets
from hauberk_ike import (
    ChildConfig,
    ChildSaDown,
    ChildSaUp,
    DownReason,
    Event,
    Identity,
    IkeEndpoint,
    IkeSaDown,
    IkeSaId,
    IkeSaMoved,
    IkeSaRekeyed,
    IkeSaUp,
    IpAddress,
    PeerConfig,
    ReauthenticationNeeded,
    Refused,
    SocketAddress,
    UnknownIkeSa,
)
from hauberk_xfrm import EventSocket, PolicyExists, XfrmError

FAREWELL_SECONDS: Final = 5.0
"""How long an orderly end may take."""
_PROGRESS_FIRST_SECONDS: Final = 2.0
_MAX_INPUT_BYTES: Final = 1 << 20


class Outcome(IntEnum):
    """Exit codes of a run, beside argparse's 2 for wrong usage."""

    DONE = 0
    """All that was asked for came about."""
    BROKEN = 1
    """Something on this side failed: a file, a socket, the kernel."""
    REFUSED = 3
    """An IKE SA, a CHILD SA or a command of ours was not to be had."""
    LOST = 4
    """An IKE SA was up, and its peer no longer answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run does beyond waiting: whom it initiates to, what it then carries out, and for how long it stays."""

    initiates: bool
    stays: bool
    """Whether it goes on without any IKE SA."""
    commands: tuple[str, ...] = ()
    seconds: float | None = None
    reads_input: bool = True


class _Policy:
    """Answers the endpoint's questions from the configuration."""

    def __init__(self, configuration: Configuration, installation: Installation) -> None:
        self._peers = configuration.peers
        self._installation = installation

    def find(self, identity: Identity, remote: SocketAddress) -> PeerConfig | None:
        for peer in self._peers:
            fits = peer.any_identity or peer.config.identity == identity
            if fits and (peer.any_address or peer.config.remote.host == remote.host):
                # Only a peer that may come from anywhere is taken at the address that it speaks from.
                remote = remote if peer.any_address else peer.config.remote
                return replace(peer.config, identity=identity, remote=remote)
        return None

    def authorize(self, identity: Identity, remote: SocketAddress) -> PeerConfig:
        peer = self.find(identity, remote)
        if peer is None:
            raise Refused("UnknownPeer", f"no peer {identity} at {remote.host} in the configuration")
        return peer

    def permit_address(self, peer: PeerConfig, remote: SocketAddress) -> None:
        if not any(each.any_address for each in self._peers if each.config.name == peer.name):
            raise Refused("AddressMismatch", f"peer {peer.name} is to be at {peer.remote.host} alone")

    def is_known(self, host: IpAddress) -> bool:
        return any(peer.config.remote.host == host for peer in self._peers)

    def allocate_spi(self, child: ChildConfig, peer: PeerConfig) -> int:
        return self._installation.allocate(child, peer)

    def release_spi(self, spi: int, peer: PeerConfig) -> None:
        self._installation.release(spi, peer)

    def count_arrived(self, spi: int, peer: PeerConfig) -> int | None:
        return None


class Runner:
    """One run."""

    def __init__(
        self,
        configuration: Configuration,
        plan: Plan,
        *,
        sockets: Sockets,
        installation: Installation,
        reporter: Reporter,
        key_log: Callable[[str], None] | None = None,
        expiries: EventSocket | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._sockets = sockets
        self._installation = installation
        self._reporter = reporter
        self._expiries = expiries
        """Where the kernel says that a state has carried enough."""
        self._clock = clock
        self._endpoint = IkeEndpoint(
            credentials=configuration.credentials,
            policy=_Policy(configuration, installation),
            entropy=os.urandom,
            wall_clock=lambda: datetime.now(UTC),
            settings=configuration.settings,
            key_log=key_log,
        )
        self._control = Control(self._endpoint, configuration.peers, installation, reporter)
        self._configuration = configuration
        self._commands = deque(plan.commands)
        """Of `--command`, for when there is an IKE SA."""
        self._lines: deque[str] = deque()
        """Of standard input."""
        self._input = b""
        self._kernel_failed = False
        self._lost = False
        self._alive: set[int] = set()
        """IKE SAs that are up."""
        self._ends_at: float | None = None
        self._ending = False
        self._quiet_since = 0.0
        self._progress_after = _PROGRESS_FIRST_SECONDS
        self._selector = selectors.DefaultSelector()

    def run(self) -> Outcome:
        """Until it ends. Restores the signal handlers that it sets."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        old_descriptor = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        old_handlers = {number: signal.signal(number, _do_nothing) for number in (signal.SIGINT, signal.SIGTERM)}
        self._selector.register(ours, selectors.EVENT_READ, None)
        for local, sock in self._sockets.items():
            self._selector.register(sock, selectors.EVENT_READ, local)
        if self._expiries is not None:
            self._selector.register(self._expiries, selectors.EVENT_READ, None)
        self._listen_to_input()
        try:
            self._start()
            while not self._over():
                self._turn(ours)
        finally:
            self._installation.remove_everything()
            for number, handler in old_handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_descriptor)
            self._selector.close()
            ours.close()
            theirs.close()
        return self._outcome()

    def _start(self) -> None:
        now = self._quiet_since = self._clock()
        if self._plan.seconds is not None:
            self._ends_at = now + self._plan.seconds
        if self._plan.initiates:
            for peer in self._configuration.peers:
                self._control.submit(f"initiate {peer.config.name}", now=now)
        self._settle(now)

    def _turn(self, wakeup: socket.socket) -> None:
        now = self._clock()
        due = self._next_due(now)
        ready = self._selector.select(None if due is None else max(0.0, due - now))
        now = self._clock()
        for key, _ in ready:
            if isinstance(key.data, SocketAddress):
                for data, remote in self._sockets.receive(key.data):
                    self._endpoint.receive_datagram(data, local=key.data, remote=remote, now=now)
            elif key.fileobj is wakeup:
                wakeup.recv(64)
                self._end("a signal came", now)
            elif self._expiries is not None and key.fileobj is self._expiries:
                self._hear(self._expiries, now)
            else:
                self._read_input()
        self._endpoint.handle_timer(now)
        self._settle(now)
        self._control.handle_timer(now)
        self._guard(lambda: self._installation.handle_timer(now))
        self._next_commands(now)
        if self._ends_at is not None and now >= self._ends_at:
            self._end("its time is over", now)
        self._show_progress(now)

    def _settle(self, now: float) -> None:
        """Acts on events, and only then sends."""
        while (event := self._endpoint.next_event()) is not None:
            self._quiet_since, self._progress_after = now, _PROGRESS_FIRST_SECONDS
            self._reporter.event(event)
            self._act(event, now)
            self._control.observe(event)
        for datagram in self._endpoint.datagrams_to_send(now):
            self._sockets.send(datagram)

    def _act(self, event: Event, now: float) -> None:
        match event:
            case IkeSaUp():
                self._alive.add(event.ike_sa)
                if event.initial_contact:
                    self._forget_former(event, now)
            case IkeSaDown():
                self._alive.discard(event.ike_sa)
                self._lost = self._lost or event.reason is DownReason.UNREACHABLE
                self._guard(lambda: self._installation.drop(event.ike_sa, now=now))
            case IkeSaRekeyed():
                self._alive.discard(event.old)
                self._alive.add(event.new)
                self._installation.hand_over(event.old, event.new)
            case ReauthenticationNeeded() if not self._ending:
                self._replace(event.ike_sa, now)
            case IkeSaMoved():
                # The kernel's states are between the old addresses: new ones are needed.
                self._rekey_children(event.ike_sa, now)
            case ChildSaUp():
                try:
                    self._installation.up(event, now=now)
                except (XfrmError, ValueError) as error:
                    self._kernel_failed = True
                    text = f"CHILD SA {event.label} is not installed: {error}"
                    if isinstance(error, PolicyExists):
                        text += "; if a killed run has left it there, 'hauberk-ike cleanup' removes it"
                    self._reporter.note("KernelRefused", text)
                    self._endpoint.delete_child(event.ike_sa, event.spi_in, now=now)
            case ChildSaDown():
                self._guard(lambda: self._installation.down(event.spi_in, now=now))
            case _:
                pass

    def _replace(self, ike_sa: IkeSaId, now: float) -> None:
        try:
            self._endpoint.reauthenticate(ike_sa, now=now)
        except UnknownIkeSa:
            return

    def _rekey_children(self, ike_sa: IkeSaId, now: float) -> None:
        for sa in self._endpoint.established():
            if sa.ike_sa == ike_sa:
                for child in sa.children:
                    self._endpoint.rekey_child(ike_sa, child.spi_in, now=now)

    def _hear(self, expiries: EventSocket, now: float) -> None:
        """Rekeys what has carried enough."""
        heard = expiries.receive()
        worn: list[tuple[IkeSaId, int]] = []
        self._guard(lambda: worn.extend(self._installation.worn(heard)))
        for ike_sa, spi_in in worn:
            with suppress(UnknownIkeSa):  # it is ending
                self._endpoint.rekey_child(ike_sa, spi_in, now=now)

    def _forget_former(self, event: IkeSaUp, now: float) -> None:
        """INITIAL_CONTACT (RFC 7296 section 2.4): the peer knows of no other IKE SA with us."""
        for sa in self._endpoint.established():
            if sa.identity == event.identity and sa.ike_sa != event.ike_sa:
                former = sa.ike_sa
                self._endpoint.forget(former)
                self._alive.discard(former)
                self._guard(partial(self._installation.drop, former, now=now))
                self._reporter.note("IkeSaForgotten", f"IKE SA {former} forgotten: the peer has lost it", ike_sa=former)

    def _guard(self, deed: Callable[[], None]) -> None:
        """Does something in the kernel whose failure is worth a line, and no more."""
        try:
            deed()
        except XfrmError as error:
            self._kernel_failed = True
            self._reporter.note("KernelRefused", str(error))

    # Commands

    def _listen_to_input(self) -> None:
        if not self._plan.reads_input:
            return
        try:
            self._selector.register(sys.stdin, selectors.EVENT_READ, None)
        except (ValueError, PermissionError):
            # A file, which can't be waited for and needs no waiting.
            self._take_input(os.read(sys.stdin.fileno(), _MAX_INPUT_BYTES) + b"\n")

    def _read_input(self) -> None:
        data = os.read(sys.stdin.fileno(), 65536)
        if not data:
            self._selector.unregister(sys.stdin)
        self._take_input(data or b"\n")

    def _take_input(self, data: bytes) -> None:
        *lines, self._input = (self._input + data).split(b"\n")
        self._lines.extend(line.decode(errors="replace") for line in lines if line.strip())

    def _next_commands(self, now: float) -> None:
        """One after the other, but for those that end in `&`, which nobody waits for."""
        while not self._control.busy and not self._ending:
            if self._commands and self._alive:
                line = self._commands.popleft()
            elif self._lines and not self._commands:
                line = self._lines.popleft()
            else:
                break
            self._control.submit(line, now=now)
            self._settle(now)
            if self._control.wants_to_quit:
                self._end("asked to", now)
        if self._plan.commands and not self._commands and not self._control.busy and self._ends_at is None:
            self._end("the last command is done", now)

    # The end

    def _end(self, reason: str, now: float) -> None:
        """Deletes what there is; the run is over when that is answered, or soon."""
        if self._ending:
            self._ends_at = now  # told twice: at once
            return
        self._ending = True
        for line in (*self._commands, *self._lines):
            self._control.refuse(line, f"the run ends: {reason}")
        self._commands.clear()
        self._lines.clear()
        handles = {*self._control.attempts, *(sa.ike_sa for sa in self._endpoint.established())}
        self._control.abandon(f"the run ends: {reason}")
        for handle in handles:
            try:
                self._endpoint.delete(handle, now=now, reason=reason)
            except UnknownIkeSa:
                continue
        self._ends_at = now + FAREWELL_SECONDS
        self._settle(now)

    def _over(self) -> bool:
        now = self._clock()
        if not self._plan.stays and not self._alive and not self._control.busy and not self._ending:
            self._end("no IKE SA is left", now)
        if not self._ending:
            return False
        return not (self._alive or self._control.attempts) or (self._ends_at is not None and now >= self._ends_at)

    def _outcome(self) -> Outcome:
        if self._kernel_failed:
            return Outcome.BROKEN
        if self._lost:
            return Outcome.LOST
        return Outcome.REFUSED if self._control.failed else Outcome.DONE

    def _next_due(self, now: float) -> float | None:
        times = (
            self._endpoint.get_timer(),
            self._control.next_due(),
            self._installation.next_due(now),
            self._ends_at,
            self._quiet_since + self._progress_after if self._control.busy else None,
        )
        return min((at for at in times if at is not None), default=None)

    def _show_progress(self, now: float) -> None:
        quiet = now - self._quiet_since
        if self._control.busy and quiet >= self._progress_after:
            self._reporter.progress(f"waiting for the peer, {quiet:.0f} s; Ctrl-C ends it")
            self._progress_after *= 2


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor says it."""
