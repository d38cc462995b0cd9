"""Which ports this node's kernel gives to sockets that ask for none: its clients' (net.ipv4.ip_local_port_range)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

DEFAULT_FIRST_CLIENT_PORT: Final = 32768
"""Linux' own (ip-sysctl.rst)."""
_SETTING: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""Of the network namespace of whoever reads it, and of IPv6, too."""


def first_client_port(setting: Path = _SETTING) -> int:
    """The lowest of them. Where the setting can't be read it is Linux' own."""
    try:
        return int(setting.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return DEFAULT_FIRST_CLIENT_PORT
