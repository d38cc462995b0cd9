"""Attacks on agents by IKEv2, told inside a kernel with ESP.

The network is that of tests/kernel/agent_stories: agents run on n1 and n2, and n3 is the attacker's. It has the key and
the certificate that n3's agent had, and `hauberk-ike`, which says whatever it is told to. What each attack is about is
in `table`. OUTCOMES gets a JSON object: by the attack's name whether it was refused, and what was said.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hauberk_api.certificate import node_dns_names
from hauberk_api.names import NodeName, NodeUid, node_identity
from hauberk_api.tunnel import DEFAULT_ESP_PROPOSALS, DEFAULT_IKE_PROPOSALS
from hauberk_ike import EndpointSettings
from tests.attacks.attack import NotRefused
from tests.kernel.agent_stories import PATIENCE_SECONDS, TUNNEL, World, eventually, settled, spis
from tests.unit.ike.authority import Authority

Json = dict[str, Any]

ATTACKER, VICTIM, OTHER = 3, 1, 2
VICTIM_LOG: Final = Path("/run/results/n1.log")


@dataclass(slots=True, kw_only=True)
class Attempt:
    """What came of one try to set up SAs with the victim."""

    events: list[Json]
    refusals: list[str]
    """The lines in which the victim's log tells of refusals meanwhile."""

    @property
    def children(self) -> list[Json]:
        """The CHILD SAs that the attacker has set up. What the victim sets up with n3 is as the mesh wants it."""
        return [event for event in self.events if event.get("event") == "ChildSaUp" and event["initiator"]]


class AttackedAgents:
    """The ground. An attack leaves n1 and n2 with SAs between them, and n3 a member of the mesh."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.mine = Credentials.of(ATTACKER)
        self.stolen = Credentials.of(OTHER)

    def attempt(
        self,
        credentials: Credentials,
        *,
        identity: int = ATTACKER,
        claims: Sequence[str] = ("10.244.3.0/24",),
        ike: str = DEFAULT_IKE_PROPOSALS[0],
        apart: bool = False,
    ) -> Attempt:
        """Sets up an IKE SA and a CHILD SA with the victim, as far as it lets us.

        The victim tells of a few refusals in each period: when it has told enough, the next period is waited for.
        apart: the CHILD SA in an exchange of its own, once the IKE SA is up.
        """
        attempt = self._attempt(credentials, identity=identity, claims=claims, ike=ike, apart=apart)
        if not attempt.children and not attempt.refusals:
            time.sleep(EndpointSettings().refusals_seconds)
            attempt = self._attempt(credentials, identity=identity, claims=claims, ike=ike, apart=apart)
        return attempt

    def _attempt(
        self,
        credentials: Credentials,
        *,
        identity: int,
        claims: Sequence[str],
        ike: str,
        apart: bool,
    ) -> Attempt:
        said_before = len(VICTIM_LOG.read_text())
        options: list[str] = ["--local", "10.250.0.3", "--remote", "10.250.0.1", "--profile", "mesh"]
        options += ["--identity", uid_identity(identity), "--peer-identity", uid_identity(VICTIM)]
        options += [*credentials.options(), "--ike", ike, "--esp", DEFAULT_ESP_PROPOSALS[0], "--label", TUNNEL]
        options += [word for claim in claims for word in ("--ts-local", claim)]
        options += ["--ts-remote", "10.244.1.0/24", "--command", "quit", "-o", "json"]
        options += ["--retransmit-tries", "2", *(["--children-apart"] if apart else [])]
        program = str(Path(sys.executable).parent / "hauberk-ike")
        done = subprocess.run(
            ["ip", "netns", "exec", "n3", program, "initiate", *options],
            capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode not in (0, 3, 4):
            raise RuntimeError(f"hauberk-ike could not try: {done.stderr}")
        events = [json.loads(line) for line in done.stdout.splitlines()]
        said = VICTIM_LOG.read_text()[said_before:].splitlines()
        return Attempt(events=events, refusals=[line for line in said if "refused" in line])

    def refused(self, reason: str, attempt: Attempt) -> str:
        """The victim's words. Raises NotRefused if there came a CHILD SA, or if they are others."""
        if attempt.children:
            raise NotRefused(f"the victim has agreed: {attempt.children}")
        for line in attempt.refusals:
            if reason in line:
                return line[line.index("refused") :]
        raise NotRefused(f"no word of {reason}: {attempt.refusals or attempt.events}")

    def publish(self, **change: Any) -> None:
        """Changes what the mesh publishes, and waits until the victim follows."""
        for name, value in change.items():
            setattr(self.world.mesh, name, value)
        self.world.mesh.publish()

    def knows(self, *peers: str) -> bool:
        return [peer["node"] for peer in self.world.mesh.status(VICTIM)["peers"]] == list(peers)


