"""Who has which address in a lab: pure functions of the family and of a node's number.

Every lab uses the same addresses, as each has a network namespace of its own. Called by everything that sets up
network, certificates or Kubernetes objects.

                    IPv4                 IPv6
    nodes           10.250.0.0/24        fd00:250::/64       the observed bridge; the control plane is 1
    management      10.251.0.0/24                            commands for nodes: never on the observed bridge
    pods of node i  10.244.i.0/24        fd00:244:i::/64     i is written alike in both: node 11 has fd00:244:11::/64
    services        10.96.0.0/16         fd00:96::/112
"""

import enum
from dataclasses import dataclass

FIRST_NUMBER = 11
LAST_NUMBER = 60  # nodes know routes to all of these numbers' pods from their start

_NODES = {4: ("10.250.0.", 24), 6: ("fd00:250::", 64)}
_POD_NETWORKS = {4: "10.244.0.0/16", 6: "fd00:244::/32"}
_SERVICE_NETWORKS = {4: "10.96.0.0/16", 6: "fd00:96::/112"}
_FIRST_SERVICES = {4: "10.96.0.1", 6: "fd00:96::1"}
MANAGEMENT_PREFIX_LENGTH = 24


class Family(enum.Enum):
    """Which IP families nodes, pods and services have; in DUAL, IPv4 is the primary one."""

    IPV4 = "4"
    IPV6 = "6"
    DUAL = "46"

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions, the primary one first."""
        return tuple(int(version) for version in self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One address on one interface."""

    address: str
    prefix_length: int

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix_length}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The pods of a node lie behind that node."""

    destination: str
    via: str


def node_name(number: int) -> str:
    """Node 11 is called n1."""
    return f"n{number - FIRST_NUMBER + 1}"


def lowest_free_number(taken: set[int]) -> int:
    """The number of the next node. Numbers of removed nodes come back, and their addresses with them, as in clouds."""
    for number in range(FIRST_NUMBER, LAST_NUMBER + 1):
        if number not in taken:
            return number
    raise ValueError(f"a lab has at most {LAST_NUMBER - FIRST_NUMBER + 1} nodes")


def interfaces(family: Family, number: int) -> tuple[Interface, ...]:
    """The addresses of node `number` (or of the control plane: 1) on the observed bridge."""
    return tuple(
        Interface(address=f"{_NODES[version][0]}{number}", prefix_length=_NODES[version][1])
        for version in family.versions
    )


def addresses(family: Family, number: int) -> tuple[str, ...]:
    """The same, without prefix lengths."""
    return tuple(interface.address for interface in interfaces(family, number))


def control_plane(family: Family) -> tuple[str, ...]:
    """The API server's addresses, primary family first."""
    return addresses(family, 1)


def pod_cidrs(family: Family, number: int) -> tuple[str, ...]:
    """The pod networks of node `number`: what its Node.spec.podCIDRs says."""
    cidrs = {4: f"10.244.{number}.0/24", 6: f"fd00:244:{number}::/64"}
    return tuple(cidrs[version] for version in family.versions)


def pod_networks(family: Family) -> tuple[str, ...]:
    """The networks that hold all pods."""
    return tuple(_POD_NETWORKS[version] for version in family.versions)


def service_networks(family: Family) -> tuple[str, ...]:
    """The networks of ClusterIPs."""
    return tuple(_SERVICE_NETWORKS[version] for version in family.versions)


def first_services(family: Family) -> tuple[str, ...]:
    """The addresses of the service `kubernetes`: the first of each service network."""
    return tuple(_FIRST_SERVICES[version] for version in family.versions)


def pod_routes(family: Family, number: int) -> tuple[Route, ...]:
    """The routes by which others reach the pods of node `number`."""
    return tuple(
        Route(destination=cidr, via=address)
        for cidr, address in zip(pod_cidrs(family, number), addresses(family, number), strict=True)
    )


def management(number: int) -> Interface:
    """The address of node `number` (or of the control plane: 1) on the management bridge."""
    return Interface(address=f"10.251.0.{number}", prefix_length=MANAGEMENT_PREFIX_LENGTH)


def hardware_address(number: int, nic: int) -> str:
    """A locally administered MAC address: the same on every boot, so that neighbour caches stay right."""
    return f"02:25:{nic:02x}:00:00:{number:02x}"
