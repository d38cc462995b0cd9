"""Transport mode through NATs: whose addresses traffic selectors name (RFC 7296 section 2.23.1).

    alice 10.0.0.5 --- NAT 198.51.100.7 ~~~~ 203.0.113.9 NAT --- 192.0.2.2 bob
    CREATE_CHILD_SA   TSi 10.0.0.5, TSr 203.0.113.9      -->
                                                         <--   TSi 198.51.100.7, TSr 192.0.2.2

Theory of operation. In transport mode packets go between the ends of the IKE SA, and each end knows these by what it
sees: itself by its own address, the other by the NAT's. So each reads what the other sends as if it named what it sees
itself; its packets, policies and answers are in those terms. Selectors of more than one address are left as they are:
they name no end, and are narrowed as ever. In tunnel mode selectors are about what is inside, and no NAT changes that.
"""

from collections.abc import Iterable
from dataclasses import replace

from hauberk_ike.datagram import IpAddress
from hauberk_ike.path import Path
from hauberk_ike.selectors import TrafficSelector

Selectors = tuple[TrafficSelector, ...]


def as_seen(path: Path, ts_local: Selectors, ts_remote: Selectors) -> tuple[Selectors, Selectors]:
    """A peer's selectors for our end and for its own, with an end that is behind a NAT as we see it."""
    ends = path.ends
    return (
        _substitute(ts_local, ends.local.host) if path.nat_local else ts_local,
        _substitute(ts_remote, ends.remote.host) if path.nat_remote else ts_remote,
    )


def as_asked(path: Path, ts_local: Selectors, ts_remote: Selectors) -> tuple[Selectors, Selectors]:
    """Our own selectors. Where there is a NAT they have to name the two ends, as they are now, and nobody else."""
    if not path.nat_local and not path.nat_remote:
        return ts_local, ts_remote
    ts_local, ts_remote = as_seen(path, ts_local, ts_remote)
    ends = path.ends
    return _narrow_to(ts_local, ends.local.host), _narrow_to(ts_remote, ends.remote.host)


def _substitute(selectors: Iterable[TrafficSelector], host: IpAddress) -> Selectors:
    return tuple(
        dict.fromkeys(
            replace(each, start=host, end=host)
            if each.start == each.end and each.start.version == host.version
            else each
            for each in selectors
        )
    )


def _narrow_to(selectors: Selectors, host: IpAddress) -> Selectors:
    end = TrafficSelector(start=host, end=host)
    common = (each.intersect(end) for each in selectors)
    return tuple(dict.fromkeys(each for each in common if each is not None)) or selectors