def uid_identity(number: int) -> str:
    return node_identity(NodeUid(f"uid-{number}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A key, and certificates for it, the own one first. `roots` are those that its holder trusts."""

    key: bytes = field(repr=False)
    chain: bytes
    roots: bytes

    @classmethod
    def of(cls, number: int) -> Credentials:
        """A node's own, as they lie on its disk."""
        directory = Path(f"/run/source/n{number}")
        plan = Path("/run/attacks/roots.pem").read_bytes()
        return cls(key=(directory / "tls.key").read_bytes(), chain=(directory / "tls.crt").read_bytes(), roots=plan)

    def options(self) -> list[str]:
        """As hauberk-ike takes them."""
        directory = Path("/run/attacks")
        for name, content in (("key", self.key), ("chain", self.chain), ("ca", self.roots)):
            (directory / f"{name}.pem").write_bytes(content)
        return [
            *("--key", f"{directory}/key.pem"), *("--certificate", f"{directory}/chain.pem"),
            *("--ca", f"{directory}/ca.pem"),
        ]  # fmt: skip


def forged(
    ground: AttackedAgents, number: int, *, by: Authority, not_after: timedelta = timedelta(hours=1)
) -> Credentials:
    """A certificate in a node's names, for a key of the attacker's."""
    names = node_dns_names(NodeUid(f"uid-{number}"), NodeName(f"n{number}"))
    now = datetime.now(UTC)
    key, leaf = by.issue(*names, not_before=now - timedelta(hours=2), not_after=now + not_after)
    chain = b"".join(certificate_pem(certificate) for certificate in (leaf, *by.intermediates))
    return Credentials(key=key_pem(key), chain=chain, roots=ground.mine.roots)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, none = serialization.Encoding.PEM, serialization.NoEncryption()
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, none)


# Attacks


def another_nodes_pods_in_ike(ground: AttackedAgents) -> str:
    return ground.refused("TS_UNACCEPTABLE", ground.attempt(ground.mine, claims=("10.244.2.0/24",)))


def another_nodes_pods_once_authenticated(ground: AttackedAgents) -> str:
    attempt = ground.attempt(ground.mine, claims=("10.244.2.0/24",), apart=True)
    if not any(event.get("event") == "IkeSaUp" for event in attempt.events):
        raise NotRefused(f"it was not even let in: {attempt.events}")
    failures = [event["reason"] for event in attempt.events if event.get("event") == "ChildSaFailed"]
    if attempt.children or not any("TS_UNACCEPTABLE" in failure for failure in failures):
        raise NotRefused(f"a CHILD SA, or another reason: {attempt.events}")
    return failures[0]


def all_pods_in_ike(ground: AttackedAgents) -> str:
    """It may have its own; what it claims besides is cut off. Packets that pretend to be others' have no SA."""
    attempt = ground.attempt(ground.mine, claims=("0.0.0.0/0", "10.244.3.0/24"))
    if not attempt.children:
        raise NotRefused(f"not even its own: {attempt.events}")
    granted = {selector for child in attempt.children for selector in child["ts_local"]}
    own = {"10.244.3.0-10.244.3.255", "10.250.0.3", "10.250.0.3-10.250.0.3"}
    if not granted <= own:
        raise NotRefused(f"granted: {', '.join(sorted(granted))}")
    return f"narrowed to {', '.join(sorted(granted))}"


def another_nodes_identity_in_ike(ground: AttackedAgents) -> str:
    return ground.refused("IdentityMismatch", ground.attempt(ground.mine, identity=OTHER))


def a_stolen_certificate_from_a_foreign_address(ground: AttackedAgents) -> str:
    return ground.refused("AddressMismatch", ground.attempt(ground.stolen, identity=OTHER, claims=("10.244.2.0/24",)))


def a_deleted_nodes_certificate(ground: AttackedAgents) -> str:
    """Its Node, and so its IPsecNode, is gone; its certificate is good for an hour."""
    ground.publish(members=[VICTIM, OTHER])
    try:
        eventually(lambda: ground.knows("n2"), "n3 is no peer of the victim")
        return ground.refused("UnknownPeer", ground.attempt(ground.mine))
    finally:
        ground.publish(members=[VICTIM, OTHER, ATTACKER])
        eventually(lambda: ground.knows("n2", "n3"), "n3 is a peer of the victim")


def a_revoked_nodes_certificate(ground: AttackedAgents) -> str:
    """Its IPsecNode is there, memberships and all: as of a Node that has just registered again."""
    ground.publish(revoked=("n3",))
    try:
        eventually(lambda: ground.knows("n2"), "n3 is no peer of the victim")
        return ground.refused("UnknownPeer", ground.attempt(ground.mine))
    finally:
        ground.publish(revoked=())
        eventually(lambda: ground.knows("n2", "n3"), "n3 is a peer of the victim")


def a_foreign_authority(ground: AttackedAgents) -> str:
    """One of the same name."""
    return ground.refused("signature does not match", ground.attempt(forged(ground, ATTACKER, by=Authority())))


def an_expired_certificate(ground: AttackedAgents) -> str:
    old = forged(ground, ATTACKER, by=ground.world.mesh.authority, not_after=timedelta(seconds=-1))
    return ground.refused("not valid at validation time", ground.attempt(old))


def a_node_that_signs(ground: AttackedAgents) -> str:
    """n3's key, which the mesh has certified, certifies another one, which no operator has seen."""
    key = serialization.load_pem_private_key(ground.mine.key, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    node = Authority(parent=ground.world.mesh.authority, key=key)
    node.certificate = x509.load_pem_x509_certificate(ground.mine.chain)
    node.name = node.certificate.subject
    return ground.refused("cA must be asserted", ground.attempt(forged(ground, ATTACKER, by=node)))


def a_downgrade_to_what_quantum_computers_break(ground: AttackedAgents) -> str:
    weak = "aes256gcm16-prfsha384-x25519"
    return ground.refused("NoProposalChosen", ground.attempt(ground.mine, ike=weak))


def the_real_one_is_let_in(ground: AttackedAgents) -> None:
    """Or refusals would prove nothing."""
    attempt = ground.attempt(ground.mine)
    assert len(attempt.children) == 1, attempt.events


def try_all(attempts: Sequence[Callable[[AttackedAgents], str]], outcomes_file: Path) -> None:
    """All attacks, in this kernel; a ground that can't be made is an outcome of all of them."""
    outcomes: dict[str, tuple[bool, str]] = {}
    world = World()
    try:
        # n3 has no agent, and two that begin at once would be busy with it.
        for number in (VICTIM, OTHER):
            world.mesh.start(number)
        eventually(lambda: settled((VICTIM, OTHER)) and len(spis(VICTIM)) == 2, "SAs between n1 and n2")
        Path("/run/attacks").mkdir()
        Path("/run/attacks/roots.pem").write_bytes(certificate_pem(world.mesh.authority.certificate))
        ground = AttackedAgents(world)
        the_real_one_is_let_in(ground)
        for attempt in attempts:
            started = time.monotonic()
            try:
                outcomes[attempt.__name__] = (True, attempt(ground))
            except NotRefused as failure:
                outcomes[attempt.__name__] = (False, str(failure))
            print(f"{attempt.__name__}: {time.monotonic() - started:.1f} s", flush=True)
    except Exception:  # noqa: BLE001 - whatever went wrong is the outcome
        said = f"{traceback.format_exc()}\n{VICTIM_LOG.read_text()[-3000:]}"
        for attempt in attempts:
            outcomes.setdefault(attempt.__name__, (False, said))
    for agent in world.mesh.agents.values():
        with contextlib.suppress(ProcessLookupError):
            agent.kill()
    outcomes_file.write_text(json.dumps(outcomes))
    os.sync()
