"""Builds the bodies of requests about states and policies, which are sent by the thousand.

Called by `Xfrm`; pure. A body is a message without its netlink header: a fixed structure, then attributes. pyroute2
builds the same bytes from `messages`, in some fifty times as long; the tests compare.
"""

from collections.abc import Sequence
from socket import AF_INET, AF_INET6, AF_UNSPEC, htonl, htons

from hauberk_xfrm.address import IpAddress, ReqId, Spi, family_of
from hauberk_xfrm.attribute import build_attribute
from hauberk_xfrm.iptfs import IptfsIn, IptfsOut
from hauberk_xfrm.layout import (
    ALGO,
    ALGO_AEAD,
    ALGO_AUTH,
    ANY_ALGORITHM,
    ENCAP_TMPL,
    INFINITE,
    LIFETIME_CUR,
    MARK,
    MIGRATE,
    OFFLOAD,
    OFFLOAD_INBOUND,
    OFFLOAD_PACKET,
    REPLAY_STATE_ESN,
    SELECTOR,
    SPI_RANGE,
    STATE_FLAG_AF_UNSPEC,
    STATE_FLAG_ESN,
    UDP_ENCAP_ESPINUDP,
    UINT16,
    UINT32,
    USER_TMPL,
    USERPOLICY_ID,
    USERPOLICY_INFO,
    USERPOLICY_TYPE,
    USERSA_ID,
    USERSA_INFO,
    Attribute,
)
from hauberk_xfrm.mark import NO_MARK, Mark
from hauberk_xfrm.migration import Migration, Move
from hauberk_xfrm.policy import Action, Direction, Policy, PolicyType, Slot, Template
from hauberk_xfrm.selector import EXACT_PORT_MASK, Selector
from hauberk_xfrm.state import ESP, Aead, Authenc, Lifetime, Mode, Offload, State, StateDirection, UdpPorts

LEGACY_REPLAY_WINDOW_MAX = 32
"""What fits into `struct xfrm_replay_state`; more needs XFRMA_REPLAY_ESN_VAL, with or without ESN."""

REPLAY_WINDOW_MAX = 4096
"""XFRMA_REPLAY_ESN_MAX."""

_NAME_MAX = 63

_NO_LIFETIME = (INFINITE, INFINITE, INFINITE, INFINITE, 0, 0, 0, 0)

# The selectors of states: empty, and of no family where the state takes both.
_EMPTY_SELECTORS: dict[int, bytes] = {
    family: SELECTOR.pack(b"", b"", 0, 0, 0, 0, family, 0, 0, 0, 0, 0) for family in (AF_UNSPEC, AF_INET, AF_INET6)
}


