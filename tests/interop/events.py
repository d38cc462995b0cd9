"""What happens in a case once its tunnel stands. Each event returns when it has happened, on both ends.

After an event that is not in `ENDS` the tunnel must stand as before.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from ipaddress import ip_address

from hauberk_xfrm import StateDump
from tests.interop.bed import ip
from tests.interop.scene import Scene
from tests.interop.strongswan import StrongSwan

Event = Callable[[Scene], None]
MOVED = ip_address("192.0.2.3")


def nothing(scene: Scene) -> None:
    """The set-up is what the case is about."""


def narrowed(local: str, remote: str) -> Event:
    """The selectors that came out, as our side says them: both ends' intersection."""

    def narrowed(scene: Scene) -> None:
        up = scene.ours.wait_for("ChildSaUp")
        assert (up["ts_local"], up["ts_remote"]) == ([local], [remote])

    return narrowed


def encapsulated(scene: Scene) -> None:
    """The pings so far went as ESP in UDP."""
    seen = scene.bed.wire.seen
    assert seen["esp-in-udp"] > 0
    assert seen["esp"] == 0


def cookie_asked(scene: Scene) -> None:
    assert "COOKIE" in scene.theirs.log()


def in_fragments(scene: Scene) -> None:
    """Messages with whole chains of certificates came in fragments of IKE's (RFC 7383), none in fragments of IP."""
    seen = scene.bed.wire.seen
    assert seen["fragment of IP"] == 0
    assert seen["ike"] >= 6, f"too few messages for two chains in fragments: {seen}"


def we_rekey_the_child(scene: Scene) -> None:
    _replaces(scene, lambda: scene.ours.command("rekey-child"))


def we_rekey_what_has_carried_enough(scene: Scene) -> None:
    """Our kernel counts the packets that we send, and says so; no ping is lost over it."""

    def send() -> None:
        for _ in range(scene.terms.ours.rekey_child_packets):
            scene.ping()

    _replaces(scene, send)


def they_rekey_the_child(scene: Scene) -> None:
    _replaces(scene, scene.theirs.rekey_child)


def we_rekey_the_ike_sa(scene: Scene) -> None:
    _keeps_children(scene, lambda: scene.ours.command("rekey-ike"), we_asked=True)


def they_rekey_the_ike_sa(scene: Scene) -> None:
    _keeps_children(scene, scene.theirs.rekey_ike, we_asked=False)


def everything_is_rekeyed_by_both(scene: Scene) -> None:
    """One after the other, on IKE SAs that are themselves new."""
    for event in (we_rekey_the_ike_sa, they_rekey_the_child, they_rekey_the_ike_sa, we_rekey_the_child):
        event(scene)
        scene.protected()


def we_reauthenticate(scene: Scene) -> None:
    _replaces(scene, lambda: scene.ours.command("reauthenticate"))
    assert len(scene.ours.events("IkeSaUp")) == 2


def they_reauthenticate(scene: Scene) -> None:
    assert isinstance(scene.theirs, StrongSwan)
    _replaces(scene, scene.theirs.reauthenticate)
    assert len(scene.ours.events("IkeSaUp")) == 2


def they_move(scene: Scene) -> None:
    """Their address is taken away and they have another one (RFC 4555)."""
    other = MOVED
    # In this order: a second address of one network goes with the first.
    ip("right", f"addr del {scene.bed.right.addresses[4]}/24 dev wire", f"addr add {other}/24 dev wire")
    ip("right", f"route replace {scene.bed.left.networks[4]} via {scene.bed.left.addresses[4]}")
    ip("left", f"route replace {scene.bed.right.networks[4]} via {other}")
    scene.settles(
        lambda: (
            {str(other)} == {_other_end(scene, str(state.source), str(state.destination)) for state in _left(scene)}
        ),
        lambda: f"our SAs did not follow: {_left(scene)}",
    )


def _left(scene: Scene) -> list[StateDump]:
    return scene.bed.left.states()


def _other_end(scene: Scene, source: str, destination: str) -> str:
    return destination if source == str(scene.bed.left.addresses[4]) else source


def _replaces(scene: Scene, deed: Callable[[], object]) -> None:
    """After it both kernels have other SAs than before, and in the end those alone."""
    before = scene.spis()
    deed()
    scene.settles(lambda: not scene.spis() & before and len(scene.spis()) == 2, lambda: "the SAs are not replaced")


def _keeps_children(scene: Scene, deed: Callable[[], object], *, we_asked: bool) -> None:
    """After it there is another IKE SA, and the CHILD SAs are what they were."""
    before, seen = scene.spis(), len(scene.ours.lines)
    deed()
    rekeyed = scene.ours.wait_for("IkeSaRekeyed", since=seen, seconds=30)
    assert rekeyed["initiator"] is we_asked
    assert scene.spis() == before


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
    """Our side is killed, and they find out. What it has left is not removed while it lives, and then it is."""
    kept = scene.ours.clean_up()
    assert (kept["states"], kept["policies"], kept["in_use"]) == (0, 0, 1)
    scene.protected()
    scene.ours.signal(signal.SIGKILL)
    scene.settles(lambda: not scene.bed.right.states(), lambda: "they still have their SAs", seconds=40)
    assert len(_left(scene)) == 2
    removed = scene.ours.clean_up()
    assert (removed["states"], removed["policies"], removed["in_use"]) == (2, 3, 0)


BOTH, LEFT = ("left", "right"), ("left",)

ENDS: dict[Event, tuple[str, ...]] = {
    we_delete_the_child: BOTH,
    they_delete_the_child: BOTH,
    we_delete_the_ike_sa: BOTH,
    they_delete_the_ike_sa: BOTH,
    they_vanish: LEFT,
    we_vanish: BOTH,
}
"""Events that end the tunnel, and at which gateways nothing may be left: a killed daemon tidies nothing up."""
