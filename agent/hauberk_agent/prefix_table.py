"""Which of many networks an address is in: the longest one that holds it, as with routes and our policies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from hauberk_ike import IpAddress
from hauberk_xfrm import IpNetwork

_Value = TypeVar("_Value")

_BITS: Final = {4: 32, 6: 128}


class PrefixTable(Generic[_Value]):
    """Both families. A lookup costs one for each length of prefix that there is."""

    def __init__(self, entries: Iterable[tuple[IpNetwork, _Value]]) -> None:
        """Of the same network given twice the last entry counts."""
        found: dict[tuple[int, int], dict[int, _Value]] = {}
        for network, value in entries:
            shift = _BITS[network.version] - network.prefixlen
            found.setdefault((network.version, shift), {})[int(network.network_address) >> shift] = value
        self._by_length = sorted(found.items())

    def get(self, address: IpAddress) -> _Value | None:
        number = int(address)
        for (version, shift), values in self._by_length:
            if version == address.version and (value := values.get(number >> shift)) is not None:
                return value
        return None
