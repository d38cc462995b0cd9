"""IKE and ESP on one UDP port (RFC 3948, RFC 7296 section 2.23): what tells them apart there.

On the encapsulation port (4500, `EndpointSettings.encapsulation_port`) an IKE message follows four zero bytes, where an
ESP packet would have its SPI; everywhere else, on port 500 first of all, it stands alone. The endpoint is the one
place that knows: it takes and gives UDP payloads as they are on the wire, and whoever owns the sockets carries them
without a look inside. Which port it was says `local.port`, of a datagram that comes and of one that goes.
"""

from dataclasses import dataclass
from typing import Final

NON_ESP_MARKER: Final = bytes(4)
"""RFC 3948 section 2.2: no ESP packet has the SPI 0."""

KEEPALIVE: Final = b"\xff"
"""RFC 3948 section 2.3: keeps a NAT's mapping alive, and says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpEncapsulation:
    """ESP in UDP between these two ports (RFC 3948 section 2.1), as the kernel's states have to have it."""

    local_port: int
    remote_port: int


def unwrap(data: bytes) -> bytes | None:
    """The IKE message in a payload from the encapsulation port.

    None for whatever else comes there: keepalives, and ESP for an SPI that the kernel does not know (or it would have
    kept the packet). Nothing of these is looked at, and nobody is told.
    """
    return data[4:] if data.startswith(NON_ESP_MARKER) else None
