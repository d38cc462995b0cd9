"""The socket that probes come to, in a network of its own; what goes by an SA needs ESP and is in tests/kernel."""

from __future__ import annotations

import select
import socket
from ipaddress import ip_address

import pytest

from hauberk_xfrm import EspProbe
from tests.kernel.two_hosts import ip


@pytest.mark.usefixtures("private_network")
def test_what_has_come_is_taken_off_the_socket() -> None:
    """An event loop that finds the socket readable ever again would do nothing else."""
    ip("link set lo up")
    with EspProbe(ip_address("127.0.0.1")) as probe, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(3):
            sender.sendto(b"a probe", ("127.0.0.1", 9470))
        assert select.select([probe], [], [], 5)[0] == [probe]
        probe.drain()
        assert select.select([probe], [], [], 0)[0] == []
