"""Numbers and memory layouts of include/uapi/linux/xfrm.h, compiled once; the encoder and the decoder share them.

Each `struct.Struct` stands under the C structure whose bytes it packs. All are in host order without implied padding
(`=`), so padding is written out; fields that the kernel keeps in network order (ports, SPIs) go through `htons` and
`htonl` before. The same layouts, spelled as pyroute2 messages, are in `messages`, and tests hold both to be equal.
"""

from enum import IntEnum
from struct import Struct

NETLINK_ROUTE = 0
NETLINK_XFRM = 6

# struct nlmsghdr (include/uapi/linux/netlink.h): length, type, flags, sequence number, port id of the sender
NLMSGHDR = Struct("=IHHII")

INFINITE = 0xFFFFFFFFFFFFFFFF
"""XFRM_INF: no limit of bytes or packets."""

STATE_FLAG_AF_UNSPEC = 32
"""The state takes inner packets of any family; its selector must be empty."""

STATE_FLAG_ESN = 128
"""64-bit sequence numbers (RFC 4303, section 2.2.1)."""

ANY_ALGORITHM = 0xFFFFFFFF
"""The algorithm masks of a template: only pfkey looks at them."""


UDP_ENCAP_ESPINUDP = 2
"""linux/udp.h: ESP in UDP as RFC 3948 has it."""


class MessageType(IntEnum):
    """XFRM_MSG_*: those that this package sends or understands. FLUSHSA and FLUSHPOLICY are never sent."""

    NEWSA = 0x10
    DELSA = 0x11
    GETSA = 0x12
    NEWPOLICY = 0x13
    DELPOLICY = 0x14
    GETPOLICY = 0x15
    ALLOCSPI = 0x16
    ACQUIRE = 0x17
    EXPIRE = 0x18
    UPDPOLICY = 0x19
    UPDSA = 0x1A
    FLUSHSA = 0x1C
    FLUSHPOLICY = 0x1D
    MIGRATE = 0x21
    NEWSADINFO = 0x22
    GETSADINFO = 0x23
    NEWSPDINFO = 0x24
    GETSPDINFO = 0x25
    MAPPING = 0x26
    SETDEFAULT = 0x27
    GETDEFAULT = 0x28


class Group(IntEnum):
    """XFRMNLGRP_*: the multicast groups of this package's events. Joined as bits of the address that is bound."""

    ACQUIRE = 1
    EXPIRE = 2
    SA = 3
    POLICY = 4
    MIGRATE = 7
    MAPPING = 8


class Attribute(IntEnum):
    """XFRMA_*."""

    ALG_AUTH = 1
    ALG_CRYPT = 2
    ALG_COMP = 3
    ENCAP = 4
    TMPL = 5
    LTIME_VAL = 9
    REPLAY_VAL = 10
    LASTUSED = 15
    POLICY_TYPE = 16
    MIGRATE = 17
    ALG_AEAD = 18
    ALG_AUTH_TRUNC = 20
    MARK = 21
    REPLAY_ESN_VAL = 23
    SA_EXTRA_FLAGS = 24
    PROTO = 25
    OFFLOAD_DEV = 28
    SET_MARK = 29
    SET_MARK_MASK = 30
    IF_ID = 31
    MTIMER_THRESH = 32
    SA_DIR = 33
    IPTFS_DROP_TIME = 36
    IPTFS_REORDER_WINDOW = 37
    IPTFS_DONT_FRAG = 38
    IPTFS_INIT_DELAY = 39
    IPTFS_MAX_QSIZE = 40
    IPTFS_PKT_SIZE = 41


class StateTableAttribute(IntEnum):
    """XFRMA_SAD_*: of NEWSADINFO alone."""

    COUNT = 1
    HASH = 2


class PolicyTableAttribute(IntEnum):
    """XFRMA_SPD_*: of NEWSPDINFO alone."""

    COUNTS = 1
    HASH = 2


# struct xfrm_selector: daddr, saddr, dport, dport_mask, sport, sport_mask, family, prefixlen_d, prefixlen_s, proto,
# (3), ifindex, user
_SELECTOR = "16s16sHHHHHBBB3xiI"
SELECTOR = Struct("=" + _SELECTOR)

