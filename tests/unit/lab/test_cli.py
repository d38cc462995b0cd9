"""The command line: whose words are whose, and what the exit codes mean."""

from pathlib import Path

import pytest

from tests.lab import cache, cli


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own."""
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("words", "ours", "theirs"),
    [
        ("up --nodes 3", "up --nodes 3", None),
        ("node n1 -- ip -br a", "node n1", "ip -br a"),
        ("node n1 -- kubectl -- x", "node n1", "kubectl -- x"),
        ("kubectl get pods -o wide", "kubectl", "get pods -o wide"),
        ("--name a kubectl exec p -- ls", "--name a kubectl", "exec p -- ls"),
        ("--name=a helm list", "--name=a helm", "list"),
        ("--name kubectl status", "--name kubectl status", None),
        ("kubectl", "kubectl", ""),
        ("kubectl --help", "kubectl", "--help"),
        ("pod n1 --", "pod n1", ""),
    ],
)
def test_a_commands_own_words_are_left_alone(words: str, ours: str, theirs: str | None) -> None:
    assert cli.split(words.split()) == (ours.split(), None if theirs is None else theirs.split())


@pytest.mark.parametrize(
    "words",
    ["node n1", "node n1 crash -- ls", "node n1 crash --append x", "node n1 --", "pod n1", "status -- ls"],
)
def test_a_wrong_command_line_is_told_before_any_lab_is_looked_for(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.Lab, "attach", _never)
    assert cli.main(words.split()) == cli.WRONG
    assert capsys.readouterr().err


def _never(name: str) -> None:
    raise AssertionError(f"looked for {name}")


def test_a_lab_that_is_not_up_has_an_exit_code_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert cli.main(["--name", "absent", "status"]) == cli.ABSENT
    assert "no lab absent is up" in capsys.readouterr().err


def test_without_root_nothing_is_started_and_one_sentence_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for words in ("up", "status", "down", "build"):
        assert cli.main([words]) == cli.UNFIT
        assert "root" in capsys.readouterr().err
    assert not cache.directory().exists()


def test_help_shows_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "examples:" in said
    assert "exit codes:" in said
