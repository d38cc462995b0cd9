"""What the IKE SAs of an endpoint share: credentials, policy, limits, each other, and where events and datagrams go."""

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Final

from hauberk_ike.config import EndpointSettings, PeerConfig, PeerPolicy
from hauberk_ike.credentials import AS_THE_ENDPOINT, CertifiedKey, Credentials, PreSharedKey, Trust
from hauberk_ike.datagram import Datagram, SocketAddress
from hauberk_ike.encapsulation import NON_ESP_MARKER
from hauberk_ike.events import Event
from hauberk_ike.identity import Identity
from hauberk_ike.key_log import build_line
from hauberk_ike.keys import IkeKeys
from hauberk_ike.proposals import IkeProposal
from hauberk_ike.refusals import Refusals
from hauberk_ike.registry import Registry
from hauberk_ike.trust import TrustStore

MAX_STORES: Final = 16
"""So many sets of roots that only some peers are judged by are kept ready."""


class Context:
    """Made by the endpoint, read by everything beneath it."""

    __slots__ = (
        "_stores",
        "credentials",
        "decoy",
        "entropy",
        "events",
        "key_log",
        "outbox",
        "policy",
        "refusals",
        "registry",
        "settings",
        "trust",
        "wall_clock",
    )

    def __init__(
        self,
        *,
        credentials: Credentials | None,
        policy: PeerPolicy,
        entropy: Callable[[int], bytes],
        wall_clock: Callable[[], datetime],
        settings: EndpointSettings,
        key_log: Callable[[str], None] | None,
    ) -> None:
        self.policy = policy
        self.entropy = entropy
        self.wall_clock = wall_clock
        self.settings = settings
        self.registry = Registry(settings, entropy, policy.is_known)
        self.key_log = key_log
        self.events: deque[Event] = deque()
        self.refusals = Refusals(settings, policy.is_known, self.events)
        self.outbox: list[Datagram] = []
        self.decoy = PreSharedKey(secret=entropy(32))
        """What the proof of somebody unknown is compared with: nobody has it, and it takes the usual time."""
        self.trust: TrustStore | None = None
        self._stores: dict[Trust, TrustStore] = {}
        self.use(credentials)

    def send(self, message: bytes, *, local: SocketAddress, remote: SocketAddress, dont_fragment: bool = False) -> None:
        """Puts an IKE message into the outbox, with its marker on the encapsulation port."""
        if local.port == self.settings.encapsulation_port:
            message = NON_ESP_MARKER + message
        self.outbox.append(Datagram(data=message, local=local, remote=remote, dont_fragment=dont_fragment))

    def use(self, credentials: Credentials | None) -> None:
        """Authenticate with these from now on; with None only peers that have all they need in their configuration."""
        self.credentials = credentials
        if credentials is None:
            self.trust = None
        elif self.trust is None or self.trust.trust != credentials.trust:
            self.trust = TrustStore(credentials.trust)

    def log_keys(self, proposal: IkeProposal, keys: IkeKeys, *, spi_i: bytes, spi_r: bytes) -> None:
        """An IKE SA has its keys, or new ones: whoever asked for a key log (`hauberk_ike.key_log`) gets its line."""
        if self.key_log is not None:
            self.key_log(build_line(proposal, keys, spi_i=spi_i, spi_r=spi_r))

    def local(self, peer: PeerConfig | None) -> tuple[Identity | None, tuple[CertifiedKey, ...] | PreSharedKey | None]:
        """Who we are to a peer, or to strangers, and with what we prove it. None: we have no such thing."""
        wanted = (peer.authentication if peer is not None else None) or AS_THE_ENDPOINT
        default = self.credentials
        identity = wanted.local_identity or (default.identity if default is not None else None)
        local = wanted.local or (default.keys if default is not None else None)
        return identity, (local,) if isinstance(local, CertifiedKey) else local

    def remote(self, peer: PeerConfig | None) -> TrustStore | PreSharedKey | None:
        """What a peer's proof, or a stranger's, is judged by."""
        wanted = demanded_of(peer)
        if isinstance(wanted, Trust):
            return self._store(wanted)
        return wanted or self.trust

    def _store(self, trust: Trust) -> TrustStore:
        store = self._stores.get(trust)
        if store is None:
            if len(self._stores) == MAX_STORES:
                del self._stores[next(iter(self._stores))]
            store = self._stores[trust] = TrustStore(trust)
        return store


def demanded_of(peer: PeerConfig | None) -> Trust | PreSharedKey | None:
    """What a peer has to prove itself with; None: what all have to, by the endpoint's credentials."""
    return peer.authentication.remote if peer is not None and peer.authentication is not None else None
