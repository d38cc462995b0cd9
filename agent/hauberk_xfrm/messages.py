"""The messages of include/uapi/linux/xfrm.h as pyroute2 sees them.

The second spelling of what `encoder` and `decoder` do by compiled structures, some fifty times faster: the tests hold
those against these definitions, field by field and byte by byte. Every byte of padding is written out, and every
attribute has its number, since pyroute2 would otherwise count for itself.
"""

# pyroute2 is not typed, and its classes are built to be subclassed without annotations.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedBaseClass=false, reportIncompatibleVariableOverride=false, reportAssignmentType=false

from struct import calcsize, unpack_from
from typing import Any

from pyroute2.netlink import nla, nlmsg

Fields = tuple[tuple[str, str], ...]

NETLINK_HEADER_BYTES = 16
"""struct nlmsghdr."""


def _prefixed(prefix: str, fields: Fields) -> Fields:
    return tuple((f"{prefix}_{name}", layout) for name, layout in fields)


SELECTOR: Fields = (
    ("daddr", "16s"),
    ("saddr", "16s"),
    ("dport", ">H"),
    ("dport_mask", ">H"),
    ("sport", ">H"),
    ("sport_mask", ">H"),
    ("family", "H"),
    ("prefixlen_d", "B"),
    ("prefixlen_s", "B"),
    ("proto", "B"),
    ("pad", "3x"),
    ("ifindex", "i"),
    ("user", "I"),
)

ID: Fields = (("daddr", "16s"), ("spi", ">I"), ("proto", "B"), ("pad", "3x"))

LIFETIME_CFG: Fields = (
    ("soft_byte_limit", "Q"),
    ("hard_byte_limit", "Q"),
    ("soft_packet_limit", "Q"),
    ("hard_packet_limit", "Q"),
    ("soft_add_expires_seconds", "Q"),
    ("hard_add_expires_seconds", "Q"),
    ("soft_use_expires_seconds", "Q"),
    ("hard_use_expires_seconds", "Q"),
)

LIFETIME_CUR: Fields = (("bytes", "Q"), ("packets", "Q"), ("add_time", "Q"), ("use_time", "Q"))

STATS: Fields = (("replay_window", "I"), ("replay", "I"), ("integrity_failed", "I"))

USERSA_INFO: Fields = (
    *_prefixed("sel", SELECTOR),
    *_prefixed("id", ID),
    ("saddr", "16s"),
    *_prefixed("lft", LIFETIME_CFG),
    *_prefixed("curlft", LIFETIME_CUR),
    *_prefixed("stats", STATS),
    ("seq", "I"),
    ("reqid", "I"),
    ("family", "H"),
    ("mode", "B"),
    ("replay_window", "B"),
    ("flags", "B"),
    ("pad", "7x"),
)

USERSA_ID: Fields = (("daddr", "16s"), ("spi", ">I"), ("family", "H"), ("proto", "B"), ("pad", "x"))

USERPOLICY_INFO: Fields = (
    *_prefixed("sel", SELECTOR),
    *_prefixed("lft", LIFETIME_CFG),
    *_prefixed("curlft", LIFETIME_CUR),
    ("priority", "I"),
    ("index", "I"),
    ("dir", "B"),
    ("action", "B"),
    ("flags", "B"),
    ("share", "B"),
    ("pad", "4x"),
)

USERPOLICY_ID: Fields = (*_prefixed("sel", SELECTOR), ("index", "I"), ("dir", "B"), ("pad", "3x"))

USER_TMPL: Fields = (
    *_prefixed("id", ID),
    ("family", "H"),
    ("pad_family", "2x"),
    ("saddr", "16s"),
    ("reqid", "I"),
    ("mode", "B"),
    ("share", "B"),
    ("optional", "B"),
    ("pad_optional", "x"),
    ("aalgos", "I"),
    ("ealgos", "I"),
    ("calgos", "I"),
)

