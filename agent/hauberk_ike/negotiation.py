"""From proposals to transforms and back: what is offered, what is chosen, and whether an answer is one of ours.

RFC 7296 sections 2.7 and 3.3; RFC 5282 section 8 for AEAD ciphers, which go without an integrity transform or
with NONE alone. Used by IKE_SA_INIT and by whatever sets up CHILD SAs.
"""

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from hauberk_ike.errors import ExchangeRefused
from hauberk_ike.numbers import EsnId, KeyExchangeId, NotifyType, Protocol, TransformType
from hauberk_ike.proposals import Encryption, EspProposal, IkeProposal
from hauberk_ike.wire.security_association import Proposal, SecurityAssociation, Transform

ESP_SPI_SIZE: Final = 4

_INTEG_NONE: Final = 0
_IKE_TYPES: Final = frozenset({TransformType.ENCR, TransformType.PRF, TransformType.INTEG, TransformType.KE})
_ESP_TYPES: Final = frozenset({TransformType.ENCR, TransformType.INTEG, TransformType.KE, TransformType.ESN})

_Item = TypeVar("_Item")


def offer_ike(proposals: Sequence[IkeProposal]) -> SecurityAssociation:
    """The SA payload that offers `proposals`, numbered from 1."""
    return SecurityAssociation(
        proposals=tuple(
            Proposal(
                number=number,
                protocol=Protocol.IKE,
                spi=b"",
                transforms=(
                    *map(_encryption_transform, proposal.encryption),
                    *(Transform(type=TransformType.PRF, id=prf.transform_id) for prf in proposal.prf),
                    *(Transform(type=TransformType.KE, id=method.transform_id) for method in proposal.key_exchange),
                ),
            )
            for number, proposal in enumerate(proposals, 1)
        )
    )


def offer_esp(proposals: Sequence[EspProposal], spi: bytes) -> SecurityAssociation:
    """The SA payload that offers `proposals`, numbered from 1, for the inbound SPI `spi` (4 bytes)."""
    return SecurityAssociation(
        proposals=tuple(
            Proposal(
                number=number,
                protocol=Protocol.ESP,
                spi=spi,
                transforms=(
                    *map(_encryption_transform, proposal.encryption),
                    *(Transform(type=TransformType.ESN, id=esn) for esn in proposal.esn),
                ),
            )
            for number, proposal in enumerate(proposals, 1)
        )
    )


def choose_ike(
    offered: SecurityAssociation, acceptable: Iterable[IkeProposal], *, spi_size: int = 0
) -> tuple[IkeProposal, SecurityAssociation]:
    """The first offered proposal that is acceptable, with one algorithm of each kind, and the SA payload to answer.

    The offer's order decides, proposals first and then algorithms. Raises ExchangeRefused (NO_PROPOSAL_CHOSEN).
    """
    acceptable = tuple(acceptable)
    for proposal in offered.proposals:
        if proposal.protocol != Protocol.IKE or len(proposal.spi) != spi_size:
            continue
        for ours in acceptable:
            chosen = _match_ike(proposal, ours)
            if chosen is not None:
                return chosen, _answer(proposal, offer_ike((chosen,)), spi=b"")
    raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "none of the IKE proposals is acceptable")


def choose_esp(
    offered: SecurityAssociation, acceptable: Iterable[EspProposal]
) -> tuple[EspProposal, Proposal, SecurityAssociation]:
    """As `choose_ike`, for ESP. Also returns the peer's proposal that was chosen; the answer's SPI is left empty."""
    acceptable = tuple(acceptable)
    for proposal in offered.proposals:
        if proposal.protocol != Protocol.ESP or len(proposal.spi) != ESP_SPI_SIZE:
            continue
        for ours in acceptable:
            chosen = _match_esp(proposal, ours)
            if chosen is not None:
                return chosen, proposal, _answer(proposal, offer_esp((chosen,), b""), spi=b"")
    raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "none of the ESP proposals is acceptable")


def accepted_ike(answer: SecurityAssociation, offered: Sequence[IkeProposal]) -> IkeProposal:
    """What the responder chose of what we offered. Raises ExchangeRefused if that is no choice among ours."""
    proposal, ours = _only_choice(answer, offered)
    chosen = _match_ike(proposal, ours) if proposal.protocol == Protocol.IKE and not proposal.spi else None
    if chosen is None:
        raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "the answer is none of our IKE proposals")
    return chosen


