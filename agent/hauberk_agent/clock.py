"""Whether this node's clock is right, by that of the API server, whose every answer is dated (RFC 9110 section 6.6.1).

A wrong clock is nothing that the agent can mend, and everything that it does goes on: but peers' certificates will
seem expired, or not valid yet, and renewals come at the wrong time, so it has to be said. kube.py hears, the report
says.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

TOLERANCE: Final = timedelta(minutes=1)
"""What is said of a clock is more than this. Certificates begin five minutes before they are signed."""


class ClockWatch:
    """Remembers how far this node's clock was from the API server's when that last answered."""

    def __init__(self) -> None:
        self._behind: timedelta | None = None

    def hear(self, date: str | None, *, asked: datetime, answered: datetime) -> None:
        """A Date header, and this node's time before and after. What is no date says nothing."""
        try:
            said = parsedate_to_datetime(date or "")
        except (TypeError, ValueError):
            return
        if said.tzinfo is None:
            said = said.replace(tzinfo=UTC)
        # The header counts whole seconds; the answer was dated at some time in between.
        earliest, latest = asked - timedelta(seconds=1), answered + timedelta(seconds=1)
        if said > latest:
            self._behind = said - latest
        else:
            self._behind = min(said - earliest, timedelta(0))

    @property
    def problem(self) -> str | None:
        """A sentence about a clock that is wrong, in whole minutes, so that it does not change with every answer."""
        if self._behind is None or abs(self._behind) <= TOLERANCE:
            return None
        minutes = round(abs(self._behind) / timedelta(minutes=1))
        amount = f"{minutes} minute{'s' if minutes != 1 else ''}"
        way = "behind" if self._behind > timedelta(0) else "ahead of"
        return f"this node's clock is {amount} {way} the API server's"
