"""Which packets a policy is about: the kernel's `struct xfrm_selector`."""

from dataclasses import dataclass

from hauberk_xfrm.address import IpNetwork

EXACT_PORT_MASK = 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """What a packet's addresses, protocol and ports must be (RFC 4301, section 4.4.1.1).

    Protocol 0 and port 0 mean "any". A port mask of None means "exactly that port, or any where it is 0"; other
    masks cover aligned port ranges. `interface` (the index of the one device that it is about, 0: any) and
    `user` are seen on other people's policies only.

    Raises `ValueError` if the families of both networks differ, or a number is out of range.
    """

    source: IpNetwork
    destination: IpNetwork
    protocol: int = 0
    source_port: int = 0
    destination_port: int = 0
    source_port_mask: int | None = None
    destination_port_mask: int | None = None
    interface: int = 0
    user: int = 0

    def __post_init__(self) -> None:
        if self.source.version != self.destination.version:
            raise ValueError(f"a selector's families must agree: {self.source}, {self.destination}")
        if not 0 <= self.protocol <= 0xFF:
            raise ValueError(f"an IP protocol is a number from 0 to 255, not {self.protocol}")
        for port in (self.source_port, self.destination_port):
            if not 0 <= port <= 0xFFFF:
                raise ValueError(f"a port is a number from 0 to 65535, not {port}")
        # One spelling for each meaning, so that equal selectors compare equal.
        if self.source_port_mask == (EXACT_PORT_MASK if self.source_port else 0):
            object.__setattr__(self, "source_port_mask", None)
        if self.destination_port_mask == (EXACT_PORT_MASK if self.destination_port else 0):
            object.__setattr__(self, "destination_port_mask", None)
        for mask in (self.source_port_mask, self.destination_port_mask):
            if mask is not None and not 0 <= mask <= EXACT_PORT_MASK:
                raise ValueError(f"a port mask is a number from 0 to 65535, not {mask}")

    def __str__(self) -> str:
        parts = [f"{self.source} -> {self.destination}"]
        if self.protocol:
            parts.append(f"protocol {self.protocol}")
        if self.source_port or self.source_port_mask is not None:
            parts.append(f"source port {_port(self.source_port, self.source_port_mask)}")
        if self.destination_port or self.destination_port_mask is not None:
            parts.append(f"destination port {_port(self.destination_port, self.destination_port_mask)}")
        if self.interface:
            parts.append(f"interface {self.interface}")
        return " ".join(parts)


def _port(port: int, mask: int | None) -> str:
    return str(port) if mask is None else f"{port}/{mask:#06x}"
