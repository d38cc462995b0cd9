"""Which of two IKE SAs stays: the table, and that both ends agree."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from hauberk_agent.link import Link, Verdict, judge
from hauberk_ike import Identity, IkeProposal, IkeSaId, PeerConfig, SocketAddress

CROSSING = 40.0
CONFIG = PeerConfig(
    name="n2",
    identity=Identity.fqdn("uid-2.default.hauberk.internal"),
    local=SocketAddress(host=IPv4Address("10.250.0.1"), port=500),
    remote=SocketAddress(host=IPv4Address("10.250.0.2"), port=500),
    ike_proposals=(IkeProposal.parse("aes128gcm16-prfsha256-x25519"),),
    children=(),
)


def link(*, ours: bool, started: float, up: float | None = None, initial_contact: bool = False) -> Link:
    return Link(
        ike_sa=IkeSaId(1),
        ours=ours,
        started_at=started,
        config=CONFIG,
        initial_contact=initial_contact,
        up_at=up,
    )


@pytest.mark.parametrize(
    ("new", "current", "lower", "verdict"),
    [
        # A succession: the same end began both.
        (link(ours=True, started=100), link(ours=True, started=99, up=99), True, Verdict.REPLACES),
        (link(ours=False, started=100), link(ours=False, started=99, up=99), False, Verdict.REPLACES),
        # Ours was begun when the peer's was up already: a replacement that we meant.
        (link(ours=True, started=100), link(ours=False, started=50, up=51), False, Verdict.REPLACES),
        # The peer's came up while we were at ours: they cross.
        (link(ours=True, started=100), link(ours=False, started=100, up=101), True, Verdict.WINS),
        (link(ours=True, started=100), link(ours=False, started=100, up=101), False, Verdict.YIELDS),
        # The peer's comes soon after ours: they may cross.
        (link(ours=False, started=110), link(ours=True, started=100, up=101), True, Verdict.YIELDS),
        (link(ours=False, started=110), link(ours=True, started=100, up=101), False, Verdict.WINS),
        # The peer's comes long after ours: it means it, or has forgotten.
        (link(ours=False, started=110), link(ours=True, started=50, up=51), True, Verdict.REPLACES),
        # One initiator had lost everything: its link is the only one that it knows.
        (
            link(ours=False, started=110, initial_contact=True),
            link(ours=True, started=100, up=101),
            True,
            Verdict.WINS,
        ),
        (
            link(ours=True, started=100, initial_contact=True),
            link(ours=False, started=100, up=101),
            False,
            Verdict.WINS,
        ),
        (
            link(ours=True, started=100),
            link(ours=False, started=100, up=101, initial_contact=True),
            True,
            Verdict.YIELDS,
        ),
    ],
)
def test_verdicts(new: Link, current: Link, lower: bool, verdict: Verdict) -> None:
    assert judge(new, current, own_is_lower=lower, now=110.0, crossing_seconds=CROSSING) is verdict
