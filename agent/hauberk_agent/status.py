"""What an agent believes and why: the document behind `hauberk-agent status`, and how people read it.

Made by the agent on request, from its own memory and one dump of the kernel's states. Schema only grows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from hauberk_agent.agent import Agent
from hauberk_agent.datapath import misfits
from hauberk_agent.link import Child
from hauberk_agent.pair import Pair
from hauberk_api.report import BootGuardState
from hauberk_ike import IpAddress
from hauberk_xfrm import Spi, StateDump, XfrmError

_Document = dict[str, Any]
_States = dict[tuple[IpAddress, Spi], StateDump]


def describe(agent: Agent, now: float) -> _Document:
    """The document. `now` is on the agent's clock."""
    try:
        states: _States = {(s.destination, s.spi): s for s in agent.kernel.dump_states()} if agent.usable else {}
        kernel_problem = None
    except XfrmError as error:
        states, kernel_problem = {}, str(error)
    plan = agent.desired.plan if agent.desired is not None else None
    identity = agent.identity
    certificate = identity.certificate if identity is not None else None
    report = agent.reporting.report
    return {
        "node": agent.settings.node_name,
        "version": agent.settings.version,
        "pid": os.getpid(),
        "startedAt": _time(agent.started_at),
        "ready": report.ready if report is not None else False,
        "reason": report.reason if report is not None else "",
        "message": report.message if report is not None else (agent.unready() or ""),
        "source": {"fromCache": agent.from_cache, "problem": agent.source.problem},
        "plan": None
        if plan is None
        else {"generation": plan.generation, "tunnels": [f"{t.name} ({t.phase})" for t in plan.tunnels]},
        "identity": {
            "name": identity.names[0] if identity is not None else None,
            "serial": f"{certificate.serial_number:x}" if certificate is not None else None,
            "notAfter": _time(certificate.not_valid_after_utc) if certificate is not None else None,
            "problem": agent.identity_problem,
        },
        "kernel": {
            "release": agent.abilities.release,
            "problems": [*agent.abilities.problems, *([kernel_problem] if kernel_problem else [])],
            "policies": agent.outcome.present if agent.outcome is not None else 0,
            "states": len([s for s in states.values() if not s.larval]),
        },
        "boot": {"cachedPlan": agent.boot.cached_plan, "guard": agent.boot.guard},
        "rekeys": {"children": agent.sessions.rekeyed_children, "ike": agent.sessions.rekeyed_ike_sas},
        "datapath": agent.datapath.report().to_object(),
        "clear": _clear(agent),
        "problems": [
            *([agent.clock.problem] if agent.clock.problem is not None else []),
            *agent.problems,
            *(agent.roster.problems if agent.roster is not None else ()),
            *(misfits(agent.datapath, agent.roster).values() if agent.roster is not None else ()),
            *((f"nobody looks for packets in clear: {bypass}",) if (bypass := agent.bypass.problem) else ()),
        ],
        "reportProblem": agent.reporting.problem,
        "podRange": [str(n) for n in agent.roster.pod_range] if agent.roster is not None else [],
        "peers": [
            _peer(pair, states, now, agent.sessions.esp_paths.why(pair))
            for pair in sorted(agent.sessions.pairs, key=lambda pair: pair.name)
        ],
    }


def _clear(agent: Agent) -> _Document | None:
    """What passes in clear of Permissive tunnels; None where there is none."""
    total = agent.clear.total
    if total is None:
        return None
    return {"arriving": total.arriving, "leaving": total.leaving, "problem": agent.clear.problem}


def _peer(pair: Pair, states: _States, now: float, why: str) -> _Document:
    """why: the pair's ESP travels as it does."""
    current = pair.current
    child = next(iter(pair.children()), None)
    return {
        "node": pair.name,
        "tunnel": ", ".join(dict.fromkeys(tunnel.name for tunnel in pair.spec.peer.tunnels)),
        "reqid": pair.spec.children[0].reqid,
        "tunnels": [
            {
                "name": pair.spec.tunnel_name(each.tunnel),
                "well": each.unwell_since is None,
                "lastError": f"{each.failure.reason}: {each.failure.message}" if each.failure is not None else None,
            }
            for each in pair.tunnels()
        ],
        "encapsulation": None if child is None else "None" if child.encapsulation is None else "UDP",
        "encapsulationReason": why,
        "local": str(pair.spec.peer.local),
        "remote": str(pair.spec.peer.remote),
        "well": pair.well,
        "idle": pair.is_idle,
        "unwellSeconds": round(now - pair.unwell_since, 1) if pair.unwell_since is not None else None,
        "ike": None
        if current is None
        else {
            "initiator": "local" if current.ours else "remote",
            "proposal": current.proposal,
            "seconds": round(now - (current.up_at or now), 1),
        },
        "attempting": pair.attempt is not None,
        "children": [_child(child, pair, states) for child in pair.children()],
        "lastError": f"{pair.failure.reason}: {pair.failure.message}" if pair.failure is not None else None,
    }


