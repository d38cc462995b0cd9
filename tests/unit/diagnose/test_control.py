"""Commands, without sockets: which are carried out, when they are answered, and with what."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from hauberk_diagnose.configuration import Peer
from hauberk_diagnose.control import WAIT_SECONDS, Control
from hauberk_diagnose.installation import NoInstallation
from hauberk_diagnose.report import Reporter
from tests.unit.ike.party import Pair


class Story:
    """Alice's commands; Bob does as he is asked."""

    def __init__(self) -> None:
        self.pair = Pair()
        self.output = io.StringIO()
        self.control = Control(
            self.pair.alice.endpoint,
            (Peer(config=self.pair.alice_peer),),
            NoInstallation(),
            Reporter(as_json=True, output=self.output),
        )
        self._seen = 0

    def submit(self, line: str) -> None:
        self.control.submit(line, now=self.pair.now)

    def settle(self) -> None:
        """Lets both talk until they are silent, and the control see what happened."""
        self.pair.settle()
        events = self.pair.alice.events
        for event in events[self._seen :]:
            self.control.observe(event)
        self._seen = len(events)

    @property
    def answers(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.getvalue().splitlines()]

    def outcomes(self) -> list[tuple[str, bool]]:
        return [(answer["command"], answer["ok"]) for answer in self.answers]


@pytest.fixture
def story() -> Story:
    return Story()


def test_a_command_is_answered_when_it_has_come_to_its_end(story: Story) -> None:
    story.submit("initiate bob")
    assert story.control.busy
    assert not story.answers
    assert len(story.control.attempts) == 1
    story.settle()
    assert story.outcomes() == [("initiate bob", True)]
    assert not story.control.busy
    assert not story.control.attempts


def test_a_whole_life(story: Story) -> None:
    lines = [
        "initiate",
        "create-child tunnel-1",
        "rekey-child",
        "rekey-ike",
        "reauthenticate",
        "delete-child",
        "delete",
    ]
    for line in lines:
        story.submit(line)
        story.settle()
    assert story.outcomes() == [(line, True) for line in lines]
    assert [answer["answer"] for answer in story.answers] == list(range(1, 8))
    assert not story.control.failed


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("initiate carol", "no peer 'carol' in the configuration"),
        ("create-child other", "bob has no child 'other' in the configuration"),
        ("rekey-child other", "there is no CHILD SA other"),
        ("delete-child c0ffee00", "there is no CHILD SA c0ffee00"),
        ("rekey-ike 99", "there is no IKE SA 99"),
        ("delete one two", "'delete' with 2 arguments is no command"),
        ("nonsense", "'nonsense' with 0 arguments is no command"),
        ("wait long", "'wait' with 1 arguments is no command"),
    ],
)
def test_what_cannot_be_carried_out_is_answered_at_once(story: Story, line: str, reason: str) -> None:
    story.submit("initiate")
    story.settle()
    story.submit(line)
    answer = story.answers[-1]
    assert (answer["command"], answer["ok"]) == (line, False)
    assert reason in answer["reason"]
    assert story.control.failed


def test_nothing_to_do_it_with(story: Story) -> None:
    for line in ("rekey-child", "delete-child", "rekey-ike", "reauthenticate", "delete"):
        story.submit(line)
    reasons = [answer["reason"] for answer in story.answers]
    assert reasons == ["there is no CHILD SA"] * 2 + ["there is no IKE SA"] * 3


def test_comments_and_empty_lines_are_nothing(story: Story) -> None:
    for line in ("", "   ", "# delete"):
        story.submit(line)
    assert not story.answers


def test_in_the_background_nobody_waits(story: Story) -> None:
    story.submit("initiate &")
    assert not story.control.busy
    story.settle()
    assert story.outcomes() == [("initiate &", True)]


def test_a_peer_that_does_not_answer(story: Story) -> None:
    story.submit("initiate")
    for _ in range(5):
        story.pair.lose(story.pair.alice)  # --> IKE_SA_INIT, lost
        story.pair.wait(60)
    story.settle()
    assert story.answers[0]["reason"] == "no answer"


def test_waiting_is_over_when_its_time_is(story: Story) -> None:
    story.submit("wait 2.5")
    assert story.control.next_due() == story.pair.now + 2.5
    story.control.handle_timer(story.pair.now + 2.4)
    assert not story.answers
    story.control.handle_timer(story.pair.now + 2.5)
    assert story.outcomes() == [("wait 2.5", True)]


def test_what_takes_too_long_has_failed(story: Story) -> None:
    story.submit("initiate")
    story.control.handle_timer(story.pair.now + WAIT_SECONDS)
    assert story.answers[0]["reason"] == "no end after 120 s"


def test_the_end_of_the_run_ends_what_waits(story: Story) -> None:
    story.submit("initiate")
    story.control.abandon("the run ends")
    assert story.answers[0]["reason"] == "the run ends"


def test_status_shows_what_there_is_and_no_key(story: Story) -> None:
    story.submit("initiate")
    story.settle()
    story.submit("status")
    (sa,) = story.answers[-1]["ike_sas"]
    assert (sa["peer"], sa["initiator"], sa["established_seconds"]) == ("bob", True, 0.0)
    assert [child["label"] for child in sa["children"]] == ["tunnel-1"]
    assert "key" not in story.output.getvalue()


def test_quit_is_for_the_run_to_see(story: Story) -> None:
    story.submit("quit")
    assert story.control.wants_to_quit
    assert story.outcomes() == [("quit", True)]
