"""Several nodes' sessions on one simulated network: real IKEv2, fake kernels, a clock that a test moves.

Datagrams take some milliseconds and may be lost. While the clock moves, traffic flows between all nodes whose kernels
have SAs, and every packet that a receiver has no state for is counted: what is made before it is broken loses none.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from ipaddress import IPv4Address
from itertools import count, permutations
from math import inf
from random import Random
from typing import NamedTuple

from hauberk_agent.blocked_paths import BlockedPaths
from hauberk_agent.ownership import TRIAL_REQID
from hauberk_agent.pairing import pair_specs
from hauberk_agent.reqid import ChildKey
from hauberk_agent.roster import Roster
from hauberk_agent.sessions import Sessions
from hauberk_agent.times import Times
from hauberk_api.names import NodeUid, node_identity
from hauberk_api.node import NodeSpec
from hauberk_api.plan import PlannedTunnel
from hauberk_api.tunnel import DEFAULT_IKE_PROPOSALS, Encapsulation, Establish
from hauberk_ike import Credentials, Datagram, IpAddress, SocketAddress
from hauberk_ike.wire.header import Header
from hauberk_xfrm import ReqId, Spi, StateDump, Template
from tests.unit.agent.fake_kernel import FakeKernel
from tests.unit.agent.mesh import TUNNEL, node, plan, roster, tunnel
from tests.unit.ike.authority import TODAY, Authority

LATENCY_SECONDS = 0.002
TRAFFIC_SECONDS = 0.1
LOOK_SECONDS = 2.0
"""How often an agent looks at what its kernel has counted."""


@cache
def authority() -> Authority:
    return Authority()


@cache
def credentials(number: int, generation: int = 0) -> Credentials:
    """A node's credentials; another generation is another certificate."""
    assert generation >= 0
    return authority().credentials(node_identity(NodeUid(f"uid-{number}")))


class Party:
    """One node: a kernel, and the sessions of an agent that can be killed and started again."""

    def __init__(self, network: Network, number: int) -> None:
        self.network = network
        self.number = number
        self.name = f"n{number}"
        self.outer: IpAddress = IPv4Address(f"10.250.0.{number}")
        self.kernel = self._boot()
        self.sessions: Sessions | None = None
        self.blocked = BlockedPaths()
        """What is on its disk."""
        self.listens = True
        self.tunnels: tuple[PlannedTunnel, ...] | None = None
        """What this node believes of the network's further tunnels, if that is something else."""

    @property
    def alive(self) -> Sessions:
        assert self.sessions is not None, f"{self.name} is not running"
        return self.sessions

    def start(self) -> None:
        """Starts the agent: it takes over what is in the kernel."""
        seed = self.network.chance.random()
        self.sessions = Sessions(
            kernel=self.kernel,
            directions=True,
            entropy=self.network.chance.randbytes,
            wall_clock=self.network.wall_clock,
            chance=Random(seed),
            blocked=self.blocked,
            times=self.network.times,
        )
        self.sessions.esp_paths.probe = self._probe
        self.sessions.adopt(self.kernel.dump_states())
        self.sessions.set_credentials(credentials(self.number), self.network.now, renewed=False)

    def _probe(self, template: Template, if_id: int) -> None:
        states = [s for s in self.kernel.all_outbound(template.destination) if s.reqid == template.reqid]
        if not states:
            raise OSError("no SA")
        self.network.carry_esp(self, states[0])

    def revive(self) -> None:
        """Starts the agent, which follows the plan of all."""
        self.start()
        self.want(self.network.members)

    def kill(self) -> None:
        """SIGKILL: the kernel goes on."""
        self.sessions = None

    def reboot(self) -> None:
        self.sessions = None
        self.kernel = self._boot()

    def _boot(self) -> FakeKernel:
        return FakeKernel(clock=lambda: self.network.wall_clock().timestamp())

    def roster(self, members: Sequence[int], **spec: NodeSpec) -> Roster:
        further = self.network.tunnels if self.tunnels is None else self.tunnels
        memberships = (TUNNEL, *(each.uid for each in further))
        nodes = {f"n{number}": node(number, tunnels=memberships) for number in members}
        settings = tunnel(
            rekey_seconds=self.network.rekey_seconds,
            rekey_packets=self.network.rekey_packets,
            establish=self.network.establish,
            idle_seconds=self.network.idle_seconds,
            ike_rekey_seconds=self.network.ike_rekey_seconds,
            encapsulation=self.network.encapsulation,
            ike_proposals=self.network.ike_proposals,
            dpd_seconds=self.network.dpd_seconds,
        )
        return roster(self.name, plan(settings, *further), **{**nodes, **spec})

    def want(self, members: Sequence[int]) -> None:
        """Follows a plan in which these nodes are members."""
        specs = pair_specs(self.roster(members), self.reqid, port=500) if self.number in members else {}
        self.alive.set_wanted(specs, self.network.now)
        self.flush()

    def reqid(self, key: ChildKey) -> ReqId:
        uids = (TUNNEL, *(each.uid for each in self.network.tunnels))
        return ReqId(0x48000000 + 0x1000 * uids.index(key.tunnel) + 0x100 * key.index + int(key.peer[len("uid-") :]))

    def flush(self) -> None:
        if self.sessions is not None:
            for datagram in self.sessions.datagrams_to_send(self.network.now):
                self.network.send(datagram)

    def address(self, of: Party) -> IpAddress:
        return of.outer