ACQUIRE: Fields = (
    *_prefixed("id", ID),
    ("saddr", "16s"),
    *_prefixed("sel", SELECTOR),
    *_prefixed("policy", USERPOLICY_INFO),
    ("aalgos", "I"),
    ("ealgos", "I"),
    ("calgos", "I"),
    ("seq", "I"),
)

EXPIRE: Fields = (*USERSA_INFO, ("hard", "B"), ("pad_hard", "7x"))

MAPPING: Fields = (
    *_prefixed("id", USERSA_ID),
    ("reqid", "I"),
    ("old_saddr", "16s"),
    ("new_saddr", "16s"),
    ("old_sport", ">H"),
    ("new_sport", ">H"),
)

USER_MIGRATE: Fields = (
    ("old_daddr", "16s"),
    ("old_saddr", "16s"),
    ("new_daddr", "16s"),
    ("new_saddr", "16s"),
    ("proto", "B"),
    ("mode", "B"),
    ("pad", "2x"),
    ("reqid", "I"),
    ("old_family", "H"),
    ("new_family", "H"),
)

TEMPLATES_MAX = 6
"""XFRM_MAX_DEPTH: what one policy may have, and what one migration may move."""


def _no_address(fields: Fields) -> dict[str, bytes]:
    """pyroute2's default for a field is the number 0, which does not fit bytes."""
    return {name: b"" for name, layout in fields if layout.endswith("s")}


