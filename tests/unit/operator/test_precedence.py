"""Which tunnel carries a pair that several want: counted by kinds of nodes, and compared with looking at each pair."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from hauberk_api.node import Role, peers
from hauberk_api.plan import Phase, PlannedTunnel
from hauberk_api.tunnel import Traffic, TrafficType
from hauberk_operator.precedence import Loss, Precedence

NAMES = [f"n{number}" for number in range(7)]


def planned(*names: str) -> list[PlannedTunnel]:
    return [PlannedTunnel(name=name, uid=f"uid-{name}", generation=1, phase=Phase.BLOCK) for name in names]


def all_of(*names: str) -> dict[str, Role]:
    return dict.fromkeys(names, Role.MEMBER)


def test_a_tunnel_alone_carries_all_its_pairs() -> None:
    precedence = Precedence(planned("all"), {"uid-all": all_of("n1", "n2", "n3")})
    assert precedence.carried("uid-all", ["n1", "n2", "n3"]) == 3
    assert precedence.losses("uid-all") == ()


def test_the_later_tunnel_loses_the_pairs_that_the_earlier_has() -> None:
    members = {"uid-old": all_of("n1", "n2"), "uid-young": all_of("n1", "n2", "n3")}
    precedence = Precedence(planned("old", "young"), members)
    assert precedence.carried("uid-old", members["uid-old"]) == 1
    assert precedence.carried("uid-young", members["uid-young"]) == 2
    assert precedence.losses("uid-old") == ()
    assert precedence.losses("uid-young") == (Loss(to="old", pairs=1, nodes=2),)
    assert precedence.carries("uid-old", "n1", "n2")
    assert not precedence.carries("uid-young", "n1", "n2")
    assert precedence.carries("uid-young", "n3", "n1")


def test_two_spokes_are_no_pair_and_so_not_lost() -> None:
    star = {"n1": Role.HUB, "n2": Role.SPOKE, "n3": Role.SPOKE}
    precedence = Precedence(planned("star", "all"), {"uid-star": star, "uid-all": all_of("n1", "n2", "n3")})
    assert precedence.losses("uid-all") == (Loss(to="star", pairs=2, nodes=3),)
    assert precedence.carries("uid-all", "n2", "n3")


def test_tunnels_of_other_traffic_are_no_rivals() -> None:
    pods, host = planned("pods", "host")
    host = host.model_copy(update={"traffic": Traffic(type=TrafficType.HOST)})
    precedence = Precedence([pods, host], dict.fromkeys(("uid-pods", "uid-host"), all_of("n1", "n2")))
    assert precedence.losses("uid-host") == ()
    assert precedence.carries("uid-host", "n1", "n2")


def test_a_pair_is_lost_to_the_first_tunnel_alone() -> None:
    members = {"uid-a": all_of("n1", "n2"), "uid-b": all_of("n1", "n2", "n3"), "uid-c": all_of("n1", "n2", "n3", "n4")}
    precedence = Precedence(planned("a", "b", "c"), members)
    assert precedence.losses("uid-c") == (Loss(to="a", pairs=1, nodes=2), Loss(to="b", pairs=2, nodes=3))


TRAFFIC = st.sampled_from([Traffic(), Traffic(type=TrafficType.HOST), Traffic(protocol="TCP")])
ROLES = st.one_of(
    st.dictionaries(st.sampled_from(NAMES), st.just(Role.MEMBER)),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from([Role.HUB, Role.SPOKE])),
)


@given(st.lists(st.tuples(ROLES, TRAFFIC), min_size=1, max_size=4))
def test_counting_kinds_is_looking_at_every_pair(wanted: list[tuple[dict[str, Role], Traffic]]) -> None:
    """As agents do (hauberk_agent.roster): of the tunnels that share traffic the first that carries the pair."""
    tunnels = [
        tunnel.model_copy(update={"traffic": traffic})
        for tunnel, (_, traffic) in zip(planned(*(f"t{place}" for place in range(len(wanted)))), wanted, strict=True)
    ]
    members = {tunnel.uid: roles for tunnel, (roles, _) in zip(tunnels, wanted, strict=True)}
    carriers: dict[tuple[str, str], list[PlannedTunnel]] = {}
    losses: dict[tuple[str, str, str], PlannedTunnel] = {}
    for pair in combinations(NAMES, 2):
        carriers[pair] = []
        for tunnel in tunnels:
            if not _peer(members[tunnel.uid], *pair):
                continue
            rival = next((older for older in carriers[pair] if older.traffic.shares(tunnel.traffic)), None)
            if rival is None:
                carriers[pair].append(tunnel)
            else:
                losses[tunnel.name, *pair] = rival
    precedence = Precedence(tunnels, members)
    for tunnel in tunnels:
        carried = [pair for pair, by in carriers.items() if tunnel in by]
        assert precedence.carried(tunnel.uid, members[tunnel.uid]) == len(carried)
        assert all(precedence.carries(tunnel.uid, *pair) for pair in carried)
        lost = {(one, other): to for (name, one, other), to in losses.items() if name == tunnel.name}
        assert {loss.to: (loss.pairs, loss.nodes) for loss in precedence.losses(tunnel.uid)} == {
            first.name: (
                sum(to == first for to in lost.values()),
                len({name for pair, to in lost.items() if to == first for name in pair}),
            )
            for first in lost.values()
        }


def _peer(roles: dict[str, Role], one: str, other: str) -> bool:
    return one in roles and other in roles and peers(roles[one], roles[other])
