"""CHILD SAs: what is asked, what is answered, and what both ends then know (RFC 7296 sections 1.2, 1.3.1, 2.9, 2.17).

IKE_AUTH and CREATE_CHILD_SA carry the same payloads for a new CHILD SA; they differ in the nonces alone. Both use this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hauberk_ike import negotiation, vendor
from hauberk_ike.config import ChildConfig, Mode
from hauberk_ike.errors import ExchangeRefused, MalformedMessage, SpiUnavailable
from hauberk_ike.events import ChildSaFailed, ChildSaInfo, ChildSaUp
from hauberk_ike.keys import derive_child_keys
from hauberk_ike.numbers import NotifyType
from hauberk_ike.proposals import EspProposal
from hauberk_ike.selectors import TrafficSelector, covered, narrow
from hauberk_ike.wire.message import Contents, KnownPayload
from hauberk_ike.wire.payloads import Notify
from hauberk_ike.wire.security_association import Proposal, SecurityAssociation
from hauberk_ike.wire.traffic_selectors import TsInitiator, TsResponder

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa

MIN_SPI: Final = 256
"""SPIs 1 to 255 are reserved (RFC 4303 section 2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSa:
    """A CHILD SA that is up. Its keys are with whoever drained ChildSaUp, and nowhere else."""

    label: str
    spi_in: int
    spi_out: int
    mode: Mode
    proposal: EspProposal
    ts_local: tuple[TrafficSelector, ...]
    ts_remote: tuple[TrafficSelector, ...]

    def info(self) -> ChildSaInfo:
        """As `status` shows it."""
        return ChildSaInfo(
            label=self.label,
            spi_in=self.spi_in,
            spi_out=self.spi_out,
            mode=self.mode,
            proposal=self.proposal,
            ts_local=self.ts_local,
            ts_remote=self.ts_remote,
        )


class ChildRequest:
    """A CHILD SA that we ask for. Holds the SPI that it took until the answer is in."""

    __slots__ = ("_spi_in", "config")

    def __init__(self, config: ChildConfig) -> None:
        self.config = config
        self._spi_in: int | None = None

    def build(self, sa: "IkeSa") -> list[KnownPayload]:
        """SA, TSi, TSr and notifies. Raises SpiUnavailable."""
        self._spi_in = spi_in = sa.context.policy.allocate_spi(self.config, sa.peer)
        payloads: list[KnownPayload] = [
            negotiation.offer_esp(_esp_proposals(self.config), spi_in.to_bytes(negotiation.ESP_SPI_SIZE)),
            TsInitiator(selectors=self.config.ts_local),
            TsResponder(selectors=self.config.ts_remote),
        ]
        if self.config.mode is Mode.TRANSPORT:
            payloads.append(Notify(type=NotifyType.USE_TRANSPORT_MODE))
        if sa.peer_is_hauberk:
            payloads.append(vendor.build_label(self.config.label))
        return payloads

    def accept(self, sa: "IkeSa", contents: Contents, *, nonce_i: bytes, nonce_r: bytes) -> None:
        """Reports ChildSaUp, or ChildSaFailed for a refusal or an answer that is not to what was asked.

        Raises ExchangeRefused in that last case, after giving the SPI back: the peer then believes in a CHILD SA
        that must be deleted.
        """
        error = contents.error()
        if error is not None:
            self.fail(sa, _notify_name(error.type))
            return
        try:
            proposal, spi = negotiation.accepted_esp(contents.one(SecurityAssociation), _esp_proposals(self.config))
            ts_local = contents.one(TsInitiator).selectors
            ts_remote = contents.one(TsResponder).selectors
            transport = contents.notify(NotifyType.USE_TRANSPORT_MODE) is not None
            if not ts_local or not ts_remote:
                raise ExchangeRefused(NotifyType.TS_UNACCEPTABLE, "the answer has no traffic selectors")
            if not covered(ts_local, self.config.ts_local) or not covered(ts_remote, self.config.ts_remote):
                raise ExchangeRefused(NotifyType.TS_UNACCEPTABLE, "the answer widens the traffic selectors")
            if transport is not (self.config.mode is Mode.TRANSPORT):
                raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "the answer is for another mode")
            spi_out = parse_spi(spi)
        except ExchangeRefused as refusal:
            self.fail(sa, str(refusal))
            raise
        except MalformedMessage as malformed:
            self.fail(sa, str(malformed))
            raise
        assert self._spi_in is not None
        spi_in, self._spi_in = self._spi_in, None
        _install(
            sa,
            ChildSa(
                label=self.config.label,
                spi_in=spi_in,
                spi_out=spi_out,
                mode=self.config.mode,
                proposal=proposal,
                ts_local=ts_local,
                ts_remote=ts_remote,
            ),
            initiator=True,
            nonce_i=nonce_i,
            nonce_r=nonce_r,
        )

    @property
    def spi_in(self) -> int | None:
        """The SPI that is held."""
        return self._spi_in

    def release(self, sa: "IkeSa") -> None:
        """Gives back the SPI, if one is held."""
        spi_in, self._spi_in = self._spi_in, None
        if spi_in is not None:
            sa.context.policy.release_spi(spi_in, sa.peer)

    def fail(self, sa: "IkeSa", reason: str) -> None:
        """Gives back the SPI and reports ChildSaFailed (unless `reason` is empty)."""
        self.release(sa)
        if reason:
            sa.context.events.append(ChildSaFailed(ike_sa=sa.handle, label=self.config.label, reason=reason))


