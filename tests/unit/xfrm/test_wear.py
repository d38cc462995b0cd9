"""How much an SA carries before it is replaced."""

import pytest

from hauberk_xfrm import Lifetime
from hauberk_xfrm.wear import MAX_PACKETS_WITHOUT_ESN, Wear


def test_soft_limits_lie_beneath_what_is_wanted() -> None:
    wear = Wear(bytes=1000, packets=100)
    assert wear.lifetime(esn=True, share=0.9) == Lifetime(soft_bytes=900, soft_packets=90)
    assert wear.lifetime(esn=True, share=0.9, hard_seconds=60).hard_seconds == 60


def test_with_esn_there_is_no_limit_unless_somebody_wants_one() -> None:
    assert Wear().lifetime(esn=True, share=0.9) == Lifetime()


@pytest.mark.parametrize("wanted", [None, 1 << 32])
def test_pitfall_21_without_esn_a_rekey_comes_long_before_sequence_numbers_run_out(wanted: int | None) -> None:
    soft = Wear(packets=wanted).lifetime(esn=False, share=1.0).soft_packets
    assert soft == MAX_PACKETS_WITHOUT_ESN < 1 << 32
