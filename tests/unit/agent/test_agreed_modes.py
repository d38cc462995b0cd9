"""IP-TFS mode between agents: what their kernels get, and what policies say, where both can and where one can't."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hauberk_agent.agreed_modes import agreed_modes, in_modes
from hauberk_agent.keeper import IPTFS_IN
from hauberk_agent.pairing import pair_specs
from hauberk_agent.policy import desired_policies
from hauberk_api.tunnel import TunnelMode
from hauberk_ike import Mode as IkeMode
from hauberk_xfrm import IptfsOut, Mode, Policy, ReqId, StateDirection
from tests.unit.agent.mesh import node, plan, roster, tunnel
from tests.unit.agent.network import Network, Party

REQID = ReqId(0x48000001)


def connected(*able: bool) -> Network:
    """Two nodes with a tunnel in IP-TFS mode, whose kernels can do that or can't."""
    network = Network(2)
    network.start(apply=False)
    for party, iptfs in zip(network.parties, able, strict=True):
        want(party, iptfs=iptfs)
    network.run_until(network.connected, limit=5)
    return network


def want(party: Party, *, iptfs: bool) -> None:
    found = roster(party.name, plan(tunnel(mode=TunnelMode.IPTFS)), n1=node(1), n2=node(2))
    party.alive.set_wanted(pair_specs(found, party.reqid, port=500, iptfs=iptfs), party.network.now)
    party.flush()


def modes(network: Network) -> list[set[Mode]]:
    """Of each node's states, and what its policies are to say."""
    found: list[set[Mode]] = []
    for party in network.parties:
        specs = [pair.spec for pair in party.alive.pairs]
        states = {state.mode for state in party.kernel.complete_states()}
        found.append(states | set(agreed_modes(specs, party.alive.pairs).values()))
    return found


@pytest.mark.parametrize(
    ("able", "first", "second"),
    [
        ((True, True), {Mode.IPTFS}, {Mode.IPTFS}),
        ((True, False), {Mode.TUNNEL}, {Mode.TUNNEL}),
        ((False, True), {Mode.TUNNEL}, {Mode.TUNNEL}),
        ((False, False), {Mode.TUNNEL}, {Mode.TUNNEL}),
    ],
)
def test_both_ends_agree_on_one_mode(able: tuple[bool, bool], first: set[Mode], second: set[Mode]) -> None:
    network = connected(*able)
    network.run(20)
    assert modes(network) == [first, second]
    assert network.disagreements() == []
    assert network.flow.lost == 0


def test_states_in_iptfs_mode_say_how_they_wait_and_cut() -> None:
    network = connected(True, True)
    network.run(20)
    for party in network.parties:
        by_direction = {state.direction: state.iptfs for state in party.kernel.complete_states()}
        assert by_direction == {StateDirection.IN: IPTFS_IN, StateDirection.OUT: IptfsOut()}


def test_a_restarted_agent_knows_the_mode_of_what_it_finds() -> None:
    network = connected(True, False)
    network.run(20)
    network[1].kill()
    network[1].start()
    want(network[1], iptfs=True)
    pairs = network[1].alive.pairs
    assert set(agreed_modes([pair.spec for pair in pairs], pairs).values()) == {Mode.TUNNEL}


def policies() -> tuple[Policy, ...]:
    found = roster("n1", plan(tunnel(mode=TunnelMode.IPTFS)), n1=node(1), n2=node(2))
    return desired_policies(found, lambda _: REQID)


def test_policies_are_for_what_is_wanted_until_something_is_agreed_on() -> None:
    found = roster("n1", plan(tunnel(mode=TunnelMode.IPTFS)), n1=node(1), n2=node(2))
    for iptfs, mode in ((True, Mode.IPTFS), (False, Mode.TUNNEL)):
        specs = pair_specs(found, lambda _: REQID, port=500, iptfs=iptfs).values()
        assert {child.config.mode for spec in specs for child in spec.children} == {IkeMode[mode.name]}
        changed = in_modes(policies(), agreed_modes(specs, ()))
        templates = [template for policy in changed for template in policy.templates]
        assert templates
        assert {template.mode for template in templates} == {mode}


def test_other_policies_are_left_as_they_are() -> None:
    before = policies()
    assert in_modes(before, {}) == in_modes(before, {ReqId(REQID + 1): Mode.IPTFS}) == before
    changed = in_modes(before, {REQID: Mode.IPTFS})
    assert [replace(policy, templates=()) for policy in changed] == [replace(p, templates=()) for p in before]
