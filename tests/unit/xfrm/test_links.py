"""Network devices as the kernel lists them."""

from __future__ import annotations

import pytest

from hauberk_xfrm import NetworkDevice, network_devices
from hauberk_xfrm.attribute import Malformed, build_attribute
from hauberk_xfrm.links import parse_device

HEADER = bytes(16)


def message(name: bytes, kind: bytes = b"", data: bytes = b"") -> bytes:
    information = build_attribute(1, kind) + (build_attribute(2, data) if data else b"") if kind else b""
    return HEADER + build_attribute(3, name) + (build_attribute(18, information) if information else b"")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (message(b"eth0\0"), NetworkDevice(name="eth0")),
        (message(b"veth1\0", b"veth\0"), NetworkDevice(name="veth1", kind="veth")),
        (
            message(b"flannel.1\0", b"vxlan\0", build_attribute(1, bytes(4)) + build_attribute(15, b"\x21\x18")),
            NetworkDevice(name="flannel.1", kind="vxlan", port=8472),
        ),
        (
            message(b"g\0", b"geneve\0", build_attribute(5, b"\x17\xc1")),
            NetworkDevice(name="g", kind="geneve", port=6081),
        ),
        (message(b"g\0", b"geneve\0"), NetworkDevice(name="g", kind="geneve")),
    ],
)
def test_what_a_device_is(body: bytes, expected: NetworkDevice) -> None:
    assert parse_device(body) == expected


def test_bytes_that_no_kernel_would_send() -> None:
    with pytest.raises(Malformed):
        parse_device(HEADER + b"\xff\xff\x03\x00")


def test_this_kernel_s_devices_are_listed() -> None:
    assert "lo" in {device.name for device in network_devices()}
