"""What `--install` puts into the kernel, and that nothing of it stays."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_network
from random import Random
from typing import Any

import pytest

from hauberk_diagnose.claims import REQIDS, claim
from hauberk_diagnose.cleanup import Removed, remove_leftovers
from hauberk_diagnose.installation import LINGER_SECONDS, OUTBOUND_WAIT_SECONDS, PRIORITY, KernelInstallation
from hauberk_ike import (
    ChildConfig,
    ChildSaUp,
    EspKey,
    EspProposal,
    Identity,
    IkeProposal,
    IkeSaId,
    IpAddress,
    Mode,
    PeerConfig,
    UdpEncapsulation,
)
from hauberk_xfrm import (
    Action,
    Aead,
    Direction,
    Events,
    Expiry,
    Lifetime,
    Policy,
    PolicyExists,
    ReqId,
    Selector,
    Spi,
    State,
    UdpPorts,
)
from hauberk_xfrm import Mode as KernelMode
from hauberk_xfrm.wear import Wear
from tests.unit.agent.fake_kernel import FakeKernel
from tests.unit.ike.party import address, child

PEER = PeerConfig(
    name="peer",
    identity=Identity.fqdn("right"),
    local=address("10.0.0.1"),
    remote=address("10.0.0.2"),
    ike_proposals=(IkeProposal.parse("aes128gcm16-prfsha256-x25519"),),
    children=(child(),),
)

AEAD = Aead(name="rfc4106(gcm(aes))", key=bytes(20), icv_bits=128)


class Claims:
    """Request ids as the runs in one network namespace claim them."""

    def __init__(self) -> None:
        self.held: set[int] = set()

    def claim(self, reqid: int) -> Held | None:
        if reqid in self.held:
            return None
        self.held.add(reqid)
        return Held(self, reqid)


class Held:
    def __init__(self, claims: Claims, reqid: int) -> None:
        self._claims, self._reqid = claims, reqid

    def close(self) -> None:
        self._claims.held.discard(self._reqid)


def installation(kernel: FakeKernel, claims: Claims | None = None, **options: Any) -> KernelInstallation:
    return KernelInstallation(kernel, directions=True, claim=(claims or Claims()).claim, **options)


def agreed(
    spi_in: int,
    config: ChildConfig = PEER.children[0],
    *,
    spi_out: int = 0xCAFE,
    handle: int = 1,
    rekeyed: int | None = None,
    initiator: bool = True,
    redundant: bool = False,
    encapsulation: UdpEncapsulation | None = None,
) -> ChildSaUp:
    key = EspKey(encryption="rfc4106(gcm(aes))", key=bytes(20), icv_bits=128, esn=True)
    return ChildSaUp(
        ike_sa=IkeSaId(handle),
        peer=PEER,
        label=config.label,
        spi_in=spi_in,
        spi_out=spi_out,
        keys_in=key,
        keys_out=key,
        proposal=EspProposal.parse("aes128gcm16-esn"),
        mode=config.mode,
        ts_local=config.ts_local,
        ts_remote=config.ts_remote,
        initiator=initiator,
        rekeyed_spi_in=rekeyed,
        redundant=redundant,
        local=PEER.local.host,
        remote=PEER.remote.host,
        encapsulation=encapsulation,
    )


def directions(kernel: FakeKernel) -> list[Direction]:
    return [policy.direction for policy in kernel.policies.values()]


def test_a_tunnel_is_two_states_and_three_policies_of_one_reqid() -> None:
    kernel = FakeKernel()
    ours = installation(kernel)

    ours.up(agreed(ours.allocate(PEER.children[0], PEER)), now=0.0)

    assert [(str(s.source), str(s.destination), s.mode) for s in kernel.complete_states()] == [
        ("10.0.0.2", "10.0.0.1", KernelMode.TUNNEL),
        ("10.0.0.1", "10.0.0.2", KernelMode.TUNNEL),
    ]
    assert directions(kernel) == [Direction.IN, Direction.FWD, Direction.OUT]
    reqids = {policy.templates[0].reqid for policy in kernel.policies.values()}
    assert reqids == {state.reqid for state in kernel.complete_states()}
    assert reqids <= set(REQIDS)


def test_transport_mode_forwards_nothing() -> None:
    kernel = FakeKernel()
    ours = installation(kernel)
    config = child(mode=Mode.TRANSPORT, local="10.0.0.1/32", remote="10.0.0.2/32")

    ours.up(agreed(ours.allocate(config, PEER), config), now=0.0)

    assert directions(kernel) == [Direction.IN, Direction.OUT]
    assert {state.mode for state in kernel.complete_states()} == {KernelMode.TRANSPORT}


def test_the_end_of_a_child_removes_what_it_had() -> None:
    kernel = FakeKernel()
    ours = installation(kernel)
    spi = ours.allocate(PEER.children[0], PEER)
    ours.up(agreed(spi), now=0.0)

    ours.down(spi, now=1.0)

    assert not kernel.states
    assert not kernel.policies


def test_policies_stay_as_long_as_a_second_child_wants_them() -> None:
    kernel = FakeKernel()
    ours = installation(kernel)
    first, second = (ours.allocate(PEER.children[0], PEER) for _ in range(2))
    ours.up(agreed(first, spi_out=1), now=0.0)
    ours.up(agreed(second, spi_out=2), now=0.0)

    ours.down(first, now=1.0)
    assert len(kernel.policies) == 3
    ours.down(second, now=2.0)
    assert not kernel.policies


def test_somebody_elses_policy_is_left_alone() -> None:
    kernel = FakeKernel()
    ours = installation(kernel)
    spi = ours.allocate(PEER.children[0], PEER)
    other = installation(FakeKernel())
    other.up(agreed(other.allocate(PEER.children[0], PEER)), now=0.0)
    selector = next(p for p in kernel_policies(other) if p.direction is Direction.IN).selector
    foreign = Policy(selector=selector, direction=Direction.IN, priority=1, action=Action.ALLOW)
    kernel.add_policy(foreign)

    with pytest.raises(PolicyExists):
        ours.up(agreed(spi), now=0.0)
    ours.remove_everything()

    assert list(kernel.policies.values()) == [foreign]
    assert not kernel.states


def kernel_policies(other: KernelInstallation) -> list[Policy]:
    """What that installation put into its kernel."""
    kernel = other._kernel  # pyright: ignore[reportPrivateUsage]
    assert isinstance(kernel, FakeKernel)
    return kernel.dump_policies()


def test_an_spi_that_is_not_needed_is_given_back() -> None:
    kernel = FakeKernel()
    ours = installation(kernel)
    spi = ours.allocate(PEER.children[0], PEER)
    ours.release(spi, PEER)
    assert not kernel.states


def test_a_forgotten_ike_sa_takes_its_children_along_and_no_others() -> None:
    kernel = FakeKernel()
    ours = installation(kernel)
    ours.up(agreed(ours.allocate(PEER.children[0], PEER), spi_out=1, handle=1), now=0.0)
    ours.up(agreed(ours.allocate(PEER.children[0], PEER), spi_out=2, handle=2), now=0.0)

    ours.drop(IkeSaId(1), now=1.0)

    assert sorted(state.spi for state in kernel.states.values() if str(state.destination) == "10.0.0.2") == [2]
    assert len(kernel.policies) == 3


def test_the_end_of_the_run_leaves_nothing() -> None:
    kernel = FakeKernel()
    ours = installation(kernel)
    ours.up(agreed(ours.allocate(PEER.children[0], PEER)), now=0.0)
    ours.allocate(PEER.children[0], PEER)  # a larval state, for an exchange that never ended

    ours.remove_everything()

    assert not kernel.states
    assert not kernel.policies


def test_another_run_on_the_same_kernel_uses_other_reqids() -> None:
    kernel = FakeKernel()
    first = installation(kernel)
    first.up(agreed(first.allocate(PEER.children[0], PEER)), now=0.0)
    in_use = {state.reqid for state in kernel.dump_states()}

    second = installation(kernel, reqids_in_use=in_use)
    spi = second.allocate(PEER.children[0], PEER)

    assert next(state.reqid for state in kernel.dump_states() if state.spi == spi) not in in_use


def test_two_runs_that_begin_at_once_use_different_reqids() -> None:
    kernel, claims = FakeKernel(), Claims()
    first, second = installation(kernel, claims), installation(kernel, claims)  # neither sees any state
    spis = [run.allocate(PEER.children[0], PEER) for run in (first, second)]
    assert len({state.reqid for state in kernel.dump_states() if state.spi in spis}) == 2
    first.remove_everything()
    second.remove_everything()
    assert not claims.held


# What an SA may carry


def test_what_a_child_may_carry_is_its_outbound_states_soft_limit() -> None:
    kernel = FakeKernel()
    ours = installation(kernel, wear={("peer", "tunnel-1"): Wear(bytes=1000, packets=100)}, chance=Random(1))
    spi = ours.allocate(PEER.children[0], PEER)
    ours.up(agreed(spi, spi_out=0x1000), now=0.0)
    inbound, out = (state.lifetime for state in kernel.complete_states())
    assert inbound == Lifetime()
    assert out.soft_bytes is not None
    assert out.soft_packets is not None
    assert 850 <= out.soft_bytes <= 950
    assert 85 <= out.soft_packets <= 95


def expired(destination: IpAddress, spi: int, *, hard: bool = False) -> Events:
    """The kernel's word for it."""
    expiry = Expiry(destination=destination, spi=Spi(spi), reqid=ReqId(REQIDS.start), hard=hard)
    return Events(told=(expiry,))


