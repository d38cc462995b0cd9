"""Security associations as the kernel holds them: states."""

from dataclasses import dataclass, field, fields
from enum import IntEnum, IntFlag
from typing import Protocol

from hauberk_xfrm.address import IpAddress, ReqId, Spi
from hauberk_xfrm.iptfs import IptfsIn, IptfsOut
from hauberk_xfrm.mark import NO_MARK, Mark

ESP = 50
"""IPPROTO_ESP; the only protocol whose states this package writes."""


class Mode(IntEnum):
    """XFRM_MODE_*. IPTFS needs Linux 6.14 and a state direction (RFC 9347).

    A number that has no name here, of a future kernel, becomes a member without one: dumps never fail over it.
    """

    TRANSPORT = 0
    TUNNEL = 1
    ROUTE_OPTIMIZATION = 2
    IN_TRIGGER = 3
    BEET = 4
    IPTFS = 5

    @classmethod
    def _missing_(cls, value: object) -> "Mode | None":
        if not isinstance(value, int) or not 0 <= value <= 0xFF:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"MODE_{value}"
        member._value_ = value
        return member


class StateDirection(IntEnum):
    """XFRM_SA_DIR_*, which kernels know from 6.10 on (`KernelAbilities.sa_direction`); older ones ignore it."""

    IN = 1
    OUT = 2


class StateFlag(IntFlag):
    """XFRM_STATE_*, without AF_UNSPEC and ESN: those follow from `State.mode` and `State.esn`."""

    NONE = 0
    NOECN = 1
    DECAP_DSCP = 2
    NOPMTUDISC = 4
    WILDRECV = 8
    ICMP = 16
    ALIGN4 = 64


class ExtraFlag(IntFlag):
    """XFRM_SA_XFLAG_*, in an attribute of their own: an outer header without the inner one's DSCP, and sequence numbers
    that may start again (without ESN, where nobody checks for replays)."""

    NONE = 0
    DONT_ENCAP_DSCP = 1
    OSEQ_MAY_WRAP = 2


