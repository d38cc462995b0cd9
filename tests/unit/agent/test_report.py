"""What an agent reports, and how seldom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hauberk_agent.identity import Identity
from hauberk_agent.pair import Failure, Pair
from hauberk_agent.pairing import pair_specs
from hauberk_agent.report import (
    HOLD_BACK_SECONDS,
    MINIMUM_INTERVAL_SECONDS,
    TALLY_INTERVAL_SECONDS,
    Facts,
    Pacer,
    Readiness,
    carried_out,
    compose,
)
from hauberk_agent.roster import Roster
from hauberk_api.plan import Phase
from hauberk_api.report import MAX_UNWELL, EncapsulatedPeer, EncapsulationReason, ReportStatus, UnwellReason
from hauberk_xfrm import ReqId
from tests.unit.agent.fake_kernel import ABLE
from tests.unit.agent.mesh import TUNNEL, node, plan, roster, tunnel
from tests.unit.ike.authority import Authority

AUTHORITY = Authority()
KEY, CERTIFICATE = AUTHORITY.issue("uid-1.default.hauberk.internal", "n1")


def mesh(size: int = 3) -> Roster:
    return roster("n1", plan(tunnel()), **{f"n{number}": node(number) for number in range(1, size + 1)})


def pairs(found: Roster, *, unwell_since: float | None = None) -> list[Pair]:
    specs = pair_specs(found, lambda key: ReqId(0x48000000 + int(key.peer.removeprefix("uid-"))), port=500)
    found_pairs = [Pair(spec=spec, wanted_since=0.0, fresh=True) for spec in specs.values()]
    for pair in found_pairs:
        set_unwell(pair, unwell_since)
    return found_pairs


def set_unwell(pair: Pair, since: float | None) -> None:
    for standing in pair.standings.values():
        standing.unwell_since = since


def facts(found: Roster) -> Facts:
    return Facts(
        version="1",
        plan_generation=4,
        roster=found,
        abilities=ABLE,
        identity=Identity(key=KEY, chain=(CERTIFICATE,)),
        identity_problem=None,
        roots=(AUTHORITY.certificate,),
        problems=(),
        state_left=True,
        phases={TUNNEL: Phase.BLOCK},
    )


def composed(found: Roster, members: list[Pair], now: float = 0.0, readiness: Readiness | None = None) -> ReportStatus:
    return compose(facts(found), (readiness or Readiness()).assess(found, members, now, complete=True))


def test_a_node_whose_pairs_are_all_up_is_ready() -> None:
    found = mesh()
    report = composed(found, pairs(found))
    assert report.ready
    assert (report.reason, report.unwell, report.unwell_count) == ("AsWanted", (), 0)
    assert [(t.tunnel, t.generation, t.ready) for t in report.tunnels] == [(TUNNEL, 1, True)]
    assert report.plan_generation == 4
    assert report.certificate is not None
    assert report.certificate.issuer_fingerprint == report.bundle[0]


def test_a_wrong_clock_is_said_and_goes_with_what_it_may_be_the_reason_for() -> None:
    found = mesh()
    behind = "this node's clock is 7 minutes behind the API server's"
    wrong = replace(facts(found), clock_problem=behind)
    well = Readiness().assess(found, pairs(found), 0.0, complete=True)
    report = compose(wrong, well)
    assert (report.reason, report.message, report.ready) == ("ClockSkew", behind, True)
    report = compose(replace(wrong, identity=None, identity_problem="not signed"), well)
    assert (report.reason, report.message) == ("NoIdentity", f"{behind}; not signed")
    members = pairs(found, unwell_since=0.0)
    for pair in members:
        pair.failure = Failure(reason=UnwellReason.AUTHENTICATION_FAILED, message="expired")
    report = compose(wrong, Readiness().assess(found, members, 100.0, complete=True))
    assert report.reason == "AuthenticationFailed"
    assert report.message.startswith(f"{behind}; ")
    for pair in members:
        pair.failure = Failure(reason=UnwellReason.UNREACHABLE, message="no answer")
    report = compose(wrong, Readiness().assess(found, members, 100.0, complete=True))
    assert behind not in report.message, "a clock makes nobody unreachable"


def test_a_tunnel_that_was_never_ready_names_every_pair_at_once() -> None:
    found = mesh()
    report = composed(found, pairs(found, unwell_since=0.0))
    assert not report.ready
    assert report.reason == "Establishing"
    assert [(peer.node, peer.reason) for peer in report.unwell] == [
        ("n2", UnwellReason.ESTABLISHING),
        ("n3", UnwellReason.ESTABLISHING),
    ]


def test_a_tunnel_that_was_ready_holds_a_pair_back_for_half_a_minute() -> None:
    found, readiness = mesh(), Readiness()
    members = pairs(found)
    assert composed(found, members, 0.0, readiness).ready
    set_unwell(members[0], 10.0)
    members[0].failure = Failure(reason=UnwellReason.UNREACHABLE, message="no answer")
    assert composed(found, members, 10.0 + HOLD_BACK_SECONDS - 1, readiness).ready
    late = composed(found, members, 10.0 + HOLD_BACK_SECONDS, readiness)
    assert not late.ready
    assert (late.reason, late.message) == ("Unreachable", "n2: no answer")
    set_unwell(members[0], None)
    assert composed(found, members, 100.0, readiness).ready


def test_a_roster_that_still_grows_is_not_ready() -> None:
    found = mesh()
    health = Readiness().assess(found, pairs(found), 0.0, complete=False)
    assert not compose(facts(found), health).ready


def test_a_tunnel_in_accept_wants_no_pairs_and_vouches_for_none_later() -> None:
    early = roster("n1", plan(tunnel(phase=Phase.ACCEPT)), n1=node(1), n2=node(2))
    readiness = Readiness()
    assert readiness.assess(early, [], 0.0, complete=True).ready == {TUNNEL: True}
    assert readiness.assess(early, [], 0.0, complete=False).ready == {TUNNEL: False}
    # -> the next phase: its pairs are named at once, not held back as those of a tunnel that was ready
    found = mesh(2)
    later = readiness.assess(found, pairs(found, unwell_since=1.0), 1.0, complete=True)
    assert later.ready == {TUNNEL: False}
    assert [each.node for each in later.unwell] == ["n2"]


@pytest.mark.parametrize("phase", list(Phase))
def test_protect_is_carried_out_when_all_pairs_with_sas_are_sent_to(phase: Phase) -> None:
    found = roster("n1", plan(tunnel(phase=phase)), n1=node(1), n2=node(2))
    assert carried_out(found, awaits=()) == {TUNNEL: phase}
    assert carried_out(found, awaits={TUNNEL}) == {TUNNEL: Phase.ESTABLISH if phase is Phase.PROTECT else phase}


def test_a_report_says_which_phase_was_carried_out_and_what_passed_in_clear() -> None:
    found = mesh()
    health = Readiness().assess(found, pairs(found), 0.0, complete=True)
    report = compose(replace(facts(found), phases={TUNNEL: Phase.PROTECT}, clear_packets=64), health)
    assert [line.phase for line in report.tunnels] == [Phase.PROTECT]
    assert report.clear_packets == 64


def test_the_operator_hears_at_once_of_a_phase_and_of_a_pair_tried_in_vain() -> None:
    found, pacer = mesh(2), Pacer()
    members = pairs(found, unwell_since=0.0)
    establishing = replace(facts(found), phases={TUNNEL: Phase.ESTABLISH})
    trying = compose(establishing, Readiness().assess(found, members, 0.0, complete=True))
    pacer.due_at(trying, 0.0)
    pacer.wrote(trying, 2.0)
    assert pacer.due_at(trying, 4.0) is None
    members[0].failure = Failure(reason=UnwellReason.UNREACHABLE, message="no answer")
    tried = compose(establishing, Readiness().assess(found, members, 0.0, complete=True))
    assert pacer.due_at(tried, 33.0) == 33.0
    pacer.wrote(tried, 33.0)
    protected = tried.model_copy(update={"tunnels": (tried.tunnels[0].model_copy(update={"phase": Phase.PROTECT}),)})
    assert pacer.due_at(protected, 34.0) == 34.0


def test_only_the_worst_are_named_and_all_are_counted() -> None:
    found = mesh(40)
    members = pairs(found, unwell_since=0.0)
    members[30].failure = Failure(reason=UnwellReason.AUTHENTICATION_FAILED, message="no")
    report = composed(found, members)
    assert len(report.unwell) == MAX_UNWELL
    assert report.unwell_count == 39
    assert report.unwell[0].reason is UnwellReason.AUTHENTICATION_FAILED


def test_a_kernel_without_esp_is_said_first() -> None:
    found = mesh()
    lacking = replace(ABLE, esp4=False, problems=("the kernel has no ESP",))
    report = compose(
        replace(facts(found), abilities=lacking), Readiness().assess(found, pairs(found), 0.0, complete=True)
    )
    assert not report.ready
    assert not report.kernel.esp
    assert (report.reason, report.message) == ("UnsupportedKernel", "the kernel has no ESP")
    assert not any(t.ready for t in report.tunnels)


def test_without_identity_or_with_refused_policies_nothing_is_ready() -> None:
    found = mesh()
    health = Readiness().assess(found, pairs(found), 0.0, complete=True)
    anonymous = compose(replace(facts(found), identity=None, identity_problem="denied"), health)
    assert (anonymous.ready, anonymous.reason, anonymous.message) == (False, "NoIdentity", "denied")
    refused = compose(replace(facts(found), problems=("a slot is taken",)), health)
    assert (refused.ready, refused.reason) == (False, "KernelRefused")


def test_readiness_is_written_at_once_and_the_rest_once_a_minute() -> None:
    found, pacer = mesh(), Pacer()
    ready = composed(found, pairs(found))
    assert pacer.due_at(ready, 0.0) == 0.0
    pacer.wrote(ready, 0.0)
    assert pacer.due_at(ready, 5.0) is None
    worded = ready.model_copy(update={"message": "something else"})
    assert pacer.due_at(worded, 5.0) == MINIMUM_INTERVAL_SECONDS
    left = ready.model_copy(update={"state_left": False})
    assert pacer.due_at(left, 5.0) == 5.0


def test_pairs_that_come_up_on_demand_make_nobody_write_for_minutes() -> None:
    found, pacer = mesh(), Pacer()
    report = compose(replace(facts(found), up={TUNNEL: 1}), Readiness().assess(found, pairs(found), 0.0, complete=True))
    assert report.tunnels[0].up == 1
    pacer.wrote(report, 0.0)
    more = compose(replace(facts(found), up={TUNNEL: 2}), Readiness().assess(found, pairs(found), 0.0, complete=True))
    assert pacer.due_at(more, 5.0) == TALLY_INTERVAL_SECONDS
    worded = more.model_copy(update={"message": "something else"})
    assert pacer.due_at(worded, 5.0) == MINIMUM_INTERVAL_SECONDS


def test_at_most_so_many_peers_in_udp_are_named_in_order() -> None:
    found = mesh()
    peers = tuple(EncapsulatedPeer(node=f"n{n:02}", reason=EncapsulationReason.NAT) for n in reversed(range(20)))
    report = compose(
        replace(facts(found), encapsulated=peers), Readiness().assess(found, pairs(found), 0.0, complete=True)
    )
    assert [peer.node for peer in report.encapsulated] == [f"n{n:02}" for n in range(16)]


def test_news_of_unreadiness_waits_a_moment() -> None:
    found, pacer = mesh(), Pacer()
    ready = composed(found, pairs(found))
    pacer.wrote(ready, 0.0)
    unready = composed(found, pairs(found, unwell_since=10.0))
    assert pacer.due_at(unready, 10.0) == 12.0
    assert pacer.due_at(unready, 11.0) == 12.0
    # -> up within the moment: nothing was written in between
    assert pacer.due_at(ready, 11.5) is None
    assert pacer.due_at(unready, 20.0) == 22.0


def test_a_failed_write_is_tried_ever_later() -> None:
    found, pacer = mesh(), Pacer()
    ready = composed(found, pairs(found))
    waits: list[float] = []
    for _ in range(8):
        pacer.failed(0.0)
        at = pacer.due_at(ready, 0.0)
        assert at is not None
        waits.append(at)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
