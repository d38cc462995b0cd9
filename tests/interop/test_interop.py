"""Hauberk's IKEv2 against strongSwan, libreswan and OpenIKED, over real ESP. Half of the table's cases are tests.

All that were chosen are played in a few kernels; a case alone takes seconds:
`pytest tests/interop -k strongswan-forky-initiator-certificates`. `make interop` plays all and writes the table.
"""

from __future__ import annotations

import pytest

from tests.beside import Theatre
from tests.interop.case import Case
from tests.interop.cases import IN_TESTS
from tests.interop.run import PLAY

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("case", IN_TESTS, ids=lambda case: case.id)
def test_case(theatre: Theatre, case: Case) -> None:
    failure = theatre.outcome(PLAY, case.id)
    assert failure is None, failure
