"""Security policies: what the kernel does with packets that match a selector."""

from dataclasses import dataclass, field
from enum import Enum, IntEnum, IntFlag

from hauberk_xfrm.address import IpAddress, ReqId
from hauberk_xfrm.mark import NO_MARK, Mark
from hauberk_xfrm.selector import Selector
from hauberk_xfrm.state import ESP, Mode


class Direction(IntEnum):
    """XFRM_POLICY_IN, _OUT and _FWD. Forwarded packets from a tunnel pass FWD only, local ones IN only."""

    IN = 0
    OUT = 1
    FWD = 2


class Action(Enum):
    """XFRM_POLICY_ALLOW (through the templates, if there are any) and XFRM_POLICY_BLOCK."""

    ALLOW = 0
    BLOCK = 1


class PolicyType(IntEnum):
    """XFRM_POLICY_TYPE_MAIN; SUB is a second table that only mobile IPv6 uses."""

    MAIN = 0
    SUB = 1


class PolicyFlag(IntFlag):
    """XFRM_POLICY_LOCALOK; XFRM_POLICY_ICMP: match ICMP errors by the packet that they quote."""

    NONE = 0
    LOCALOK = 1
    ICMP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The SA that a packet must have, or get: `struct xfrm_user_tmpl`.

    `source` None leaves the outer source open: inbound, any peer's state of the reqid will do; outbound, the
    kernel picks the address that it would route from. `optional` is for IN and FWD only: the kernel refuses
    optional tunnel templates outbound. `protocol` (50: ESP) and `spi` (0: any) are never anything else in what
    Hauberk writes.
    """

    source: IpAddress | None
    destination: IpAddress
    reqid: ReqId
    mode: Mode = Mode.TUNNEL
    optional: bool = False
    protocol: int = ESP
    spi: int = 0

    def __post_init__(self) -> None:
        if self.source is not None and self.source.version != self.destination.version:
            raise ValueError(f"a template's families must agree: {self.source}, {self.destination}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One entry of the kernel's security policy database.

    Lower `priority` numbers win. The kernel keeps at most one policy per slot: direction, selector, mark,
    interface id (`if_id`) and type; priority is not a part of it. `index` is the kernel's name of a policy, known
    on dumps and never compared.
    """

    selector: Selector
    direction: Direction
    priority: int
    action: Action
    templates: tuple[Template, ...] = ()
    mark: Mark = NO_MARK
    if_id: int = 0
    type: PolicyType = PolicyType.MAIN
    flags: PolicyFlag = PolicyFlag.NONE
    index: int | None = field(default=None, compare=False)

    @property
    def slot(self) -> "Slot":
        """What the kernel holds at most one policy for."""
        return Slot(direction=self.direction, selector=self.selector, mark=self.mark, if_id=self.if_id, type=self.type)

    def __str__(self) -> str:
        return f"{self.direction.name} policy {self.selector} priority {self.priority} {self.action.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Where a policy lies: the kernel's NEWPOLICY refuses a second one in the same slot, whatever its priority
    (`xfrm_policy_insert_list` in net/xfrm/xfrm_policy.c), and DELPOLICY finds a policy by it."""

    direction: Direction
    selector: Selector
    mark: Mark = NO_MARK
    if_id: int = 0
    type: PolicyType = PolicyType.MAIN

    def __str__(self) -> str:
        return f"{self.direction.name} policy {self.selector}"
