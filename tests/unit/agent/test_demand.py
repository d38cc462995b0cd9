"""Pairs that are set up when a packet asks for them, and go when no packet has for a while."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from hauberk_agent.report import count_up
from hauberk_api.report import UnwellReason
from hauberk_api.tunnel import Establish, Traffic, TrafficType
from hauberk_xfrm import Acquire, Action, Direction, Policy, ReqId, Selector, Spi, Template
from tests.unit.agent.mesh import tunnel
from tests.unit.agent.network import Network, Party


def on_demand(size: int = 2, *, idle_seconds: int = 600) -> Network:
    network = Network(size)
    network.establish = Establish.ON_DEMAND
    network.idle_seconds = idle_seconds
    network.has_traffic = False
    network.start()
    return network


def acquire(party: Party, other: Party) -> Acquire:
    """What a kernel says when a packet for that node's pods has no SA."""
    reqid = next(pair.spec.children[0].reqid for pair in party.alive.pairs if pair.name == other.name)
    template = Template(source=party.outer, destination=other.outer, reqid=reqid)
    everything = Selector(source=ip_network("0.0.0.0/0"), destination=ip_network(f"10.244.{other.number}.0/24"))
    policy = Policy(
        selector=everything, direction=Direction.OUT, priority=1, action=Action.ALLOW, templates=(template,)
    )
    return Acquire(
        source=party.outer,
        destination=other.outer,
        selector=everything,
        policy=policy,
        template=template,
        sequence=1,
    )


def ask(party: Party, other: Party) -> None:
    party.alive.acquire(acquire(party, other), party.network.now)
    party.flush()


def up(network: Network) -> bool:
    """Whether each node has sent by an SA."""
    return all(party.kernel.complete_states() for party in network.parties) and network.connected()


def idle(network: Network) -> bool:
    return all(pair.is_idle for party in network.parties for pair in party.alive.pairs)


def test_nobody_begins_and_that_is_well() -> None:
    network = on_demand(3)
    network.run(120)
    assert network.datagrams == 0
    assert idle(network)
    assert all(pair.unwell_since is None for party in network.parties for pair in party.alive.pairs)


@pytest.mark.parametrize("number", [1, 2])
def test_whoever_has_a_packet_begins_whatever_its_name(number: int) -> None:
    network = on_demand()
    other = network[3 - number]
    ask(network[number], other)
    assert network.run_until(lambda: up(network), limit=1) < 0.5
    (pair,) = network[number].alive.pairs
    assert pair.current is not None
    assert pair.current.ours
    network.run(60)
    assert network.disagreements() == []


def test_both_ask_at_once() -> None:
    network = on_demand()
    ask(network[1], network[2])
    ask(network[2], network[1])
    network.run(60)
    assert up(network)
    assert network.disagreements() == []


def test_pairs_that_nobody_asks_for_stay_idle() -> None:
    network = on_demand(3)
    ask(network[1], network[2])
    network.run(60)
    counts = [count_up(party.roster(network.members), party.alive.pairs) for party in network.parties]
    assert [list(count.values()) for count in counts] == [[1], [1], [0]]


def test_a_second_packet_begins_no_second_time() -> None:
    network = on_demand()
    ask(network[1], network[2])
    ask(network[1], network[2])
    network.run(0.5)
    assert up(network)
    datagrams = network.datagrams
    ask(network[1], network[2])  # it was on its way when the SA came
    network.run(0.5)
    assert network.datagrams - datagrams <= 4, "a question about ESP, at most"


def test_an_absent_peer_is_missed_for_as_long_as_packets_ask() -> None:
    network = on_demand()
    network[2].kill()
    ask(network[1], network[2])
    network.run(40)
    (pair,) = network[1].alive.pairs
    assert pair.unwell_since is not None
    assert pair.failure is not None
    assert pair.failure.reason is UnwellReason.UNREACHABLE
    network.run(120)
    assert pair.is_idle
    assert pair.unwell_since is None
    datagrams = network.datagrams
    network.run(600)
    assert network.datagrams == datagrams
    network[2].revive()
    ask(network[1], network[2])
    network.run_until(lambda: up(network), limit=1)


