"""The security policies that a roster asks for.

Pure; the reconciler makes the kernel's database equal to them. Per family:

=======  =====================================================  ==================================================
class    OUT                                                    IN and FWD
=======  =====================================================  ==================================================
protect  any -> peer's pods; own pods -> peer's addresses       peer's pods -> any; peer's addresses -> own pods
exempt   any -> own pods; any -> pods of exempt nodes           own pods -> any; pods of exempt nodes -> any
block    any -> pod range                                       pod range -> any
=======  =====================================================  ==================================================

A packet from a tunnel is looked up again when it goes on to a pod, so that a block between pods' prefixes alone would
stop everything: hence the exemptions. Inbound templates leave the source open and name our own address.

A tunnel's phase says which of these stand (hauberk_api.plan.Phase): IN and FWD protect from Accept on, their templates
optional until Require; OUT protect in Protect for the peers that can be sent to, from Require on for all; block in
Block. A Permissive tunnel never gets beyond Protect.

With `interception: Interface` the policies are those of a device's interface id (hauberk_agent.interception), and what
is to be blocked on its way out is blocked by routes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from hauberk_agent.flow import all_flows
from hauberk_agent.interception import IF_ID, is_intercepted
from hauberk_agent.ownership import block_priority, host_priority, protect_priority
from hauberk_agent.reqid import ChildKey
from hauberk_agent.roster import Peer, Place, Roster
from hauberk_api.plan import Phase, PlannedTunnel, reached
from hauberk_api.tunnel import Traffic, TrafficType
from hauberk_ike import IpAddress
from hauberk_xfrm import Action, Direction, IpNetwork, Policy, ReqId, Selector, Slot, Template

_ANY: Final[dict[int, IpNetwork]] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}
_POD_NETWORK: Final = Traffic(type=TrafficType.POD_NETWORK)
_INBOUND: Final = (Direction.IN, Direction.FWD)


def desired_policies(
    roster: Roster, reqid_of: Callable[[ChildKey], ReqId], *, sendable: Collection[ChildKey] = ()
) -> tuple[Policy, ...]:
    """All policies that this node should have. A node in no tunnel gets none.

    sendable: the CHILD SAs that both ends hold; in Protect packets for any other still go in clear.
    Where two want one slot the stronger class has it: a block over a single node's prefix is the same slot as that
    node's exemption or protection.
    """
    if not roster.tunnels:
        return ()
    slots: dict[Slot, Policy] = {}
    for policy in (*_blocks(roster), *_exemptions(roster), *_protections(roster, reqid_of, sendable)):
        slots[policy.slot] = policy
    return tuple(slots.values())


def _protections(
    roster: Roster, reqid_of: Callable[[ChildKey], ReqId], sendable: Collection[ChildKey]
) -> Iterator[Policy]:
    for peer in roster.peers:
        for tunnel, flow in all_flows(roster.own, peer):
            if tunnel.traffic.type is not TrafficType.POD_NETWORK:
                continue
            key = flow.key(tunnel, peer)
            reqid, phase = reqid_of(key), tunnel.phase
            if is_intercepted(tunnel):
                yield from _intercepted(roster.own, peer, tunnel, reqid)
                continue
            if reached(phase, Phase.REQUIRE) or (phase is Phase.PROTECT and key in sendable):
                template = Template(source=peer.local, destination=peer.remote, reqid=reqid)
                for theirs in peer.place.networks:
                    yield _protect(Direction.OUT, _any_to(theirs), theirs.prefixlen, template)
                for own, theirs in _own_pods_with_addresses(roster.own, peer.place):
                    selector = Selector(source=own, destination=theirs)
                    yield _protect(Direction.OUT, selector, theirs.prefixlen, template)
            # Until encryption is required, what still comes in clear is taken (an optional template).
            optional = not reached(phase, Phase.REQUIRE)
            template = Template(source=None, destination=peer.local, reqid=reqid, optional=optional)
            for direction in _INBOUND:
                for theirs in peer.place.networks:
                    yield _protect(direction, _from_any(theirs), theirs.prefixlen, template)
                for own, theirs in _own_pods_with_addresses(roster.own, peer.place):
                    selector = Selector(source=theirs, destination=own)
                    yield _protect(direction, selector, theirs.prefixlen, template)


def _intercepted(own: Place, peer: Peer, tunnel: PlannedTunnel, reqid: ReqId) -> Iterator[Policy]:
    """Of a tunnel whose packets go by the device: those of its interface id, and from Require on blocks of what comes
    from the peer in clear. What goes out is routes' affair, and so is the phase in which it does."""
    out = Template(source=peer.local, destination=peer.remote, reqid=reqid)
    inbound = Template(source=None, destination=peer.local, reqid=reqid)
    theirs = [(_ANY[network.version], network) for network in peer.place.networks]
    addresses = list(_own_pods_with_addresses(own, peer.place))
    # Between the nodes themselves: pods' packets that the node has given its own address, and probes.
    nodes = [(_host(a), _host(b)) for a in own.addresses for b in peer.place.addresses if a.version == b.version]
    for local, remote in (*theirs, *addresses, *nodes):
        length = remote.prefixlen
        yield _by_device(Direction.OUT, Selector(source=local, destination=remote), length, out)
        for direction in _INBOUND:
            yield _by_device(direction, Selector(source=remote, destination=local), length, inbound)
    if reached(tunnel.phase, Phase.REQUIRE):
        for local, remote in (*theirs, *addresses):
            for direction in _INBOUND:
                yield Policy(
                    selector=Selector(source=remote, destination=local),
                    direction=direction,
                    priority=protect_priority(remote.prefixlen),
                    action=Action.BLOCK,
                )


