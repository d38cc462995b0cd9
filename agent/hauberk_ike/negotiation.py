"""From proposals to transforms and back: what is offered, what is chosen, and whether an answer is one of ours.

RFC 7296 sections 2.7 and 3.3; RFC 5282 section 8 for AEAD ciphers, which go without an integrity transform or with NONE
alone; RFC 9370 section 2.2.1 for additional key exchanges. Used by IKE_SA_INIT, by whatever sets up CHILD SAs, and by
rekeys of both.

In IKE_SA_INIT a mesh says the same all over: what comes of proposals without an SPI is remembered, for a bounded number
of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, TypeVar
from typing import Protocol as Interface

from hauberk_ike.algorithms import NO_KEY_EXCHANGE, Encryption, Integrity, KeyExchange
from hauberk_ike.errors import ExchangeRefused
from hauberk_ike.numbers import EsnId, IntegrityId, NotifyType, Protocol, TransformType
from hauberk_ike.proposals import MAX_ADDITIONAL, EspProposal, IkeProposal, choose_distinct
from hauberk_ike.wire.security_association import Proposal, SecurityAssociation, Transform

_REMEMBERED: Final = 64

ESP_SPI_SIZE: Final = 4
IKE_SPI_SIZE: Final = 8
"""In a rekey; the first IKE SA's proposals have no SPI (section 3.3.1)."""

_ADDKE: Final = tuple(TransformType.ADDKE1 + index for index in range(MAX_ADDITIONAL))
_KEY_EXCHANGES: Final = (TransformType.KE, *_ADDKE)
_IKE_TYPES: Final = frozenset({TransformType.ENCR, TransformType.PRF, TransformType.INTEG, *_KEY_EXCHANGES})
_ESP_TYPES: Final = frozenset({TransformType.ENCR, TransformType.INTEG, TransformType.ESN, *_KEY_EXCHANGES})


class _Numbered(Interface):
    """What a transform id names."""

    @property
    def transform_id(self) -> int: ...


_Item = TypeVar("_Item")
_Algorithm = TypeVar("_Algorithm", bound=_Numbered)


def offer_ike(proposals: Sequence[IkeProposal], spi: bytes = b"") -> SecurityAssociation:
    """The SA payload that offers `proposals`, numbered from 1; `spi` (8 bytes) is the new IKE SA's in a rekey."""
    if not spi:
        return _offer_first_ike(tuple(proposals))
    return _offer_ike(proposals, spi)


def _offer_ike(proposals: Sequence[IkeProposal], spi: bytes) -> SecurityAssociation:
    offered = (
        (
            *map(_encryption_transform, proposal.encryption),
            *_transforms(TransformType.INTEG, proposal.integrity),
            *_transforms(TransformType.PRF, proposal.prf),
            *_key_exchange_transforms(proposal),
        )
        for proposal in proposals
    )
    return _numbered(Protocol.IKE, spi, offered)


@lru_cache(_REMEMBERED)
def _offer_first_ike(proposals: tuple[IkeProposal, ...]) -> SecurityAssociation:
    return _offer_ike(proposals, b"")


def offer_esp(proposals: Sequence[EspProposal], spi: bytes) -> SecurityAssociation:
    """The SA payload that offers `proposals`, numbered from 1, for the inbound SPI `spi` (4 bytes)."""
    offered = (
        (
            *map(_encryption_transform, proposal.encryption),
            *_transforms(TransformType.INTEG, proposal.integrity),
            *_key_exchange_transforms(proposal),
            *(Transform(type=TransformType.ESN, id=esn) for esn in proposal.esn),
        )
        for proposal in proposals
    )
    return _numbered(Protocol.ESP, spi, offered)


def _numbered(protocol: Protocol, spi: bytes, offered: Iterable[tuple[Transform, ...]]) -> SecurityAssociation:
    return SecurityAssociation(
        proposals=tuple(
            Proposal(number=number, protocol=protocol, spi=spi, transforms=transforms)
            for number, transforms in enumerate(offered, 1)
        )
    )


def with_spi(answer: SecurityAssociation, spi: bytes) -> SecurityAssociation:
    """What `choose_ike` and `choose_esp` have made, with our SPI in the one proposal."""
    (chosen,) = answer.proposals
    return SecurityAssociation(
        proposals=(Proposal(number=chosen.number, protocol=chosen.protocol, spi=spi, transforms=chosen.transforms),)
    )


def choose_ike(
    offered: SecurityAssociation, acceptable: Iterable[IkeProposal], *, spi_size: int = 0
) -> tuple[IkeProposal, Proposal, SecurityAssociation]:
    """The first offered proposal that is acceptable, with one algorithm of each kind, and the SA payload to answer.

    Also returns the peer's proposal that was chosen, for its SPI; the answer's SPI is left empty. The offer's order
    decides, proposals first and then algorithms. Raises ExchangeRefused (NO_PROPOSAL_CHOSEN).
    """
    choose = _choose_ike if spi_size else _choose_first_ike
    return choose(offered, tuple(acceptable), spi_size)


