"""The table of attacks and the page that shows it to people."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.table import ON_AGENTS, ON_CLUSTER, rows

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "reference" / "attacks.md"


def test_the_page_lists_the_attacks_that_are_tried() -> None:
    tables = [block.splitlines() for block in PAGE.read_text().split("\n\n") if block.startswith("|")]
    assert tables == [rows(ON_CLUSTER), rows(ON_AGENTS)]


def test_no_two_attacks_are_one() -> None:
    attacks = (*ON_CLUSTER, *ON_AGENTS)
    assert len({attack.name for attack in attacks}) == len({attack.tried for attack in attacks}) == len(attacks)
