"""Proposals as people write them: `aes128gcm16-prfsha256-x25519`, strongSwan's spelling, and as what they mean.

Configuration and status use the text; `hauberk_ike.negotiation` turns proposals into transforms and back. The words are
in the tables of `hauberk_ike.algorithms`.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final

from hauberk_ike.algorithms import (
    ALIASES,
    ENCRYPTIONS,
    ESNS,
    INTEGRITIES,
    KEY_EXCHANGES,
    NO_KEY_EXCHANGE,
    PRF_OF_INTEGRITY,
    PRFS,
    REFUSED,
    Encryption,
    Integrity,
    KeyExchange,
    Prf,
)
from hauberk_ike.errors import ProposalError
from hauberk_ike.numbers import EsnId

MAX_ADDITIONAL: Final = 7
"""ADDKE1 to ADDKE7 (RFC 9370 section 2.2.1)."""

_ITEMS: Final[dict[str, Encryption | Integrity | Prf | KeyExchange | EsnId]] = {
    **ENCRYPTIONS,
    **INTEGRITIES,
    **PRFS,
    **KEY_EXCHANGES,
    NO_KEY_EXCHANGE.word: NO_KEY_EXCHANGE,
    **ESNS,
}
_ADDITIONAL: Final = re.compile(rf"ke([1-{MAX_ADDITIONAL}])_(.+)")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class IkeProposal:
    """What may protect an IKE SA: any one of each kind, the first preferred. A negotiated one has one of each.

    `integrity` is empty with AEAD ciphers, which never share a proposal with others (RFC 5282 section 8). `additional`
    holds the choices for ADDKE1, ADDKE2, ... (RFC 9370), among which may be NO_KEY_EXCHANGE. One that is not asked for,
    or that was negotiated to be NONE, is an empty tuple; there are none at the end.
    """

    encryption: tuple[Encryption, ...]
    integrity: tuple[Integrity, ...] = ()
    prf: tuple[Prf, ...]
    key_exchange: tuple[KeyExchange, ...]
    additional: tuple[tuple[KeyExchange, ...], ...] = ()
    additional_methods: tuple[KeyExchange, ...] = field(init=False, compare=False)
    """Of a negotiated proposal: the additional key exchanges to be done, in order."""
    text: str = field(init=False, compare=False)
    """As `str` gives it. Made once, as every IKE SA tells it and a mesh has one or two."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "additional_methods", tuple(chain.from_iterable(self.additional)))
        object.__setattr__(self, "text", self._spell())

    @classmethod
    def parse(cls, text: str) -> "IkeProposal":
        """Reads strongSwan's spelling, e.g. `aes256gcm16-prfsha384-x25519-ke1_mlkem768`. Raises ProposalError.

        Without a PRF it is that of the integrity algorithm's hash; an AEAD cipher takes an integrity algorithm for
        that purpose alone.
        """
        words = _Words(text)
        words.check_encryption()
        prf = tuple(words.prf) or tuple(PRF_OF_INTEGRITY[each] for each in words.integrity)
        words.require(prf, "a pseudorandom function", PRFS)
        words.require(words.key_exchange, "a key exchange method", KEY_EXCHANGES)
        if words.esn:
            raise ProposalError(f"{text!r}: extended sequence numbers are ESP's")
        if NO_KEY_EXCHANGE in words.key_exchange:
            raise ProposalError(f"{text!r}: an IKE SA needs a key exchange, so 'none' is no choice")
        if words.has_aead and words.integrity and words.prf:
            raise ProposalError(f"{text!r}: its ciphers authenticate by themselves and take no integrity algorithm")
        return cls(
            encryption=tuple(words.encryption),
            integrity=() if words.has_aead else tuple(words.integrity),
            prf=prf,
            key_exchange=tuple(words.key_exchange),
            additional=words.kinds_of_additional(),
        )

    def __str__(self) -> str:
        return self.text

    def _spell(self) -> str:
        implied = tuple(PRF_OF_INTEGRITY[each] for each in self.integrity)
        items = (*self.encryption, *self.integrity, *(() if self.prf == implied else self.prf), *self.key_exchange)
        return "-".join((*(item.word for item in items), *_additional_words(self.additional)))

    def __repr__(self) -> str:
        return f"IkeProposal.parse({str(self)!r})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EspProposal:
    """What may protect a CHILD SA. `esn` holds the choices of 64-bit sequence numbers, the first preferred.

    An empty `key_exchange` means no perfect forward secrecy; NO_KEY_EXCHANGE among the choices leaves it to the peer.
    `integrity` and `additional` are as in IkeProposal.
    """

    encryption: tuple[Encryption, ...]
    integrity: tuple[Integrity, ...] = ()
    key_exchange: tuple[KeyExchange, ...] = ()
    additional: tuple[tuple[KeyExchange, ...], ...] = ()
    esn: tuple[EsnId, ...] = (EsnId.NO_ESN,)

    @classmethod
    def parse(cls, text: str) -> "EspProposal":
        """Reads strongSwan's spelling, e.g. `aes128gcm16-x25519-esn`; `noesn` is the default. Raises ProposalError."""
        words = _Words(text)
        words.check_encryption()
        if words.prf:
            raise ProposalError(f"{text!r}: pseudorandom functions are IKE's")
        if words.has_aead and words.integrity:
            raise ProposalError(f"{text!r}: its ciphers authenticate by themselves and take no integrity algorithm")
        if words.additional and not words.key_exchange:
            raise ProposalError(f"{text!r} has an additional key exchange, and none that it would be additional to")
        return cls(
            encryption=tuple(words.encryption),
            integrity=tuple(words.integrity),
            key_exchange=tuple(words.key_exchange),
            additional=words.kinds_of_additional(),
            esn=tuple(words.esn) or (EsnId.NO_ESN,),
        )

    @property
    def additional_methods(self) -> tuple[KeyExchange, ...]:
        """Of a negotiated proposal: the additional key exchanges to be done, in order."""
        return tuple(method for choices in self.additional for method in choices)

    def without_key_exchange(self) -> "EspProposal":
        """The same for IKE_AUTH, whose CHILD SA takes its keys from the IKE SA's (RFC 7296 section 1.2)."""
        return replace(self, key_exchange=(), additional=()) if self.key_exchange else self

    def __str__(self) -> str:
        words = [item.word for item in (*self.encryption, *self.integrity, *self.key_exchange)]
        words += _additional_words(self.additional)
        if self.esn != (EsnId.NO_ESN,):
            words += ["esn" if esn is EsnId.ESN else "noesn" for esn in self.esn]
        return "-".join(words)

    def __repr__(self) -> str:
        return f"EspProposal.parse({str(self)!r})"


