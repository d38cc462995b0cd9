"""Hauberk's IKEv2 against strongSwan, libreswan and OpenIKED, over real ESP. Half of the table's cases are tests.

All that were chosen are played in a few kernels; a case alone takes seconds:
`pytest tests/interop -k strongswan-forky-initiator-certificates`. `make interop` plays all and writes the table.
"""

from __future__ import annotations

import pytest

from tests.beside import Theatre
from tests.interop.case import Case
from tests.interop.cases import HEART, IN_TESTS
from tests.interop.run import PLAY

_CASES = [pytest.param(case, id=case.id, marks=[] if case in HEART else [pytest.mark.long]) for case in IN_TESTS]


@pytest.mark.lab
@pytest.mark.parametrize("case", _CASES)
def test_case(theatre: Theatre, case: Case) -> None:
    failure = theatre.outcome(PLAY, case.id)
    assert failure is None, failure
