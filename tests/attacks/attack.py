"""An attack on the mesh's identities: what is tried, and what refuses it. The table of them is in `table`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

Ground = TypeVar("Ground")


class NotRefused(AssertionError):  # noqa: N818 (it reads as what happened)
    """The attack got what it was after, or was stopped by something else than what is said to stop it."""


class Against(StrEnum):
    """What an attack is tried against."""

    API_SERVER = "the API server and the operator"
    AGENT = "the agents"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack(Generic[Ground]):
    """One line of the table. Sentences are without a full stop, as in a table for people.

    attempt tries it on its ground, for real. It returns what was answered, and leaves the ground as it found it. Raises
    NotRefused.
    """

    tried: str
    refused_by: str
    attempt: Callable[[Ground], str]

    @property
    def name(self) -> str:
        return self.attempt.__name__


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of an attack. said: what refused it, or what went wrong."""

    name: str
    tried: str
    refused: bool
    said: str
