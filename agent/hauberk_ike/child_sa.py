"""CHILD SAs that are up, and what becomes of one when another takes its place (RFC 7296 sections 1.3.3, 2.8, 2.17).

A CHILD SA is *current* until a rekey has made a successor. From then on it waits for its DELETE: the end that asked for
the rekey sends it, at once. A CHILD SA that has lost a collision of two rekeys is *redundant* from the start, and waits
for the DELETE of its own creator. If that DELETE does not come in time, we delete what was to be deleted ourselves; if
the successor goes first, the CHILD SA is current again. So nothing stays half replaced.

Who is to rekey or delete when is in `due`; the IKE SA's timer looks there.
"""

from typing import TYPE_CHECKING

from hauberk_ike import lifetime
from hauberk_ike.aggfrag import Aggfrag
from hauberk_ike.collision import Asked, Race
from hauberk_ike.config import ChildConfig, Mode
from hauberk_ike.events import ChildSaInfo, ChildSaUp
from hauberk_ike.key_agreement import Secrets
from hauberk_ike.keys import derive_child_keys
from hauberk_ike.proposals import EspProposal
from hauberk_ike.selectors import TrafficSelector

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa


class ChildSa:
    """One CHILD SA. Its keys are with whoever drained ChildSaUp, and nowhere else."""

    __slots__ = (
        "config",
        "due",
        "initiator",
        "is_closing",
        "is_redundant",
        "mode",
        "proposal",
        "race",
        "replaces",
        "spi_in",
        "spi_out",
        "successors",
        "ts_local",
        "ts_remote",
    )

    def __init__(self, agreed: "AgreedChild") -> None:
        self.config = agreed.config
        self.spi_in = agreed.spi_in
        self.spi_out = agreed.spi_out
        self.mode = agreed.mode
        self.proposal = agreed.proposal
        self.ts_local = agreed.ts_local
        self.ts_remote = agreed.ts_remote
        self.initiator = agreed.initiator
        self.replaces = agreed.replaces
        """The one that this one is to replace, as long as that one is there."""
        self.successors: tuple[ChildSa, ...] = ()
        """The ones that were made to replace this one, and are there: two after a collision."""
        self.is_redundant = False
        self.race: Race | None = None
        """While we are rekeying it."""
        self.is_closing = False
        """Whether our DELETE for it is on its way, or waits for its turn."""
        self.due: float | None = None
        """When it is to be rekeyed, or deleted after all if it is not current."""

    @property
    def is_current(self) -> bool:
        """Whether it is in use and to be rekeyed in time."""
        return not self.successors and not self.is_redundant

    def set_due(self, sa: "IkeSa", now: float) -> None:
        """To be called when it has become current, or ceased to be."""
        if not self.is_current:
            self.due = now + sa.context.settings.replaced_seconds
        elif self.race is None:
            self.due = lifetime.rekey_time(
                sa.context.entropy, seconds=self.config.rekey_seconds, initiator=self.initiator, now=now
            )

    def info(self) -> ChildSaInfo:
        """As `status` shows it."""
        return ChildSaInfo(
            label=self.config.label,
            spi_in=self.spi_in,
            spi_out=self.spi_out,
            mode=self.mode,
            proposal=self.proposal,
            ts_local=self.ts_local,
            ts_remote=self.ts_remote,
        )


class AgreedChild:
    """A CHILD SA on which both ends have agreed, but for its keys. It holds the SPI that we have taken for it.

    `replaces` is what it is a rekey of. `initiator`: whether we asked for it. `aggfrag`: what the peer requires in the
    mode IPTFS.
    """

    __slots__ = (
        "aggfrag",
        "config",
        "initiator",
        "mode",
        "proposal",
        "replaces",
        "spi_in",
        "spi_out",
        "ts_local",
        "ts_remote",
    )

    def __init__(
        self,
        config: ChildConfig,
        *,
        initiator: bool,
        spi_in: int,
        spi_out: int,
        mode: Mode,
        proposal: EspProposal,
        ts_local: tuple[TrafficSelector, ...],
        ts_remote: tuple[TrafficSelector, ...],
        replaces: ChildSa | None = None,
        aggfrag: Aggfrag | None = None,
    ) -> None:
        self.config = config
        self.aggfrag = aggfrag
        self.initiator = initiator
        self.spi_in = spi_in
        self.spi_out = spi_out
        self.mode = mode
        self.proposal = proposal
        self.ts_local = ts_local
        self.ts_remote = ts_remote
        self.replaces = replaces

    @property
    def asked(self) -> Asked:
        """What the exchange is about."""
        return Asked.CREATE_CHILD if self.replaces is None else Asked.REKEY_CHILD

    def install(self, sa: "IkeSa", secrets: Secrets, now: float, *, redundant: bool = False) -> ChildSa:
        """Files it with the IKE SA and reports ChildSaUp. `redundant`: it has lost a collision already."""
        from_initiator, to_initiator = derive_child_keys(
            sa.keys,
            self.proposal,
            nonce_i=secrets.nonce_i,
            nonce_r=secrets.nonce_r,
            shared=secrets.shared,
            additional=secrets.additional,
        )
        ours, theirs = (from_initiator, to_initiator) if self.initiator else (to_initiator, from_initiator)
        ends = sa.path.ends
        child = ChildSa(self)
        child.is_redundant = redundant
        sa.children[child.spi_in] = child
        sa.context.events.append(
            ChildSaUp(
                ike_sa=sa.handle,
                peer=sa.peer,
                label=self.config.label,
                spi_in=self.spi_in,
                spi_out=self.spi_out,
                keys_in=theirs,
                keys_out=ours,
                proposal=self.proposal,
                mode=self.mode,
                dont_fragment=self.aggfrag is not None and self.aggfrag.dont_fragment,
                ts_local=self.ts_local,
                ts_remote=self.ts_remote,
                initiator=self.initiator,
                local=ends.local.host,
                remote=ends.remote.host,
                encapsulation=ends.encapsulation,
                rekeyed_spi_in=self.replaces.spi_in if self.replaces else sa.reauthenticated_spi(self.config.label),
                redundant=redundant,
            )
        )
        old = self.replaces
        if old is not None and old.spi_in in sa.children:
            old.successors += (child,)
            old.set_due(sa, now)
        else:
            child.replaces = None
        child.set_due(sa, now)
        return child

    def release(self, sa: "IkeSa") -> None:
        """Nothing comes of it: gives the SPI back."""
        sa.context.policy.release_spi(self.spi_in, sa.peer)


def unlink(sa: "IkeSa", child: ChildSa, now: float) -> None:
    """A CHILD SA is gone: its successors replace nothing any more, and what it was to replace may be current again."""
    for successor in child.successors:
        successor.replaces = None
    old, child.replaces = child.replaces, None
    if old is not None:
        old.successors = tuple(each for each in old.successors if each is not child)
        if old.is_current and not old.is_closing:
            old.set_due(sa, now)
