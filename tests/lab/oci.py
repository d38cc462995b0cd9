"""OCI image archives, as far as the lab makes them itself: one layer with one static program.

The sandbox ("pause") container of every pod needs an image, and there is no registry: busybox's `sleep` is one. Called
by `disk`. Format: OCI image-spec v1.1 (image-layout.md, manifest.md, config.md).
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path

PAUSE_IMAGE = "localhost/pause:lab"

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


def write_sleeper(busybox: Path, archive: Path, name: str = PAUSE_IMAGE) -> None:
    """Writes an image that sleeps; the same busybox and name give the same bytes."""
    layer = _tar({"bin/busybox": (busybox.read_bytes(), 0o755)})
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/bin/busybox", "sleep", "inf"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [_descriptor(_LAYER, layer)],
        }
    )
    # containerd reads an image's name from its own annotation, others read the OCI one.
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    index = _json({"schemaVersion": 2, "manifests": [_descriptor(_MANIFEST, manifest) | {"annotations": names}]})
    blobs = {_blob_path(blob): (blob, 0o644) for blob in (layer, config, manifest)}
    layout = _json({"imageLayoutVersion": "1.0.0"})
    archive.write_bytes(_tar({"oci-layout": (layout, 0o644), "index.json": (index, 0o644)} | blobs))


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (content, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _blob_path(blob: bytes) -> str:
    return f"blobs/{_digest(blob).replace(':', '/')}"


def _descriptor(media_type: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}
