"""NAT detection (RFC 7296 section 2.23): hashes of SPIs, address and port that a NAT on the way makes wrong."""

import hashlib
from dataclasses import dataclass
from typing import Final

from hauberk_ike.datagram import SocketAddress
from hauberk_ike.numbers import NotifyType
from hauberk_ike.wire.message import Contents
from hauberk_ike.wire.payloads import Notify

DETECTION_LENGTH: Final = 20


def detection_data(spi_i: bytes, spi_r: bytes, address: SocketAddress) -> bytes:
    """SHA-1 (by the RFC; a fingerprint, not a protection) of SPIs, address and port."""
    return hashlib.sha1(spi_i + spi_r + address.packed, usedforsecurity=False).digest()


def build_notifies(
    spi_i: bytes, spi_r: bytes, *, local: SocketAddress, remote: SocketAddress, source: bytes = b""
) -> tuple[Notify, Notify]:
    """Both notifies for a message from `local` to `remote`.

    `source` is said in place of our own address's hash: something that can't be right makes the peer see a NAT before
    us, and so encapsulate (what others call forced encapsulation).
    """
    return (
        Notify(type=NotifyType.NAT_DETECTION_SOURCE_IP, data=source or detection_data(spi_i, spi_r, local)),
        Notify(type=NotifyType.NAT_DETECTION_DESTINATION_IP, data=detection_data(spi_i, spi_r, remote)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """What a peer's notifies say. `supported`: it sent both, and so knows UDP encapsulation."""

    supported: bool
    nat_local: bool
    """A NAT is before us,"""
    nat_remote: bool
    """and before the peer."""


def detect(contents: Contents, spi_i: bytes, spi_r: bytes, *, local: SocketAddress, remote: SocketAddress) -> Detection:
    """Judges a message that came from `remote` to `local`. A peer may name several sources, of which it uses one."""
    source = contents.notify(NotifyType.NAT_DETECTION_SOURCE_IP)
    destination = contents.notify(NotifyType.NAT_DETECTION_DESTINATION_IP)
    return Detection(
        supported=source is not None and destination is not None,
        nat_local=destination is not None and destination.data != detection_data(spi_i, spi_r, local),
        nat_remote=source is not None and not _names(contents, detection_data(spi_i, spi_r, remote)),
    )


def _names(contents: Contents, source: bytes) -> bool:
    """Whether `source` is among the sources."""
    for notify in contents.all(Notify):
        if notify.data == source and notify.type == NotifyType.NAT_DETECTION_SOURCE_IP:
            return True
    return False
