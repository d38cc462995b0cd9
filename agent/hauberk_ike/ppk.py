"""Post-quantum pre-shared keys in IKE_AUTH (RFC 8784): which keys an AUTH payload is made with, on either side.

Both ends say USE_PPK in IKE_SA_INIT. The initiator then names its PPK, and makes AUTH with keys that the PPK is mixed
into; if it would go without, it adds what AUTH would be so (NO_PPK_AUTH). The responder takes the first if it has the
PPK, and says so by an empty PPK_IDENTITY; otherwise the second, if it would go without as well. What protects messages
of the IKE SA stays as it is; SK_d, and so everything derived later, has the PPK in it.
"""

from dataclasses import dataclass
from typing import Final

from hauberk_ike.config import PeerConfig
from hauberk_ike.credentials import Ppk
from hauberk_ike.errors import ExchangeRefused, MalformedMessage, RefusalReason
from hauberk_ike.keys import IkeKeys, mix_ppk
from hauberk_ike.numbers import NotifyType
from hauberk_ike.wire.message import Contents
from hauberk_ike.wire.payloads import Authentication, Notify

PPK_ID_FIXED: Final = b"\x02"
"""RFC 8784 section 5.1: the identity that follows is fixed, not of one use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a responder has to verify: `auth`, made with `keys`. Whatever comes of it, `refusal` counts if there is one.

    The refusal waits until the work is done, so that somebody unknown is not told apart by it.
    """

    auth: Authentication
    keys: IkeKeys
    is_mixed: bool
    refusal: ExchangeRefused | None = None


def ppk_of(peer: PeerConfig | None) -> Ppk | None:
    """The PPK that we share with a peer."""
    return peer.authentication.ppk if peer is not None and peer.authentication is not None else None


def name_ppk(ppk: Ppk) -> Notify:
    """The initiator's PPK_IDENTITY."""
    return Notify(type=NotifyType.PPK_IDENTITY, data=PPK_ID_FIXED + ppk.identity)


def choose_proof(
    ppk: Ppk | None, decoy: bytes, keys: IkeKeys, auth: Authentication, contents: Contents, *, agreed: bool
) -> Proof:
    """Which proof of the initiator's a responder goes by. `agreed`: both have said USE_PPK. Raises MalformedMessage.

    `decoy` is mixed in for a PPK that we don't have.
    """
    named = contents.notify(NotifyType.PPK_IDENTITY) if agreed else None
    if named is None:
        refusal = _refusal("it has to use its PPK") if ppk is not None and ppk.required else None
        return Proof(auth=auth, keys=keys, is_mixed=False, refusal=refusal)
    if ppk is not None and named.data == PPK_ID_FIXED + ppk.identity:
        return Proof(auth=auth, keys=mix_ppk(keys, ppk.secret), is_mixed=True)
    without = contents.notify(NotifyType.NO_PPK_AUTH)
    if without is None:
        refusal = _refusal("its PPK is not known here, and it does not go without")
        return Proof(auth=auth, keys=mix_ppk(keys, decoy), is_mixed=True, refusal=refusal)
    if not without.data:
        raise MalformedMessage("an empty NO_PPK_AUTH")
    refusal = (
        _refusal("its PPK is another than the one that it has to use") if ppk is not None and ppk.required else None
    )
    return Proof(auth=Authentication(method=auth.method, data=without.data), keys=keys, is_mixed=False, refusal=refusal)


def _refusal(why: str) -> ExchangeRefused:
    return ExchangeRefused(
        NotifyType.AUTHENTICATION_FAILED, f"the peer is refused: {why}", reason=RefusalReason.PPK_MISSING
    )
