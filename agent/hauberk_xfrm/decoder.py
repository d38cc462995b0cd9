"""Reads the kernel's NEWSA and NEWPOLICY messages, of which a dump may bring tens of thousands.

Called by `Xfrm`, and by `event_decoder` for the policies and selectors in events; pure. What the kernel says of other
people's states and policies is kept as far as it tells them apart from ours; values that this package has no name for
stay numbers and never raise.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from socket import AF_INET, AF_INET6, ntohl, ntohs
from struct import error as StructError  # noqa: N812

from hauberk_xfrm.address import IpAddress, IpNetwork, ReqId, Spi
from hauberk_xfrm.attribute import Malformed, parse_attributes
from hauberk_xfrm.iptfs import IptfsIn, IptfsOut
from hauberk_xfrm.layout import (
    ALGO,
    ALGO_AEAD,
    ALGO_AUTH,
    ENCAP_TMPL,
    INFINITE,
    MARK,
    OFFLOAD,
    OFFLOAD_PACKET,
    REPLAY_STATE,
    REPLAY_STATE_ESN,
    SELECTOR,
    STATE_FLAG_AF_UNSPEC,
    STATE_FLAG_ESN,
    UDP_ENCAP_ESPINUDP,
    UINT16,
    UINT32,
    UINT64,
    USER_TMPL,
    USERPOLICY_INFO,
    USERPOLICY_TYPE,
    USERSA_INFO,
    Attribute,
)
from hauberk_xfrm.mark import NO_MARK, Mark
from hauberk_xfrm.policy import Action, Direction, Policy, PolicyFlag, PolicyType, Template
from hauberk_xfrm.selector import EXACT_PORT_MASK, Selector
from hauberk_xfrm.state import (
    ESP,
    Aead,
    Authenc,
    ExtraFlag,
    Lifetime,
    Mode,
    Offload,
    StateDirection,
    StateDump,
    StateFlag,
    UdpPorts,
)

_ALGORITHM_NAME_BYTES = 64
_NO_LIFETIME = (INFINITE, INFINITE, INFINITE, INFINITE, 0, 0)
_UNLIMITED = Lifetime()


def decode_state(body: bytes) -> StateDump | None:
    """The body of a NEWSA message; None if the state is not ESP's. Raises Malformed."""
    try:
        return _decode_state(body)
    except (StructError, ValueError) as error:
        raise Malformed(f"a state of {len(body)} bytes: {error}") from error


def decode_policy(body: bytes, *, at: int = 0, attributes_at: int = USERPOLICY_INFO.size) -> Policy | None:
    """The body of a NEWPOLICY message; None for the policy of a single socket. Raises Malformed.

    at, attributes_at: where in other messages the fixed structure and the attributes lie.
    """
    try:
        return _decode_policy(body, at, attributes_at)
    except (StructError, ValueError) as error:
        raise Malformed(f"a policy of {len(body)} bytes: {error}") from error


def decode_selector(data: bytes, *, at: int = 0) -> Selector | None:
    """A `struct xfrm_selector`; None for one of no family, which takes everything. Raises Malformed."""
    try:
        values = SELECTOR.unpack_from(data, at)
        return _selector(*values) if values[6] in (AF_INET, AF_INET6) else None
    except (StructError, ValueError) as error:
        raise Malformed(f"a selector in {len(data)} bytes: {error}") from error


def decode_address(packed: bytes, family: int) -> IpAddress:
    """An `xfrm_address_t`. Raises Malformed for a family that is neither IPv4's nor IPv6's."""
    if family not in (AF_INET, AF_INET6):
        raise Malformed(f"an address of family {family}")
    return _address(packed, family)


