"""Sessions of several nodes reach agreement, whatever happens to their datagrams, agents and kernels."""

from __future__ import annotations

import errno
from collections import Counter
from ipaddress import IPv4Address
from random import Random

import pytest

from hauberk_agent.pairing import pair_specs
from hauberk_api.report import UnwellReason
from hauberk_ike import SocketAddress
from hauberk_ike.numbers import ExchangeType
from hauberk_ike.wire.header import FLAG_INITIATOR, NO_SPI
from hauberk_ike.wire.message import build_message
from hauberk_xfrm import XfrmError
from tests.unit.agent.mesh import node
from tests.unit.agent.network import Network, credentials

NONSENSE = build_message(
    spi_i=b"stranger",
    spi_r=NO_SPI,
    exchange_type=ExchangeType.IKE_SA_INIT,
    flags=FLAG_INITIATOR,
    message_id=0,
    payloads=(),
)
"""IKE_SA_INIT with nothing in it."""


def settled(network: Network, *, seconds: float = 60.0) -> None:
    """After a while, every pair has one IKE SA and one SA each way, and both ends agree which."""
    network.run_until(network.connected, limit=seconds)
    network.run(seconds)
    assert network.disagreements() == []


def test_a_new_tunnel_is_up_within_a_second() -> None:
    network = Network(3)
    network.start()
    # n1 -> n2, n3 and n2 -> n3: the first by name begins.
    assert network.run_until(network.connected, limit=1.0) < 0.3
    settled(network)
    for party in network.parties:
        for pair in party.alive.pairs:
            assert pair.current is not None
            assert pair.current.ours == (party.name < pair.name)


@pytest.mark.parametrize("proposal", ["aes128ccm16-prfsha512-ecp384", "aes256-sha256-modp2048"])
def test_what_a_tunnel_proposes_strangers_may_propose(proposal: str) -> None:
    network = Network(2)
    network.ike_proposals = (proposal,)
    network.start()
    network.run_until(network.connected, limit=1.0)
    for party in network.parties:
        (pair,) = party.alive.pairs
        assert pair.current is not None
        assert pair.current.proposal == proposal


def test_by_default_two_nodes_agree_on_keys_that_no_quantum_computer_finds() -> None:
    network = Network(2)
    network.start()
    network.run_until(network.connected, limit=1.0)
    for party in network.parties:
        (pair,) = party.alive.pairs
        assert pair.current is not None
        assert pair.current.proposal == "aes256gcm16-prfsha384-x25519-ke1_mlkem768"


@pytest.mark.parametrize("seed", range(8))
def test_both_ends_begin_at_once(seed: int) -> None:
    network = Network(2, seed=seed)
    # Both found an empty kernel: n1 -> n2 and n2 -> n1 cross, both with INITIAL_CONTACT.
    for party in network.parties:
        party.start()
    for party in network.parties:
        party.want(network.members)
    assert network.run_until(network.connected, limit=1.0) < 0.3
    settled(network)
    survivor = next(iter(network[1].alive.pairs)).current
    assert survivor is not None
    assert survivor.ours, "the lower identity's stays"


@pytest.mark.parametrize("seed", range(12))
def test_a_mesh_agrees_over_a_lossy_network(seed: int) -> None:
    network = Network(4, seed=seed, loss=0.25)
    for party in network.parties:
        party.start()
    for party in network.parties:
        party.want(network.members)
    network.run_until(network.connected, limit=120.0)
    network.run(60.0)
    network.loss = 0.0
    network.run(120.0)
    assert network.disagreements() == []


