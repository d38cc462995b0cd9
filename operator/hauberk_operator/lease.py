"""Leadership by a Lease (coordination.k8s.io): one replica leads, the others wait.

Clocks of different nodes are not compared. A candidate takes a Lease over when its record has not changed for the
Lease's duration *by the candidate's own clock*, or when its holder has given it up. A holder that could not renew for
RENEW_DEADLINE, which is shorter, stops leading by itself. Every write carries the resourceVersion that the decision was
made on, so of two candidates one wins. Called by operator.py and uninstall.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from hauberk_api.names import LEASE
from hauberk_operator.facts import Json
from hauberk_operator.kube import Kube, KubeError
from hauberk_operator.writes import LEASE_RESOURCE

DURATION_SECONDS: Final = 15
RENEW_DEADLINE_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 2.0

log = logging.getLogger(__name__)


class LeaseLostError(Exception):
    """This replica does not lead any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a Lease says."""

    holder: str = ""
    duration_seconds: int = 0
    acquired: str = ""
    renewed: str = ""
    transitions: int = 0
    resource_version: str = ""

    @classmethod
    def parse(cls, obj: Json) -> Record:
        spec: Json = obj.get("spec") or {}
        return cls(
            holder=spec.get("holderIdentity") or "",
            duration_seconds=spec.get("leaseDurationSeconds") or 0,
            acquired=spec.get("acquireTime") or "",
            renewed=spec.get("renewTime") or "",
            transitions=spec.get("leaseTransitions") or 0,
            resource_version=obj["metadata"]["resourceVersion"],
        )

    def body(self, namespace: str) -> Json:
        metadata: Json = {"name": LEASE, "namespace": namespace}
        if self.resource_version:
            metadata["resourceVersion"] = self.resource_version
        spec: Json = {"holderIdentity": self.holder, "leaseTransitions": self.transitions}
        if self.holder:
            spec |= {
                "leaseDurationSeconds": self.duration_seconds,
                "acquireTime": self.acquired,
                "renewTime": self.renewed,
            }
        return {
            "apiVersion": LEASE_RESOURCE.api_version,
            "kind": LEASE_RESOURCE.kind,
            "metadata": metadata,
            "spec": spec,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A record, and when this process first saw it so, by its monotonic clock."""

    record: Record
    since: float

    def seeing(self, record: Record, now: float) -> Observation:
        """The observation after another look."""
        return self if record == self.record else Observation(record=record, since=now)

    def may_take(self, identity: str, now: float) -> bool:
        """Whether a candidate may write itself in."""
        if self.record.holder in ("", identity):
            return True
        return now - self.since >= self.record.duration_seconds


class Lease:
    """This replica's hold on the Lease."""

    def __init__(
        self,
        kube: Kube,
        *,
        namespace: str,
        identity: str,
        clock: Callable[[], float],
        duration_seconds: int = DURATION_SECONDS,
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._identity = identity
        self._clock = clock
        self._duration_seconds = duration_seconds
        self._held: Record | None = None
        self._renewed = clock()

    async def acquire(self) -> None:
        """Wait until this replica leads."""
        observation: Observation | None = None
        told = ""
        while True:
            try:
                record = await self._read()
                now = self._clock()
                if record is None:
                    await self._create()
                    return
                observation = observation.seeing(record, now) if observation else Observation(record=record, since=now)
                if observation.may_take(self._identity, now):
                    await self._take(record)
                    return
                if told != record.holder:
                    told = record.holder
                    log.info("standing by: %s leads", record.holder)
            except KubeError as error:
                if not error.conflict:
                    log.warning("cannot ask for leadership, will go on trying: %s", error)
            await asyncio.sleep(RETRY_SECONDS)

    async def seize(self) -> None:
        """Take the Lease whoever holds it: the holder stops at its next renewal. Raises KubeError."""
        while True:
            try:
                record = await self._read()
                await (self._create() if record is None else self._take(record))
            except KubeError as error:
                if not error.conflict:
                    raise
            else:
                return

    async def renew(self) -> None:
        """Renew for ever. Raises LeaseLostError once another has it, or it could not be renewed for too long."""
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                async with asyncio.timeout_at(self._deadline()):
                    await self._renew_once()
            except TimeoutError:
                raise LeaseLostError("the Lease could not be renewed in time") from None
            except KubeError as error:
                if error.conflict or error.not_found:
                    await self._make_sure(error)
                elif self._clock() - self._renewed >= RENEW_DEADLINE_SECONDS:
                    raise LeaseLostError(f"the Lease could not be renewed in time: {error}") from error
                else:
                    log.warning("cannot renew the Lease, will go on trying: %s", error)

    async def release(self) -> None:
        """Give the Lease up, so that a standby need not wait. Best effort."""
        held, self._held = self._held, None
        if held is None:
            return
        given_up = Record(transitions=held.transitions, resource_version=held.resource_version)
        try:
            await self._write(given_up)
        except KubeError as error:
            log.info("the Lease could not be given up: %s", error)

    def _deadline(self) -> float:
        left = RENEW_DEADLINE_SECONDS - (self._clock() - self._renewed)
        return asyncio.get_running_loop().time() + max(left, 0.1)

    async def _renew_once(self) -> None:
        if self._held is None:
            raise LeaseLostError("the Lease was given up")
        started = self._clock()
        held = self._held
        await self._write(
            Record(
                holder=held.holder,
                duration_seconds=held.duration_seconds,
                acquired=held.acquired,
                renewed=_micro_time(),
                transitions=held.transitions,
                resource_version=held.resource_version,
            )
        )
        self._renewed = started

    async def _make_sure(self, error: KubeError) -> None:
        """After a conflict: the Lease may still be ours (a label was put on it, or an answer of ours was lost)."""
        record = await self._read()
        if record is None or record.holder != self._identity:
            holder = "nobody" if record is None else record.holder or "nobody"
            raise LeaseLostError(f"{holder} holds the Lease") from error
        self._held = record

    async def _read(self) -> Record | None:
        obj = await self._kube.find(LEASE_RESOURCE, LEASE, namespace=self._namespace)
        return None if obj is None else Record.parse(obj)

    async def _create(self) -> None:
        started = self._clock()
        body = self._fresh(transitions=0, resource_version="").body(self._namespace)
        self._held = Record.parse(await self._kube.create(LEASE_RESOURCE, body, namespace=self._namespace))
        self._renewed = started

    async def _take(self, record: Record) -> None:
        started = self._clock()
        transitions = record.transitions + (record.holder != self._identity)
        await self._write(self._fresh(transitions=transitions, resource_version=record.resource_version))
        self._renewed = started

    async def _write(self, record: Record) -> None:
        body = record.body(self._namespace)
        obj = await self._kube.replace(LEASE_RESOURCE, LEASE, body, namespace=self._namespace)
        if record.holder:
            self._held = Record.parse(obj)

    def _fresh(self, *, transitions: int, resource_version: str) -> Record:
        now = _micro_time()
        return Record(
            holder=self._identity,
            duration_seconds=self._duration_seconds,
            acquired=now,
            renewed=now,
            transitions=transitions,
            resource_version=resource_version,
        )


def _micro_time() -> str:
    """metav1.MicroTime: for people to read, nobody compares it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
