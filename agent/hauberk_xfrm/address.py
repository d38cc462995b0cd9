"""The address types of this package, and identifiers that must not be mixed up."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from socket import AF_INET, AF_INET6
from typing import NewType

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

Spi = NewType("Spi", int)
"""An SPI in host order, as IKE writes it in a number (RFC 7296, section 3.3.1)."""

ReqId = NewType("ReqId", int)
"""What ties policy templates to the states that serve them (`struct xfrm_user_tmpl.reqid`)."""


def family_of(address: IpAddress) -> int:
    """AF_INET or AF_INET6."""
    return AF_INET if address.version == 4 else AF_INET6
