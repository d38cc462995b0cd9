"""What happens in a case once its tunnel stands. Each event returns when it has happened, on both ends.

After an event that is not in `ENDS` the tunnel must stand as before.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from tests.interop.scene import Scene

Event = Callable[[Scene], None]


def nothing(scene: Scene) -> None:
    """The set-up is what the case is about."""


def we_delete_the_child(scene: Scene) -> None:
    scene.ours.command("delete-child")
    scene.ours.wait_for("ChildSaDown")


def they_delete_the_child(scene: Scene) -> None:
    scene.theirs.delete_child()
    down = scene.ours.wait_for("ChildSaDown")
    assert down["by_peer"] is True


def we_delete_the_ike_sa(scene: Scene) -> None:
    scene.ours.command("delete")
    scene.ours.wait_for("IkeSaDown")


def they_delete_the_ike_sa(scene: Scene) -> None:
    scene.theirs.delete_ike()
    down = scene.ours.wait_for("IkeSaDown")
    assert down["reason"] == "deleted by peer"


def they_vanish(scene: Scene) -> None:
    """Their daemon is killed: our liveness checks go unanswered (RFC 7296 section 2.4)."""
    scene.theirs.signal(signal.SIGKILL)
    down = scene.ours.wait_for("IkeSaDown", seconds=30)
    assert down["reason"] == "unreachable"


def we_vanish(scene: Scene) -> None:
    """Our side is killed, and they find out."""
    scene.ours.signal(signal.SIGKILL)
    scene.settles(lambda: not scene.bed.right.states(), lambda: "they still have their SAs", seconds=40)


BOTH, LEFT, RIGHT = ("left", "right"), ("left",), ("right",)

ENDS: dict[Event, tuple[str, ...]] = {
    we_delete_the_child: BOTH,
    they_delete_the_child: BOTH,
    we_delete_the_ike_sa: BOTH,
    they_delete_the_ike_sa: BOTH,
    they_vanish: LEFT,
    we_vanish: RIGHT,
}
"""Events that end the tunnel, and at which gateways nothing may be left: a killed daemon tidies nothing up."""
