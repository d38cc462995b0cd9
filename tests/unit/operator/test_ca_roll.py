"""Which step of a roll is due, for whatever the Secret holds, people want and agents report."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from cryptography import x509

from hauberk_api.certificate import fingerprint
from hauberk_operator.ca import create_root
from hauberk_operator.ca_roll import (
    LEAST_PATIENCE,
    REPORT_AGE,
    Holdings,
    Move,
    Phase,
    Step,
    Wait,
    Wish,
    Witness,
    advance,
    rolls_at,
    witnesses_of,
)
from tests.unit.operator.builders import node, report

NOW = datetime(2026, 5, 1, tzinfo=UTC)
YEAR = 365 * 86_400


@cache
def root(name: str) -> x509.Certificate:
    return create_root(mesh=name, lifetime_seconds=YEAR, now=NOW).certificate


def mark(name: str) -> str:
    return fingerprint(root(name))


def agent(name: str, *bundle: str, issuer: str) -> Witness:
    return Witness(node=name, bundle=frozenset(map(mark, bundle)), issuer=mark(issuer))


def holdings(*, next_root: str = "", previous: str = "", handled: str = "") -> Holdings:
    return Holdings(
        current=root("a"),
        next=root(next_root) if next_root else None,
        previous=(root(previous),) if previous else (),
        handled=handled,
        since=NOW,
    )


def step(found: Move | Wait) -> Step | None:
    return found.step if isinstance(found, Move) else None


def due(
    held: Holdings | None, wish: Wish, *agents: Witness, published: str = "a", later: timedelta = timedelta(0)
) -> Step | None:
    marks = {mark(name) for name in published}
    return step(advance(held, wish, agents, published=marks, now=NOW + later))


def test_a_mesh_without_an_authority_gets_one_and_has_no_roll_to_catch_up_with() -> None:
    found = advance(None, Wish(roll="first"), (), published=(), now=NOW)
    assert isinstance(found, Move)
    assert (found.step, found.handled) == (Step.CREATE, "first")


def test_where_people_bring_the_authority_none_is_made() -> None:
    assert due(None, Wish(importing=True)) is None
    assert due(None, Wish(importing=True, imported=root("b"))) is Step.CREATE


def test_a_stable_authority_is_left_alone_until_two_thirds_of_its_life_are_over() -> None:
    found = advance(holdings(), Wish(), (), published={mark("a")}, now=NOW)
    assert found == Wait(until=rolls_at(root("a")))
    before = rolls_at(root("a")) - NOW
    assert due(holdings(), Wish(), later=before - timedelta(seconds=1)) is None
    assert due(holdings(), Wish(), later=before) is Step.PREPARE


def test_a_new_id_asks_for_one_roll() -> None:
    assert due(holdings(handled="one"), Wish(roll="one")) is None
    assert due(holdings(handled="one"), Wish(roll="two")) is Step.PREPARE
    assert due(holdings(handled="one"), Wish(roll="")) is None, "taking the request back asks for nothing"


def test_the_next_root_signs_when_every_agent_that_counts_trusts_it() -> None:
    held = holdings(next_root="b")
    ready, late = agent("n1", "a", "b", issuer="a"), agent("n2", "a", issuer="a")
    assert due(held, Wish(), ready, published="a") is None, "not in the plan yet, whatever an agent says"
    assert due(held, Wish(), ready, late, published="ab") is None
    assert due(held, Wish(), ready, published="ab") is Step.SWITCH
    assert due(held, Wish(), published="ab") is Step.SWITCH, "a mesh without agents waits for nobody"


def test_whom_a_roll_waits_for_is_said() -> None:
    found = advance(
        holdings(next_root="b"),
        Wish(),
        (agent("n2", "a", issuer="a"), agent("n1", "a", "b", issuer="a")),
        published={mark("a"), mark("b")},
        now=NOW,
    )
    assert found == Wait(until=NOW + LEAST_PATIENCE, waits_for=("n2",))


def test_the_old_root_goes_when_no_agent_that_counts_has_a_certificate_of_it() -> None:
    held = holdings(previous="old")
    assert due(held, Wish(), agent("n1", "a", "old", issuer="a"), agent("n2", "a", "old", issuer="old")) is None
    assert due(held, Wish(), agent("n1", "a", "old", issuer="a"), agent("n2", "a", "old", issuer="a")) is Step.DROP


@pytest.mark.parametrize(
    ("held", "published", "expected"),
    [(holdings(next_root="b"), "ab", Step.SWITCH), (holdings(previous="old"), "a", Step.DROP)],
)
def test_an_agent_that_never_follows_does_not_hold_a_roll_up(held: Holdings, published: str, expected: Step) -> None:
    """It may be in wrong hands."""
    stubborn = agent("n1", "old", issuer="old")
    patient = Wish(patience=timedelta(hours=24))
    assert due(held, patient, stubborn, published=published, later=timedelta(hours=23)) is None
    found = advance(held, patient, (stubborn,), published=set(map(mark, published)), now=NOW + timedelta(hours=24))
    assert isinstance(found, Move)
    assert found.step is expected
    assert "not awaited any longer: n1" in found.why


@pytest.mark.parametrize("held", [holdings(), holdings(next_root="b"), holdings(previous="old")])
def test_distrust_replaces_at_once_from_any_phase(held: Holdings) -> None:
    """The next root's key has been in the same Secret: it goes too."""
    stubborn = agent("n1", "a", issuer="a")
    assert due(held, Wish(roll="leak", distrust=True), stubborn, published="ab") is Step.REPLACE
    assert held.phase is not Phase.STABLE or due(held, Wish(distrust=True)) is None, "without a new id: nothing"


