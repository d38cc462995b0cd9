"""A pair that shares several tunnels: one IKE SA, and on it a CHILD SA for each flow, whatever happens."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from hauberk_agent.pair import Pair
from hauberk_agent.pairing import pair_specs
from hauberk_api.plan import Phase
from hauberk_api.report import UnwellReason
from hauberk_ike import Datagram
from hauberk_ike.numbers import ExchangeType
from hauberk_ike.wire.header import Header
from hauberk_xfrm import Mode, XfrmError
from tests.unit.agent.mesh import HOST, TUNNEL, VXLAN, tunnel
from tests.unit.agent.network import Network, Party

OVERLAY = tunnel("overlay", traffic=VXLAN)
HOSTS = tunnel("hosts", traffic=HOST)
LABELS = [TUNNEL, "overlay", "overlay/1", "overlay/2", "overlay/3", "hosts", "hosts/1"]
"""Of each flow: pods; either end's packets to the overlay's port, in transport and in tunnel mode; hosts, likewise."""


def several(size: int = 2, *, seed: int = 1, loss: float = 0.0) -> Network:
    network = Network(size, seed=seed, loss=loss)
    network.tunnels = (OVERLAY, HOSTS)
    return network


def want(network: Network) -> None:
    for party in network.parties:
        party.want(network.members)


def only(party: Party) -> Pair:
    (pair,) = party.alive.pairs
    return pair


def settled(network: Network, *, seconds: float = 60.0) -> None:
    network.run_until(network.connected, limit=seconds)
    network.run(seconds)
    assert network.disagreements() == []


def test_one_ike_sa_carries_a_child_for_each_flow() -> None:
    network = several()
    network.start()
    assert network.run_until(network.connected, limit=1.0) < 0.3
    settled(network)
    for party in network.parties:
        pair = only(party)
        assert pair.current is not None
        assert list(pair.current.children) == LABELS
        modes = {label: child.mode for label, child in pair.current.children.items()}
        assert {label for label, mode in modes.items() if mode is Mode.TRANSPORT} == {"overlay", "overlay/1", "hosts"}
        in_kernel = {state.reqid: state.mode for state in party.kernel.complete_states()}
        assert in_kernel == {child.reqid: child.mode for child in pair.current.children.values()}


@pytest.mark.parametrize("seed", range(6))
def test_both_ends_begin_at_once_over_a_lossy_network(seed: int) -> None:
    network = several(3, seed=seed, loss=0.2)
    for party in network.parties:
        party.start()
    want(network)
    network.run_until(network.connected, limit=180.0)
    network.loss = 0.0
    network.run(180.0)
    assert network.disagreements() == []


def answer_of(answering: Party, message_id: int) -> Callable[[Header, Datagram], bool]:
    """Picks the answers to CREATE_CHILD_SA of one message id."""

    def picks(header: Header, datagram: Datagram) -> bool:
        return (
            header.exchange_type == ExchangeType.CREATE_CHILD_SA
            and header.message_id == message_id
            and header.is_response
            and datagram.local.host == answering.outer
        )

    return picks


def restarted(number: int) -> Network:
    """Two nodes that have settled, and the agent of one of them has just been killed and started."""
    network = several()
    network.start()
    settled(network)
    network[number].kill()
    network[number].revive()
    return network


@pytest.mark.parametrize("message_id", range(3, 9))
def test_a_child_whose_answer_is_lost_again_and_again_is_not_sent_by(message_id: int) -> None:
    """Its asker answers whoever asks whether it is alive, and has no keys for this child."""
    network = restarted(1)
    with network.losing(answer_of(network[2], message_id)):
        network.run(25.0)
    assert network.flow.lost == 0
    settled(network, seconds=120.0)
    assert network.flow.lost == 0


def test_of_two_children_that_cross_the_one_that_goes_is_sent_by_until_the_other_is_held() -> None:
    """Both ends ask for what the new IKE SA lacks; the answer to the one whose child stays is lost again and again."""
    network = restarted(1)
    first, second = network.parties
    both_have_asked = False

    def loses(header: Header, datagram: Datagram) -> bool:
        if header.exchange_type != ExchangeType.CREATE_CHILD_SA:
            return False
        if header.is_response:
            return both_have_asked and datagram.local.host == second.outer
        return not both_have_asked and datagram.local.host == first.outer

    with network.losing(loses):
        end = network.now + 15.0
        while not both_have_asked and network.now < end:
            network.run(0.01)
            current = only(second).current
            both_have_asked = current is not None and sum(child.ours for child in current.children.values()) > 2
        assert both_have_asked
        network.run(12.0)
    assert network.flow.lost == 0
    settled(network, seconds=120.0)
    assert network.flow.lost == 0


def test_of_an_ike_sa_that_both_ends_delete_at_once_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one hears of the other's DELETE child by child, and comes to its own decision after the first of them."""
    network = restarted(2)
    network.run(10.0)
    only(network[1]).replace_at = network.now
    end = network.now + 30.0
    while len(only(network[2]).links) == 1 and network.now < end:
        network.run(0.001)
    # The other end knows by a packet that the new SAs are held, and so in the very moment that the old ones go.
    monkeypatch.setattr("tests.unit.agent.network.TRAFFIC_SECONDS", 0.0005)
    network.run(0.1)
    monkeypatch.undo()
    settled(network, seconds=90.0)
    assert network.flow.lost == 0


