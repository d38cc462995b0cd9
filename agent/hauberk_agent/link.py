"""A pair's IKE SAs and CHILD SAs as the sessions keep them, and which of two IKE SAs stays.

A **link** is an IKE SA, or our attempt at one. It carries one child of each label (hauberk_agent.pair.ChildSpec): the
SAs that protect that part of the pair's traffic. While one is rekeyed there are more of its label, and the link's child
is the one that is to stay. Used by the sessions and nobody else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from hauberk_ike import EspKey, IkeSaId, IpAddress, PeerConfig, UdpEncapsulation
from hauberk_xfrm import Mode, ReqId, Spi


@dataclass(slots=True, kw_only=True)
class Child:
    """Both directions of a CHILD SA in our kernel. A direction that is not there has no SPI.

    `keys_out` is kept only until the outbound state is installed. `since` is seconds on the agent's clock.
    """

    label: str
    reqid: ReqId
    local: IpAddress
    remote: IpAddress
    spi_in: Spi | None
    spi_out: Spi | None
    since: float
    mode: Mode = Mode.TUNNEL
    dont_fragment: bool = False
    """In IP-TFS mode: the peer takes whole packets only."""
    if_id: int = 0
    """Of the xfrm device that its packets go by; 0: by none."""
    proposal: str = ""
    keys_out: EspKey | None = field(default=None, repr=False)
    outbound: bool = False
    """Whether our outbound state is in the kernel."""
    created_at: int = 0
    """Of a state that an earlier run has left: the second since the epoch that it was created in."""
    outbound_at: float | None = None
    """When the deferred outbound SA is installed,"""
    unsure_until: float | None = None
    """or from when on at the latest its peer is asked whether it is there: the peer asked for this child, and it is not
    known whether it has our answer and so the inbound SA. It has, if it is alive after this time."""
    replaces: Child | None = field(default=None, repr=False)
    """While it is not known whether the peer has our answer to a rekey: the child that it has rekeyed, and so has."""
    ours: bool = False
    """Whether we asked for it."""
    yields: bool = False
    """Whether we delete it as soon as we send by the one that the peer has asked for meanwhile."""
    encapsulation: UdpEncapsulation | None = None
    root: str | None = None
    """The fingerprint of the root by which the peer was authenticated; None if that was an earlier run's affair."""


@dataclass(slots=True, kw_only=True)
class Link:
    """One IKE SA. `config` is what it was negotiated with; a pair whose wishes have changed replaces it."""

    ike_sa: IkeSaId
    ours: bool
    """Whether we initiated it."""
    started_at: float
    config: PeerConfig
    initial_contact: bool
    """Whether its initiator said that it remembers no SA."""
    has_crossed: bool = False
    """Whether it was preferred to one that the other end had begun meanwhile, when neither remembered any SA: then its
    initiator has that one by now, whatever it said."""
    wishes: int = 0
    """The pair's when it was begun."""
    up_at: float | None = None
    children: dict[str, Child] = field(default_factory=dict[str, Child])
    """By label, those that are to stay."""
    replaced: list[Child] = field(default_factory=list[Child])
    """What rekeys have left over, oldest first: it takes packets until it is deleted, and the oldest may still send."""
    asked: set[str] = field(default_factory=set[str])
    """The labels of the children that we have asked for and that are neither up nor refused."""
    lost_at: float | None = None
    """Since when another link is preferred."""
    concurrent: bool = False
    """Whether the link preferred to this one was being set up at the same time."""
    followed_at: float = float("-inf")
    """When its peer's ESP was last followed to another port."""
    deleting: bool = False
    is_blocked: bool = False
    """Whether its ESP does not come through, and another link in UDP has been begun for that."""
    proposal: str = ""
    certificate_ends_at: float | None = None
    """When the certificate ends with which the peer authenticated itself."""
    root: str | None = None
    """As in Child."""

    @property
    def holds_back(self) -> bool:
        """Whether a child of it is not sent by yet, because the peer may not hold it."""
        return any(child.outbound_at is not None and not child.outbound for child in self.children.values())

    def every_child(self) -> list[Child]:
        """All of them, those to stay first."""
        return [*self.children.values(), *self.replaced]

    def find(self, spi_in: int) -> Child | None:
        """Of the children that are to stay, the one with an inbound SPI."""
        return next((child for child in self.children.values() if child.spi_in == spi_in), None)

    def forget_children(self) -> list[Child]:
        """The link has none any more. Returns those that it had."""
        children = self.every_child()
        self.children.clear()
        self.replaced.clear()
        return children

    def take(self, spi_in: int) -> Child | None:
        """Removes the child with an inbound SPI from those that rekeys have left over.

        What replaces it is known to be held then, or replaces another one: if ours goes, that the peer's rekey has won
        against, the one that both have rekeyed is still there.
        """
        child = next((child for child in self.replaced if child.spi_in == spi_in), None)
        if child is None:
            return None
        self.replaced.remove(child)
        stays = self.children.get(child.label)
        if stays is not None and stays.replaces is child:
            sending = (each for each in reversed(self.replaced) if each.label == child.label and each.outbound)
            stays.replaces = next(sending, None)
        return child


class Verdict(Enum):
    """What becomes of a new link beside the current one."""

    REPLACES = "replaces"
    """It was made in the place of the current one, by somebody who knew that or who had forgotten it."""
    WINS = "wins"
    """Both ends began at once, and it is the one that stays."""
    YIELDS = "yields"
    """Both ends began at once, and the current one stays."""


def judge(new: Link, current: Link, *, own_is_lower: bool, now: float, crossing_seconds: float) -> Verdict:
    """Whether a link that has just got its first child takes the current link's place. Both ends come to agree.

    Links that the same end began are a succession. Links that both ends began at once cross: our own new link crosses
    what the peer set up while we were at it; a peer's new link may cross what we began within `crossing_seconds`. Of
    two that cross stays the one whose initiator had lost everything (INITIAL_CONTACT: the other link was with its
    former self), if that is true of one, else the one that the lower identity began.
    """
    if new.ours == current.ours:
        return Verdict.REPLACES
    if new.ours:
        crossed = current.up_at is not None and current.up_at >= new.started_at
    else:
        crossed = now - current.started_at < crossing_seconds
    if not crossed:
        return Verdict.REPLACES
    if new.initial_contact != current.initial_contact:
        return Verdict.WINS if new.initial_contact else Verdict.YIELDS
    return Verdict.WINS if new.ours == own_is_lower else Verdict.YIELDS
