"""XFRM over netlink: the kernel's security policies and associations, as typed values.

The agent's reconciler opens an `Xfrm`, dumps what is there, compares it with what is wanted by
`diff_policies`, and applies the difference. Nothing here knows of Kubernetes or IKE. Nothing is ever flushed,
and no default policy is ever set.
"""

from hauberk_xfrm.abilities import KernelAbilities
from hauberk_xfrm.address import IpAddress, IpNetwork, ReqId, Spi
from hauberk_xfrm.diff import Conflict, PolicyAction, diff_policies
from hauberk_xfrm.errors import (
    NotFound,
    NotSupported,
    PermissionDenied,
    PolicyExists,
    StateExists,
    XfrmError,
)
from hauberk_xfrm.expiry import Expiries, Expiry, ExpirySocket
from hauberk_xfrm.policy import Action, Direction, Mark, Policy, PolicyFlag, PolicyType, Slot, Template
from hauberk_xfrm.request import (
    AddPolicy,
    AddState,
    DeletePolicy,
    DeleteState,
    Request,
    UpdatePolicy,
    UpdateState,
)
from hauberk_xfrm.selector import Selector
from hauberk_xfrm.state import (
    Aead,
    Authenc,
    EspKeys,
    Lifetime,
    Mode,
    State,
    StateDirection,
    StateDump,
    StateFlag,
    UdpPorts,
)
from hauberk_xfrm.xfrm import Xfrm

__all__ = [
    "Action",
    "AddPolicy",
    "AddState",
    "Aead",
    "Authenc",
    "Conflict",
    "DeletePolicy",
    "DeleteState",
    "Direction",
    "EspKeys",
    "Expiries",
    "Expiry",
    "ExpirySocket",
    "IpAddress",
    "IpNetwork",
    "KernelAbilities",
    "Lifetime",
    "Mark",
    "Mode",
    "NotFound",
    "NotSupported",
    "PermissionDenied",
    "Policy",
    "PolicyAction",
    "PolicyExists",
    "PolicyFlag",
    "PolicyType",
    "ReqId",
    "Request",
    "Selector",
    "Slot",
    "Spi",
    "State",
    "StateDirection",
    "StateDump",
    "StateExists",
    "StateFlag",
    "Template",
    "UdpPorts",
    "UpdatePolicy",
    "UpdateState",
    "Xfrm",
    "XfrmError",
    "diff_policies",
]