def choose_distinct(kinds: Sequence[Sequence[KeyExchange]]) -> tuple[KeyExchange, ...] | None:
    """One method of each kind, the first ones preferred, none twice (RFC 9370 section 2.2.1); NONE may repeat."""
    if not all(kinds):
        return None
    firsts = tuple(kind[0] for kind in kinds)
    ids = [method.transform_id for method in firsts if method is not NO_KEY_EXCHANGE]
    if len(set(ids)) == len(ids):
        return firsts
    for method in kinds[0]:
        taken = None if method is NO_KEY_EXCHANGE else method
        rest = choose_distinct([[each for each in kind if each is not taken] for kind in kinds[1:]])
        if rest is not None:
            return (method, *rest)
    return None


class _Words:
    """A proposal's words by their kinds, each kind in the text's order and without repetitions."""

    __slots__ = ("additional", "encryption", "esn", "integrity", "key_exchange", "prf", "text")

    def __init__(self, text: str) -> None:
        """Raises ProposalError for a word that is in no table."""
        self.text = text
        self.encryption: dict[Encryption, None] = {}
        self.integrity: dict[Integrity, None] = {}
        self.prf: dict[Prf, None] = {}
        self.key_exchange: dict[KeyExchange, None] = {}
        self.additional: dict[int, dict[KeyExchange, None]] = {}
        self.esn: dict[EsnId, None] = {}
        for word in text.strip().lower().split("-"):
            self._take(word)

    def _take(self, word: str) -> None:
        additional = _ADDITIONAL.fullmatch(word)
        name = word if additional is None else additional[2]
        match _ITEMS.get(ALIASES.get(name, name)):
            case KeyExchange() as method if additional is not None:
                self.additional.setdefault(int(additional[1]), {})[method] = None
            case KeyExchange() as method:
                self.key_exchange[method] = None
            case Encryption() as cipher if additional is None:
                self.encryption[cipher] = None
            case Integrity() as integrity if additional is None:
                self.integrity[integrity] = None
            case Prf() as prf if additional is None:
                self.prf[prf] = None
            case EsnId() as esn if additional is None:
                self.esn[esn] = None
            case _:
                raise ProposalError(f"{self.text!r}: {word!r} is not supported here{_reason(name)}")

    def require(self, items: Collection[object], kind: str, table: Mapping[str, object]) -> None:
        """Raises ProposalError unless there is one of a kind."""
        if not items:
            raise ProposalError(f"{self.text!r} lacks {kind} ({', '.join(table)})")

    def check_encryption(self) -> None:
        """Raises ProposalError for no cipher, and for AEAD ciphers among others (RFC 5282 section 8)."""
        self.require(self.encryption, "an encryption algorithm", ENCRYPTIONS)
        aeads = {cipher.is_aead for cipher in self.encryption}
        if len(aeads) > 1:
            raise ProposalError(
                f"{self.text!r} mixes ciphers that authenticate with ones that don't: make it two proposals"
            )
        if not aeads.pop():
            self.require(self.integrity, "an integrity algorithm", INTEGRITIES)

    @property
    def has_aead(self) -> bool:
        """Whether the ciphers, which `check_encryption` has found to be of one kind, are AEADs."""
        return next(iter(self.encryption)).is_aead

    def kinds_of_additional(self) -> tuple[tuple[KeyExchange, ...], ...]:
        """ADDKE1, ADDKE2, ... up to the last that is there. Raises ProposalError if they can't all be different."""
        kinds = tuple(tuple(self.additional.get(kind, ())) for kind in range(1, max(self.additional, default=0) + 1))
        if choose_distinct([kind for kind in (tuple(self.key_exchange), *kinds) if kind]) is None:
            raise ProposalError(f"{self.text!r} asks for the same key exchange twice")
        return kinds


def _reason(word: str) -> str:
    return f": {REFUSED[word]}" if word in REFUSED else f"; known words are {', '.join(_ITEMS)}"


def _additional_words(additional: tuple[tuple[KeyExchange, ...], ...]) -> list[str]:
    return [f"ke{number}_{method.word}" for number, kind in enumerate(additional, 1) for method in kind]
