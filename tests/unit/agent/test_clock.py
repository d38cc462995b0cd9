"""A node whose clock is wrong says so, by the dates of the API server's answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from hauberk_agent.clock import ClockWatch

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def heard(behind: timedelta, *, took: timedelta = timedelta(milliseconds=20)) -> str | None:
    """What is said of a clock that is behind the API server's, which dates an answer when it has been asked."""
    watch = ClockWatch()
    watch.hear(format_datetime(NOW + behind, usegmt=True), asked=NOW, answered=NOW + took)
    return watch.problem


@pytest.mark.parametrize("seconds", [-61, -5, 0, 1, 59, 61])
def test_a_clock_that_is_about_right_is_not_worth_a_word(seconds: int) -> None:
    assert heard(timedelta(seconds=seconds)) is None


def test_a_clock_that_is_wrong_is_said_in_whole_minutes() -> None:
    assert heard(timedelta(minutes=7, seconds=9)) == "this node's clock is 7 minutes behind the API server's"
    assert heard(timedelta(seconds=-75)) == "this node's clock is 1 minute ahead of the API server's"
    assert heard(timedelta(days=365)) == "this node's clock is 525600 minutes behind the API server's"


def test_a_slow_answer_makes_no_clock_wrong() -> None:
    """It was dated at any time between question and end."""
    for dated in (timedelta(0), timedelta(minutes=5)):
        assert heard(dated, took=timedelta(minutes=5)) is None


@pytest.mark.parametrize("date", [None, "", "yesterday", "Mon, 99 Jun 2026 12:00:00 GMT"])
def test_what_is_no_date_says_nothing(date: str | None) -> None:
    watch = ClockWatch()
    watch.hear(date, asked=NOW, answered=NOW)
    assert watch.problem is None


def test_a_clock_that_is_set_right_is_forgiven() -> None:
    watch = ClockWatch()
    for behind in (timedelta(hours=1), timedelta(0)):
        watch.hear(format_datetime(NOW + behind, usegmt=True), asked=NOW, answered=NOW)
    assert watch.problem is None
