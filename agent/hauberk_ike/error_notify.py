"""The one place where a peer's fault becomes a Notify payload (RFC 7296 section 2.21)."""

from hauberk_ike.errors import ExchangeRefused, ProtocolError, UnsupportedCritical
from hauberk_ike.wire.payloads import Notify


def error_notify(error: ProtocolError) -> Notify:
    """The notify that tells a peer of its fault: the one place where errors become wire."""
    if isinstance(error, UnsupportedCritical):
        return Notify(type=error.notify, data=bytes((error.payload_type,)))
    if isinstance(error, ExchangeRefused):
        return Notify(type=error.notify, data=error.data, protocol=error.protocol, spi=error.spi)
    return Notify(type=error.notify)
