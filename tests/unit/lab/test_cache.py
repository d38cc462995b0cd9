"""Parts are keyed by what went into them, and are there whole or not at all."""

from pathlib import Path

import pytest

from tests.lab import build, cache
from tests.lab.cache import Part
from tests.lab.errors import BuildError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_key_depends_on_every_ingredient_and_on_where_one_ends(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    before = cache.key("a", file)
    assert cache.key("a", file) == before
    assert cache.key("b", file) != before
    assert cache.key("ab", "c") != cache.key("a", "bc")
    file.write_text("two")
    assert cache.key("a", file) != before


def test_a_file_counts_by_its_content_and_not_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("same")
    (tmp_path / "b").write_text("same")
    assert cache.key(tmp_path / "a") == cache.key(tmp_path / "b") == cache.key("same")


def test_a_part_is_made_once() -> None:
    part = Part(name="thing", key="k")
    made: list[Path] = []

    def make(work: Path, out: Path) -> None:
        made.append(out)
        (out / "file").write_text("content")

    assert (part.ensure(make) / "file").read_text() == "content"
    assert (part.ensure(make) / "file").read_text() == "content"
    assert len(made) == 1
    assert part.require() == part.path


def test_an_interrupted_build_leaves_no_part_and_goes_on_with_its_scratch() -> None:
    part = Part(name="thing", key="k")

    def interrupted(work: Path, out: Path) -> None:
        (work / "half").write_text("half the work")
        (out / "file").write_text("half a file")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        part.ensure(interrupted)
    assert not part.is_built()
    with pytest.raises(BuildError, match="thing is not built"):
        part.require()

    def resumed(work: Path, out: Path) -> None:
        assert (work / "half").read_text() == "half the work"
        assert list(out.iterdir()) == [], "what was half made must not end up in the part"
        (out / "file").write_text("whole")

    assert (part.ensure(resumed) / "file").read_text() == "whole"
    assert not list((cache.directory() / "work").glob("thing-*"))


def test_old_parts_go_but_those_in_use_stay() -> None:
    import os

    for age, key in enumerate(["newest", "newer", "old", "used"]):
        path = Part(name="disk", key=key).ensure(lambda work, out: None)
        os.utime(path, (1000 - age, 1000 - age))
    cache.discard_older("disk", 2, in_use={Part(name="disk", key="used").path})
    assert {path.name for path in (cache.directory() / "parts").iterdir()} == {"disk-newest", "disk-newer", "disk-used"}


def test_another_kernel_source_makes_another_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = build.kernel_part()
    monkeypatch.setenv(build.KERNEL_SOURCE_VARIABLE, "/somewhere/linux")
    assert build.kernel_part() != usual


def test_the_go_modules_pin_what_the_build_says_it_builds() -> None:
    kubernetes = (build.HERE / "go" / "kubernetes" / "go.mod").read_text()
    assert f"k8s.io/kubernetes v{build.KUBERNETES_VERSION}" in kubernetes
    assert build.CONTAINERD_MODULE in (build.HERE / "go" / "containerd" / "go.mod").read_text()
    for module, programs in (("kubernetes", build.KUBERNETES_PROGRAMS), ("containerd", build.CONTAINERD_PROGRAMS)):
        tools = (build.HERE / "go" / module / "tools.go").read_text()
        assert all(f'/cmd/{program}"' in tools for program in programs)
