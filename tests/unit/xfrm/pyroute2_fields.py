"""This package's values as the fields of pyroute2's messages (`hauberk_xfrm.messages`): the second spelling that the
encoder and the decoders are held against."""

from __future__ import annotations

from typing import Any

from hauberk_xfrm import IpAddress, Mark, Move, Policy, PolicyType, Selector, Template, UdpPorts

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


def policy_fields(policy: Policy) -> dict[str, Any]:
    """The fixed structure."""
    return {
        **selector_fields(policy.selector),
        "lft_soft_byte_limit": INFINITE,
        "lft_hard_byte_limit": INFINITE,
        "lft_soft_packet_limit": INFINITE,
        "lft_hard_packet_limit": INFINITE,
        "priority": policy.priority,
        "dir": int(policy.direction),
        "action": policy.action.value,
        "flags": int(policy.flags),
    }


def policy_attributes(policy: Policy) -> list[tuple[str, Any]]:
    attributes: list[tuple[str, Any]] = []
    if policy.templates:
        array: dict[str, Any] = {}
        for position, template in enumerate(policy.templates):
            array |= template_fields(position, template)
        attributes.append(("XFRMA_TMPL", array))
    return attributes + slot_attributes(policy.mark, policy.if_id, policy.type)


def move_fields(position: int, move: Move) -> dict[str, Any]:
    fields = {
        "old_daddr": move.old_destination.packed,
        "old_saddr": move.old_source.packed,
        "new_daddr": move.new_destination.packed,
        "new_saddr": move.new_source.packed,
        "proto": 50,
        "mode": int(move.mode),
        "reqid": move.reqid,
        "old_family": family_of(move.old_source),
        "new_family": family_of(move.new_source),
    }
    return {f"m{position}_{name}": value for name, value in fields.items()}


def encapsulation_fields(ports: UdpPorts) -> dict[str, Any]:
    return {"encap_type": 2, "encap_sport": ports.source, "encap_dport": ports.destination, "encap_oa": b""}