def _choose_ike(
    offered: SecurityAssociation, acceptable: tuple[IkeProposal, ...], spi_size: int
) -> tuple[IkeProposal, Proposal, SecurityAssociation]:
    for proposal in offered.proposals:
        if proposal.protocol != Protocol.IKE or len(proposal.spi) != spi_size:
            continue
        for ours in acceptable:
            chosen = _match_ike(proposal, ours)
            if chosen is not None:
                return chosen, proposal, _answer(proposal, offer_ike((chosen,)))
    raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "none of the IKE proposals is acceptable")


_choose_first_ike: Final = lru_cache(_REMEMBERED)(_choose_ike)


def choose_esp(
    offered: SecurityAssociation, acceptable: Iterable[EspProposal]
) -> tuple[EspProposal, Proposal, SecurityAssociation]:
    """As `choose_ike`, for ESP."""
    acceptable = tuple(acceptable)
    for proposal in offered.proposals:
        if proposal.protocol != Protocol.ESP or len(proposal.spi) != ESP_SPI_SIZE:
            continue
        for ours in acceptable:
            chosen = _match_esp(proposal, ours)
            if chosen is not None:
                return chosen, proposal, _answer(proposal, offer_esp((chosen,), b""))
    raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "none of the ESP proposals is acceptable")


def accepted_ike(
    answer: SecurityAssociation, offered: Sequence[IkeProposal], *, spi_size: int = 0
) -> tuple[IkeProposal, bytes]:
    """What the responder chose of what we offered, and its SPI. Raises ExchangeRefused if that is no choice of ours."""
    accept = _accepted_ike if spi_size else _accepted_first_ike
    return accept(answer, tuple(offered), spi_size)


def _accepted_ike(
    answer: SecurityAssociation, offered: tuple[IkeProposal, ...], spi_size: int
) -> tuple[IkeProposal, bytes]:
    proposal, ours = _only_choice(answer, offered)
    chosen = None
    if proposal.protocol == Protocol.IKE and len(proposal.spi) == spi_size:
        chosen = _match_ike(proposal, ours)
    if chosen is None:
        raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "the answer is none of our IKE proposals")
    return chosen, proposal.spi


_accepted_first_ike: Final = lru_cache(_REMEMBERED)(_accepted_ike)


def accepted_esp(answer: SecurityAssociation, offered: Sequence[EspProposal]) -> tuple[EspProposal, bytes]:
    """What the responder chose of what we offered, and its SPI. Raises ExchangeRefused if that is no choice of ours."""
    proposal, ours = _only_choice(answer, offered)
    chosen = None
    if proposal.protocol == Protocol.ESP and len(proposal.spi) == ESP_SPI_SIZE:
        chosen = _match_esp(proposal, ours)
    if chosen is None:
        raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "the answer is none of our ESP proposals")
    return chosen, proposal.spi


@lru_cache(_REMEMBERED)
def permits_ike(permitted: tuple[IkeProposal, ...], chosen: IkeProposal) -> bool:
    """Whether what was negotiated with a stranger is among what is permitted to the peer that it turned out to be."""
    return any(
        chosen.encryption[0] in proposal.encryption
        and (chosen.encryption[0].is_aead or chosen.integrity[0] in proposal.integrity)
        and chosen.prf[0] in proposal.prf
        and chosen.key_exchange[0] in proposal.key_exchange
        and all(
            (method[0] if method else NO_KEY_EXCHANGE) in (kind or (NO_KEY_EXCHANGE,))
            for method, kind in zip(_padded(chosen.additional), _padded(proposal.additional), strict=True)
        )
        for proposal in permitted
    )


def _padded(additional: tuple[tuple[KeyExchange, ...], ...]) -> tuple[tuple[KeyExchange, ...], ...]:
    return additional + ((),) * (MAX_ADDITIONAL - len(additional))


def _encryption_transform(cipher: Encryption) -> Transform:
    return Transform(type=TransformType.ENCR, id=cipher.transform_id, key_bits=cipher.key_bits)


def _transforms(kind: int, items: Iterable[_Numbered]) -> list[Transform]:
    return [Transform(type=kind, id=item.transform_id) for item in items]


def _key_exchange_transforms(proposal: IkeProposal | EspProposal) -> list[Transform]:
    transforms = _transforms(TransformType.KE, proposal.key_exchange)
    for kind, methods in zip(_ADDKE, proposal.additional, strict=False):
        transforms += _transforms(kind, methods)
    return transforms


def _only_choice(answer: SecurityAssociation, offered: Sequence[_Item]) -> tuple[Proposal, _Item]:
    """An answer holds one proposal, numbered as ours was, with each transform type once (section 3.3)."""
    proposal = answer.proposals[0]
    types = [transform.type for transform in proposal.transforms]
    if len(answer.proposals) != 1 or len(set(types)) != len(types) or not 1 <= proposal.number <= len(offered):
        raise ExchangeRefused(NotifyType.NO_PROPOSAL_CHOSEN, "the answer does not hold one choice of ours")
    return proposal, offered[proposal.number - 1]


