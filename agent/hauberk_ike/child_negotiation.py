"""What is asked and answered about a CHILD SA (RFC 7296 sections 1.2, 1.3.1, 1.3.3, 2.9, 3.10.1).

IKE_AUTH and CREATE_CHILD_SA carry the same payloads for a CHILD SA; the latter adds nonces, and a key exchange if the
proposals have one. A rekey's selectors and mode are those of the old CHILD SA: narrower ones are refused, whoever
answers (section 2.9.2), and wider ones only as far as the child's configuration goes.

Notifies that go with these payloads: USE_TRANSPORT_MODE is a request that the answer grants by repeating it, and so is
USE_AGGFRAG (`hauberk_ike.aggfrag`).
ADDITIONAL_TS_POSSIBLE tells the initiator that what was narrowed away may be had in a CHILD SA of its own; we say it
where it is true, and leave it to our owner what to do about it. SINGLE_PAIR_REQUIRED asks for a CHILD SA for one pair
of addresses; the packet that caused ours tells which. ESP_TFC_PADDING_NOT_SUPPORTED needs nothing, as we never pad, and
NON_FIRST_FRAGMENTS_ALSO is not granted, as the kernel has no such states.
"""

from typing import TYPE_CHECKING

from hauberk_ike import negotiation, vendor
from hauberk_ike.aggfrag import build_use_aggfrag, is_aggfrag, parse_use_aggfrag
from hauberk_ike.child_sa import AgreedChild, ChildSa
from hauberk_ike.config import ChildConfig, Mode
from hauberk_ike.errors import ExchangeRefused, MalformedMessage, SpiUnavailable
from hauberk_ike.events import ChildSaFailed
from hauberk_ike.key_agreement import Secrets
from hauberk_ike.numbers import NotifyType, notify_name
from hauberk_ike.proposals import EspProposal
from hauberk_ike.selectors import TrafficSelector, covered, narrow
from hauberk_ike.transport_mode import Selectors, as_asked, as_seen
from hauberk_ike.wire.message import Contents, KnownPayload
from hauberk_ike.wire.payloads import Notify
from hauberk_ike.wire.security_association import SecurityAssociation
from hauberk_ike.wire.traffic_selectors import TsInitiator, TsResponder

if TYPE_CHECKING:
    from hauberk_ike.ike_sa import IkeSa

MIN_SPI = 256
"""SPIs 1 to 255 are reserved (RFC 4303 section 2.1)."""

Packet = tuple[TrafficSelector, TrafficSelector]
"""The packet that a CHILD SA is asked for: as from us, and as to the peer."""


