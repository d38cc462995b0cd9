"""Reauthentication before the break (RFC 7296 section 2.8.3): the last step of an IKE SA that is to replace another."""

from typing import TYPE_CHECKING

from hauberk_ike.collision import Doing
from hauberk_ike.exchanges.create_child_sa import CreateChildSa
from hauberk_ike.exchanges.exchange import Inbound
from hauberk_ike.lifecycle import State
from hauberk_ike.numbers import ExchangeType

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa


class FinishReauthentication:
    """Waits in the new IKE SA's window until its CHILD SAs are up, or failed: then one of the two IKE SAs goes.

    It sends nothing itself. `labels` are those of the CHILD SAs that the old one had.
    """

    __slots__ = ("_labels",)

    kind = ExchangeType.INFORMATIONAL
    doing = Doing.NOTHING

    def __init__(self, labels: frozenset[str]) -> None:
        self._labels = labels

    def build(self, sa: "IkeSa", now: float) -> None:
        """None, as there is nothing to ask."""
        if sa.requests.waiting(CreateChildSa):
            sa.requests.postpone(self)
            return
        if sa.reauthenticates is None:
            return
        old, sa.reauthenticates = sa.reauthenticates.heir, None
        if self._labels - {child.config.label for child in sa.children.values()}:
            sa.close_reason = "not all CHILD SAs of the IKE SA that it was to replace were to be had"
            sa.close(now)
        elif old.state is State.ESTABLISHED:
            old.close_reason = "reauthenticated"
            old.close(now)
            sa.context.registry.settle(old)

    def process(self, sa: "IkeSa", message: Inbound, now: float) -> None:
        """Nothing was asked."""

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """The old IKE SA stays."""