def test_what_a_killed_agent_sends_by_is_kept_where_an_older_ike_sa_is_left() -> None:
    """The older one has carried packets, and that proves nothing: the younger one was killed before it replaced it."""
    network = restarted(1)
    with network.losing(answer_of(network[2], 8)):
        network.run(1.5)
    network[1].kill()
    network.run(120.0)
    assert network.flow.lost == 0
    network[1].revive()
    settled(network, seconds=120.0)
    assert network.flow.lost == 0


@pytest.mark.parametrize("victim", [1, 2])
def test_a_killed_agent_s_successor_replaces_every_child_without_loss(victim: int) -> None:
    network = several(3)
    network.start()
    settled(network)
    before = network.spis(network[victim])
    network[victim].kill()
    network.run(3.0)
    network[victim].revive()
    assert all(pair.well for pair in network[victim].alive.pairs), "what is in the kernel stands in"
    settled(network, seconds=90.0)
    assert not before & network.spis(network[victim])
    assert network.flow.lost == 0
    assert network.flow.sent > 10_000


def test_replacement_after_the_rekey_time_loses_nothing_of_any_child() -> None:
    network = several()
    network.rekey_seconds = 200
    network.start()
    settled(network)
    before = network.spis(network[1])
    network.run(200.0)
    settled(network)
    # The other tunnels' keys live longer.
    assert len(before - network.spis(network[1])) == 1, "both ways, with one SPI"
    assert network.flow.lost == 0


@pytest.mark.parametrize("number", [1, 2])
def test_each_child_is_rekeyed_by_itself(number: int) -> None:
    network = several()
    network.start()
    settled(network)
    pair = only(network[number])
    assert pair.current is not None
    link, worn = pair.current.ike_sa, pair.current.children["overlay/1"]
    others = {label: child for label, child in pair.current.children.items() if label != "overlay/1"}
    assert worn.spi_out is not None
    network[number].alive.rekey(worn.remote, worn.spi_out, network.now)
    network[number].flush()
    settled(network)
    assert pair.current.ike_sa == link
    assert {label: pair.current.children[label] for label in others} == others
    assert pair.current.children["overlay/1"] is not worn
    assert network.flow.lost == 0


@pytest.mark.parametrize("first", [1, 2])
def test_a_tunnel_that_comes_later_gets_its_children_on_the_ike_sa_that_there_is(first: int) -> None:
    network = several()
    later, network.tunnels = network.tunnels, ()
    network.start()
    settled(network)
    links = [only(party).links.keys() for party in network.parties]
    before = network.spis(network[1])
    network.tunnels = later
    network[first].want(network.members)
    network.run(5.0)
    assert not network.connected(), "the other end does not know of it yet"
    assert only(network[first]).is_well(TUNNEL)
    network[3 - first].want(network.members)
    settled(network, seconds=90.0)
    assert [only(party).links.keys() for party in network.parties] == links
    assert before <= network.spis(network[1])
    assert network.flow.lost == 0


