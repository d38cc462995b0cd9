"""What is in a chain of payloads, field by field: plain values for JSON, and for `hauberk_diagnose.listing` to print.

Every payload is a dictionary with `payload` (its name), `bytes` (its whole length) and its fields. What does not follow
the RFCs has a `problem` and its bytes as `hex` instead: the sender may be anybody, and the reader wants to know.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from hauberk_diagnose import names
from hauberk_ike import Identity, SocketAddress, vendor
from hauberk_ike.errors import ExchangeRefused, MalformedMessage
from hauberk_ike.nat import detection_data
from hauberk_ike.numbers import FIRST_STATUS_NOTIFY, AuthMethod, CertEncoding, NotifyType, PayloadType
from hauberk_ike.wire.header import Header
from hauberk_ike.wire.message import FLAG_CRITICAL, GENERIC
from hauberk_ike.wire.payloads import (
    Authentication,
    CertificatePayload,
    CertificateRequest,
    Delete,
    IdInitiator,
    KeyExchangePayload,
    Nonce,
    Notify,
)
from hauberk_ike.wire.security_association import Proposal, SecurityAssociation
from hauberk_ike.wire.traffic_selectors import LIST, SELECTOR, parse_selector

Fields = dict[str, Any]

MAX_PAYLOADS: Final = 256
_SHA1_BYTES: Final = 20

# Vendor IDs that say who speaks: MD5 of a text, or the text itself.
_VENDORS: Final = {
    vendor.HAUBERK.data: "Hauberk",
    **{hashlib.md5(name.encode(), usedforsecurity=False).digest(): name for name in ("strongSwan", "OpenIKED")},
}


class _Other(IntEnum):
    """Notify types with data that can be read, beside those of hauberk_ike.numbers."""

    ADDITIONAL_IP4_ADDRESS = 16397  # RFC 4555
    ADDITIONAL_IP6_ADDRESS = 16398
    AUTH_LIFETIME = 16403  # RFC 4478


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where a message was seen: NAT detection is about that."""

    header: Header
    source: SocketAddress
    destination: SocketAddress


def describe_payloads(first: int, data: bytes, offset: int, setting: Setting) -> list[Fields]:
    """The chain of payloads that begins at `offset` with one of type `first`, up to the first that can't be."""
    found: list[Fields] = []
    kind, end = first, len(data)
    while kind and len(found) < MAX_PAYLOADS:
        fields: Fields = {"payload": names.name_of(kind, names.PAYLOADS)}
        found.append(fields)
        if end - offset < GENERIC.size:
            fields["problem"] = "announced, but the message ends before it"
            return found
        following, flags, length = GENERIC.unpack_from(data, offset)
        fields["bytes"] = length
        if flags & FLAG_CRITICAL:
            fields["critical"] = True
        if length < GENERIC.size or length > end - offset:
            fields["problem"] = f"its length does not fit: {end - offset} bytes are left"
            fields["hex"] = data[offset + GENERIC.size :].hex()
            return found
        body = data[offset + GENERIC.size : offset + length]
        if kind in (PayloadType.SK, PayloadType.SKF):
            # Whoever has keys describes what is inside; it is the last payload, and its "next" is the first inside.
            fields["first_inside"] = names.name_of(following, names.PAYLOADS) if following else "nothing"
            return found
        try:
            fields.update(_describe(kind, body, setting))
        except MalformedMessage as error:
            fields["problem"] = str(error)
            fields["hex"] = body.hex()
        kind, offset = following, offset + length
    if kind:
        found[-1]["problem"] = f"more than {MAX_PAYLOADS} payloads"
    elif offset != end:
        found.append({"payload": "none", "problem": "bytes after the last payload", "hex": data[offset:].hex()})
    return found


def _describe(kind: int, body: bytes, setting: Setting) -> Fields:
    describer = _DESCRIBERS.get(kind)
    return describer(body, setting) if describer is not None else {"hex": body.hex()}


def _security_association(body: bytes, setting: Setting) -> Fields:
    return {"proposals": [_proposal(proposal) for proposal in SecurityAssociation.parse(body).proposals]}


