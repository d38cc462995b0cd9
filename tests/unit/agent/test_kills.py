"""Agents that are killed in the middle of exchanges, and stay away for seconds or minutes, while keys are short-lived.

No packet is lost, as what the kernels hold goes on, and nothing is sent on or given up before a peer is known to agree.
"""

from __future__ import annotations

from random import Random

import pytest

from hauberk_ike import Datagram
from hauberk_ike.numbers import ExchangeType
from hauberk_ike.wire.header import Header
from tests.unit.agent.network import Network, Party, credentials


def run_until_something_is_said(network: Network) -> None:
    """Until a datagram is under way, or for a few seconds."""
    before, end = network.datagrams, network.now + 4.0
    while network.datagrams == before and network.now < end:
        network.run(0.002)


def waits_for_an_answer(network: Network, limit_seconds: float = 30.0) -> Party:
    """The node that asks for a CHILD SA, as soon as one does."""
    end = network.now + limit_seconds
    while network.now < end:
        for party in network.parties:
            if any(state.larval for state in party.kernel.dump_states()):
                return party
        network.run(0.0005)
    raise AssertionError("nobody has asked for anything")


@pytest.mark.parametrize("seed", range(3))
def test_what_a_dead_initiator_may_not_have_is_not_sent_on(seed: int) -> None:
    network = Network(2, seed=seed, rekey_seconds=15)
    network.start()
    network.run_until(network.connected, limit=2.0)
    network.run(5.0)
    # Its request is under way: the other end installs the inbound SA, answers, and is heard by nobody.
    asking = waits_for_an_answer(network)
    asking.kill()
    network.run(90.0)
    assert network.flow.lost == 0
    asking.revive()
    network.run(60.0)
    assert network.flow.lost == 0


@pytest.mark.parametrize("seed", range(3))
def test_what_a_dead_responder_still_sends_on_is_kept(seed: int) -> None:
    network = Network(2, seed=seed, rekey_seconds=15)
    network.start()
    network.run_until(network.connected, limit=2.0)
    network.run(5.0)
    asking = waits_for_an_answer(network)
    (answering,) = (party for party in network.parties if party is not asking)
    held = network.spis(answering)
    while network.spis(answering) == held:
        network.run(0.0002)
    # It has answered, and never hears that the old SA is deleted: that is what its kernel goes on with.
    answering.kill()
    network.run(200.0)
    assert network.flow.lost == 0
    answering.revive()
    network.run(60.0)
    assert network.flow.lost == 0


@pytest.mark.parametrize("victim", [1, 2])
def test_what_a_peer_that_died_during_a_replacement_still_sends_on_is_kept(victim: int) -> None:
    network = Network(2, seed=victim)
    network.start()
    network.run_until(network.connected, limit=2.0)
    network.run(60.0)
    restarted, other = network[3 - victim], network[victim]
    restarted.kill()
    restarted.revive()
    held = network.spis(other)
    while network.spis(other) <= held:
        network.run(0.0002)
    other.kill()
    network.run(200.0)
    assert network.flow.lost == 0
    other.revive()
    network.run(150.0)
    assert network.flow.lost == 0
    assert network.disagreements() == []


def test_what_a_peer_that_died_before_its_ike_sa_was_deleted_still_sends_on_is_kept() -> None:
    network = Network(2, seed=3)
    network.start()
    network.run_until(network.connected, limit=2.0)
    network.run(60.0)
    renewing, other = network.parties
    renewing.alive.set_credentials(credentials(1, 1), network.now, renewed=True)
    held = network.spis(other)
    while network.spis(other) <= held:
        network.run(0.001)
    other.kill()
    network.run(200.0)
    assert network.flow.lost == 0
    other.revive()
    network.run(150.0)
    assert network.flow.lost == 0
    assert network.disagreements() == []


