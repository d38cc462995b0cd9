"""The numbers of IANA's "IKEv2 Parameters" registry that this implementation knows, by their RFC names.

Wire modules keep unknown numbers as plain integers: a number from a peer is a value to compare with, and never
an index (an unlisted one is legal and means "not supported").
"""

from enum import IntEnum


class ExchangeType(IntEnum):
    """RFC 7296 section 3.1, RFC 9242, RFC 9370."""

    IKE_SA_INIT = 34
    IKE_AUTH = 35
    CREATE_CHILD_SA = 36
    INFORMATIONAL = 37
    IKE_INTERMEDIATE = 43
    IKE_FOLLOWUP_KE = 44


class PayloadType(IntEnum):
    """RFC 7296 section 3.2; SKF of RFC 7383."""

    NONE = 0
    SA = 33
    KE = 34
    ID_I = 35
    ID_R = 36
    CERT = 37
    CERTREQ = 38
    AUTH = 39
    NONCE = 40
    NOTIFY = 41
    DELETE = 42
    VENDOR_ID = 43
    TS_I = 44
    TS_R = 45
    SK = 46
    CP = 47
    EAP = 48
    SKF = 53


class Protocol(IntEnum):
    """RFC 7296 section 3.3.1."""

    NONE = 0
    IKE = 1
    AH = 2
    ESP = 3


class TransformType(IntEnum):
    """RFC 7296 section 3.3.2; the additional key exchanges of RFC 9370."""

    ENCR = 1
    PRF = 2
    INTEG = 3
    KE = 4
    ESN = 5
    ADDKE1 = 6
    ADDKE2 = 7
    ADDKE3 = 8
    ADDKE4 = 9
    ADDKE5 = 10
    ADDKE6 = 11
    ADDKE7 = 12


class EncryptionId(IntEnum):
    """RFC 7296 section 3.3.2, RFC 5282, RFC 7634."""

    AES_CBC = 12
    AES_CCM_16 = 16
    AES_GCM_16 = 20
    CHACHA20_POLY1305 = 28


class IntegrityId(IntEnum):
    """RFC 4868. NONE goes with AEAD ciphers (RFC 5282 section 8)."""

    NONE = 0
    HMAC_SHA2_256_128 = 12
    HMAC_SHA2_384_192 = 13
    HMAC_SHA2_512_256 = 14


class PrfId(IntEnum):
    """RFC 4868."""

    HMAC_SHA2_256 = 5
    HMAC_SHA2_384 = 6
    HMAC_SHA2_512 = 7


class KeyExchangeId(IntEnum):
    """RFC 3526, RFC 5903, RFC 8031; ML-KEM by draft-ietf-ipsecme-ikev2-mlkem, with IANA's numbers."""

    NONE = 0
    MODP_2048 = 14
    MODP_3072 = 15
    MODP_4096 = 16
    ECP_256 = 19
    ECP_384 = 20
    ECP_521 = 21
    CURVE25519 = 31
    ML_KEM_512 = 35
    ML_KEM_768 = 36
    ML_KEM_1024 = 37


class EsnId(IntEnum):
    """RFC 7296 section 3.3.2."""

    NO_ESN = 0
    ESN = 1


class IdType(IntEnum):
    """RFC 7296 section 3.5."""

    IPV4_ADDR = 1
    FQDN = 2
    RFC822_ADDR = 3
    IPV6_ADDR = 5
    DER_ASN1_DN = 9
    DER_ASN1_GN = 10
    KEY_ID = 11


class CertEncoding(IntEnum):
    """RFC 7296 section 3.6. Hash-and-URL encodings are absent on purpose: no URL of a peer's is ever fetched."""

    X509_SIGNATURE = 4


class AuthMethod(IntEnum):
    """RFC 7296 section 3.8, RFC 4754, RFC 7427. Method 1 (RSA with PKCS#1 v1.5) is absent on purpose."""

    SHARED_KEY = 2
    ECDSA_SHA256_P256 = 9
    ECDSA_SHA384_P384 = 10
    ECDSA_SHA512_P521 = 11
    DIGITAL_SIGNATURE = 14


class HashAlgorithm(IntEnum):
    """RFC 7427 section 7, RFC 8420. SHA-1 (1) is absent on purpose."""

    SHA2_256 = 2
    SHA2_384 = 3
    SHA2_512 = 4
    IDENTITY = 5


