"""A kernel's routing in memory: what is ours of it, and the devices of everybody."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hauberk_ike import IpAddress
from hauberk_xfrm import IpNetwork, Route, RouteKind, Rule, XfrmDevice, XfrmError


@dataclass(slots=True)
class FakeRouting:
    """`done` is what was asked for, in order: what a packet may meet in between depends on it."""

    devices: list[XfrmDevice] = field(default_factory=list[XfrmDevice])
    by_slot: dict[tuple[int, IpNetwork, int], Route] = field(default_factory=dict[tuple[int, IpNetwork, int], Route])
    all_rules: set[Rule] = field(default_factory=set[Rule])
    done: list[str] = field(default_factory=list[str])
    refuse: XfrmError | None = None
    """What each new route is refused with."""
    next_index: int = 7

    def xfrm_devices(self) -> list[XfrmDevice]:
        return list(self.devices)

    def add_device(self, name: str, if_id: int) -> None:
        if any(name == each.name or if_id == each.if_id for each in self.devices):
            raise XfrmError("make", f"device {name}", errno.EEXIST)
        self.devices.append(XfrmDevice(name=name, if_id=if_id, index=self.next_index, up=True))
        self.next_index += 1
        self.done.append("add device")

    def set_up(self, device: XfrmDevice) -> None:
        self.devices[self.devices.index(device)] = replace(device, up=True)
        self.done.append("set up")

    def delete_device(self, device: XfrmDevice) -> None:
        self.devices.remove(device)
        self.by_slot = {slot: route for slot, route in self.by_slot.items() if route.device != device.index}
        self.done.append("delete device")

    def routes(self) -> list[Route]:
        return list(self.by_slot.values())

    def rules(self) -> list[Rule]:
        return list(self.all_rules)

    def add_routes(self, routes: Sequence[Route]) -> list[XfrmError | None]:
        for route in routes:
            self.done.append(f"add {route}")
            if self.refuse is None:
                self.by_slot[route.table, route.destination, route.metric] = route
        return [self.refuse for _ in routes]

    def delete_routes(self, routes: Sequence[Route]) -> list[XfrmError | None]:
        for route in routes:
            self.done.append(f"delete {route}")
            del self.by_slot[route.table, route.destination, route.metric]
        return [None for _ in routes]

    def add_rules(self, rules: Sequence[Rule]) -> list[XfrmError | None]:
        self.done += [f"add {rule}" for rule in rules]
        self.all_rules |= set(rules)
        return [None for _ in rules]

    def delete_rules(self, rules: Sequence[Rule]) -> list[XfrmError | None]:
        self.done += [f"delete {rule}" for rule in rules]
        self.all_rules -= set(rules)
        return [None for _ in rules]

    def way(self, destination: IpAddress, source: IpAddress | None = None) -> RouteKind | None:
        """Where a packet goes: by our tables, in the order of the rules. None: on to the rules of others."""
        for rule in sorted(self.all_rules, key=lambda rule: rule.preference):
            if rule.version != destination.version or (rule.source and (source is None or source not in rule.source)):
                continue
            found = [
                route
                for route in self.by_slot.values()
                if route.table == rule.table and destination in route.destination
            ]
            if found:
                best = min(found, key=lambda route: (-route.destination.prefixlen, route.metric))
                if best.kind is not RouteKind.THROW:
                    return best.kind
        return None
