"""A dead node is reported by a few of its peers, whatever the size of the mesh; trouble of one pair is by its ends."""

from __future__ import annotations

import random
from dataclasses import replace

from hauberk_agent.report import (
    HOLD_BACK_SECONDS,
    STEP_SECONDS_PER_NODE,
    UNREADY_SECONDS,
    Pacer,
    Readiness,
    compose,
)
from hauberk_agent.witness import (
    ASK_AGAIN_SECONDS,
    BETWEEN_SECONDS,
    PATIENCE_SECONDS,
    SPREAD_SECONDS_PER_NODE,
    Inquiry,
    Witnesses,
    misses,
)
from hauberk_api.names import NodeName
from hauberk_api.node import Membership, NodeSpec, Role
from hauberk_api.report import MAX_UNWELL, WITNESSES, ReportStatus, UnwellPeer, UnwellReason
from tests.unit.agent.mesh import TUNNEL
from tests.unit.agent.test_report import composed, facts, mesh, pairs


def nodes(count: int, role: Role = Role.MEMBER, first: int = 1) -> dict[NodeName, NodeSpec]:
    memberships = (Membership(tunnel=TUNNEL, role=role),)
    return {
        NodeName(f"n{i}"): NodeSpec(nodeUID=f"uid-{i}", addresses=(), memberships=memberships)
        for i in range(first, first + count)
    }


def test_every_node_has_a_few_witnesses_and_nobody_is_one_of_many() -> None:
    mesh = nodes(500)
    witnesses = Witnesses(mesh)
    appointed = [name for peer in mesh for name in witnesses.of(peer)]
    assert len(appointed) == WITNESSES * len(mesh)
    assert all(peer not in witnesses.of(peer) for peer in mesh)
    assert max(appointed.count(name) for name in mesh) <= WITNESSES


def test_all_agents_appoint_the_same() -> None:
    """Whatever the order in which they have learned of the nodes."""
    mesh = nodes(50)
    shuffled = list(mesh.items())
    random.Random(1).shuffle(shuffled)
    assert {p: Witnesses(mesh).of(p) for p in mesh} == {p: Witnesses(dict(shuffled)).of(p) for p in mesh}


def test_in_a_small_mesh_everybody_is_a_witness() -> None:
    mesh = nodes(WITNESSES + 1)
    assert {len(Witnesses(mesh).of(peer)) for peer in mesh} == {WITNESSES}
    assert Witnesses(nodes(1)).of(NodeName("n1")) == ()
    assert Witnesses({}).of(NodeName("n1")) == ()


def test_a_spokes_witnesses_are_hubs() -> None:
    mesh = nodes(20, Role.SPOKE) | nodes(5, Role.HUB, first=100)
    for name in Witnesses(mesh).of(NodeName("n7")):
        assert mesh[name].memberships[0].role is Role.HUB


def test_a_pair_of_which_others_report_is_left_out_unless_its_tunnel_was_never_ready() -> None:
    found, readiness = mesh(), Readiness()
    members = pairs(found, unwell_since=0.0)
    late = HOLD_BACK_SECONDS + 1
    named = readiness.assess(found, members, late, complete=True, silent={"n2"}).unwell
    assert len(named) == 2, "nobody may take it for encrypted"
    readiness.assess(found, pairs(found), late, complete=True)
    assert len(readiness.assess(found, members, late, complete=True).unwell) == 2
    assert len(readiness.assess(found, members, late, complete=True, silent={"n2"}).unwell) == 1
    health = readiness.assess(found, members, late, complete=True, silent={"n2", "n3"})
    assert compose(facts(found), health).ready


class Certain(random.Random):
    """Every share is the whole."""

    def random(self) -> float:
        return 1.0


def written(report: ReportStatus) -> Pacer:
    pacer = Pacer(Certain())
    pacer.wrote(report, 0.0)
    return pacer


def test_what_all_nodes_see_they_do_not_all_write_at_once() -> None:
    found = mesh()
    ready, pacer = composed(found, pairs(found)), written(composed(found, pairs(found)))
    missing = composed(found, pairs(found, unwell_since=0.0)).model_copy(update={"reason": "Unreachable"})
    # -> a peer is missed: in a mesh of three soon, in one of 5,000 in ten minutes
    assert pacer.due_at(missing, 100.0, mesh_size=3) == 100.0 + UNREADY_SECONDS
    assert pacer.due_at(missing, 100.0, mesh_size=5000) == 100.0 + 5000 * SPREAD_SECONDS_PER_NODE
    # -> and so when it is back
    pacer.wrote(missing, 1000.0)
    assert pacer.due_at(ready, 1001.0, mesh_size=5000) == 1001.0 + 5000 * SPREAD_SECONDS_PER_NODE
    # -> a new plan is followed by all, too; that somebody waits for
    followed = ready.model_copy(update={"plan_generation": 9})
    assert written(ready).due_at(followed, 50.0, mesh_size=5000) == 50.0 + 5000 * STEP_SECONDS_PER_NODE


