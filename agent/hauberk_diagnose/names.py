"""Names of the numbers on the wire, those that `hauberk_ike` does not use included: a capture is of anybody's words.

By IANA's registry "Internet Key Exchange Version 2 (IKEv2) Parameters", as of 2025-05-23. Algorithms have the words of
strongSwan's proposals as well, where it has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

EXCHANGES: Final = {
    34: "IKE_SA_INIT",
    35: "IKE_AUTH",
    36: "CREATE_CHILD_SA",
    37: "INFORMATIONAL",
    38: "IKE_SESSION_RESUME",
    39: "GSA_AUTH",
    40: "GSA_REGISTRATION",
    41: "GSA_REKEY",
    42: "GSA_INBAND_REKEY",
    43: "IKE_INTERMEDIATE",
    44: "IKE_FOLLOWUP_KE",
}

PAYLOADS: Final = {
    33: "SA",
    34: "KE",
    35: "IDi",
    36: "IDr",
    37: "CERT",
    38: "CERTREQ",
    39: "AUTH",
    40: "Nonce",
    41: "N",
    42: "D",
    43: "V",
    44: "TSi",
    45: "TSr",
    46: "SK",
    47: "CP",
    48: "EAP",
    49: "GSPM",
    50: "IDg",
    51: "GSA",
    52: "KD",
    53: "SKF",
    54: "PS",
}

PROTOCOLS: Final = {0: "none", 1: "IKE", 2: "AH", 3: "ESP", 4: "FC_ESP_HEADER", 5: "FC_CT_AUTHENTICATION"}

ID_TYPES: Final = {
    1: "IPV4_ADDR",
    2: "FQDN",
    3: "RFC822_ADDR",
    5: "IPV6_ADDR",
    9: "DER_ASN1_DN",
    10: "DER_ASN1_GN",
    11: "KEY_ID",
    12: "FC_NAME",
    13: "NULL",
}

CERTIFICATE_ENCODINGS: Final = {
    1: "PKCS7_X509",
    2: "PGP",
    3: "DNS_SIGNED_KEY",
    4: "X509_SIGNATURE",
    6: "KERBEROS_TOKEN",
    7: "CRL",
    8: "ARL",
    9: "SPKI",
    10: "X509_ATTRIBUTE",
    11: "RAW_RSA",
    12: "HASH_AND_URL_OF_X509",
    13: "HASH_AND_URL_OF_BUNDLE",
    14: "OCSP_CONTENT",
    15: "RAW_PUBLIC_KEY",
}

AUTHENTICATION_METHODS: Final = {
    1: "RSA_DIGITAL_SIGNATURE",
    2: "SHARED_KEY_MIC",
    3: "DSS_DIGITAL_SIGNATURE",
    9: "ECDSA_SHA256_P256",
    10: "ECDSA_SHA384_P384",
    11: "ECDSA_SHA512_P521",
    12: "GENERIC_SECURE_PASSWORD",
    13: "NULL",
    14: "DIGITAL_SIGNATURE",
}

HASH_ALGORITHMS: Final = {
    1: "SHA1",
    2: "SHA2_256",
    3: "SHA2_384",
    4: "SHA2_512",
    5: "IDENTITY",
    6: "STREEBOG_256",
    7: "STREEBOG_512",
}

CONFIGURATION_TYPES: Final = {1: "CFG_REQUEST", 2: "CFG_REPLY", 3: "CFG_SET", 4: "CFG_ACK"}

CONFIGURATION_ATTRIBUTES: Final = {
    1: "INTERNAL_IP4_ADDRESS",
    2: "INTERNAL_IP4_NETMASK",
    3: "INTERNAL_IP4_DNS",
    4: "INTERNAL_IP4_NBNS",
    6: "INTERNAL_IP4_DHCP",
    7: "APPLICATION_VERSION",
    8: "INTERNAL_IP6_ADDRESS",
    10: "INTERNAL_IP6_DNS",
    12: "INTERNAL_IP6_DHCP",
    13: "INTERNAL_IP4_SUBNET",
    14: "SUPPORTED_ATTRIBUTES",
    15: "INTERNAL_IP6_SUBNET",
    25: "INTERNAL_DNS_DOMAIN",
    26: "INTERNAL_DNSSEC_TA",
}

NOTIFIES: Final = {
    1: "UNSUPPORTED_CRITICAL_PAYLOAD",
    4: "INVALID_IKE_SPI",
    5: "INVALID_MAJOR_VERSION",
    7: "INVALID_SYNTAX",
    9: "INVALID_MESSAGE_ID",
    11: "INVALID_SPI",
    14: "NO_PROPOSAL_CHOSEN",
    17: "INVALID_KE_PAYLOAD",
    24: "AUTHENTICATION_FAILED",
    34: "SINGLE_PAIR_REQUIRED",
    35: "NO_ADDITIONAL_SAS",
    36: "INTERNAL_ADDRESS_FAILURE",
    37: "FAILED_CP_REQUIRED",
    38: "TS_UNACCEPTABLE",
    39: "INVALID_SELECTORS",
    40: "UNACCEPTABLE_ADDRESSES",
    41: "UNEXPECTED_NAT_DETECTED",
    42: "USE_ASSIGNED_HoA",
    43: "TEMPORARY_FAILURE",
    44: "CHILD_SA_NOT_FOUND",
    45: "INVALID_GROUP_ID",
    46: "AUTHORIZATION_FAILED",
    47: "STATE_NOT_FOUND",
    48: "TS_MAX_QUEUE",
    16384: "INITIAL_CONTACT",
    16385: "SET_WINDOW_SIZE",
    16386: "ADDITIONAL_TS_POSSIBLE",
    16387: "IPCOMP_SUPPORTED",
    16388: "NAT_DETECTION_SOURCE_IP",
    16389: "NAT_DETECTION_DESTINATION_IP",
    16390: "COOKIE",
    16391: "USE_TRANSPORT_MODE",
    16392: "HTTP_CERT_LOOKUP_SUPPORTED",
    16393: "REKEY_SA",
    16394: "ESP_TFC_PADDING_NOT_SUPPORTED",
    16395: "NON_FIRST_FRAGMENTS_ALSO",
    16396: "MOBIKE_SUPPORTED",
    16397: "ADDITIONAL_IP4_ADDRESS",
    16398: "ADDITIONAL_IP6_ADDRESS",
    16399: "NO_ADDITIONAL_ADDRESSES",
    16400: "UPDATE_SA_ADDRESSES",
    16401: "COOKIE2",
    16402: "NO_NATS_ALLOWED",
    16403: "AUTH_LIFETIME",
    16404: "MULTIPLE_AUTH_SUPPORTED",
    16405: "ANOTHER_AUTH_FOLLOWS",
    16406: "REDIRECT_SUPPORTED",
    16407: "REDIRECT",
    16408: "REDIRECTED_FROM",
    16409: "TICKET_LT_OPAQUE",
    16410: "TICKET_REQUEST",
    16411: "TICKET_ACK",
    16412: "TICKET_NACK",
    16413: "TICKET_OPAQUE",
    16414: "LINK_ID",
    16415: "USE_WESP_MODE",
    16416: "ROHC_SUPPORTED",
    16417: "EAP_ONLY_AUTHENTICATION",
    16418: "CHILDLESS_IKEV2_SUPPORTED",
    16419: "QUICK_CRASH_DETECTION",
    16420: "IKEV2_MESSAGE_ID_SYNC_SUPPORTED",
    16421: "IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED",
    16422: "IKEV2_MESSAGE_ID_SYNC",
    16423: "IPSEC_REPLAY_COUNTER_SYNC",
    16424: "SECURE_PASSWORD_METHODS",
    16425: "PSK_PERSIST",
    16426: "PSK_CONFIRM",
    16427: "ERX_SUPPORTED",
    16428: "IFOM_CAPABILITY",
    16429: "GROUP_SENDER",
    16430: "IKEV2_FRAGMENTATION_SUPPORTED",
    16431: "SIGNATURE_HASH_ALGORITHMS",
    16432: "CLONE_IKE_SA_SUPPORTED",
    16433: "CLONE_IKE_SA",
    16434: "PUZZLE",
    16435: "USE_PPK",
    16436: "PPK_IDENTITY",
    16437: "NO_PPK_AUTH",
    16438: "INTERMEDIATE_EXCHANGE_SUPPORTED",
    16439: "IP4_ALLOWED",
    16440: "IP6_ALLOWED",
    16441: "ADDITIONAL_KEY_EXCHANGE",
    16442: "USE_AGGFRAG",
    16443: "SUPPORTED_AUTH_METHODS",
    16444: "SA_RESOURCE_INFO",
    16445: "USE_PPK_INT",
    16446: "PPK_IDENTITY_KEY",
    16447: "IKE_SA_INIT_FULL_TRANSCRIPT_AUTH",  # draft-ietf-ipsecme-ikev2-downgrade-prevention
    40961: "HAUBERK_TUNNEL",  # private use; other vendors give it other meanings
    40962: "HAUBERK_ESP_ARRIVED",
    40963: "HAUBERK_ESP_PATH",
    40964: "HAUBERK_PADDING",
}

TRANSFORM_TYPES: Final = {
    1: "ENCR",
    2: "PRF",
    3: "INTEG",
    4: "KE",
    5: "ESN",
    **{5 + number: f"ADDKE{number}" for number in range(1, 8)},
    13: "KWA",
    14: "GCAUTH",
}

TRANSFORMS: Final[Mapping[int, Mapping[int, tuple[str, str]]]] = {
    1: {
        2: ("DES", "des"),
        3: ("3DES", "3des"),
        5: ("CAST", "cast128"),
        7: ("BLOWFISH", "blowfish"),
        11: ("NULL", "null"),
        12: ("AES_CBC", "aes"),
        13: ("AES_CTR", "aes{}ctr"),
        14: ("AES_CCM_8", "aes{}ccm8"),
        15: ("AES_CCM_12", "aes{}ccm12"),
        16: ("AES_CCM_16", "aes{}ccm16"),
        18: ("AES_GCM_8", "aes{}gcm8"),
        19: ("AES_GCM_12", "aes{}gcm12"),
        20: ("AES_GCM_16", "aes{}gcm16"),
        21: ("NULL_AUTH_AES_GMAC", "aes{}gmac"),
        23: ("CAMELLIA_CBC", "camellia"),
        24: ("CAMELLIA_CTR", "camellia{}ctr"),
        25: ("CAMELLIA_CCM_8", "camellia{}ccm8"),
        26: ("CAMELLIA_CCM_12", "camellia{}ccm12"),
        27: ("CAMELLIA_CCM_16", "camellia{}ccm16"),
        28: ("CHACHA20_POLY1305", "chacha20poly1305"),
        29: ("AES_CCM_8_IIV", ""),
        30: ("AES_GCM_16_IIV", ""),
        31: ("CHACHA20_POLY1305_IIV", ""),
        32: ("KUZNYECHIK_MGM_KTREE", ""),
        33: ("MAGMA_MGM_KTREE", ""),
    },
    2: {
        1: ("HMAC_MD5", "prfmd5"),
        2: ("HMAC_SHA1", "prfsha1"),
        4: ("AES128_XCBC", "prfaesxcbc"),
        5: ("HMAC_SHA2_256", "prfsha256"),
        6: ("HMAC_SHA2_384", "prfsha384"),
        7: ("HMAC_SHA2_512", "prfsha512"),
        8: ("AES128_CMAC", "prfaescmac"),
        9: ("HMAC_STREEBOG_512", ""),
    },
    3: {
        0: ("NONE", ""),
        1: ("HMAC_MD5_96", "md5"),
        2: ("HMAC_SHA1_96", "sha1"),
        5: ("AES_XCBC_96", "aesxcbc"),
        6: ("HMAC_MD5_128", "md5_128"),
        7: ("HMAC_SHA1_160", "sha1_160"),
        8: ("AES_CMAC_96", "aescmac"),
        9: ("AES_128_GMAC", ""),
        10: ("AES_192_GMAC", ""),
        11: ("AES_256_GMAC", ""),
        12: ("HMAC_SHA2_256_128", "sha256"),
        13: ("HMAC_SHA2_384_192", "sha384"),
        14: ("HMAC_SHA2_512_256", "sha512"),
    },
    5: {0: ("SEQUENTIAL_32", "noesn"), 1: ("PARTIALLY_TRANSMITTED_64", "esn"), 2: ("UNSPECIFIED_32", "")},
}
"""By type and id: the registry's name, and strongSwan's word ({}: the key's bits; at its end where there is no {})."""

KEY_EXCHANGES: Final = {
    0: ("NONE", "none"),
    1: ("MODP_768", "modp768"),
    2: ("MODP_1024", "modp1024"),
    5: ("MODP_1536", "modp1536"),
    14: ("MODP_2048", "modp2048"),
    15: ("MODP_3072", "modp3072"),
    16: ("MODP_4096", "modp4096"),
    17: ("MODP_6144", "modp6144"),
    18: ("MODP_8192", "modp8192"),
    19: ("ECP_256", "ecp256"),
    20: ("ECP_384", "ecp384"),
    21: ("ECP_521", "ecp521"),
    22: ("MODP_1024_160", "modp1024s160"),
    23: ("MODP_2048_224", "modp2048s224"),
    24: ("MODP_2048_256", "modp2048s256"),
    25: ("ECP_192", "ecp192"),
    26: ("ECP_224", "ecp224"),
    27: ("BRAINPOOL_P224R1", "ecp224bp"),
    28: ("BRAINPOOL_P256R1", "ecp256bp"),
    29: ("BRAINPOOL_P384R1", "ecp384bp"),
    30: ("BRAINPOOL_P512R1", "ecp512bp"),
    31: ("CURVE25519", "x25519"),
    32: ("CURVE448", "x448"),
    33: ("GOST3410_2012_256", ""),
    34: ("GOST3410_2012_512", ""),
    35: ("ML_KEM_512", "mlkem512"),
    36: ("ML_KEM_768", "mlkem768"),
    37: ("ML_KEM_1024", "mlkem1024"),
}
"""Of KE and ADDKE transforms, and of KE payloads; as in TRANSFORMS."""


def name_of(number: int, table: Mapping[int, str]) -> str:
    """The registry's name, or the number itself."""
    return table.get(number, str(number))


def transform_name(kind: int, number: int) -> str:
    """The registry's name of a transform, or its number."""
    found = _transform(kind, number)
    return found[0] if found else str(number)


def transform_word(kind: int, number: int, key_bits: int | None) -> str:
    """A transform in strongSwan's spelling; where it has no word, the registry's name in brackets. Empty for NONE."""
    found = _transform(kind, number)
    if found is None:
        return f"({name_of(kind, TRANSFORM_TYPES)} {number})"
    name, word = found
    if not word:
        return "" if name == "NONE" else f"({name})"
    if "{}" in word:
        word = word.format(key_bits or "")
    elif kind == _ENCRYPTION and key_bits is not None:
        word += str(key_bits)
    return f"ke{kind - _FIRST_ADDITIONAL + 1}_{word}" if kind >= _FIRST_ADDITIONAL else word


_ENCRYPTION: Final = 1
_KEY_EXCHANGE: Final = 4
_FIRST_ADDITIONAL: Final = 6
_LAST_ADDITIONAL: Final = 12


def _transform(kind: int, number: int) -> tuple[str, str] | None:
    if kind == _KEY_EXCHANGE or _FIRST_ADDITIONAL <= kind <= _LAST_ADDITIONAL:
        return KEY_EXCHANGES.get(number)
    return TRANSFORMS.get(kind, {}).get(number)
