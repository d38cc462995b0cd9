"""How full the kernel's tables are: XFRM_MSG_GETSADINFO and GETSPDINFO, cheap where a dump is not."""

from __future__ import annotations

from dataclasses import dataclass
from struct import error as StructError  # noqa: N812
from typing import Self

from hauberk_xfrm.attribute import Malformed, parse_attributes
from hauberk_xfrm.layout import HASH_INFO, SPD_INFO, UINT32, PolicyTableAttribute, StateTableAttribute


@dataclass(frozen=True, slots=True, kw_only=True)
class StateTable:
    """The states of this network namespace, of all protocols, and the buckets of the hash that they lie in."""

    states: int
    buckets: int
    buckets_max: int

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """The body of a NEWSADINFO message. Raises Malformed."""
        values = _attributes(body)
        try:
            (states,) = UINT32.unpack_from(values[StateTableAttribute.COUNT])
            buckets, buckets_max = HASH_INFO.unpack_from(values[StateTableAttribute.HASH])
        except (KeyError, StructError) as error:
            raise Malformed(f"information on states in {len(body)} bytes: {error!r}") from error
        return cls(states=states, buckets=buckets, buckets_max=buckets_max)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTable:
    """The policies of this network namespace by direction, those of single sockets apart, and their hash's buckets."""

    inbound: int
    outbound: int
    forward: int
    socket_inbound: int
    socket_outbound: int
    socket_forward: int
    buckets: int
    buckets_max: int

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """The body of a NEWSPDINFO message. Raises Malformed."""
        values = _attributes(body)
        try:
            counts = SPD_INFO.unpack_from(values[PolicyTableAttribute.COUNTS])
            buckets, buckets_max = HASH_INFO.unpack_from(values[PolicyTableAttribute.HASH])
        except (KeyError, StructError) as error:
            raise Malformed(f"information on policies in {len(body)} bytes: {error!r}") from error
        inbound, outbound, forward, socket_inbound, socket_outbound, socket_forward = counts
        return cls(
            inbound=inbound,
            outbound=outbound,
            forward=forward,
            socket_inbound=socket_inbound,
            socket_outbound=socket_outbound,
            socket_forward=socket_forward,
            buckets=buckets,
            buckets_max=buckets_max,
        )


def _attributes(body: bytes) -> dict[int, bytes]:
    """Behind the flags that the request had."""
    return dict(parse_attributes(body, UINT32.size))
