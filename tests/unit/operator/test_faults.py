"""Fault points are where they are asked for, once, and nowhere by themselves."""

from __future__ import annotations

import signal

import pytest

from hauberk_operator import faults
from hauberk_operator.faults import FaultPoint

SECRET = "/api/v1/namespaces/hauberk-system/secrets/hauberk-ca"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The signals that a process sent itself."""
    signals: list[int] = []

    def kill(_: int, number: int) -> None:
        signals.append(number)

    monkeypatch.setattr(faults.os, "kill", kill)
    return signals


def test_no_text_is_no_fault() -> None:
    assert FaultPoint.parse("") is None


@pytest.mark.parametrize(
    "text", ["kill", "kill before PUT", "maim before PUT x", "kill during PUT x", "kill before PUT x y"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HAUBERK_FAULT="):
        FaultPoint.parse(text)


def test_the_first_write_that_fits_is_the_point(sent: list[int]) -> None:
    fault = FaultPoint.parse("kill before PUT secrets/hauberk-ca")
    assert fault is not None
    for moment, method, path in (
        ("before", "GET", SECRET),
        ("after", "PUT", SECRET),
        ("before", "PUT", "/api/v1/nodes/n1"),
    ):
        fault.reach(moment, method, path)
    assert sent == []
    fault.reach("before", "PUT", SECRET)
    fault.reach("before", "PUT", SECRET)
    assert sent == [signal.SIGKILL]


def test_a_process_can_be_made_to_stand_still(sent: list[int]) -> None:
    fault = FaultPoint.parse("stop after PATCH default/status")
    assert fault is not None
    fault.reach("after", "PATCH", "/apis/hauberk.dev/v1alpha1/ipsecmeshes/default/status")
    assert sent == [signal.SIGSTOP]
