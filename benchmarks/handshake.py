"""What an IKEv2 handshake costs each side, against the bare arithmetic that it cannot do without.

A handshake is IKE_SA_INIT and IKE_AUTH with P-256 certificates, X25519 and AES-GCM, with one CHILD SA; both sides run
in this process and hand each other their datagrams, so no socket and no kernel is in the figures.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate

from benchmarks.measure import cpu_seconds
from hauberk_ike import Datagram
from tests.unit.ike.authority import Authority
from tests.unit.ike.party import Pair

_MESSAGE: Final = os.urandom(600)


def run(*, handshakes: int) -> dict[str, float]:
    """Median CPU milliseconds per handshake of initiator, responder and of one side's arithmetic, and the ratios."""
    initiator: list[float] = []
    responder: list[float] = []
    floor: list[float] = []
    arithmetic = _arithmetic()
    for seed in range(handshakes):
        pair = Pair(seed=seed)
        spent = {"alice": 0.0, "bob": 0.0}

        def timed(side: str, work: Callable[[], object], spent: dict[str, float] = spent) -> None:
            started = time.thread_time()
            work()
            spent[side] += time.thread_time() - started

        timed("alice", pair.initiate)
        for _ in range(2):
            for datagram in _take(pair, "alice", timed):
                timed("bob", lambda d=datagram, p=pair: p.bob.receive(d, p.now))
            for datagram in _take(pair, "bob", timed):
                timed("alice", lambda d=datagram, p=pair: p.alice.receive(d, p.now))
        if len(pair.alice.kernel) != 1 or len(pair.bob.kernel) != 1:
            raise RuntimeError("the handshake made no CHILD SA: there is nothing to measure")
        initiator.append(spent["alice"])
        responder.append(spent["bob"])
        floor.append(cpu_seconds(arithmetic))
    milliseconds = {
        "initiator_ms": statistics.median(initiator) * 1e3,
        "responder_ms": statistics.median(responder) * 1e3,
        "arithmetic_ms": statistics.median(floor) * 1e3,
    }
    return milliseconds | {
        "initiator_over_arithmetic": milliseconds["initiator_ms"] / milliseconds["arithmetic_ms"],
        "responder_over_arithmetic": milliseconds["responder_ms"] / milliseconds["arithmetic_ms"],
    }


def _take(pair: Pair, side: str, timed: Callable[[str, Callable[[], object]], None]) -> list[Datagram]:
    party = pair.alice if side == "alice" else pair.bob
    taken: list[Datagram] = []
    timed(side, lambda: taken.extend(party.take(pair.now)))
    return taken


def _arithmetic() -> Callable[[], object]:
    """One side's X25519, ECDSA signature, certificate parsing, and two verifications: certificate and AUTH payload."""
    authority = Authority()
    key, certificate = authority.issue("peer.default.hauberk.internal")
    der = certificate.public_bytes(Encoding.DER)
    peer = X25519PrivateKey.generate().public_key()
    algorithm = ec.ECDSA(hashes.SHA256())
    signature = key.sign(_MESSAGE, algorithm)
    public_key = key.public_key()

    def work() -> None:
        X25519PrivateKey.generate().exchange(peer)
        key.sign(_MESSAGE, algorithm)
        load_der_x509_certificate(der)
        public_key.verify(signature, _MESSAGE, algorithm)
        public_key.verify(signature, _MESSAGE, algorithm)

    return work
