"""Who answers which exchange, once an IKE SA has keys."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from hauberk_ike.exchanges import create_child_sa, followup_ke, ike_auth, informational
from hauberk_ike.exchanges.exchange import Inbound
from hauberk_ike.numbers import ExchangeType
from hauberk_ike.wire.message import KnownPayload

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa

Answer = Callable[["IkeSa", Inbound, float], Sequence[KnownPayload]]

ANSWERS: Final[dict[int, Answer]] = {
    ExchangeType.IKE_AUTH: ike_auth.answer,
    ExchangeType.CREATE_CHILD_SA: create_child_sa.answer,
    ExchangeType.INFORMATIONAL: informational.answer,
    ExchangeType.IKE_FOLLOWUP_KE: followup_ke.answer,
}