class ChildRequest:
    """A CHILD SA that we ask for. Holds the SPI that it took until the answer is in.

    `replaces` is what it is to be a rekey of. `keyed`: the exchange has room for a key exchange (IKE_AUTH has none).
    """

    __slots__ = ("_spi_in", "_ts_local", "_ts_remote", "config", "proposals", "replaces")

    def __init__(
        self,
        config: ChildConfig,
        *,
        replaces: ChildSa | None = None,
        keyed: bool = False,
        packet: Packet | None = None,
        single_pair: bool = False,
    ) -> None:
        """The selectors are the configuration's, and before them the packet's (section 2.9).

        With `single_pair` they are the packet's alone; a rekey's are the old CHILD SA's.
        """
        self.config = config
        self.replaces = replaces
        self.proposals = config.esp_proposals if keyed else _unkeyed(config)
        self._spi_in: int | None = None
        self._ts_local, self._ts_remote = config.ts_local, config.ts_remote
        if replaces is not None:
            self._ts_local, self._ts_remote = replaces.ts_local, replaces.ts_remote
        elif packet is not None:
            self._ts_local = packet[:1] if single_pair else (packet[0], *config.ts_local)
            self._ts_remote = packet[1:] if single_pair else (packet[1], *config.ts_remote)

    def build(self, sa: "IkeSa") -> list[KnownPayload]:
        """SA, TSi, TSr and notifies. Raises SpiUnavailable."""
        if self._spi_in is None:
            self._spi_in = sa.context.policy.allocate_spi(self.config, sa.peer)
        if self.config.mode is Mode.TRANSPORT:
            self._ts_local, self._ts_remote = as_asked(sa.path, self._ts_local, self._ts_remote)
        payloads: list[KnownPayload] = [
            negotiation.offer_esp(self.proposals, self._spi_in.to_bytes(negotiation.ESP_SPI_SIZE)),
            TsInitiator(selectors=self._ts_local),
            TsResponder(selectors=self._ts_remote),
        ]
        if self.config.mode is Mode.TRANSPORT:
            payloads.append(Notify(type=NotifyType.USE_TRANSPORT_MODE))
        if self._wants_aggfrag:
            payloads.append(build_use_aggfrag())
        if sa.peer_is_hauberk:
            payloads.append(vendor.build_label(self.config.label))
        return payloads

    def agree(self, sa: "IkeSa", contents: Contents) -> AgreedChild:
        """What an answer without an error says. The SPI goes with it.

        Raises ExchangeRefused or MalformedMessage if that is not an answer to what was asked: the peer then believes in
        a CHILD SA that must be deleted. The SPI is still held.
        """
        proposal, spi = negotiation.accepted_esp(contents.one(SecurityAssociation), self.proposals)
        ts_local = contents.one(TsInitiator).selectors
        ts_remote = contents.one(TsResponder).selectors
        transport = contents.notify(NotifyType.USE_TRANSPORT_MODE) is not None
        if transport:
            ts_local, ts_remote = as_seen(sa.path, ts_local, ts_remote)
        if not ts_local or not ts_remote:
            raise ExchangeRefused(NotifyType.TS_UNACCEPTABLE, "the answer has no traffic selectors")
        if not covered(ts_local, self._ts_local) or not covered(ts_remote, self._ts_remote):
            raise ExchangeRefused(NotifyType.TS_UNACCEPTABLE, "the answer widens the traffic selectors")
        old = self.replaces
        if old is not None and not (covered(self._ts_local, ts_local) and covered(self._ts_remote, ts_remote)):
            raise ExchangeRefused(NotifyType.TS_UNACCEPTABLE, "the answer narrows the rekeyed traffic selectors")
        if transport is not (self.config.mode is Mode.TRANSPORT):
            raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "the answer is for another mode")
        aggfrag = parse_use_aggfrag(contents)
        if is_aggfrag(contents) and (aggfrag is None or not self._wants_aggfrag):
            raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "the answer is for AGGFRAG in a way that we can't do")
        mode = _granted(self.config, aggfrag=aggfrag is not None)
        if old is not None and mode is not old.mode:
            raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "the answer is for another mode than what is rekeyed")
        spi_out = parse_spi(spi)
        assert self._spi_in is not None
        spi_in, self._spi_in = self._spi_in, None
        return AgreedChild(
            self.config,
            initiator=True,
            spi_in=spi_in,
            spi_out=spi_out,
            mode=mode,
            proposal=proposal,
            ts_local=ts_local,
            ts_remote=ts_remote,
            replaces=old,
            aggfrag=aggfrag,
        )

    @property
    def _wants_aggfrag(self) -> bool:
        if self.replaces is not None:
            return self.replaces.mode is Mode.IPTFS
        return self.config.mode is Mode.IPTFS

    def accept(self, sa: "IkeSa", contents: Contents, *, nonce_i: bytes, nonce_r: bytes, now: float) -> None:
        """For IKE_AUTH: reports ChildSaUp, or ChildSaFailed for a refusal or an answer that is not to what was asked.

        Raises ExchangeRefused or MalformedMessage in that last case, after giving the SPI back.
        """
        error = contents.error()
        if error is not None:
            self.fail(sa, notify_name(error.type))
            return
        try:
            agreed = self.agree(sa, contents)
        except (ExchangeRefused, MalformedMessage) as refusal:
            self.fail(sa, str(refusal))
            raise
        agreed.install(sa, Secrets(nonce_i=nonce_i, nonce_r=nonce_r), now)

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
            sa.context.events.append(
                ChildSaFailed(
                    ike_sa=sa.handle,
                    label=self.config.label,
                    reason=reason,
                    rekeyed_spi_in=self.replaces.spi_in if self.replaces is not None else None,
                )
            )