def test_a_second_request_during_a_roll_is_taken_up_after_it() -> None:
    assert due(holdings(next_root="b", handled="one"), Wish(roll="two"), published="ab") is Step.SWITCH
    assert due(holdings(previous="old", handled="one"), Wish(roll="two")) is Step.DROP
    assert due(holdings(handled="one"), Wish(roll="two")) is Step.PREPARE


def test_an_expired_root_is_replaced_whatever_agents_say() -> None:
    over = timedelta(seconds=YEAR)
    assert due(holdings(next_root="b"), Wish(), agent("n1", "a", issuer="a"), later=over) is Step.REPLACE


def test_an_imported_root_gives_way_to_another_imported_one_alone() -> None:
    same, other = Wish(importing=True, imported=root("a")), Wish(importing=True, imported=root("b"))
    assert due(holdings(), same, later=timedelta(seconds=YEAR - 1)) is None
    assert due(holdings(), same, later=timedelta(seconds=YEAR)) is None
    assert due(holdings(), Wish(importing=True), later=timedelta(seconds=YEAR)) is None
    assert due(holdings(), other) is Step.PREPARE
    assert due(holdings(), Wish(importing=True, imported=root("a"), roll="leak", distrust=True)) is None
    assert due(holdings(), Wish(importing=True, imported=root("b"), roll="leak", distrust=True)) is Step.REPLACE


def certificate(issuer: str, not_after: datetime) -> dict[str, str]:
    return {"serial": "1", "notAfter": not_after.isoformat(), "issuerFingerprint": issuer}


def test_only_agents_with_a_good_certificate_on_ready_nodes_count() -> None:
    good, over = NOW + timedelta(hours=1), NOW - REPORT_AGE
    nodes = {name: node(name, ready=name != "n2") for name in ("n1", "n2", "n3", "n4", "n5", "n6", "n7")}
    reports = {
        "n1": report("n1", certificate=certificate("x", good), bundle=["x"]),
        "n2": report("n2", certificate=certificate("x", good), bundle=["x"]),  # its Node is not Ready
        "n3": report("n3", certificate=certificate("x", over), bundle=["x"]),  # long expired
        "n4": report("n4", bundle=["x"]),  # no certificate yet
        "n5": report("n5", node_uid="former", certificate=certificate("x", good), bundle=["x"]),
        "n6": report("n6", certificate=certificate("x", NOW - timedelta(minutes=1)), bundle=["x"]),  # an old report
        "n8": report("n8", certificate=certificate("x", good), bundle=["x"]),  # its Node is gone
    }
    found = witnesses_of(nodes, reports, now=NOW)
    assert [(witness.node, witness.bundle, witness.issuer) for witness in found] == [
        ("n1", frozenset("x"), "x"),
        ("n6", frozenset("x"), "x"),
    ]


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-06-01T00:00:00"])
def test_a_report_with_an_end_that_is_no_moment_does_not_count(text: str) -> None:
    odd = report("n1", certificate={"serial": "1", "notAfter": text, "issuerFingerprint": "x"}, bundle=["x"])
    assert witnesses_of({"n1": node("n1")}, {"n1": odd}, now=NOW) == ()
