"""A node says that it has taken a step in or out when its peers have had the time to see it."""

from __future__ import annotations

from hauberk_agent.passage import SEEN_SECONDS, OwnSteps
from hauberk_agent.reqid import ChildKey
from hauberk_api.names import NodeUid, TunnelUid
from hauberk_api.plan import Phase
from tests.unit.agent.mesh import TUNNEL, node, plan, roster, tunnel

SENDS = ChildKey(tunnel=TunnelUid(TUNNEL), peer=NodeUid("uid-2"))


def test_a_step_is_reported_when_it_has_stood_for_a_while() -> None:
    steps = OwnSteps()
    found = roster("n1", plan(tunnel()), n1=node(1, phase=Phase.PROTECT), n2=node(2))
    carried = {TUNNEL: Phase.PROTECT}
    assert steps.told(found, carried, [], 10.0) == {TUNNEL: Phase.ESTABLISH}
    # -> one more SA that is sent by begins it anew, as its peer may not send by it yet
    assert steps.told(found, carried, [SENDS], 12.0) == {TUNNEL: Phase.ESTABLISH}
    assert steps.told(found, carried, [SENDS], 11.9 + SEEN_SECONDS) == {TUNNEL: Phase.ESTABLISH}
    assert steps.told(found, carried, [SENDS], 12.0 + SEEN_SECONDS) == carried
    # -> on to the next step
    out = {TUNNEL: Phase.ESTABLISH}
    found = roster("n1", plan(tunnel()), n1=node(1, phase=Phase.ESTABLISH), n2=node(2))
    assert steps.told(found, out, [SENDS], 30.0) == carried, "what was reported before"
    assert steps.told(found, out, [SENDS], 30.0 + SEEN_SECONDS) == out


def test_a_step_that_has_not_been_taken_is_never_reported() -> None:
    """While there are SAs that are not sent by: for seconds, where this node has responded."""
    steps = OwnSteps()
    found = roster("n1", plan(tunnel()), n1=node(1, phase=Phase.PROTECT), n2=node(2))
    for now in (10.0, 10.0 + SEEN_SECONDS, 20.0 + SEEN_SECONDS):
        assert steps.told(found, {TUNNEL: Phase.ESTABLISH}, [], now) == {TUNNEL: Phase.ESTABLISH}
    assert steps.told(found, {TUNNEL: Phase.PROTECT}, [SENDS], 40.0) == {TUNNEL: Phase.ESTABLISH}
    assert steps.told(found, {TUNNEL: Phase.PROTECT}, [SENDS], 40.0 + SEEN_SECONDS) == {TUNNEL: Phase.PROTECT}


def test_who_is_on_no_way_reports_at_once() -> None:
    found = roster("n1", plan(tunnel()), n1=node(1), n2=node(2, phase=Phase.PROTECT))
    assert OwnSteps().told(found, {TUNNEL: Phase.BLOCK}, [], 10.0) == {TUNNEL: Phase.BLOCK}
