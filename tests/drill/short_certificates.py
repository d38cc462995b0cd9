"""Traffic of all pairs while certificates live for a minute and the mesh's authority rolls, twice by default.

Run by `make drill` for an hour, and by a test for a minute. The cluster, Hauberk in it, the tunnel and the traffic are
given; the mesh's settings are this run's, and are given back by `restore`.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from hauberk_api.certificate import fingerprint
from hauberk_api.kinds import API_VERSION, MESH_NAME, MESHES
from tests.deployment import Deployment
from tests.ground import ground
from tests.lab.errors import NotInTime
from tests.lab.traffic import Count, Flow, Stats, Traffic
from tests.lab.vigil import Toll, Vigil

LIFE_SECONDS: Final = 60
ROLL_SECONDS: Final = 180.0
"""Within which a roll is over: its operator waits two minutes at most, for each of two steps."""
READY_SECONDS: Final = 240.0
"""Until all is set up. Machines of continuous integration have much else to do."""
SLACK_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 5.0
_REQUESTS: Final = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_MESH: Final = f"/apis/{API_VERSION}/{MESHES}/{MESH_NAME}"

Progress = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What was seen. `faults` are sentences; without any, all that was promised held."""

    minutes: float = 0.0
    ca_rolls: int = 0
    renewals: int = 0
    """Certificates signed meanwhile, each node's first one apart."""
    stats: Stats = field(default_factory=Stats)
    toll: Toll = field(default_factory=Toll)
    oldest_seconds: float = 0.0
    """The age, at its worst, of the youngest SA of any directed pair: none may outlive its certificates."""
    faults: list[str] = field(default_factory=list[str])

    def judge(self, nodes: Sequence[str], flows: Collection[Flow], *, rolls: int) -> list[str]:
        """What did not hold of the traffic between these nodes, which is to be all of these flows; a sentence each."""
        total = self.stats.total
        quiet = sorted(flow for flow in flows if not self.stats.flows.get(flow, Count()).answered)
        lives = int(self.minutes * 60 / LIFE_SECONDS) * len(nodes)
        checks = (
            (total.lost > 0, f"{total.lost} of {total.sent} messages lost:\n{self.stats.table()}"),
            (total.wrong > 0, f"{total.wrong} answers that fit no message"),
            (bool(quiet), f"nothing was answered on {', '.join(map(str, quiet[:5]))}"),
            (bool(self.stats.unreachable), f"no counters from {', '.join(self.stats.unreachable)}"),
            (self.ca_rolls < rolls, f"{self.ca_rolls} of {rolls} rolls ended"),
            (self.renewals < lives, f"{self.renewals} renewals, fewer than the {lives} lives that passed"),
            (
                self.oldest_seconds > LIFE_SECONDS + SLACK_SECONDS,
                f"an SA was in use for {self.oldest_seconds:.0f} s: longer than a certificate lives",
            ),
        )
        return [*self.toll.faults(esp_between=nodes), *(fault for wrong, fault in checks if wrong)]


def old_certificates(
    signed: Mapping[int, x509.Certificate],
    used: Mapping[str, int],
    roots: Sequence[x509.Certificate],
    *,
    now: datetime,
) -> list[str]:
    """Where a certificate of a root before the last one is still good, or used: at the end nowhere. A sentence each.

    signed: all that were, by serial number. used: the serial number of each node's. roots: those trusted.
    """
    if len(roots) != 1:
        return [f"{len(roots)} roots are trusted at the end, not one"]
    faults = [
        f"certificate {serial:x} of an old root is good until {certificate.not_valid_after_utc:%H:%M:%S}"
        for serial, certificate in signed.items()
        if certificate.not_valid_after_utc > now and not _is_of(certificate, roots[0])
    ]
    for node, serial in used.items():
        certificate = signed.get(serial)
        if certificate is None:
            faults.append(f"nobody saw {node}'s certificate {serial:x} being signed")
        elif not _is_of(certificate, roots[0]):
            faults.append(f"{node} uses a certificate of an old root")
    return faults


