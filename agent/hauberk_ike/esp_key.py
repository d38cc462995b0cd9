"""A CHILD SA's keys as the kernel takes them, made by `hauberk_ike.keys`, reported by `events.ChildSaUp`."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class EspKey:
    """One direction's keys, with the algorithms under the kernel's names.

    `key` is the cipher's, with its salt at the end. An AEAD cipher has a tag of `icv_bits` and no `integrity`;
    another one has `icv_bits` 0 and an `integrity` with `integrity_key` whose tag is cut to `integrity_bits`.
    """

    encryption: str
    key: bytes = field(repr=False)
    icv_bits: int
    integrity: str = ""
    integrity_key: bytes = field(default=b"", repr=False)
    integrity_bits: int = 0
    esn: bool
