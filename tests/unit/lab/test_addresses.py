"""Who has which address in a lab."""

from ipaddress import ip_address, ip_interface, ip_network
from itertools import combinations

import pytest

from tests.lab import addresses
from tests.lab.addresses import FIRST_NUMBER, LAST_NUMBER, Family

NUMBERS = range(FIRST_NUMBER, LAST_NUMBER + 1)


def test_node_11_is_the_first_and_its_number_shows_in_all_its_addresses() -> None:
    assert addresses.node_name(11) == "n1"
    assert addresses.addresses(Family.DUAL, 11) == ("10.250.0.11", "fd00:250::11")
    assert addresses.pod_cidrs(Family.DUAL, 11) == ("10.244.11.0/24", "fd00:244:11::/64")
    assert str(addresses.management(11)) == "10.251.0.11/24"


@pytest.mark.parametrize(("family", "versions"), [(Family.IPV4, [4]), (Family.IPV6, [6]), (Family.DUAL, [4, 6])])
def test_a_family_has_its_versions_in_everything_primary_first(family: Family, versions: list[int]) -> None:
    assert [ip_address(address).version for address in addresses.addresses(family, 12)] == versions
    assert [ip_network(cidr).version for cidr in addresses.pod_cidrs(family, 12)] == versions
    assert [ip_network(network).version for network in addresses.pod_networks(family)] == versions
    assert [ip_network(network).version for network in addresses.service_networks(family)] == versions
    assert [ip_address(address).version for address in addresses.first_services(family)] == versions


def test_no_two_nodes_share_an_address_or_a_pod_network() -> None:
    everything = [ip_network(cidr) for number in NUMBERS for cidr in addresses.pod_cidrs(Family.DUAL, number)] + [
        ip_network(address) for number in NUMBERS for address in addresses.addresses(Family.DUAL, number)
    ]
    for one, other in combinations(everything, 2):
        assert one.version != other.version or not one.overlaps(other)


def test_pods_of_every_node_lie_in_the_pod_networks_and_outside_of_nodes_and_services() -> None:
    networks = [ip_network(network) for network in addresses.pod_networks(Family.DUAL)]
    others = [
        *(ip_network(network) for network in addresses.service_networks(Family.DUAL)),
        *(ip_interface(str(interface)).network for interface in addresses.interfaces(Family.DUAL, 1)),
        ip_interface(str(addresses.management(1))).network,
    ]
    for number in NUMBERS:
        for cidr in map(ip_network, addresses.pod_cidrs(Family.DUAL, number)):
            (holder,) = [network for network in networks if network.version == cidr.version]
            assert holder.supernet_of(cidr)  # type: ignore[arg-type]
    for pods in networks:
        assert not any(pods.version == other.version and pods.overlaps(other) for other in others)


def test_a_removed_nodes_number_comes_back_first() -> None:
    assert addresses.lowest_free_number(set()) == 11
    assert addresses.lowest_free_number({11, 13}) == 12
    with pytest.raises(ValueError, match="at most"):
        addresses.lowest_free_number(set(NUMBERS))


def test_hardware_addresses_are_local_unicast_and_differ_by_node_and_interface() -> None:
    made = {addresses.hardware_address(number, nic) for number in NUMBERS for nic in (0, 1)}
    assert len(made) == 2 * len(NUMBERS)
    assert all(int(mac[:2], 16) & 0b11 == 0b10 for mac in made)
