"""What an agent of another version has left on disk is read: an upgrade begins with the plan, SAs and key that it had.

`state/DATE/` is the state directory as agents wrote it on that day, for node n1 with two tunnels and two peers. When a
format changes, a folder is added, and none is changed. The keys in them are of no mesh.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hauberk_agent.cache import DesiredCache
from hauberk_agent.identity import IdentityStore, parse_roots
from hauberk_agent.policy import desired_policies
from hauberk_agent.reqid import ChildKey, ReqIdTable
from hauberk_agent.roster import Roster, compile_roster
from hauberk_api.names import NodeName, NodeUid, TunnelUid
from hauberk_api.plan import Phase
from hauberk_api.tunnel import Encapsulation, Enforcement
from hauberk_xfrm import Action
from tests.unit.agent.mesh import TUNNEL

STATES = sorted((Path(__file__).parent / "state").iterdir())


@pytest.fixture(params=STATES, ids=lambda path: path.name)
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a state directory that an agent of that day left."""
    return Path(shutil.copytree(request.param, tmp_path / "state"))


def cached_roster(state: Path) -> Roster:
    desired = DesiredCache(state / "desired.json").load(NodeName("n1"))
    assert desired is not None
    roster = compile_roster(desired)
    assert roster is not None
    return roster


def test_the_cached_plan_is_followed(state: Path) -> None:
    roster = cached_roster(state)
    assert [(tunnel.uid, tunnel.phase) for tunnel in roster.tunnels] == [
        (TUNNEL, Phase.BLOCK),
        ("tunnel-b", Phase.PROTECT),
    ]
    strict, permissive = roster.tunnels
    assert (strict.generation, strict.encapsulation, strict.esp.rekey_packets) == (3, Encapsulation.ALWAYS, 1_000_000)
    assert permissive.enforcement is Enforcement.PERMISSIVE
    assert {peer.place.name for peer in roster.peers} == {"n2", "n3"}


def test_request_ids_are_as_they_were_so_that_the_kernels_states_are_recognised(state: Path) -> None:
    table = ReqIdTable(state / "reqids.json")
    first, second = (
        ChildKey(tunnel=TunnelUid(TUNNEL), peer=NodeUid("uid-2")),
        ChildKey(tunnel=TunnelUid("tunnel-b"), peer=NodeUid("uid-3")),
    )
    assert (table.get(first), table.get(second)) == (0x48000002, 0x48000003)
    written = json.loads((state / "reqids.json").read_text())
    assert len(table) == len(written["pairs"]) + len(written.get("further", ()))
    # -> a new one is none of those, the ones lately given included
    assert table.assign(ChildKey(tunnel=TunnelUid(TUNNEL), peer=NodeUid("uid-8"))) == written["last"] + 1


def test_policies_are_tied_to_those_ids_before_anybody_has_been_asked(state: Path) -> None:
    roster, table = cached_roster(state), ReqIdTable(state / "reqids.json")
    policies = desired_policies(roster, table.assign)
    required = {t.reqid for policy in policies for t in policy.templates if not t.optional}
    assert 0x48000002 in required
    assert {t.reqid for policy in policies for t in policy.templates} <= {0x48000002, 0x48000003}
    assert any(policy.action is Action.BLOCK for policy in policies)


def test_the_key_and_its_certificate_are_used(state: Path) -> None:
    identity = IdentityStore(state).load()
    assert identity is not None
    desired = DesiredCache(state / "desired.json").load(NodeName("n1"))
    assert desired is not None
    assert desired.plan is not None
    roots = parse_roots(desired.plan.trust_bundle)
    assert identity.names[0] == "uid-1.default.hauberk.internal"
    assert identity.root(roots) == roots[0]


def test_the_version_before_reads_what_this_one_writes(state: Path) -> None:
    """It knows lines of three, and takes others for damage; an agent that is taken back must not lose its SAs."""
    table = ReqIdTable(state / "reqids.json")
    table.assign(ChildKey(tunnel=TunnelUid(TUNNEL), peer=NodeUid("uid-2"), index=7))
    table.save()
    pairs = json.loads((state / "reqids.json").read_text())["pairs"]
    assert [TUNNEL, "uid-2", 0x48000002] in pairs
    assert {len(line) for line in pairs} == {3}