class XfrmMessage(nlmsg):
    """Any XFRM message: the fixed structure is a subclass's `fields`, the attributes are the same for all."""

    prefix = "XFRMA_"
    nla_map = (
        (1, "XFRMA_ALG_AUTH", "hex"),
        (2, "XFRMA_ALG_CRYPT", "algo"),
        (3, "XFRMA_ALG_COMP", "hex"),
        (4, "XFRMA_ENCAP", "encap_tmpl"),
        (5, "XFRMA_TMPL", "templates"),
        (9, "XFRMA_LTIME_VAL", "lifetime_cur"),
        (10, "XFRMA_REPLAY_VAL", "replay_state"),
        (13, "XFRMA_SRCADDR", "address"),
        (14, "XFRMA_COADDR", "address"),
        (15, "XFRMA_LASTUSED", "uint64"),
        (16, "XFRMA_POLICY_TYPE", "userpolicy_type"),
        (17, "XFRMA_MIGRATE", "moves"),
        (18, "XFRMA_ALG_AEAD", "algo_aead"),
        (20, "XFRMA_ALG_AUTH_TRUNC", "algo_auth"),
        (21, "XFRMA_MARK", "mark"),
        (23, "XFRMA_REPLAY_ESN_VAL", "replay_state_esn"),
        (24, "XFRMA_SA_EXTRA_FLAGS", "uint32"),
        (25, "XFRMA_PROTO", "uint8"),
        (27, "XFRMA_PAD", "hex"),
        (28, "XFRMA_OFFLOAD_DEV", "user_offload"),
        (29, "XFRMA_SET_MARK", "uint32"),
        (30, "XFRMA_SET_MARK_MASK", "uint32"),
        (31, "XFRMA_IF_ID", "uint32"),
        (32, "XFRMA_MTIMER_THRESH", "uint32"),
        (33, "XFRMA_SA_DIR", "uint8"),
        (34, "XFRMA_NAT_KEEPALIVE_INTERVAL", "uint32"),
        (35, "XFRMA_SA_PCPU", "uint32"),
        (36, "XFRMA_IPTFS_DROP_TIME", "uint32"),
        (37, "XFRMA_IPTFS_REORDER_WINDOW", "uint16"),
        (38, "XFRMA_IPTFS_DONT_FRAG", "flag"),
        (39, "XFRMA_IPTFS_INIT_DELAY", "uint32"),
        (40, "XFRMA_IPTFS_MAX_QSIZE", "uint32"),
        (41, "XFRMA_IPTFS_PKT_SIZE", "uint32"),
    )

    class address(nla):  # noqa: N801 (named as in nla_map)
        """xfrm_address_t."""

        fields = (("value", "16s"),)

    class algo(nla):  # noqa: N801
        """struct xfrm_algo."""

        fields = (("alg_name", "64s"), ("alg_key_len", "I"), ("alg_key", "s"))

    class algo_auth(nla):  # noqa: N801
        """struct xfrm_algo_auth."""

        fields = (("alg_name", "64s"), ("alg_key_len", "I"), ("alg_trunc_len", "I"), ("alg_key", "s"))

    class algo_aead(nla):  # noqa: N801
        """struct xfrm_algo_aead."""

        fields = (("alg_name", "64s"), ("alg_key_len", "I"), ("alg_icv_len", "I"), ("alg_key", "s"))

    class encap_tmpl(nla):  # noqa: N801
        """struct xfrm_encap_tmpl."""

        fields = (
            ("encap_type", "H"),
            ("encap_sport", ">H"),
            ("encap_dport", ">H"),
            ("pad", "2x"),
            ("encap_oa", "16s"),
        )

    class lifetime_cur(nla):  # noqa: N801
        """struct xfrm_lifetime_cur."""

        fields = LIFETIME_CUR

    class replay_state(nla):  # noqa: N801
        """struct xfrm_replay_state."""

        fields = (("oseq", "I"), ("seq", "I"), ("bitmap", "I"))

    class replay_state_esn(nla):  # noqa: N801
        """struct xfrm_replay_state_esn, without the bitmap."""

        fields = (
            ("bmp_len", "I"),
            ("oseq", "I"),
            ("seq", "I"),
            ("oseq_hi", "I"),
            ("seq_hi", "I"),
            ("replay_window", "I"),
        )

    class mark(nla):  # noqa: N801
        """struct xfrm_mark."""

        fields = (("v", "I"), ("m", "I"))

    class user_offload(nla):  # noqa: N801
        """struct xfrm_user_offload."""

        fields = (("ifindex", "i"), ("flags", "B"), ("pad", "3x"))

    class userpolicy_type(nla):  # noqa: N801
        """struct xfrm_userpolicy_type."""

        fields = (("type", "B"), ("pad", "x"), ("reserved1", "H"), ("reserved2", "B"), ("pad2", "x"))

    @staticmethod
    def templates(message: nlmsg, *, value: Any = None, data: Any = None, offset: int = 0) -> type[nla]:
        """The class for as many structures as `value`, or the attribute at `offset`, holds: pyroute2 has no arrays
        of bare structures. The fields of the first are called `t0_reqid` and so on, of the second `t1_reqid`."""
        return _TEMPLATE_ARRAYS[_array_length(USER_TMPL, value, data, offset)]

    @staticmethod
    def moves(message: nlmsg, *, value: Any = None, data: Any = None, offset: int = 0) -> type[nla]:
        """The same for struct xfrm_user_migrate, with `m0_reqid` and so on."""
        return _MOVE_ARRAYS[_array_length(USER_MIGRATE, value, data, offset)]


def _array_length(structure: Fields, value: Any, data: Any, offset: int) -> int:
    if value is not None:
        return sum(field.endswith("_reqid") for field in value)
    (length,) = unpack_from("=H", data, offset)
    return (length - 4) // calcsize("=" + "".join(layout for _, layout in structure))


def _array(prefix: str, structure: Fields, count: int) -> type[nla]:
    fields = tuple(field for position in range(count) for field in _prefixed(f"{prefix}{position}", structure))
    return type(f"array_{prefix}_{count}", (nla,), {"fields": fields, "defaults": _no_address(fields)})


_TEMPLATE_ARRAYS = [_array("t", USER_TMPL, count) for count in range(TEMPLATES_MAX + 1)]
_MOVE_ARRAYS = [_array("m", USER_MIGRATE, count) for count in range(TEMPLATES_MAX + 1)]


