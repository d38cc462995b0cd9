"""XFRM over netlink: the kernel's security policies and associations, as typed values.

The agent's reconciler opens an `Xfrm`, dumps what is there, compares it with what is wanted by
`diff_policies`, and applies the difference; what the kernel says by itself it hears on an `EventSocket`. Nothing here
knows of Kubernetes or IKE, and nothing can be flushed.
"""

from hauberk_xfrm.abilities import KernelAbilities
from hauberk_xfrm.address import IpAddress, IpNetwork, ReqId, Spi
from hauberk_xfrm.clear_counter import ClearCounter, ClearPackets
from hauberk_xfrm.default_policy import DefaultPolicy
from hauberk_xfrm.diff import Conflict, PolicyAction, diff_policies
from hauberk_xfrm.errors import (
    NotFound,
    NotSupported,
    PermissionDenied,
    PolicyExists,
    StateExists,
    XfrmError,
)
from hauberk_xfrm.esp_probe import EspProbe
from hauberk_xfrm.event import Acquire, Event, Expiry, Flush, MappingChange, PolicyFlush, Removal
from hauberk_xfrm.events import Events, EventSocket
from hauberk_xfrm.iptfs import IptfsIn, IptfsOut
from hauberk_xfrm.links import NetworkDevice, addressed_devices, network_devices
from hauberk_xfrm.mark import Mark
from hauberk_xfrm.migration import Migration, Move
from hauberk_xfrm.overhead import EspSizes
from hauberk_xfrm.packet_filter import keep_outgoing
from hauberk_xfrm.packet_tap import PacketTap, Passage
from hauberk_xfrm.policy import Action, Direction, Policy, PolicyFlag, PolicyType, Slot, Template
from hauberk_xfrm.request import (
    AddPolicy,
    AddState,
    DeletePolicy,
    DeleteState,
    Request,
    UpdatePolicy,
    UpdateState,
)
from hauberk_xfrm.route import Route, RouteKind, Rule, XfrmDevice
from hauberk_xfrm.routing import MAIN_TABLE, Routing
from hauberk_xfrm.segment_clamp import SegmentClamp
from hauberk_xfrm.selector import Selector
from hauberk_xfrm.state import (
    Aead,
    Authenc,
    EspKeys,
    ExtraFlag,
    Lifetime,
    Mode,
    Offload,
    State,
    StateDirection,
    StateDump,
    StateFlag,
    UdpPorts,
)
from hauberk_xfrm.tables import PolicyTable, StateTable
from hauberk_xfrm.xfrm import Xfrm

__all__ = [
    "MAIN_TABLE",
    "Acquire",
    "Action",
    "AddPolicy",
    "AddState",
    "Aead",
    "Authenc",
    "ClearCounter",
    "ClearPackets",
    "Conflict",
    "DefaultPolicy",
    "DeletePolicy",
    "DeleteState",
    "Direction",
    "EspKeys",
    "EspProbe",
    "EspSizes",
    "Event",
    "EventSocket",
    "Events",
    "Expiry",
    "ExtraFlag",
    "Flush",
    "IpAddress",
    "IpNetwork",
    "IptfsIn",
    "IptfsOut",
    "KernelAbilities",
    "Lifetime",
    "MappingChange",
    "Mark",
    "Migration",
    "Mode",
    "Move",
    "NetworkDevice",
    "NotFound",
    "NotSupported",
    "Offload",
    "PacketTap",
    "Passage",
    "PermissionDenied",
    "Policy",
    "PolicyAction",
    "PolicyExists",
    "PolicyFlag",
    "PolicyFlush",
    "PolicyTable",
    "PolicyType",
    "Removal",
    "ReqId",
    "Request",
    "Route",
    "RouteKind",
    "Routing",
    "Rule",
    "SegmentClamp",
    "Selector",
    "Slot",
    "Spi",
    "State",
    "StateDirection",
    "StateDump",
    "StateExists",
    "StateFlag",
    "StateTable",
    "Template",
    "UdpPorts",
    "UpdatePolicy",
    "UpdateState",
    "Xfrm",
    "XfrmDevice",
    "XfrmError",
    "addressed_devices",
    "diff_policies",
    "keep_outgoing",
    "network_devices",
]