def _by_device(direction: Direction, selector: Selector, prefix_length: int, template: Template) -> Policy:
    return replace(_protect(direction, selector, prefix_length, template), if_id=IF_ID)


def _exemptions(roster: Roster) -> Iterator[Policy]:
    for network in (*roster.own.networks, *(n for place in roster.exempt_from(_POD_NETWORK) for n in place.networks)):
        yield from _exempt(network, protect_priority(network.prefixlen))
    # Where people's pod range holds nodes' own addresses, the block must not lock anybody out of them.
    for place in (roster.own, *roster.known):
        for address in place.addresses:
            host = _host(address)
            if any(address in network for network in roster.pod_range):
                yield from _exempt(host, host_priority(host.prefixlen))


def _blocks(roster: Roster) -> Iterator[Policy]:
    pod_tunnels = [tunnel for tunnel in roster.tunnels if tunnel.traffic.type is TrafficType.POD_NETWORK]
    if not any(reached(tunnel.phase, Phase.BLOCK) for tunnel in pod_tunnels):
        return
    by_routes = any(is_intercepted(tunnel) for tunnel in pod_tunnels)
    for network in roster.pod_range:
        priority = block_priority(network.prefixlen)
        if not by_routes:
            yield Policy(selector=_any_to(network), direction=Direction.OUT, priority=priority, action=Action.BLOCK)
        for direction in _INBOUND:
            yield Policy(selector=_from_any(network), direction=direction, priority=priority, action=Action.BLOCK)


def _protect(direction: Direction, selector: Selector, prefix_length: int, template: Template) -> Policy:
    return Policy(
        selector=selector,
        direction=direction,
        priority=protect_priority(prefix_length),
        action=Action.ALLOW,
        templates=(template,),
    )


def _exempt(network: IpNetwork, priority: int) -> Iterator[Policy]:
    yield Policy(selector=_any_to(network), direction=Direction.OUT, priority=priority, action=Action.ALLOW)
    for direction in _INBOUND:
        yield Policy(selector=_from_any(network), direction=direction, priority=priority, action=Action.ALLOW)


def _any_to(network: IpNetwork) -> Selector:
    return Selector(source=_ANY[network.version], destination=network)


def _from_any(network: IpNetwork) -> Selector:
    return Selector(source=network, destination=_ANY[network.version])


def _own_pods_with_addresses(own: Place, other: Place) -> Iterable[tuple[IpNetwork, IpNetwork]]:
    """Each of our pod networks with each of the other's addresses of its family, as a network of one address."""
    for network in own.networks:
        for address in other.addresses:
            if address.version == network.version:
                yield network, _host(address)


def _host(address: IpAddress) -> IpNetwork:
    return ip_network(address)
