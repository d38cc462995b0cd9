"""Garbage in cycles is looked for seldom, and still found."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from hauberk_agent.garbage import OBJECTS_BETWEEN_LOOKS, collect_seldom


class Node:
    """Part of a cycle."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


def test_cycles_made_later_are_found_and_what_was_there_before_is_left_alone() -> None:
    early = Node()
    collect_seldom()
    assert gc.get_freeze_count() > 0
    gone_early, late = weakref.ref(early), weakref.ref(Node())
    del early
    kept: list[list[int]] = [[] for _ in range(OBJECTS_BETWEEN_LOOKS // 2)]
    assert late() is not None
    kept += [[] for _ in range(OBJECTS_BETWEEN_LOOKS)]
    assert late() is None
    assert gone_early() is not None
