"""What the kernel says by itself, as values: heard on an `events.EventSocket`, read by `event_decoder`."""

from __future__ import annotations

from dataclasses import dataclass

from hauberk_xfrm.address import IpAddress, ReqId, Spi
from hauberk_xfrm.migration import Migration
from hauberk_xfrm.policy import Policy, Template
from hauberk_xfrm.selector import Selector


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquire:
    """A packet met `policy`, and there is no state for one of its templates, which is `template`.

    `selector` is the packet's own: its addresses, protocol and ports. The kernel made a larval state from `source` to
    `destination`, the ends of that template, which `sequence` numbers, and drops or holds such packets until a state
    is there or its time is over. Only while somebody listens for acquires does it make one.
    """

    source: IpAddress
    destination: IpAddress
    selector: Selector
    policy: Policy
    template: Template
    sequence: int

    @property
    def reqid(self) -> ReqId:
        """What the missing state must have."""
        return self.template.reqid


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """One of a state's limits is reached: a soft one, or a hard one, upon which the kernel has deleted the state."""

    destination: IpAddress
    spi: Spi
    reqid: ReqId
    hard: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingChange:
    """An authentic packet of an inbound state with UDP encapsulation has come from elsewhere (RFC 3948, section 2.1).

    The kernel changes nothing by itself, and says so again with later packets (but see `State.mapping_seconds`).
    """

    destination: IpAddress
    spi: Spi
    reqid: ReqId
    old_source: IpAddress
    old_port: int
    new_source: IpAddress
    new_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A state was deleted by request: whoever asked, its hearer included. An expiry is told as such and not as this."""

    destination: IpAddress
    spi: Spi


@dataclass(frozen=True, slots=True, kw_only=True)
class Flush:
    """All states were deleted at once (`ip xfrm state flush`), of ESP or of all protocols."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFlush:
    """All policies were deleted at once (`ip xfrm policy flush`), but for those of sockets."""


Event = Acquire | Expiry | Flush | MappingChange | Migration | PolicyFlush | Removal
