"""The comparison with `ip -batch` runs, and writes down what is asked of it; how fast either is is no test's affair."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.kernel_process import REPOSITORY

pytestmark = pytest.mark.lab


def test_both_sides_program_the_same_and_the_ratios_are_written(tmp_path: Path) -> None:
    figures = tmp_path / "xfrm.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.xfrm", "--states=40", "--policies=70", "--rounds=2", f"--figures={figures}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(figures.read_text())
    for name in ("states", "policies"):
        ours, theirs = written[f"{name}_per_second"], written[f"{name}_per_second_ip_batch"]
        assert written[f"{name}_ratio"] == pytest.approx(ours / theirs, rel=0.01)
        assert f"{ours:,.0f}/s" in done.stdout