class ChildOffer:
    """As responder: what a peer asks for, and what it gets. Nothing is taken yet.

    `replaces` is what the request is to rekey.
    """

    __slots__ = (
        "_additional",
        "_aggfrag",
        "_answer",
        "_mode",
        "_spi_out",
        "_ts_local",
        "_ts_remote",
        "config",
        "proposal",
        "replaces",
    )

    def __init__(
        self, sa: "IkeSa", contents: Contents, *, replaces: ChildSa | None = None, keyed: bool = False
    ) -> None:
        """Raises ExchangeRefused and MalformedMessage."""
        offered = contents.one(SecurityAssociation)
        ts_i = contents.one(TsInitiator).selectors
        ts_r = contents.one(TsResponder).selectors
        transport = contents.notify(NotifyType.USE_TRANSPORT_MODE) is not None
        aggfrag = parse_use_aggfrag(contents)
        label = vendor.parse_label(contents) if sa.peer_is_hauberk else None
        # A rekey makes one more for a while only.
        if len(sa.children) >= sa.context.settings.max_children * (1 if replaces is None else 2):
            raise ExchangeRefused(NotifyType.NO_ADDITIONAL_SAS, "the IKE SA has as many CHILD SAs as it may")
        self.replaces = replaces
        self._additional = False
        if replaces is None:
            config, ts_local, ts_remote, self._additional = _choose_child(sa, label, ts_r, ts_i, transport=transport)
        else:
            config = replaces.config
            old_local, old_remote = replaces.ts_local, replaces.ts_remote
            if replaces.mode is Mode.TRANSPORT:
                ts_r, ts_i = as_seen(sa.path, ts_r, ts_i)
                old_local, old_remote = as_asked(sa.path, old_local, old_remote)
            ts_remote, ts_local = narrow(ts_i, config.ts_remote), narrow(ts_r, config.ts_local)
            if not (covered(old_remote, ts_remote) and covered(old_local, ts_local)):
                raise ExchangeRefused(NotifyType.TS_UNACCEPTABLE, "a rekey for less than what is rekeyed")
            if transport is not (replaces.mode is Mode.TRANSPORT):
                raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "a rekey for another mode")
        if config.mode is Mode.TRANSPORT and not transport:
            raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, f"child {config.label!r} is for transport mode")
        self._mode = _granted(config, aggfrag=aggfrag is not None and not transport)
        if replaces is not None and self._mode is not replaces.mode:
            if replaces.mode is Mode.IPTFS:
                raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "a rekey for another mode")
            self._mode = replaces.mode  # what was declined once stays so
        self._aggfrag = aggfrag if self._mode is Mode.IPTFS else None
        self.config = config
        self._ts_local, self._ts_remote = ts_local, ts_remote
        self.proposal, proposal, self._answer = negotiation.choose_esp(
            offered, config.esp_proposals if keyed else _unkeyed(config)
        )
        self._spi_out = parse_spi(proposal.spi)

    def take(self, sa: "IkeSa") -> AgreedChild:
        """Takes an SPI. Raises ExchangeRefused if there is none."""
        try:
            spi_in = sa.context.policy.allocate_spi(self.config, sa.peer)
        except SpiUnavailable as error:
            raise ExchangeRefused(NotifyType.TEMPORARY_FAILURE, f"no SPI: {error}") from None
        return AgreedChild(
            self.config,
            initiator=False,
            spi_in=spi_in,
            spi_out=self._spi_out,
            mode=self._mode,
            proposal=self.proposal,
            ts_local=self._ts_local,
            ts_remote=self._ts_remote,
            replaces=self.replaces,
            aggfrag=self._aggfrag,
        )

    def payloads(self, agreed: AgreedChild) -> list[KnownPayload]:
        """SA, TSi, TSr and notifies of the answer."""
        payloads: list[KnownPayload] = [
            negotiation.with_spi(self._answer, agreed.spi_in.to_bytes(negotiation.ESP_SPI_SIZE)),
            TsInitiator(selectors=self._ts_remote),
            TsResponder(selectors=self._ts_local),
        ]
        if self.config.mode is Mode.TRANSPORT:
            payloads.append(Notify(type=NotifyType.USE_TRANSPORT_MODE))
        if self._mode is Mode.IPTFS:
            payloads.append(build_use_aggfrag())
        if self._additional:
            payloads.append(Notify(type=NotifyType.ADDITIONAL_TS_POSSIBLE))
        return payloads


