"""When this node says that it has taken a step into a running tunnel, or out of it.

Such a step (a phase in the node's membership) is taken by the node's peers too, and none of them reports it. So the
node itself says so only when it has stood for some seconds: a watch event takes far less, and a responder has begun to
send by its SA (hauberk_agent.sendable) by then as well.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from hauberk_agent.reqid import ChildKey
from hauberk_agent.roster import Roster
from hauberk_agent.sendable import ANSWER_SECONDS
from hauberk_api.plan import Phase

SEEN_SECONDS: Final = ANSWER_SECONDS + 2.0

_BEFORE: Final = {Phase.PROTECT: Phase.ESTABLISH, Phase.ESTABLISH: Phase.PROTECT}
"""What is reported until then: something else than what is waited for."""


class OwnSteps:
    """Remembers since when each of them has stood. Times are seconds on the agent's clock."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[object, float]] = {}

    def told(
        self, roster: Roster, phases: Mapping[str, Phase], sendable: Collection[ChildKey], now: float
    ) -> dict[str, Phase]:
        """The phases to report, by tunnel UID: those carried out, but for steps that have not stood for long enough.

        sendable: the CHILD SAs that are sent by; one more is another step.
        """
        told = dict(phases)
        self._since = {uid: stood for uid, stood in self._since.items() if uid in roster.own.phases}
        for uid in roster.own.phases.keys() & phases.keys():
            step = (phases[uid], frozenset(key for key in sendable if key.tunnel == uid))
            if uid not in self._since or self._since[uid][0] != step:
                self._since[uid] = (step, now)
            # A step that has not been taken yet (there are SAs that are not sent by) is told as it is.
            if phases[uid] is roster.own.phases[uid] and now < self._since[uid][1] + SEEN_SECONDS:
                told[uid] = _BEFORE.get(phases[uid], phases[uid])
        return told
