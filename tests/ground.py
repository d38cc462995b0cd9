"""What the judge must know of a lab: whose addresses are whose. Used by the demo and the tests on the lab."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Final

from tests.lab.cluster import Lab
from tests.lab.judge import Ground

MARKERS: Final = (b"HAUBERK-CLEAR-MARKER",)
"""What the test traffic carries in every message."""


def ground(lab: Lab) -> Ground:
    """The addresses and pod prefixes of the lab's nodes at this moment."""
    cidrs = {node.name: tuple(ip_network(cidr) for cidr in node.pod_cidrs) for node in lab.nodes}
    return Ground(
        pod_networks=tuple(network for networks in cidrs.values() for network in networks),
        node_addresses={node.name: tuple(ip_address(a) for a in node.addresses) for node in lab.nodes},
        pod_cidrs=cidrs,
        markers=MARKERS,
    )
