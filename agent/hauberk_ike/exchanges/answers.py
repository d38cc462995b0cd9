"""Who answers which exchange, once an IKE SA has keys."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from hauberk_ike.errors import MalformedMessage
from hauberk_ike.exchanges import create_child_sa, followup_ke, ike_auth, ike_intermediate, informational
from hauberk_ike.exchanges.exchange import Inbound
from hauberk_ike.numbers import ExchangeType
from hauberk_ike.wire.message import KnownPayload

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa

Answer = Callable[["IkeSa", Inbound, float], Sequence[KnownPayload]]


def _authenticate(sa: "IkeSa", message: Inbound, now: float) -> Sequence[KnownPayload]:
    """IKE_AUTH, but not before all additional key exchanges are done (RFC 9370 section 2.2.2)."""
    if sa.intermediate is not None and sa.intermediate.methods:
        raise MalformedMessage("authentication before all key exchanges are done")
    return ike_auth.answer(sa, message, now)


ANSWERS: Final[dict[int, Answer]] = {
    ExchangeType.IKE_INTERMEDIATE: ike_intermediate.answer,
    ExchangeType.IKE_AUTH: _authenticate,
    ExchangeType.CREATE_CHILD_SA: create_child_sa.answer,
    ExchangeType.INFORMATIONAL: informational.answer,
    ExchangeType.IKE_FOLLOWUP_KE: followup_ke.answer,
}
