"""What XFRM messages cost to build: our compiled encoder against pyroute2's own, and to apply: against `ip -batch`.

Applying is measured with policies, in a network namespace that this process makes for itself (root).
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import tempfile
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from benchmarks.measure import interleaved
from hauberk_xfrm import (
    Action,
    AddPolicy,
    DeletePolicy,
    Direction,
    Policy,
    ReqId,
    Selector,
    Template,
    Xfrm,
)
from hauberk_xfrm.encoder import encode_policy
from hauberk_xfrm.messages import UserPolicyInfo, build_body

_ANY: Final = IPv4Network("0.0.0.0/0")
_LOCAL: Final = IPv4Address("192.0.2.1")
_CLONE_NEWNET: Final = 0x40000000


def _policies(count: int) -> list[Policy]:
    networks = [IPv4Network((0x0A000000 + (number << 8), 24)) for number in range(count)]
    return [
        Policy(
            selector=Selector(source=_ANY, destination=network),
            direction=Direction.OUT,
            priority=1000,
            action=Action.ALLOW,
            templates=(Template(source=_LOCAL, destination=IPv4Address("192.0.2.2"), reqid=ReqId(number + 1)),),
        )
        for number, network in enumerate(networks)
    ]


def encoding(*, count: int, rounds: int) -> dict[str, float]:
    """Policies built per CPU second by each encoder, and the ratio."""
    policies = _policies(count)

    def ours() -> None:
        for policy in policies:
            encode_policy(policy)

    def pyroute2() -> None:
        for policy in policies:
            build_body(
                UserPolicyInfo(),
                sel_daddr=policy.selector.destination.network_address.packed,
                sel_saddr=policy.selector.source.network_address.packed,
                sel_family=2,
                sel_prefixlen_d=policy.selector.destination.prefixlen,
                sel_prefixlen_s=policy.selector.source.prefixlen,
                priority=policy.priority,
                dir=int(policy.direction),
            )

    seconds = interleaved({"ours": ours, "pyroute2": pyroute2}, rounds=rounds)
    return {
        "encode_per_second": count / seconds["ours"],
        "encode_per_second_pyroute2": count / seconds["pyroute2"],
        "encode_ratio": seconds["pyroute2"] / seconds["ours"],
    }


def applying(*, count: int, rounds: int) -> dict[str, float]:
    """Policies installed per CPU second (ours and the kernel's together), by us and by `ip -batch`, and the ratio.

    Raises PermissionError when no network namespace can be made.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        raise PermissionError("a network namespace of its own is needed to measure in: run as root")
    policies = _policies(count)
    lines = "".join(
        f"xfrm policy add src {p.selector.source} dst {p.selector.destination} dir out priority {p.priority} "
        f"tmpl src {_LOCAL} dst {p.templates[0].destination} proto esp reqid {p.templates[0].reqid} mode tunnel\n"
        for p in policies
    )
    ours: list[float] = []
    theirs: list[float] = []
    with Xfrm() as xfrm, tempfile.NamedTemporaryFile("w", suffix=".batch") as batch:
        batch.write(lines)
        batch.flush()

        def clear() -> None:
            failures = [e for e in xfrm.apply([DeletePolicy(slot=p.slot) for p in policies]) if e is not None]
            if failures:
                raise failures[0]

        for _ in range(rounds):
            ours.append(_cpu(lambda: xfrm.apply([AddPolicy(policy=p) for p in policies])))
            if len(xfrm.dump_policies()) != count:
                raise RuntimeError("the kernel has not taken every policy: there is nothing to compare")
            clear()
            theirs.append(_cpu(lambda: subprocess.run(["ip", "-batch", batch.name], check=True)))
            clear()
    return {
        "policies_per_second": count / min(ours),
        "policies_per_second_ip_batch": count / min(theirs),
        "policies_ratio": min(theirs) / min(ours),
    }


def _cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process and of the children that it waited for."""

    def now() -> float:
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime

    started = now()
    work()
    return max(now() - started, 1 / os.sysconf("SC_CLK_TCK"))