def accepted_esp(answer: SecurityAssociation, offered: Sequence[EspProposal]) -> tuple[EspProposal, bytes]:
    """What the responder chose of what we offered, and its SPI. Raises ExchangeRefused if that is no choice of ours."""
    proposal, ours = _only_choice(answer, offered)
    chosen = None
    if proposal.protocol == Protocol.ESP and len(proposal.spi) == ESP_SPI_SIZE:
        chosen = _match_esp(proposal, ours)
    if chosen is None:
        raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "the answer is none of our ESP proposals")
    return chosen, proposal.spi


def permits_ike(permitted: Iterable[IkeProposal], chosen: IkeProposal) -> bool:
    """Whether what was negotiated with a stranger is among what is permitted to the peer that it turned out to be."""
    return any(
        chosen.encryption[0] in proposal.encryption
        and chosen.prf[0] in proposal.prf
        and chosen.key_exchange[0] in proposal.key_exchange
        for proposal in permitted
    )


def _encryption_transform(cipher: Encryption) -> Transform:
    return Transform(type=TransformType.ENCR, id=cipher.transform_id, key_bits=cipher.key_length * 8)


def _only_choice(answer: SecurityAssociation, offered: Sequence[_Item]) -> tuple[Proposal, _Item]:
    """An answer holds one proposal, numbered as ours was, with each transform type once (section 3.3)."""
    proposal = answer.proposals[0]
    types = [transform.type for transform in proposal.transforms]
    if len(answer.proposals) != 1 or len(set(types)) != len(types) or not 1 <= proposal.number <= len(offered):
        raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "the answer does not hold one choice of ours")
    return proposal, offered[proposal.number - 1]


def _answer(proposal: Proposal, chosen: SecurityAssociation, *, spi: bytes) -> SecurityAssociation:
    """The chosen transforms under the offer's number. A NONE that was offered is answered: its type was on offer."""
    transforms = list(chosen.proposals[0].transforms)
    types = {transform.type for transform in transforms}
    for transform in proposal.transforms:
        if transform.type not in types:
            types.add(transform.type)
            transforms.append(Transform(type=transform.type, id=0))
    return SecurityAssociation(
        proposals=(Proposal(number=proposal.number, protocol=proposal.protocol, spi=spi, transforms=tuple(transforms)),)
    )


def _first(proposal: Proposal, kind: TransformType, table: dict[tuple[int, int | None], _Item]) -> _Item | None:
    """The first transform of a kind that is in `table`, keyed by (transform id, key bits)."""
    for transform in proposal.transforms:
        if transform.type == kind and not transform.unsupported:
            found = table.get((transform.id, transform.key_bits))
            if found is not None:
                return found
    return None


def _types(proposal: Proposal) -> set[int]:
    return {transform.type for transform in proposal.transforms}


def _only_none(proposal: Proposal, kind: TransformType, none: int) -> bool:
    """Whether a kind that we don't want is not asked for: absent, or with NONE among the choices."""
    ids = [transform.id for transform in proposal.transforms if transform.type == kind]
    return not ids or none in ids


def _ciphers(encryption: Iterable[Encryption]) -> dict[tuple[int, int | None], Encryption]:
    return {(cipher.transform_id, cipher.key_length * 8): cipher for cipher in encryption}


def _match_ike(proposal: Proposal, ours: IkeProposal) -> IkeProposal | None:
    # A transform type that we don't know makes the whole proposal unacceptable (section 3.3.6): an additional key
    # exchange (RFC 9370), say, must not be left out in silence.
    if not _types(proposal) <= _IKE_TYPES or not _only_none(proposal, TransformType.INTEG, _INTEG_NONE):
        return None
    cipher = _first(proposal, TransformType.ENCR, _ciphers(ours.encryption))
    prf = _first(proposal, TransformType.PRF, {(item.transform_id, None): item for item in ours.prf})
    method = _first(proposal, TransformType.KE, {(item.transform_id, None): item for item in ours.key_exchange})
    if cipher is None or prf is None or method is None:
        return None
    return IkeProposal(encryption=(cipher,), prf=(prf,), key_exchange=(method,))


def _match_esp(proposal: Proposal, ours: EspProposal) -> EspProposal | None:
    if (
        not _types(proposal) <= _ESP_TYPES
        or not _only_none(proposal, TransformType.INTEG, _INTEG_NONE)
        or not _only_none(proposal, TransformType.KE, KeyExchangeId.NONE)
    ):
        return None
    cipher = _first(proposal, TransformType.ENCR, _ciphers(ours.encryption))
    esns: dict[tuple[int, int | None], EsnId] = {(esn, None): esn for esn in ours.esn}
    esn = _first(proposal, TransformType.ESN, esns)
    if cipher is None or esn is None:
        return None
    return EspProposal(encryption=(cipher,), esn=(esn,))
