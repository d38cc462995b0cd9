"""NAT detection (RFC 7296 section 2.23): hashes of SPIs, address and port that a NAT on the way makes wrong."""

import hashlib

from hauberk_ike.datagram import SocketAddress
from hauberk_ike.numbers import NotifyType
from hauberk_ike.wire.message import Contents
from hauberk_ike.wire.payloads import Notify


def detection_data(spi_i: bytes, spi_r: bytes, address: SocketAddress) -> bytes:
    """SHA-1 (by the RFC; a fingerprint, not a protection) of SPIs, address and port."""
    text = spi_i + spi_r + address.host.packed + address.port.to_bytes(2)
    return hashlib.sha1(text, usedforsecurity=False).digest()


def build_notifies(spi_i: bytes, spi_r: bytes, *, local: SocketAddress, remote: SocketAddress) -> tuple[Notify, Notify]:
    """Both notifies for a message from `local` to `remote`."""
    return (
        Notify(type=NotifyType.NAT_DETECTION_SOURCE_IP, data=detection_data(spi_i, spi_r, local)),
        Notify(type=NotifyType.NAT_DETECTION_DESTINATION_IP, data=detection_data(spi_i, spi_r, remote)),
    )


def evaluate(
    contents: Contents, spi_i: bytes, spi_r: bytes, *, local: SocketAddress, remote: SocketAddress
) -> tuple[bool, bool]:
    """Whether a NAT is before us, and before the peer, by a message that came from `remote` to `local`."""
    sources = [payload.data for payload in contents.all(Notify) if payload.type == NotifyType.NAT_DETECTION_SOURCE_IP]
    destination = contents.notify(NotifyType.NAT_DETECTION_DESTINATION_IP)
    nat_remote = bool(sources) and detection_data(spi_i, spi_r, remote) not in sources
    nat_local = destination is not None and destination.data != detection_data(spi_i, spi_r, local)
    return nat_local, nat_remote
