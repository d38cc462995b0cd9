"""What happens in a case once its tunnel stands. Each event returns when it has happened, on both ends.

After an event that is not in `ENDS` the tunnel must stand as before.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from ipaddress import ip_address

from hauberk_xfrm import StateDump
from tests.interop.bed import ip
from tests.interop.scene import SETTLE_SECONDS, Excuse, Scene

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
    """Their log tells of it, whoever asked."""
    assert "cookie" in scene.theirs.log().lower()
    assert scene.bed.wire.seen["ike"] >= 6, "no exchange more than the two that set everything up"


def set_up_apart(scene: Scene) -> None:
    """IKE_SA_INIT, IKE_AUTH, and an exchange for the child alone."""
    assert scene.bed.wire.seen["ike"] >= 6


def in_fragments(scene: Scene) -> None:
    """Messages with whole chains of certificates came in fragments of IKE's (RFC 7383), none in fragments of IP."""
    seen = scene.bed.wire.seen
    assert seen["fragment of IP"] == 0
    assert seen["ike"] >= 6, f"too few messages for two chains in fragments: {seen}"


def we_rekey_the_child(scene: Scene) -> None:
    _replaces(scene, lambda: scene.ours.command("rekey-child"), excuses=_of_a_responder(scene))


def we_rekey_what_has_carried_enough(scene: Scene) -> None:
    """Our kernel counts the packets that we send, and says so: the pings alone are the deed."""
    _replaces(scene, lambda: None, excuses=_of_a_responder(scene), seconds=2 * SETTLE_SECONDS)


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
    _replaces(scene, lambda: scene.ours.command("reauthenticate"), excuses=_SENT_TOO_EARLY)
    assert len(scene.ours.events("IkeSaUp")) == 2


def they_reauthenticate(scene: Scene) -> None:
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


def both_rekey_the_child(scene: Scene) -> None:
    """At once: both requests are on their way before either has arrived (RFC 7296 section 2.8.1)."""
    seen = len(scene.ours.lines)
    scene.bed.delay(_CROSSING_MILLISECONDS)

    def both() -> None:
        scene.ours.tell("rekey-child &")
        scene.theirs.rekey_child()

    _replaces(scene, both)
    _agrees_on_no_more(scene)
    ups = [line for line in scene.ours.lines[seen:] if line.get("event") == "ChildSaUp"]
    assert {up["initiator"] for up in ups} == {True, False}, f"no collision: {ups}"


def both_rekey_the_ike_sa(scene: Scene) -> None:
    """At once, as above; of the two new IKE SAs one stays (RFC 7296 section 2.8.2)."""
    wire, seen = scene.bed.wire, len(scene.ours.lines)
    wire.taken()
    messages = wire.seen["ike"]
    scene.bed.delay(_CROSSING_MILLISECONDS)

    def both() -> None:
        scene.ours.tell("rekey-ike &")
        scene.theirs.rekey_ike()

    _keeps_children(scene, both, we_asked=None)
    _agrees_on_no_more(scene)
    wire.taken()
    rekeyed = [line for line in scene.ours.lines[seen:] if line.get("event") == "IkeSaRekeyed"]
    assert len(rekeyed) == 1, f"one after the other, not at once: {rekeyed}"
    assert wire.seen["ike"] - messages >= 6, "two rekeys and a DELETE are six messages at least"
    scene.ours.command("rekey-child")  # on the one that stayed: both must mean the same
    scene.settles(lambda: len(scene.spis()) == 2, lambda: "the child is not replaced on the new IKE SA")


_CROSSING_MILLISECONDS = 400


def _agrees_on_no_more(scene: Scene) -> None:
    """No time is lost from here on, and there is one IKE SA."""
    scene.bed.delay(0)
    scene.settles(lambda: len(scene.ours.command("status")["ike_sas"]) == 1, lambda: "we have more than one IKE SA")


_SENT_TOO_EARLY = (("left", "XfrmAcquireError"),)
"""A responder may send on a new CHILD SA as soon as its answer is out (RFC 7296 section 2.8). To a reauthentication's
responder the CHILD SA is not even a replacement, and its kernel prefers it at once. Until we have read the answer we
know neither keys nor what it has chosen, and our kernel has the SPI alone: what comes in for it then is counted as this
(xfrm_input, net/xfrm/xfrm_input.c)."""

_TAKEN_TOO_LATE = (("right", "XfrmAcquireError"), ("right", "XfrmInNoStates"))
"""We send on what a hasty daemon has said that it has, or on what it has deleted before we could know."""


def _of_a_responder(scene: Scene) -> tuple[Excuse, ...]:
    """Those of a rekey of ours."""
    return _SENT_TOO_EARLY if scene.theirs.sends_at_once else ()


def _replaces(
    scene: Scene,
    deed: Callable[[], object],
    *,
    excuses: tuple[Excuse, ...] = (),
    seconds: float = SETTLE_SECONDS,
) -> None:
    """After it both kernels have other SAs than before, and in the end those alone."""
    before = scene.spis()
    if scene.theirs.is_hasty:
        excuses += _TAKEN_TOO_LATE
    with scene.busy(excuses):
        deed()
        scene.settles(
            lambda: not scene.spis() & before and len(scene.spis()) == 2,
            lambda: "the SAs are not replaced",
            seconds=seconds,
        )


def _keeps_children(scene: Scene, deed: Callable[[], object], *, we_asked: bool | None) -> None:
    """After it there is another IKE SA, and the CHILD SAs are what they were. `we_asked`: None where both did."""
    before, seen = scene.spis(), len(scene.ours.lines)
    with scene.busy():
        deed()
        rekeyed = scene.ours.wait_for("IkeSaRekeyed", since=seen, seconds=30)
    assert we_asked in (None, rekeyed["initiator"])
    assert scene.spis() == before


def we_delete_the_child(scene: Scene) -> None:
    scene.ours.command("delete-child")
    scene.ours.wait_for("ChildSaDown")


def we_delete_the_child_and_their_policies_stay(scene: Scene) -> None:
    """OpenIKED's do until the IKE SA ends: nothing crosses in clear by them."""
    we_delete_the_child(scene)
    scene.settles(lambda: not scene.bed.right.states(), lambda: "they still have their SAs")


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


def we_come_back(scene: Scene) -> None:
    """Our side is killed and its kernel empty, as after a reboot; we initiate anew, with INITIAL_CONTACT."""
    scene.ours.signal(signal.SIGKILL)
    _forget_everything("left")
    scene.ours.come_back(scene.terms, *scene.identities)
    scene.ours.wait_for("ChildSaUp")


def they_come_back(scene: Scene) -> None:
    """The other way round: we believe their INITIAL_CONTACT at once (RFC 7296 section 2.4)."""
    seen = len(scene.ours.lines)
    scene.theirs.signal(signal.SIGKILL)
    _forget_everything("right")
    scene.theirs.come_back()
    scene.ours.wait_for("IkeSaForgotten", since=seen)


def _forget_everything(gateway: str) -> None:
    ip(gateway, "xfrm state flush", "xfrm policy flush")


BOTH, LEFT = ("left", "right"), ("left",)

ENDS: dict[Event, tuple[str, ...]] = {
    we_delete_the_child: BOTH,
    we_delete_the_child_and_their_policies_stay: LEFT,
    they_delete_the_child: BOTH,
    we_delete_the_ike_sa: BOTH,
    they_delete_the_ike_sa: BOTH,
    they_vanish: LEFT,
    we_vanish: BOTH,
}
"""Events that end the tunnel, and at which gateways nothing may be left: a killed daemon tidies nothing up."""