# struct xfrm_lifetime_cfg: byte limits soft and hard, packet limits, seconds since added, seconds since first use
_LIFETIME_CFG = "8Q"
# struct xfrm_lifetime_cur: bytes, packets, add_time, use_time
_LIFETIME_CUR = "4Q"
LIFETIME_CUR = Struct("=" + _LIFETIME_CUR)

# struct xfrm_usersa_info: selector, daddr, spi, proto, (3), saddr, lifetime_cfg, lifetime_cur, stats (replay_window,
# replay, integrity_failed), seq, reqid, family, mode, replay_window, flags, (7)
USERSA_INFO = Struct(f"={SELECTOR.size}s16sIB3x16s{_LIFETIME_CFG}{_LIFETIME_CUR}3IIIHBBB7x")

# The rest of struct xfrm_userspi_info, behind its xfrm_usersa_info: min, max
SPI_RANGE = Struct("=II")

# struct xfrm_usersa_id: daddr, spi, family, proto, (1)
USERSA_ID = Struct("=16sIHBx")

# struct xfrm_usersa_flush: proto
USERSA_FLUSH = Struct("=B")

# struct xfrm_userpolicy_info: selector, lifetime_cfg, lifetime_cur, priority, index, dir, action, flags, share, (4)
USERPOLICY_INFO = Struct(f"={_SELECTOR}{_LIFETIME_CFG}{_LIFETIME_CUR}IIBBBB4x")

# struct xfrm_userpolicy_id: selector, index, dir, (3)
USERPOLICY_ID = Struct(f"={_SELECTOR}IB3x")

# struct xfrm_user_acquire before its policy: id (daddr, spi, proto, (3)), saddr, selector; and behind the policy:
# aalgos, ealgos, calgos, seq
ACQUIRE_HEAD = Struct(f"=16sIB3x16s{SELECTOR.size}s")
ACQUIRE_TAIL = Struct("=IIII")

# The rest of struct xfrm_user_expire, behind its xfrm_usersa_info: hard, (7)
EXPIRE_TAIL = Struct("=B7x")

# struct xfrm_user_mapping: id (daddr, spi, family, proto, (1)), reqid, old_saddr, new_saddr, old_sport, new_sport
MAPPING = Struct("=16sIHBxI16s16sHH")

# struct xfrm_user_migrate: old_daddr, old_saddr, new_daddr, new_saddr, proto, mode, (2), reqid, old_family, new_family
MIGRATE = Struct("=16s16s16s16sBB2xIHH")

# struct xfrm_user_tmpl: daddr, spi, proto, (3), family, (2), saddr, reqid, mode, share, optional, (1), aalgos,
# ealgos, calgos
USER_TMPL = Struct("=16sIB3xH2x16sIBBBxIII")

# struct xfrm_algo, without the key that follows: name, key bits
ALGO = Struct("=64sI")

# struct xfrm_algo_auth, without the key that follows: name, key bits, bits that the tag is cut to
ALGO_AUTH = Struct("=64sII")

# struct xfrm_algo_aead, without the key that follows: name, key bits, ICV bits
ALGO_AEAD = Struct("=64sII")

# struct xfrm_encap_tmpl: type, source port, destination port, (2), original address
ENCAP_TMPL = Struct("=HHH2x16s")

# struct xfrm_user_offload: index of the device, flags, (3)
OFFLOAD = Struct("=iB3x")

OFFLOAD_INBOUND = 2
OFFLOAD_PACKET = 4

# struct xfrm_replay_state: oseq, seq, bitmap
REPLAY_STATE = Struct("=III")

# struct xfrm_replay_state_esn, without the bitmap that may follow: bmp_len (in words), oseq, seq, oseq_hi, seq_hi,
# replay_window
REPLAY_STATE_ESN = Struct("=6I")

# struct xfrm_mark: value, mask
MARK = Struct("=II")

# struct xfrm_userpolicy_type: type, (1), reserved1, reserved2, (1)
USERPOLICY_TYPE = Struct("=BxHBx")

# struct xfrm_userpolicy_default: in, fwd, out
USERPOLICY_DEFAULT = Struct("=BBB")

# struct xfrmu_sadhinfo and xfrmu_spdhinfo: hash buckets now, and at most
HASH_INFO = Struct("=II")

# struct xfrmu_spdinfo: incnt, outcnt, fwdcnt, inscnt, outscnt, fwdscnt
SPD_INFO = Struct("=6I")

UINT16 = Struct("=H")
UINT32 = Struct("=I")
UINT64 = Struct("=Q")