@dataclass(slots=True)
class Flow:
    sent: int = 0
    lost: int = 0


@dataclass(order=True)
class _Event:
    at: float
    order: int
    act: Callable[[], None] = field(compare=False)


class _Alarm(NamedTuple):
    at: float
    number: int


class Network:
    """The wire and the clock."""

    def __init__(self, size: int, *, seed: int = 1, loss: float = 0.0, rekey_seconds: int = 3600) -> None:
        self.rekey_seconds = rekey_seconds
        self.chance = Random(seed)
        self.loss = loss
        self.now = 1000.0
        self.rekey_packets: int | None = None
        self.ike_rekey_seconds = 14_400
        self.times = Times()
        self.encapsulation = Encapsulation.AUTO
        self.establish = Establish.EAGER
        self.idle_seconds = 600
        self.ike_proposals: tuple[str, ...] = DEFAULT_IKE_PROPOSALS
        self.dpd_seconds = 10
        self.tunnels: tuple[PlannedTunnel, ...] = ()
        """Beside the one that all nodes are in."""
        self.has_traffic = True
        self.is_one_way = False
        """Whether traffic flows from lower to higher numbers only."""
        self.service_seconds = 0.0
        """How long a node works on each datagram, one after the other: in a storm they wait."""
        self._loses: Callable[[Header, Datagram], bool] | None = None
        self.loses_esp: set[tuple[str, str]] = set()
        """From which node to which the wire loses ESP that is not in UDP."""
        self.nat_ports: dict[IpAddress, int] = {}
        """By node: the port outside that its port 4500 is mapped to."""
        self.parties = [Party(self, number) for number in range(1, size + 1)]
        self.members = [party.number for party in self.parties]
        self.flow = Flow()
        self.datagrams = 0
        self.repeated = 0
        """Of these, those that were sent before, byte for byte."""
        self._sent: set[Datagram] = set()
        self._busy_until: dict[IpAddress, float] = {}
        self._next_look = self.now
        self._order = count()
        self._queue: list[_Event] = []
        self.clocks_stand_at: float | None = None
        """How many seconds after the beginning the nodes' wall clocks have stopped, if they have."""
        self._alarms: list[_Alarm] = []
        self._alarm_at: dict[int, float] = {}
        self._by_host: dict[IpAddress, list[Party]] = {}

    def __getitem__(self, number: int) -> Party:
        return self.parties[number - 1]

    def wall_clock(self) -> datetime:
        since = self.now - 1000.0 if self.clocks_stand_at is None else self.clocks_stand_at
        return TODAY + timedelta(seconds=since)

    def start(self, *, apply: bool = True) -> None:
        """All agents start; apply: each then learns of all members."""
        for party in self.parties:
            party.start()
        if apply:
            for party in self.parties:
                party.alive.set_wanted({}, self.now)
            for party in self.parties:
                party.want(self.members)

    @contextmanager
    def losing(self, loses: Callable[[Header, Datagram], bool]) -> Generator[None]:
        """Meanwhile the wire loses these datagrams, whatever chance says."""
        self._loses = loses
        try:
            yield
        finally:
            self._loses = None

    def send(self, datagram: Datagram) -> None:
        self.datagrams += 1
        self.repeated += datagram in self._sent
        self._sent.add(datagram)
        if self.chance.random() < self.loss:
            return
        if self._loses is not None and self._loses(Header.parse(datagram.data), datagram):
            return
        arrives = self.now + LATENCY_SECONDS * self.chance.uniform(0.5, 1.5)
        if self.service_seconds:
            host = datagram.remote.host
            arrives = self._busy_until[host] = max(arrives, self._busy_until.get(host, 0.0)) + self.service_seconds
        self._at(arrives, lambda: self._deliver(datagram))

    def _deliver(self, datagram: Datagram) -> None:
        source, destination = self._outside(datagram.local), datagram.remote
        for party in self._by_host.get(destination.host, ()):
            if party.sessions is not None and party.listens:
                inside = replace(destination, port=4500)
                local = inside if self._outside(inside) == destination else destination
                party.sessions.receive_datagram(datagram.data, local=local, remote=source, now=self.now)
                party.flush()
                self._set_alarm(party)

    def _outside(self, address: SocketAddress) -> SocketAddress:
        """What others see of a socket."""
        port = self.nat_ports.get(address.host)
        return address if port is None or address.port != 4500 else replace(address, port=port)

    def _at(self, at: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, _Event(at, next(self._order), act))

    def run(self, seconds: float) -> None:
        """Lets time pass: datagrams arrive, timers fire, traffic flows."""
        end = self.now + seconds
        next_traffic = self.now if self.has_traffic else end
        self._look_around()
        while True:
            times = [each.at for each in (*self._queue[:1], *self._alarms[:1])]
            at = self.now = max(self.now, min(*times, next_traffic, self._next_look, end))
            if at >= end:
                return
            if at >= self._next_look:
                self._next_look = at + LOOK_SECONDS
                self._look()
            if at >= next_traffic:
                self._exchange_traffic()
                next_traffic = at + TRAFFIC_SECONDS
            while self._queue and self._queue[0].at <= at:
                heapq.heappop(self._queue).act()
            self._ring(at)

    def _look(self) -> None:
        for party in self.parties:
            if party.sessions is not None:
                party.sessions.look(party.kernel.dump_states(), self.now)
                party.flush()
                self._set_alarm(party)

    def _look_around(self) -> None:
        """A test may have done anything since: where everybody is, and when each wants to wake up."""
        self._by_host = {}
        self._alarms.clear()
        self._alarm_at.clear()
        for party in self.parties:
            self._by_host.setdefault(party.outer, []).append(party)
            self._set_alarm(party)

    def _set_alarm(self, party: Party) -> None:
        """After a party's sessions were told something. One that rings too early does no harm, and is set anew then."""
        timer = party.sessions.get_timer() if party.sessions is not None else None
        if timer is not None and timer < self._alarm_at.get(party.number, inf):
            self._alarm_at[party.number] = timer
            heapq.heappush(self._alarms, _Alarm(timer, party.number))

    def _ring(self, at: float) -> None:
        """Whoever has something to do by now does it, in the order of their numbers."""
        woken: set[int] = set()
        while self._alarms and self._alarms[0].at <= at:
            alarm = heapq.heappop(self._alarms)
            if self._alarm_at.get(alarm.number) == alarm.at:
                del self._alarm_at[alarm.number]
                woken.add(alarm.number)
        for number in sorted(woken):
            party = self[number]
            timer = party.sessions.get_timer() if party.sessions is not None else None
            if timer is not None and timer <= at:
                party.alive.handle_timer(at)
                party.flush()
            self._set_alarm(party)

    def run_until(self, done: Callable[[], bool], *, limit: float) -> float:
        """Seconds until `done`. Fails after `limit`."""
        started = self.now
        while not done():
            assert self.now < started + limit, f"not within {limit} s"
            self.run(0.05)
        return self.now - started

    def _exchange_traffic(self) -> None:
        """One packet each way between all pairs that have SAs. It arrives at once: what counts is who knows which."""
        for one, other in permutations(self.parties, 2):
            if not (self.is_one_way and one.number > other.number):
                for state in one.kernel.all_outbound(one.address(other)):
                    if state.reqid == TRIAL_REQID:
                        continue  # no policy's
                    self.flow.sent += 1
                    self.flow.lost += not self.carry_esp(one, state)

    def carry_esp(self, sender: Party, state: StateDump) -> bool:
        """A packet by one of a node's SAs. Returns whether it arrives."""
        sender.kernel.take(state.destination, state.spi)
        (receiver,) = [party for party in self.parties if party.outer == state.destination]
        lost = state.encapsulation is None and (sender.name, receiver.name) in self.loses_esp
        return not lost and receiver.kernel.take(state.destination, state.spi)

    # What must hold in the end

    def connected(self) -> bool:
        return all(pair.well for party in self.parties if party.sessions is not None for pair in party.sessions.pairs)

    def spis(self, party: Party) -> set[Spi]:
        return {state.spi for state in party.kernel.complete_states()}

    def disagreements(self) -> list[str]:
        """Directed pairs that do not have exactly one SA a child that both know, or an IKE SA too many."""
        faults: list[str] = []
        for one, other in permutations(self.parties, 2):
            source, destination = one.address(one), one.address(other)
            sends = {s.spi for s in one.kernel.complete_states() if s.destination == destination}
            takes = {s.spi for s in other.kernel.complete_states() if s.source == source}
            wanted = sum(len(pair.spec.children) for pair in one.alive.pairs if pair.name == other.name)
            if len(sends) != wanted or sends != takes:
                faults.append(f"{one.name}->{other.name}: sends {sorted(sends)}, takes {sorted(takes)}")
        for party in self.parties:
            faults.extend(
                f"{party.name}: {pair.name} has {len(pair.links)} links, {len(pair.orphans)} orphans"
                for pair in party.alive.pairs
                if len(pair.links) != 1 or pair.orphans
            )
        return faults
