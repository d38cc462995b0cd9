"""Makes the kernel's routing that which tunnels with an interface want (hauberk_agent.interception), and what stands
behind the CNI's routes to own pods (hauberk_agent.own_pods).

As with policies: all is dumped, compared, and the difference applied, at start, on each change, and every so often.
Routes and rules are ours by their protocol number, the device by its name, kind and interface id. What is needed to let
packets through comes before what stops them, and goes after it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from hauberk_agent.interception import DEVICE, IF_ID, Interceptor
from hauberk_xfrm import Route, RouteKind, Rule, XfrmDevice, XfrmError

_log = logging.getLogger("hauberk.reconciler")
_ORDER = (RouteKind.THROW, RouteKind.UNICAST, RouteKind.UNREACHABLE, RouteKind.BLACKHOLE)
_NOTHING = Interceptor(routes=frozenset(), rules=frozenset())


class RoutingKernel(Protocol):
    """What is needed of hauberk_xfrm.Routing here."""

    def xfrm_devices(self) -> list[XfrmDevice]: ...
    def add_device(self, name: str, if_id: int) -> None: ...
    def set_up(self, device: XfrmDevice) -> None: ...
    def delete_device(self, device: XfrmDevice) -> None: ...
    def routes(self) -> list[Route]: ...
    def rules(self) -> list[Rule]: ...
    def add_routes(self, routes: Sequence[Route]) -> list[XfrmError | None]: ...
    def delete_routes(self, routes: Sequence[Route]) -> list[XfrmError | None]: ...
    def add_rules(self, rules: Sequence[Rule]) -> list[XfrmError | None]: ...
    def delete_rules(self, rules: Sequence[Rule]) -> list[XfrmError | None]: ...


def reconcile_routing(
    kernel: RoutingKernel, desired: Interceptor | None, backstops: frozenset[Route] = frozenset()
) -> tuple[str, ...]:
    """What could not be done, in sentences. Raises XfrmError if the kernel can't be asked, or refuses the device.

    desired: None where no tunnel wants a device.
    """
    device = _ours(kernel)
    if desired is not None:
        device = _make_device(kernel, device)
    index = device.index if device is not None else 0
    wanted = desired or _NOTHING
    routes = {route if route.device is None else replace(route, device=index) for route in wanted.routes}
    routes |= backstops
    present, rules = set(kernel.routes()), set(kernel.rules())
    problems = [
        *kernel.add_routes(_sorted(routes - present)),
        *kernel.add_rules(_by_preference(wanted.rules - rules)),
        *kernel.delete_rules(_by_preference(rules - wanted.rules)),
        # What was replaced is gone already.
        *kernel.delete_routes(_sorted(_left(present - routes, routes))[::-1]),
    ]
    if desired is None and device is not None:
        kernel.delete_device(device)
    if routes != present:
        _log.info("routes: %d, of which %d are new", len(routes), len(routes - present))
    said = tuple(str(problem) for problem in problems if problem is not None)
    for sentence in said:
        _log.warning("%s", sentence)
    return said


def _ours(kernel: RoutingKernel) -> XfrmDevice | None:
    devices = kernel.xfrm_devices()
    return next((each for each in devices if (each.name, each.if_id) == (DEVICE, IF_ID)), None)


def _make_device(kernel: RoutingKernel, device: XfrmDevice | None) -> XfrmDevice | None:
    if device is None:
        kernel.add_device(DEVICE, IF_ID)
        _log.info("made the device %s", DEVICE)
        return _ours(kernel)
    if not device.up:
        kernel.set_up(device)
    return device


def _left(routes: Iterable[Route], replaced_by: Iterable[Route]) -> list[Route]:
    slots = {(route.table, route.destination, route.metric) for route in replaced_by}
    return [route for route in routes if (route.table, route.destination, route.metric) not in slots]


def _sorted(routes: Iterable[Route]) -> list[Route]:
    return sorted(routes, key=lambda route: (_ORDER.index(route.kind), route.table, str(route.destination)))


def _by_preference(rules: Iterable[Rule]) -> list[Rule]:
    return sorted(rules, key=lambda rule: (rule.preference, rule.version, str(rule.source)))
