"""Negotiation as truth tables: an offer in words, what is acceptable in words, and what comes of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauberk_ike.algorithms import KEY_EXCHANGES, NO_KEY_EXCHANGE, KeyExchange
from hauberk_ike.errors import ExchangeRefused
from hauberk_ike.negotiation import (
    accepted_esp,
    accepted_ike,
    choose_esp,
    choose_ike,
    offer_esp,
    offer_ike,
    permits_ike,
)
from hauberk_ike.numbers import NotifyType, Protocol, TransformType
from hauberk_ike.proposals import EspProposal, IkeProposal, choose_distinct
from hauberk_ike.wire.security_association import Proposal, SecurityAssociation, Transform

SPI = bytes.fromhex("c0000001")


def ike(text: str) -> tuple[IkeProposal, ...]:
    return tuple(IkeProposal.parse(each) for each in text.split())


def esp(text: str) -> tuple[EspProposal, ...]:
    return tuple(EspProposal.parse(each) for each in text.split())


def changed(
    offered: SecurityAssociation, *, without: int | None = None, extra: tuple[Transform, ...] = ()
) -> SecurityAssociation:
    """An offer of one proposal that somebody has tampered with."""
    (proposal,) = offered.proposals
    kept = tuple(transform for transform in proposal.transforms if transform.type != without)
    return SecurityAssociation(
        proposals=(Proposal(number=1, protocol=proposal.protocol, spi=proposal.spi, transforms=(*kept, *extra)),)
    )


IKE_TABLE = [
    # offered, acceptable, chosen (None: NO_PROPOSAL_CHOSEN)
    ("aes128gcm16-prfsha256-x25519", "aes128gcm16-prfsha256-x25519", "aes128gcm16-prfsha256-x25519"),
    # The offer's order decides, within a proposal and among several.
    (
        "aes256gcm16-aes128gcm16-prfsha384-prfsha256-ecp256-x25519",
        "aes128gcm16-aes256gcm16-prfsha256-prfsha384-x25519-ecp256",
        "aes256gcm16-prfsha384-ecp256",
    ),
    (
        "aes256gcm16-prfsha384-x25519 aes128gcm16-prfsha256-x25519",
        "aes128gcm16-prfsha256-x25519 aes256gcm16-prfsha384-x25519",
        "aes256gcm16-prfsha384-x25519",
    ),
    # Kinds of different proposals are not mixed.
    ("aes256gcm16-prfsha256-x25519", "aes256gcm16-prfsha384-x25519 aes128gcm16-prfsha256-x25519", None),
    # Ciphers of the same length, another mode.
    ("aes128ccm16-prfsha256-x25519", "aes128gcm16-prfsha256-x25519", None),
    ("aes192gcm16-prfsha256-x25519", "aes128gcm16-aes256gcm16-prfsha256-x25519", None),
    (
        "chacha20poly1305-prfsha256-x25519",
        "aes128gcm16-chacha20poly1305-prfsha256-x25519",
        "chacha20poly1305-prfsha256-x25519",
    ),
    # A cipher with a MAC beside it: the MAC is negotiated, and so is the PRF, by itself.
    ("aes128-sha256-modp2048", "aes128-sha256-modp2048", "aes128-sha256-modp2048"),
    ("aes256-aes128-sha512-sha256-ecp521", "aes128-sha256-sha512-ecp521", "aes128-sha512-ecp521"),
    ("aes128-sha256-prfsha384-ecp256", "aes128-sha256-ecp256", None),
    ("aes128-sha256-prfsha384-prfsha256-ecp256", "aes128-sha256-ecp256", "aes128-sha256-ecp256"),
    ("aes128-sha256-ecp256", "aes128-sha384-prfsha256-ecp256", None),
    ("aes128-sha256-ecp256", "aes128gcm16-prfsha256-ecp256", None),
    ("aes128gcm16-prfsha256-ecp256", "aes128-sha256-ecp256", None),
    ("aes128gcm16-prfsha256-ecp256 aes128-sha256-ecp256", "aes128-sha256-ecp256", "aes128-sha256-ecp256"),
    # Additional key exchanges: both ask.
    (
        "aes128gcm16-prfsha256-x25519-ke1_ecp384-ke1_ecp256",
        "aes128gcm16-prfsha256-x25519-ke1_ecp256-ke1_ecp384",
        "aes128gcm16-prfsha256-x25519-ke1_ecp384",
    ),
    (
        "aes128gcm16-prfsha256-x25519-ke1_ecp384-ke3_ecp256",
        "aes128gcm16-prfsha256-x25519-ke1_ecp384-ke3_ecp256",
        "aes128gcm16-prfsha256-x25519-ke1_ecp384-ke3_ecp256",
    ),
    # Only one asks: in vain, either way round.
    ("aes128gcm16-prfsha256-x25519-ke1_ecp384", "aes128gcm16-prfsha256-x25519", None),
    ("aes128gcm16-prfsha256-x25519", "aes128gcm16-prfsha256-x25519-ke1_ecp384", None),
    ("aes128gcm16-prfsha256-x25519-ke1_ecp384", "aes128gcm16-prfsha256-x25519-ke2_ecp384", None),
    # Only one asks, but would do without it.
    (
        "aes128gcm16-prfsha256-x25519-ke1_ecp384-ke1_none",
        "aes128gcm16-prfsha256-x25519",
        "aes128gcm16-prfsha256-x25519",
    ),
    (
        "aes128gcm16-prfsha256-x25519",
        "aes128gcm16-prfsha256-x25519-ke1_ecp384-ke1_none",
        "aes128gcm16-prfsha256-x25519",
    ),
    # Both would do without it, and still the first on offer is taken.
    (
        "aes128gcm16-prfsha256-x25519-ke1_ecp384-ke1_none",
        "aes128gcm16-prfsha256-x25519-ke1_none-ke1_ecp384",
        "aes128gcm16-prfsha256-x25519-ke1_ecp384",
    ),
    (
        "aes128gcm16-prfsha256-x25519-ke1_none-ke1_ecp384",
        "aes128gcm16-prfsha256-x25519-ke1_ecp384",
        "aes128gcm16-prfsha256-x25519-ke1_ecp384",
    ),
    # One of three may be missing.
    (
        "aes128gcm16-prfsha256-x25519-ke1_ecp384-ke2_none-ke2_ecp256",
        "aes128gcm16-prfsha256-x25519-ke1_ecp384",
        "aes128gcm16-prfsha256-x25519-ke1_ecp384",
    ),
    # No method twice (RFC 9370 section 2.2.1), even if that takes a later choice.
    (
        "aes128gcm16-prfsha256-x25519-ecp256-ke1_x25519",
        "aes128gcm16-prfsha256-x25519-ecp256-ke1_x25519",
        "aes128gcm16-prfsha256-ecp256-ke1_x25519",
    ),
    (
        "aes128gcm16-prfsha256-x25519-ke1_x25519-ke1_ecp256-ke2_ecp256-ke2_ecp384",
        "aes128gcm16-prfsha256-x25519-ke1_x25519-ke1_ecp256-ke2_ecp256-ke2_ecp384",
        "aes128gcm16-prfsha256-x25519-ke1_ecp256-ke2_ecp384",
    ),
    (
        "aes128gcm16-prfsha256-x25519-ke1_ecp256",
        "aes128gcm16-prfsha256-x25519-ecp256-ke1_ecp256-ke1_x25519",
        "aes128gcm16-prfsha256-x25519-ke1_ecp256",
    ),
    # The second proposal is the one without.
    (
        "aes128gcm16-prfsha256-x25519-ke1_ecp384 aes128gcm16-prfsha256-x25519",
        "aes128gcm16-prfsha256-x25519",
        "aes128gcm16-prfsha256-x25519",
    ),
]


@pytest.mark.parametrize(("offered", "acceptable", "chosen"), IKE_TABLE)
def test_ike_proposals(offered: str, acceptable: str, chosen: str | None) -> None:
    offer = offer_ike(ike(offered))
    if chosen is None:
        with pytest.raises(ExchangeRefused) as refused:
            choose_ike(offer, ike(acceptable))
        assert refused.value.notify is NotifyType.NO_PROPOSAL_CHOSEN
        return
    proposal, _, answer = choose_ike(offer, ike(acceptable))
    assert str(proposal) == chosen
    # The answer holds every type that was on offer once, so the initiator finds the same.
    (choice,) = answer.proposals
    assert {each.type for each in choice.transforms} == {
        each.type for each in offer.proposals[choice.number - 1].transforms
    }
    assert accepted_ike(answer, ike(offered)) == (proposal, b"")
    assert permits_ike(ike(acceptable), proposal)
    assert permits_ike(ike(offered), proposal)


ESP_TABLE = [
    ("aes128gcm16-esn", "aes128gcm16-esn", "aes128gcm16-esn"),
    ("aes128gcm16-noesn-esn", "aes128gcm16-esn-noesn", "aes128gcm16"),
    ("aes128gcm16", "aes128gcm16-esn", None),
    ("aes256gcm16-chacha20poly1305-esn", "chacha20poly1305-esn", "chacha20poly1305-esn"),
    ("aes256-aes128-sha256-sha512-esn", "aes128-sha512-sha256-esn", "aes128-sha256-esn"),
    ("aes128-sha256", "aes128-sha384", None),
    ("aes128-sha256", "aes128gcm16", None),
    # Perfect forward secrecy: wanted by both, by one, and optional.
    ("aes128gcm16-x25519-ecp256", "aes128gcm16-ecp256-x25519", "aes128gcm16-x25519"),
    ("aes128gcm16-x25519", "aes128gcm16", None),
    ("aes128gcm16", "aes128gcm16-x25519", None),
    ("aes128gcm16-x25519-none", "aes128gcm16", "aes128gcm16"),
    ("aes128gcm16", "aes128gcm16-none-x25519", "aes128gcm16"),
    ("aes128gcm16-x25519-ke1_ecp256", "aes128gcm16-x25519-ke1_ecp256", "aes128gcm16-x25519-ke1_ecp256"),
    ("aes128gcm16-x25519-ke1_ecp256", "aes128gcm16-x25519", None),
    ("aes128gcm16-x25519", "aes128gcm16-x25519-ke1_ecp256", None),
]


@pytest.mark.parametrize(("offered", "acceptable", "chosen"), ESP_TABLE)
def test_esp_proposals(offered: str, acceptable: str, chosen: str | None) -> None:
    offer = offer_esp(esp(offered), SPI)
    if chosen is None:
        with pytest.raises(ExchangeRefused) as refused:
            choose_esp(offer, esp(acceptable))
        assert refused.value.notify is NotifyType.NO_PROPOSAL_CHOSEN
        return
    proposal, theirs, answer = choose_esp(offer, esp(acceptable))
    assert (str(proposal), theirs.spi) == (chosen, SPI)
    (choice,) = answer.proposals
    with_spi = SecurityAssociation(
        proposals=(Proposal(number=choice.number, protocol=Protocol.ESP, spi=b"rspi", transforms=choice.transforms),)
    )
    assert accepted_esp(with_spi, esp(offered)) == (proposal, b"rspi")


HYBRID = "aes128gcm16-prfsha256-x25519-ke1_ecp384"


def test_pitfall_13_an_additional_key_exchange_that_was_stripped_is_missed_by_both() -> None:
    stripped = changed(offer_ike(ike(HYBRID)), without=TransformType.ADDKE1)
    with pytest.raises(ExchangeRefused):
        choose_ike(stripped, ike(HYBRID))
    with pytest.raises(ExchangeRefused):
        accepted_ike(stripped, ike(HYBRID))


def test_pitfall_13_an_additional_key_exchange_turned_into_none_is_refused_by_both() -> None:
    none = Transform(type=TransformType.ADDKE1, id=0)
    stripped = changed(offer_ike(ike(HYBRID)), without=TransformType.ADDKE1, extra=(none,))
    with pytest.raises(ExchangeRefused):
        choose_ike(stripped, ike(HYBRID))
    with pytest.raises(ExchangeRefused):
        accepted_ike(stripped, ike(HYBRID))


def test_pitfall_13_what_a_stranger_got_without_an_additional_key_exchange_is_not_permitted_to_a_peer_with() -> None:
    (plain,) = ike("aes128gcm16-prfsha256-x25519")
    (hybrid,) = ike(HYBRID)
    assert not permits_ike((hybrid,), plain)
    assert not permits_ike((plain,), hybrid)
    assert permits_ike(ike(f"{HYBRID}-ke1_none"), plain)
    assert not permits_ike(ike("aes128gcm16-prfsha256-x25519-ke2_ecp384"), hybrid)


@pytest.mark.parametrize(
    "other",
    [
        "aes256gcm16-prfsha256-x25519",
        "aes128gcm16-prfsha384-x25519",
        "aes128gcm16-prfsha256-ecp256",
        "chacha20poly1305-prfsha256-x25519",
        "aes128gcm16-prfsha256-x25519-ke1_ecp256",
    ],
)
def test_every_kind_counts_in_what_is_permitted(other: str) -> None:
    (chosen,) = ike("aes128gcm16-prfsha256-x25519")
    assert permits_ike(ike("aes128gcm16-prfsha256-x25519"), chosen)
    assert not permits_ike(ike(other), chosen)


@pytest.mark.parametrize(
    "extra",
    [
        (Transform(type=TransformType.ADDKE1, id=31),),  # the same method again
        (Transform(type=TransformType.ADDKE1, id=20), Transform(type=TransformType.ADDKE1, id=19)),  # a type twice
        (Transform(type=TransformType.ADDKE2, id=20),),  # not offered
        (Transform(type=13, id=20),),  # no type that there is
        (Transform(type=TransformType.ADDKE1, id=20, key_bits=256),),
        (Transform(type=TransformType.ADDKE1, id=20, unsupported=True),),
    ],
)
def test_an_answer_that_is_no_choice_of_ours_is_refused(extra: tuple[Transform, ...]) -> None:
    offered = ike("aes128gcm16-prfsha256-x25519-ke1_x25519-ke1_ecp384-ke1_ecp256")
    answer = changed(offer_ike(ike("aes128gcm16-prfsha256-x25519")), extra=extra)
    with pytest.raises(ExchangeRefused):
        accepted_ike(answer, offered)


@pytest.mark.parametrize("integrity", [(), (0,), (2,), (12, 0)])
def test_a_cipher_with_a_mac_beside_it_does_not_go_without(integrity: tuple[int, ...]) -> None:
    # NONE, or HMAC-SHA-1 (2) alone, is no MAC of ours; of two the real one is taken.
    extra = tuple(Transform(type=TransformType.INTEG, id=number) for number in integrity)
    offer = changed(offer_ike(ike("aes128-sha256-x25519")), without=TransformType.INTEG, extra=extra)
    if 12 in integrity:
        chosen, _, _ = choose_ike(offer, ike("aes128-sha256-x25519"))
        assert str(chosen) == "aes128-sha256-x25519"
    else:
        with pytest.raises(ExchangeRefused):
            choose_ike(offer, ike("aes128-sha256-x25519"))


@pytest.mark.parametrize(
    ("integrity", "good"),
    [((), True), ((0,), True), ((0, 12), True), ((12,), False)],
)
def test_an_aead_goes_without_integrity_or_with_none(integrity: tuple[int, ...], good: bool) -> None:
    # RFC 5282 section 8: such a proposal has no integrity transform, or NONE; another peer may mix in more.
    extra = tuple(Transform(type=TransformType.INTEG, id=number) for number in integrity)
    offer = changed(offer_ike(ike("aes128gcm16-prfsha256-x25519")), extra=extra)
    if good:
        _, _, answer = choose_ike(offer, ike("aes128gcm16-prfsha256-x25519"))
        answered = [each.id for each in answer.proposals[0].transforms if each.type == TransformType.INTEG]
        assert answered == ([0] if integrity else [])
    else:
        with pytest.raises(ExchangeRefused):
            choose_ike(offer, ike("aes128gcm16-prfsha256-x25519"))


@pytest.mark.parametrize("kind", [13, 255, TransformType.ESN])
def test_pitfall_7_an_ike_proposal_with_a_type_that_means_nothing_here_is_not_chosen(kind: int) -> None:
    # RFC 7296 section 3.3.6: a transform type that is not understood makes its proposal unacceptable, and no other.
    proposals = ike("aes128gcm16-prfsha256-x25519")
    strange = changed(offer_ike(proposals), extra=(Transform(type=kind, id=0),))
    with pytest.raises(ExchangeRefused):
        choose_ike(strange, proposals)
    (first,), (second,) = strange.proposals, offer_ike(proposals).proposals
    both = SecurityAssociation(
        proposals=(first, Proposal(number=2, protocol=Protocol.IKE, spi=b"", transforms=second.transforms))
    )
    _, chosen, _ = choose_ike(both, proposals)
    assert chosen.number == 2


@pytest.mark.parametrize("kind", [13, 255, TransformType.PRF])
def test_pitfall_7_an_esp_proposal_with_a_type_that_means_nothing_here_is_not_chosen(kind: int) -> None:
    proposals = esp("aes128gcm16-esn")
    with pytest.raises(ExchangeRefused):
        choose_esp(changed(offer_esp(proposals, SPI), extra=(Transform(type=kind, id=0),)), proposals)


def test_a_rekey_carries_an_spi_of_8_bytes_both_ways() -> None:
    proposals = ike("aes128gcm16-prfsha256-x25519")
    offer = offer_ike(proposals, b"new spi!")
    chosen, theirs, answer = choose_ike(offer, proposals, spi_size=8)
    assert theirs.spi == b"new spi!"
    with pytest.raises(ExchangeRefused):
        choose_ike(offer, proposals)
    with pytest.raises(ExchangeRefused):
        accepted_ike(answer, proposals, spi_size=8)
    assert accepted_ike(offer_ike((chosen,), b"his spi!"), proposals, spi_size=8) == (chosen, b"his spi!")


methods = st.sampled_from([*KEY_EXCHANGES.values(), NO_KEY_EXCHANGE])


@given(kinds=st.lists(st.lists(methods, min_size=1, max_size=4, unique=True), min_size=1, max_size=5))
def test_methods_are_distinct_whenever_they_can_be(kinds: list[list[KeyExchange]]) -> None:
    chosen = choose_distinct(kinds)
    possible = [()]
    for kind in kinds:
        possible = [
            (*taken, each) for taken in possible for each in kind if each is NO_KEY_EXCHANGE or each not in taken
        ]
    assert chosen == (possible[0] if possible else None)
