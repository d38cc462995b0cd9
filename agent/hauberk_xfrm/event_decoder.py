"""Reads the kernel's events: ACQUIRE, EXPIRE, DELSA, FLUSHSA, FLUSHPOLICY, MAPPING and MIGRATE. For `events`; pure."""

from __future__ import annotations

from collections.abc import Callable
from socket import ntohl, ntohs
from struct import error as StructError  # noqa: N812

from hauberk_xfrm.address import ReqId, Spi, family_of
from hauberk_xfrm.attribute import Malformed, parse_attributes
from hauberk_xfrm.decoder import decode_address, decode_policy, decode_selector
from hauberk_xfrm.event import Acquire, Event, Expiry, Flush, MappingChange, PolicyFlush, Removal
from hauberk_xfrm.layout import (
    ACQUIRE_HEAD,
    ACQUIRE_TAIL,
    EXPIRE_TAIL,
    MAPPING,
    MIGRATE,
    USERPOLICY_ID,
    USERPOLICY_INFO,
    USERPOLICY_TYPE,
    USERSA_FLUSH,
    USERSA_ID,
    USERSA_INFO,
    Attribute,
    MessageType,
)
from hauberk_xfrm.migration import Migration, Move
from hauberk_xfrm.policy import Direction, PolicyType
from hauberk_xfrm.state import ESP, Mode

_ALL_PROTOCOLS = (0, 255)
"""Nothing and IPSEC_PROTO_ANY (`xfrm_id_proto_match` in include/net/xfrm.h)."""
_ACQUIRE_BYTES = ACQUIRE_HEAD.size + USERPOLICY_INFO.size + ACQUIRE_TAIL.size


def decode_event(kind: int, body: bytes) -> Event | None:
    """None for what is no event of ESP's. Raises Malformed."""
    decode = _DECODERS.get(kind)
    if decode is None:
        return None
    try:
        return decode(body)
    except (StructError, ValueError) as error:
        raise Malformed(f"an event of kind {kind} and {len(body)} bytes: {error}") from error


def _acquire(body: bytes) -> Acquire | None:
    """`build_acquire` in net/xfrm/xfrm_user.c."""
    daddr, _spi, protocol, saddr, selector_data = ACQUIRE_HEAD.unpack_from(body)
    *_, sequence = ACQUIRE_TAIL.unpack_from(body, ACQUIRE_HEAD.size + USERPOLICY_INFO.size)
    selector = decode_selector(selector_data)
    policy = decode_policy(body, at=ACQUIRE_HEAD.size, attributes_at=_ACQUIRE_BYTES)
    if protocol != ESP or selector is None or policy is None or not policy.templates:
        return None
    # Of what family the ends are only the templates tell. One that leaves its destination open gets the packet's.
    for template in policy.templates:
        family = family_of(template.destination)
        destination = decode_address(daddr, family)
        if template.protocol == ESP and (template.destination == destination or int(template.destination) == 0):
            return Acquire(
                source=decode_address(saddr, family),
                destination=destination,
                selector=selector,
                policy=policy,
                template=template,
                sequence=sequence,
            )
    return None


def _expiry(body: bytes) -> Expiry | None:
    """`build_expire`."""
    _, daddr, spi, protocol, *_, reqid, family, _, _, _ = USERSA_INFO.unpack_from(body)
    (hard,) = EXPIRE_TAIL.unpack_from(body, USERSA_INFO.size)
    if protocol != ESP:
        return None
    return Expiry(destination=decode_address(daddr, family), spi=Spi(ntohl(spi)), reqid=ReqId(reqid), hard=bool(hard))


def _removal(body: bytes) -> Removal | None:
    """`xfrm_notify_sa`, which names the state before its attributes."""
    daddr, spi, family, protocol = USERSA_ID.unpack_from(body)
    return Removal(destination=decode_address(daddr, family), spi=Spi(ntohl(spi))) if protocol == ESP else None


def _flush(body: bytes) -> Flush | None:
    """`xfrm_notify_sa_flush`."""
    (protocol,) = USERSA_FLUSH.unpack_from(body)
    return Flush() if protocol in (ESP, *_ALL_PROTOCOLS) else None


def _policy_flush(body: bytes) -> PolicyFlush | None:
    """`xfrm_notify_policy_flush`: of the main policies, where nothing else is said."""
    for kind, value in parse_attributes(body, 0):
        if kind == Attribute.POLICY_TYPE:
            number, _, _ = USERPOLICY_TYPE.unpack_from(value)
            return PolicyFlush() if number == PolicyType.MAIN else None
    return PolicyFlush()


def _mapping_change(body: bytes) -> MappingChange | None:
    """`build_mapping`; nothing but ESP has mappings."""
    daddr, spi, family, _protocol, reqid, old, new, old_port, new_port = MAPPING.unpack_from(body)
    return MappingChange(
        destination=decode_address(daddr, family),
        spi=Spi(ntohl(spi)),
        reqid=ReqId(reqid),
        old_source=decode_address(old, family),
        old_port=ntohs(old_port),
        new_source=decode_address(new, family),
        new_port=ntohs(new_port),
    )


def _migration(body: bytes) -> Migration | None:
    """`build_migrate`: a slot, and what has moved, by one attribute each or by one for all."""
    *_, _index, direction = USERPOLICY_ID.unpack_from(body)
    selector = decode_selector(body)
    moves: list[Move] = []
    policy_type = PolicyType.MAIN
    for kind, value in parse_attributes(body, USERPOLICY_ID.size):
        if kind == Attribute.MIGRATE:
            moves += [_move(value[start : start + MIGRATE.size]) for start in range(0, len(value), MIGRATE.size)]
        elif kind == Attribute.POLICY_TYPE:
            number, _, _ = USERPOLICY_TYPE.unpack_from(value)
            policy_type = PolicyType(number)
    if selector is None:
        return None
    return Migration(direction=Direction(direction), selector=selector, moves=tuple(moves), type=policy_type)


def _move(data: bytes) -> Move:
    old_daddr, old_saddr, new_daddr, new_saddr, _protocol, mode, reqid, old_family, new_family = MIGRATE.unpack(data)
    return Move(
        old_source=decode_address(old_saddr, old_family),
        old_destination=decode_address(old_daddr, old_family),
        new_source=decode_address(new_saddr, new_family),
        new_destination=decode_address(new_daddr, new_family),
        reqid=ReqId(reqid),
        mode=Mode(mode),
    )


_DECODERS: dict[int, Callable[[bytes], Event | None]] = {
    MessageType.ACQUIRE: _acquire,
    MessageType.DELSA: _removal,
    MessageType.EXPIRE: _expiry,
    MessageType.FLUSHSA: _flush,
    MessageType.FLUSHPOLICY: _policy_flush,
    MessageType.MAPPING: _mapping_change,
    MessageType.MIGRATE: _migration,
}
