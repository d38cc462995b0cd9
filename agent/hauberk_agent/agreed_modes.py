"""In which mode a peer's packets go, where a tunnel may have them in IP-TFS mode and the peer may not be able to.

A policy's templates name one mode, and states of any other don't count for them. What was wanted is known from the
start; what was agreed on is known of a CHILD SA that is up. Used by the agent, pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from hauberk_agent.keeper import KERNEL_MODES
from hauberk_agent.pair import ChildSpec, Pair, PairSpec
from hauberk_ike import Mode as IkeMode
from hauberk_xfrm import Mode, Policy, ReqId


def agreed_modes(specs: Iterable[PairSpec], pairs: Iterable[Pair]) -> dict[ReqId, Mode]:
    """By request id, of the children that may be in IP-TFS mode: what is sent by, else what is there, else that."""
    modes = {child.reqid: KERNEL_MODES[IkeMode.IPTFS] for spec in specs for child in spec.children if _may(child)}
    for pair in pairs:
        for child in sorted(pair.children(), key=lambda child: child.outbound):
            if child.reqid in modes:
                modes[child.reqid] = child.mode
    return modes


def in_modes(policies: Collection[Policy], modes: Mapping[ReqId, Mode]) -> tuple[Policy, ...]:
    """The policies with the templates of those request ids in these modes."""
    if not modes:
        return tuple(policies)
    return tuple(
        replace(
            policy,
            templates=tuple(
                replace(template, mode=modes.get(template.reqid, template.mode)) for template in policy.templates
            ),
        )
        for policy in policies
    )


def _may(child: ChildSpec) -> bool:
    return child.config.mode is IkeMode.IPTFS
