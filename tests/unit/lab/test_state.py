"""What a lab remembers survives being written and read."""

import json
from pathlib import Path

import pytest

from tests.lab import cache, cluster, state
from tests.lab.addresses import Family
from tests.lab.errors import LabError, LabNotUp
from tests.lab.parts import Parts
from tests.lab.process import Process
from tests.lab.state import NodeState, State


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own."""
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))


def _state(name: str) -> State:
    remembered = State(
        name=name,
        family=Family.IPV6,
        disk="/somewhere/images.ext4",
        disk_images=["key"],
        parts=Parts(
            **{name: Path("/parts", name) for name in ("kernel", "kubernetes", "containerd", "kubectl", "helm")}
        ),
        append="a=b",
        nodes=[NodeState(number=11), NodeState(number=13, append="c")],
        images=["/somewhere/image.tar"],
        processes={"etcd": Process(pid=4_000_000, start_time=7)},
    )
    remembered.run_directory.mkdir(parents=True)
    return remembered


def test_what_is_saved_is_loaded() -> None:
    remembered = _state("one")
    remembered.save()
    assert State.load("one") == remembered
    assert State.load("other") is None
    assert state.names() == ["one"]


def test_saving_replaces_the_whole_file() -> None:
    remembered = _state("one")
    remembered.save()
    remembered.nodes.clear()
    remembered.save()
    loaded = State.load("one")
    assert loaded is not None
    assert loaded.nodes == []
    assert [path.name for path in remembered.run_directory.iterdir()] == ["state.json"]


def test_a_lab_of_another_version_is_told_as_such_and_can_be_taken_down() -> None:
    remembered = _state("one")
    remembered.save()
    file = remembered.run_directory / "state.json"
    content = json.loads(file.read_text())
    del content["parts"]
    file.write_text(json.dumps(content))
    with pytest.raises(LabError, match="another version, without parts"):
        State.load("one")
    assert cluster.take_down("one") == []


def test_taking_down_what_is_half_there_or_not_there_leaves_nothing() -> None:
    remembered = _state("one")
    remembered.save()  # with a process that is long gone, and no namespace
    assert cluster.take_down("one") == []
    assert not remembered.run_directory.exists()
    assert cluster.take_down("one") == []
    state.run_directory("two").mkdir()  # a crash before anything was saved
    assert cluster.take_down("two") == []
    assert state.names() == []


def test_a_lab_that_is_not_up_is_told_with_those_that_are() -> None:
    _state("other").save()
    with pytest.raises(LabNotUp, match="no lab one is up; there is other"):
        cluster.Lab.attach("one")


@pytest.mark.parametrize("name", ["", "Big", "a/b", "-a", "a" * 40, ".."])
def test_a_name_that_would_be_no_namespace_or_directory_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="no name for a lab"):
        cluster.Lab.up(name, nodes=1)
