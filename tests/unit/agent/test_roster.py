"""Who peers with whom, who is exempt, who is shut out."""

from __future__ import annotations

import pytest

from hauberk_agent.roster import compile_roster
from hauberk_api.mesh import NonMembers
from hauberk_api.node import Role
from hauberk_api.plan import Phase
from hauberk_api.tunnel import Traffic
from tests.unit.agent.mesh import desired, node, plan, roster, tunnel


def test_nothing_is_known_without_a_plan_or_an_own_node() -> None:
    assert compile_roster(desired("n1", None, n1=node(1))) is None
    assert compile_roster(desired("n1", plan(tunnel()), n2=node(2))) is None


def test_members_of_a_tunnel_peer() -> None:
    found = roster("n1", plan(tunnel()), n1=node(1), n2=node(2), n3=node(3))
    assert [peer.place.name for peer in found.peers] == ["n2", "n3"]
    assert found.peers[0].identity == "uid-2.default.hauberk.internal"
    assert str(found.peers[0].local) == "10.250.0.1"
    assert str(found.peers[0].remote) == "10.250.0.2"
    assert [str(n) for n in found.pod_range] == [
        "10.244.1.0/24", "10.244.2.0/23",
        "fd00:244:1::/64", "fd00:244:2::/64", "fd00:244:3::/64",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("own", "other", "pairs"),
    [(Role.SPOKE, Role.SPOKE, False), (Role.HUB, Role.SPOKE, True), (Role.HUB, Role.HUB, True)],
)
def test_spokes_do_not_peer(own: Role, other: Role, pairs: bool) -> None:
    found = roster("n1", plan(tunnel()), n1=node(1, role=own), n2=node(2, role=other))
    assert bool(found.peers) == pairs
    assert found.exempt_from(Traffic()) == (), "a fellow member is never exempt"


def test_the_oldest_common_tunnel_carries_a_pair() -> None:
    both = plan(tunnel("old"), tunnel("new"))
    found = roster("n1", both, n1=node(1, tunnels=("new", "old")), n2=node(2, tunnels=("old", "new")))
    assert [[carried.uid for carried in peer.tunnels] for peer in found.peers] == [["old"]]


def test_a_node_on_its_way_into_one_tunnel_has_the_other_one_meanwhile() -> None:
    both = plan(tunnel("old"), tunnel("new"))
    passing = node(2, tunnels=("old", "new"))
    memberships = (passing.memberships[0].model_copy(update={"phase": Phase.PROTECT}), passing.memberships[1])
    passing = passing.model_copy(update={"memberships": memberships})
    found = roster("n1", both, n1=node(1, tunnels=("old", "new")), n2=passing)
    assert [[carried.uid for carried in peer.tunnels] for peer in found.peers] == [["new"]]
    assert found.passing


def test_a_pair_goes_as_far_as_the_tunnel_and_both_ends() -> None:
    for tunnels, one, other, phase in (
        (Phase.BLOCK, None, Phase.PROTECT, Phase.PROTECT),
        (Phase.BLOCK, Phase.ESTABLISH, Phase.PROTECT, Phase.ESTABLISH),
        (Phase.ACCEPT, Phase.PROTECT, None, Phase.ACCEPT),
    ):
        found = roster("n1", plan(tunnel(phase=tunnels)), n1=node(1, phase=one), n2=node(2, phase=other))
        ((carried,),) = (peer.tunnels for peer in found.peers)
        assert carried.phase is phase


@pytest.mark.parametrize(("policy", "exempt"), [(NonMembers.ALLOW, ["n2"]), (NonMembers.DENY, [])])
def test_non_members_follow_the_mesh_s_setting(policy: NonMembers, exempt: list[str]) -> None:
    found = roster("n1", plan(tunnel(), non_members=policy), n1=node(1), n2=node(2, tunnels=()))
    assert [place.name for place in found.exempt_from(Traffic())] == exempt
    assert found.peers == ()


def test_a_node_is_revoked_by_name_before_the_plan_knows_its_uid() -> None:
    found = roster("n1", plan(tunnel(), revoked=("n2",)), n1=node(1), n2=node(2, tunnels=()), n3=node(3))
    assert [peer.place.name for peer in found.peers] == ["n3"]
    assert found.exempt_from(Traffic()) == ()
    assert roster("n2", plan(tunnel(), revoked=("n2",)), n1=node(1), n2=node(2)).peers == ()


def test_a_revoked_node_is_neither_peer_nor_exempt() -> None:
    the_plan = plan(tunnel(), revoked=("uid-2", "uid-3"))
    found = roster("n1", the_plan, n1=node(1), n2=node(2), n3=node(3, tunnels=()))
    assert found.peers == ()
    assert found.exempt_from(Traffic()) == ()


def test_the_first_claimant_keeps_an_address() -> None:
    thief = node(3, addresses=("10.250.0.2", "10.250.0.3"), pod_cidrs=("10.244.2.0/24", "10.244.1.0/24"))
    found = roster("n1", plan(tunnel()), n1=node(1), n2=node(2), n3=thief)
    place = next(peer.place for peer in found.peers if peer.place.name == "n3")
    assert [str(a) for a in place.addresses] == ["10.250.0.3"]
    assert place.networks == ()
    assert len(found.problems) == 3
    assert "n3 claims 10.250.0.2, which n2 holds" in found.problems


def test_both_ends_choose_one_family() -> None:
    four_first = node(1, addresses=("10.250.0.1", "fd00:250::1"))
    six_first = node(2, addresses=("fd00:250::2", "10.250.0.2"))
    one = roster("n1", plan(tunnel()), n1=four_first, n2=six_first).peers[0]
    other = roster("n2", plan(tunnel()), n1=four_first, n2=six_first).peers[0]
    assert (one.local, one.remote) == (other.remote, other.local)
    assert one.local.version == 4


def test_without_a_common_family_there_is_a_problem_and_no_peer() -> None:
    found = roster("n1", plan(tunnel()), n1=node(1, addresses=("10.250.0.1",)), n2=node(2, addresses=("fd00:250::2",)))
    assert found.peers == ()
    assert found.problems == ("n1 and n2 have no address family in common",)


def test_what_cannot_be_parsed_is_named() -> None:
    found = roster("n1", plan(tunnel()), n1=node(1), n2=node(2, pod_cidrs=("10.244.2.1/24",)))
    assert any("IPsecNode n2" in problem for problem in found.problems)