class EspKeys(Protocol):
    """One direction's keys as IKE hands them over. `integrity` is empty with combined-mode algorithms."""

    @property
    def encryption(self) -> str: ...
    @property
    def key(self) -> bytes: ...
    @property
    def icv_bits(self) -> int: ...
    @property
    def integrity(self) -> str: ...
    @property
    def integrity_key(self) -> bytes: ...
    @property
    def integrity_bits(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Aead:
    """A combined-mode algorithm by its kernel name, such as `rfc4106(gcm(aes))`.

    `key` includes the salt (RFC 4106: the last four bytes), as IKE derives it; `icv_bits` is 64, 96 or 128.
    """

    name: str
    key: bytes = field(repr=False)
    icv_bits: int

    @classmethod
    def of(cls, keys: EspKeys) -> "Aead | None":
        """None if the keys are for a cipher and a MAC."""
        return None if keys.integrity else cls(name=keys.encryption, key=keys.key, icv_bits=keys.icv_bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenc:
    """A cipher and a MAC over its output by their kernel names, such as `cbc(aes)` and `hmac(sha256)`.

    `icv_bits` is what is left of the MAC: 128 for SHA-256 (RFC 4868), where the kernel by itself takes but 96.
    """

    cipher: str
    cipher_key: bytes = field(repr=False)
    mac: str
    mac_key: bytes = field(repr=False)
    icv_bits: int

    @classmethod
    def of(cls, keys: EspKeys) -> "Authenc | None":
        """None if the keys are for a combined-mode algorithm."""
        if not keys.integrity:
            return None
        return cls(
            cipher=keys.encryption,
            cipher_key=keys.key,
            mac=keys.integrity,
            mac_key=keys.integrity_key,
            icv_bits=keys.integrity_bits,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpPorts:
    """ESP in UDP (RFC 3948), from a port to a port.

    What comes in is given to the kernel's states by a socket with UDP_ENCAP on the destination port: without one it is
    lost. The kernel sends by itself.
    """

    source: int
    destination: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offload:
    """What a network device is to do of an SA's work (XFRMA_OFFLOAD_DEV): its cryptography, or all of it (`packet`).

    `interface` is the device's index. Where it can't do the cryptography, the kernel does it and says nothing: a dump
    then shows no offload. Where it can't do packets, the kernel refuses the state.
    """

    interface: int
    packet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """When the kernel expires a state: `soft_*` raises an event, `hard_*` deletes the state. None: never.

    Seconds count from the state's creation (`struct xfrm_lifetime_cfg`).
    """

    soft_bytes: int | None = None
    hard_bytes: int | None = None
    soft_packets: int | None = None
    hard_packets: int | None = None
    soft_seconds: int | None = None
    hard_seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One direction of an ESP SA.

    In tunnel and IP-TFS mode it carries inner packets of both families (XFRM_STATE_AF_UNSPEC, empty selector).
    `replay_window` is how many sequence numbers behind the newest an inbound packet may be (0: not checked; at
    most 4096). It is an inbound SA's: where `direction` is OUT it goes out as 0, as kernels that know directions
    refuse another. It has either `aead` or `authenc`. Both are None only on dumps: of larval states, of other
    algorithms, and where the kernel keeps keys to itself.

    `mark` and `if_id` (an xfrm device's) belong to what packets and policies find the state by, and `mark` to what the
    kernel finds it by when it is asked for. `output_mark` is what packets get that it has worked on: an outbound
    one's outer packets are routed by it. `offload` needs a direction. `mapping_seconds` is an inbound, encapsulated
    state's: after so long a change of mapping that nobody has followed is told again (0: with each packet; Linux 5.16).

    `created_at` is the second since the epoch that a new state shall have been created in (XFRMA_LTIME_VAL); None: that
    of the wall clock. Of outbound states that a policy could take the kernel takes the one created last, and within one
    second either (xfrm_state_look_at in net/xfrm/xfrm_state.c). A dump has the second as `add_time`.
    """

    source: IpAddress
    destination: IpAddress
    spi: Spi
    reqid: ReqId
    mode: Mode = Mode.TUNNEL
    aead: Aead | None = None
    authenc: Authenc | None = None
    replay_window: int = 128
    esn: bool = True
    direction: StateDirection | None = None
    flags: StateFlag = StateFlag.NONE
    extra_flags: ExtraFlag = ExtraFlag.NONE
    encapsulation: UdpPorts | None = None
    lifetime: Lifetime = Lifetime()
    mark: Mark = NO_MARK
    output_mark: Mark = NO_MARK
    if_id: int = 0
    offload: Offload | None = None
    mapping_seconds: int = 0
    created_at: int | None = None
    iptfs: IptfsOut | IptfsIn | None = None
    """In IP-TFS mode; None: as the kernel does it by default."""

    def __post_init__(self) -> None:
        if self.source.version != self.destination.version:
            raise ValueError(f"a state's families must agree: {self.source}, {self.destination}")

    def __str__(self) -> str:
        return f"state {self.source} -> {self.destination} spi {self.spi:#010x} reqid {self.reqid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDump(State):
    """A state as the kernel reports it.

    `bytes` and `packets` count what the SA carried; `add_time`, `use_time` (first use) and `last_used` are seconds
    since the epoch, None for "not yet". `larval`: made by ALLOCSPI or by an ACQUIRE, without keys, gone by itself
    after a while. `algorithm` is the kernel's name of the algorithm, also when the key is hidden.
    `replay_packets`, `replay_window_packets` and `integrity_failed` count packets dropped as repeated, as too
    late, and as forged. `sequence` is the highest number sent or received, ESN's upper half included.
    """

    larval: bool
    algorithm: str | None
    bytes: int
    packets: int
    add_time: int | None
    use_time: int | None
    last_used: int | None
    sequence: int
    replay_packets: int
    replay_window_packets: int
    integrity_failed: int

    @property
    def has_key(self) -> bool:
        """Whether the kernel has shown the key."""
        return self.aead is not None or self.authenc is not None

    @property
    def is_worn(self) -> bool:
        """Whether it has carried as much as its soft limits of bytes or packets say."""
        limits = self.lifetime
        return (limits.soft_bytes is not None and self.bytes >= limits.soft_bytes) or (
            limits.soft_packets is not None and self.packets >= limits.soft_packets
        )

    def as_written(self) -> State:
        """The state alone, as it could be written again, if the kernel has shown its key."""
        return State(**{name: getattr(self, name) for name in _STATE_FIELDS})


_STATE_FIELDS = tuple(each.name for each in fields(State))
