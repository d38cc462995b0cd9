"""What the opt-in boot guard of this node's host loads before kubelet starts, and whether it did so at this boot.

A kernel that has just booted has no policies, and a pod may start before the agent does. So the agent keeps a file
beside its cached plan, from which a unit of the host makes policies with the host's own `ip`
(charts/hauberk/files/boot-guard). What needs keys is a block there, in the same slot and of the same priority: the
agent recognises it as its own by its band, and updates it in place. Exemptions are as the agent's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from hauberk_agent.interception import without_device
from hauberk_agent.policy import desired_policies
from hauberk_agent.reqid import ChildKey
from hauberk_agent.roster import Roster
from hauberk_agent.statefile import read_if_present, write_atomically
from hauberk_api.plan import Phase, reached
from hauberk_api.report import BootGuardState
from hauberk_xfrm import Action, Policy, ReqId, Slot

_log = logging.getLogger("hauberk.boot_guard")

FILE: Final = "guard.xfrm"
MARK: Final = "guard.loaded"
"""Left by the host's unit: the boot's id, how many policies there were to load, and how many were loaded."""
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

_WITH_PORTS: Final = frozenset({6, 17, 33, 132})
"""The protocols of which `ip xfrm policy` takes ports: TCP, UDP, DCCP, SCTP."""
_WITH_TYPES: Final = frozenset({1, 58})
"""Those of which it takes a type and a code: ICMP and ICMPv6."""


class BootGuard:
    """The file, and what the host's unit has left of it."""

    def __init__(self, directory: Path, *, wanted: bool) -> None:
        """wanted: whether a file is kept at all; else one that is there is removed."""
        self._path = directory / FILE
        self._mark = directory / MARK
        self._wanted = wanted
        self._kept: bytes | None = None
        self.there = self._path.exists()
        """Whether there is a file: as long as there is, the host's unit stays."""

    def keep(self, policies: Iterable[Policy]) -> None:
        """Makes the file follow the node's policies. Raises OSError."""
        guard = guard_policies(policies) if self._wanted else ()
        if not guard:
            self._path.unlink(missing_ok=True)
            self._kept, self.there = None, False
            return
        content = render(guard)
        if content == self._kept or content == read_if_present(self._path):
            self._kept = content
            return
        write_atomically(self._path, content)
        self._kept, self.there = content, True

    def found(self) -> BootGuardState:
        """What the guard has done at this boot of the host."""
        try:
            mark = read_if_present(self._mark)
            boot = BOOT_ID.read_text().strip()
        except OSError as error:
            _log.warning("what the boot guard did can't be read: %s", error)
            return BootGuardState.ABSENT
        return _state(mark.decode(errors="replace").split() if mark is not None else [], boot)


def _state(mark: list[str], boot: str) -> BootGuardState:
    match mark:
        case [of, wanted, loaded] if of == boot and wanted.isdecimal() and loaded.isdecimal():
            if int(wanted) == 0:
                return BootGuardState.EMPTY
            return BootGuardState.LOADED if int(loaded) >= int(wanted) else BootGuardState.PARTIAL
        case _:
            return BootGuardState.ABSENT


def policies_at_boot(roster: Roster | None, reqid_of: Callable[[ChildKey], ReqId]) -> tuple[Policy, ...]:
    """What the node wants when nobody can be sent to yet, and without a device of ours, which the host doesn't make.

    None before a tunnel's last phase: what isn't encrypted goes in clear. Whether there is a block among the policies
    says nothing of that, as none is left where the pod range is just the nodes' own networks.
    """
    if roster is None or not any(reached(tunnel.phase, Phase.BLOCK) for tunnel in roster.tunnels):
        return ()
    return desired_policies(without_device(roster), reqid_of)


def guard_policies(policies: Iterable[Policy]) -> tuple[Policy, ...]:
    """What can stand in for a node's policies as long as nobody has keys, the strongest first."""
    slots: dict[Slot, Policy] = {}
    for policy in sorted((_widened(_without_keys(each)) for each in policies), key=lambda policy: policy.priority):
        slots.setdefault(policy.slot, policy)
    return tuple(slots.values())


def _without_keys(policy: Policy) -> Policy:
    if all(template.optional for template in policy.templates):
        return replace(policy, templates=())
    return replace(policy, action=Action.BLOCK, templates=())


def _widened(policy: Policy) -> Policy:
    """An exemption for a range of ports, for which `ip` has no words, as one for all ports.

    Without it kubelet could not hear the API server's answers, and would never start the agent that narrows it again.
    """
    selector = policy.selector
    if policy.action is Action.BLOCK or policy.templates:
        return policy
    source = {"source_port": 0, "source_port_mask": None} if selector.source_port_mask is not None else {}
    destination = {"destination_port": 0, "destination_port_mask": None}
    if selector.destination_port_mask is None:
        destination = {}
    return replace(policy, selector=replace(selector, **source, **destination))


def render(policies: Iterable[Policy]) -> bytes:
    """The file: a line with their number, then for each the arguments of `ip xfrm policy add`.

    A policy that `ip` has no words for (a range of ports) is counted, and has no line: the guard then is a partial one.
    """
    every = tuple(policies)
    lines = [f"# policies: {len(every)}; kept by hauberk-agent, loaded by the host's boot guard", *_lines(every)]
    return ("\n".join(lines) + "\n").encode()


def _lines(policies: Iterable[Policy]) -> Iterator[str]:
    for policy in policies:
        selector = policy.selector
        masked = selector.source_port_mask is not None or selector.destination_port_mask is not None
        if selector.protocol in _WITH_TYPES:
            ports = (("type", selector.source_port), ("code", selector.destination_port))
        else:
            ports = (("sport", selector.source_port), ("dport", selector.destination_port))
        named = [f"{word} {port}" for word, port in ports if port]
        if masked or (named and selector.protocol not in _WITH_PORTS | _WITH_TYPES) or policy.if_id or policy.mark.mask:
            continue
        words = [f"src {selector.source} dst {selector.destination}"]
        if selector.protocol:
            words.append(f"proto {selector.protocol}")
        words += [*named, f"dir {policy.direction.name.lower()} priority {policy.priority}"]
        words.append(f"action {policy.action.name.lower()}")
        yield " ".join(words)
