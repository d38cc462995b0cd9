"""Whether ESP passes between two nodes without UDP around it, as one of them has found out and tells the other.

The notify HAUBERK_ESP_PATH (40963, from the private range) goes with an IKE_AUTH request, and only to a peer with our
Vendor ID: one byte, 0 for blocked and 1 for passes. So both ends go by the same, whoever has found it out, and know
encapsulation that is for this from a NAT's.
"""

from enum import Enum
from typing import Final

from hauberk_ike.errors import MalformedMessage
from hauberk_ike.numbers import NotifyType
from hauberk_ike.wire.message import Contents
from hauberk_ike.wire.payloads import Notify


class EspPath(Enum):
    """What is known of a pair's path."""

    UNKNOWN = "unknown"
    BLOCKED = "blocked"
    """IKE passes and ESP (IP protocol 50) does not: ESP goes in UDP."""
    PASSES = "passes"
    """ESP was blocked, and passes now."""


_DATA: Final = {EspPath.BLOCKED: b"\0", EspPath.PASSES: b"\1"}
_MEANING: Final = {data: path for path, data in _DATA.items()}


def build_esp_path(path: EspPath) -> tuple[Notify, ...]:
    """The notify, if there is anything to tell."""
    return () if path is EspPath.UNKNOWN else (Notify(type=NotifyType.HAUBERK_ESP_PATH, data=_DATA[path]),)


def parse_esp_path(contents: Contents) -> EspPath:
    """What a request tells. Raises MalformedMessage for something without meaning."""
    notify = contents.notify(NotifyType.HAUBERK_ESP_PATH)
    if notify is None:
        return EspPath.UNKNOWN
    path = _MEANING.get(notify.data)
    if path is None:
        raise MalformedMessage("a word about ESP's path that has no meaning")
    return path
