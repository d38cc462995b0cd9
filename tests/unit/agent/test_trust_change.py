"""The roots that a mesh trusts change under its sessions: in a roll nothing is lost, and distrust is final."""

from __future__ import annotations

from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from hauberk_api.names import NodeUid, node_identity
from hauberk_ike import Credentials
from tests.unit.agent.network import Network, Party, authority
from tests.unit.ike.authority import Authority


@cache
def other() -> Authority:
    """The next root. It has the same name as the one before, as the operator's have."""
    return Authority()


def credentials(number: int, signer: Authority, *roots: Authority) -> Credentials:
    mine = signer.credentials(node_identity(NodeUid(f"uid-{number}")))
    return Credentials(
        identity=mine.identity,
        private_key=mine.private_key,
        certificate_chain=mine.certificate_chain,
        roots=tuple(root.certificate for root in roots),
    )


class RollingNetwork(Network):
    """A mesh whose nodes are told of roots and get certificates, as the operator's plan has it."""

    def __init__(self, size: int, *, seed: int = 1) -> None:
        super().__init__(size, seed=seed)
        self.own: dict[int, Credentials] = {}
        self.start()
        self.run_until(self.connected, limit=1.0)
        for party in self.parties:
            self.own[party.number] = credentials(party.number, authority(), authority())
            self.give(party, self.own[party.number], renewed=True)
        self.run(120.0)

    def give(self, party: Party, mine: Credentials, *, renewed: bool) -> None:
        self.own[party.number] = mine
        party.alive.set_credentials(mine, self.now, renewed=renewed)
        party.flush()

    def trust(self, *roots: Authority) -> None:
        """All agents read a new plan: their certificates are as before."""
        for party in self.parties:
            mine = self.own[party.number]
            certificates: tuple[x509.Certificate, ...] = tuple(root.certificate for root in roots)
            self.give(
                party,
                Credentials(
                    identity=mine.identity,
                    private_key=mine.private_key,
                    certificate_chain=mine.certificate_chain,
                    roots=certificates,
                ),
                renewed=False,
            )

    def certify(self, party: Party, signer: Authority, *roots: Authority) -> None:
        self.give(party, credentials(party.number, signer, *roots), renewed=True)

    def roots(self) -> set[str | None]:
        """By which roots the SAs in use were authenticated."""
        return {
            pair.current.root if pair.current is not None else None
            for party in self.parties
            for pair in party.alive.pairs
        }


def mark(root: Authority) -> str:
    return root.certificate.fingerprint(SHA256()).hex()


def test_a_roll_in_overlap_loses_nothing() -> None:
    network = RollingNetwork(3)
    network.flow.lost = network.flow.sent = 0
    network.trust(authority(), other())
    network.run(10.0)
    # -> one agent after the other exchanges its certificate; the others' are good meanwhile
    for party in network.parties:
        network.certify(party, other(), other(), authority())
        network.run(7.0)
    # -> the old root is dropped, though not every pair has been authenticated anew
    network.trust(other())
    network.run(90.0)
    assert network.roots() == {mark(other())}
    assert network.disagreements() == []
    assert network.flow.lost == 0
    assert network.flow.sent > 1000


def test_what_the_old_root_authenticated_is_replaced_within_seconds() -> None:
    network = RollingNetwork(2)
    network.trust(other())
    network.run(1.0)
    for party in network.parties:
        network.certify(party, other(), other())
    network.run_until(lambda: network.roots() == {mark(other())}, limit=5.0)
    network.run(60.0)
    assert network.disagreements() == []
    assert network.flow.lost == 0


@pytest.mark.parametrize("seed", range(6))
def test_a_peer_that_gets_no_new_certificate_is_cut_off(seed: int) -> None:
    """It may be whoever has stolen the old root's key."""
    network = RollingNetwork(3, seed=seed)
    network.trust(other())
    for party in (network[1], network[2]):
        network.certify(party, other(), other())
    network.run(29.0)
    assert network[1].kernel.outbound(network[3].outer) is not None, "it had half a minute"
    network.run(3.0)
    for party in (network[1], network[2]):
        assert party.kernel.outbound(network[3].outer) is None
        assert not [s for s in party.kernel.complete_states() if s.source == network[3].outer]
        assert party.kernel.outbound(network[3 - party.number].outer) is not None
    # It goes on trying, in vain.
    network.run(120.0)
    assert network[1].kernel.outbound(network[3].outer) is None
    # -> it gets a certificate of the new root, and is back without waiting for its backoff
    network.certify(network[3], other(), other())
    network.run_until(lambda: network[1].kernel.outbound(network[3].outer) is not None, limit=2.5)
    network.run(60.0)
    assert network.disagreements() == []


def test_the_roots_that_an_agent_began_with_may_be_the_ones_to_go() -> None:
    network = Network(2)
    network.start()
    network.run_until(network.connected, limit=1.0)
    for party in network.parties:
        party.alive.set_credentials(credentials(party.number, authority(), other()), network.now, renewed=False)
        party.flush()
    network.run(31.0)
    assert network[1].kernel.outbound(network[2].outer) is None
    assert network[2].kernel.outbound(network[1].outer) is None


def test_sas_of_a_peer_whose_agent_is_dead_are_cut_too() -> None:
    network = RollingNetwork(2)
    network[2].kill()
    network.run(180.0)
    (pair,) = network[1].alive.pairs
    assert pair.orphans, "its kernel goes on, and so does ours"
    network.give(network[1], credentials(1, other(), other()), renewed=True)
    network.run(31.0)
    assert network[1].kernel.complete_states() == []


def test_a_late_agent_is_refused_until_it_has_a_certificate_of_the_root_that_is_left() -> None:
    """It slept through the roll: the bundle comes first, then the certificate."""
    network = RollingNetwork(2)
    network[2].reboot()
    network.certify(network[1], other(), other())
    network.run(60.0)
    network[2].revive()
    network.run(20.0)
    assert network.spis(network[2]) == set()
    network.own[2] = credentials(2, other(), other())
    network.give(network[2], network.own[2], renewed=True)
    network.run_until(network.connected, limit=40.0)
    network.run(60.0)
    assert network.disagreements() == []


@pytest.mark.parametrize("seconds", [0.0, 5.0, 60.0])
def test_two_changes_of_trust_in_a_row_end_with_the_last(seconds: float) -> None:
    third = Authority()
    network = RollingNetwork(2)
    for signer in (other(), third):
        for party in network.parties:
            network.certify(party, signer, signer)
        network.run(seconds)
    network.run(90.0)
    assert network.roots() == {mark(third)}
    assert network.disagreements() == []
