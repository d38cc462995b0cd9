"""What the kernel reports is read back as what was written, and bytes that make no sense raise one error."""

from __future__ import annotations

import dataclasses
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from hauberk_xfrm import Mode, Policy, State, StateDirection
from hauberk_xfrm.attribute import Malformed, build_attribute, parse_attributes
from hauberk_xfrm.decoder import decode_policy, decode_state
from hauberk_xfrm.encoder import encode_policy, encode_state
from hauberk_xfrm.layout import USERPOLICY_INFO, USERSA_INFO, Attribute
from tests.unit.xfrm.strategies import policies, states, unhurried


def name_of(state: State) -> str | None:
    return state.aead.name if state.aead else state.authenc.cipher if state.authenc else None


_COMPARED = [field.name for field in dataclasses.fields(State) if field.name not in ("replay_window", "created_at")]


@unhurried
@given(policies)
def test_a_policy_comes_back_as_it_went(policy: Policy) -> None:
    decoded = decode_policy(encode_policy(policy))
    assert decoded == policy
    assert decoded is not None
    assert decoded.slot == policy.slot


@unhurried
@given(states())
def test_a_state_comes_back_as_it_went(state: State) -> None:
    decoded = decode_state(encode_state(state))
    assert decoded is not None
    for name in _COMPARED:
        assert getattr(decoded, name) == getattr(state, name), name
    assert decoded.replay_window == (0 if state.direction is StateDirection.OUT else state.replay_window)
    assert decoded.as_written() == dataclasses.replace(state, replay_window=decoded.replay_window, created_at=None)
    assert not decoded.larval
    assert decoded.algorithm == name_of(state)


@unhurried
@given(states())
def test_a_key_that_the_kernel_hides_is_no_key(state: State) -> None:
    hidden = dataclasses.replace(
        state,
        aead=state.aead and dataclasses.replace(state.aead, key=bytes(20)),
        authenc=state.authenc and dataclasses.replace(state.authenc, cipher_key=bytes(16), mac_key=bytes(32)),
    )
    decoded = decode_state(encode_state(hidden))
    assert decoded is not None
    assert decoded.aead is None
    assert decoded.authenc is None
    assert decoded.algorithm == name_of(state)
    assert not decoded.larval


@unhurried
@given(states())
def test_a_state_without_an_algorithm_is_larval(state: State) -> None:
    decoded = decode_state(encode_state(state)[: USERSA_INFO.size])
    assert decoded is not None
    assert decoded.larval
    assert decoded.algorithm is None


@unhurried
@given(states())
def test_other_peoples_algorithms_have_a_name_and_are_not_larval(state: State) -> None:
    authentication = build_attribute(Attribute.ALG_AUTH_TRUNC, b"hmac(sha256)".ljust(64, b"\0") + bytes(8 + 32))
    encryption = build_attribute(Attribute.ALG_CRYPT, b"cbc(aes)".ljust(64, b"\0") + bytes(4 + 16))
    decoded = decode_state(encode_state(state)[: USERSA_INFO.size] + authentication + encryption)
    assert decoded is not None
    assert decoded.algorithm == "cbc(aes)"
    assert not decoded.larval
    assert decoded.aead is None
    assert decoded.authenc is None  # its keys are zeros


def test_a_tag_of_no_known_length_is_no_algorithm_of_ours() -> None:
    # An older kernel's state: a MAC without XFRMA_ALG_AUTH_TRUNC. It has a name, and no more is known.
    authentication = build_attribute(Attribute.ALG_AUTH, b"hmac(sha256)".ljust(64, b"\0") + b"\0\1\0\0" + b"k" * 32)
    encryption = build_attribute(Attribute.ALG_CRYPT, b"cbc(aes)".ljust(64, b"\0") + b"\x80\0\0\0" + b"k" * 16)
    body = bytearray(USERSA_INFO.size)
    body[76] = 50
    body[212:214] = b"\2\0"
    decoded = decode_state(bytes(body) + authentication + encryption)
    assert decoded is not None
    assert (decoded.algorithm, decoded.authenc) == ("cbc(aes)", None)


@unhurried
@given(states(), st.integers(6, 255))
def test_a_mode_of_a_future_kernel_is_a_number_and_no_error(state: State, number: int) -> None:
    body = bytearray(encode_state(state))
    body[214] = number  # struct xfrm_usersa_info.mode
    decoded = decode_state(bytes(body))
    assert decoded is not None
    assert decoded.mode == number
    assert Mode(number) == decoded.mode


@unhurried
@given(policies, st.integers(3, 255))
def test_a_policy_of_a_single_socket_is_not_shown(policy: Policy, direction: int) -> None:
    body = bytearray(encode_policy(policy))
    body[160] = direction  # struct xfrm_userpolicy_info.dir
    assert decode_policy(bytes(body)) is None


@unhurried
@given(st.binary(max_size=USERSA_INFO.size + 200))
def test_any_bytes_are_a_state_or_malformed(data: bytes) -> None:
    with suppress(Malformed):
        decode_state(data)


@unhurried
@given(st.binary(min_size=USERSA_INFO.size, max_size=USERSA_INFO.size + 200))
def test_any_attributes_are_a_state_or_malformed(data: bytes) -> None:
    # Protocol and family are what the decoder looks at first: make them ESP and IPv4.
    body = bytearray(data)
    body[76] = 50
    body[212:214] = b"\2\0"
    with suppress(Malformed):
        decode_state(bytes(body))


@unhurried
@given(st.binary(min_size=USERPOLICY_INFO.size, max_size=USERPOLICY_INFO.size + 200))
def test_any_bytes_are_a_policy_or_malformed(data: bytes) -> None:
    body = bytearray(data)
    body[40:42] = b"\2\0"
    body[160] = 1
    with suppress(Malformed):
        decode_policy(bytes(body))


@unhurried
@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=20))))
def test_attributes_come_back_as_they_went(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(build_attribute(kind, value) for kind, value in pairs)
    assert list(parse_attributes(data, 0)) == pairs


@unhurried
@given(policies, st.data())
def test_a_policy_that_ends_early_is_malformed_or_shorter(policy: Policy, data: st.DataObject) -> None:
    body = encode_policy(policy)
    cut = data.draw(st.integers(0, len(body) - 1))
    try:
        decode_policy(body[:cut])
    except Malformed:
        return
    assert cut >= USERPOLICY_INFO.size