class ShortCertificates:
    """One run. Methods raise LabError, CommandFailed and what subprocess raises when the cluster fails."""

    def __init__(self, deployment: Deployment, traffic: Traffic, *, scratch: Path, progress: Progress) -> None:
        self._deployment = deployment
        self._lab = deployment.lab
        self._traffic = traffic
        self._scratch = scratch
        self._progress = progress
        self._certificates: dict[int, x509.Certificate] = {}
        """All that were signed since `prepare`, by their serial numbers."""
        self._since = datetime.now(UTC)
        self._oldest = 0.0
        self._tell_at = 60.0
        self._lost: dict[Flow, int] = {}
        """What has been told of."""

    def prepare(self) -> None:
        """One-minute certificates for everybody, before anything counts: by a root that leaves no other good."""
        self._since = datetime.now(UTC).replace(microsecond=0)
        roll = self._settings(roll="short", mode="Distrust", lifetimeSeconds=LIFE_SECONDS)
        self._wait("every agent has a certificate of a minute", lambda: self._rolled(roll) and not self._laggards())
        self._deployment.wait_paired(timeout=READY_SECONDS)

    def restore(self) -> None:
        """The mesh's settings as they come, and certificates of a day."""
        roll = self._settings(roll="restored", mode="Distrust")
        self._wait("every agent has another certificate", lambda: self._rolled(roll) and not self._laggards())

    def run(self, *, minutes: float, rolls: int = 2) -> Outcome:
        """Traffic for so long, and so many rolls, evenly spread and begun in its first four fifths."""
        outcome = Outcome(minutes=minutes)
        # What came before is answered, or counts as lost, by then.
        time.sleep(self._traffic.pace.patience_seconds)
        self._oldest = 0.0
        self._look()
        first = len(self._certificates)
        due = [minutes * 60 * 0.8 * (number + 0.25) / rolls for number in range(rolls)]
        before = self._traffic.stats()
        began = time.monotonic()
        with Vigil(self._lab, lambda: ground(self._lab), directory=self._scratch) as vigil:
            rolling, roll_began = None, began
            while (passed := time.monotonic() - began) < minutes * 60 or rolling is not None or due:
                self._look()
                if rolling is None and due and passed >= due[0]:
                    due.pop(0)
                    roll_began = time.monotonic()
                    rolling = self._settings(roll="drill", mode="Overlap", lifetimeSeconds=LIFE_SECONDS)
                    self._progress(f"the authority rolls ({outcome.ca_rolls + 1} of {rolls})")
                elif rolling is not None and self._rolled(rolling):
                    outcome.ca_rolls += 1
                    self._progress(f"it has rolled, in {time.monotonic() - roll_began:.0f} s")
                    rolling = None
                elif rolling is not None and time.monotonic() - roll_began > ROLL_SECONDS:
                    outcome.faults.append(f"a roll did not end within {ROLL_SECONDS:.0f} s: {self._authority()}")
                    rolling, due = None, []
                self._tell(passed, minutes, len(self._certificates) - first, before, vigil.toll())
                time.sleep(_LOOK_SECONDS)
            # What is under way now is answered, or lost.
            time.sleep(self._traffic.pace.patience_seconds)
            self._look()
        outcome.renewals = len(self._certificates) - first
        outcome.stats, outcome.toll = self._traffic.stats().since(before), vigil.toll()
        outcome.oldest_seconds = self._oldest
        outcome.faults += outcome.judge([node.name for node in self._lab.nodes], self._traffic.flows(), rolls=rolls)
        # The last that an old root has signed may live on for a minute, of no use to anybody.
        deadline = time.monotonic() + LIFE_SECONDS + SLACK_SECONDS
        while (old := self._old_certificates()) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        outcome.faults += old
        return outcome

    # What is looked at

    def _old_certificates(self) -> list[str]:
        self._look()
        used = {
            node.name: int(self._deployment.agent_status(node.name)["identity"]["serial"], 16)
            for node in self._lab.nodes
        }
        self._look()
        return old_certificates(self._certificates, used, self._trusted(), now=datetime.now(UTC))

    def _look(self) -> None:
        """Takes down what has been signed, and how old the SAs in use are."""
        for item in self._lab.api.get(_REQUESTS)["items"]:
            encoded = item.get("status", {}).get("certificate")
            asked_at = datetime.fromisoformat(item["metadata"]["creationTimestamp"])
            if encoded and asked_at >= self._since and item["spec"]["signerName"].startswith("hauberk.dev/"):
                certificate = x509.load_pem_x509_certificate(base64.b64decode(encoded))
                self._certificates[certificate.serial_number] = certificate
        now = datetime.now(UTC)
        for node in self._lab.nodes:
            youngest: dict[tuple[str, str], datetime] = {}
            for state in self._deployment.states(node.name):
                ends = (state.source, state.destination)
                youngest[ends] = max(state.added, youngest.get(ends, state.added))
            self._oldest = max([self._oldest, *((now - added) / timedelta(seconds=1) for added in youngest.values())])

    def _tell(self, passed: float, minutes: float, renewals: int, before: Stats, toll: Toll) -> None:
        """A line every minute, and one for each flow that has lost something since."""
        if passed < self._tell_at:
            return
        self._tell_at = passed + 60.0
        stats = self._traffic.stats().since(before)
        total = stats.total
        for flow, count in sorted(stats.flows.items()):
            if count.lost > self._lost.get(flow, 0):
                self._progress(f"lost: {flow}: {count.lost} by now")
                self._lost[flow] = count.lost
        self._progress(
            f"{passed / 60:.0f} of {minutes:g} minutes: {renewals} renewals, {total.sent} messages sent, "
            f"{total.lost} lost; {toll.esp} packets of ESP, {toll.clear} in clear; oldest SA {self._oldest:.0f} s"
        )

    def _authority(self) -> dict[str, Any]:
        return self._lab.api.get(_MESH).get("status", {}).get("authority") or {}

    def _trusted(self) -> tuple[x509.Certificate, ...]:
        plan: dict[str, Any] = self._lab.api.get(_MESH).get("status", {}).get("plan") or {}
        bundle: str = plan.get("trustBundle", "")
        return tuple(x509.load_pem_x509_certificates(bundle.encode())) if bundle else ()

    def _rolled(self, roll: str) -> bool:
        """Whether a roll is over: taken up, at rest, and one root in the plan."""
        authority = self._authority()
        return authority.get("handledRoll") == roll and authority.get("phase") == "Stable" and len(self._trusted()) == 1

    def _laggards(self) -> list[str]:
        """The nodes whose agents report no certificate of the one root that is trusted."""
        roots = self._trusted()
        if len(roots) != 1:
            return ["the plan"]
        reports: dict[str, dict[str, str]] = {
            item["metadata"]["name"]: item.get("status", {}).get("certificate") or {}
            for item in self._lab.api.get(f"/apis/{API_VERSION}/ipsecreports")["items"]
        }
        return [
            node.name
            for node in self._lab.nodes
            if reports.get(node.name, {}).get("issuerFingerprint") != fingerprint(roots[0])
        ]

    # What is done

    def _settings(self, *, roll: str, mode: str, **certificates: int) -> str:
        """Asks for a roll. Returns its id."""
        roll_id = f"{roll}-{time.time():.0f}"
        wanted = {"certificates": {**certificates, "roll": {"id": roll_id, "mode": mode}}}
        self._lab.kubectl("replace", "-f", "-", stdin=json.dumps(self._lab.api.get(_MESH) | {"spec": wanted}))
        return roll_id

    def _wait(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not holds():
            if time.monotonic() > deadline:
                raise NotInTime(f"not within {READY_SECONDS:.0f} s: {what}: {', '.join(self._laggards())}")
            time.sleep(0.5)


def _is_of(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
