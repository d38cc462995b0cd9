"""Pairs between which the wire loses ESP, from the start or later, in both directions or in one."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from hauberk_agent.blocked_paths import Finder
from hauberk_agent.ownership import TRIAL_REQID
from hauberk_api.names import NodeUid
from hauberk_api.tunnel import Encapsulation as TunnelEncapsulation
from hauberk_ike import EspPath
from tests.unit.agent.network import Network, Party

BOTH = {("n1", "n2"), ("n2", "n1")}


def in_udp(party: Party) -> bool:
    """Whether all its states are, and there are some."""
    states = party.kernel.complete_states()
    return bool(states) and all(state.encapsulation is not None for state in states)


def plain(party: Party) -> bool:
    states = party.kernel.complete_states()
    return bool(states) and all(state.encapsulation is None for state in states)


def finders(network: Network) -> list[Finder | None]:
    found: list[Finder | None] = []
    for own, other in ((1, 2), (2, 1)):
        path = network[own].blocked.find(NodeUid(f"uid-{other}"), local=network[own].outer, remote=network[other].outer)
        found.append(None if path is None else path.finder)
    return found


def why(party: Party) -> str:
    (pair,) = party.alive.pairs
    return party.alive.esp_paths.why(pair)


def all_in_udp(network: Network) -> bool:
    """Whether all that is sent is; what was sent before may linger."""
    sent = [party.kernel.outbound(other.outer) for party, other in permutations(network.parties, 2)]
    return network.connected() and all(state is not None and state.encapsulation is not None for state in sent)


def blocked(*, traffic: bool = True) -> Network:
    """Two nodes between which ESP is lost from the start, and which have found that out."""
    network = Network(2)
    network.has_traffic = traffic
    network.loses_esp = set(BOTH)
    network.start()
    network.run_until(lambda: all_in_udp(network), limit=10)
    return network


@pytest.mark.parametrize("traffic", [True, False])
def test_a_path_that_passes_esp_is_left_alone(traffic: bool) -> None:
    network = Network(2)
    network.has_traffic = traffic
    network.start()
    network.run(120)
    assert [plain(party) for party in network.parties] == [True, True]
    assert finders(network) == [None, None]
    assert network.flow.lost == 0
    assert why(network[1]) == why(network[2]) == "ESP comes through"


@pytest.mark.parametrize("traffic", [True, False])
def test_pitfall_24_a_path_that_loses_esp_is_found_out_without_a_packet_of_anybody_elses(traffic: bool) -> None:
    network = blocked(traffic=traffic)
    network.run(60)
    assert network.disagreements() == []
    assert [in_udp(party) for party in network.parties] == [True, True]
    assert finders(network).count(Finder.US) >= 1
    assert None not in finders(network)
    assert "does not come through without UDP" in why(network[1])
    lost = network.flow.lost
    network.run(600)
    assert network.flow.lost == lost, "nothing flaps"
    assert [in_udp(party) for party in network.parties] == [True, True]


@pytest.mark.parametrize("direction", sorted(BOTH))
@pytest.mark.parametrize("traffic", [True, False])
def test_one_direction_that_loses_esp_is_enough(direction: tuple[str, str], traffic: bool) -> None:
    network = Network(2)
    network.has_traffic = traffic
    network.loses_esp = {direction}
    network.start()
    network.run_until(lambda: all_in_udp(network), limit=10)
    network.run(60)
    assert network.disagreements() == []
    finder, peer = (0, 1) if direction[0] == "n1" else (1, 0)
    assert finders(network)[finder] is Finder.US
    assert finders(network)[peer] is Finder.PEER


@pytest.mark.parametrize("lost", [BOTH, {("n1", "n2")}, {("n2", "n1")}])
@pytest.mark.parametrize("one_way", [True, False])
def test_a_path_that_begins_to_lose_esp_is_found_out_under_traffic(lost: set[tuple[str, str]], one_way: bool) -> None:
    network = Network(2)
    network.is_one_way = one_way
    network.start()
    network.run(60)
    network.loses_esp = set(lost)
    if one_way and lost == {("n2", "n1")}:
        network.run(60)
        assert network.flow.lost == 0, "nobody sends there"
        return
    network.run_until(lambda: all_in_udp(network), limit=25)
    lost_so_far = network.flow.lost
    network.run(60)
    assert network.flow.lost == lost_so_far
    assert network.disagreements() == []


def test_a_pair_that_loses_everything_is_not_well() -> None:
    network = Network(2)
    network.start()
    network.run(60)
    network.loses_esp = set(BOTH)
    network[2].listens = False  # nor can it be set up anew
    (pair,) = network[1].alive.pairs
    network.run(9)
    assert pair.well, "a peer that does not answer is another matter"
    network[2].listens = True
    deadline = network.now + 40
    while pair.esp_path is not EspPath.BLOCKED:
        assert network.now < deadline
        network.run(0.001)
    assert not pair.well
    assert pair.unwell_since is not None
    network.run_until(lambda: all_in_udp(network), limit=10)


def test_a_restarted_agent_remembers() -> None:
    network = blocked()
    network.run(60)
    lost = network.flow.lost
    for party in network.parties:
        party.kill()
        party.revive()
        network.run(60)
        assert network.disagreements() == []
        assert in_udp(party)
    assert network.flow.lost == lost


def test_a_rebooted_node_remembers() -> None:
    network = blocked()
    network.run(60)
    network[1].reboot()
    network[1].start()
    network[1].alive.set_wanted({}, network.now)
    network[1].want(network.members)
    network.run_until(lambda: in_udp(network[1]), limit=5)
    network.run(60)
    assert network.disagreements() == []


def test_a_node_that_has_forgotten_is_told() -> None:
    network = blocked()
    network.run(60)
    network[1].reboot()
    network[1].blocked.forget(NodeUid("uid-2"))
    network[1].start()
    network[1].alive.set_wanted({}, network.now)
    network[1].want(network.members)
    network.run_until(lambda: all_in_udp(network), limit=5)
    assert finders(network)[0] is Finder.PEER
    network.run(60)
    assert network.disagreements() == []


def test_rekeys_stay_in_udp() -> None:
    network = blocked()
    network.run(60)
    lost = network.flow.lost
    network.run(8000)
    assert [in_udp(party) for party in network.parties] == [True, True]
    assert network.flow.lost == lost


@pytest.mark.parametrize("word", [TunnelEncapsulation.ALWAYS, TunnelEncapsulation.NEVER])
def test_a_tunnel_that_says_how_is_not_checked(word: TunnelEncapsulation) -> None:
    network = Network(2)
    network.encapsulation = word
    network.loses_esp = set(BOTH)
    network.start()
    network.run(60)
    assert network.connected()
    assert finders(network) == [None, None]
    assert in_udp(network[1]) is (word is TunnelEncapsulation.ALWAYS)
    assert why(network[1]).startswith("the tunnel wants")


def test_a_whole_mesh_is_checked_pair_by_pair() -> None:
    network = Network(5)
    network.loses_esp = {("n1", "n2"), ("n4", "n3")}
    network.start()
    network.run(90)
    assert network.disagreements() == []
    wanted = {("n1", "n2"), ("n2", "n1"), ("n3", "n4"), ("n4", "n3")}
    found = {
        (party.name, pair.name)
        for party in network.parties
        for pair in party.alive.pairs
        if pair.esp_path is EspPath.BLOCKED
    }
    assert found == wanted


# Tried again


DAY = 86_400


def seasoned() -> Network:
    """Two nodes that have been in UDP for almost a day. Nothing is sent but probes, and keys last."""
    network = Network(2, rekey_seconds=3 * DAY)
    network.dpd_seconds = 3600
    network.has_traffic = False
    network.loses_esp = set(BOTH)
    network.start()
    network.run_until(lambda: all_in_udp(network), limit=10)
    network.run(60)
    for party, other in ((network[1], "uid-2"), (network[2], "uid-1")):
        path = party.blocked.find(NodeUid(other), local=party.outer, remote=network[3 - party.number].outer)
        assert path is not None
        party.blocked.remember(NodeUid(other), replace(path, since=path.since - DAY + 110))
    return network


def trial_states(network: Network) -> int:
    return sum(state.reqid == TRIAL_REQID for party in network.parties for state in party.kernel.complete_states())


def test_a_path_that_passes_esp_again_is_found_out_after_a_day_without_losing_a_packet() -> None:
    network = seasoned()
    network.loses_esp = set()
    network.has_traffic = True
    network.run(30)
    assert [in_udp(party) for party in network.parties] == [True, True], "it is not time yet"
    network.run(120)
    assert [plain(party) for party in network.parties] == [True, True]
    assert finders(network) == [None, None]
    assert trial_states(network) == 0
    assert network.disagreements() == []
    assert network.flow.lost == 0
    network.run(120)
    assert [plain(party) for party in network.parties] == [True, True]
    assert why(network[1]) == why(network[2]) == "ESP comes through"


@pytest.mark.parametrize("lost", [BOTH, {("n1", "n2")}, {("n2", "n1")}])
def test_a_path_that_still_loses_esp_is_left_as_it_is_for_another_day_without_losing_a_packet(
    lost: set[tuple[str, str]],
) -> None:
    network = seasoned()
    network.loses_esp = set(lost)
    network.has_traffic = True
    tried = network.run_until(lambda: trial_states(network) == 4, limit=120)
    assert tried > 30
    before = [network.spis(party) for party in network.parties]
    network.run(60)
    assert trial_states(network) == 0
    assert [in_udp(party) for party in network.parties] == [True, True]
    assert [network.spis(party) <= spis for party, spis in zip(network.parties, before, strict=True)] == [True, True]
    assert network.flow.lost == 0
    network.has_traffic = False
    network.run(3600)
    assert trial_states(network) == 0, "not before another day is over"
    assert network.disagreements() == []


def test_an_agent_that_starts_when_the_day_is_over_tries_as_well() -> None:
    network = seasoned()
    network.loses_esp = set()
    for party in network.parties:
        party.kill()
    network.run(60)
    for party in network.parties:
        party.revive()
    network[1].alive.look(network[1].kernel.dump_states(), network.now)  # before there is any IKE SA
    network.run(120)
    assert [plain(party) for party in network.parties] == [True, True]


def test_a_killed_agent_leaves_no_trial_behind() -> None:
    network = seasoned()
    network.run_until(lambda: trial_states(network) == 4, limit=120)
    network[1].kill()
    network[1].revive()
    network[1].alive.forget_found()
    network.run(60)
    left = network[1].alive.unaccounted(network[1].kernel.dump_states())
    assert [state.reqid for state in left] == [TRIAL_REQID] * 2, "they are swept away, or end by themselves"
    assert not any(s.reqid == TRIAL_REQID for s in network[2].kernel.complete_states())
