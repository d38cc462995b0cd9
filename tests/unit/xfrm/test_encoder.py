"""The compiled encoder builds, byte for byte, what pyroute2 builds from the definitions in `messages`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given

from hauberk_xfrm import (
    Aead,
    Authenc,
    IpAddress,
    Mark,
    Mode,
    Policy,
    PolicyType,
    ReqId,
    Selector,
    Slot,
    Spi,
    State,
    StateDirection,
    Template,
)
from hauberk_xfrm.encoder import encode_policy, encode_policy_id, encode_spi_request, encode_state, encode_state_id
from hauberk_xfrm.messages import UserPolicyId, UserPolicyInfo, UserSaId, UserSaInfo, UserSpiInfo, build_body
from tests.unit.xfrm.strategies import addresses, families, policies, states, uint32, unhurried

AF_INET, AF_INET6 = 2, 10
INFINITE = 2**64 - 1


def family_of(address: IpAddress) -> int:
    return AF_INET if address.version == 4 else AF_INET6


def or_infinite(limit: int | None) -> int:
    return INFINITE if limit is None else limit


def port_mask(port: int, mask: int | None) -> int:
    return mask if mask is not None else 0xFFFF if port else 0


def selector_fields(selector: Selector) -> dict[str, Any]:
    return {
        "sel_daddr": selector.destination.network_address.packed,
        "sel_saddr": selector.source.network_address.packed,
        "sel_dport": selector.destination_port,
        "sel_dport_mask": port_mask(selector.destination_port, selector.destination_port_mask),
        "sel_sport": selector.source_port,
        "sel_sport_mask": port_mask(selector.source_port, selector.source_port_mask),
        "sel_family": AF_INET if selector.source.version == 4 else AF_INET6,
        "sel_prefixlen_d": selector.destination.prefixlen,
        "sel_prefixlen_s": selector.source.prefixlen,
        "sel_proto": selector.protocol,
        "sel_ifindex": selector.interface,
        "sel_user": selector.user,
    }


def template_fields(position: int, template: Template) -> dict[str, Any]:
    fields = {
        "id_daddr": template.destination.packed,
        "id_spi": template.spi,
        "id_proto": template.protocol,
        "family": family_of(template.destination),
        "saddr": template.source.packed if template.source else b"",
        "reqid": template.reqid,
        "mode": int(template.mode),
        "optional": int(template.optional),
        "aalgos": 0xFFFFFFFF,
        "ealgos": 0xFFFFFFFF,
        "calgos": 0xFFFFFFFF,
    }
    return {f"t{position}_{name}": value for name, value in fields.items()}


def slot_attributes(mark: Mark, if_id: int, policy_type: PolicyType) -> list[tuple[str, Any]]:
    attributes: list[tuple[str, Any]] = []
    if mark != Mark():
        attributes.append(("XFRMA_MARK", {"v": mark.value, "m": mark.mask}))
    if if_id:
        attributes.append(("XFRMA_IF_ID", if_id))
    if policy_type is not PolicyType.MAIN:
        attributes.append(("XFRMA_POLICY_TYPE", {"type": int(policy_type)}))
    return attributes


@unhurried
@given(policies)
def test_a_policy_is_what_pyroute2_makes_of_it(policy: Policy) -> None:
    attributes: list[tuple[str, Any]] = []
    if policy.templates:
        array: dict[str, Any] = {}
        for position, template in enumerate(policy.templates):
            array |= template_fields(position, template)
        attributes.append(("XFRMA_TMPL", array))
    by_pyroute2 = build_body(
        UserPolicyInfo(),
        **selector_fields(policy.selector),
        lft_soft_byte_limit=INFINITE,
        lft_hard_byte_limit=INFINITE,
        lft_soft_packet_limit=INFINITE,
        lft_hard_packet_limit=INFINITE,
        priority=policy.priority,
        dir=int(policy.direction),
        action=policy.action.value,
        flags=int(policy.flags),
        attrs=attributes + slot_attributes(policy.mark, policy.if_id, policy.type),
    )
    assert encode_policy(policy) == by_pyroute2


@unhurried
@given(policies)
def test_a_slot_is_what_pyroute2_makes_of_it(policy: Policy) -> None:
    slot: Slot = policy.slot
    by_pyroute2 = build_body(
        UserPolicyId(),
        **selector_fields(slot.selector),
        dir=int(slot.direction),
        attrs=slot_attributes(slot.mark, slot.if_id, slot.type),
    )
    assert encode_policy_id(slot) == by_pyroute2


def algorithm_attributes(state: State) -> list[tuple[str, Any]]:
    if state.aead is not None:
        aead = {
            "alg_name": state.aead.name.encode(),
            "alg_key_len": 8 * len(state.aead.key),
            "alg_icv_len": state.aead.icv_bits,
            "alg_key": state.aead.key,
        }
        return [("XFRMA_ALG_AEAD", aead)]
    assert state.authenc is not None
    mac = {
        "alg_name": state.authenc.mac.encode(),
        "alg_key_len": 8 * len(state.authenc.mac_key),
        "alg_trunc_len": state.authenc.icv_bits,
        "alg_key": state.authenc.mac_key,
    }
    cipher = {
        "alg_name": state.authenc.cipher.encode(),
        "alg_key_len": 8 * len(state.authenc.cipher_key),
        "alg_key": state.authenc.cipher_key,
    }
    return [("XFRMA_ALG_AUTH_TRUNC", mac), ("XFRMA_ALG_CRYPT", cipher)]


@unhurried
@given(states())
def test_a_state_is_what_pyroute2_makes_of_it(state: State) -> None:
    both_families = state.mode in (Mode.TUNNEL, Mode.IPTFS)
    window = 0 if state.direction is StateDirection.OUT else state.replay_window
    attributes = algorithm_attributes(state)
    wide = state.esn or window > 32
    if wide:
        attributes.append(("XFRMA_REPLAY_ESN_VAL", {"bmp_len": -(-window // 32), "replay_window": window}))
    if state.encapsulation is not None:
        ports = {"encap_sport": state.encapsulation.source, "encap_dport": state.encapsulation.destination}
        attributes.append(("XFRMA_ENCAP", {"encap_type": 2, **ports, "encap_oa": b""}))
    if state.direction is not None:
        attributes.append(("XFRMA_SA_DIR", int(state.direction)))
    by_pyroute2 = build_body(
        UserSaInfo(),
        sel_family=0 if both_families else family_of(state.source),
        id_daddr=state.destination.packed,
        id_spi=state.spi,
        id_proto=50,
        saddr=state.source.packed,
        lft_soft_byte_limit=or_infinite(state.lifetime.soft_bytes),
        lft_hard_byte_limit=or_infinite(state.lifetime.hard_bytes),
        lft_soft_packet_limit=or_infinite(state.lifetime.soft_packets),
        lft_hard_packet_limit=or_infinite(state.lifetime.hard_packets),
        lft_soft_add_expires_seconds=state.lifetime.soft_seconds or 0,
        lft_hard_add_expires_seconds=state.lifetime.hard_seconds or 0,
        reqid=state.reqid,
        family=family_of(state.source),
        mode=int(state.mode),
        replay_window=0 if wide else window,
        flags=int(state.flags) | (32 if both_families else 0) | (128 if state.esn else 0),
        attrs=attributes,
    )
    assert encode_state(state) == by_pyroute2


@unhurried
@given(families.flatmap(addresses), uint32)
def test_a_state_id_is_what_pyroute2_makes_of_it(destination: IpAddress, spi: int) -> None:
    by_pyroute2 = build_body(UserSaId(), daddr=destination.packed, spi=spi, family=family_of(destination), proto=50)
    assert encode_state_id(destination, Spi(spi)) == by_pyroute2


@unhurried
@given(states(), uint32, uint32)
def test_a_request_for_an_spi_is_what_pyroute2_makes_of_it(state: State, minimum: int, maximum: int) -> None:
    by_pyroute2 = build_body(
        UserSpiInfo(),
        id_daddr=state.destination.packed,
        id_proto=50,
        saddr=state.source.packed,
        reqid=state.reqid,
        family=family_of(state.source),
        mode=int(state.mode),
        min=minimum,
        max=maximum,
        attrs=[("XFRMA_SA_DIR", 1)],
    )
    ours = encode_spi_request(state.source, state.destination, state.reqid, state.mode, minimum, maximum)
    assert ours == by_pyroute2


CBC = Authenc(cipher="cbc(aes)", cipher_key=b"topsecret cipher", mac="hmac(sha256)", mac_key=b"topsecret", icv_bits=128)


def state_with(**changes: Any) -> State:
    fields: dict[str, Any] = {
        "source": ip_address("192.0.2.1"),
        "destination": ip_address("192.0.2.2"),
        "spi": Spi(0xC0000001),
        "reqid": ReqId(1),
        "aead": Aead(name="rfc4106(gcm(aes))", key=b"k" * 20, icv_bits=128),
    }
    return State(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aead": None}, "no algorithm and no key"),
        ({"authenc": CBC}, "two algorithms"),
        ({"aead": None, "authenc": replace(CBC, mac="x" * 64)}, "an algorithm's name"),
        ({"aead": None, "authenc": replace(CBC, cipher="")}, "an algorithm's name"),
        ({"replay_window": 4097}, "a replay window is from 0 to 4096"),
        ({"aead": Aead(name="x" * 64, key=b"k", icv_bits=128)}, "an algorithm's name"),
        ({"aead": Aead(name="", key=b"k", icv_bits=128)}, "an algorithm's name"),
    ],
)
def test_a_state_that_cannot_be_written_down_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        encode_state(state_with(**changes))


def test_keys_are_in_no_repr_and_no_text() -> None:
    state = state_with(aead=Aead(name="rfc4106(gcm(aes))", key=b"topsecrettopsecret!!", icv_bits=128))
    for each in (state, replace(state, aead=None, authenc=CBC)):
        assert "topsecret" not in repr(each)
        assert "topsecret" not in str(each)


@dataclass(frozen=True)
class Keys:
    """What IKE hands over."""

    encryption: str
    key: bytes
    icv_bits: int
    integrity: str = ""
    integrity_key: bytes = b""
    integrity_bits: int = 0


def test_ikes_keys_become_one_algorithm_or_the_other() -> None:
    gcm = Keys("rfc4106(gcm(aes))", b"key and salt", 128)
    assert (Aead.of(gcm), Authenc.of(gcm)) == (
        Aead(name="rfc4106(gcm(aes))", key=b"key and salt", icv_bits=128),
        None,
    )
    cbc = Keys("cbc(aes)", b"topsecret cipher", 0, "hmac(sha256)", b"topsecret", 128)
    assert (Aead.of(cbc), Authenc.of(cbc)) == (None, CBC)