def _decode_state(body: bytes) -> StateDump | None:
    (
        _selector,
        daddr,
        spi,
        protocol,
        saddr,
        *limits,
        byte_count,
        packet_count,
        add_time,
        use_time,
        replay_window_packets,
        replay_packets,
        integrity_failed,
        _seq,
        reqid,
        family,
        mode,
        replay_window,
        flags,
    ) = USERSA_INFO.unpack_from(body)
    if protocol != ESP or family not in (AF_INET, AF_INET6):
        return None
    aead: Aead | None = None
    cipher: tuple[str, bytes] | None = None
    mac: tuple[str, bytes, int] | None = None
    algorithm: str | None = None
    direction: StateDirection | None = None
    encapsulation: UdpPorts | None = None
    last_used = 0
    sequence = 0
    mark = NO_MARK
    output_value = output_mask = 0
    if_id = 0
    offload: Offload | None = None
    mapping_seconds = 0
    extra_flags = 0
    iptfs: dict[int, int] = {}
    for kind, value in parse_attributes(body, USERSA_INFO.size):
        match kind:
            case Attribute.ALG_AEAD:
                name, key_bits, icv_bits = ALGO_AEAD.unpack_from(value)
                algorithm = _text(name)
                key = _key(value, ALGO_AEAD.size, key_bits)
                if key is not None:
                    aead = Aead(name=algorithm, key=key, icv_bits=icv_bits)
            case Attribute.ALG_CRYPT:
                name, key_bits = ALGO.unpack_from(value)
                algorithm = _text(name)
                key = _key(value, ALGO.size, key_bits)
                cipher = None if key is None else (algorithm, key)
            case Attribute.ALG_AUTH_TRUNC:
                name, key_bits, icv_bits = ALGO_AUTH.unpack_from(value)
                algorithm = algorithm or _text(name)
                key = _key(value, ALGO_AUTH.size, key_bits)
                mac = None if key is None else (_text(name), key, icv_bits)
            case Attribute.ALG_COMP:
                algorithm = _text(value[:_ALGORITHM_NAME_BYTES])
            case Attribute.ALG_AUTH:
                # What ALG_AUTH_TRUNC says too, for readers that know no truncated tags.
                algorithm = algorithm or _text(value[:_ALGORITHM_NAME_BYTES])
            case Attribute.REPLAY_ESN_VAL:
                _, oseq, seq, oseq_hi, seq_hi, replay_window = REPLAY_STATE_ESN.unpack_from(value)
                sequence = max(oseq_hi << 32 | oseq, seq_hi << 32 | seq)
            case Attribute.REPLAY_VAL:
                oseq, seq, _ = REPLAY_STATE.unpack_from(value)
                sequence = max(oseq, seq)
            case Attribute.ENCAP:
                encapsulation = _encapsulation(value)
            case Attribute.LASTUSED:
                (last_used,) = UINT64.unpack_from(value)
            case Attribute.SA_DIR:
                direction = StateDirection(value[0]) if value[:1] in (b"\1", b"\2") else None
            case Attribute.MARK:
                mark = _mark(value)
            case Attribute.IF_ID:
                (if_id,) = UINT32.unpack_from(value)
            case Attribute.SET_MARK:
                (output_value,) = UINT32.unpack_from(value)
            case Attribute.SET_MARK_MASK:
                (output_mask,) = UINT32.unpack_from(value)
            case Attribute.OFFLOAD_DEV:
                interface, offload_flags = OFFLOAD.unpack_from(value)
                offload = Offload(interface=interface, packet=bool(offload_flags & OFFLOAD_PACKET))
            case Attribute.SA_EXTRA_FLAGS:
                (extra_flags,) = UINT32.unpack_from(value)
            case Attribute.MTIMER_THRESH:
                (mapping_seconds,) = UINT32.unpack_from(value)
            case (
                Attribute.IPTFS_DROP_TIME
                | Attribute.IPTFS_INIT_DELAY
                | Attribute.IPTFS_MAX_QSIZE
                | Attribute.IPTFS_PKT_SIZE
            ):
                (iptfs[kind],) = UINT32.unpack_from(value)
            case Attribute.IPTFS_REORDER_WINDOW:
                (iptfs[kind],) = UINT16.unpack_from(value)
            case Attribute.IPTFS_DONT_FRAG:
                iptfs[kind] = 1
            case _:
                pass
    return StateDump(
        source=_address(saddr, family),
        destination=_address(daddr, family),
        spi=Spi(ntohl(spi)),
        reqid=ReqId(reqid),
        mode=Mode(mode),
        aead=aead,
        authenc=None if cipher is None or mac is None else _authenc(*cipher, *mac),
        replay_window=replay_window,
        esn=bool(flags & STATE_FLAG_ESN),
        direction=direction,
        flags=StateFlag(flags & ~(STATE_FLAG_ESN | STATE_FLAG_AF_UNSPEC)),
        encapsulation=encapsulation,
        lifetime=_lifetime(*limits[:6]),
        extra_flags=ExtraFlag(extra_flags),
        mark=mark,
        output_mark=Mark(value=output_value, mask=output_mask) if output_value or output_mask else NO_MARK,
        if_id=if_id,
        offload=offload,
        mapping_seconds=mapping_seconds,
        iptfs=_iptfs(iptfs),
        larval=algorithm is None,
        algorithm=algorithm,
        bytes=byte_count,
        packets=packet_count,
        add_time=add_time or None,
        use_time=use_time or None,
        last_used=last_used or None,
        sequence=sequence,
        replay_packets=replay_packets,
        replay_window_packets=replay_window_packets,
        integrity_failed=integrity_failed,
    )


