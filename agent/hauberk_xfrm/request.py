"""Changes to the kernel's XFRM state, as values: what `Xfrm.apply` sends and what `diff_policies` plans."""

from dataclasses import dataclass

from hauberk_xfrm.address import IpAddress, Spi
from hauberk_xfrm.mark import NO_MARK, Mark
from hauberk_xfrm.policy import Policy, Slot
from hauberk_xfrm.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class AddState:
    """XFRM_MSG_NEWSA: fails with StateExists if destination and SPI are taken."""

    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateState:
    """XFRM_MSG_UPDSA: fills in a larval state, and fails with NotFound if there is none; see `Xfrm.update_state`."""

    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteState:
    """XFRM_MSG_DELSA."""

    destination: IpAddress
    spi: Spi
    mark: Mark = NO_MARK


@dataclass(frozen=True, slots=True, kw_only=True)
class AddPolicy:
    """XFRM_MSG_NEWPOLICY: fails with PolicyExists if the slot is taken."""

    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePolicy:
    """XFRM_MSG_UPDPOLICY: replaces whatever lies in the slot. Only for what is proved ours."""

    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletePolicy:
    """XFRM_MSG_DELPOLICY."""

    slot: Slot


Request = AddState | UpdateState | DeleteState | AddPolicy | UpdatePolicy | DeletePolicy
