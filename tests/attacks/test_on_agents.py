"""The table's attacks on agents: real ones, in a kernel with ESP, all of them in one."""

from __future__ import annotations

import pytest

from tests.attacks.run import PLAY
from tests.attacks.table import ON_AGENTS
from tests.beside import Theatre


@pytest.mark.lab
@pytest.mark.parametrize("name", [attack.name for attack in ON_AGENTS])
def test_is_refused(theatre: Theatre, name: str) -> None:
    not_refused = theatre.outcome(PLAY, name)
    assert not_refused is None, not_refused