class TsType(IntEnum):
    """RFC 7296 section 3.13.1."""

    IPV4_ADDR_RANGE = 7
    IPV6_ADDR_RANGE = 8


class NotifyType(IntEnum):
    """RFC 7296 section 3.10.1 and the RFCs named beside; below 16384 are errors."""

    UNSUPPORTED_CRITICAL_PAYLOAD = 1
    INVALID_IKE_SPI = 4
    INVALID_MAJOR_VERSION = 5
    INVALID_SYNTAX = 7
    INVALID_MESSAGE_ID = 9
    INVALID_SPI = 11
    NO_PROPOSAL_CHOSEN = 14
    INVALID_KE_PAYLOAD = 17
    AUTHENTICATION_FAILED = 24
    SINGLE_PAIR_REQUIRED = 34
    NO_ADDITIONAL_SAS = 35
    INTERNAL_ADDRESS_FAILURE = 36
    FAILED_CP_REQUIRED = 37
    TS_UNACCEPTABLE = 38
    INVALID_SELECTORS = 39
    UNACCEPTABLE_ADDRESSES = 40  # RFC 4555
    UNEXPECTED_NAT_DETECTED = 41  # RFC 4555
    TEMPORARY_FAILURE = 43
    CHILD_SA_NOT_FOUND = 44
    STATE_NOT_FOUND = 47  # RFC 9370

    INITIAL_CONTACT = 16384
    SET_WINDOW_SIZE = 16385
    ADDITIONAL_TS_POSSIBLE = 16386
    NAT_DETECTION_SOURCE_IP = 16388
    NAT_DETECTION_DESTINATION_IP = 16389
    COOKIE = 16390
    USE_TRANSPORT_MODE = 16391
    HTTP_CERT_LOOKUP_SUPPORTED = 16392
    REKEY_SA = 16393
    ESP_TFC_PADDING_NOT_SUPPORTED = 16394
    NON_FIRST_FRAGMENTS_ALSO = 16395
    MOBIKE_SUPPORTED = 16396  # RFC 4555, and the next six
    ADDITIONAL_IP4_ADDRESS = 16397
    ADDITIONAL_IP6_ADDRESS = 16398
    NO_ADDITIONAL_ADDRESSES = 16399
    UPDATE_SA_ADDRESSES = 16400
    COOKIE2 = 16401
    NO_NATS_ALLOWED = 16402
    MULTIPLE_AUTH_SUPPORTED = 16404  # RFC 4739
    ANOTHER_AUTH_FOLLOWS = 16405
    CHILDLESS_IKEV2_SUPPORTED = 16418  # RFC 6023
    IKEV2_FRAGMENTATION_SUPPORTED = 16430  # RFC 7383
    SIGNATURE_HASH_ALGORITHMS = 16431  # RFC 7427
    USE_PPK = 16435  # RFC 8784
    PPK_IDENTITY = 16436
    NO_PPK_AUTH = 16437
    INTERMEDIATE_EXCHANGE_SUPPORTED = 16438  # RFC 9242
    ADDITIONAL_KEY_EXCHANGE = 16441  # RFC 9370
    USE_AGGFRAG = 16442  # RFC 9347
    IKE_SA_INIT_FULL_TRANSCRIPT_AUTH = 16447  # draft-ietf-ipsecme-ikev2-downgrade-prevention
    HAUBERK_TUNNEL = 40961  # private use, with the Vendor ID of `hauberk_ike.vendor`
    HAUBERK_ESP_ARRIVED = 40962  # likewise: `hauberk_ike.exchanges.esp_arrival`
    HAUBERK_ESP_PATH = 40963  # likewise: `hauberk_ike.esp_path`
    HAUBERK_PADDING = 40964  # to anybody: `hauberk_ike.exchanges.path_probe`


FIRST_STATUS_NOTIFY = 16384
"""Notify types below are errors, types from here on are statuses (RFC 7296 section 3.10.1)."""


def notify_name(notify_type: int) -> str:
    """For messages: the RFC's name, or the number of one that we don't know."""
    try:
        return NotifyType(notify_type).name
    except ValueError:
        return f"NOTIFY_{notify_type}"
