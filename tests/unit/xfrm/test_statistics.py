"""The counters of /proc/net/xfrm_stat."""

from __future__ import annotations

from pathlib import Path

import pytest

from hauberk_xfrm import Xfrm, statistics
from hauberk_xfrm.statistics import parse_statistics, read_statistics


def test_lines_are_names_and_numbers() -> None:
    text = "XfrmInError             \t0\nXfrmOutPolBlock         \t17\n"
    assert parse_statistics(text) == {"XfrmInError": 0, "XfrmOutPolBlock": 17}


def test_a_kernel_that_counts_nothing_has_no_counters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(statistics, "PROC_FILE", tmp_path / "xfrm_stat")
    assert read_statistics() == {}


def test_the_kernels_own_file_is_read(xfrm: Xfrm) -> None:
    counters = xfrm.statistics()
    assert counters["XfrmInNoStates"] == 0  # the namespace is new
    assert counters["XfrmOutPolBlock"] == 0
