"""What is programmed: states and policies as a node with many peers has them, as values and as lines of `ip -batch`."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Final

from hauberk_xfrm import Action, Aead, Direction, Policy, ReqId, Selector, Spi, State, Template

MOST: Final = 60_000
"""More peers than that have no /24 of their own."""
_ANY: Final = IPv4Network("0.0.0.0/0")
_LOCAL: Final = IPv4Address("192.0.2.1")
_PRIORITY: Final = 1000


def policies(count: int) -> list[Policy]:
    """Outbound, one for each peer's pods, with a template each."""
    return [
        Policy(
            selector=Selector(source=_ANY, destination=IPv4Network((0x0A000000 + (number << 8), 24))),
            direction=Direction.OUT,
            priority=_PRIORITY,
            action=Action.ALLOW,
            templates=(Template(source=_LOCAL, destination=_peer(number), reqid=ReqId(number + 1)),),
        )
        for number in range(count)
    ]


def states(count: int) -> list[State]:
    """Outbound, one for each peer, AES-GCM-128 and ESN; without a direction, which not every iproute2 can write."""
    return [
        State(
            source=_LOCAL,
            destination=_peer(number),
            spi=Spi(0xC0000000 + number),
            reqid=ReqId(number + 1),
            aead=Aead(name="rfc4106(gcm(aes))", key=(number + 1).to_bytes(20), icv_bits=128),
        )
        for number in range(count)
    ]


def policy_line(policy: Policy) -> str:
    (template,) = policy.templates
    return (
        f"xfrm policy add src {policy.selector.source} dst {policy.selector.destination} dir out"
        f" priority {policy.priority}"
        f" tmpl src {template.source} dst {template.destination} proto esp reqid {template.reqid} mode tunnel\n"
    )


def state_line(state: State) -> str:
    if state.aead is None:
        raise ValueError(f"{state} has no key")
    return (
        f"xfrm state add src {state.source} dst {state.destination} proto esp spi {state.spi:#x} reqid {state.reqid}"
        f" mode tunnel replay-window {state.replay_window} flag esn flag af-unspec"
        f" aead {state.aead.name} 0x{state.aead.key.hex()} {state.aead.icv_bits}\n"
    )


def _peer(number: int) -> IPv4Address:
    return IPv4Address(0xC6120000 + number)  # 198.18.0.0/15, for benchmarks (RFC 2544)
