"""Expired states are told as the kernel says them; bytes that make no sense are passed over."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_xfrm import Expiries, Expiry, State
from hauberk_xfrm.encoder import encode_state
from hauberk_xfrm.expiry import collect, decode_expiries
from hauberk_xfrm.layout import NLMSGHDR, USERSA_INFO, MessageType
from tests.unit.xfrm.strategies import states, unhurried


def message(state: State, *, hard: bool, kind: int = MessageType.EXPIRE) -> bytes:
    """As build_expire in net/xfrm/xfrm_user.c lays it out: struct xfrm_user_expire, without attributes."""
    body = encode_state(state)[: USERSA_INFO.size] + bytes((hard,)) + bytes(7)
    return NLMSGHDR.pack(NLMSGHDR.size + len(body), kind, 0, 0, 0) + body


def expiry(state: State, *, hard: bool) -> Expiry:
    return Expiry(destination=state.destination, spi=state.spi, reqid=state.reqid, hard=hard)


@unhurried
@given(states(), states(), st.booleans())
def test_expiries_come_back_as_they_went(one: State, other: State, hard: bool) -> None:
    data = message(one, hard=hard) + message(other, hard=True, kind=MessageType.NEWSA) + message(other, hard=not hard)
    assert decode_expiries(data) == [expiry(one, hard=hard), expiry(other, hard=not hard)]


@unhurried
@given(st.binary(max_size=600), states(), st.integers(0, 300))
def test_any_bytes_are_passed_over(data: bytes, state: State, cut: int) -> None:
    decode_expiries(data)
    decode_expiries(message(state, hard=False)[:cut] + data)


def replies(*given: tuple[bytes, int] | int) -> Callable[[], tuple[bytes, tuple[int, int]]]:
    """A socket: datagrams with their sender's port id, or errnos; then nothing more."""
    left: Iterator[tuple[bytes, int] | int] = iter((*given, errno.EAGAIN))

    def receive() -> tuple[bytes, tuple[int, int]]:
        reply = next(left)
        if isinstance(reply, int):
            raise OSError(reply, "")
        return reply[0], (reply[1], 0)

    return receive


@unhurried
@given(states())
def test_what_could_not_be_held_is_said_to_be_missed(state: State) -> None:
    told = collect(replies((message(state, hard=False), 0), errno.ENOBUFS, (message(state, hard=True), 0)))
    assert told == Expiries(told=(expiry(state, hard=False), expiry(state, hard=True)), missed=True)


@unhurried
@given(states())
def test_other_processes_are_not_believed(state: State) -> None:
    assert collect(replies((message(state, hard=False), 4711))) == Expiries()


def test_a_broken_socket_is_not_silence() -> None:
    with pytest.raises(OSError, match=str(errno.EBADF)):
        collect(replies(errno.EBADF))
