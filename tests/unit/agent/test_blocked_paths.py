"""What is known of paths that pass no ESP survives restarts."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from hauberk_agent.blocked_paths import BlockedPath, BlockedPaths, Finder
from hauberk_api.names import NodeUid

PEER = NodeUid("uid-2")
HERE, THERE = ip_address("10.250.0.1"), ip_address("10.250.0.2")
PATH = BlockedPath(local=HERE, remote=THERE, since=1_700_000_000.5, finder=Finder.PEER)


def test_it_survives_a_restart(tmp_path: Path) -> None:
    table = BlockedPaths(tmp_path / "paths.json")
    table.remember(PEER, PATH)
    table.save()
    again = BlockedPaths(tmp_path / "paths.json")
    assert again.find(PEER, local=HERE, remote=THERE) == PATH
    again.forget(PEER)
    again.save()
    assert len(BlockedPaths(tmp_path / "paths.json")) == 0


def test_nothing_is_written_for_nothing(tmp_path: Path) -> None:
    table = BlockedPaths(tmp_path / "paths.json")
    table.forget(PEER)
    table.save()
    assert list(tmp_path.iterdir()) == []


def test_it_is_about_two_addresses(tmp_path: Path) -> None:
    table = BlockedPaths()
    table.remember(PEER, PATH)
    table.save()
    assert table.find(PEER, local=HERE, remote=ip_address("10.250.0.9")) is None
    assert table.find(NodeUid("uid-3"), local=HERE, remote=THERE) is None


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", '{"blocked": 3}', '{"blocked": [[]]}',
        '{"blocked": [["uid", "10.0.0.1", "10.0.0.2", "soon", "us"]]}',
        '{"blocked": [["uid", "10.0.0.1", "nowhere", 1, "us"]]}',
        '{"blocked": [["uid", "10.0.0.1", "10.0.0.2", 1, "somebody"]]}',
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_understood_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "paths.json").write_text(text)
    assert len(BlockedPaths(tmp_path / "paths.json")) == 0