def test_whose_a_worn_state_is() -> None:
    kernel = FakeKernel()
    ours = installation(kernel, wear={("peer", "tunnel-1"): Wear(packets=2)})
    spi = ours.allocate(PEER.children[0], PEER)
    ours.up(agreed(spi, spi_out=0x1000, handle=7), now=0.0)
    assert ours.worn(expired(PEER.remote.host, 0x1000)) == [(IkeSaId(7), spi)]
    assert ours.worn(expired(PEER.remote.host, 0x1000, hard=True)) == []
    assert ours.worn(expired(PEER.remote.host, 0x2000)) == [], "somebody else's"
    assert ours.worn(expired(PEER.local.host, spi)) == [], "its sender rekeys it"


def test_what_the_kernel_could_not_say_its_counters_show() -> None:
    kernel = FakeKernel()
    ours = installation(kernel, wear={("peer", "tunnel-1"): Wear(packets=4)})
    spis = [ours.allocate(PEER.children[0], PEER) for _ in range(2)]
    for number, spi in enumerate(spis):
        ours.up(agreed(spi, spi_out=0x1000 + number), now=0.0)
    for _ in range(4):
        kernel.take(PEER.remote.host, Spi(0x1001))
    assert ours.worn(Events(missed=True)) == [(IkeSaId(1), spis[1])]
    assert ours.worn(Events()) == []


