"""The fuzzer's targets over its seeds and what it once found, and over damaged copies: the same every time."""

from pathlib import Path
from random import Random
from typing import Final

import pytest

from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS

FINDINGS: Final = Path(__file__).parent / "findings"
_MUTANTS: Final = 4


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_findings_and_their_mutants_do_no_harm(target: str) -> None:
    chance = Random(7)
    found = [path.read_bytes() for path in sorted((FINDINGS / target).glob("*"))]
    for data in [*corpus.seeds()[target], *found]:
        TARGETS[target](data)
        for mutant in corpus.mutants(data, _MUTANTS, chance):
            TARGETS[target](mutant)
