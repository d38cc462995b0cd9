"""The UDP socket for IKE, on this host's loopback; its bypass and ESP need a kernel and are in tests/kernel."""

import errno
import os
import socket
from ipaddress import ip_address

import pytest

from hauberk_xfrm.ike_socket import open_ike_socket


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_it_is_bound_waits_for_nothing_and_ends_with_exec() -> None:
    with open_ike_socket(ip_address("127.0.0.1"), 0, bypass=False, takes_esp=False) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"
        assert not sock.getblocking()
        assert not sock.get_inheritable()
        with pytest.raises(BlockingIOError):
            sock.recvfrom(1)


def test_one_family_leaves_the_other_one_its_port() -> None:
    with open_ike_socket(ip_address("::1"), 0, bypass=False, takes_esp=False) as six:
        assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        port = six.getsockname()[1]
        with open_ike_socket(ip_address("127.0.0.1"), port, bypass=False, takes_esp=False) as four:
            assert four.getsockname()[1] == port


def test_one_that_can_t_be_had_leaves_no_file_open() -> None:
    before = open_files()
    with pytest.raises(OSError, match="Cannot assign requested address") as caught:
        open_ike_socket(ip_address("192.0.2.1"), 0, bypass=False, takes_esp=False)
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert open_files() == before
