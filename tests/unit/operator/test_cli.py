"""The command line says what it wants, and fails in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hauberk_operator import cli

CLEAN = {"PATH": os.environ["PATH"]}


def operator(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    program = "import sys; from hauberk_operator.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=CLEAN | (environment or {})
    )


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["uninstall", "--help"]])
def test_help_helps(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 0
    assert "hauberk-operator" in capsys.readouterr().out


def test_the_main_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert "examples:" in out
    assert "hauberk-operator uninstall --timeout 60" in out


@pytest.mark.parametrize(
    "arguments", [[], ["walk"], ["run", "--health", "nowhere"], ["run", "--health", "[::1]:99999"]]
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "uninstall"])
def test_outside_a_pod_and_without_a_kubeconfig_it_says_so(command: str) -> None:
    done = operator(command)
    assert done.returncode == 1
    assert "no API server found in the pod's service account" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = operator("run", "--kubeconfig", str(tmp_path / "none"))
    assert done.returncode == 1
    assert str(tmp_path / "none") in done.stderr
    assert "Traceback" not in done.stderr


def test_an_idle_replica_has_not_imported_kopf() -> None:
    """It costs memory that only the leader needs."""
    program = "import sys, hauberk_operator.cli; sys.exit('kopf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
