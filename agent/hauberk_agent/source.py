"""Where an agent learns what it should do, gets its certificate and leaves its report: the seams, as protocols.

hauberk_agent.kube is the Kubernetes API's side of them, hauberk_agent.directory a directory's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from hauberk_agent.desired import Desired
from hauberk_api.names import NodeName
from hauberk_api.report import ReportStatus


class Source(Protocol):
    """What the mesh wants, as it changes."""

    async def run(self) -> None:
        """Follows it, for ever: a task of the agent's."""
        ...

    def snapshots(self) -> AsyncIterator[Desired]:
        """An endless stream of snapshots: the first as soon as all is known, then one for each change."""
        ...

    @property
    def problem(self) -> str | None:
        """Why the stream is out of date, as a sentence, or None."""
        ...


class SigningDenied(Exception):  # noqa: N818 - says what happened
    """The signer said no to this request; the message says why. Asking the same again is of no use."""


class Signer(Protocol):
    async def sign(self, *, name: str, request: bytes) -> bytes:
        """The certificate (PEM) for a PKCS#10 request (PEM). Asking again under the same name is the same request.

        Waits as long as it takes. Raises SigningDenied.
        """
        ...


class Reporter(Protocol):
    async def write(self, status: ReportStatus) -> None:
        """Raises OSError when it can't be written now."""
        ...

    async def read(self, node: NodeName) -> ReportStatus | None:
        """What another node's agent has reported, or None. Raises OSError when it can't be read now."""
        ...
