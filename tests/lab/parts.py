"""The parts that a lab is made of, once they are built. Made by `build`, remembered by `state`, used by `cluster`."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Where the parts lie."""

    kernel: Path  # the kernel's binary
    kubernetes: Path  # a directory: kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy
    containerd: Path  # a directory: containerd, containerd-shim-runc-v2, ctr
    kubectl: Path
    helm: Path

    @classmethod
    def parse(cls, content: Mapping[str, str]) -> "Parts":
        """Reads what `build` made."""
        return cls(**{part.name: Path(content[part.name]) for part in fields(cls)})

    def build(self) -> dict[str, str]:
        """As JSON has it."""
        return {part.name: str(getattr(self, part.name)) for part in fields(self)}
