"""How pods' packets travel, by the node's devices, and which tunnels that does not suit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hauberk_agent.datapath import find_datapath, misfits, without_blocks
from hauberk_agent.policy import desired_policies
from hauberk_api.report import DatapathKind, DatapathReport
from hauberk_api.tunnel import Traffic
from hauberk_xfrm import Action, NetworkDevice, ReqId
from tests.unit.agent.mesh import HOST, POD_NETWORK, VXLAN, node, plan, roster, tunnel

ETH0, POD = NetworkDevice(name="eth0"), NetworkDevice(name="lxc1", kind="veth")
FLANNEL = NetworkDevice(name="flannel.1", kind="vxlan", port=8472)
STANDARD = NetworkDevice(name="vxlan.calico", kind="vxlan", port=4789)
GENEVE = NetworkDevice(name="genev_sys", kind="geneve", port=4789)
NETKIT = NetworkDevice(name="lxc2", kind="netkit")


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ((ETH0, POD), DatapathReport(kind=DatapathKind.ROUTED)),
        ((ETH0, FLANNEL, GENEVE), DatapathReport(kind=DatapathKind.VXLAN, device="flannel.1", port=8472)),
        ((GENEVE,), DatapathReport(kind=DatapathKind.GENEVE, device="genev_sys", port=4789)),
        ((ETH0, FLANNEL, NETKIT), DatapathReport(kind=DatapathKind.BYPASS, device="lxc2")),
    ],
)
def test_what_the_devices_say(devices: tuple[NetworkDevice, ...], expected: DatapathReport) -> None:
    assert find_datapath(devices).report() == expected


@pytest.mark.parametrize(
    ("devices", "traffic", "why"),
    [
        ((ETH0, POD), POD_NETWORK, None),
        ((ETH0, FLANNEL), POD_NETWORK, None),
        ((ETH0, NETKIT), POD_NETWORK, "pods' packets pass the host's IP stack by (lxc2, netkit)"),
        ((ETH0, NETKIT), HOST, None),
        ((ETH0, STANDARD), VXLAN, None),
        ((FLANNEL,), VXLAN, "there is no VXLAN device on port 4789; overlay devices: flannel.1, vxlan port 8472"),
        ((GENEVE,), VXLAN, "there is no VXLAN device on port 4789; overlay devices: genev_sys, geneve port 4789"),
        ((ETH0,), VXLAN, "there is no VXLAN device on port 4789; overlay devices: none"),
    ],
)
def test_which_tunnels_a_datapath_does_not_suit(
    devices: tuple[NetworkDevice, ...], traffic: Traffic, why: str | None
) -> None:
    found = roster("n1", plan(tunnel(traffic=traffic)), n1=node(1), n2=node(2))
    assert misfits(find_datapath(devices), found).get("tunnel-a") == why


def test_what_was_seen_to_leave_in_clear_tells_more_than_devices_that_suit() -> None:
    seen = replace(find_datapath((ETH0, FLANNEL)), leak="eth0")
    assert seen.report() == DatapathReport(kind=DatapathKind.BYPASS, device="eth0")
    found = roster("n1", plan(tunnel(), tunnel("b", traffic=HOST)), n1=node(1, tunnels=("tunnel-a", "b")), n2=node(2))
    assert misfits(seen, found) == {
        "tunnel-a": "pods' packets leave eth0 in clear, past the host's IP stack and all policies"
    }


def test_a_tunnel_that_does_not_suit_the_node_blocks_nothing_there() -> None:
    found = roster("n1", plan(tunnel(), tunnel("b", traffic=HOST)), n1=node(1), n2=node(2), n3=node(3, tunnels=()))
    for misfit, blocks in (((), True), (("tunnel-a",), False)):
        policies = desired_policies(without_blocks(found, misfit), lambda _: ReqId(0x48000001))
        assert any(policy.action is Action.BLOCK for policy in policies) is blocks
        assert any(policy.templates for policy in policies)
