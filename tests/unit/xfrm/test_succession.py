"""The seconds that outbound states are said to have been created in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hauberk_xfrm import ReqId
from hauberk_xfrm.succession import Succession


@given(st.lists(st.floats(1.0, 2.0**40), min_size=1), st.integers(0, 2**40))
def test_each_is_later_than_those_before_and_none_before_the_clock(times: list[float], found: int) -> None:
    now = 0.0
    succession = Succession(lambda: now)
    succession.take_over(ReqId(1), found)
    last = found
    for now in times:
        created_at = succession.next(ReqId(1))
        assert created_at > last
        assert created_at >= int(now)
        last = created_at


def test_request_ids_have_nothing_to_do_with_each_other_nor_with_what_was_forgotten() -> None:
    succession = Succession(lambda: 100.9)
    succession.take_over(ReqId(1), 500)
    succession.take_over(ReqId(1), 400)
    assert succession.next(ReqId(2)) == 100
    assert succession.next(ReqId(1)) == 501
    succession.forget(ReqId(1))
    succession.forget(ReqId(3))
    assert succession.next(ReqId(1)) == 100