# What a killed run leaves


def test_what_a_killed_run_has_left_is_removed_and_nothing_else() -> None:
    kernel, claims = FakeKernel(), Claims()
    killed, alive = installation(kernel, claims), installation(kernel, claims)
    config = child("other", local="10.8.0.0/16", remote="10.9.0.0/16")
    killed.up(agreed(killed.allocate(PEER.children[0], PEER), spi_out=1), now=0.0)
    killed.allocate(PEER.children[0], PEER)  # a larval state
    dead = set(claims.held)
    alive.up(agreed(alive.allocate(config, PEER), config, spi_out=2), now=0.0)
    kernel.add_state(State(source=PEER.local.host, destination=PEER.remote.host, spi=Spi(3), reqid=ReqId(1), aead=AEAD))
    selector = Selector(source=ip_network("10.6.0.0/16"), destination=ip_network("10.7.0.0/16"))
    foreign = Policy(selector=selector, direction=Direction.OUT, priority=PRIORITY, action=Action.BLOCK)
    kernel.add_policy(foreign)  # of the same priority, but tied to no request id
    claims.held -= dead  # SIGKILL

    assert remove_leftovers(kernel, claims.claim) == Removed(states=3, policies=3, in_use=1)

    assert {int(state.spi) for state in kernel.complete_states()} >= {2, 3}
    assert len(kernel.states) == 3
    assert len(kernel.policies) == 4
    assert claims.held, "what lives keeps its claim"
    assert not claims.held & dead, "and what was claimed to clean up is free again"
    assert remove_leftovers(kernel, claims.claim) == Removed(in_use=1)
    alive.remove_everything()
    assert list(kernel.policies.values()) == [foreign]
    assert [state.spi for state in kernel.complete_states()] == [3]


