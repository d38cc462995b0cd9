"""What ESP adds. That the kernel adds the same is for `tests/kernel/size_stories.py` to show."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_ike.algorithms import ENCRYPTIONS
from hauberk_xfrm import Aead, EspSizes, Mode, ReqId, Spi, State, UdpPorts
from hauberk_xfrm.overhead import IP_HEADER_BYTES
from tests.unit.xfrm.strategies import unhurried

GCM = "rfc4106(gcm(aes))"


def sizes(**changes: object) -> EspSizes:
    values: dict[str, object] = {"outer_version": 4, "mode": Mode.TUNNEL, "cipher": GCM, "icv_bits": 128}
    return EspSizes(**(values | changes))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("changes", "wire", "carried"),
    [
        pytest.param({}, 1500, 1446, id="the default"),
        pytest.param({"outer_version": 6}, 1500, 1426, id="over IPv6"),
        pytest.param({"encapsulated": True}, 1500, 1438, id="in UDP"),
        pytest.param({}, 9001, 8946, id="a jumbo wire"),
        pytest.param({"cipher": "cbc(aes)", "icv_bits": 128}, 1500, 1438, id="a cipher of blocks"),
        pytest.param({"mode": Mode.TRANSPORT}, 1500, 1466, id="transport"),
        pytest.param({"mode": Mode.IPTFS}, 1500, 1442, id="IP-TFS, whole packets"),
    ],
)
def test_what_a_wire_carries(changes: dict[str, object], wire: int, carried: int) -> None:
    assert sizes(**changes).inner_mtu(wire) == carried


@unhurried
@given(
    st.builds(
        EspSizes,
        outer_version=st.sampled_from((4, 6)),
        mode=st.sampled_from((Mode.TUNNEL, Mode.TRANSPORT, Mode.IPTFS)),
        cipher=st.sampled_from(sorted({cipher.kernel_name for cipher in ENCRYPTIONS.values()})),
        icv_bits=st.sampled_from((128, 192, 256)),
        encapsulated=st.booleans(),
    ),
    st.integers(576, 65535),
)
def test_the_largest_packet_fits_and_a_larger_one_does_not(layout: EspSizes, wire: int) -> None:
    carried = layout.inner_mtu(wire)
    assert carried > IP_HEADER_BYTES[layout.outer_version]
    assert layout.packet_bytes(carried) <= wire < layout.packet_bytes(carried + 1)


def test_a_wire_that_is_too_narrow_for_anything() -> None:
    assert sizes().inner_mtu(40) == 0


def test_a_state_says_all_that_is_needed() -> None:
    state = State(
        source=ip_address("2001:db8::1"),
        destination=ip_address("2001:db8::2"),
        spi=Spi(0x1000),
        reqid=ReqId(1),
        aead=Aead(name=GCM, key=bytes(20), icv_bits=128),
        encapsulation=UdpPorts(source=4500, destination=4500),
    )
    assert EspSizes.of(state) == sizes(outer_version=6, encapsulated=True)


def test_what_is_not_known_is_an_error() -> None:
    with pytest.raises(ValueError, match="not known"):
        sizes(cipher="ecb(cipher_null)")
    with pytest.raises(ValueError, match="version 5"):
        sizes(outer_version=5)
