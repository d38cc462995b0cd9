"""The reference in docs/reference says what the schemas and programs do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hauberk_api.conditions import ConditionType, Reason
from hauberk_api.kinds import MESH_KIND, NODE_KIND, REPORT_KIND, TUNNEL_KIND
from tests.unit.api.reference import PAGE, page, tables

CONDITIONS = PAGE.parent / "conditions.md"
REPOSITORY = PAGE.parent.parent.parent


def test_the_tables_of_fields_are_those_of_the_schemas() -> None:
    text = PAGE.read_text()
    assert page(text) == text, "rewrite the tables: python -m tests.unit.api.reference"
    assert tables(text) == {
        (TUNNEL_KIND, "spec"),
        (TUNNEL_KIND, "status"),
        (MESH_KIND, "spec"),
        (MESH_KIND, "status"),
        (NODE_KIND, "spec"),
        (REPORT_KIND, "status"),
    }


@pytest.mark.parametrize("word", [*ConditionType, *Reason])
def test_every_condition_and_reason_is_explained(word: str) -> None:
    assert re.search(rf"^(## |\| ){word}\b", CONDITIONS.read_text(), re.MULTILINE)


def test_no_reason_is_explained_that_there_is_not() -> None:
    explained = re.findall(r"^\| ([A-Z]\w+) \|", CONDITIONS.read_text(), re.MULTILINE)
    assert set(explained) == set(Reason)


@pytest.mark.parametrize("document", [PAGE, CONDITIONS], ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
        assert (document.parent / target).resolve().is_relative_to(REPOSITORY)
        assert (document.parent / target).exists(), target