def test_a_claim_is_had_once_and_free_again_when_its_holder_is_killed() -> None:
    reqid = REQIDS[-1]
    first = claim(reqid)
    assert first is not None
    assert claim(reqid) is None
    program = (
        "import sys; from hauberk_diagnose.claims import claim; held = claim(int(sys.argv[1]));"
        " print(held is None, flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(reqid - 1)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "False\n"
    assert claim(reqid - 1) is None, "another process has it"
    other.kill()
    other.communicate()
    again = claim(reqid - 1)
    assert again is not None
    for each in (first, again):
        each.close()


# Rekeys


def outbound(kernel: FakeKernel) -> int | None:
    """The SPI that packets to the peer leave with."""
    state = kernel.outbound(PEER.remote.host)
    return state.spi if state is not None else None


def takes(kernel: FakeKernel, spi: int) -> bool:
    return kernel.take(PEER.local.host, Spi(spi))


def with_old_child(kernel: FakeKernel) -> tuple[KernelInstallation, int]:
    ours = installation(kernel)
    old = ours.allocate(PEER.children[0], PEER)
    ours.up(agreed(old, spi_out=0x1000), now=0.0)
    return ours, old


def test_who_asked_for_a_rekey_sends_on_the_new_child_at_once() -> None:
    kernel = FakeKernel()
    ours, old = with_old_child(kernel)
    new = ours.allocate(PEER.children[0], PEER)

    ours.up(agreed(new, spi_out=0x2000, rekeyed=old), now=0.0)

    assert outbound(kernel) == 0x2000
    assert takes(kernel, old)
    assert takes(kernel, new)
    assert len(kernel.policies) == 3, "the policies are the same, and stay"


def test_who_answers_a_rekey_sends_on_the_new_child_when_the_old_is_deleted() -> None:
    kernel = FakeKernel()
    ours, old = with_old_child(kernel)
    new = ours.allocate(PEER.children[0], PEER)

    ours.up(agreed(new, spi_out=0x2000, rekeyed=old, initiator=False), now=0.0)
    assert outbound(kernel) == 0x1000, "the peer has no answer yet"
    assert takes(kernel, new), "but may send once it has"
    ours.down(old, now=1.0)

    assert outbound(kernel) == 0x2000
    assert takes(kernel, old), "what is under way is still taken"
    assert ours.next_due(1.0) == 1.0 + LINGER_SECONDS
    ours.handle_timer(1.0 + LINGER_SECONDS)
    assert not takes(kernel, old)


def test_who_answers_a_rekey_sends_on_the_new_child_when_its_peer_does() -> None:
    kernel = FakeKernel()
    ours, old = with_old_child(kernel)
    new = ours.allocate(PEER.children[0], PEER)
    ours.up(agreed(new, spi_out=0x2000, rekeyed=old, initiator=False), now=0.0)

    assert ours.next_due(1.0) is not None, "it looks, as the kernel does not tell"
    ours.handle_timer(1.2)
    assert outbound(kernel) == 0x1000
    takes(kernel, new)
    ours.handle_timer(1.4)

    assert outbound(kernel) == 0x2000
    assert ours.next_due(1.4) is None


def test_who_answers_a_reauthentication_sends_on_the_new_child_when_the_old_ike_sa_is_deleted() -> None:
    kernel = FakeKernel()
    ours, old = with_old_child(kernel)
    new = ours.allocate(PEER.children[0], PEER)

    ours.up(agreed(new, spi_out=0x2000, handle=2, initiator=False), now=0.0)
    assert outbound(kernel) == 0x1000, "the peer has no answer yet"
    assert takes(kernel, new), "but may send once it has"
    ours.drop(IkeSaId(1), now=1.0)

    assert outbound(kernel) == 0x2000
    assert takes(kernel, old), "what is under way is still taken"
    ours.handle_timer(1.0 + LINGER_SECONDS)
    assert not takes(kernel, old)


def test_a_peer_that_sets_a_child_up_anew_and_says_no_more_has_perhaps_lost_the_old_one() -> None:
    kernel = FakeKernel()
    ours, _ = with_old_child(kernel)
    new = ours.allocate(PEER.children[0], PEER)

    ours.up(agreed(new, spi_out=0x2000, handle=2, initiator=False), now=1.0)
    ours.handle_timer(1.0 + OUTBOUND_WAIT_SECONDS - 0.1)
    assert outbound(kernel) == 0x1000
    ours.handle_timer(1.0 + OUTBOUND_WAIT_SECONDS)

    assert outbound(kernel) == 0x2000


def test_the_children_of_an_ike_sa_that_ends_in_the_middle_of_a_rekey_go_at_once() -> None:
    kernel = FakeKernel()
    ours, old = with_old_child(kernel)
    new = ours.allocate(PEER.children[0], PEER)
    ours.up(agreed(new, spi_out=0x2000, rekeyed=old, initiator=False), now=0.0)

    ours.drop(IkeSaId(1), now=1.0)

    assert not kernel.states


def test_a_redundant_child_is_taken_from_and_never_sent_on() -> None:
    kernel = FakeKernel()
    ours, old = with_old_child(kernel)
    loser, winner = (ours.allocate(PEER.children[0], PEER) for _ in range(2))

    ours.up(agreed(winner, spi_out=0x2000, rekeyed=old), now=0.0)
    ours.up(agreed(loser, spi_out=0x3000, rekeyed=old, initiator=False, redundant=True), now=0.0)
    ours.down(old, now=1.0)

    assert outbound(kernel) == 0x2000
    assert takes(kernel, loser)
    ours.down(loser, now=2.0)
    assert not takes(kernel, loser)
    assert takes(kernel, winner)


def test_children_follow_their_ike_sa_through_its_rekey() -> None:
    kernel = FakeKernel()
    ours, old = with_old_child(kernel)
    ours.hand_over(IkeSaId(1), IkeSaId(7))
    ours.drop(IkeSaId(1), now=1.0)
    assert takes(kernel, old)
    ours.drop(IkeSaId(7), now=1.0)
    assert not kernel.states


def test_esp_in_udp_has_its_ports_turned_for_each_direction() -> None:
    kernel = FakeKernel()
    ours = installation(kernel)
    spi = ours.allocate(PEER.children[0], PEER)
    ours.up(agreed(spi, encapsulation=UdpEncapsulation(local_port=4500, remote_port=61000)), now=0.0)
    inbound, out = kernel.complete_states()
    assert inbound.encapsulation == UdpPorts(source=61000, destination=4500)
    assert out.encapsulation == UdpPorts(source=4500, destination=61000)