def test_what_concerns_this_node_alone_is_in_a_hurry_in_any_mesh() -> None:
    found = mesh()
    unready = composed(found, pairs(found, unwell_since=0.0))
    ready = composed(found, pairs(found))
    # -> a node that has joined is ready for pods
    assert written(unready).due_at(ready, 5.0, mesh_size=5000) == 5.0
    # -> its certificate is gone
    health = Readiness().assess(found, pairs(found), 0.0, complete=True)
    anonymous = compose(replace(facts(found), identity=None, identity_problem="denied"), health)
    unlike = anonymous.model_copy(update={"certificate": ready.certificate})
    assert written(ready).due_at(unlike, 50.0, mesh_size=5000) == 50.0 + UNREADY_SECONDS


N2, N3 = NodeName("n2"), NodeName("n3")
ALL_WRITTEN = 5000 * SPREAD_SECONDS_PER_NODE + PATIENCE_SECONDS


def test_who_is_no_witness_asks_when_a_witness_has_had_its_time() -> None:
    inquiry = Inquiry(random.Random(1))
    assert inquiry.due({N2: 100.0}, 5000, 100.0 + ALL_WRITTEN - 1) is None
    assert inquiry.due({N2: 100.0}, 5000, 100.0 + ALL_WRITTEN) == N2


def test_what_others_miss_too_is_asked_again_ever_later() -> None:
    inquiry, now, waits = Inquiry(random.Random(1)), 10_000.0, list[float]()
    assert inquiry.due({N2: 0.0}, 5000, now) == N2
    for _ in range(5):
        inquiry.heard(N2, others_miss_it=True, now=now)
        began = now
        while inquiry.due({N2: 0.0}, 5000, now) is None:
            now += 10
        waits.append(now - began)
    assert inquiry.alone == frozenset()
    assert waits[0] >= 0.8 * ASK_AGAIN_SECONDS[0]
    assert 1.25 * ASK_AGAIN_SECONDS[1] > waits[-1] > 0.75 * ASK_AGAIN_SECONDS[1]


def test_trouble_of_one_pair_is_known_to_its_ends_until_it_is_over() -> None:
    inquiry = Inquiry(random.Random(1))
    assert inquiry.due({N2: 0.0}, 100, 1000.0) == N2
    inquiry.heard(N2, others_miss_it=False, now=1000.0)
    assert inquiry.alone == frozenset(), "a witness may be late"
    assert inquiry.due({N2: 0.0}, 100, 1030.0) is None
    assert inquiry.due({N2: 0.0}, 100, 1100.0) == N2
    inquiry.heard(N2, others_miss_it=False, now=1100.0)
    assert inquiry.alone == {N2}
    assert inquiry.due({N2: 0.0}, 100, 9000.0) is None, "it is known"
    inquiry.due({}, 100, 9010.0)
    assert inquiry.alone == frozenset()


def test_of_a_peer_that_a_late_witness_misses_too_nothing_is_said() -> None:
    inquiry = Inquiry(random.Random(1))
    inquiry.due({N2: 0.0}, 100, 1000.0)
    inquiry.heard(N2, others_miss_it=False, now=1000.0)
    inquiry.due({N2: 0.0}, 100, 1100.0)
    inquiry.heard(N2, others_miss_it=True, now=1100.0)
    assert inquiry.due({N2: 0.0}, 100, 1100.0 + 0.7 * ASK_AGAIN_SECONDS[0]) is None
    assert inquiry.due({N2: 0.0}, 100, 1100.0 + 1.3 * ASK_AGAIN_SECONDS[0]) == N2
    inquiry.heard(N2, others_miss_it=False, now=3000.0)
    assert inquiry.alone == frozenset(), "once more"


def test_a_doubt_ends_with_what_it_was_about() -> None:
    inquiry = Inquiry(random.Random(1))
    inquiry.due({N2: 0.0}, 100, 1000.0)
    inquiry.heard(N2, others_miss_it=False, now=1000.0)
    inquiry.due({}, 100, 1200.0)
    assert inquiry.due({N2: 1300.0}, 100, 2300.0) == N2
    inquiry.heard(N2, others_miss_it=False, now=2300.0)
    assert inquiry.alone == frozenset()


def test_a_dead_fifth_makes_one_question_a_minute() -> None:
    inquiry, missed = Inquiry(random.Random(1)), {NodeName(f"n{i}"): 0.0 for i in range(1000)}
    asked = 0
    for second in range(10_000, 13_600):
        peer = inquiry.due(missed, 5000, float(second))
        if peer is not None:
            asked += 1
            inquiry.heard(peer, others_miss_it=True, now=float(second))
    assert 30 <= asked <= 3600 / BETWEEN_SECONDS


def test_a_report_misses_whom_it_names_and_perhaps_whom_it_cannot_name() -> None:
    report = composed(mesh(), [])
    assert not misses(report, N2)
    named = UnwellPeer(node="n2", tunnel="t", reason=UnwellReason.UNREACHABLE)
    assert misses(report.model_copy(update={"unwell": (named,), "unwell_count": 1}), N2)
    assert not misses(report.model_copy(update={"unwell": (named,), "unwell_count": 1}), N3)
    assert misses(report.model_copy(update={"unwell": (named,) * MAX_UNWELL, "unwell_count": 20}), N3)
