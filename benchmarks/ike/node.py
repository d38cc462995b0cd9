"""A node that speaks our IKEv2 over real sockets, in a process of its own: the load, and what is loaded.

Started by `benchmarks.ike.hauberk`, which describes it in a file and tells it what to do, a line at a time:

    initiate COUNT PARALLEL     sets up COUNT more IKE SAs, PARALLEL at a time; answers `done SECONDS FAILED`
    established                 answers the number of IKE SAs

It says `ready` once it listens, and ends when its standard input does. The endpoint, its policy's answers and the
transport are what an agent runs; there is no CHILD SA, as charon could make none on a kernel without ESP.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Final, cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import BaseModel

from hauberk_agent.garbage import collect_seldom
from hauberk_agent.transport import Transport
from hauberk_ike import (
    ChildConfig,
    Credentials,
    Datagram,
    EndpointSettings,
    Identity,
    IkeEndpoint,
    IkeProposal,
    IkeSaDown,
    IkeSaUp,
    IpAddress,
    PeerConfig,
    PeerRefused,
    RefusalsWithheld,
    Refused,
    SocketAddress,
    SpiUnavailable,
)

IKE_PORT: Final = 500


class NodeSpec(BaseModel):
    """What a node is told at its start."""

    identity: str
    key: str
    certificate: str
    root: str
    local: str
    peer_identity: str
    remote: str
    proposal: str


@dataclass(slots=True)
class Task:
    """A number of IKE SAs to set up."""

    waiting: int
    pending: int
    failed: int
    started: float


class Speaker:
    """The endpoint and its owner, as `hauberk_agent.transport` drives them."""

    def __init__(self, spec: NodeSpec) -> None:
        proposals = (IkeProposal.parse(spec.proposal),)
        key = load_pem_private_key(spec.key.encode(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("the benchmark's keys are P-256")
        self._peer = PeerConfig(
            name="peer",
            identity=Identity.parse(spec.peer_identity),
            local=SocketAddress(host=ip_address(spec.local), port=IKE_PORT),
            remote=SocketAddress(host=ip_address(spec.remote), port=IKE_PORT),
            ike_proposals=proposals,
            children=(),
            dpd_seconds=0.0,  # charon does none by default
        )
        self._endpoint = IkeEndpoint(
            credentials=Credentials(
                identity=Identity.parse(spec.identity),
                private_key=key,
                certificate_chain=(x509.load_pem_x509_certificate(spec.certificate.encode()),),
                roots=(x509.load_pem_x509_certificate(spec.root.encode()),),
            ),
            policy=self,
            entropy=os.urandom,
            wall_clock=lambda: datetime.now(UTC),
            # All the load comes from one address here: neither side is to take it for a flood.
            settings=EndpointSettings(
                ike_proposals=proposals,
                cookie_threshold=1 << 20,
                half_open_per_address=1 << 20,
                half_open_limit=1 << 20,
            ),
        )
        self.established = 0
        self._task: Task | None = None

    # hauberk_ike.PeerPolicy

    def find(self, identity: Identity, remote: SocketAddress) -> PeerConfig | None:
        return self._peer if identity == self._peer.identity else None

    def authorize(self, identity: Identity, remote: SocketAddress) -> PeerConfig:
        peer = self.find(identity, remote)
        if peer is None:
            raise Refused("UnknownPeer", str(identity))
        return peer

    def permit_address(self, peer: PeerConfig, remote: SocketAddress) -> None:
        raise Refused("AddressChanged")

    def is_known(self, host: IpAddress) -> bool:
        return host == self._peer.remote.host

    def allocate_spi(self, child: ChildConfig, peer: PeerConfig) -> int:
        raise SpiUnavailable("there is no kernel here")

    def release_spi(self, spi: int, peer: PeerConfig) -> None:
        raise AssertionError("no SPI was ever given")

    def count_arrived(self, spi: int, peer: PeerConfig) -> int | None:
        return None

    # hauberk_agent.transport.Speaker

    def receive_datagram(self, data: bytes, *, local: SocketAddress, remote: SocketAddress, now: float) -> None:
        self._endpoint.receive_datagram(data, local=local, remote=remote, now=now)
        self._drain(now)

    def handle_timer(self, now: float) -> None:
        self._endpoint.handle_timer(now)
        self._drain(now)

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        return self._endpoint.datagrams_to_send(now)

    def get_timer(self) -> float | None:
        return self._endpoint.get_timer()

    # The load

    def initiate(self, count: int, parallel: int, now: float) -> None:
        """Sets up `count` IKE SAs, `parallel` at a time."""
        self._task = Task(waiting=count, pending=0, failed=0, started=time.perf_counter())
        for _ in range(min(count, parallel)):
            self._one_more(self._task, now)

    def _one_more(self, task: Task, now: float) -> None:
        if task.waiting:
            task.waiting -= 1
            task.pending += 1
            self._endpoint.initiate(self._peer, now=now)
        elif not task.pending:
            seconds = time.perf_counter() - task.started
            self._task = None
            say(f"done {seconds} {task.failed}")

    def _drain(self, now: float) -> None:
        while (event := self._endpoint.next_event()) is not None:
            if isinstance(event, IkeSaUp):
                self.established += 1
            elif isinstance(event, (PeerRefused, RefusalsWithheld)):
                print(event, file=sys.stderr, flush=True)
                continue
            elif isinstance(event, IkeSaDown):
                print(event.message, file=sys.stderr, flush=True)
                if self._task is not None:
                    self._task.failed += 1
            if self._task is not None:
                self._task.pending -= 1
                self._one_more(self._task, now)


def say(line: str) -> None:
    """Answers who started us."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def run(spec: NodeSpec) -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    speaker = Speaker(spec)
    transport = Transport(speaker, port=IKE_PORT)
    transport.listen([ip_address(spec.local)])
    if transport.problems:
        raise SystemExit(transport.problems[0])
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), cast("object", sys.stdin))  # type: ignore[arg-type]
    collect_seldom()
    say("ready")
    while line := (await orders.readline()).decode().split():
        match line:
            case ["initiate", count, parallel]:
                speaker.initiate(int(count), int(parallel), loop.time())
                transport.pump()
            case ["established"]:
                say(str(speaker.established))
            case _:
                raise SystemExit(f"what is {line}?")
    transport.close()


if __name__ == "__main__":
    asyncio.run(run(NodeSpec.model_validate_json(Path(sys.argv[1]).read_text())))
