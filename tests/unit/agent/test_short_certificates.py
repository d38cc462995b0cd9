"""Certificates of a minute under sessions: every IKE SA is replaced before a certificate behind it ends."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hauberk_agent.times import Times
from hauberk_api.names import NodeUid, node_identity
from hauberk_ike import Credentials, Identity, IpAddress
from hauberk_xfrm import Spi
from tests.unit.agent.fake_kernel import FakeKernel
from tests.unit.agent.network import Network, Party, authority

LIFE = 60.0


class ShortLived(Network):
    """Each node renews its certificate in the last third of its life."""

    def __init__(self, size: int, *, seed: int) -> None:
        super().__init__(size, seed=seed)
        self.signed: dict[int, list[float]] = {party.number: [] for party in self.parties}
        self.renew_at: dict[int, float] = {}
        self.start(apply=False)
        for party in self.parties:
            self.certify(party)
        for party in self.parties:
            party.want(self.members)
        self.run_until(self.connected, limit=5.0)

    def certify(self, party: Party) -> None:
        """Gives a node a new certificate, and its sessions the time that is left of the old one."""
        identity, now = node_identity(NodeUid(f"uid-{party.number}")), self.wall_clock()
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = authority().certify(
            key.public_key(),
            identity,
            not_before=now - timedelta(seconds=LIFE / 2),
            not_after=now + timedelta(seconds=LIFE),
        )
        mine = Credentials(
            identity=Identity.fqdn(identity),
            private_key=key,
            certificate_chain=(leaf,),
            roots=(authority().certificate,),
        )
        history = self.signed[party.number]
        renewed = bool(history)
        left = history[-1] + LIFE - self.now if history else 0.0
        party.alive.set_credentials(mine, self.now, renewed=renewed, left_seconds=left)
        party.flush()
        history.append(self.now)
        self.renew_at[party.number] = self.now + LIFE * self.chance.uniform(2 / 3, 3 / 4)

    def live(self, seconds: float) -> None:
        """Lets time pass, and certificates be renewed."""
        end = self.now + seconds
        while self.now < end:
            self.run(0.5)
            for party in self.parties:
                if self.now >= self.renew_at[party.number]:
                    self.certify(party)
            assert self.outlived() == []

    def outlived(self) -> list[str]:
        """The IKE SAs in use that a certificate has authenticated that is over by now."""
        numbers = {party.name: party.number for party in self.parties}
        faults: list[str] = []
        for party in self.parties:
            for pair in party.alive.pairs:
                assert pair.current is not None
                assert pair.current.up_at is not None
                for number in (party.number, numbers[pair.name]):
                    began = max(at for at in self.signed[number] if at <= pair.current.up_at)
                    if began + LIFE <= self.now:
                        faults.append(f"{party.name}: {pair.name} by a certificate of n{number} that has ended")
        return faults


@pytest.mark.parametrize("seed", range(3))
def test_pitfall_25_no_sa_outlives_its_certificates_and_no_packet_is_lost(seed: int) -> None:
    network = ShortLived(3, seed=seed)
    network.flow.lost = network.flow.sent = 0
    network.live(600.0)
    assert all(len(history) > 12 for history in network.signed.values())
    assert network.flow.lost == 0
    assert network.flow.sent > 30_000


def test_pitfall_19_an_outbound_sa_goes_only_when_its_successor_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two requests to the kernel an agent may be held up for long, and its pods go on sending."""
    network = ShortLived(3, seed=5)
    gaps: list[str] = []
    removed = 0

    def delete_state(kernel: FakeKernel, *, destination: IpAddress, spi: Spi, missing_ok: bool = True) -> None:
        nonlocal removed
        outbound = kernel.outbound(destination)
        remove(kernel, destination=destination, spi=spi, missing_ok=missing_ok)
        if outbound is not None:
            removed += 1
            if kernel.outbound(destination) is None:
                gaps.append(f"{network.now}: nothing to send by to {destination}")

    remove = FakeKernel.delete_state
    monkeypatch.setattr(FakeKernel, "delete_state", delete_state)
    network.live(300.0)
    assert removed > 20
    assert gaps == []


def test_a_peer_that_does_not_answer_for_a_while_is_asked_again_in_time() -> None:
    """Its agent is restarted in the very seconds in which others bring it their new certificates."""
    network = ShortLived(2, seed=4)
    network.live(60.0)
    for _ in range(4):
        network[2].listens = False
        network.live(4.0)
        network[2].listens = True
        network.live(41.0)
    assert network.flow.lost == 0


def test_a_peer_that_brings_no_new_certificate_is_let_go_in_the_end_though_it_rekeys() -> None:
    network = ShortLived(2, seed=5)
    network.times = Times(expired=600.0)
    network[1].reboot()
    network[1].start()
    network.certify(network[1])
    network.rekey_seconds = 30
    for party in network.parties:
        party.want(network.members)
    network.run(30.0)
    network.flow.lost = network.flow.sent = 0
    for _ in range(16):
        network.run(LIFE / 2)
        network.certify(network[1])
    # An operator that is lost for a while stops nothing: n2's certificate ended minutes ago, and keys are still fresh.
    (pair,) = network[1].alive.pairs
    assert pair.well
    assert network.flow.lost == 0
    assert network[1].alive.rekeyed_children + network[2].alive.rekeyed_children > 8
    for _ in range(10):
        network.run(LIFE / 2)
        network.certify(network[1])
    assert not pair.well
    assert network.spis(network[1]) == set()
