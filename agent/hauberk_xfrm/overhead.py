"""What ESP adds to a packet, to the byte as the kernel does it (RFC 4303 section 2).

    outer IP | UDP, where encapsulated | SPI, number | IV | payload | padding | its length, next header | ICV

Pure; `EspSizes` is what the agent computes pods' largest packet from. The kernel's own arithmetic is in `esp_output`
(net/ipv4/esp4.c, net/ipv6/esp6.c) and `xfrm_state_mtu` (net/xfrm/xfrm_state.c).
"""

from dataclasses import dataclass
from typing import Final

from hauberk_xfrm.state import Mode, State

IP_HEADER_BYTES: Final = {4: 20, 6: 40}
"""Without options and extension headers, which the kernel's tunnels never have."""

IPV6_MIN_MTU: Final = 1280
"""What every link carries of IPv6 in one packet (RFC 8200 section 5)."""

_UDP_HEADER: Final = 8
_ESP_HEADER: Final = 8
_ESP_TRAILER: Final = 2
_AGGFRAG_HEADER: Final = 4
"""RFC 9347 section 6.1.1."""
_ALIGNMENT: Final = 4
"""Of what is behind the ESP header, whatever the cipher (RFC 4303 section 2.4)."""

# The kernel's name of a cipher: bytes of its IV in the packet, and of a block that its input is padded to.
_CIPHERS: Final = {
    "rfc4106(gcm(aes))": (8, 1),
    "rfc4309(ccm(aes))": (8, 1),
    "rfc7539esp(chacha20,poly1305)": (8, 1),
    "cbc(aes)": (16, 16),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EspSizes:
    """How large the packets of an SA are.

    `cipher` is the kernel's name of an AEAD, or of the cipher beside a MAC; `icv_bits` is what is sent of the tag.
    Raises ValueError for a cipher that this package does not know, or another IP version than 4 and 6.
    """

    outer_version: int
    mode: Mode
    cipher: str
    icv_bits: int
    encapsulated: bool = False
    """ESP in UDP."""

    def __post_init__(self) -> None:
        if self.cipher not in _CIPHERS:
            raise ValueError(f"what {self.cipher} adds to a packet is not known")
        if self.outer_version not in IP_HEADER_BYTES:
            raise ValueError(f"there is no IP version {self.outer_version}")

    @classmethod
    def of(cls, state: State) -> "EspSizes":
        """Raises ValueError for a state without a key."""
        if state.aead is not None:
            cipher, icv_bits = state.aead.name, state.aead.icv_bits
        elif state.authenc is not None:
            cipher, icv_bits = state.authenc.cipher, state.authenc.icv_bits
        else:
            raise ValueError(f"{state} has no algorithm")
        return cls(
            outer_version=state.source.version,
            mode=state.mode,
            cipher=cipher,
            icv_bits=icv_bits,
            encapsulated=state.encapsulation is not None,
        )

    def packet_bytes(self, inner_bytes: int) -> int:
        """The outer packet that an IP packet of so many bytes becomes, headers included.

        In transport mode that one's own header goes in front. In IP-TFS mode it is for a packet that goes alone and
        whole; many small ones share an outer packet, and large ones are cut.
        """
        block = self._block
        padded = -(-(inner_bytes - self._outside + _ESP_TRAILER) // block) * block
        return self._fixed + self._outside + padded

    def inner_mtu(self, outer_mtu: int) -> int:
        """The largest packet that becomes one of `outer_mtu` bytes at most; 0 if there is none.

        In IP-TFS mode larger ones are carried as well, in pieces.
        """
        room = outer_mtu - self._fixed - self._outside
        room -= room % self._block
        return max(room - _ESP_TRAILER + self._outside, 0) if room > _ESP_TRAILER else 0

    @property
    def _block(self) -> int:
        return max(_CIPHERS[self.cipher][1], _ALIGNMENT)

    @property
    def _outside(self) -> int:
        """Bytes of the inner packet that are not encrypted."""
        return IP_HEADER_BYTES[self.outer_version] if self.mode is Mode.TRANSPORT else 0

    @property
    def _fixed(self) -> int:
        """All that is added but padding and trailer."""
        size = _ESP_HEADER + _CIPHERS[self.cipher][0] + self.icv_bits // 8
        if self.mode is not Mode.TRANSPORT:
            size += IP_HEADER_BYTES[self.outer_version]
        if self.mode is Mode.IPTFS:
            size += _AGGFRAG_HEADER
        if self.encapsulated:
            size += _UDP_HEADER
        return size