def _answer(proposal: Proposal, chosen: SecurityAssociation) -> SecurityAssociation:
    """The chosen transforms under the offer's number. A NONE that was offered is answered: its type was on offer."""
    transforms = list(chosen.proposals[0].transforms)
    types = {transform.type for transform in transforms}
    for transform in proposal.transforms:
        if transform.type not in types:
            types.add(transform.type)
            transforms.append(Transform(type=transform.type, id=0))
    return SecurityAssociation(
        proposals=(Proposal(number=proposal.number, protocol=proposal.protocol, spi=b"", transforms=tuple(transforms)),)
    )


def _by_type(proposal: Proposal) -> dict[int, list[tuple[int, int | None]]]:
    """What is on offer by transform type, as (id, key bits), in order, but for what has attributes unknown to us."""
    offer: dict[int, list[tuple[int, int | None]]] = {}
    for transform in proposal.transforms:
        choices = offer.setdefault(transform.type, [])
        if not transform.unsupported:
            choices.append((transform.id, transform.key_bits))
    return offer


def _first(choices: Iterable[tuple[int, int | None]], ours: Iterable[_Algorithm]) -> _Algorithm | None:
    """The first on offer that is among ours."""
    for transform_id, key_bits in choices:
        for item in ours:
            if item.transform_id == transform_id and key_bits is None:
                return item
    return None


def _match_cipher(
    offer: Mapping[int, Sequence[tuple[int, int | None]]], ours: IkeProposal | EspProposal
) -> tuple[Encryption, tuple[Integrity, ...]] | None:
    """The cipher, and the integrity algorithm that goes with it unless it is an AEAD."""
    for transform_id, key_bits in offer.get(TransformType.ENCR, ()):
        for cipher in ours.encryption:
            if cipher.transform_id == transform_id and cipher.key_bits == key_bits:
                break
        else:
            continue
        integrities = offer.get(TransformType.INTEG)
        if cipher.is_aead:
            return (cipher, ()) if integrities is None or (IntegrityId.NONE, None) in integrities else None
        integrity = _first(integrities or (), ours.integrity)
        return None if integrity is None else (cipher, (integrity,))
    return None


def _match_methods(
    offer: Mapping[int, Sequence[tuple[int, int | None]]], ours: IkeProposal | EspProposal
) -> tuple[tuple[KeyExchange, ...], tuple[tuple[KeyExchange, ...], ...]] | None:
    """The key exchange and the additional ones, all of them different (RFC 9370 section 2.2.1).

    A kind that only one of the two asks for is as good as NONE, which the other must permit: an additional key
    exchange that somebody has stripped off is missed, and none is left out in silence.
    """
    kinds = [
        _method_choices(offer.get(kind), wanted)
        for kind, wanted in zip(_KEY_EXCHANGES, (ours.key_exchange, *_padded(ours.additional)), strict=True)
    ]
    methods = choose_distinct(kinds)
    if methods is None:
        return None
    key_exchange, *additional = [() if method is NO_KEY_EXCHANGE else (method,) for method in methods]
    while additional and not additional[-1]:
        additional.pop()
    return key_exchange, tuple(additional)


def _method_choices(
    choices: Sequence[tuple[int, int | None]] | None, wanted: tuple[KeyExchange, ...]
) -> list[KeyExchange]:
    if choices is None:
        return [NO_KEY_EXCHANGE] if not wanted or NO_KEY_EXCHANGE in wanted else []
    ours = {method.transform_id: method for method in wanted or (NO_KEY_EXCHANGE,)}
    return [ours[transform_id] for transform_id, key_bits in choices if key_bits is None and transform_id in ours]


def _match_ike(proposal: Proposal, ours: IkeProposal) -> IkeProposal | None:
    offer = _by_type(proposal)
    # A transform type that we don't know makes the whole proposal unacceptable (section 3.3.6).
    if not offer.keys() <= _IKE_TYPES:
        return None
    cipher = _match_cipher(offer, ours)
    prf = _first(offer.get(TransformType.PRF, ()), ours.prf)
    methods = _match_methods(offer, ours)
    if cipher is None or prf is None or methods is None:
        return None
    return IkeProposal(
        encryption=(cipher[0],),
        integrity=cipher[1],
        prf=(prf,),
        key_exchange=methods[0],
        additional=methods[1],
    )


def _match_esp(proposal: Proposal, ours: EspProposal) -> EspProposal | None:
    offer = _by_type(proposal)
    if not offer.keys() <= _ESP_TYPES:
        return None
    cipher = _match_cipher(offer, ours)
    methods = _match_methods(offer, ours)
    esns = [EsnId(number) for number, _ in offer.get(TransformType.ESN, ()) if number in ours.esn]
    if cipher is None or methods is None or not esns:
        return None
    return EspProposal(
        encryption=(cipher[0],),
        integrity=cipher[1],
        key_exchange=methods[0],
        additional=methods[1],
        esn=(esns[0],),
    )
