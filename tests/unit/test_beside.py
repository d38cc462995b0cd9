"""What is played beside the tests: nobody's failure is lost, and nothing is left running."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.beside import Outcomes, Play, Stage, Theatre

IDS = ["tests/x.py::test_a[one]", "tests/x.py::test_a[two-2]", "tests/y.py::test_a[one]", "tests/x.py::test_b"]


@pytest.fixture
def theatre(tmp_path: Path) -> Iterator[Theatre]:
    made = Theatre(tmp_path / "theatre")
    made.directory.mkdir()
    yield made
    made.close()


def a_play(outcomes: dict[str, str | None] | Exception, name: str = "x") -> Play:
    def run(stage: Stage, chosen: Sequence[str]) -> Outcomes:
        assert stage.directory.is_dir()
        if isinstance(outcomes, Exception):
            raise outcomes
        (stage.directory / "log").write_text(" ".join(chosen))
        return outcomes

    return Play(name=name, tests=f"tests/{name}.py::test_a[", run=run)


def test_a_play_is_given_its_chosen_tests_and_the_others_are_not_begun(theatre: Theatre) -> None:
    mine, other = a_play({"one": None, "two-2": "it went wrong"}), a_play({}, "z")
    theatre.begin([mine, other], IDS)
    theatre.begin([mine, other], IDS)
    assert theatre.outcome(mine, "one") is None
    assert theatre.outcome(mine, "two-2") == "it went wrong"
    assert (theatre.directory / "x" / "log").read_text() == "one two-2"
    assert not (theatre.directory / "z").exists()


def test_a_test_of_which_its_play_says_nothing_has_failed(theatre: Theatre) -> None:
    play = a_play({"one": None})
    theatre.begin([play], IDS)
    assert theatre.outcome(play, "two-2") == "x has said nothing of 'two-2'"


def test_a_play_that_breaks_off_fails_all_its_tests(theatre: Theatre) -> None:
    play = a_play(OSError("no kernel"))
    theatre.begin([play], IDS)
    for test in ("one", "two-2"):
        outcome = theatre.outcome(play, test)
        assert outcome is not None
        assert "OSError: no kernel" in outcome


@pytest.mark.parametrize(("outcome", "kept"), [(None, False), ("it went wrong", True)])
def test_what_was_left_behind_is_kept_when_something_failed(theatre: Theatre, outcome: str | None, kept: bool) -> None:
    play = a_play({"one": outcome})
    theatre.begin([play], IDS)
    theatre.outcome(play, "one")
    theatre.close()
    assert (theatre.directory / "x" / "log").exists() is kept


def test_an_end_before_its_time_stops_what_plays_and_begins_nothing_more(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()
    monkeypatch.setattr("tests.kernel.bare_kernel.stop_all", stopped.set)
    begun: list[str] = []
    one_has = threading.Event()

    def run(stage: Stage, chosen: Sequence[str]) -> Outcomes:
        begun.append(stage.directory.name)
        one_has.set()
        assert stopped.wait(30)
        return dict.fromkeys(chosen)

    plays = [Play(name=f"x{number}", tests="tests/x.py::test_a[", run=run) for number in range(9)]
    theatre.begin(plays, IDS)
    assert one_has.wait(30)
    theatre.close()
    assert stopped.is_set()
    assert len(begun) < 9
