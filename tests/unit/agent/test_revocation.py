"""A node that is taken out of the mesh is out at once, on every peer, however good its certificate is."""

from __future__ import annotations

import pytest

from hauberk_agent.pairing import pair_specs
from hauberk_agent.roster import Roster
from hauberk_api.names import NodeUid, node_identity
from hauberk_api.node import NodeSpec
from hauberk_api.plan import Plan
from tests.unit.agent.mesh import node, plan, roster, tunnel
from tests.unit.agent.network import Network, Party, authority


def follow(party: Party, found: Roster) -> None:
    party.alive.set_wanted(pair_specs(found, party.reqid, port=500), party.network.now)
    party.flush()


def running() -> Network:
    network = Network(3)
    network.start()
    network.run_until(network.connected, limit=1.0)
    network.run(60.0)
    return network


def shut_out(network: Network) -> None:
    """None of the others has anything left of n3, and they are well without it."""
    for party in (network[1], network[2]):
        states = party.kernel.complete_states()
        assert network[3].outer not in {end for state in states for end in (state.source, state.destination)}
        assert [pair.name for pair in party.alive.pairs] == [f"n{3 - party.number}"]
        assert all(pair.well for pair in party.alive.pairs)


REVOKED = {
    "its Node is deleted": (plan(tunnel()), (1, 2), node(3)),
    "its label is taken away": (plan(tunnel()), (1, 2, 3), node(3, tunnels=())),
    "its UID is revoked": (plan(tunnel(), revoked=("uid-3",)), (1, 2, 3), node(3)),
    "its name is revoked": (plan(tunnel(), revoked=("n3",)), (1, 2, 3), node(3)),
}


@pytest.mark.parametrize(("the_plan", "known", "its_own"), REVOKED.values(), ids=REVOKED)
def test_its_sas_end_on_all_peers_at_once(the_plan: Plan, known: tuple[int, ...], its_own: NodeSpec) -> None:
    """It goes on as if it had heard nothing, with its certificate, from its own address."""
    network = running()
    nodes = {f"n{number}": node(number) for number in known}
    if 3 in known:
        nodes["n3"] = its_own
    for party in (network[1], network[2]):
        follow(party, roster(party.name, the_plan, **nodes))
    shut_out(network)
    network.run(300.0)
    shut_out(network)


def test_a_restarted_agent_of_a_revoked_node_gets_in_nowhere() -> None:
    network = running()
    for party in (network[1], network[2]):
        party.want([1, 2])
    network[3].reboot()
    network[3].revive()
    network.run(300.0)
    shut_out(network)
    assert network.spis(network[3]) == set()


def test_registered_again_under_its_name_it_stays_out() -> None:
    """It has another UID, and even a certificate for that."""
    network = running()
    for party in (network[1], network[2]):
        nodes = {"n1": node(1), "n2": node(2), "n3": node(3).model_copy(update={"node_uid": "uid-9"})}
        follow(party, roster(party.name, plan(tunnel(), revoked=("n3",)), **nodes))
    shut_out(network)
    again = authority().credentials(node_identity(NodeUid("uid-9")))
    network[3].alive.set_credentials(again, network.now, renewed=True)
    network[3].flush()
    network.run(300.0)
    shut_out(network)


def test_taken_back_in_it_is_a_peer_again() -> None:
    network = running()
    for party in (network[1], network[2]):
        party.want([1, 2])
    network.run(30.0)
    for party in network.parties:
        party.want(network.members)
    network.run_until(network.connected, limit=40.0)
    network.run(90.0)
    assert network.disagreements() == []