def answer_child(sa: "IkeSa", contents: Contents, *, nonce_i: bytes, nonce_r: bytes, now: float) -> list[KnownPayload]:
    """For IKE_AUTH, as responder: chooses a child, reports ChildSaUp, and returns the answer's payloads.

    Raises ExchangeRefused, with nothing taken, and MalformedMessage.
    """
    offer = ChildOffer(sa, contents)
    agreed = offer.take(sa)
    agreed.install(sa, Secrets(nonce_i=nonce_i, nonce_r=nonce_r), now)
    return offer.payloads(agreed)


def parse_spi(spi: bytes) -> int:
    """A peer's ESP SPI. Raises MalformedMessage for one of the reserved."""
    value = int.from_bytes(spi)
    if value < MIN_SPI:
        raise MalformedMessage("an ESP SPI from the reserved range")
    return value


def _choose_child(
    sa: "IkeSa", label: str | None, ts_local: Selectors, ts_remote: Selectors, *, transport: bool
) -> tuple[ChildConfig, Selectors, Selectors, bool]:
    """The child that is meant, with the local and remote selectors, narrowed, and whether others are possible as well.

    It is meant by its label, or else by its mode (section 2.23.1) and by the first selectors, which are the initiator's
    packet if it has one (section 2.9); of several that are as good, the first.
    """
    seen = as_seen(sa.path, ts_local, ts_remote)
    found: list[tuple[ChildConfig, Selectors, Selectors, bool]] = []
    for child in sa.peer.permitted_children:
        if label is not None and child.label != label:
            continue
        asked_local, asked_remote = seen if transport and child.mode is Mode.TRANSPORT else (ts_local, ts_remote)
        local, remote = narrow(asked_local, child.ts_local), narrow(asked_remote, child.ts_remote)
        if local and remote:
            has_packet = covered(asked_local[:1], local) and covered(asked_remote[:1], remote)
            found.append((child, local, remote, has_packet))
    if not found:
        raise ExchangeRefused(NotifyType.TS_UNACCEPTABLE, "no child has these traffic selectors (and this label)")
    fitting = [each for each in found if (each[0].mode is Mode.TRANSPORT) is transport] or found
    child, local, remote, _ = next((each for each in fitting if each[3]), fitting[0])
    return child, local, remote, len(found) > 1


def _granted(config: ChildConfig, *, aggfrag: bool) -> Mode:
    """The mode of a CHILD SA: of one that may be in AGGFRAG mode, if both ends want that."""
    return Mode.TUNNEL if config.mode is Mode.IPTFS and not aggfrag else config.mode


def _unkeyed(config: ChildConfig) -> tuple[EspProposal, ...]:
    """What is offered and accepted where the child takes its keys from the IKE SA's."""
    return tuple(proposal.without_key_exchange() for proposal in config.esp_proposals)
