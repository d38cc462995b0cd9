"""The directory as the source, and the cache of the last snapshot."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from hauberk_agent.cache import DesiredCache
from hauberk_agent.desired import Desired
from hauberk_agent.directory import DirectoryError, DirectorySource, read_desired, read_identity
from hauberk_api.kinds import API_VERSION
from hauberk_api.names import NodeName
from tests.unit.agent.mesh import desired, node, plan, tunnel
from tests.unit.ike.authority import Authority

OWN = NodeName("n1")


def write_mesh(directory: Path, *numbers: int) -> None:
    """The objects of a mesh of these nodes; files are replaced by renaming."""
    the_plan = plan(tunnel(), trust_bundle="bundle")
    mesh = {
        "apiVersion": API_VERSION,
        "kind": "IPsecMesh",
        "metadata": {"name": "default"},
        "status": {"plan": the_plan.to_object()},
    }
    nodes = [
        {"apiVersion": API_VERSION, "kind": "IPsecNode", "metadata": {"name": f"n{n}"}, "spec": node(n).to_object()}
        for n in numbers
    ]
    (directory / "mesh.json").write_text(json.dumps(mesh))
    new = directory / "nodes.new"
    new.write_text("\n---\n".join(json.dumps(item) for item in nodes))
    new.rename(directory / "nodes.yaml")


def test_the_objects_make_a_snapshot(tmp_path: Path) -> None:
    write_mesh(tmp_path, 1, 2)
    expected = desired("n1", plan(tunnel(), trust_bundle="bundle"), n1=node(1), n2=node(2))
    assert read_desired(tmp_path, OWN) == expected


def test_each_change_is_a_snapshot_and_a_broken_file_keeps_the_last(tmp_path: Path) -> None:
    async def story() -> list[int]:
        write_mesh(tmp_path, 1)
        source = DirectorySource(tmp_path, OWN, poll_seconds=0.01)
        task = asyncio.create_task(source.run())
        sizes: list[int] = []
        try:
            async with asyncio.timeout(10):
                async for snapshot in source.snapshots():
                    sizes.append(len(snapshot.nodes))
                    if len(sizes) == 1:
                        (tmp_path / "broken.yaml").write_text("kind: [")
                        while source.problem is None:  # noqa: ASYNC110 - polled, as the directory is
                            await asyncio.sleep(0.01)
                        assert "broken.yaml" in source.problem
                        (tmp_path / "broken.yaml").unlink()
                        write_mesh(tmp_path, 1, 2)
                    elif sizes[-1] == 2:
                        assert source.problem is None
                        return sizes
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        raise AssertionError("the stream ended")

    assert asyncio.run(story())[-1] == 2


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("[]", "not an object"),
        ("kind: IPsecNode", "metadata"),
        ("{kind: IPsecNode, metadata: {name: x}, spec: {}}", "addresses"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: str, word: str) -> None:
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(DirectoryError, match=word) as raised:
        read_desired(tmp_path, OWN)
    assert "bad.yaml" in str(raised.value)


def test_key_and_certificate_must_belong_together(tmp_path: Path) -> None:
    authority = Authority()
    key, certificate = authority.issue("uid-1.default.hauberk.internal", "n1")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with pytest.raises(DirectoryError, match="key"):
        read_identity(tmp_path)
    (tmp_path / "tls.key").write_bytes(pem)
    (tmp_path / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    assert read_identity(tmp_path).certificate == certificate
    _, other = authority.issue("uid-1.default.hauberk.internal", "n1")
    (tmp_path / "tls.crt").write_bytes(other.public_bytes(serialization.Encoding.PEM))
    with pytest.raises(DirectoryError, match="is not the certificate of"):
        read_identity(tmp_path)


def test_the_cache_gives_back_what_was_saved(tmp_path: Path) -> None:
    cache = DesiredCache(tmp_path / "state" / "desired.json")
    assert cache.load(OWN) is None
    snapshot = desired("n1", plan(tunnel(), trust_bundle="bundle"), n1=node(1), n2=node(2))
    cache.save(snapshot)
    assert cache.load(OWN) == snapshot
    assert cache.load(NodeName("n2")) is None, "another node's"
    cache.save(Desired(own_name=OWN, plan=None))
    assert cache.load(OWN) == snapshot, "no plan is not worth remembering"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"ownName": "n1", "nodes": 3, "plan": {}}'])
def test_a_damaged_cache_counts_as_none(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "desired.json").write_bytes(damage)
    assert DesiredCache(tmp_path / "desired.json").load(OWN) is None
