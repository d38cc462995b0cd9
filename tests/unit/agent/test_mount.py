"""What lies on which file system, from lines of /proc/self/mountinfo (proc(5))."""

from __future__ import annotations

from pathlib import Path

import pytest

from hauberk_agent.mount import outlives_boot

MOUNTS = """\
21 1 0:20 / / rw,relatime - overlay overlay rw,lowerdir=/a
22 21 8:1 /var/lib/hauberk /var/lib/hauberk rw,relatime master:1 - ext4 /dev/sda1 rw
23 21 0:21 / /run rw - tmpfs tmpfs rw
24 21 8:2 / /my\\040disk rw shared:7 master:2 - xfs /dev/sdb rw
25 21 8:3 / /over rw - ext4 /dev/sdc rw
26 25 0:22 / /over rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("directory", "lasts"),
    [
        ("/var/lib/hauberk", True),
        ("/var/lib/hauberk/deeper", True),
        ("/var/lib/hauberks", False),
        ("/var/lib", False),
        ("/run/state", False),
        ("/my disk/state", True),
        ("/over/state", False),
    ],
)
def test_what_outlives_a_boot(directory: str, lasts: bool) -> None:
    assert outlives_boot(Path(directory), MOUNTS) is lasts


def test_nothing_is_claimed_of_what_is_not_understood() -> None:
    assert not outlives_boot(Path("/a"), "")
    assert not outlives_boot(Path("/a"), "garbage - ext4\n\n")
