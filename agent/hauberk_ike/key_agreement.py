"""The key exchange in a CREATE_CHILD_SA exchange (RFC 7296 sections 1.3 and 2.17), and the secrets that come of it.

New CHILD SAs and rekeys use it, on both sides; so does IKE_SA_INIT for its choice of a method. For the additional key
exchanges that may follow see `hauberk_ike.exchanges.followup_ke`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from hauberk_ike.algorithms import NO_KEY_EXCHANGE, KeyExchange
from hauberk_ike.errors import ExchangeRefused, MalformedMessage
from hauberk_ike.key_exchange import KeyPair, check_public_value, generate_key_pair, respond
from hauberk_ike.numbers import NotifyType
from hauberk_ike.proposals import EspProposal, IkeProposal
from hauberk_ike.wire.message import Contents
from hauberk_ike.wire.payloads import KeyExchangePayload, Notify

NONCE_LENGTH: Final = 32
"""At least half the key of the longest PRF (section 2.10)."""


@dataclass(slots=True, kw_only=True)
class Secrets:
    """What goes into the keys of a new SA: nonces, the shared secret (empty without a key exchange), further ones."""

    nonce_i: bytes
    nonce_r: bytes
    shared: bytes = field(default=b"", repr=False)
    additional: list[bytes] = field(default_factory=list[bytes], repr=False)

    @property
    def lowest_nonce(self) -> bytes:
        """What decides between two rekeys of the same SA; octet by octet, the shorter one first (section 2.8.1)."""
        return min(self.nonce_i, self.nonce_r)


class MethodChoice:
    """For which of the methods on offer a request carries a public value, and for which next (section 1.2)."""

    __slots__ = ("_left", "method")

    def __init__(
        self, proposals: Sequence[IkeProposal] | Sequence[EspProposal], *, preferred: KeyExchange | None = None
    ) -> None:
        """The first method of all, or `preferred` if that is on offer. None: there is no key exchange."""
        self._left = dict.fromkeys(
            method for proposal in proposals for method in proposal.key_exchange if method is not NO_KEY_EXCHANGE
        )
        first = preferred if preferred in self._left else next(iter(self._left), None)
        self.method: KeyExchange | None = first
        if first is not None:
            del self._left[first]

    def refused(self, notify: Notify) -> bool:
        """INVALID_KE_PAYLOAD: whether the peer wants another method that we offered; that is the one then.

        None is tried twice, so that this ends.
        """
        wanted = int.from_bytes(notify.data) if len(notify.data) == 2 else -1
        for method in self._left:
            if method.transform_id == wanted:
                self.method = method
                del self._left[method]
                return True
        return False


class KeyOffer:
    """The initiator's side: a key pair for one of the methods on offer."""

    __slots__ = ("_choice", "_key_pair")

    def __init__(
        self, proposals: Sequence[IkeProposal] | Sequence[EspProposal], *, preferred: KeyExchange | None = None
    ) -> None:
        self._choice = MethodChoice(proposals, preferred=preferred)
        self._key_pair: KeyPair | None = None

    def build(self, entropy: Callable[[int], bytes]) -> list[KeyExchangePayload]:
        """KEi with a fresh key, if there is to be a key exchange."""
        method = self._choice.method
        if method is None:
            return []
        self._key_pair = generate_key_pair(method, entropy)
        return [KeyExchangePayload(method=method.transform_id, data=self._key_pair.public)]

    def refused(self, notify: Notify) -> bool:
        """See MethodChoice."""
        return self._choice.refused(notify)

    def agree(self, chosen: tuple[KeyExchange, ...], contents: Contents) -> bytes:
        """The shared secret, by the answer's KEr; empty if no key exchange was chosen.

        Raises MalformedMessage, and ExchangeRefused for a method other than the one that the request was for.
        """
        if not chosen:
            return b""
        public = contents.one(KeyExchangePayload)
        key_pair, self._key_pair = self._key_pair, None
        if key_pair is None or chosen[0] is not self._choice.method or public.method != chosen[0].transform_id:
            raise ExchangeRefused(
                NotifyType.NO_PROPOSAL_CHOSEN, "the answer's key exchange is not the one that was asked for"
            )
        if public.data == key_pair.public:
            raise MalformedMessage("our own key came back")
        return key_pair.shared(public.data)


def answer_key(
    chosen: tuple[KeyExchange, ...], contents: Contents, entropy: Callable[[int], bytes]
) -> tuple[list[KeyExchangePayload], bytes]:
    """The responder's side: KEr (if there is to be one) and the shared secret (or nothing).

    Raises ExchangeRefused (INVALID_KE_PAYLOAD) for a request with a public value for another method or with none, and
    MalformedMessage for one that is no good.
    """
    if not chosen:
        return [], b""
    method = chosen[0]
    public = contents.maybe(KeyExchangePayload)
    if public is None or public.method != method.transform_id:
        raise ExchangeRefused(
            NotifyType.INVALID_KE_PAYLOAD,
            f"a public value for another key exchange than {method.word}",
            data=method.transform_id.to_bytes(2),
        )
    check_public_value(method, public.data)
    ours, shared = respond(method, public.data, entropy)
    return [KeyExchangePayload(method=method.transform_id, data=ours)], shared
