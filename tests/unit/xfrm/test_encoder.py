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
    IptfsIn,
    IptfsOut,
    Mark,
    Migration,
    Mode,
    Move,
    Offload,
    Policy,
    PolicyType,
    ReqId,
    Slot,
    Spi,
    State,
    StateDirection,
)
from hauberk_xfrm.encoder import (
    encode_migration,
    encode_policy,
    encode_policy_id,
    encode_spi_request,
    encode_state,
    encode_state_id,
)
from hauberk_xfrm.messages import (
    UserPolicyId,
    UserPolicyInfo,
    UserSaId,
    UserSaInfo,
    UserSpiInfo,
    build_body,
)
from tests.unit.xfrm.pyroute2_fields import (
    encapsulation_fields,
    family_of,
    move_fields,
    or_infinite,
    policy_attributes,
    policy_fields,
    selector_fields,
    slot_attributes,
)
from tests.unit.xfrm.strategies import addresses, families, marks, migrations, policies, states, uint32, unhurried


@unhurried
@given(policies)
def test_a_policy_is_what_pyroute2_makes_of_it(policy: Policy) -> None:
    by_pyroute2 = build_body(UserPolicyInfo(), **policy_fields(policy), attrs=policy_attributes(policy))
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


def iptfs_attributes(iptfs: IptfsOut | IptfsIn) -> list[tuple[str, Any]]:
    if isinstance(iptfs, IptfsIn):
        return [
            ("XFRMA_IPTFS_DROP_TIME", iptfs.drop_microseconds),
            ("XFRMA_IPTFS_REORDER_WINDOW", iptfs.reorder_packets),
        ]
    return [
        *([("XFRMA_IPTFS_DONT_FRAG", True)] if iptfs.dont_fragment else []),
        ("XFRMA_IPTFS_INIT_DELAY", iptfs.init_delay_microseconds),
        ("XFRMA_IPTFS_MAX_QSIZE", iptfs.max_queue_bytes),
        ("XFRMA_IPTFS_PKT_SIZE", iptfs.packet_bytes),
    ]


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
        attributes.append(("XFRMA_ENCAP", encapsulation_fields(state.encapsulation)))
    if state.direction is not None:
        attributes.append(("XFRMA_SA_DIR", int(state.direction)))
    if state.extra_flags:
        attributes.append(("XFRMA_SA_EXTRA_FLAGS", int(state.extra_flags)))
    attributes += slot_attributes(state.mark, state.if_id, PolicyType.MAIN)
    if state.output_mark != Mark():
        attributes.append(("XFRMA_SET_MARK", state.output_mark.value))
        attributes.append(("XFRMA_SET_MARK_MASK", state.output_mark.mask))
    if state.offload is not None:
        flags = (2 if state.direction is StateDirection.IN else 0) | (4 if state.offload.packet else 0)
        attributes.append(("XFRMA_OFFLOAD_DEV", {"ifindex": state.offload.interface, "flags": flags}))
    if state.mapping_seconds:
        attributes.append(("XFRMA_MTIMER_THRESH", state.mapping_seconds))
    if state.created_at is not None:
        attributes.append(("XFRMA_LTIME_VAL", {"add_time": state.created_at}))
    if state.iptfs is not None:
        attributes += iptfs_attributes(state.iptfs)
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
@given(families.flatmap(addresses), uint32, marks)
def test_a_state_id_is_what_pyroute2_makes_of_it(destination: IpAddress, spi: int, mark: Mark) -> None:
    by_pyroute2 = build_body(
        UserSaId(),
        daddr=destination.packed,
        spi=spi,
        family=family_of(destination),
        proto=50,
        attrs=slot_attributes(mark, 0, PolicyType.MAIN),
    )
    assert encode_state_id(destination, Spi(spi), mark) == by_pyroute2


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
        attrs=[("XFRMA_SA_DIR", 1), *slot_attributes(state.mark, state.if_id, PolicyType.MAIN)],
    )
    ours = encode_spi_request(
        state.source,
        state.destination,
        state.reqid,
        state.mode,
        minimum,
        maximum,
        mark=state.mark,
        if_id=state.if_id,
    )
    assert ours == by_pyroute2


@unhurried
@given(migrations)
def test_a_migration_is_what_pyroute2_makes_of_it(migration: Migration) -> None:
    array: dict[str, Any] = {}
    for position, move in enumerate(migration.moves):
        array |= move_fields(position, move)
    attributes: list[tuple[str, Any]] = [("XFRMA_MIGRATE", array)]
    if migration.encapsulation is not None:
        attributes.append(("XFRMA_ENCAP", encapsulation_fields(migration.encapsulation)))
    by_pyroute2 = build_body(
        UserPolicyId(),
        **selector_fields(migration.selector),
        dir=int(migration.direction),
        attrs=attributes + slot_attributes(Mark(), migration.if_id, migration.type),
    )
    assert encode_migration(migration) == by_pyroute2


@unhurried
@given(migrations)
def test_a_migration_that_moves_nothing_is_refused(migration: Migration) -> None:
    with pytest.raises(ValueError, match="nothing moves"):
        encode_migration(replace(migration, moves=()))


def test_a_move_has_ends_of_one_family() -> None:
    old, new = ip_address("192.0.2.1"), ip_address("2001:db8::1")
    Move(old_source=old, old_destination=old, new_source=new, new_destination=new, reqid=ReqId(1))
    with pytest.raises(ValueError, match="families"):
        Move(old_source=old, old_destination=old, new_source=new, new_destination=old, reqid=ReqId(1))


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
        ({"offload": Offload(interface=1)}, "a device works on one direction"),
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