def _proposal(proposal: Proposal) -> Fields:
    # In the order in which strongSwan writes proposals: encryption, integrity, PRF, key exchanges, ESN.
    order = {1: 0, 3: 1, 2: 2, 4: 3, 5: 99}
    words = [
        names.transform_word(transform.type, transform.id, transform.key_bits)
        for transform in sorted(proposal.transforms, key=lambda transform: order.get(transform.type, transform.type))
    ]
    return {
        "number": proposal.number,
        "protocol": names.name_of(proposal.protocol, names.PROTOCOLS),
        "spi": proposal.spi.hex(),
        "proposal": "-".join(word for word in words if word),
        "transforms": [
            {
                "type": names.name_of(transform.type, names.TRANSFORM_TYPES),
                "id": transform.id,
                "name": names.transform_name(transform.type, transform.id),
                **({"key_bits": transform.key_bits} if transform.key_bits is not None else {}),
                **({"problem": "an unknown attribute"} if transform.unsupported else {}),
            }
            for transform in proposal.transforms
        ],
    }


def _key_exchange(body: bytes, setting: Setting) -> Fields:
    payload = KeyExchangePayload.parse(body)
    return {
        "method": payload.method,
        "name": names.transform_name(_KE, payload.method),
        "public_bytes": len(payload.data),
        "hex": payload.data.hex(),
    }


def _identification(body: bytes, setting: Setting) -> Fields:
    payload = IdInitiator.parse(body)
    fields: Fields = {"type": names.name_of(payload.id_type, names.ID_TYPES)}
    try:
        fields["identity"] = str(Identity.from_payload(payload))
    except ExchangeRefused as error:
        fields["problem"] = str(error)
        fields["hex"] = payload.data.hex()
    return fields


def _certificate(body: bytes, setting: Setting) -> Fields:
    payload = CertificatePayload.parse(body)
    fields: Fields = {"encoding": names.name_of(payload.encoding, names.CERTIFICATE_ENCODINGS)}
    if payload.encoding == CertEncoding.X509_SIGNATURE:
        fields.update(_x509(payload.data))
    elif payload.encoding in _HASH_AND_URL and len(payload.data) > _SHA1_BYTES:
        fields["hash"] = payload.data[:_SHA1_BYTES].hex()
        fields["url"] = _text(payload.data[_SHA1_BYTES:])
    else:
        fields["hex"] = payload.data.hex()
    return fields


def _x509(der: bytes) -> Fields:
    """A certificate's fields, each for itself: one that can't be read does not hide the others."""
    with warnings.catch_warnings():
        # For what a later version of the library will refuse (serial numbers below 1): the sender's affair.
        warnings.simplefilter("ignore")
        try:
            return _x509_fields(x509.load_der_x509_certificate(der)) | {"hex": der.hex()}
        except _UNREADABLE:
            return {"problem": "no X.509 certificate", "hex": der.hex()}


def _x509_fields(certificate: x509.Certificate) -> Fields:
    fields: Fields = {}
    readers: dict[str, Callable[[], Any]] = {
        "subject": lambda: _line(certificate.subject.rfc4514_string()),
        "issuer": lambda: _line(certificate.issuer.rfc4514_string()),
        "serial": lambda: f"{certificate.serial_number:x}",
        "not_before": lambda: certificate.not_valid_before_utc.isoformat(),
        "not_after": lambda: certificate.not_valid_after_utc.isoformat(),
        "key": lambda: _key(certificate),
        "names": lambda: [
            _line(str(name.value))
            for name in certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        ],
    }
    for name, read in readers.items():
        try:
            fields[name] = read()
        except x509.ExtensionNotFound:
            continue
        except _UNREADABLE as error:
            fields[name] = f"unreadable ({type(error).__name__})"
    return fields


