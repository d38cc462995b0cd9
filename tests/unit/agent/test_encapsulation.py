"""ESP in UDP as a node's kernel gets it, and a peer whose ports change."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from hauberk_agent.pairing import pair_specs
from hauberk_api.tunnel import Encapsulation as TunnelEncapsulation
from hauberk_ike import Encapsulation, Refused, SocketAddress
from hauberk_xfrm import MappingChange, ReqId, Spi, StateDump, UdpPorts
from tests.unit.agent.mesh import node, plan, roster, tunnel
from tests.unit.agent.network import Network, Party


def encapsulated() -> Network:
    """Two nodes whose tunnel wants UDP although there is no NAT."""
    network = Network(2)
    network.encapsulation = TunnelEncapsulation.ALWAYS
    network.start()
    network.run_until(network.connected, limit=5)
    return network


def ports(party: Party) -> set[UdpPorts | None]:
    return {state.encapsulation for state in party.kernel.complete_states()}


def spis(network: Network) -> list[set[Spi]]:
    return [network.spis(party) for party in network.parties]


@pytest.mark.parametrize("word", list(TunnelEncapsulation))
def test_a_tunnel_says_when_its_pairs_encapsulate(word: TunnelEncapsulation) -> None:
    found = roster("n1", plan(tunnel(encapsulation=word)), n1=node(1), n2=node(2))
    (spec,) = pair_specs(found, lambda _: ReqId(1), port=500).values()
    assert spec.config.encapsulation is Encapsulation[word.name]
    assert not spec.config.mobike


def test_without_a_nat_states_have_no_ports() -> None:
    network = Network(2)
    network.start()
    network.run_until(network.connected, limit=5)
    assert [ports(party) for party in network.parties] == [{None}, {None}]


def test_states_are_written_with_the_ports_of_the_ike_sa() -> None:
    network = encapsulated()
    network.run(60)
    assert network.disagreements() == []
    same = UdpPorts(source=4500, destination=4500)
    assert [ports(party) for party in network.parties] == [{same}, {same}]
    assert network.flow.lost == 0


def test_the_responders_deferred_outbound_state_has_its_ports_too() -> None:
    network = encapsulated()
    network.run(60)
    before = spis(network)
    network[1].alive.set_wanted({}, network.now)
    network[1].want(network.members)  # n1 begins anew
    network.run(60)
    assert network.disagreements() == []
    assert spis(network) != before
    same = UdpPorts(source=4500, destination=4500)
    assert [ports(party) for party in network.parties] == [{same}, {same}]


def test_a_peer_whose_port_changes_keeps_its_states() -> None:
    network = encapsulated()
    network.run(60)
    before = spis(network)
    network.nat_ports[network[1].outer] = 40007
    network.run(30)  # n1's next sign of life comes from there
    inbound, outbound = UdpPorts(source=40007, destination=4500), UdpPorts(source=4500, destination=40007)
    assert ports(network[2]) == {inbound, outbound}
    assert spis(network) == before
    assert network.disagreements() == []
    assert network.flow.lost == 0


def change(inbound: StateDump, port: int) -> MappingChange:
    """What a kernel says when a packet of the state comes from that port."""
    assert inbound.encapsulation is not None
    return MappingChange(
        destination=inbound.destination,
        spi=inbound.spi,
        reqid=inbound.reqid,
        old_source=inbound.source,
        old_port=inbound.encapsulation.source,
        new_source=inbound.source,
        new_port=port,
    )


def esp_from(network: Network, port: int) -> None:
    """n2's kernel says that n1's ESP comes from another port of the NAT's; and n1's IKE does so from now on."""
    n2 = network[2]
    network.nat_ports[network[1].outer] = port
    (inbound,) = [state for state in n2.kernel.complete_states() if state.destination == n2.outer]
    n2.alive.follow(change(inbound, port), network.now)
    n2.flush()


def behind(port: int) -> set[UdpPorts]:
    """The ports of a node's states whose peer is behind that port."""
    return {UdpPorts(source=port, destination=4500), UdpPorts(source=4500, destination=port)}


def test_a_peer_is_followed_to_where_its_esp_comes_from_at_once() -> None:
    network = encapsulated()
    network.run(60)
    before = spis(network)
    esp_from(network, 40007)
    assert ports(network[2]) == behind(40007)
    network.run(0.1)
    assert spis(network) == before
    assert network.disagreements() == []
    assert network.flow.lost == 0


