"""The targets by name. A new one is a line here, and a function in `corpus` that makes its seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tests.fuzz import capture, endpoint, parsers

TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "capture": capture.run,
    "endpoint": endpoint.run,
    "parsers": parsers.run,
}
