"""The comparison of paths runs, and writes down what is asked of it; how fast any of them is is no test's affair."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.path.figures import GOALS
from tests.lab.kernel_process import REPOSITORY

pytestmark = [pytest.mark.lab, pytest.mark.long]


def test_all_sides_carry_traffic_and_the_ratios_are_written(tmp_path: Path) -> None:
    figures = tmp_path / "speed.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.path", "--rounds=1", "--seconds=0.2", "--peers", "20"),
            *(f"--figures={figures}", f"--plot={tmp_path / 'speed'}"),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(figures.read_text())
    assert set(GOALS) - set(written) == {"throughput_ratio_1000", "throughput_ratio_5000"}
    assert all(ratio > 0 for ratio in written.values()), written
    for side in ("no encryption", "`ip xfrm` by hand", "WireGuard", "our agents, 20 peers", "tunnel mode", "IPTFS"):
        assert f"    {side} " in done.stdout
    assert (tmp_path / "speed.svg").stat().st_size > 1000
