"""The table of cases, and the page of the docs that shows it."""

from __future__ import annotations

from collections import Counter

from tests.interop import report
from tests.interop.case import PEERS, STRONGSWAN_6_1, Role
from tests.interop.cases import BETWEEN_ALL, CASES, IN_TESTS
from tests.interop.reasons import REASONS, allowances, reasons


def test_no_two_cases_have_one_name() -> None:
    twice = [name for name, count in Counter(case.id for case in CASES).items() if count > 1]
    assert twice == []


def test_each_daemon_is_played_in_both_roles() -> None:
    played = {(case.peer.label, case.role) for case in CASES}
    assert played == {(peer.label, role) for peer in PEERS for role in Role}


def test_the_tests_play_every_row_with_some_daemon_and_the_heart_of_the_table_with_all() -> None:
    assert set(BETWEEN_ALL) <= {case.name for case in CASES}
    assert {case.name for case in CASES if case.peer is STRONGSWAN_6_1} == {case.name for case in CASES}
    played = {(case.peer.label, case.role) for case in IN_TESTS}
    assert played == {(peer.label, role) for peer in PEERS for role in Role}


def test_whatever_is_not_played_has_a_reason() -> None:
    for row in {case.name for case in CASES}:
        for peer in PEERS:
            cases = [case for case in CASES if (case.name, case.peer) == (row, peer)]
            assert report.is_whole(cases) or reasons(row, peer), f"{row} with {peer.label}"


def test_every_reason_is_somebodys() -> None:
    cells = {(case.name, peer) for case in CASES for peer in PEERS}
    given = {reason for row, peer in cells for reason in (*reasons(row, peer), *allowances(row, peer))}
    assert given == set(REASONS)
    assert {row for reason in REASONS for row in reason.rows} <= {case.name for case in CASES}


def test_the_page_in_the_docs_shows_all_cases_passed() -> None:
    """`make interop` writes it; a case that fails is not to be landed."""
    table = [line for line in report.PAGE.read_text().splitlines() if line.startswith("| ")]
    assert table[2:] == report.rows(list(CASES), set(CASES)), "run `make interop`, which writes the page anew"
