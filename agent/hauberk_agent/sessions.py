"""The sessions: with every peer exactly one IKE SA and one used SA per direction, come what may.

Sans-IO, like the endpoint that it owns: bytes, time and chance come in, datagrams go out, states go to the kernel
through the keeper. hauberk_agent.transport drives it. What is wanted is acted on here; what the endpoint reports is
hauberk_agent.endpoint_events', what is due for a pair hauberk_agent.caretaker's, who is let in
hauberk_agent.admission's, and what becomes of SAs whose root is trusted no longer hauberk_agent.root_trust's.

**Who begins.** The node whose name sorts first initiates at once, the other after a bounded, jittered wait. A node
that starts with a kernel without SAs initiates at once whatever its name, and says INITIAL_CONTACT.

**On demand.** A pair whose tunnels all say so is set up when the kernel asks for an SA, by whichever node asks first,
and ends when nothing has gone by it for a while (hauberk_agent.demand).

**Children.** An IKE SA carries a CHILD SA for each tunnel that a pair shares, or several. Its initiator asks for all
of them, one after the other; its responder asks for what it misses after a while. One that a tunnel brings later is
made on the IKE SA that there is, and one that nobody wants any more is deleted there.

**Rekeying.** CHILD SAs and IKE SAs whose time is over, or that have carried enough, are rekeyed where they are, by
CREATE_CHILD_SA; of time the endpoint takes care itself.

**Replacing.** New credentials, changed wishes and restarts are one thing: a new IKE SA with its children, made before
the old one is broken. So is a peer's certificate that ends before the peer has brought another one. The new IKE SA's
responder installs the inbound SA before it answers and the outbound one only when the old SAs are deleted, a packet has
come in on the new one, or its initiator is heard after that, for which it is asked after a short time (after a rekey
it is not: there the DELETE always comes); its initiator installs both and deletes the old IKE SA. Which of two links
stays is decided in hauberk_agent.link.judge; the losing one's initiator deletes it, and the other end does so after a
grace time, if that end has forgotten it. What a peer that does not answer may still send on is kept until it is known
to send on something newer, or has lived on with that for a while.

**Dying.** A peer that stops answering ends the IKE SA, not the SAs in the kernel: they carry traffic until they are
replaced, deleted by their peer, or expire. Nothing here deletes anything because the agent ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from math import inf
from random import Random

from hauberk_agent.admission import Admission
from hauberk_agent.blocked_paths import BlockedPaths
from hauberk_agent.caretaker import Caretaker
from hauberk_agent.demand import Demand
from hauberk_agent.endpoint_events import EndpointEvents
from hauberk_agent.esp_paths import EspPaths
from hauberk_agent.found_states import FoundStates
from hauberk_agent.keeper import Kernel, StateKeeper
from hauberk_agent.link import Child
from hauberk_agent.pair import ChildSpec, Pair, PairSpec
from hauberk_agent.pair_table import PairTable
from hauberk_agent.path_search import PathSearches
from hauberk_agent.root_trust import RootTrust
from hauberk_agent.times import Times
from hauberk_api.names import NodeUid
from hauberk_ike import (
    Credentials,
    Datagram,
    Encapsulation,
    EndpointSettings,
    IkeEndpoint,
    IkeProposal,
    IpAddress,
    SocketAddress,
    UnknownIkeSa,
)
from hauberk_xfrm import Acquire, MappingChange, Spi, StateDump

_log = logging.getLogger("hauberk.sessions")
_DEFAULT_TIMES = Times()


class Sessions:
    """All pairs of one node."""

    def __init__(
        self,
        *,
        kernel: Kernel,
        directions: bool,
        entropy: Callable[[int], bytes],
        wall_clock: Callable[[], datetime],
        chance: Random,
        times: Times = _DEFAULT_TIMES,
        settings: EndpointSettings | None = None,
        max_attempts: int = 64,
        blocked: BlockedPaths | None = None,
    ) -> None:
        """blocked: what is known of paths, and is kept; None: nothing, and it is not."""
        self._times = times
        self._keeper = StateKeeper(kernel, directions=directions, wall_clock=wall_clock)
        self._entropy = entropy
        self._wall_clock = wall_clock
        self._chance = chance
        self._settings = settings
        self._endpoint: IkeEndpoint | None = None
        self._pairs = PairTable()
        self._acceptable: tuple[IkeProposal, ...] = ()
        """What any peer may propose: who a stranger is shows only after IKE_SA_INIT."""
        self._found = FoundStates()
        self._wanted_once = False
        self._now = 0.0
        self.on_change: Callable[[], None] = lambda: None
        """Called when a pair became well or unwell."""
        self.on_path_found: Callable[[], None] = lambda: None
        """Called when packets to a peer may be larger than before, or have to be smaller."""
        self._caretaker = Caretaker(
            pairs=self._pairs,
            keeper=self._keeper,
            times=times,
            chance=chance,
            max_attempts=max_attempts,
            changed=lambda: self.on_change(),
        )
        self.esp_paths = EspPaths(
            pairs=self._pairs,
            caretaker=self._caretaker,
            keeper=self._keeper,
            blocked=blocked if blocked is not None else BlockedPaths(),
            wall_clock=wall_clock,
            times=times,
        )
        self._caretaker.on_service = self.esp_paths.follow
        self._demand = Demand(pairs=self._pairs, caretaker=self._caretaker, keeper=self._keeper, times=times)
        self.admission = Admission(pairs=self._pairs, keeper=self._keeper, caretaker=self._caretaker)
        self.path_searches = PathSearches(ask=self._probe_path, chance=chance, found=lambda: self.on_path_found())
        self._events = EndpointEvents(
            pairs=self._pairs,
            keeper=self._keeper,
            caretaker=self._caretaker,
            admission=self.admission,
            esp_paths=self.esp_paths,
            path_searches=self.path_searches,
            times=times,
            chance=chance,
            wall_clock=wall_clock,
        )
        self._root_trust = RootTrust(
            pairs=self._pairs,
            caretaker=self._caretaker,
            times=times,
            chance=chance,
            lost=lambda pair, link: self._events.replace_lost(pair, link, self._now),
        )

    # What is wanted, and by whom.

    @property
    def pairs(self) -> Collection[Pair]:
        return self._pairs.values()

    @property
    def rekeyed_children(self) -> int:
        """How many CHILD SAs were rekeyed by CREATE_CHILD_SA because this end asked for it."""
        return self._events.rekeyed_children

    @property
    def rekeyed_ike_sas(self) -> int:
        """The same of IKE SAs."""
        return self._events.rekeyed_ike_sas

    def adopt(self, states: Iterable[StateDump]) -> None:
        """Takes over the states of an earlier run: a dump, made at start, before anything is wanted."""
        self._found.add(self._keeper.unaccounted(states))

    def set_credentials(
        self, credentials: Credentials, now: float, *, renewed: bool, left_seconds: float = inf
    ) -> None:
        """Begins to speak IKE, or goes on with these credentials.

        renewed: the certificate is a new one, with which every pair is to be authenticated anew, by and by, and before
        the old one ends: in left_seconds.
        """
        self._now = now
        if self._endpoint is None:
            self._endpoint = IkeEndpoint(
                credentials=credentials,
                policy=self.admission,
                entropy=self._entropy,
                wall_clock=self._wall_clock,
                settings=self._settings,
            )
            self._caretaker.endpoint = self._endpoint
            self._accept(self._acceptable)
            for pair in self._pairs.values():
                self._service(pair)
        else:
            self._endpoint.replace_credentials(credentials)
        self._root_trust.follow(credentials, now, renewed=renewed, left_seconds=left_seconds)

    def set_wanted(self, specs: Mapping[NodeUid, PairSpec], now: float) -> None:
        """Makes the pairs those wanted. A pair that is no longer wanted ends at once: DELETE, then its states."""
        self._now = now
        acceptable = dict.fromkeys(proposal for spec in specs.values() for proposal in spec.config.ike_proposals)
        self._accept(tuple(acceptable))
        for uid in [uid for uid in self._pairs if uid not in specs]:
            self._end(self._pairs.remove(uid))
        for uid, spec in specs.items():
            pair = self._pairs.get(uid)
            if pair is None:
                self._begin(uid, spec)
            elif pair.spec != spec:
                self._change(pair, spec)
        self._pairs.note_hosts()
        self._wanted_once = True

    def _accept(self, ike_proposals: tuple[IkeProposal, ...]) -> None:
        """Where no peer is wanted, strangers are heard by the settings' proposals, and refused by name."""
        self._acceptable = ike_proposals
        if self._endpoint is not None and ike_proposals:
            self._endpoint.accept(ike_proposals)

    def forget_found(self) -> list[StateDump]:
        """The states of an earlier run that no pair has claimed by now, given up."""
        return self._found.give_up()

    def unaccounted(self, states: Iterable[StateDump]) -> list[StateDump]:
        """Of a dump, the states of ours that no pair accounts for, and that may go."""
        return self._found.without(self._keeper.unaccounted(states))

    def rekey(self, destination: IpAddress, spi: Spi, now: float) -> None:
        """Replaces the CHILD SA of one of our states, whichever direction: the kernel says that it has done enough."""
        self._now = now
        for pair in self._pairs.values():
            for link in pair.links.values():
                if self._endpoint is None or link.deleting:
                    continue
                for child in link.children.values():
                    if child.spi_in is not None and (destination, spi) in (
                        (child.local, child.spi_in),
                        (child.remote, child.spi_out),
                    ):
                        self._endpoint.rekey_child(link.ike_sa, child.spi_in, now=now)
                        self._drain()
                        return

    def follow(self, change: MappingChange, now: float) -> None:
        """An authentic ESP packet of a peer has come from elsewhere: the NAT before it has given it another port.

        That is believed like an authentic IKE message (RFC 7296 section 2.23; `IkeEndpoint.follow` has the rules), but
        only of a pair that may meet a NAT, and ever so often: a peer whose port changes with every packet is left alone
        for a while, and the kernel says it again.
        """
        self._now = now
        found = self._pairs.of_inbound(change.destination, change.spi)
        if found is None or self._endpoint is None:
            return
        pair, link = found
        may_meet_nat = pair.spec.config.encapsulation is not Encapsulation.NEVER
        if may_meet_nat and now >= link.followed_at + self._times.follow_pause:
            link.followed_at = now
            with suppress(UnknownIkeSa):  # it is ending
                remote = SocketAddress(host=change.new_source, port=change.new_port)
                self._endpoint.follow(link.ike_sa, remote=remote, now=now)
            self._drain()

    def acquire(self, acquire: Acquire, now: float) -> None:
        """A packet has met a policy, and there is no SA for it: its pair is set up, whatever the order of names."""
        self._now = now
        self._demand.ask(acquire.reqid, now)
        self._drain()

    def misses(self, destination: IpAddress, spi: Spi) -> bool:
        """Whether a state that is no longer there ought to be: we have not removed it."""
        return self._keeper.accounts_for(destination, spi)

    def in_use(self, pair: Pair, child: Child) -> bool:
        """Whether a packet has come in on a child: its peer holds it."""
        return self._caretaker.in_use(pair, child)

    def mend(self, states: Collection[StateDump], now: float) -> None:
        """Replaces what somebody removed from the kernel, or what has expired there."""
        self._now = now
        present = {(state.destination, state.spi) for state in states if not state.larval}
        for pair in self._pairs.values():
            pair.orphans = [child for child in pair.orphans if not self._drop_vanished(child, present)]
            current = pair.current
            if (
                current is not None
                and pair.attempt is None
                and any(self._keeper.vanished(child, present) for child in current.children.values())
            ):
                _log.warning("%s: an SA is missing in the kernel, replacing it", pair.name)
                pair.replace_at = now
                self._service(pair)
        for state in states:
            # The kernel's word for it was missed.
            if state.is_worn:
                self.rekey(state.destination, state.spi, now)
            elif state.larval and state.spi == 0:
                self._demand.ask(state.reqid, now, heard=False)

    @property
    def wants_looks(self) -> bool:
        """Whether it matters to any pair what has gone by its SAs."""
        return any(
            pair.spec.config.encapsulation is Encapsulation.AUTO or pair.spec.on_demand for pair in self._pairs.values()
        )

    def look(self, states: Collection[StateDump], now: float) -> None:
        """Takes in what has gone by the SAs: a dump, made every few seconds."""
        self._now = now
        packets = {(state.destination, state.spi): state.packets for state in states}
        self.esp_paths.look(packets, now)
        self._demand.look(packets, now)

    def _drop_vanished(self, child: Child, present: set[tuple[IpAddress, Spi]]) -> bool:
        if not self._keeper.vanished(child, present):
            return False
        self._keeper.remove(child)
        return True

    # What the transport calls.

    def receive_datagram(self, data: bytes, *, local: SocketAddress, remote: SocketAddress, now: float) -> None:
        self._now = now
        if self._endpoint is not None:
            self._endpoint.receive_datagram(data, local=local, remote=remote, now=now)
            self._drain()

    def handle_timer(self, now: float) -> None:
        self._now = now
        self._keeper.handle_timer(now)
        self._root_trust.handle_timer(now)
        self.esp_paths.handle_timer(now)
        self.path_searches.handle_timer(now)
        if self._endpoint is not None:
            self._endpoint.handle_timer(now)
            self._drain()
        self._caretaker.handle_timer(now)

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        self._now = now
        if self._endpoint is None:
            return []
        self._drain()
        return self._endpoint.datagrams_to_send(now)

    def get_timer(self) -> float | None:
        times = [
            self._keeper.next_due(),
            self._caretaker.next_due(),
            self._root_trust.next_due(),
            self.esp_paths.next_due(),
            self.path_searches.next_due(),
        ]
        if self._endpoint is not None:
            times.append(self._endpoint.get_timer())
        return min((time for time in times if time is not None), default=None)

    def _probe_path(self, peer: NodeUid, packet_bytes: int) -> bool:
        """Asks on the pair's IKE SA, if it has one."""
        pair = self._pairs.get(peer)
        link = pair.current if pair is not None else None
        if self._endpoint is None or link is None or link.up_at is None or link.deleting:
            return False
        with suppress(UnknownIkeSa):  # it is ending
            self._endpoint.probe_path(link.ike_sa, packet_bytes, now=self._now)
            return True
        return False

    # Pairs come and go.

    def _begin(self, uid: NodeUid, spec: PairSpec) -> None:
        orphans = self._found.claim(spec, self._now)
        for child in orphans:
            self._keeper.adopt(child)
        pair = Pair(spec=spec, wanted_since=self._now, fresh=not orphans, orphans=orphans)
        self._pairs.add(uid, pair)
        self.esp_paths.begin(pair)
        times = self._times
        if orphans:
            wait = self._chance.uniform(*(times.adopted_wait if spec.initiates else times.adopted_wait_second))
        elif spec.initiates or not self._wanted_once:
            wait = 0.0
        else:
            wait = self._chance.uniform(*times.fresh_wait)
        pair.initiate_at = self._now + wait if pair.is_wanted(self._now) else None
        for label, standing in pair.standings.items():
            standing.unwell_since = None if pair.is_well(label) or pair.is_idle else self._now
        self._service(pair)

    def _change(self, pair: Pair, spec: PairSpec) -> None:
        old = pair.spec
        pair.follow(spec)
        self.esp_paths.begin(pair)
        if replace(old, peer=spec.peer) == spec:
            return  # what the SAs were agreed on, and how long they may live, is as before
        before = {child.label: child for child in old.children}
        for label, child in before.items():
            if label not in pair.standings:
                self._end_child(pair, child)
        added = [child for child in spec.children if child.label not in before]
        for orphan in self._found.claim(spec, self._now):
            self._keeper.adopt(orphan)
            pair.orphans.append(orphan)
        wait = (0.0, 0.0) if spec.initiates else self._times.fresh_wait
        kept = [child for child in spec.children if child not in added]
        if spec.agrees_on_links(old) and all(before[child.label] == child for child in kept):
            self._reconfigure(pair)
            self._caretaker.plan_missing(pair, self._now, wait)
        elif pair.current is None:
            pair.wishes += 1
            at = self._now + self._chance.uniform(*wait)
            pair.initiate_at = at if pair.is_wanted(self._now) else None
        else:
            pair.wishes += 1
            pair.replace_at = self._now + self._chance.uniform(*wait)
        if pair.current is None and pair.attempt is None and pair.initiate_at is None and pair.is_wanted(self._now):
            pair.initiate_at = self._now + self._chance.uniform(*wait)
        self._service(pair)

    def _reconfigure(self, pair: Pair) -> None:
        """Its IKE SAs go on, with other children to be had."""
        for link in pair.links.values():
            link.config = replace(pair.spec.config, initial_contact=link.config.initial_contact)
            if self._endpoint is not None:
                with suppress(UnknownIkeSa):  # it is ending
                    self._endpoint.reconfigure(link.ike_sa, link.config)

    def _end_child(self, pair: Pair, spec: ChildSpec) -> None:
        """A tunnel does not carry this pair any more: DELETE, then the states."""
        for link in pair.links.values():
            children = [child for child in link.every_child() if child.label == spec.label]
            for child in children:
                self._caretaker.delete_child(link.ike_sa, child.spi_in, self._now)
            link.children.pop(spec.label, None)
            link.asked.discard(spec.label)
            link.replaced = [child for child in link.replaced if child.label != spec.label]
            self._caretaker.remove(pair, children)
        self._caretaker.remove(pair, [child for child in pair.orphans if child.label == spec.label])
        pair.orphans = [child for child in pair.orphans if child.label != spec.label]
        self._caretaker.attempt(pair, lambda: self._keeper.remove_lingering(spec.reqid))

    def _end(self, pair: Pair) -> None:
        _log.info("%s: no longer a peer, removing its SAs", pair.name)
        self.esp_paths.end(pair, self._now)
        for link in list(pair.links.values()):
            self._caretaker.delete(link, "no longer a peer", self._now)
        self._caretaker.remove(pair, pair.children())
        for child in pair.spec.children:
            self._caretaker.attempt(pair, lambda child=child: self._keeper.remove_lingering(child.reqid))

    def _drain(self) -> None:
        """Acts on all events: before any datagram leaves, so that inbound SAs are there before answers are."""
        endpoint = self._endpoint
        while endpoint is not None and (event := endpoint.next_event()) is not None:
            self._events.act(event, self._now)

    def _service(self, pair: Pair) -> None:
        """Something about the pair has changed."""
        self._caretaker.service(pair, self._now)
