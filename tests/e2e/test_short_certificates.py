"""Certificates that live for a minute, and two rolls of the authority, under traffic: `make drill` in short."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deployment import Deployment
from tests.drill.short_certificates import ShortCertificates
from tests.lab.traffic import Traffic

pytestmark = pytest.mark.lab

MINUTES = 0.75
"""In which every certificate is renewed, and two rolls have their time."""


def test_pitfall_25_short_certificates_and_rolls_lose_nothing(
    deployment: Deployment, traffic: Traffic, mesh: str, tmp_path: Path
) -> None:
    short = ShortCertificates(deployment, traffic, scratch=tmp_path, progress=print)
    short.prepare()
    try:
        outcome = short.run(minutes=MINUTES, rolls=2)
    finally:
        short.restore()
    assert outcome.faults == []
    assert outcome.ca_rolls == 2
    assert outcome.renewals >= 2 * len(deployment.lab.nodes), "each root signs for each node"
