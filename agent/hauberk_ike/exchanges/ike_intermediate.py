"""IKE_INTERMEDIATE: the additional key exchanges of a new IKE SA (RFC 9242, RFC 9370 section 2.2.2).

    IKE_INTERMEDIATE   KEi(n)   -->
                                <--   KEr(n)

One exchange for each additional method, between IKE_SA_INIT and IKE_AUTH; from the next message on the keys are those
that the new secret went into. Nobody is authenticated yet, so AUTH covers these messages as well, in their unencrypted
and unfragmented form (RFC 9242 section 3.3): left out, repeated or changed, they end in AUTHENTICATION_FAILED.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hauberk_ike.algorithms import KeyExchange
from hauberk_ike.collision import Doing
from hauberk_ike.config import PeerConfig
from hauberk_ike.errors import ExchangeRefused, MalformedMessage
from hauberk_ike.events import DownReason
from hauberk_ike.exchanges.exchange import Inbound
from hauberk_ike.exchanges.ike_auth import IkeAuth
from hauberk_ike.key_agreement import answer_key
from hauberk_ike.key_exchange import KeyPair, generate_key_pair
from hauberk_ike.keys import authenticate_intermediate, intermediate_auth, update_ike_keys
from hauberk_ike.numbers import ExchangeType, notify_name
from hauberk_ike.protection import intermediate_octets
from hauberk_ike.wire.message import KnownPayload, build_payloads
from hauberk_ike.wire.payloads import KeyExchangePayload

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa


class Intermediate:
    """What both sides keep of these exchanges: which are still to come, and the two chains that AUTH covers."""

    __slots__ = ("_done", "_of_initiator", "_of_responder", "_shared", "methods")

    def __init__(self, methods: tuple[KeyExchange, ...]) -> None:
        self.methods = methods
        """Those to come, in order."""
        self._done = 0
        self._of_initiator = b""
        self._of_responder = b""
        self._shared = b""

    def agree(self, shared: bytes) -> None:
        """The next method's secret: it counts from `step` on."""
        self._shared = shared

    def step(self, sa: "IkeSa", request: bytes, answer: bytes) -> None:
        """An exchange is complete: both messages are as `intermediate_octets` has them."""
        keys = sa.keys
        self._of_initiator = authenticate_intermediate(keys.prf, keys.sk_pi, self._of_initiator, request)
        self._of_responder = authenticate_intermediate(keys.prf, keys.sk_pr, self._of_responder, answer)
        self._done += 1
        self.methods = self.methods[1:]
        # IKE_AUTH comes next, unless another step changes this again.
        sa.int_auth = intermediate_auth(self._of_initiator, self._of_responder, self._done + 1)
        keys = update_ike_keys(
            sa.proposal,
            keys,
            shared=self._shared,
            nonce_i=sa.nonce_i,
            nonce_r=sa.nonce_r,
            spi_i=sa.spi_i,
            spi_r=sa.spi_r,
        )
        self._shared = b""
        sa.use_keys(sa.proposal, keys)


class IkeIntermediate:
    """The initiator's side of one exchange."""

    __slots__ = ("_key_pair", "_peer", "_sent")

    kind = ExchangeType.IKE_INTERMEDIATE
    doing = Doing.NOTHING

    def __init__(self, peer: PeerConfig) -> None:
        self._peer = peer
        self._key_pair: KeyPair | None = None
        self._sent = b""

    def build(self, sa: "IkeSa", now: float) -> Sequence[KnownPayload]:
        """KEi(n)."""
        assert sa.intermediate is not None
        method = sa.intermediate.methods[0]
        self._key_pair = generate_key_pair(method, sa.context.entropy)
        return (KeyExchangePayload(method=method.transform_id, data=self._key_pair.public),)

    def sent(self, message: bytes, payloads: Sequence[KnownPayload]) -> None:
        """The request as it goes out; of one in fragments, the first."""
        self._sent = intermediate_octets(message, *build_payloads(payloads))

    def process(self, sa: "IkeSa", message: Inbound, now: float) -> None:
        """Goes on to the next method, or to IKE_AUTH. Raises ProtocolError, which ends the attempt."""
        contents = message.contents
        if sa.is_closing:
            sa.end(DownReason.DELETED, "deleted before it was established", now)
            return
        error = contents.error()
        if error is not None:
            sa.end(DownReason.FAILED, f"the peer refuses: notify {notify_name(error.type)}", now)
            return
        assert sa.intermediate is not None
        public = contents.one(KeyExchangePayload)
        if self._key_pair is None or public.method != sa.intermediate.methods[0].transform_id:
            raise MalformedMessage("the answer's key exchange is not the one that was asked for")
        if public.data == self._key_pair.public:
            raise MalformedMessage("our own key came back")
        sa.intermediate.agree(self._key_pair.shared(public.data))
        sa.intermediate.step(sa, self._sent, intermediate_octets(message.data, *message.chain))
        begin(sa, self._peer, now)

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """Nothing was taken."""


def begin(sa: "IkeSa", peer: PeerConfig, now: float) -> None:
    """As initiator: what comes next, after IKE_SA_INIT or one of these exchanges."""
    more = sa.intermediate is not None and sa.intermediate.methods
    sa.start(IkeIntermediate(peer) if more else IkeAuth(peer), now)


def answer(sa: "IkeSa", message: Inbound, now: float) -> Sequence[KnownPayload]:
    """The responder's side. Raises MalformedMessage, which is answered and ends the IKE SA."""
    assert sa.intermediate is not None
    try:
        payloads, shared = answer_key(sa.intermediate.methods[:1], message.contents, sa.context.entropy)
    except ExchangeRefused as refusal:
        raise MalformedMessage(str(refusal)) from None
    sa.intermediate.agree(shared)
    return payloads


def answered(sa: "IkeSa", message: Inbound, data: bytes, payloads: Sequence[KnownPayload]) -> None:
    """The responder's answer is sealed, under the keys of the request: from now on others are valid."""
    assert sa.intermediate is not None
    sa.intermediate.step(
        sa,
        intermediate_octets(message.data, *message.chain),
        intermediate_octets(data, *build_payloads(payloads)),
    )
