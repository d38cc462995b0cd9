"""What becomes of a packet by a node's policies, by the kernel's own rules of choice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from hauberk_xfrm import Action, Direction, Policy

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """`ports` are the source's and the destination's; of ICMP type and code; of a fragment (0, 0)."""

    source: str
    destination: str
    protocol: int = UDP
    ports: tuple[int, int] = (40000, 40000)


def tcp(source: str, destination: str, *ports: int) -> Packet:
    return Packet(source=source, destination=destination, protocol=TCP, ports=(ports[0], ports[1]))


def udp(source: str, destination: str, *ports: int) -> Packet:
    return Packet(source=source, destination=destination, protocol=UDP, ports=(ports[0], ports[1]))


def matches(policy: Policy, direction: Direction, packet: Packet) -> bool:
    """`__xfrm4_selector_match` and `__xfrm6_selector_match` in net/xfrm/xfrm_policy.c."""
    selector = policy.selector
    return (
        policy.direction is direction
        and ip_address(packet.source) in selector.source
        and ip_address(packet.destination) in selector.destination
        and selector.protocol in (0, packet.protocol)
        and _port(packet.ports[0], selector.source_port, selector.source_port_mask)
        and _port(packet.ports[1], selector.destination_port, selector.destination_port_mask)
    )


def _port(port: int, wanted: int, mask: int | None) -> bool:
    return not (port ^ wanted) & (mask if mask is not None else 0xFFFF if wanted else 0)


def outcome(policies: Iterable[Policy], direction: Direction, packet: Packet) -> str:
    """ "clear" without a policy or exempt, "block", or "protect REQID"; "may protect REQID" where that is optional."""
    matching = [policy for policy in policies if matches(policy, direction, packet)]
    if not matching:
        return "clear"
    best = min(policy.priority for policy in matching)
    outcomes = {_of(policy) for policy in matching if policy.priority == best}
    assert len(outcomes) == 1, f"the kernel could choose any of {[p for p in matching if p.priority == best]}"
    return outcomes.pop()


def _of(policy: Policy) -> str:
    if policy.action is Action.BLOCK:
        return "block"
    if not policy.templates:
        return "clear"
    (template,) = policy.templates
    return f"{'may protect' if template.optional else 'protect'} {template.reqid:x}"
