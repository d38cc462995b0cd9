"""When a peer can be sent to by its SAs, so that no packet comes before its peer can take it."""

from __future__ import annotations

from hauberk_agent.link import Child, Link
from hauberk_agent.pair import Failure, Pair
from hauberk_agent.pairing import pair_specs
from hauberk_agent.reqid import ChildKey
from hauberk_agent.sendable import ANSWER_SECONDS, SendableChildren
from hauberk_api.names import NodeUid, TunnelUid
from hauberk_api.plan import Phase
from hauberk_api.report import UnwellReason
from hauberk_ike import EspPath, IkeSaId
from hauberk_xfrm import ReqId, Spi
from tests.unit.agent.mesh import TUNNEL, node, plan, roster, tunnel
from tests.unit.agent.network import Network

UP_AT = 100.0
KEY = ChildKey(tunnel=TunnelUid(TUNNEL), peer=NodeUid("uid-2"))


def pair() -> Pair:
    found = roster("n1", plan(tunnel(phase=Phase.PROTECT)), n1=node(1), n2=node(2))
    (spec,) = pair_specs(found, lambda _: ReqId(0x48000001), port=500).values()
    return Pair(spec=spec, wanted_since=0.0, fresh=True)


def child(pair: Pair, *, outbound: bool = True, ours: bool = False) -> Child:
    peer = pair.spec.peer
    return Child(
        label=TUNNEL, reqid=pair.spec.children[0].reqid, local=peer.local, remote=peer.remote, spi_in=Spi(1),
        spi_out=Spi(2), since=UP_AT,
        outbound=outbound, ours=ours,
    )  # fmt: skip


def linked(*, ours: bool, outbound: bool = True) -> Pair:
    made = pair()
    link = Link(
        ike_sa=IkeSaId(1), ours=ours, started_at=UP_AT, config=made.spec.config, initial_contact=False, up_at=UP_AT,
        children={TUNNEL: child(made, outbound=outbound, ours=ours)},
    )  # fmt: skip
    made.links[link.ike_sa] = link
    made.current = link
    return made


class Traffic:
    """Whether packets come in."""

    def __init__(self) -> None:
        self.comes = False

    def __call__(self, pair: Pair, child: Child) -> bool:
        return self.comes


def test_a_pair_without_outbound_sa_cannot_be_sent_to() -> None:
    peers = SendableChildren(Traffic())
    for each in (pair(), linked(ours=True, outbound=False)):
        assert not peers.look([each], UP_AT + 100)
        assert not peers.awaits([each])


def test_the_initiator_sends_at_once() -> None:
    peers = SendableChildren(Traffic())
    assert peers.look([linked(ours=True)], UP_AT)
    assert peers.keys == {KEY}


def test_the_responder_sends_when_a_packet_has_come_in_or_after_a_time() -> None:
    waiting, traffic = linked(ours=False), Traffic()
    peers = SendableChildren(traffic)
    assert not peers.look([waiting], UP_AT + ANSWER_SECONDS - 0.1)
    assert peers.awaits([waiting])
    traffic.comes = True
    assert peers.look([waiting], UP_AT + ANSWER_SECONDS - 0.1)
    assert not peers.awaits([waiting])
    assert SendableChildren(Traffic()).look([waiting], UP_AT + ANSWER_SECONDS)


def test_nobody_sends_before_it_is_known_whether_esp_comes_through() -> None:
    unproved = True
    peers = SendableChildren(Traffic(), unproved=lambda _: unproved)
    found = linked(ours=True)
    assert not peers.look([found], UP_AT + 100)
    assert peers.awaits([found]), "the phase waits for it"
    unproved = False
    found.esp_path = EspPath.BLOCKED
    assert not peers.look([found], UP_AT + 100), "packets by plain ESP would be lost"
    found.esp_path = EspPath.UNKNOWN
    assert peers.look([found], UP_AT + 100)


def test_a_replacement_interrupts_nothing_and_the_loss_of_all_sas_does() -> None:
    peers = SendableChildren(Traffic())
    peers.look([linked(ours=True)], UP_AT)
    assert not peers.look([linked(ours=False)], UP_AT), "the replacement has just been answered"
    assert peers.keys == {KEY}
    assert peers.look([pair()], UP_AT)
    assert peers.keys == frozenset()


def test_sas_of_an_earlier_run_stand_in() -> None:
    found = pair()
    found.orphans = [child(found)]
    assert SendableChildren(Traffic()).look([found], UP_AT)
    found.failure = Failure(reason=UnwellReason.UNREACHABLE, message="no answer")
    assert not SendableChildren(Traffic()).look([found], UP_AT)


def test_with_real_sessions_both_ends_come_to_send() -> None:
    network = Network(2)
    network.start()
    network.run_until(network.connected, limit=10)
    for party in network.parties:
        peers = SendableChildren(party.alive.in_use)
        assert peers.look(party.alive.pairs, network.now + ANSWER_SECONDS)
        assert len(peers.keys) == 1


def test_a_tunnel_in_accept_has_no_pairs() -> None:
    found = roster("n1", plan(tunnel(phase=Phase.ACCEPT)), n1=node(1), n2=node(2))
    assert pair_specs(found, lambda _: ReqId(0x48000001), port=500) == {}
