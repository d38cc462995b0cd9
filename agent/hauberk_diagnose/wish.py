"""What people ask for, in words: by options, or in a YAML file whose keys are the options' names.

Nothing is read or understood here; `hauberk_diagnose.configuration` makes what the endpoint takes of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, cast

from hauberk_diagnose.errors import Trouble

DEFAULT_IKE: Final = ("aes256gcm16-prfsha384-x25519", "aes128gcm16-prfsha256-x25519")
DEFAULT_ESP: Final = ("aes256gcm16-esn-noesn", "aes128gcm16-esn-noesn")
DEFAULT_LABEL: Final = "child"
ANY: Final = "any"

Encapsulate = Literal["auto", "always", "never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildWish:
    """A CHILD SA. Without traffic selectors it is between the two addresses."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    label: str = DEFAULT_LABEL
    mode: Literal["tunnel", "transport"] = "tunnel"
    esp: Sequence[str] = DEFAULT_ESP
    ts_local: Sequence[str] = ()
    ts_remote: Sequence[str] = ()
    rekey_seconds: float = 0.0
    rekey_bytes: int | None = None
    rekey_packets: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerWish:
    """A peer. `psk_file`: prove ourselves to it, and let it prove itself, by that secret instead of certificates.

    `ppk_file` and `ppk_id`: mix in that post-quantum pre-shared key (RFC 8784), which both call so; `ppk_optional`: do
    without if the peer has none.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    local: str
    name: str = "peer"
    remote: str = ANY
    identity: str = ANY
    psk_file: Path | None = None
    ppk_file: Path | None = None
    ppk_id: str | None = None
    ppk_optional: bool = False
    ike: Sequence[str] = DEFAULT_IKE
    children: Sequence[ChildWish] = ()
    dpd_seconds: float = 10.0
    initial_contact: bool = False
    encapsulation: Encapsulate = "auto"
    mobike: bool = False
    children_apart: bool = False
    rekey_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWish:
    """A run. `identity` is ours; certificate, key and roots are needed if a peer is without `psk_file`.

    `profile`: what peers' certificates have to be like, as gateways' are or as a mesh's nodes' are. `ml_dsa`: they may
    have ML-DSA-65 keys.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    identity: str
    certificate: Path | None = None
    key: Path | None = field(default=None, repr=False)
    ca: Path | None = None
    profile: Literal["rfc4945", "mesh"] = "rfc4945"
    ml_dsa: bool = False
    peers: Sequence[PeerWish]
    port: int = 500
    nat_port: int = 4500
    remote_port: int | None = None
    retransmit_tries: int = 5
    retransmit_seconds: float = 1.0
    keepalive_seconds: float = 20.0
    fragment_size: int = 1280
    cookie_threshold: int = 32


def read_wish(path: Path) -> RunWish:
    """A file's. Paths in it are relative to the file. Raises Trouble that says what is wrong, and where."""
    # Imported here because options alone need neither.
    import yaml
    from pydantic import TypeAdapter, ValidationError

    try:
        document: object = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise Trouble(f"{path}: {error.strerror or error}; name a file that can be read") from None
    except (yaml.YAMLError, ValueError) as error:
        where = " ".join(str(error).split())
        raise Trouble(f"{path}: no YAML: {where}") from None
    try:
        wish = TypeAdapter(RunWish).validate_python(_with_underscores(document))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part).replace("_", "-") for part in first["loc"]) or "the whole"
        raise Trouble(f"{path}: {where}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None
    return wish


def _with_underscores(node: object) -> object:
    """Keys as people write them (`ts-local`) as Python does (`ts_local`). The file may nest as deep as YAML lets it."""
    match node:
        case Mapping():
            pairs = cast("Mapping[Any, object]", node).items()
            return {str(key).replace("-", "_"): _with_underscores(value) for key, value in pairs}
        case list():
            return [_with_underscores(item) for item in cast("list[object]", node)]
        case _:
            return node
