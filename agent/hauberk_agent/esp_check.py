"""Finds out whether our ESP arrives at a peer: sends a little by an SA, and asks the peer by IKE what has come.

Sans-IO; used by the sessions. Theory of operation. Only plain ESP (IP protocol 50) is checked, of pairs whose tunnel
leaves encapsulation to us: ESP in UDP goes where IKE goes. Each end checks its own direction, and each end's verdict is
enough for the pair (hauberk_agent.blocked_paths).

- **When an SA is new**, its sender sends probes (hauberk_xfrm.EspProbe) and asks. The responder waits a little, as the
  initiator takes ESP only when it has the answer to its IKE_AUTH, and asks first if nothing has come from there yet.
  A storm of new SAs is not made a greater one: only so many questions are under way at once.
- **Later**, when packets have been sent, but not more often than liveness is asked about anyway: the peer has to have
  got some since the last time. Sooner when nothing at all comes back.
- **Blocked** is a path on which all of several tries with probes have failed, though each question was answered: then
  IKE passes, both agents live, and ESP is lost. A peer that does not answer ends its IKE SA and is another matter. One
  that cannot tell (an earlier version) is left in peace, and so is one that we can send no probes to.
- **Elsewhere** is where probes have gone that our own state has not counted: while another SA of the pair still stands
  beside it, the kernel may prefer that one (xfrm_state_find takes the newer by whole seconds, and of two from one
  second whichever its hash table has first). That says nothing about the path, and is tried again, ever later.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from hauberk_api.names import NodeUid
from hauberk_ike import EspArrived, IkeSaId
from hauberk_xfrm import Spi

TRY_AGAIN_SECONDS: Final = (0.25, 0.5, 1.0)
"""How long after a try that failed the next one comes. When all are used up the path is blocked."""
RECHECK_SECONDS: Final = 10.0
TRY_ELSEWHERE_SECONDS: Final = (1.0, 10.0)
"""Likewise after the first try that went by another SA; twice as long each time, up to the second."""
SUSPICIOUS_SECONDS: Final = 3.0
"""How soon a way is checked again on which nothing comes back; once."""
RESPONDER_WAIT_SECONDS: Final = 1.0
MAX_QUESTIONS: Final = 16
"""So many are under way at once; one that is not answered counts for so long:"""
QUESTION_SECONDS: Final = 1.0


class Verdict(Enum):
    PASSES = "passes"
    BLOCKED = "blocked"
    UNKNOWN = "unknown"
    """It can't be found out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One direction of a CHILD SA in plain ESP, ours to the peer."""

    peer: NodeUid
    ike_sa: IkeSaId
    spi_out: Spi


class _Stage(Enum):
    """What the question is about that is asked now."""

    BASELINE = "baseline"
    """What has come so far: then probes tell."""
    TRAFFIC = "traffic"
    """Whether any of what was sent has come; if not, probes tell."""
    PROBES = "probes"


@dataclass(slots=True, kw_only=True)
class _Check:
    """What is known of a way. Times are seconds on the agent's clock."""

    way: Way
    stage: _Stage
    arrived: int = 0
    """What the peer had got when it was asked last."""
    sent: int = 0
    """What we had sent when the last check was over,"""
    seen: tuple[int, int] | None = None
    """and what we have sent and received since, at the last look; None: there was none."""
    sent_before: int | None = None
    """What our state had counted before the last probes,"""
    elsewhere: int = 0
    """and how often it had counted none of them."""
    failures: int = 0
    due: float | None = None
    """When the next try comes."""
    asked: bool = False
    """Whether an answer is waited for."""
    over_at: float | None = None
    """When the last check was over."""
    suspected: bool = False
    """Whether it was checked because nothing came back, and nothing has come since."""
    hopeless: bool = False


