"""Keeps the kernel's routes to peers at the size that comes through, where the kernel believes in a larger one.

What comes through is searched by the sessions (hauberk_agent.path_search). Used by the agent, which looks now and then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from hauberk_agent.pair import Pair
from hauberk_agent.path_search import PathSearches
from hauberk_ike import IpAddress
from hauberk_xfrm import XfrmError

_log = logging.getLogger("hauberk.sizes")


class Routes(Protocol):
    """What is needed of hauberk_xfrm.PathRoutes here."""

    def follow(self, mtus: Mapping[IpAddress, int]) -> None: ...


class PathWidths:
    """`narrow` is what the routes are made for, by peers' outer addresses."""

    def __init__(
        self, searches: PathSearches, routes: Routes, *, link_mtu: Callable[[IpAddress, IpAddress], int | None]
    ) -> None:
        """link_mtu: what the kernel believes of the path from one address to another, routes of ours aside."""
        self._searches = searches
        self._routes = routes
        self._link_mtu = link_mtu
        self._followed = False
        self.narrow: dict[IpAddress, int] = {}
        self.problem: str | None = None

    def look(self, pairs: Collection[Pair], now: float) -> None:
        """Has the paths of pairs that are up searched, and their routes follow what was found."""
        narrow: dict[IpAddress, int] = {}
        for pair in pairs:
            local, remote = pair.spec.config.local.host, pair.spec.config.remote.host
            link = self._link_mtu(local, remote) if pair.current is not None and pair.current.children else None
            if link is not None:
                self._searches.follow(pair.spec.uid, link, now)
            found = self._searches.narrow(pair.spec.uid)
            if found is not None:
                narrow[remote] = found
                if self.narrow.get(remote) != found:
                    _log.warning("%s: of packets, %d bytes come through, and nobody says so", pair.name, found)
        self._searches.keep({pair.spec.uid for pair in pairs})
        if not narrow and not self.narrow and self._followed:
            return
        try:
            self._routes.follow(narrow)
            self.narrow, self._followed, self.problem = narrow, True, None
        except XfrmError as error:
            if self.problem != str(error):
                _log.warning("routes can't be made as narrow as their paths: %s", error)
            self.problem = str(error)
