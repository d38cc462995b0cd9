"""The table's attacks on agents: real ones, in a kernel with ESP, all of them in one."""

from __future__ import annotations

import pytest

from tests.attacks.attack import Result
from tests.attacks.run import on_agents
from tests.attacks.table import ON_AGENTS

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    return {result.name: result for result in on_agents(tmp_path_factory.mktemp("attacks"))}


@pytest.mark.parametrize("name", [attack.name for attack in ON_AGENTS])
def test_is_refused(results: dict[str, Result], name: str) -> None:
    assert results[name].refused, results[name].said
