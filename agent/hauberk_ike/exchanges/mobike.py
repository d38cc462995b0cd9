"""MOBIKE as responder (RFC 4555): the peer moves its IKE SA, and all in it, to other addresses.

The initiator of the IKE SA decides, in INFORMATIONAL requests: UPDATE_SA_ADDRESSES in one means that the addresses that
it came between are those from now on, if the policy permits the peer's. IKE follows at once, as whatever we send next
has to reach the peer. ESP follows a new address of the peer's only when the peer has shown that it receives there
(return routability, section 3.7): one that is authentic may still point at somebody else's. A request without that
notify changes nothing, wherever it comes from, so that peers can try a path (section 3.10).

Only tunnel mode can be moved, as transport mode is between the addresses themselves.
"""

import hmac
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final

from hauberk_ike.collision import Doing
from hauberk_ike.config import Mode, PeerConfig
from hauberk_ike.datagram import IpAddress, SocketAddress
from hauberk_ike.errors import ExchangeRefused, MalformedMessage, RefusalReason, Refused
from hauberk_ike.exchanges.exchange import Inbound
from hauberk_ike.nat import build_notifies, detect
from hauberk_ike.numbers import ExchangeType, NotifyType
from hauberk_ike.path import report_move
from hauberk_ike.wire.message import Contents, KnownPayload
from hauberk_ike.wire.payloads import Notify

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa

MIN_COOKIE2: Final = 8
MAX_COOKIE2: Final = 64
_COOKIE2_LENGTH: Final = 16
MAX_ADDITIONAL_ADDRESSES: Final = 16
"""Of a peer's further addresses so many are remembered."""


def negotiate(sa: "IkeSa", peer: PeerConfig, message: Inbound) -> tuple[Notify, ...]:
    """What an IKE_AUTH answer says of MOBIKE. Raises ExchangeRefused for a NAT that the peer does not want."""
    contents = message.contents
    if not peer.mobike or contents.notify(NotifyType.MOBIKE_SUPPORTED) is None:
        return ()
    if _meets_unwanted_nat(message):
        raise ExchangeRefused(
            NotifyType.UNEXPECTED_NAT_DETECTED,
            "the peer wants no NAT, and there is one",
            reason=RefusalReason.NAT_DETECTED,
        )
    sa.path.mobike = True
    _learn_additional_addresses(sa, contents)
    return (Notify(type=NotifyType.MOBIKE_SUPPORTED),)


def answer(sa: "IkeSa", message: Inbound, now: float) -> list[KnownPayload]:
    """What an INFORMATIONAL answer has to say about addresses. Raises MalformedMessage."""
    if not sa.path.mobike:
        return []
    contents = message.contents
    payloads: list[KnownPayload] = []
    cookie = contents.notify(NotifyType.COOKIE2)
    if cookie is not None:
        if not MIN_COOKIE2 <= len(cookie.data) <= MAX_COOKIE2:
            raise MalformedMessage("a COOKIE2 that is not 8 to 64 bytes long")
        payloads.append(Notify(type=NotifyType.COOKIE2, data=cookie.data))
    if _meets_unwanted_nat(message):
        # Section 3.9: and of what the peer says about its addresses nothing is used.
        return [Notify(type=NotifyType.UNEXPECTED_NAT_DETECTED), *payloads]
    if contents.notify(NotifyType.NAT_DETECTION_SOURCE_IP) is not None:
        # Section 3.8: so a peer behind a NAT finds out that its mapping has changed.
        payloads += build_notifies(sa.spi_i, sa.spi_r, local=message.local, remote=message.remote)
    _learn_additional_addresses(sa, contents)
    if contents.notify(NotifyType.UPDATE_SA_ADDRESSES) is not None:
        try:
            _update(sa, message, now)
        except ExchangeRefused as refusal:
            sa.refuse(message.remote, refusal, now)
            return [Notify(type=refusal.notify), *payloads]
    return payloads


