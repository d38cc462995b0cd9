"""How long the sessions wait, and for what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """All in seconds."""

    fresh_wait: tuple[float, float] = (0.3, 0.8)
    """The second node's wait for the first one's attempt, where there is no SA yet."""
    adopted_wait: tuple[float, float] = (0.0, 1.0)
    """Before SAs of an earlier run are replaced: by the first node,"""
    adopted_wait_second: tuple[float, float] = (2.0, 4.0)
    """and by the second."""
    create_wait: tuple[float, float] = (2.0, 4.0)
    """Before the responder of an IKE SA asks for the children that its initiator has not asked for."""
    retry_first: float = 1.0
    retry_longest: float = 30.0
    outbound_wait: float = 3.0
    """How long a responder holds back a replacement's outbound SA before it asks whether its initiator is alive."""
    in_use_poll: float = 0.25
    grace: float = 20.0
    """How long the losing link's initiator is given to delete it."""
    crossing: float = 40.0
    """How far apart two ends can begin and still not have known of each other: one round of retransmissions."""
    linger: float = 10.0
    """How long a replaced inbound SA is kept for packets under way,"""
    orphan_poll: float = 1.0
    """How often it is looked whether SAs that a new one stands in for can go."""
    settled: float = 35.0
    """How long after a new SA a peer that is alive may still send on the one before: longer than the grace time."""
    follow_pause: float = 1.0
    """Between two ports of a peer that are followed because its ESP came from there."""
    distrusted: float = 30.0
    """How long an SA lives on that a peer was authenticated for by a root that is trusted no longer,"""
    distrusted_wait: float = 2.0
    """and over which time such SAs are begun to be replaced."""
    try_esp_again: float = 86_400.0
    """After that a path that passed no ESP is tried again."""
    wish: float = 60.0
    """For how long after a packet has asked for an SA it is tried to set one up. The kernel asks again sooner."""
    renewed: float = 30.0
    """Over which time new credentials are brought to the peers, by whoever began with a peer, and then over as much by
    the other; less where the old certificate has not that long to live."""
    expired: float = 86_400.0
    """How long an SA lives on whose peer has brought no other certificate since the one that it came with ended."""
