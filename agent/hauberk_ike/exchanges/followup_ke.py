"""IKE_FOLLOWUP_KE: the additional key exchanges of a new CHILD SA or a rekey (RFC 9370 section 2.2.4).

    CREATE_CHILD_SA   SA, Ni, KEi(0), ...    -->
                                             <--   SA, Nr, KEr(0), ..., N(ADDITIONAL_KEY_EXCHANGE)(link)
    IKE_FOLLOWUP_KE   KEi(1), N(link)        -->
                                             <--   KEr(1), N(next link), or without it after the last

The new SA is made when the last answer is given, and when it is received. A link says which step of which exchange a
request belongs to: it is valid once, so that no step is left out, repeated or put into another order, and a responder
keeps few of them, and not for long. Whoever comes with another one gets STATE_NOT_FOUND.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from hauberk_ike.algorithms import KeyExchange
from hauberk_ike.child_sa import ChildSa
from hauberk_ike.collision import Asked, Doing
from hauberk_ike.errors import ExchangeRefused, MalformedMessage
from hauberk_ike.exchanges.exchange import Inbound
from hauberk_ike.key_agreement import Secrets, answer_key
from hauberk_ike.key_exchange import KeyPair, generate_key_pair
from hauberk_ike.numbers import ExchangeType, NotifyType
from hauberk_ike.wire.message import Contents, KnownPayload
from hauberk_ike.wire.payloads import KeyExchangePayload, Notify

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa

LINK_LENGTH: Final = 8
MAX_PENDING: Final = 4
"""Exchanges of a peer that wait for their next step; a further one pushes the oldest out."""


class Followed(Protocol):
    """The exchange that began it, as initiator."""

    @property
    def doing(self) -> Doing: ...

    def goes_on(self, sa: "IkeSa") -> bool:
        """Whether the new SA is still wanted."""
        ...

    def complete(self, sa: "IkeSa", now: float) -> None:
        """All secrets are there: makes the new SA."""
        ...

    def refused(self, sa: "IkeSa", error: Notify, now: float) -> None:
        """The peer goes no further."""
        ...

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """See Exchange."""
        ...


class FollowUpKe:
    """The initiator's side of one step."""

    __slots__ = ("_key_pair", "_link", "_methods", "_parent", "_secrets")

    kind = ExchangeType.IKE_FOLLOWUP_KE

    def __init__(
        self, parent: Followed, secrets: Secrets, methods: tuple[KeyExchange, ...], contents: Contents
    ) -> None:
        """`methods` are those to come, the first of them now. The link is in the answer's `contents`.

        Raises MalformedMessage if it is not.
        """
        link = contents.notify(NotifyType.ADDITIONAL_KEY_EXCHANGE)
        if link is None:
            raise MalformedMessage("no word of the additional key exchange in the answer")
        self._parent = parent
        self._secrets = secrets
        self._methods = methods
        self._link = link.data
        self._key_pair: KeyPair | None = None

    @property
    def doing(self) -> Doing:
        return self._parent.doing

    def build(self, sa: "IkeSa", now: float) -> Sequence[KnownPayload] | None:
        """KEi(n) and the link."""
        if not self._parent.goes_on(sa):
            self._parent.abandon(sa, "")
            return None
        method = self._methods[0]
        self._key_pair = generate_key_pair(method, sa.context.entropy)
        return (
            KeyExchangePayload(method=method.transform_id, data=self._key_pair.public),
            Notify(type=NotifyType.ADDITIONAL_KEY_EXCHANGE, data=self._link),
        )

    def process(self, sa: "IkeSa", message: Inbound, now: float) -> None:
        """Goes on to the next step, or makes the new SA."""
        contents = message.contents
        error = contents.error()
        if error is not None:
            self._parent.refused(sa, error, now)
            return
        public = contents.one(KeyExchangePayload)
        if self._key_pair is None or public.method != self._methods[0].transform_id:
            raise MalformedMessage("the answer's key exchange is not the one that was asked for")
        self._secrets.additional.append(self._key_pair.shared(public.data))
        rest = self._methods[1:]
        if rest:
            sa.requests.add_first(sa, FollowUpKe(self._parent, self._secrets, rest, contents), now)
        else:
            self._parent.complete(sa, now)

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """It is the parent's to give back."""
        self._parent.abandon(sa, reason)


class Agreed(Protocol):
    """A new SA on which both ends have agreed, but for its keys, as responder."""

    @property
    def asked(self) -> Asked: ...

    @property
    def replaces(self) -> ChildSa | None:
        """The CHILD SA that is rekeyed, if it is one."""
        ...

    def install(self, sa: "IkeSa", secrets: Secrets, now: float) -> object:
        """All secrets are there: makes the new SA."""
        ...

    def release(self, sa: "IkeSa") -> None:
        """Nothing comes of it."""
        ...


class Pending:
    """As responder: what waits for its next additional key exchange."""

    __slots__ = ("agreed", "expires_at", "methods", "secrets")

    def __init__(self, agreed: Agreed, secrets: Secrets, methods: tuple[KeyExchange, ...], expires_at: float) -> None:
        self.agreed = agreed
        self.secrets = secrets
        self.methods = methods
        self.expires_at = expires_at


def hold(
    sa: "IkeSa", agreed: Agreed, secrets: Secrets, methods: tuple[KeyExchange, ...], now: float
) -> list[KnownPayload]:
    """Keeps it for the next step, if there is one (and returns what tells the peer), else makes the new SA."""
    if not methods:
        agreed.install(sa, secrets, now)
        return []
    while len(sa.pending) >= MAX_PENDING:
        sa.pending.pop(next(iter(sa.pending))).agreed.release(sa)
    link = sa.context.entropy(LINK_LENGTH)
    sa.pending[link] = Pending(agreed, secrets, methods, now + sa.context.settings.half_open_seconds)
    return [Notify(type=NotifyType.ADDITIONAL_KEY_EXCHANGE, data=link)]


def answer(sa: "IkeSa", message: Inbound, now: float) -> Sequence[KnownPayload]:
    """The responder's side of one step. Raises ProtocolError, which is answered."""
    contents = message.contents
    link = contents.notify(NotifyType.ADDITIONAL_KEY_EXCHANGE)
    pending = sa.pending.pop(link.data, None) if link is not None else None
    if pending is None:
        raise ExchangeRefused(NotifyType.STATE_NOT_FOUND, "an additional key exchange that nothing waits for")
    try:
        payloads, shared = answer_key(pending.methods[:1], contents, sa.context.entropy)
    except (ExchangeRefused, MalformedMessage):
        pending.agreed.release(sa)
        raise
    pending.secrets.additional.append(shared)
    return [*payloads, *hold(sa, pending.agreed, pending.secrets, pending.methods[1:], now)]
