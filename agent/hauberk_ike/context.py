"""What the IKE SAs of an endpoint share: credentials, policy, limits, each other, and where events and datagrams go."""

from collections import deque
from collections.abc import Callable
from datetime import datetime

from hauberk_ike.config import Credentials, EndpointSettings, PeerPolicy
from hauberk_ike.datagram import Datagram, SocketAddress
from hauberk_ike.encapsulation import NON_ESP_MARKER
from hauberk_ike.events import Event
from hauberk_ike.key_log import build_line
from hauberk_ike.keys import IkeKeys
from hauberk_ike.proposals import IkeProposal
from hauberk_ike.registry import Registry
from hauberk_ike.trust import TrustStore


class Context:
    """Made by the endpoint, read by everything beneath it."""

    __slots__ = (
        "credentials",
        "entropy",
        "events",
        "key_log",
        "outbox",
        "policy",
        "registry",
        "settings",
        "trust",
        "wall_clock",
    )

    def __init__(
        self,
        *,
        credentials: Credentials,
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
        self.registry = Registry(settings, entropy)
        self.key_log = key_log
        self.events: deque[Event] = deque()
        self.outbox: list[Datagram] = []
        self.use(credentials)

    def send(self, message: bytes, *, local: SocketAddress, remote: SocketAddress) -> None:
        """Puts an IKE message into the outbox, with its marker on the encapsulation port."""
        if local.port == self.settings.encapsulation_port:
            message = NON_ESP_MARKER + message
        self.outbox.append(Datagram(data=message, local=local, remote=remote))

    def use(self, credentials: Credentials) -> None:
        """Authenticate with these from now on."""
        self.credentials = credentials
        self.trust = TrustStore(credentials.roots)

    def log_keys(self, proposal: IkeProposal, keys: IkeKeys, *, spi_i: bytes, spi_r: bytes) -> None:
        """An IKE SA has its keys, or new ones: whoever asked for a key log (`hauberk_ike.key_log`) gets its line."""
        if self.key_log is not None:
            self.key_log(build_line(proposal, keys, spi_i=spi_i, spi_r=spi_r))
