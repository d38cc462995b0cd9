"""The table of an IKE SA's life."""

import pytest

from hauberk_ike.lifecycle import ANSWERED, TRANSITIONS, State, Step
from hauberk_ike.numbers import ExchangeType


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(ANSWERED) == set(State)


@pytest.mark.parametrize("state", [state for state in State if state is not State.DEAD])
def test_every_state_can_end(state: State) -> None:
    assert TRANSITIONS[state][Step.END] is State.DEAD


def test_the_dead_do_nothing() -> None:
    assert TRANSITIONS[State.DEAD] == {}
    assert not ANSWERED[State.DEAD]


def test_a_spare_ike_sa_comes_from_a_rekey_alone_and_only_an_established_one_is_replaced() -> None:
    assert not [before for before, steps in TRANSITIONS.items() if State.SPARE in steps.values()]
    assert [before for before, steps in TRANSITIONS.items() if State.REPLACED in steps.values()] == [State.ESTABLISHED]


def test_pitfall_5_only_authentication_leads_to_where_requests_are_answered() -> None:
    answering = {state for state in State if ANSWERED[state] - {ExchangeType.IKE_INTERMEDIATE, ExchangeType.IKE_AUTH}}
    assert answering == {State.ESTABLISHED, State.SPARE, State.REPLACED, State.CLOSING}
    ways_in = {
        (before, step)
        for before, steps in TRANSITIONS.items()
        for step, after in steps.items()
        if after in answering and before not in answering
    }
    assert {step for _, step in ways_in} == {Step.AUTHENTICATED, Step.CLOSE}
