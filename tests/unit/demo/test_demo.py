"""The demo's command line, where it can't even begin."""

import sys

import pytest

from tests.demo import __main__ as demo


def test_an_unfit_machine_hears_one_sentence_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HAUBERK_LAB_CACHE", "/opt/nowhere")
    monkeypatch.setattr(sys, "argv", ["demo", "--name", "unfit"])
    assert demo.main() == demo.COULD_NOT_RUN
    out, err = capsys.readouterr()
    assert out == ""
    # As root it is the cache that nodes couldn't see; others hear that first.
    assert err.count("\n") == 1
    assert "HAUBERK_LAB_CACHE" in err or "needs root" in err


def test_a_mesh_of_one_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["demo", "--nodes", "1"])
    with pytest.raises(SystemExit) as ended:
        demo.main()
    assert ended.value.code == 2
    assert "--nodes must be from 2 to 8" in capsys.readouterr().err
