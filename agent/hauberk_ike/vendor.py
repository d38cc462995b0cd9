"""What only Hauberk nodes say to each other: a Vendor ID, and the label of a CHILD SA (and `exchanges.esp_arrival`).

The notify HAUBERK_TUNNEL (40961, from the private range) is sent only to a peer whose IKE_SA_INIT message carried the
Vendor ID. In a request that creates a CHILD SA it says which of the responder's children is meant, so that two whose
selectors overlap are not mistaken for each other.
"""

import hashlib
from typing import Final

from hauberk_ike.config import MAX_LABEL_BYTES
from hauberk_ike.errors import MalformedMessage
from hauberk_ike.numbers import NotifyType
from hauberk_ike.wire.message import Contents
from hauberk_ike.wire.payloads import Notify, VendorId

HAUBERK: Final = VendorId(data=hashlib.sha256(b"hauberk/1").digest()[:16])


def is_hauberk(contents: Contents) -> bool:
    """Whether the sender of an IKE_SA_INIT message is one of ours."""
    return HAUBERK in contents.all(VendorId)


def build_label(label: str) -> Notify:
    """The notify that names a child."""
    return Notify(type=NotifyType.HAUBERK_TUNNEL, data=label.encode())


def parse_label(contents: Contents) -> str | None:
    """The label in a request, if any. Raises MalformedMessage for one that is none."""
    notify = contents.notify(NotifyType.HAUBERK_TUNNEL)
    if notify is None:
        return None
    if not 1 <= len(notify.data) <= MAX_LABEL_BYTES:
        raise MalformedMessage("a tunnel label that is empty or too long")
    try:
        return notify.data.decode()
    except UnicodeDecodeError:
        raise MalformedMessage("a tunnel label that is not UTF-8") from None
