"""The last snapshot, on disk: so that a node that boots while nobody is there to ask goes on as before.

The file is one JSON object: the own node's name, the plan, and each known node's spec.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from hauberk_agent.desired import Desired
from hauberk_agent.mount import MOUNTS, outlives_boot
from hauberk_agent.statefile import read_if_present, write_atomically
from hauberk_api.names import NodeName
from hauberk_api.node import NodeSpec
from hauberk_api.plan import Plan

_log = logging.getLogger("hauberk.cache")


class DesiredCache:
    """Loads and saves one snapshot."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._holds = False

    @property
    def lasting(self) -> bool:
        """Whether a plan is there that the next agent can follow, after a reboot of the node too."""
        if not self._holds:
            return False
        try:
            return outlives_boot(self._path.parent.resolve(), MOUNTS.read_text())
        except OSError as error:
            _log.warning("where the plan is cached can't be found out: %s", error)
            return False

    def load(self, own_name: NodeName) -> Desired | None:
        """The saved snapshot, if there is one, it can be read and it is this node's. Raises OSError."""
        data = read_if_present(self._path)
        if data is None:
            return None
        try:
            parsed = cast("dict[str, object]", json.loads(data))
            if parsed["ownName"] != own_name:
                return None
            nodes = cast("dict[str, object]", parsed["nodes"])
            desired = Desired(
                own_name=own_name,
                plan=Plan.from_object(parsed["plan"]),
                nodes={NodeName(name): NodeSpec.from_object(spec) for name, spec in nodes.items()},
            )
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            _log.warning("%s can't be understood and is ignored: %s", self._path, error)
            return None
        self._holds = True
        return desired

    def save(self, desired: Desired) -> None:
        """Saves a snapshot that has a plan; another one is not worth remembering. Raises OSError."""
        if desired.plan is None:
            return
        content = {
            "ownName": desired.own_name,
            "plan": desired.plan.to_object(),
            "nodes": {name: spec.to_object() for name, spec in desired.nodes.items()},
        }
        write_atomically(self._path, json.dumps(content, separators=(",", ":")).encode())
        self._holds = True
