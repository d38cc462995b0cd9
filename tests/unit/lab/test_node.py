"""How a node is told what it is, and how its kernel is started."""

from pathlib import Path

from tests.lab import addresses, containers, kernel_process, node, oci
from tests.lab.addresses import Family
from tests.lab.node import Node, NodeFiles
from tests.lab.node_init import Configuration


def test_a_node_object_has_the_pod_networks_before_kubelet_comes() -> None:
    manifest = Node.of(Family.DUAL, 12).manifest()
    assert manifest["metadata"] == {"name": "n2", "labels": {"kubernetes.io/os": "linux"}}
    assert manifest["spec"] == {"podCIDR": "10.244.12.0/24", "podCIDRs": ["10.244.12.0/24", "fd00:244:12::/64"]}


def _prepared(directory: Path, family: Family = Family.DUAL) -> tuple[NodeFiles, Configuration]:
    files = NodeFiles(lab_directory=directory, name="n2")
    node.prepare(
        Node.of(family, 12),
        files,
        family,
        kubernetes=Path("/parts/kubernetes"),
        containerd=Path("/parts/containerd"),
        token_file=directory / "token",
    )
    return files, Configuration.parse((files.directory / "configuration.json").read_text())


def test_what_a_node_is_told_survives_being_written_and_read(tmp_path: Path) -> None:
    _, configuration = _prepared(tmp_path)
    assert Configuration.parse(configuration.build()) == configuration
    assert configuration.pod_cidrs == ("10.244.12.0/24", "fd00:244:12::/64")


def test_a_node_knows_the_way_to_the_pods_of_all_others_also_of_those_to_come(tmp_path: Path) -> None:
    _, configuration = _prepared(tmp_path)
    routes = {route.destination: route.via for route in configuration.routes}
    assert routes["10.244.11.0/24"] == "10.250.0.11"
    assert routes[f"fd00:244:{addresses.LAST_NUMBER}::/64"] == f"fd00:250::{addresses.LAST_NUMBER}"
    assert "10.244.12.0/24" not in routes


def test_kubelet_tells_the_cluster_of_the_observed_bridge_only(tmp_path: Path) -> None:
    _, configuration = _prepared(tmp_path)
    assert "--node-ip=10.250.0.12,fd00:250::12" in configuration.kubelet
    assert not any(configuration.management.address in word for word in configuration.kubelet)


def test_a_kernel_is_pinned_has_a_read_only_root_and_a_disk_of_its_own(tmp_path: Path) -> None:
    files, _ = _prepared(tmp_path)
    kernel = node.kernel(
        Node.of(Family.DUAL, 12), files, binary=Path("/parts/linux"), disk=Path("/parts/images.ext4"), append="a=1 b"
    )
    argv = kernel.argv(1)
    assert argv[:4] == ["taskset", "-c", "1", "/parts/linux"]
    assert "ro" in argv
    assert "rw" not in argv
    assert f"ubd0={files.disk},/parts/images.ext4" in argv
    assert argv[-2:] == ["a=1", "b"]
    assert [word for word in argv if word.startswith("vec")] == [
        "vec0:transport=raw,ifname=n2-uml,depth=64,mac=02:25:00:00:00:0c",
        "vec1:transport=raw,ifname=n2-m-uml,depth=64,mac=02:25:01:00:00:0c",
    ]


def test_kernels_are_spread_over_the_cpus_that_we_may_use() -> None:
    chosen = [kernel_process.cpu_for(number) for number in range(200)]
    assert len(set(chosen)) == len(set(chosen[: len(set(chosen))]))
    assert chosen[0] == chosen[len(set(chosen))]


def test_nodes_cannot_see_what_something_of_their_own_covers() -> None:
    assert kernel_process.is_hidden(Path("/opt/hostedtoolcache/python"))
    assert kernel_process.is_hidden(Path("/var/lib/cache"))
    assert not kernel_process.is_hidden(Path("/optional/python"))
    assert not kernel_process.is_hidden(Path("/usr/bin/python3"))


def test_the_pause_image_is_one_and_the_same_each_time(tmp_path: Path) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"\x7fELF")
    oci.write_sleeper(busybox, tmp_path / "one.tar")
    oci.write_sleeper(busybox, tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_pods_run_on_the_pause_image_that_the_disk_has() -> None:
    assert oci.PAUSE_IMAGE in containers.containerd_configuration()