def _key(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    match key:
        case ec.EllipticCurvePublicKey():
            return f"EC {key.curve.name}"
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case _:
            return type(key).__name__.removesuffix("PublicKey").strip("_")


def _certificate_request(body: bytes, setting: Setting) -> Fields:
    payload = CertificateRequest.parse(body)
    data = payload.authorities
    fields: Fields = {"encoding": names.name_of(payload.encoding, names.CERTIFICATE_ENCODINGS)}
    if payload.encoding == CertEncoding.X509_SIGNATURE and len(data) % _SHA1_BYTES == 0:
        fields["authorities"] = [data[at : at + _SHA1_BYTES].hex() for at in range(0, len(data), _SHA1_BYTES)]
    else:
        fields["hex"] = data.hex()
    return fields


def _authentication(body: bytes, setting: Setting) -> Fields:
    payload = Authentication.parse(body)
    fields: Fields = {"method": names.name_of(payload.method, names.AUTHENTICATION_METHODS)}
    data = payload.data
    if payload.method == AuthMethod.DIGITAL_SIGNATURE and len(data) > data[0]:
        identifier, data = data[1 : 1 + data[0]], data[1 + data[0] :]
        fields["algorithm"] = _signature_name(identifier.hex())
    fields["hex"] = data.hex()
    return fields


def _signature_name(identifier: str) -> str:
    """By its DER AlgorithmIdentifier in hexadecimal; of RSASSA-PSS, whose parameters vary, by the hash in there."""
    if _RSASSA_PSS in identifier:
        hashes = [name for oid, name in _PSS_HASHES.items() if oid in identifier]
        return f"RSASSA-PSS with {' and '.join(hashes) or 'SHA-1'}"
    return _SIGNATURES.get(identifier, identifier)


def _nonce(body: bytes, setting: Setting) -> Fields:
    return {"hex": Nonce.parse(body).data.hex()}


def _notify(body: bytes, setting: Setting) -> Fields:
    payload = Notify.parse(body)
    fields: Fields = {
        "notify": names.name_of(payload.type, names.NOTIFIES),
        "type": payload.type,
        "error": payload.type < FIRST_STATUS_NOTIFY,
    }
    if payload.protocol:
        fields["protocol"] = names.name_of(payload.protocol, names.PROTOCOLS)
    if payload.spi:
        fields["spi"] = payload.spi.hex()
    data = payload.data
    match payload.type:
        case NotifyType.NAT_DETECTION_SOURCE_IP | NotifyType.NAT_DETECTION_DESTINATION_IP:
            is_source = payload.type == NotifyType.NAT_DETECTION_SOURCE_IP
            seen = setting.source if is_source else setting.destination
            expected = detection_data(setting.header.spi_i, setting.header.spi_r, seen)
            fields["address"] = f"{seen}" if data == expected else f"not {seen}"
        case NotifyType.SIGNATURE_HASH_ALGORITHMS if len(data) % 2 == 0:
            fields["hashes"] = [
                names.name_of(int.from_bytes(data[at : at + 2]), names.HASH_ALGORITHMS) for at in range(0, len(data), 2)
            ]
        case NotifyType.INVALID_KE_PAYLOAD if len(data) == 2:
            fields["method"] = names.transform_name(_KE, int.from_bytes(data))
        case NotifyType.SET_WINDOW_SIZE | _Other.AUTH_LIFETIME if len(data) == 4:
            fields["value"] = int.from_bytes(data)
        case NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD if len(data) == 1:
            fields["unsupported"] = names.name_of(data[0], names.PAYLOADS)
        case _Other.ADDITIONAL_IP4_ADDRESS if len(data) == 4:
            fields["address"] = str(IPv4Address(data))
        case _Other.ADDITIONAL_IP6_ADDRESS if len(data) == 16:
            fields["address"] = str(IPv6Address(data))
        case NotifyType.HAUBERK_TUNNEL:
            fields["label"] = _text(data)
        case _:
            pass
    if data:
        fields["hex"] = data.hex()
    return fields


def _delete(body: bytes, setting: Setting) -> Fields:
    payload = Delete.parse(body)
    return {
        "protocol": names.name_of(payload.protocol, names.PROTOCOLS),
        "spis": [spi.hex() for spi in payload.spis],
    }


def _vendor_id(body: bytes, setting: Setting) -> Fields:
    fields: Fields = {"hex": body.hex()}
    known = _VENDORS.get(body)
    if known is not None:
        fields["vendor"] = known
    elif body and all(0x20 <= byte < 0x7F for byte in body):
        fields["text"] = _text(body)
    return fields


def _traffic_selectors(body: bytes, setting: Setting) -> Fields:
    """Here, not by TrafficSelectors.parse: selectors of types that nobody knows are to be shown."""
    if len(body) < LIST.size:
        raise MalformedMessage("a traffic selector payload is cut off")
    (count,) = LIST.unpack_from(body)
    selectors: list[str] = []
    offset = LIST.size
    while offset < len(body):
        if len(body) - offset < SELECTOR.size:
            raise MalformedMessage("a traffic selector is cut off")
        kind, protocol, length, start_port, end_port = SELECTOR.unpack_from(body, offset)
        if length < SELECTOR.size or length > len(body) - offset:
            raise MalformedMessage("a traffic selector's length does not fit its payload")
        rest = body[offset + SELECTOR.size : offset + length]
        selector = parse_selector(kind, protocol, start_port, end_port, rest)
        selectors.append(str(selector) if selector is not None else f"(type {kind}) {rest.hex()}")
        offset += length
    fields: Fields = {"selectors": selectors}
    if len(selectors) != count:
        fields["problem"] = f"it says that it has {count} selectors"
    return fields


def _configuration(body: bytes, setting: Setting) -> Fields:
    """RFC 7296 section 3.15: a type, then attributes of type and length (the highest bit is reserved)."""
    if len(body) < 4:
        raise MalformedMessage("a configuration payload is cut off")
    attributes: list[Fields] = []
    offset = 4
    while offset < len(body):
        kind = int.from_bytes(body[offset : offset + 2]) & 0x7FFF
        length = int.from_bytes(body[offset + 2 : offset + 4])
        if offset + 4 + length > len(body):
            raise MalformedMessage("a configuration attribute is cut off")
        value = body[offset + 4 : offset + 4 + length]
        attributes.append(
            {"attribute": names.name_of(kind, names.CONFIGURATION_ATTRIBUTES), "value": _configured(kind, value)}
        )
        offset += 4 + length
    return {"type": names.name_of(body[0], names.CONFIGURATION_TYPES), "attributes": attributes}


def _configured(kind: int, value: bytes) -> str:
    name = names.CONFIGURATION_ATTRIBUTES.get(kind, "")
    if "IP4" in name and len(value) == 4:
        return str(IPv4Address(value))
    if "IP4_SUBNET" in name and len(value) == 8:
        return f"{IPv4Address(value[:4])}/{IPv4Address(value[4:])}"
    if "IP6" in name and len(value) in (16, 17):
        return str(IPv6Address(value[:16])) + (f"/{value[16]}" if len(value) == 17 else "")
    if name in ("APPLICATION_VERSION", "INTERNAL_DNS_DOMAIN"):
        return _text(value)
    return value.hex()


def _eap(body: bytes, setting: Setting) -> Fields:
    """RFC 3748 section 4: code, identifier, length."""
    if len(body) < 4:
        raise MalformedMessage("an EAP message is cut off")
    codes = {1: "Request", 2: "Response", 3: "Success", 4: "Failure"}
    return {"code": codes.get(body[0], str(body[0])), "identifier": body[1], "hex": body[4:].hex()}


def _line(text: str) -> str:
    """Anybody's text as one line: what does not print is escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def _text(data: bytes) -> str:
    """Anybody's bytes as one line: what is not printable ASCII is escaped."""
    return data.decode("ascii", errors="backslashreplace").encode("unicode_escape").decode("ascii")


_KE: Final = 4
# What the library raises for certificates that parse, but hold what it does not take.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_HASH_AND_URL: Final = frozenset({12, 13})

# Object identifiers of RFC 8017 appendix A.2.3 and of the hashes in its parameters.
_RSASSA_PSS: Final = "06092a864886f70d01010a"
_PSS_HASHES: Final = {
    "0609608648016503040201": "SHA2_256",
    "0609608648016503040202": "SHA2_384",
    "0609608648016503040203": "SHA2_512",
}
# DER AlgorithmIdentifiers of RFC 7427 appendix A, and of RFC 9881 for ML-DSA.
_SIGNATURES: Final = {
    "300d06092a864886f70d01010b0500": "sha256WithRSAEncryption",
    "300d06092a864886f70d01010c0500": "sha384WithRSAEncryption",
    "300d06092a864886f70d01010d0500": "sha512WithRSAEncryption",
    "300d06092a864886f70d0101050500": "sha1WithRSAEncryption",
    "300a06082a8648ce3d040302": "ecdsa-with-sha256",
    "300a06082a8648ce3d040303": "ecdsa-with-sha384",
    "300a06082a8648ce3d040304": "ecdsa-with-sha512",
    "300506032b6570": "Ed25519",
    "300506032b6571": "Ed448",
    "300b0609608648016503040311": "ML-DSA-44",
    "300b0609608648016503040312": "ML-DSA-65",
    "300b0609608648016503040313": "ML-DSA-87",
}

_DESCRIBERS: Final[dict[int, Callable[[bytes, Setting], Fields]]] = {
    PayloadType.SA: _security_association,
    PayloadType.KE: _key_exchange,
    PayloadType.ID_I: _identification,
    PayloadType.ID_R: _identification,
    PayloadType.CERT: _certificate,
    PayloadType.CERTREQ: _certificate_request,
    PayloadType.AUTH: _authentication,
    PayloadType.NONCE: _nonce,
    PayloadType.NOTIFY: _notify,
    PayloadType.DELETE: _delete,
    PayloadType.VENDOR_ID: _vendor_id,
    PayloadType.TS_I: _traffic_selectors,
    PayloadType.TS_R: _traffic_selectors,
    PayloadType.CP: _configuration,
    PayloadType.EAP: _eap,
}