@pytest.mark.parametrize("victim", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_a_killed_agent_s_successor_replaces_everything_without_loss(victim: int, seed: int) -> None:
    network = Network(3, seed=seed)
    network.start()
    settled(network)
    before = network.spis(network[victim])
    network[victim].kill()
    network.run(3.0)
    assert network.spis(network[victim]) == before, "the kernel goes on"
    network[victim].revive()
    settled(network, seconds=90.0)
    assert not before & network.spis(network[victim])
    assert network.flow.lost == 0
    assert network.flow.sent > 1000


@pytest.mark.parametrize("one_way", [False, True])
@pytest.mark.parametrize("victim", [1, 2])
def test_an_agent_killed_before_it_had_the_answer_to_ike_auth_is_not_sent_to_by_the_new_sa(
    victim: int, one_way: bool
) -> None:
    """Its peer has answered and has all keys; whoever died has none of them."""
    network = Network(2)
    network.is_one_way = one_way
    network.start()
    settled(network)
    network[victim].kill()
    network[victim].revive()
    while not any(state.larval for state in network[victim].kernel.dump_states()):
        network.run(0.001)
    network[victim].kill()
    network.run(600.0)
    assert network.flow.lost == 0
    network[victim].revive()
    settled(network, seconds=180.0)
    assert network.flow.lost == 0


def test_an_agent_killed_young_is_succeeded_without_loss() -> None:
    """Its IKE SAs are so young that its successor's could be taken for ones that cross them."""
    network = Network(2)
    network.start()
    network.run(2.0)
    network[2].kill()
    network[2].revive()
    settled(network, seconds=120.0)
    assert network.flow.lost == 0


@pytest.mark.parametrize("victim", [1, 2])
def test_a_rebooted_node_is_back_at_once(victim: int) -> None:
    network = Network(2)
    network.start()
    settled(network)
    other = network[3 - victim]
    network[victim].reboot()
    network.run(2.0)
    network[victim].revive()
    # Whatever its name, and before the other end has noticed: INITIAL_CONTACT.
    took = network.run_until(
        lambda: (
            network.connected() and any(s.spi in network.spis(network[victim]) for s in other.kernel.complete_states())
        ),
        limit=2.0,
    )
    assert took < 1.0
    settled(network)


def test_replacement_after_the_rekey_time_loses_nothing() -> None:
    network = Network(3, rekey_seconds=200)
    network.start()
    settled(network)
    before = [network.spis(party) for party in network.parties]
    network.run(200.0)
    after = [network.spis(party) for party in network.parties]
    assert all(not old & new for old, new in zip(before, after, strict=True))
    settled(network)
    assert network.flow.lost == 0


def test_time_rekeys_children_and_ike_sas_by_create_child_sa_without_loss() -> None:
    network = Network(3, rekey_seconds=100)
    network.ike_rekey_seconds = 130
    network.start()
    settled(network)
    links = [pair.current for party in network.parties for pair in party.alive.pairs]
    handles = [link.ike_sa for link in links if link is not None]
    network.run(1000.0)
    settled(network)
    # Nobody was authenticated anew: the links are those of the beginning, under other handles.
    assert [pair.current for party in network.parties for pair in party.alive.pairs] == links
    assert not set(handles) & {link.ike_sa for link in links if link is not None}
    # Three pairs, each rekeyed by one of its ends at 80 to 90 per cent of the time.
    assert 30 <= sum(party.alive.rekeyed_children for party in network.parties) <= 42
    assert 24 <= sum(party.alive.rekeyed_ike_sas for party in network.parties) <= 33
    assert network.flow.lost == 0


def test_a_renewed_certificate_is_brought_to_every_peer_without_loss() -> None:
    network = Network(3)
    network.start()
    settled(network)
    before = network.spis(network[2])
    network[2].alive.set_credentials(credentials(2, 1), network.now, renewed=True)
    settled(network, seconds=90.0)
    assert not before & network.spis(network[2])
    serials = {pair.current.ike_sa for pair in network[2].alive.pairs if pair.current is not None}
    assert len(serials) == 2
    assert network.flow.lost == 0


def test_renewal_on_both_ends_at_once_loses_nothing() -> None:
    network = Network(2)
    network.start()
    settled(network)
    for number in (1, 2):
        network[number].alive.set_credentials(credentials(number, 1), network.now, renewed=True)
    settled(network, seconds=120.0)
    assert network.flow.lost == 0


def test_a_silent_peer_keeps_its_sas_and_is_set_up_again_when_it_answers() -> None:
    network = Network(2)
    network.start()
    settled(network)
    before = network.spis(network[1])
    network[2].listens = False
    network.run(120.0)
    (pair,) = network[1].alive.pairs
    assert pair.failure is not None
    assert pair.failure.reason is UnwellReason.UNREACHABLE
    assert pair.unwell_since is not None
    assert network.spis(network[1]) == before, "a failed DPD ends the IKE SA only"
    assert network.flow.lost == 0
    network[2].listens = True
    network.run_until(network.connected, limit=60.0)
    settled(network, seconds=120.0)


def test_a_removed_peer_is_gone_from_both_kernels() -> None:
    network = Network(3)
    network.start()
    settled(network)
    for party in network.parties:
        party.want([1, 2])
    network.run(1.0)
    assert network[3].kernel.states == {}
    assert len(network[1].kernel.complete_states()) == 2
    assert not list(network[3].alive.pairs)


def test_one_end_s_removal_ends_the_other_end_s_sas() -> None:
    network = Network(2)
    network.start()
    settled(network)
    network[1].want([])
    network.run(30.0)
    assert network[1].kernel.states == {}
    # n2 still wants n1, which refuses it: nothing of the old SAs is left.
    assert network[2].kernel.complete_states() == []
    (pair,) = network[2].alive.pairs
    assert pair.failure is not None
    assert pair.failure.reason is UnwellReason.AUTHENTICATION_FAILED


def test_a_peer_from_a_foreign_address_is_refused() -> None:
    network = Network(2)
    network.start(apply=False)
    stranger = network[2]
    stranger.want([1, 2])
    # n1 knows n2 at another address than the one that it comes from.
    elsewhere = network[1].roster([1, 2], n2=node(2, addresses=("10.250.0.77",)))
    network[1].alive.set_wanted(pair_specs(elsewhere, network[1].reqid, port=500), network.now)
    network.run(5.0)
    assert network[1].kernel.complete_states() == []
    (pair,) = stranger.alive.pairs
    assert pair.failure is not None
    assert pair.failure.reason is UnwellReason.AUTHENTICATION_FAILED


def test_strangers_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    network = Network(2)
    network.start()
    settled(network)
    caplog.clear()
    for number in range(1000):
        stranger = SocketAddress(host=IPv4Address(f"198.51.{number >> 8}.{number & 255}"), port=500)
        network[1].alive.receive_datagram(
            NONSENSE, local=SocketAddress(host=network[1].outer, port=500), remote=stranger, now=network.now
        )
    refused = [record for record in caplog.records if record.message.startswith("refused 198.51.")]
    assert len(refused) == 32
    network.run(61)
    (summary,) = [record.message for record in caplog.records if record not in refused and "refused" in record.message]
    assert summary == "refused 968 more within 60 s: 968 InvalidSyntax"


def test_a_kernel_that_refuses_is_reported_and_asked_again() -> None:
    network = Network(2)
    network[1].kernel.refuse = XfrmError("add state", "", errno.ENOMEM)
    network.start()
    network.run(10.0)
    (pair,) = network[1].alive.pairs
    assert pair.failure is not None
    assert pair.failure.reason is UnwellReason.KERNEL_REFUSED
    network[1].kernel.refuse = None
    network.run_until(network.connected, limit=60.0)
    settled(network)


def soft_expired(network: Network, number: int) -> None:
    """A node's kernel says that its outbound SA has carried enough."""
    party = network[number]
    state = party.kernel.outbound(party.address(network[3 - number]))
    assert state is not None
    party.alive.rekey(state.destination, state.spi, network.now)
    party.flush()


@pytest.mark.parametrize("number", [1, 2])
def test_an_sa_that_has_carried_enough_is_rekeyed_within_its_ike_sa_without_loss(number: int) -> None:
    network = Network(2)
    network.start()
    settled(network)
    links = [next(iter(pair.links)) for party in network.parties for pair in party.alive.pairs]
    for _ in range(3):
        before = network.spis(network[1])
        soft_expired(network, number)
        settled(network)
        assert not before & network.spis(network[1])
    assert [next(iter(pair.links)) for party in network.parties for pair in party.alive.pairs] == links
    assert network.flow.lost == 0


def test_what_the_kernel_s_word_of_was_missed_a_dump_shows() -> None:
    network = Network(2)
    network.rekey_packets = 10_000
    network.start()
    settled(network)
    before = network.spis(network[1])
    party = network[1]
    state = party.kernel.outbound(party.address(network[2]))
    assert state is not None
    assert state.lifetime.soft_packets is not None
    assert 8_500 <= state.lifetime.soft_packets <= 9_500
    while party.kernel.states[state.destination, state.spi].packets < state.lifetime.soft_packets:
        assert not party.kernel.states[state.destination, state.spi].is_worn
        assert party.kernel.take(state.destination, state.spi)
    party.alive.mend(party.kernel.dump_states(), network.now)
    party.flush()
    settled(network)
    assert not before & network.spis(network[1])
    assert network.flow.lost == 0


def test_new_limits_are_new_sas_limits_at_once() -> None:
    network = Network(2)
    network.start()
    settled(network)
    before = network.spis(network[1])
    network.rekey_packets = 1_000_000
    for party in network.parties:
        party.want(network.members)
    settled(network)
    assert not before & network.spis(network[1])
    assert network.flow.lost == 0


@pytest.mark.parametrize(
    ("wanted", "esn", "at_most"),
    [(None, True, None), (None, False, 2**31), (2**40, False, 2**31), (2**40, True, 2**40)],
)
def test_sequence_numbers_do_not_run_out(wanted: int | None, esn: bool, at_most: int | None) -> None:
    network = Network(2)
    network.rekey_packets = wanted
    (spec,) = pair_specs(network[1].roster([1, 2]), network[1].reqid, port=500).values()
    soft = spec.children[0].lifetime(esn=esn, chance=Random(1)).soft_packets
    assert soft == at_most or (soft is not None and at_most is not None and 0.85 * at_most <= soft <= 0.95 * at_most)


@pytest.mark.parametrize("seed", range(8))
def test_both_ends_rekey_the_same_sa_at_once_without_loss(seed: int) -> None:
    network = Network(2, seed=seed)
    network.start()
    settled(network)
    before = network.spis(network[1])
    for number in (1, 2):
        soft_expired(network, number)
    settled(network)
    assert not before & network.spis(network[1])
    assert network.flow.lost == 0


def test_an_sa_removed_by_hand_is_replaced() -> None:
    network = Network(2)
    network.start()
    settled(network)
    kernel = network[1].kernel
    state = kernel.outbound(network[1].address(network[2]))
    assert state is not None
    kernel.delete_state(destination=state.destination, spi=state.spi)
    network[1].alive.mend(kernel.dump_states(), network.now)
    network[1].flush()
    network.run(1.0)
    assert kernel.outbound(network[1].address(network[2])) is not None
    settled(network)


def test_states_of_nobody_are_named_and_those_of_pairs_are_not() -> None:
    network = Network(2)
    network.start()
    settled(network)
    network[1].kill()
    network[1].start()
    sessions, dump = network[1].alive, network[1].kernel.dump_states()
    assert sessions.unaccounted(dump) == [], "a pair may still claim them"
    assert len(sessions.forget_found()) == 2
    assert len(sessions.unaccounted(dump)) == 2


@pytest.mark.parametrize("size", [3, 20])
def test_pitfall_18_all_nodes_begin_at_once(size: int) -> None:
    network = Network(size)
    for party in network.parties:
        party.start()
    for party in network.parties:
        party.want(network.members)
    network.run_until(network.connected, limit=10.0)
    network.run(30.0)
    assert network.disagreements() == []


@pytest.mark.long
def test_pitfall_18_a_storm_of_a_hundred_nodes_ends_with_one_ike_sa_a_pair() -> None:
    # Every node begins with all others at once and works 5 ms on each datagram, and each fiftieth datagram is lost: so
    # answers come too late and requests are sent again. No second storm is to come of that.
    network = Network(100, loss=0.02)
    network.service_seconds = 0.005
    network.ike_proposals = ("aes128gcm16-prfsha256-x25519",)
    network.dpd_seconds = 600
    network.has_traffic = False
    for party in network.parties:
        party.start()
    for party in network.parties:
        party.want(network.members)
    pairs = 100 * 99 // 2
    network.run_until(network.connected, limit=10.0)
    network.run(45.0)
    assert network.disagreements() == []
    found: Counter[tuple[bytes, bytes]] = Counter()
    for party in network.parties:
        endpoint = party.alive._endpoint  # pyright: ignore[reportPrivateUsage]
        assert endpoint is not None
        found.update((ike_sa.spi_i, ike_sa.spi_r) for ike_sa in endpoint.established())
    assert len(found) == pairs
    assert set(found.values()) == {2}, "each is at its two ends"
    # Two attempts that cross are eight messages, and the end of one of them two more; then each end asks whether its
    # ESP arrives, the responder sometimes twice.
    assert network.repeated < pairs
    assert network.datagrams - network.repeated < 17 * pairs