class UserSaInfo(XfrmMessage):
    """struct xfrm_usersa_info: NEWSA, UPDSA."""

    fields = USERSA_INFO
    defaults = _no_address(USERSA_INFO)


class UserSpiInfo(XfrmMessage):
    """struct xfrm_userspi_info: ALLOCSPI."""

    fields = (*USERSA_INFO, ("min", "I"), ("max", "I"))
    defaults = _no_address(USERSA_INFO)


class UserSaId(XfrmMessage):
    """struct xfrm_usersa_id: GETSA, DELSA."""

    fields = USERSA_ID
    defaults = _no_address(USERSA_ID)


class UserPolicyInfo(XfrmMessage):
    """struct xfrm_userpolicy_info: NEWPOLICY, UPDPOLICY."""

    fields = USERPOLICY_INFO
    defaults = _no_address(USERPOLICY_INFO)


class UserPolicyId(XfrmMessage):
    """struct xfrm_userpolicy_id: GETPOLICY, DELPOLICY."""

    fields = USERPOLICY_ID
    defaults = _no_address(USERPOLICY_ID)


class UserPolicyDefault(nlmsg):
    """struct xfrm_userpolicy_default: GETDEFAULT, SETDEFAULT."""

    fields = (("in", "B"), ("fwd", "B"), ("out", "B"))


class StateTableInfo(nlmsg):
    """NEWSADINFO: flags, and attributes of its own."""

    fields = (("flags", "I"),)
    prefix = "XFRMA_SAD_"
    nla_map = ((1, "XFRMA_SAD_CNT", "uint32"), (2, "XFRMA_SAD_HINFO", "hash_info"))

    class hash_info(nla):  # noqa: N801
        """struct xfrmu_sadhinfo."""

        fields = (("hcnt", "I"), ("hmcnt", "I"))


class PolicyTableInfo(nlmsg):
    """NEWSPDINFO: flags, and attributes of its own."""

    fields = (("flags", "I"),)
    prefix = "XFRMA_SPD_"
    nla_map = (
        (1, "XFRMA_SPD_INFO", "counts"),
        (2, "XFRMA_SPD_HINFO", "hash_info"),
        (3, "XFRMA_SPD_IPV4_HTHRESH", "thresholds"),
        (4, "XFRMA_SPD_IPV6_HTHRESH", "thresholds"),
    )

    class counts(nla):  # noqa: N801
        """struct xfrmu_spdinfo."""

        fields = (
            ("incnt", "I"),
            ("outcnt", "I"),
            ("fwdcnt", "I"),
            ("inscnt", "I"),
            ("outscnt", "I"),
            ("fwdscnt", "I"),
        )

    class hash_info(nla):  # noqa: N801
        """struct xfrmu_spdhinfo."""

        fields = (("hcnt", "I"), ("hmcnt", "I"))

    class thresholds(nla):  # noqa: N801
        """struct xfrmu_spdhthresh."""

        fields = (("lbits", "B"), ("rbits", "B"))


class UserAcquire(XfrmMessage):
    """struct xfrm_user_acquire: ACQUIRE."""

    fields = ACQUIRE
    defaults = _no_address(ACQUIRE)


class UserExpire(XfrmMessage):
    """struct xfrm_user_expire: EXPIRE."""

    fields = EXPIRE
    defaults = _no_address(EXPIRE)


class UserMapping(XfrmMessage):
    """struct xfrm_user_mapping: MAPPING."""

    fields = MAPPING
    defaults = _no_address(MAPPING)


def build_body(message: nlmsg, **fields: Any) -> bytes:
    """The bytes of `message` with `fields` set, without the netlink header: what `netlink.Message` wants."""
    message.update(fields)
    message.encode()
    return bytes(message.data[NETLINK_HEADER_BYTES:])
