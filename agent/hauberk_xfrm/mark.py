"""Packet marks, as policies and states select by them and states set them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A packet mark and which of its bits count (`struct xfrm_mark`); a mask of 0 matches all, or sets nothing."""

    value: int = 0
    mask: int = 0


NO_MARK = Mark()