class EspChecks:
    """One for each peer at most: of the way that its packets go now."""

    def __init__(
        self,
        *,
        probe: Callable[[Way], bool],
        ask: Callable[[Way], bool],
        judged: Callable[[Way, Verdict], None],
        has_received: Callable[[Way], bool],
        count_sent: Callable[[Way], int | None],
    ) -> None:
        """probe: sends some packets; ask: asks the peer: both return whether that could be done. judged: is called with
        each verdict. has_received: whether anything has come by the SA's other direction. count_sent: how many packets
        have gone by the SA; None: that is not known."""
        self._probe = probe
        self._ask = ask
        self._judged = judged
        self._has_received = has_received
        self._count_sent = count_sent
        self._checks: dict[NodeUid, _Check] = {}
        self._wakes: list[tuple[float, NodeUid]] = []
        self._under_way: dict[NodeUid, float] = {}
        """Since when the peers' questions are."""
        self._waiting: deque[NodeUid] = deque()
        self._room_at = float("-inf")
        """When we look for those whose questions are not answered."""

    def follow(self, peer: NodeUid, way: Way | None, now: float, *, initiator: bool) -> None:
        """Which way the peer's packets go now; None: none that is to be checked. A new one is checked at once."""
        check = self._checks.get(peer)
        if way is None:
            self._checks.pop(peer, None)
            self._under_way.pop(peer, None)
        elif check is None or check.way != way:
            stage = _Stage.PROBES if initiator else _Stage.TRAFFIC
            self._under_way.pop(peer, None)
            self._checks[peer] = check = _Check(way=way, stage=stage)
            self._plan(check, now + (0.0 if initiator else RESPONDER_WAIT_SECONDS))

    def is_open(self, peer: NodeUid) -> bool:
        """Whether a peer's way is checked, and has no verdict yet."""
        check = self._checks.get(peer)
        return check is not None and check.over_at is None

    def look(self, peer: NodeUid, *, sent: int, received: int, now: float) -> None:
        """The packets that have gone a peer's way by now, and come from there: begins a check if there is a reason."""
        check = self._checks.get(peer)
        if check is None or check.hopeless or check.over_at is None or check.asked or check.due is not None:
            return
        before, check.seen = check.seen, (sent, received)
        if before is None:
            check.sent = sent
            return
        comes_back = received > before[1]
        check.suspected = check.suspected and not comes_back
        if sent > before[0] and not (comes_back or check.suspected) and now >= check.over_at + SUSPICIOUS_SECONDS:
            check.suspected = True
            check.stage = _Stage.BASELINE
            self._try(check, now)
        elif sent > check.sent and now >= check.over_at + RECHECK_SECONDS:
            check.stage = _Stage.TRAFFIC
            self._try(check, now)

    def answered(self, peer: NodeUid, event: EspArrived, now: float) -> None:
        """A peer has told."""
        check = self._checks.get(peer)
        if check is None or not check.asked or (check.way.ike_sa, check.way.spi_out) != (event.ike_sa, event.spi_out):
            return
        check.asked = False
        self._under_way.pop(peer, None)
        self._take(check, event.packets, now)
        self._next(now)

    def _take(self, check: _Check, packets: int | None, now: float) -> None:
        """An answer."""
        if packets is None:
            self._give_up(check, now)
            return
        more = packets > check.arrived
        check.arrived = packets
        match check.stage:
            case _Stage.TRAFFIC | _Stage.PROBES if more:
                self._end(check, Verdict.PASSES, now)
            case _Stage.BASELINE | _Stage.TRAFFIC:
                check.stage = _Stage.PROBES
                self._try(check, now)
            case _Stage.PROBES if check.sent_before is not None and self._count_sent(check.way) == check.sent_before:
                first, longest = TRY_ELSEWHERE_SECONDS
                self._plan(check, now + min(first * 2.0**check.elsewhere, longest))
                check.elsewhere += 1
            case _Stage.PROBES:
                self._again(check, Verdict.BLOCKED, now)

    def next_due(self) -> float | None:
        return self._wakes[0][0] if self._wakes else None

    def handle_timer(self, now: float) -> None:
        while self._wakes and self._wakes[0][0] <= now:
            _, peer = heapq.heappop(self._wakes)
            check = self._checks.get(peer)
            if check is not None and check.due is not None and check.due <= now:
                check.due = None
                self._try(check, now)
        self._next(now)

    def _plan(self, check: _Check, due: float) -> None:
        check.due = due
        heapq.heappush(self._wakes, (due, check.way.peer))

    def _try(self, check: _Check, now: float) -> None:
        self._waiting.append(check.way.peer)
        self._next(now)

    def _next(self, now: float) -> None:
        """Whoever waits has its turn, as far as there is room."""
        if len(self._under_way) >= MAX_QUESTIONS:
            for peer in [peer for peer, since in self._under_way.items() if now >= since + QUESTION_SECONDS]:
                del self._under_way[peer]
        while self._waiting and len(self._under_way) < MAX_QUESTIONS:
            check = self._checks.get(self._waiting.popleft())
            if check is not None and not check.asked:
                self._put(check, now)
        if self._waiting and self._room_at <= now:
            self._room_at = now + QUESTION_SECONDS
            heapq.heappush(self._wakes, (self._room_at, self._waiting[0]))

    def _put(self, check: _Check, now: float) -> None:
        """Puts a question, after probes if it is about them."""
        if check.stage is _Stage.TRAFFIC and check.over_at is None and self._has_received(check.way):
            check.stage = _Stage.PROBES
        if check.stage is _Stage.PROBES:
            check.sent_before = self._count_sent(check.way)
            if not self._probe(check.way):
                self._again(check, Verdict.UNKNOWN, now)
                return
        # What can't be asked is asked on the IKE SA that takes this one's place.
        check.asked = self._ask(check.way)
        if check.asked:
            self._under_way[check.way.peer] = now

    def _again(self, check: _Check, verdict: Verdict, now: float) -> None:
        """A try has failed: there is another one, or that is the verdict."""
        if check.failures < len(TRY_AGAIN_SECONDS):
            self._plan(check, now + TRY_AGAIN_SECONDS[check.failures])
            check.failures += 1
        elif verdict is Verdict.UNKNOWN:
            self._give_up(check, now)
        else:
            self._end(check, verdict, now)

    def _give_up(self, check: _Check, now: float) -> None:
        check.hopeless = True
        self._end(check, Verdict.UNKNOWN, now)

    def _end(self, check: _Check, verdict: Verdict, now: float) -> None:
        check.failures = check.elsewhere = 0
        check.over_at = now
        check.seen = None
        self._judged(check.way, verdict)
