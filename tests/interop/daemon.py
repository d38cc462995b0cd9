"""What a case asks of a foreign daemon, whichever it is. The drivers are `strongswan`, `libreswan` and `openiked`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from tests.interop.bed import Gateway
from tests.interop.chroot import Chroot
from tests.interop.credentials import Identity
from tests.interop.terms import Terms


class Daemon(ABC):
    """One daemon on a gateway. Every deed raises AssertionError, with what the daemon said, when it fails."""

    sends_at_once = False
    """Whether as a rekey's responder it sends on the new CHILD SA when its answer is out: we may not have it yet."""
    is_hasty = False
    """Whether it answers before its kernel has a new CHILD SA, and deletes an old one without waiting for an answer."""

    def __init__(self, tree: Path, here: Gateway, there: Gateway) -> None:
        self.here, self.there = here, there
        self.root = Chroot(tree, here.name)

    @abstractmethod
    def start(self, terms: Terms, here: Identity, there: Identity) -> None:
        """Starts it, with one connection to the other gateway configured and nothing initiated."""

    @abstractmethod
    def initiate(self) -> None:
        """Sets up the IKE SA and the CHILD SA; returns when they are up."""

    def reauthenticate(self) -> None:
        """Sets up another IKE SA with all that the old one has, or will have done so when its time is over."""
        raise AssertionError(f"{type(self).__name__} is told to reauthenticate in no case")

    def come_back(self) -> None:
        """Starts it again after it was killed, and initiates."""
        raise AssertionError(f"{type(self).__name__} is not brought back in any case")

    def relent(self) -> None:  # noqa: B027 - most have nothing to take back
        """Takes back what `initiate` asked for, if the daemon keeps at it when its peer has ended the tunnel."""

    @abstractmethod
    def rekey_child(self) -> None: ...

    @abstractmethod
    def rekey_ike(self) -> None: ...

    @abstractmethod
    def delete_child(self) -> None: ...

    @abstractmethod
    def delete_ike(self) -> None: ...

    @abstractmethod
    def log(self) -> str:
        """What it said so far."""

    @abstractmethod
    def signal(self, number: int) -> None:
        """Sends a signal to the process that speaks IKE."""

    def remove(self) -> None:
        """Ends it, without a word to its peer, and takes its root away."""
        self.root.remove()
