"""The sockets that probes of ESP go by and come to, one for each of the node's own addresses. Used by the agent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from hauberk_agent.interception import DEVICE, IF_ID
from hauberk_ike import IpAddress
from hauberk_xfrm import EspProbe, Template

_log = logging.getLogger("hauberk.esp")


class EspProbes:
    """Made and used within one asyncio loop. A socket that can't be had is said once: then ESP goes unproved there."""

    def __init__(self, *, iptfs: bool) -> None:
        """iptfs: whether the kernel knows that mode."""
        self._iptfs = iptfs
        self._loop = asyncio.get_running_loop()
        self._probes: dict[IpAddress, EspProbe] = {}
        self._failed: set[IpAddress] = set()

    def listen(self, addresses: Iterable[IpAddress]) -> None:
        """Opens and closes sockets so that each address has one. What fails is tried again at the next call."""
        wanted = set(addresses)
        for host in self._probes.keys() - wanted:
            self._close(host)
        for host in wanted - self._probes.keys():
            try:
                probe = self._probes[host] = EspProbe(host, iptfs=self._iptfs)
            except OSError as error:
                if host not in self._failed:
                    _log.warning("whether ESP comes through can't be probed from %s: %s", host, error)
                self._failed.add(host)
                continue
            self._failed.discard(host)
            self._loop.add_reader(probe.fileno(), probe.drain)

    def send(self, template: Template, if_id: int) -> None:
        """One packet by the SA of a template: by our device, if it has that interface id. Raises OSError."""
        probe = self._probes.get(template.source) if template.source is not None else None
        if probe is None or if_id not in (0, IF_ID):
            raise OSError(f"no socket for probes on {template.source}")
        if if_id:
            probe.send_by(DEVICE, template.destination)
        else:
            probe.send(template)

    def close(self) -> None:
        for host in list(self._probes):
            self._close(host)

    def _close(self, host: IpAddress) -> None:
        probe = self._probes.pop(host)
        self._loop.remove_reader(probe.fileno())
        probe.close()
