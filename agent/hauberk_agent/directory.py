"""A directory as the source: for a plain host, and for trying the agent without a cluster.

The directory holds the YAML (or JSON) objects that the API server would hold, one or more a file:

    *.yaml            an IPsecMesh (its status.plan is followed) and the IPsecNodes
    tls.key, tls.crt  this node's key and certificate (PEM), made by whoever keeps the mesh's CA

The trust bundle is the plan's. Changes are noticed within a second; replace files by renaming.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final, cast

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from hauberk_agent.desired import Desired
from hauberk_agent.identity import Identity
from hauberk_agent.statefile import write_atomically
from hauberk_api.kinds import MESH_KIND, NODE_KIND
from hauberk_api.names import NodeName
from hauberk_api.node import NodeSpec
from hauberk_api.plan import Plan
from hauberk_api.report import ReportStatus

_log = logging.getLogger("hauberk.directory")
_IDENTITY_FILES: Final = ("tls.key", "tls.crt")
_Stamp = tuple[tuple[str, int, int], ...]


class DirectoryError(ValueError):
    """A file of the directory can't be used; the message names it and says why."""


class DirectorySource:
    """Implements hauberk_agent.source.Source."""

    def __init__(self, path: Path, own_name: NodeName, *, poll_seconds: float = 0.5) -> None:
        self._path = path
        self._own_name = own_name
        self._poll_seconds = poll_seconds
        self._problem: str | None = None
        self._latest: Desired | None = None
        self._changed = asyncio.Event()

    @property
    def problem(self) -> str | None:
        return self._problem

    async def run(self) -> None:
        """Looks at the files every so often. A directory that can't be used keeps the last snapshot."""
        seen: _Stamp | None = None
        while True:
            stamp = self._stamp()
            if stamp != seen:
                seen = stamp
                try:
                    self._latest = read_desired(self._path, self._own_name)
                except DirectoryError as error:
                    self._problem = str(error)
                    _log.error("%s; keeping what was there before", error)
                else:
                    self._problem = None
                    self._changed.set()
            await asyncio.sleep(self._poll_seconds)

    async def snapshots(self) -> AsyncIterator[Desired]:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._latest is not None:
                yield self._latest

    def _stamp(self) -> _Stamp:
        """What changes when a file does."""
        found: list[tuple[str, int, int]] = []
        for path in (*_object_files(self._path), *(self._path / name for name in _IDENTITY_FILES)):
            try:
                status = path.stat()
            except OSError:
                continue
            found.append((path.name, status.st_mtime_ns, status.st_ino))
        return tuple(found)


class FileReporter:
    """Implements hauberk_agent.source.Reporter: the report is a file beside the agent's state."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def write(self, status: ReportStatus) -> None:
        write_atomically(self._path, status.model_dump_json(by_alias=True, exclude_none=True).encode())

    async def read(self, node: NodeName) -> ReportStatus | None:
        """Nobody sees others' reports here."""
        return None


def read_desired(directory: Path, own_name: NodeName) -> Desired:
    """The snapshot that the directory's objects make. Raises DirectoryError."""
    plan: Plan | None = None
    nodes: dict[NodeName, NodeSpec] = {}
    for path, document in _objects(directory):
        try:
            name = document["metadata"]["name"]
            if document["kind"] == MESH_KIND and document.get("status", {}).get("plan") is not None:
                plan = Plan.from_object(document["status"]["plan"])
            elif document["kind"] == NODE_KIND:
                nodes[NodeName(name)] = NodeSpec.from_object(document["spec"])
        except (KeyError, TypeError, ValidationError) as error:
            raise DirectoryError(f"{path}: {error}") from error
    return Desired(own_name=own_name, plan=plan, nodes=nodes)


def read_identity(directory: Path) -> Identity:
    """This node's key and certificate. Raises DirectoryError."""
    key_path, certificate_path = directory / "tls.key", directory / "tls.crt"
    try:
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        chain = x509.load_pem_x509_certificates(certificate_path.read_bytes())
    except OSError as error:
        raise DirectoryError(f"{error.filename}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise DirectoryError(f"{key_path} or {certificate_path} is no PEM key or certificate: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DirectoryError(f"{key_path}: keys are P-256 or P-384")
    if chain[0].public_key() != key.public_key():
        raise DirectoryError(f"{certificate_path} is not the certificate of {key_path}")
    return Identity(key=key, chain=tuple(chain))


def _object_files(directory: Path) -> list[Path]:
    return sorted(path for suffix in ("*.yaml", "*.yml", "*.json") for path in directory.glob(suffix))


def _objects(directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    if not directory.is_dir():
        raise DirectoryError(f"{directory} is no directory")
    for path in _object_files(directory):
        try:
            documents = list(yaml.safe_load_all(path.read_bytes()))
        except OSError as error:
            raise DirectoryError(f"{path}: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise DirectoryError(f"{path} is no YAML: {error}") from error
        for document in documents:
            if document is None:
                continue
            if not isinstance(document, dict):
                raise DirectoryError(f"{path}: not an object")
            yield path, cast("dict[str, Any]", document)