def encode_state(state: State) -> bytes:
    """The body of NEWSA and UPDSA. Raises ValueError for a state that has no key or cannot be written down."""
    if (state.aead is None) is (state.authenc is None):
        raise ValueError(f"{state} has {'no algorithm and no key' if state.aead is None else 'two algorithms'}")
    if not 0 <= state.replay_window <= REPLAY_WINDOW_MAX:
        raise ValueError(f"{state}: a replay window is from 0 to {REPLAY_WINDOW_MAX}, not {state.replay_window}")
    family = family_of(state.source)
    both_families = state.mode in (Mode.TUNNEL, Mode.IPTFS)
    # Kernels that know directions refuse a replay window on an outbound SA (verify_replay in net/xfrm/xfrm_user.c).
    window = 0 if state.direction is StateDirection.OUT else state.replay_window
    wide_replay = state.esn or window > LEGACY_REPLAY_WINDOW_MAX
    body = USERSA_INFO.pack(
        _EMPTY_SELECTORS[AF_UNSPEC if both_families else family],
        state.destination.packed,
        htonl(state.spi),
        ESP,
        state.source.packed,
        *(_NO_LIFETIME if state.lifetime == Lifetime() else _lifetime(state.lifetime)),
        *(0, 0, 0, 0),  # lifetime_cur
        *(0, 0, 0),  # stats
        0,  # seq
        state.reqid,
        family,
        state.mode,
        0 if wide_replay else window,
        state.flags | (STATE_FLAG_AF_UNSPEC if both_families else 0) | (STATE_FLAG_ESN if state.esn else 0),
    ) + (_aead(state.aead) if state.aead is not None else b"")
    if state.authenc is not None:
        body += _authenc(state.authenc)
    if wide_replay:
        # The bitmap itself may be left out: the kernel makes an empty one of bmp_len words.
        body += build_attribute(
            Attribute.REPLAY_ESN_VAL, REPLAY_STATE_ESN.pack((window + 31) // 32, 0, 0, 0, 0, window)
        )
    if state.encapsulation is not None:
        body += _encapsulation(state.encapsulation)
    if state.direction is not None:
        body += build_attribute(Attribute.SA_DIR, bytes((state.direction,)))
    if state.extra_flags:
        body += build_attribute(Attribute.SA_EXTRA_FLAGS, UINT32.pack(state.extra_flags))
    if state.mark != NO_MARK:
        body += _mark(state.mark)
    if state.if_id:
        body += _if_id(state.if_id)
    if state.output_mark != NO_MARK:
        body += build_attribute(Attribute.SET_MARK, UINT32.pack(state.output_mark.value))
        body += build_attribute(Attribute.SET_MARK_MASK, UINT32.pack(state.output_mark.mask))
    if state.offload is not None:
        body += _offload(state, state.offload)
    if state.mapping_seconds:
        body += build_attribute(Attribute.MTIMER_THRESH, UINT32.pack(state.mapping_seconds))
    if state.created_at is not None:
        body += build_attribute(Attribute.LTIME_VAL, LIFETIME_CUR.pack(0, 0, state.created_at, 0))
    if state.iptfs is not None:
        body += _iptfs(state.iptfs)
    return body


def encode_spi_request(
    source: IpAddress,
    destination: IpAddress,
    reqid: ReqId,
    mode: Mode,
    minimum: int,
    maximum: int,
    *,
    mark: Mark = NO_MARK,
    if_id: int = 0,
) -> bytes:
    """The body of ALLOCSPI: a larval state, the range to draw from, and its direction.

    The kernel fills in a larval state only with one of the same direction. Where it knows none it skips the attribute.
    """
    family = family_of(destination)
    larval = USERSA_INFO.pack(
        _EMPTY_SELECTORS[AF_UNSPEC],
        destination.packed,
        0,
        ESP,
        source.packed,
        *(0, 0, 0, 0, 0, 0, 0, 0),  # lifetime_cfg: the kernel has a limit of its own
        *(0, 0, 0, 0),  # lifetime_cur
        *(0, 0, 0),  # stats
        0,  # seq
        reqid,
        family,
        mode,
        0,
        0,
    )
    body = larval + SPI_RANGE.pack(minimum, maximum)
    body += build_attribute(Attribute.SA_DIR, bytes((StateDirection.IN,)))
    return body + _slot_attributes(mark, if_id, PolicyType.MAIN)


def encode_state_id(destination: IpAddress, spi: Spi, mark: Mark = NO_MARK) -> bytes:
    """The body of DELSA and GETSA."""
    body = USERSA_ID.pack(destination.packed, htonl(spi), family_of(destination), ESP)
    return body if mark == NO_MARK else body + _mark(mark)


def encode_policy(policy: Policy) -> bytes:
    """The body of NEWPOLICY and UPDPOLICY."""
    body = USERPOLICY_INFO.pack(
        *_selector(policy.selector),
        *_NO_LIFETIME,
        *(0, 0, 0, 0),  # lifetime_cur
        policy.priority,
        0,  # index: the kernel's choice
        policy.direction,
        policy.action.value,
        policy.flags,
        0,  # share
    )
    if policy.templates:
        body += build_attribute(Attribute.TMPL, b"".join([_template(template) for template in policy.templates]))
    return body + _slot_attributes(policy.mark, policy.if_id, policy.type)


def encode_socket_policy(family: int, direction: Direction, templates: Sequence[Template]) -> bytes:
    """What IP_XFRM_POLICY and IPV6_XFRM_POLICY take: a policy for all of a socket's packets, and its templates."""
    everything = (b"", b"", 0, 0, 0, 0, family, 0, 0, 0, 0, 0)
    info = USERPOLICY_INFO.pack(
        *everything,
        *_NO_LIFETIME,
        *(0, 0, 0, 0),  # lifetime_cur
        0,  # priority
        0,  # index
        direction,
        Action.ALLOW.value,
        0,  # flags
        0,  # share
    )
    return info + b"".join([_template(template) for template in templates])


def encode_policy_id(slot: Slot) -> bytes:
    """The body of DELPOLICY: the kernel looks for the policy in that slot."""
    body = USERPOLICY_ID.pack(*_selector(slot.selector), 0, slot.direction)
    return body + _slot_attributes(slot.mark, slot.if_id, slot.type)


def encode_migration(migration: Migration) -> bytes:
    """The body of MIGRATE. Raises ValueError without a move."""
    if not migration.moves:
        raise ValueError(f"{migration}nothing moves")
    body = USERPOLICY_ID.pack(*_selector(migration.selector), 0, migration.direction)
    body += build_attribute(Attribute.MIGRATE, b"".join([_move(move) for move in migration.moves]))
    if migration.encapsulation is not None:
        body += _encapsulation(migration.encapsulation)
    return body + _slot_attributes(NO_MARK, migration.if_id, migration.type)


def _move(move: Move) -> bytes:
    return MIGRATE.pack(
        move.old_destination.packed,
        move.old_source.packed,
        move.new_destination.packed,
        move.new_source.packed,
        ESP,
        move.mode,
        move.reqid,
        family_of(move.old_source),
        family_of(move.new_source),
    )


def _lifetime(lifetime: Lifetime) -> tuple[int, int, int, int, int, int, int, int]:
    def limit(value: int | None, unlimited: int) -> int:
        return unlimited if value is None else value

    return (
        limit(lifetime.soft_bytes, INFINITE),
        limit(lifetime.hard_bytes, INFINITE),
        limit(lifetime.soft_packets, INFINITE),
        limit(lifetime.hard_packets, INFINITE),
        limit(lifetime.soft_seconds, 0),
        limit(lifetime.hard_seconds, 0),
        0,
        0,
    )


def _encapsulation(ports: UdpPorts) -> bytes:
    # The original address (RFC 3948 section 3.1.2) is written and shown, but no kernel looks at it.
    template = ENCAP_TMPL.pack(UDP_ENCAP_ESPINUDP, htons(ports.source), htons(ports.destination), b"")
    return build_attribute(Attribute.ENCAP, template)


def _iptfs(iptfs: IptfsOut | IptfsIn) -> bytes:
    if isinstance(iptfs, IptfsIn):
        return build_attribute(Attribute.IPTFS_DROP_TIME, UINT32.pack(iptfs.drop_microseconds)) + build_attribute(
            Attribute.IPTFS_REORDER_WINDOW, UINT16.pack(iptfs.reorder_packets)
        )
    body = build_attribute(Attribute.IPTFS_DONT_FRAG, b"") if iptfs.dont_fragment else b""
    for kind, value in (
        (Attribute.IPTFS_INIT_DELAY, iptfs.init_delay_microseconds),
        (Attribute.IPTFS_MAX_QSIZE, iptfs.max_queue_bytes),
        (Attribute.IPTFS_PKT_SIZE, iptfs.packet_bytes),
    ):
        body += build_attribute(kind, UINT32.pack(value))
    return body


def _aead(aead: Aead) -> bytes:
    return build_attribute(
        Attribute.ALG_AEAD, ALGO_AEAD.pack(_name(aead.name), 8 * len(aead.key), aead.icv_bits) + aead.key
    )


def _authenc(authenc: Authenc) -> bytes:
    mac, cipher = _name(authenc.mac), _name(authenc.cipher)
    mac_key, cipher_key = authenc.mac_key, authenc.cipher_key
    return build_attribute(
        Attribute.ALG_AUTH_TRUNC, ALGO_AUTH.pack(mac, 8 * len(mac_key), authenc.icv_bits) + mac_key
    ) + build_attribute(Attribute.ALG_CRYPT, ALGO.pack(cipher, 8 * len(cipher_key)) + cipher_key)


def _name(name: str) -> bytes:
    encoded = name.encode("ascii")
    if not 0 < len(encoded) <= _NAME_MAX:
        raise ValueError(f"an algorithm's name has 1 to {_NAME_MAX} letters")
    return encoded


def _selector(selector: Selector) -> tuple[bytes, bytes, int, int, int, int, int, int, int, int, int, int]:
    source, destination = selector.source, selector.destination
    return (
        destination.network_address.packed,
        source.network_address.packed,
        htons(selector.destination_port),
        htons(_port_mask(selector.destination_port, selector.destination_port_mask)),
        htons(selector.source_port),
        htons(_port_mask(selector.source_port, selector.source_port_mask)),
        AF_INET if source.version == 4 else AF_INET6,
        destination.prefixlen,
        source.prefixlen,
        selector.protocol,
        selector.interface,
        selector.user,
    )


def _port_mask(port: int, mask: int | None) -> int:
    if mask is None:
        return EXACT_PORT_MASK if port else 0
    return mask


def _template(template: Template) -> bytes:
    return USER_TMPL.pack(
        template.destination.packed,
        htonl(template.spi),
        template.protocol,
        family_of(template.destination),
        b"" if template.source is None else template.source.packed,
        template.reqid,
        template.mode,
        0,  # share
        template.optional,
        ANY_ALGORITHM,
        ANY_ALGORITHM,
        ANY_ALGORITHM,
    )


def _mark(mark: Mark) -> bytes:
    return build_attribute(Attribute.MARK, MARK.pack(mark.value, mark.mask))


def _if_id(if_id: int) -> bytes:
    return build_attribute(Attribute.IF_ID, UINT32.pack(if_id))


def _offload(state: State, offload: Offload) -> bytes:
    if state.direction is None:
        raise ValueError(f"{state}: a device works on one direction, and none is given")
    flags = OFFLOAD_INBOUND if state.direction is StateDirection.IN else 0
    return build_attribute(
        Attribute.OFFLOAD_DEV, OFFLOAD.pack(offload.interface, flags | (OFFLOAD_PACKET if offload.packet else 0))
    )


def _slot_attributes(mark: Mark, if_id: int, policy_type: PolicyType) -> bytes:
    body = b""
    if mark != NO_MARK:
        body += _mark(mark)
    if if_id:
        body += _if_id(if_id)
    if policy_type is not PolicyType.MAIN:
        body += build_attribute(Attribute.POLICY_TYPE, USERPOLICY_TYPE.pack(policy_type, 0, 0))
    return body