@pytest.mark.parametrize("seed", range(2))
def test_agents_killed_in_the_middle_of_exchanges_lose_nothing(seed: int) -> None:
    network, chance = Network(2, seed=seed, rekey_seconds=15), Random(seed)
    network.ike_rekey_seconds = 25
    network.start()
    network.run_until(network.connected, limit=2.0)
    network.flow.lost = network.flow.sent = 0
    for _ in range(25):
        network.run(chance.uniform(0.0, 20.0))
        run_until_something_is_said(network)
        network.run(0.006 * chance.random())
        for number in chance.choice(([1], [2], [1, 2])):
            network[number].kill()
        for number in chance.sample(network.members, 2):
            if network[number].sessions is None:
                network.run(chance.choice((0.5, 5.0, 60.0)) * chance.random())
                network[number].revive()
        assert network.flow.lost == 0
    network.rekey_seconds, network.ike_rekey_seconds = 3600, 14_400
    for number in network.members:
        network[number].want(network.members)
    network.run(300.0)
    assert network.flow.lost == 0
    assert network.disagreements() == []


@pytest.mark.parametrize("seed", range(3))
def test_a_rekey_whose_answer_is_lost_is_not_sent_on_when_its_ike_sa_is_called_back(seed: int) -> None:
    """The first node takes the second's new IKE SA for one that crosses its own, which is with a killed agent.

    It finds out after the grace time, when the second has asked to rekey the child and still has no answer.
    """
    network = Network(2, seed=seed, rekey_seconds=15)
    network.start()
    network.run_until(network.connected, limit=2.0)
    network.run(1.0)
    network[2].kill()
    network[2].revive()
    network.run(8.0)
    before = network.flow.lost
    asking = waits_for_an_answer(network)
    assert asking is network[2]
    unheard: list[Datagram] = []

    def is_answer_to_a_rekey(header: Header, datagram: Datagram) -> bool:
        if header.exchange_type != ExchangeType.CREATE_CHILD_SA or datagram.local.host != network[1].outer:
            return False
        unheard.append(datagram)
        return True

    with network.losing(is_answer_to_a_rekey):
        network.run(20.0)
    assert len(unheard) > 1
    assert network.flow.lost == before
    network.run(60.0)
    assert network.flow.lost == before


@pytest.mark.parametrize("seed", range(3))
def test_what_is_sent_by_is_rekeyed_while_another_ike_sa_takes_its_place(seed: int) -> None:
    """The new IKE SA's child is held back, as the answer to IKE_AUTH is lost: meanwhile the old one's is rekeyed."""
    network = Network(2, seed=seed, rekey_seconds=15)
    network.start()
    network.run_until(network.connected, limit=2.0)
    network.run(4.0)
    before = network.flow.lost
    (pair,) = network[1].alive.pairs
    pair.replace_at = network.now
    with network.losing(lambda header, _: header.exchange_type == ExchangeType.IKE_AUTH and header.is_response):
        network.run(28.0)
    assert network.flow.lost == before
    network.run(60.0)
    assert network.flow.lost == before


@pytest.mark.parametrize("second", [5.0, 3.0], ids=["the-same-second", "seconds-before"])
@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_installed_last_is_sent_by_whatever_the_clock_says(second: float, *, restarted: bool) -> None:
    """A kernel knows seconds of the wall clock alone, and the agent dies while the SA before is still there."""
    network = Network(2, seed=5)
    network.clocks_stand_at = 5.0
    network.start()
    network.run_until(network.connected, limit=2.0)
    network.run(60.0)
    network.clocks_stand_at = second
    renewing, other = network.parties
    if restarted:
        renewing.kill()
        renewing.revive()
    else:
        renewing.alive.set_credentials(credentials(1, 1), network.now, renewed=True)
    network.run_until(lambda: all(len(party.kernel.complete_states()) == 4 for party in network.parties), limit=60.0)
    network.run(1.0)
    outbound = [key for key in renewing.kernel.order if key[0] == other.outer]
    sends = renewing.kernel.outbound(other.outer)
    assert len(outbound) == 2
    assert sends is not None
    assert (sends.destination, sends.spi) == outbound[-1]
    renewing.kill()
    network.run(200.0)
    assert network.flow.lost == 0