def answer_child(sa: "IkeSa", contents: Contents, *, nonce_i: bytes, nonce_r: bytes) -> list[KnownPayload]:
    """As responder: chooses a child of the peer's, narrows, reports ChildSaUp, and returns the answer's payloads.

    Raises ExchangeRefused, with nothing taken, and MalformedMessage.
    """
    offered = contents.one(SecurityAssociation)
    ts_i = contents.one(TsInitiator).selectors
    ts_r = contents.one(TsResponder).selectors
    transport = contents.notify(NotifyType.USE_TRANSPORT_MODE) is not None
    label = vendor.parse_label(contents) if sa.peer_is_hauberk else None
    if len(sa.children) >= sa.context.settings.max_children:
        raise ExchangeRefused(NotifyType.NO_ADDITIONAL_SAS, "the IKE SA has as many CHILD SAs as it may")

    config, ts_remote, ts_local = _choose_child(sa.peer.children, label, ts_i, ts_r)
    if config.mode is Mode.TRANSPORT and not transport:
        raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, f"child {config.label!r} is for transport mode")
    chosen, proposal, answer = negotiation.choose_esp(offered, _esp_proposals(config))
    spi_out = parse_spi(proposal.spi)
    try:
        spi_in = sa.context.policy.allocate_spi(config, sa.peer)
    except SpiUnavailable as error:
        raise ExchangeRefused(NotifyType.TEMPORARY_FAILURE, f"no SPI: {error}") from None
    _install(
        sa,
        ChildSa(
            label=config.label,
            spi_in=spi_in,
            spi_out=spi_out,
            mode=config.mode,
            proposal=chosen,
            ts_local=ts_local,
            ts_remote=ts_remote,
        ),
        initiator=False,
        nonce_i=nonce_i,
        nonce_r=nonce_r,
    )
    payloads: list[KnownPayload] = [
        _with_spi(answer, spi_in),
        TsInitiator(selectors=ts_remote),
        TsResponder(selectors=ts_local),
    ]
    if config.mode is Mode.TRANSPORT:
        payloads.append(Notify(type=NotifyType.USE_TRANSPORT_MODE))
    return payloads


def parse_spi(spi: bytes) -> int:
    """A peer's ESP SPI. Raises MalformedMessage for one of the reserved."""
    value = int.from_bytes(spi)
    if value < MIN_SPI:
        raise MalformedMessage("an ESP SPI from the reserved range")
    return value


def _choose_child(
    children: Sequence[ChildConfig],
    label: str | None,
    ts_i: tuple[TrafficSelector, ...],
    ts_r: tuple[TrafficSelector, ...],
) -> tuple[ChildConfig, tuple[TrafficSelector, ...], tuple[TrafficSelector, ...]]:
    """The child that is meant, by its label or else by selectors, with the remote and local selectors, narrowed."""
    for child in children:
        if label is not None and child.label != label:
            continue
        ts_remote, ts_local = narrow(ts_i, child.ts_remote), narrow(ts_r, child.ts_local)
        if ts_remote and ts_local:
            return child, ts_remote, ts_local
    raise ExchangeRefused(NotifyType.TS_UNACCEPTABLE, "no child has these traffic selectors (and this label)")


def _install(sa: "IkeSa", child: ChildSa, *, initiator: bool, nonce_i: bytes, nonce_r: bytes) -> None:
    from_initiator, to_initiator = derive_child_keys(sa.keys, child.proposal, nonce_i=nonce_i, nonce_r=nonce_r)
    ours, theirs = (from_initiator, to_initiator) if initiator else (to_initiator, from_initiator)
    sa.children[child.spi_in] = child
    sa.context.events.append(
        ChildSaUp(
            ike_sa=sa.handle,
            peer=sa.peer,
            label=child.label,
            spi_in=child.spi_in,
            spi_out=child.spi_out,
            keys_in=theirs,
            keys_out=ours,
            proposal=child.proposal,
            mode=child.mode,
            ts_local=child.ts_local,
            ts_remote=child.ts_remote,
            initiator=initiator,
            local=sa.path.local.host,
            remote=sa.path.remote.host,
            encapsulation=sa.path.encapsulation,
        )
    )


def _esp_proposals(config: ChildConfig) -> tuple[EspProposal, ...]:
    """What is offered and accepted where the child takes its keys from the IKE SA's."""
    return tuple(proposal.without_key_exchange() for proposal in config.esp_proposals)


def _with_spi(answer: SecurityAssociation, spi_in: int) -> SecurityAssociation:
    chosen = answer.proposals[0]
    return SecurityAssociation(
        proposals=(
            Proposal(
                number=chosen.number,
                protocol=chosen.protocol,
                spi=spi_in.to_bytes(negotiation.ESP_SPI_SIZE),
                transforms=chosen.transforms,
            ),
        )
    )


def _notify_name(notify_type: int) -> str:
    try:
        return NotifyType(notify_type).name
    except ValueError:
        return f"NOTIFY_{notify_type}"