def _iptfs(given: dict[int, int]) -> IptfsOut | IptfsIn | None:
    """From the numbers of the attributes that were there. A kernel shows all of a direction's."""
    if Attribute.IPTFS_DROP_TIME in given:
        return IptfsIn(
            drop_microseconds=given[Attribute.IPTFS_DROP_TIME],
            reorder_packets=given.get(Attribute.IPTFS_REORDER_WINDOW, 0),
        )
    if Attribute.IPTFS_INIT_DELAY in given:
        return IptfsOut(
            dont_fragment=Attribute.IPTFS_DONT_FRAG in given,
            init_delay_microseconds=given[Attribute.IPTFS_INIT_DELAY],
            max_queue_bytes=given.get(Attribute.IPTFS_MAX_QSIZE, 0),
            packet_bytes=given.get(Attribute.IPTFS_PKT_SIZE, 0),
        )
    return None


def _key(value: bytes, start: int, bits: int) -> bytes | None:
    """None where the kernel keeps it to itself: locked down, it shows zeros (xfrm_redact in net/xfrm/xfrm_user.c)."""
    key = value[start : start + (bits + 7) // 8]
    return key if any(key) else None


def _authenc(cipher: str, cipher_key: bytes, mac: str, mac_key: bytes, icv_bits: int) -> Authenc:
    return Authenc(cipher=cipher, cipher_key=cipher_key, mac=mac, mac_key=mac_key, icv_bits=icv_bits)


def _decode_policy(body: bytes, at: int, attributes_at: int) -> Policy | None:
    values = USERPOLICY_INFO.unpack_from(body, at)
    priority, index, direction, action, flags, _share = values[-6:]
    # A socket's own policies (IP_XFRM_POLICY) have directions of 3 and more on dumps, and netlink can't change them.
    if direction not in (Direction.IN, Direction.OUT, Direction.FWD) or values[6] not in (AF_INET, AF_INET6):
        return None
    templates: tuple[Template, ...] = ()
    mark = NO_MARK
    if_id = 0
    policy_type = PolicyType.MAIN
    for kind, value in parse_attributes(body, attributes_at):
        match kind:
            case Attribute.TMPL:
                templates = tuple(
                    _template(value[start : start + USER_TMPL.size]) for start in range(0, len(value), USER_TMPL.size)
                )
            case Attribute.MARK:
                mark = _mark(value)
            case Attribute.IF_ID:
                (if_id,) = UINT32.unpack_from(value)
            case Attribute.POLICY_TYPE:
                number, _, _ = USERPOLICY_TYPE.unpack_from(value)
                policy_type = PolicyType(number)
            case _:
                pass
    return Policy(
        selector=_selector(*values[:12]),
        direction=Direction(direction),
        priority=priority,
        action=Action.BLOCK if action == Action.BLOCK.value else Action.ALLOW,
        templates=templates,
        mark=mark,
        if_id=if_id,
        type=policy_type,
        flags=PolicyFlag(flags),
        index=index,
    )


def _selector(
    daddr: bytes,
    saddr: bytes,
    dport: int,
    dport_mask: int,
    sport: int,
    sport_mask: int,
    family: int,
    prefixlen_d: int,
    prefixlen_s: int,
    protocol: int,
    interface: int,
    user: int,
) -> Selector:
    return Selector(
        source=_network(saddr, prefixlen_s, family),
        destination=_network(daddr, prefixlen_d, family),
        protocol=protocol,
        source_port=ntohs(sport),
        destination_port=ntohs(dport),
        source_port_mask=_port_mask(ntohs(sport), ntohs(sport_mask)),
        destination_port_mask=_port_mask(ntohs(dport), ntohs(dport_mask)),
        interface=interface,
        user=user,
    )


def _template(data: bytes) -> Template:
    daddr, spi, protocol, family, saddr, reqid, mode, _share, optional, *_ = USER_TMPL.unpack(data)
    return Template(
        source=_address(saddr, family) if any(saddr) else None,
        destination=_address(daddr, family),
        reqid=ReqId(reqid),
        mode=Mode(mode),
        optional=bool(optional),
        protocol=protocol,
        spi=ntohl(spi),
    )


def _mark(data: bytes) -> Mark:
    value, mask = MARK.unpack_from(data)
    return Mark(value=value, mask=mask)


def _encapsulation(template: bytes) -> UdpPorts | None:
    """None also for other people's ways, such as TCP (RFC 9329)."""
    kind, source, destination, _ = ENCAP_TMPL.unpack_from(template)
    return UdpPorts(source=ntohs(source), destination=ntohs(destination)) if kind == UDP_ENCAP_ESPINUDP else None


def _lifetime(
    soft_bytes: int, hard_bytes: int, soft_packets: int, hard_packets: int, soft_seconds: int, hard_seconds: int
) -> Lifetime:
    limits = (soft_bytes, hard_bytes, soft_packets, hard_packets, soft_seconds, hard_seconds)
    if limits == _NO_LIFETIME:
        return _UNLIMITED
    return Lifetime(
        soft_bytes=None if soft_bytes == INFINITE else soft_bytes,
        hard_bytes=None if hard_bytes == INFINITE else hard_bytes,
        soft_packets=None if soft_packets == INFINITE else soft_packets,
        hard_packets=None if hard_packets == INFINITE else hard_packets,
        soft_seconds=soft_seconds or None,
        hard_seconds=hard_seconds or None,
    )


def _port_mask(port: int, mask: int) -> int | None:
    return None if mask == (EXACT_PORT_MASK if port else 0) else mask


def _text(name: bytes) -> str:
    return name.split(b"\0", 1)[0].decode("ascii", "replace")


# The same few thousand addresses and networks come back in every dump, and making one takes microseconds.
@lru_cache(maxsize=32768)
def _address(packed: bytes, family: int) -> IpAddress:
    return IPv4Address(packed[:4]) if family == AF_INET else IPv6Address(packed)


@lru_cache(maxsize=32768)
def _network(packed: bytes, prefix_length: int, family: int) -> IpNetwork:
    # Not strict: the kernel lets people write host bits into a selector.
    if family == AF_INET:
        return IPv4Network((packed[:4], prefix_length), strict=False)
    return IPv6Network((packed, prefix_length), strict=False)
