"""One peer as the sessions see it: what is wanted of it, its links, and how it is.

A pair has one IKE SA, and on it a CHILD SA for each `ChildSpec`: for each tunnel that it shares one, or as many as that
tunnel's traffic needs (hauberk_agent.flow). A child is **well** when its traffic can flow both ways: the current link's
is installed in both directions, or states of an earlier run of the agent still stand in for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from random import Random

from hauberk_agent.link import Child, Link
from hauberk_agent.reqid import ChildKey
from hauberk_agent.roster import Peer
from hauberk_api.names import NodeUid, TunnelUid
from hauberk_api.report import UnwellReason
from hauberk_ike import ChildConfig, EspPath, IkeSaId, PeerConfig
from hauberk_xfrm import Lifetime, ReqId
from hauberk_xfrm.wear import SOFT_SHARE, Wear


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What is wanted of one CHILD SA."""

    key: ChildKey
    reqid: ReqId
    config: ChildConfig
    hard_seconds: int
    """When the kernel drops a state whatever happens: the rekey time plus the outage that we tolerate."""
    if_id: int = 0
    """Of the xfrm device that its packets go by; 0: by none."""
    rekey_bytes: int | None = None
    rekey_packets: int | None = None
    """After how much an SA has carried enough. None: no limit of its own."""

    @property
    def label(self) -> str:
        return self.config.label

    def lifetime(self, *, esn: bool, chance: Random) -> Lifetime:
        """An outbound state's. Its soft limits lie somewhat below what is wanted, each time elsewhere."""
        wear = Wear(bytes=self.rekey_bytes, packets=self.rekey_packets)
        return wear.lifetime(esn=esn, share=chance.uniform(*SOFT_SHARE), hard_seconds=self.hard_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSpec:
    """What is wanted of a pair. `config` has the configurations of all `children`."""

    peer: Peer
    config: PeerConfig
    children: tuple[ChildSpec, ...]
    initiates: bool
    """Whether our node's name sorts first."""
    own_is_lower: bool
    """Whether our identity is the lower one: that end's links stay when both begin at once."""
    on_demand: bool = False
    """Whether it is set up only when somebody wants to send, and ends when nobody has for a while."""
    idle_seconds: float = 600.0
    """For how long nobody has, then."""

    @property
    def uid(self) -> NodeUid:
        return self.peer.place.uid

    @property
    def rekey_seconds(self) -> float:
        """After how many seconds the first of its keys are replaced."""
        return min((self.config.rekey_seconds, *(child.config.rekey_seconds for child in self.children)))

    def tunnel_name(self, uid: TunnelUid) -> str:
        return next((tunnel.name for tunnel in self.peer.tunnels if tunnel.uid == uid), "")

    def agrees_on_links(self, other: PairSpec) -> bool:
        """Whether an IKE SA that was set up for one will do for the other, whatever its children."""
        return (self.initiates, self.own_is_lower) == (other.initiates, other.own_is_lower) and replace(
            self.config, children=(), further_children=()
        ) == replace(other.config, children=(), further_children=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    reason: UnwellReason
    message: str


@dataclass(slots=True, kw_only=True)
class Standing:
    """How one wanted child of a pair is. Mutable; owned by the sessions."""

    spec: ChildSpec
    failures: int = 0
    failure: Failure | None = None
    """Why it was refused last, where its link was not."""
    create_at: float | None = None
    """When it is asked for on the current link, which has none."""
    unwell_since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelStanding:
    """How a pair is as far as one tunnel goes."""

    node: str
    tunnel: TunnelUid
    unwell_since: float | None
    failure: Failure | None


@dataclass(slots=True, kw_only=True)
class Pair:
    """Mutable; owned by the sessions. Times are seconds on the agent's clock."""

    spec: PairSpec
    wanted_since: float
    fresh: bool
    """Neither kernel nor memory has ever held an SA of this pair: the next attempt says so (INITIAL_CONTACT)."""
    standings: dict[str, Standing] = field(init=False)
    """By label, of all children that are wanted."""
    links: dict[IkeSaId, Link] = field(default_factory=dict[IkeSaId, Link])
    current: Link | None = None
    orphans: list[Child] = field(default_factory=list[Child])
    """Children without an IKE SA: found in the kernel at start, or left by a peer that stopped answering."""
    initiate_at: float | None = None
    wishes: int = 0
    """How often what its IKE SAs are to be like has changed."""
    replace_at: float | None = None
    """When a whole new IKE SA is set up beside the current link. (Rekeys are the endpoint's own.)"""
    failures: int = 0
    failure: Failure | None = None
    wish_until: float = -inf
    """Until when somebody is thought to want to send: of a pair that is set up on demand."""
    usage: tuple[tuple[int, int], ...] = ()
    """What has gone by its SAs at the last look: SPI and packets of each,"""
    used_at: float = -inf
    """and when there was last something new in that."""
    esp_path: EspPath = EspPath.UNKNOWN
    """Whether ESP is known not to come through without UDP (hauberk_agent.esp_paths)."""

    def __post_init__(self) -> None:
        self.standings = {child.label: Standing(spec=child) for child in self.spec.children}

    @property
    def name(self) -> str:
        return self.spec.peer.place.name

    @property
    def attempt(self) -> Link | None:
        """Our attempt that is under way."""
        return next((link for link in self.links.values() if link.ours and link.up_at is None), None)

    def is_wanted(self, now: float) -> bool:
        """Whether it is to be set up: not one that is set up on demand and that nobody asks for."""
        return not self.spec.on_demand or bool(self.orphans) or now < self.wish_until

    @property
    def is_idle(self) -> bool:
        """Whether it has no SAs because nobody asks for them: that is well."""
        return (
            self.spec.on_demand
            and self.current is None
            and not self.orphans
            and self.attempt is None
            and self.initiate_at is None
        )

    @property
    def well(self) -> bool:
        """Whether all its children are."""
        return all(self.is_well(label) for label in self.standings)

    @property
    def unwell_since(self) -> float | None:
        """The moment since when any of its children is not."""
        times = [standing.unwell_since for standing in self.standings.values()]
        return min((time for time in times if time is not None), default=None)

    def is_well(self, label: str) -> bool:
        """Whether the child of a label is."""
        child = self.current.children.get(label) if self.current is not None else None
        if child is not None and child.outbound:
            return child.encapsulation is not None or self.esp_path is not EspPath.BLOCKED
        orphans = [orphan for orphan in self.orphans if orphan.label == label]
        return (
            self.failure is None
            and self.standings[label].failure is None
            and any(orphan.outbound for orphan in orphans)
            and any(orphan.spi_in is not None for orphan in orphans)
        )

    def tunnels(self) -> list[TunnelStanding]:
        """How it is for each of its tunnels: as its children that are not well, for any of them."""
        found: dict[TunnelUid, TunnelStanding] = {}
        for standing in self.standings.values():
            uid, since = standing.spec.key.tunnel, standing.unwell_since
            so_far = found.get(uid)
            if so_far is not None and (since is None or (so_far.unwell_since or since) < since):
                continue
            found[uid] = TunnelStanding(
                node=self.name,
                tunnel=uid,
                unwell_since=since,
                failure=standing.failure or (self.failure if since is not None else None),
            )
        return list(found.values())

    def follow(self, spec: PairSpec) -> None:
        """Another spec: children that are as before keep their standing."""
        self.spec = spec
        before = self.standings
        self.standings = {
            child.label: old if (old := before.get(child.label)) is not None else Standing(spec=child)
            for child in spec.children
        }
        for child in spec.children:
            self.standings[child.label].spec = child

    def sends(self, label: str) -> bool:
        """Whether any outbound state of the label is in the kernel."""
        return any(child.outbound and child.label == label for child in self.children())

    def children(self) -> list[Child]:
        """All children, the current link's first."""
        links = sorted(self.links.values(), key=lambda link: link is not self.current)
        return [*(child for link in links for child in link.every_child()), *self.orphans]
