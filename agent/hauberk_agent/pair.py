"""One peer as the sessions see it: what is wanted of it, its links, and how it is.

A pair is **well** when its traffic can flow both ways: its current link's child is installed in both directions, or
states of an earlier run of the agent still stand in for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hauberk_agent.link import Child, Link
from hauberk_agent.reqid import PairKey
from hauberk_agent.roster import Peer
from hauberk_api.report import UnwellReason
from hauberk_ike import IkeSaId, PeerConfig
from hauberk_xfrm import Lifetime, ReqId
from hauberk_xfrm.wear import SOFT_SHARE, Wear


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSpec:
    """What is wanted of a pair."""

    peer: Peer
    key: PairKey
    reqid: ReqId
    config: PeerConfig
    initiates: bool
    """Whether our node's name sorts first."""
    own_is_lower: bool
    """Whether our identity is the lower one: that end's links stay when both begin at once."""
    rekey_seconds: float
    hard_seconds: int
    """When the kernel drops a state whatever happens: the rekey time plus the outage that we tolerate."""
    rekey_bytes: int | None = None
    rekey_packets: int | None = None
    """After how much an SA has carried enough. None: no limit of its own."""

    def lifetime(self, *, esn: bool, chance: Random) -> Lifetime:
        """An outbound state's. Its soft limits lie somewhat below what is wanted, each time elsewhere."""
        wear = Wear(bytes=self.rekey_bytes, packets=self.rekey_packets)
        return wear.lifetime(esn=esn, share=chance.uniform(*SOFT_SHARE), hard_seconds=self.hard_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    reason: UnwellReason
    message: str


@dataclass(slots=True, kw_only=True)
class Pair:
    """Mutable; owned by the sessions. Times are seconds on the agent's clock."""

    spec: PairSpec
    wanted_since: float
    fresh: bool
    """Neither kernel nor memory has ever held an SA of this pair: the next attempt says so (INITIAL_CONTACT)."""
    links: dict[IkeSaId, Link] = field(default_factory=dict[IkeSaId, Link])
    current: Link | None = None
    orphans: list[Child] = field(default_factory=list[Child])
    """Children without an IKE SA: found in the kernel at start, or left by a peer that stopped answering."""
    initiate_at: float | None = None
    rekey_at: float | None = None
    failures: int = 0
    failure: Failure | None = None
    unwell_since: float | None = None

    @property
    def name(self) -> str:
        return self.spec.peer.place.name

    @property
    def attempt(self) -> Link | None:
        """Our attempt that is under way."""
        return next((link for link in self.links.values() if link.ours and link.up_at is None), None)

    @property
    def well(self) -> bool:
        if self.current is not None and self.current.child is not None and self.current.child.outbound:
            return True
        return (
            self.failure is None
            and any(child.outbound for child in self.orphans)
            and any(child.spi_in is not None for child in self.orphans)
        )

    def sends(self) -> bool:
        """Whether any outbound state of the pair is in the kernel."""
        return any(child.outbound for child in self.children())

    def children(self) -> list[Child]:
        """All children, the current link's first."""
        links = sorted(self.links.values(), key=lambda link: link is not self.current)
        return [*(child for link in links for child in link.children()), *self.orphans]