def _child(child: Child, pair: Pair, states: _States) -> _Document:
    inbound = states.get((child.local, child.spi_in)) if child.spi_in is not None else None
    outbound = states.get((child.remote, child.spi_out)) if child.spi_out is not None else None
    standing = pair.standings.get(child.label)
    return {
        "tunnel": pair.spec.tunnel_name(standing.spec.key.tunnel) if standing is not None else "",
        "index": standing.spec.key.index if standing is not None else 0,
        "mode": child.mode.name.lower(),
        "reqid": child.reqid,
        "proposal": child.proposal,
        "in": _state(inbound),
        "out": _state(outbound),
    }


def _state(state: StateDump | None) -> _Document | None:
    """One direction as the kernel has it, or None where it has none."""
    if state is None:
        return None
    return {
        "spi": f"{state.spi:08x}",
        "bytes": state.bytes,
        "packets": state.packets,
        "since": _time(datetime.fromtimestamp(state.add_time, UTC)) if state.add_time is not None else None,
        "dropped": state.replay_packets + state.replay_window_packets + state.integrity_failed,
    }


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def render(document: _Document) -> str:
    """The document for people, without line break at the end."""
    return "\n".join(_lines(document))


def _lines(d: _Document) -> Iterator[str]:
    ready = "ready" if d["ready"] else f"not ready: {d['reason']}"
    yield f"{d['node']}: {ready}" + (f" ({d['message']})" if d["message"] else "")
    yield f"  agent      {d['version']}, pid {d['pid']}, since {d['startedAt']}"
    plan = d["plan"]
    if plan is None:
        yield "  plan       none"
    else:
        cached = ", from the cache" if d["source"]["fromCache"] else ""
        yield f"  plan       generation {plan['generation']}{cached}: {', '.join(plan['tunnels']) or 'no tunnels'}"
    identity = d["identity"]
    yield f"  identity   {identity['name'] or 'none'}" + (
        f", until {identity['notAfter']}" if identity["notAfter"] else ""
    )
    yield f"  kernel     {d['kernel']['release']}: {d['kernel']['policies']} policies, {d['kernel']['states']} states"
    yield f"  boot       {_boot(d['boot'])}"
    if "datapath" in d:
        datapath = d["datapath"]
        port = f" port {datapath['port']}" if "port" in datapath else ""
        yield f"  datapath   {datapath['kind']}{port}" + (f", {datapath['device']}" if datapath["device"] else "")
    if d["clear"] is not None:
        yield f"  in clear   {d['clear']['arriving']} packets from and {d['clear']['leaving']} to peers' pods"
    not_counted = d["clear"]["problem"] if d["clear"] is not None else None
    said = (
        not_counted,
        d["source"]["problem"],
        identity["problem"],
        *d["kernel"]["problems"],
        *d["problems"],
        d["reportProblem"],
    )
    for problem in dict.fromkeys(problem for problem in said if problem):
        yield f"  problem    {problem}"
    if not d["peers"]:
        yield "  peers      none"
    for peer in d["peers"]:
        yield from _peer_lines(peer)


def _boot(boot: _Document) -> str:
    """From the kernel's boot on, what the node has to go by before this agent has spoken to anybody."""
    plan = "a cached plan" if boot["cachedPlan"] else "no cached plan that outlives a reboot"
    match boot["guard"]:
        case BootGuardState.ABSENT:
            guard = "no boot guard has run"
        case BootGuardState.EMPTY:
            guard = "the boot guard had nothing to load"
        case BootGuardState.PARTIAL:
            guard = "the boot guard could not load everything"
        case _:
            guard = "the boot guard has loaded all policies"
    return f"{plan}; at this boot {guard}"


def _peer_lines(peer: _Document) -> Iterator[str]:
    how = "encrypted" if peer["well"] else f"NOT encrypted for {peer['unwellSeconds']} s"
    if peer.get("idle"):
        how = "idle, comes up when a packet asks for it"
    if peer["ike"] is not None:
        how += f", IKE SA for {peer['ike']['seconds']:.0f} s"
    yield f"  peer       {peer['node']} ({peer['remote']}), tunnel {peer['tunnel']}: {how}"
    if peer.get("encapsulation") == "UDP":
        yield f"    in UDP   {peer['encapsulationReason']}"
    for tunnel in peer.get("tunnels", [])[1:] and peer["tunnels"]:
        yield f"    tunnel   {tunnel['name']}: {'encrypted' if tunnel['well'] else 'NOT encrypted'}" + (
            f", {tunnel['lastError']}" if tunnel["lastError"] else ""
        )
    for child in peer["children"]:
        for direction in ("in", "out"):
            state = child[direction]
            if state is not None:
                yield (
                    f"    {direction:3}      spi {state['spi']}, {state['bytes']} bytes in {state['packets']} packets"
                    f", since {state['since']}"
                )
    if peer["lastError"]:
        yield f"    error    {peer['lastError']}"
