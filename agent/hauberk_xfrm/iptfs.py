"""How a state in IP-TFS mode (RFC 9347) handles packets: XFRMA_IPTFS_* of include/uapi/linux/xfrm.h, from Linux 6.14.

The defaults are the kernel's (net/xfrm/xfrm_iptfs.c). What is an outbound state's is refused for an inbound one, and
the other way round.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class IptfsOut:
    """Of an outbound state. Packets wait `init_delay_microseconds` for others to share an outer packet with.

    `max_queue_bytes` may wait at all; `packet_bytes` is the outer packet's size (0: what the path takes).
    `dont_fragment`: a packet goes whole or not at all, and its sender is told what fits.
    """

    dont_fragment: bool = False
    init_delay_microseconds: int = 0
    max_queue_bytes: int = 10 * 1024 * 1024
    packet_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class IptfsIn:
    """Of an inbound state. Outer packets may arrive `reorder_packets` too early; what is missing then is waited for."""

    drop_microseconds: int = 1_000_000
    reorder_packets: int = 3