def test_a_peer_that_comes_back_while_packets_ask_is_reached() -> None:
    network = on_demand()
    network[2].kill()
    ask(network[1], network[2])
    for _ in range(3):
        network.run(31)
        ask(network[1], network[2])
    network[2].revive()
    network.run_until(lambda: up(network), limit=35)


def test_a_pair_that_nobody_uses_goes_down_at_both_ends() -> None:
    network = on_demand()
    ask(network[1], network[2])
    network.has_traffic = True
    network.run(1800)
    assert up(network), "it is in use"
    network.has_traffic = False
    network.run(590)
    assert up(network)
    network.run(60)
    assert idle(network)
    assert not any(party.kernel.states for party in network.parties)
    ask(network[2], network[1])
    network.run_until(lambda: up(network), limit=1)


def test_it_goes_as_soon_as_people_have_said() -> None:
    network = on_demand(idle_seconds=10)
    ask(network[1], network[2])
    network.run_until(lambda: up(network), limit=1)
    seconds = network.run_until(lambda: idle(network), limit=20)
    assert seconds >= 10


def test_traffic_one_way_keeps_it_up() -> None:
    network = on_demand(idle_seconds=60)
    ask(network[1], network[2])
    network.has_traffic = network.is_one_way = True
    network.run(600)
    assert up(network)
    assert network.flow.lost == 0


def test_it_goes_down_rather_than_be_rekeyed_for_nothing() -> None:
    network = on_demand()
    network.rekey_seconds = 120
    for party in network.parties:
        party.want(network.members)
    ask(network[1], network[2])
    network.run(110)
    assert idle(network)


def test_a_restarted_agent_takes_over_what_is_up() -> None:
    network = on_demand()
    ask(network[2], network[1])
    network.run(30)
    network.has_traffic = True
    network[1].kill()
    network[1].revive()
    network.run(60)
    assert network.disagreements() == []
    assert network.flow.lost == 0
    network.has_traffic = False
    network.run(700)
    assert idle(network)


def test_an_agent_that_did_not_hear_looks_for_what_waits_in_the_kernel() -> None:
    network = on_demand()
    party = network[1]
    (pair,) = party.alive.pairs
    spi = party.kernel.allocate_spi(source=party.outer, destination=network[2].outer, reqid=pair.spec.children[0].reqid)
    larval = replace(party.kernel.states.pop((network[2].outer, spi)), spi=Spi(0))
    party.alive.mend([larval], network.now)
    party.flush()
    network.run_until(lambda: up(network), limit=1)


def test_an_sa_that_somebody_has_removed_is_replaced_when_a_packet_asks() -> None:
    network = on_demand()
    ask(network[1], network[2])
    network.run(30)
    before = network.spis(network[1])
    ask(network[1], network[2])
    network.run(30)
    assert not before & {state.spi for state in network[1].kernel.complete_states() if state.source == network[1].outer}


def test_what_is_nobodys_and_what_is_eager_asks_for_nothing() -> None:
    network = on_demand()
    asked = acquire(network[1], network[2])
    network[1].alive.acquire(replace(asked, template=replace(asked.template, reqid=ReqId(7))), network.now)
    assert idle(network)
    network.establish = Establish.EAGER
    for party in network.parties:
        party.want(network.members)
    network.run_until(lambda: up(network), limit=5)
    network.run(5)
    before = network.spis(network[1])
    ask(network[1], network[2])
    network.run(5)
    assert network.spis(network[1]) == before


def test_a_pair_that_an_eager_tunnel_shares_is_up_in_any_case() -> None:
    network = Network(2)
    network.establish = Establish.ON_DEMAND
    network.tunnels = (tunnel("tunnel-b", traffic=Traffic(type=TrafficType.HOST)),)
    network.has_traffic = False
    network.start()
    network.run_until(network.connected, limit=5)
    network.run(1200)
    assert up(network)


def test_another_wish_for_an_idle_pair_sets_nothing_up() -> None:
    network = on_demand()
    network.run(5)
    network.rekey_seconds = 1800
    for party in network.parties:
        party.want(network.members)
    network.run(30)
    assert idle(network)
    assert network.datagrams == 0