def test_a_peer_is_followed_in_the_middle_of_a_rekey_with_all_its_states() -> None:
    network = encapsulated()
    network.run(60)
    (pair,) = network[2].alive.pairs
    (link,) = pair.links.values()
    n1 = network[1]
    (outbound,) = [state for state in n1.kernel.complete_states() if state.source == n1.outer]
    n1.alive.rekey(outbound.destination, outbound.spi, network.now)
    n1.flush()
    network.run(0.003)  # --> CREATE_CHILD_SA; its DELETE has not come yet
    assert link.replaced
    old = [state for state in network[2].kernel.complete_states() if state.destination == network[2].outer]
    assert len(old) == 2
    network[2].alive.follow(change(old[0], 40007), network.now)
    assert ports(network[2]) == behind(40007)


def test_a_peer_whose_port_changes_all_the_time_is_followed_once_a_second() -> None:
    network = encapsulated()
    network.run(60)
    esp_from(network, 40007)
    esp_from(network, 40008)
    assert ports(network[2]) == behind(40007)
    network.run(1.0)
    esp_from(network, 40009)
    assert ports(network[2]) == behind(40009)


def test_a_pair_that_may_meet_no_nat_follows_nobody() -> None:
    network = encapsulated()
    network.run(60)
    (pair,) = network[2].alive.pairs
    pair.spec = replace(pair.spec, config=replace(pair.spec.config, encapsulation=Encapsulation.NEVER))
    esp_from(network, 40007)
    assert ports(network[2]) == behind(4500)


def test_an_ike_sa_that_is_being_deleted_follows_nobody() -> None:
    network = encapsulated()
    network.run(60)
    n1 = network[1]
    (inbound,) = [state for state in n1.kernel.complete_states() if state.destination == n1.outer]
    (pair,) = n1.alive.pairs
    (old,) = pair.links.values()
    network.rekey_seconds = 1800
    n1.want(network.members)  # another IKE SA takes the old one's place, whose DELETE is under way for a moment
    for _ in range(100):
        if old.deleting:
            break
        network.run(0.001)
    assert old.deleting
    n1.alive.follow(change(inbound, 40007), network.now)
    assert ports(n1) == behind(4500)
    network.run(60)
    assert network.disagreements() == []


def test_an_unfollowed_port_is_told_again_every_other_second() -> None:
    network = encapsulated()
    network.run(60)
    for party in network.parties:
        taken = {state.mapping_seconds for state in party.kernel.complete_states() if state.destination == party.outer}
        sent = {state.mapping_seconds for state in party.kernel.complete_states() if state.source == party.outer}
        assert (taken, sent) == ({2}, {0})


def test_a_state_that_is_nobodys_moves_nobody() -> None:
    network = encapsulated()
    network.run(60)
    (inbound,) = [state for state in network[2].kernel.complete_states() if state.destination == network[2].outer]
    network[2].alive.follow(change(replace(inbound, spi=Spi(0x999)), 40007), network.now)
    assert ports(network[2]) == behind(4500)


def test_a_state_whose_key_the_kernel_hides_is_replaced_instead() -> None:
    network = encapsulated()
    network.run(60)
    before = spis(network)
    kernel = network[2].kernel
    for key, state in kernel.states.items():
        kernel.states[key] = replace(state, aead=None)
    network.nat_ports[network[1].outer] = 40007
    network.run(60)
    assert not before[1] & spis(network)[1]
    assert network.disagreements() == []
    assert network.flow.lost == 0


def test_a_peer_may_move_between_its_nodes_addresses_only() -> None:
    network = encapsulated()
    (pair,) = network[2].alive.pairs
    policy, peer = network[2].alive.admission, pair.spec.config
    policy.permit_address(peer, SocketAddress(host=ip_address("fd00:250::1"), port=4500))
    with pytest.raises(Refused, match="no address of n1"):
        policy.permit_address(peer, SocketAddress(host=ip_address("203.0.113.1"), port=4500))
    with pytest.raises(Refused):
        policy.permit_address(replace(peer, identity="nobody"), peer.remote)


def test_the_addresses_of_all_peers_are_known() -> None:
    network = encapsulated()
    policy = network[2].alive.admission
    assert policy.is_known(ip_address("10.250.0.1"))
    assert policy.is_known(ip_address("fd00:250::1"))
    assert not policy.is_known(ip_address("10.250.0.2"))
    assert not policy.is_known(ip_address("203.0.113.1"))
    network[2].alive.set_wanted({}, network.now)
    assert not policy.is_known(ip_address("10.250.0.1"))
