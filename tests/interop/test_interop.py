"""Hauberk's IKEv2 against strongSwan, libreswan and OpenIKED, over real ESP. Half of the table's cases are tests.

The first one that runs plays all that were chosen, in a few kernels; a case alone takes seconds:
`pytest tests/interop -k strongswan-forky-initiator-certificates`. `make interop` plays all and writes the table.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.case import Case
from tests.interop.cases import IN_TESTS
from tests.interop.run import Outcome, play

pytestmark = pytest.mark.lab


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> dict[str, Outcome]:
    """What became of each case that was chosen."""
    chosen: list[Case] = []
    for item in request.session.items:
        callspec = getattr(item, "callspec", None)
        if item.path == Path(__file__) and callspec is not None:
            chosen.append(callspec.params["case"])
    return play(chosen, print)


@pytest.mark.parametrize("case", IN_TESTS, ids=lambda case: case.id)
def test_case(case: Case, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[case.id]
    assert outcome.failure is None, outcome.failure
