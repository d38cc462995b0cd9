"""docs/reference/hauberk-ike.md says what is there, and nothing else."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from hauberk_diagnose.cli import main
from hauberk_diagnose.runner import Outcome
from hauberk_diagnose.wish import ChildWish, PeerWish, RunWish, read_wish

REFERENCE = (Path(__file__).parents[3] / "docs/reference/hauberk-ike.md").read_text()


def test_the_example_of_a_file_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", REFERENCE, re.DOTALL)
    file = tmp_path / "example.yaml"
    file.write_text(example)
    wish = read_wish(file)
    assert [peer.name for peer in wish.peers] == ["right", "gateway"]
    assert [child.label for child in wish.peers[0].children] == ["nets", "web"]
    assert wish.peers[1].psk_file == Path("gateway.psk")


@pytest.mark.parametrize("kind", [RunWish, PeerWish, ChildWish])
def test_every_key_of_a_file_is_listed(kind: type[RunWish | PeerWish | ChildWish]) -> None:
    for field in fields(kind):
        assert f"`{field.name.replace('_', '-')}`" in REFERENCE


def test_every_option_of_the_examples_exists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["initiate", "--help"])
    initiate = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["decode", "--help"])
    known = initiate + capsys.readouterr().out
    ours = re.sub(r"^ +openssl.*?(?=done|\n\n)", "", REFERENCE, flags=re.DOTALL | re.MULTILINE)
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours)):
        assert option in known, option


def test_every_command_and_exit_code_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["initiate", "--help"])
    commands = capsys.readouterr().out.split("commands, one a line")[1]
    for line in commands.splitlines()[1:]:
        if line.startswith("  "):
            assert f"`{line.split()[0]}" in REFERENCE
    for outcome in Outcome:
        assert f"| {outcome.value} |" in REFERENCE
