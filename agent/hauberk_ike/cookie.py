"""Stateless cookies against floods of IKE_SA_INIT from addresses that are not the sender's (RFC 7296 section 2.6).

cookie = version of the secret (1) | HMAC-SHA-256(secret, Ni | address | SPIi) (32)
"""

import hmac
from collections.abc import Callable
from typing import Final

from hauberk_ike.datagram import IpAddress
from hauberk_ike.errors import MalformedMessage
from hauberk_ike.numbers import NotifyType, PayloadType
from hauberk_ike.wire.header import HEADER
from hauberk_ike.wire.message import GENERIC, MAX_PAYLOADS
from hauberk_ike.wire.payloads import Nonce, Notify

_SECRET_LENGTH: Final = 32
COOKIE_LENGTH: Final = 33


def read_request(first: int, data: bytes) -> tuple[bytes, bytes]:
    """COOKIE (empty if it is not there) and Ni of an IKE_SA_INIT request whose first payload is of type `first`.

    Nothing else is looked at but how long it is: whoever has no cookie is to cost no more than that. Raises
    MalformedMessage.
    """
    cookie = nonce = b""
    offset, kind = HEADER.size, first
    for _ in range(MAX_PAYLOADS):
        if not kind:
            break
        if len(data) - offset < GENERIC.size:
            raise MalformedMessage("a payload is cut off")
        following, _, length = GENERIC.unpack_from(data, offset)
        if length < GENERIC.size or length > len(data) - offset:
            raise MalformedMessage("a payload's length does not fit its message")
        if kind == PayloadType.NOTIFY:
            notify = Notify.parse(data[offset + GENERIC.size : offset + length])
            if notify.type == NotifyType.COOKIE:
                cookie = cookie or notify.data
        elif kind == PayloadType.NONCE:
            nonce = nonce or Nonce.parse(data[offset + GENERIC.size : offset + length]).data
        offset += length
        kind = following
    if not nonce:
        raise MalformedMessage("a request without a nonce")
    return cookie, nonce


class CookieJar:
    """Makes and checks cookies. The secret changes every `lifetime` seconds; the one before it is still taken."""

    __slots__ = ("_changes_at", "_entropy", "_lifetime", "_secrets", "_version")

    def __init__(self, entropy: Callable[[int], bytes], lifetime: float) -> None:
        self._entropy = entropy
        self._lifetime = lifetime
        self._version = 0
        self._secrets: dict[int, bytes] = {}
        self._changes_at: float | None = None

    def bake(self, *, nonce: bytes, host: IpAddress, spi_i: bytes, now: float) -> bytes:
        """The cookie for a request."""
        self._rotate(now)
        return self._cookie(self._version, nonce, host, spi_i)

    def check(self, cookie: bytes, *, nonce: bytes, host: IpAddress, spi_i: bytes, now: float) -> bool:
        """Whether `cookie` was baked here for the same request, not too long ago."""
        self._rotate(now)
        if len(cookie) != COOKIE_LENGTH or cookie[0] not in self._secrets:
            return False
        return hmac.compare_digest(cookie, self._cookie(cookie[0], nonce, host, spi_i))

    def _cookie(self, version: int, nonce: bytes, host: IpAddress, spi_i: bytes) -> bytes:
        # The nonce is the only part of variable length, and it comes first: the rest is told apart from the end.
        return bytes((version,)) + hmac.digest(self._secrets[version], nonce + host.packed + spi_i, "sha256")

    def _rotate(self, now: float) -> None:
        if self._changes_at is not None and now < self._changes_at:
            return
        # After a pause of more than one lifetime the secret before it is stale as well.
        stale = self._changes_at is None or now >= self._changes_at + self._lifetime
        kept = {} if stale else {self._version: self._secrets[self._version]}
        self._version = (self._version + 1) % 256
        self._secrets = {**kept, self._version: self._entropy(_SECRET_LENGTH)}
        self._changes_at = now + self._lifetime