def test_a_tunnel_that_goes_takes_its_children_and_nothing_else() -> None:
    network = several()
    network.start()
    settled(network)
    links = [only(party).links.keys() for party in network.parties]
    pods = {state.spi for state in network[1].kernel.complete_states() if state.reqid == 0x48000002}
    for party in network.parties:
        party.tunnels = ()
    network[1].want(network.members)
    network.run(3.0)
    network[2].want(network.members)
    network.run(60.0)
    assert network.disagreements() == []
    assert network.spis(network[1]) == pods
    assert [only(party).links.keys() for party in network.parties] == links
    assert network.flow.lost <= len(LABELS) - 1, "what was under way to a child that one end had removed"


def test_what_one_end_alone_wants_is_refused_and_named_and_nothing_else_is_hurt() -> None:
    network = several()
    network[2].tunnels = (OVERLAY,)
    network.start()
    network.run(120.0)
    pair = only(network[1])
    standings = {each.tunnel: each for each in pair.tunnels()}
    assert [uid for uid, each in standings.items() if each.unwell_since is None] == [TUNNEL, "overlay"]
    failure = standings["hosts"].failure  # type: ignore[index]
    assert failure is not None
    assert failure.reason is UnwellReason.NO_PROPOSAL_CHOSEN
    assert only(network[2]).well
    assert len(pair.links) == 1
    assert network.flow.lost == 0


def test_a_peer_of_the_version_before_has_its_one_child() -> None:
    """It knows the oldest tunnel alone, and calls its child by that tunnel's UID."""
    network = several()
    network[1].tunnels = network[2].tunnels = ()
    network.start()
    settled(network)
    network[1].tunnels = None
    network[1].want(network.members)
    network.run(100.0)
    assert only(network[1]).is_well(TUNNEL)
    assert only(network[2]).well
    network[2].kill()  # its successor begins by itself, and asks for that one child
    network[2].revive()
    network.run(100.0)
    assert only(network[1]).is_well(TUNNEL)
    assert only(network[2]).well
    assert network.flow.lost == 0


def test_a_child_s_state_removed_by_hand_is_replaced() -> None:
    network = several()
    network.start()
    settled(network)
    party, pair = network[1], only(network[1])
    assert pair.current is not None
    child = pair.current.children["hosts"]
    assert child.spi_in is not None
    party.kernel.delete_state(destination=child.local, spi=child.spi_in)
    party.alive.mend(party.kernel.dump_states(), network.now)
    party.flush()
    settled(network, seconds=90.0)


def test_a_child_whose_phase_has_no_sas_yet_is_not_asked_for() -> None:
    network = several()
    network.tunnels = (tunnel("overlay", traffic=VXLAN, phase=Phase.ACCEPT), HOSTS)
    (spec,) = pair_specs(network[1].roster([1, 2]), network[1].reqid, port=500).values()
    assert [child.label for child in spec.children] == [TUNNEL, "hosts", "hosts/1"]


def test_the_oldest_tunnel_says_how_the_pair_agrees_on_keys() -> None:
    network = several()
    network.dpd_seconds = 77
    network.rekey_seconds = 4000
    network.tunnels = (OVERLAY.model_copy(update={"phase": Phase.BLOCK}), tunnel("hosts", traffic=HOST, dpd_seconds=5))
    (spec,) = pair_specs(network[1].roster([1, 2]), network[1].reqid, port=500).values()
    assert spec.config.dpd_seconds == 77
    assert spec.config.rekey_seconds == 14_400
    assert [child.config.rekey_seconds for child in spec.children] == [4000, *[3600] * (len(spec.children) - 1)]
    assert spec.children[0].hard_seconds == 4000 + 86_400


def test_a_kernel_that_refuses_is_asked_again_for_all() -> None:
    network = several()
    network[1].kernel.refuse = XfrmError("add state", "", errno.ENOMEM)
    network.start()
    network.run(10.0)
    assert not only(network[1]).well
    network[1].kernel.refuse = None
    network.run_until(network.connected, limit=60.0)
    settled(network, seconds=90.0)


def test_a_silent_peer_keeps_all_its_sas() -> None:
    network = several()
    network.start()
    settled(network)
    before = network.spis(network[1])
    network[2].listens = False
    network.run(120.0)
    assert network.spis(network[1]) == before
    assert network.flow.lost == 0
    network[2].listens = True
    network.run_until(network.connected, limit=60.0)
    settled(network, seconds=120.0)