class ReturnRoutability:
    """Asks whether the peer receives where it says that it is (section 3.7), before ESP is sent there."""

    __slots__ = ("_cookie", "_remote")

    kind = ExchangeType.INFORMATIONAL
    doing = Doing.NOTHING

    def __init__(self) -> None:
        self._cookie = b""
        self._remote: SocketAddress | None = None

    def build(self, sa: "IkeSa", now: float) -> Sequence[KnownPayload] | None:
        """N(COOKIE2), to wherever the peer is by now; nothing if it has gone back meanwhile."""
        if not sa.path.is_unproved:
            return None
        self._remote = sa.path.remote
        self._cookie = sa.context.entropy(_COOKIE2_LENGTH)
        return (Notify(type=NotifyType.COOKIE2, data=self._cookie),)

    def process(self, sa: "IkeSa", message: Inbound, now: float) -> None:
        """Moves the CHILD SAs too. Raises MalformedMessage for another cookie, which ends the IKE SA."""
        cookie = message.contents.notify(NotifyType.COOKIE2)
        if cookie is None or not hmac.compare_digest(cookie.data, self._cookie):
            raise MalformedMessage("the answer does not bring back our COOKIE2")
        # It may have moved on, and then another of these is waiting for its turn.
        if sa.path.remote == self._remote:
            sa.path.prove()
            report_move(sa)

    def abandon(self, sa: "IkeSa", reason: str) -> None:
        """Nothing was taken."""


def _update(sa: "IkeSa", message: Inbound, now: float) -> None:
    """Section 3.5. Raises ExchangeRefused, with nothing changed, and MalformedMessage."""
    path, local, remote = sa.path, message.local, message.remote
    header = message.header
    found = detect(message.contents, header.spi_i, header.spi_r, local=local, remote=remote)
    if (local, remote) != (path.local, path.remote):
        if any(child.mode is Mode.TRANSPORT for child in sa.heir.children.values()):
            raise _unacceptable("ADDRESS", "a CHILD SA in transport mode can't be moved")
        if remote.host != path.remote.host:
            try:
                sa.context.policy.permit_address(sa.peer, remote)
            except Refused as refused:
                raise _unacceptable(refused.reason, refused.message) from None
    before = path.ends
    path.update(found, local=local, remote=remote)
    path.start_keepalives(sa.context, now)
    if path.is_unproved:
        sa.heir.start(ReturnRoutability(), now)
    elif path.ends != before:
        report_move(sa)


def _unacceptable(reason: str, message: str) -> ExchangeRefused:
    return ExchangeRefused(NotifyType.UNACCEPTABLE_ADDRESSES, message, reason=reason)


def _meets_unwanted_nat(message: Inbound) -> bool:
    """NO_NATS_ALLOWED (section 4.2.6): addresses and ports as the peer believes them to be, which a NAT has changed."""
    notify = message.contents.notify(NotifyType.NO_NATS_ALLOWED)
    if notify is None:
        return False
    source, destination = message.remote, message.local
    return notify.data != b"".join(
        (source.host.packed, destination.host.packed, source.port.to_bytes(2), destination.port.to_bytes(2))
    )


def _learn_additional_addresses(sa: "IkeSa", contents: Contents) -> None:
    """Section 3.6: a message that lists further addresses, or says that there are none, replaces the list."""
    found: list[IpAddress] = []
    listed = contents.notify(NotifyType.NO_ADDITIONAL_ADDRESSES) is not None
    for notify in contents.all(Notify):
        if notify.type == NotifyType.ADDITIONAL_IP4_ADDRESS and len(notify.data) == 4:
            found.append(IPv4Address(notify.data))
        elif notify.type == NotifyType.ADDITIONAL_IP6_ADDRESS and len(notify.data) == 16:
            found.append(IPv6Address(notify.data))
        elif notify.type in (NotifyType.ADDITIONAL_IP4_ADDRESS, NotifyType.ADDITIONAL_IP6_ADDRESS):
            raise MalformedMessage("an additional address whose length is not its family's")
    if found or listed:
        sa.path.additional = tuple(found[:MAX_ADDITIONAL_ADDRESSES])
