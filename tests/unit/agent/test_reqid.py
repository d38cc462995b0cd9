"""Request ids survive restarts and are not given twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hauberk_agent.ownership import REQIDS
from hauberk_agent.reqid import ChildKey, ReqIdTable
from hauberk_api.names import NodeUid, TunnelUid


def key(peer: str, tunnel: str = "t", index: int = 0) -> ChildKey:
    return ChildKey(tunnel=TunnelUid(tunnel), peer=NodeUid(peer), index=index)


def test_ids_are_in_our_band_and_stay(tmp_path: Path) -> None:
    table = ReqIdTable(tmp_path / "reqids.json")
    one, two = table.assign(key("a")), table.assign(key("b"))
    assert one != two
    assert one in REQIDS
    assert table.assign(key("a")) == one
    assert table.assign(key("a", "other")) not in (one, two)
    table.save()
    again = ReqIdTable(tmp_path / "reqids.json")
    assert (again.get(key("a")), again.get(key("b"))) == (one, two)
    assert (tmp_path / "reqids.json").stat().st_mode & 0o777 == 0o600


def test_an_id_is_released_once_neither_wanted_nor_in_the_kernel(tmp_path: Path) -> None:
    table = ReqIdTable(tmp_path / "reqids.json")
    one, two = table.assign(key("a")), table.assign(key("b"))
    table.release({key("b")}, {one})
    assert table.get(key("a")) == one, "still in the kernel"
    table.release({key("b")}, set())
    assert table.get(key("a")) is None
    assert table.get(key("b")) == two


def test_a_released_id_is_the_last_to_be_given_again(tmp_path: Path) -> None:
    table = ReqIdTable(tmp_path / "reqids.json")
    one = table.assign(key("a"))
    table.release(set(), set())
    table.save()
    assert ReqIdTable(tmp_path / "reqids.json").assign(key("c")) != one


def test_an_id_in_the_kernel_is_not_given(tmp_path: Path) -> None:
    table = ReqIdTable(tmp_path / "reqids.json")
    first = REQIDS.start
    assert table.assign(key("a"), in_kernel={first, first + 1}) == first + 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pairs": [[1, 2]]}', b'{"pairs": 7}'])
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "reqids.json"
    path.write_bytes(content)
    assert len(ReqIdTable(path)) == 0


def test_each_index_has_an_id_of_its_own_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "reqids.json"
    table = ReqIdTable(path)
    ids = [table.assign(key("a", index=index)) for index in range(3)]
    assert len(set(ids)) == 3
    table.save()
    assert [ReqIdTable(path).get(key("a", index=index)) for index in range(3)] == ids
    # The version before reads what it wrote itself, and nothing else.
    assert json.loads(path.read_text())["pairs"] == [["t", "a", ids[0]]]


def test_a_file_of_the_version_before_is_read(tmp_path: Path) -> None:
    path = tmp_path / "reqids.json"
    path.write_text('{"last": 1207959554, "pairs": [["t", "a", 1207959553], ["t", "b", 1207959554]]}')
    table = ReqIdTable(path)
    assert (table.get(key("a")), table.get(key("b"))) == (0x48000001, 0x48000002)
    assert table.assign(key("a", index=1)) == 0x48000003


def test_ids_outside_our_band_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "reqids.json"
    path.write_text('{"last": 5, "pairs": [["t", "a", 7], ["t", "b", 1207959553]]}')
    table = ReqIdTable(path)
    assert table.get(key("a")) is None
    assert table.get(key("b")) == 0x48000001
