"""The kernel is brought to what is wanted, and what is not ours stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

from hauberk_agent.cleanup import remove_everything
from hauberk_agent.policy import desired_policies
from hauberk_agent.reconciler import reconcile_policies
from hauberk_xfrm import Aead, DeletePolicy, Policy, ReqId, Request, Spi, State, UpdatePolicy, XfrmError
from tests.unit.agent.fake_kernel import FakeKernel
from tests.unit.agent.fake_routing import FakeRouting
from tests.unit.agent.mesh import node, plan, roster, tunnel


def wanted() -> tuple[Policy, ...]:
    found = roster("n1", plan(tunnel()), n1=node(1), n2=node(2))
    return desired_policies(found, lambda _: ReqId(0x48000001))


def state(spi: int, reqid: int) -> State:
    return State(
        source=ip_address("10.250.0.2"),
        destination=ip_address("10.250.0.1"),
        spi=Spi(spi),
        reqid=ReqId(reqid),
        aead=Aead(name="rfc4106(gcm(aes))", key=bytes(20), icv_bits=128),
    )


def test_policies_are_added_mended_and_removed() -> None:
    kernel, policies = FakeKernel(), wanted()
    first = reconcile_policies(kernel, policies)
    assert (first.added, first.present, first.problems) == (len(policies), len(policies), ())
    assert reconcile_policies(kernel, policies).changed == 0
    # -> a hand from outside removes one and changes another
    del kernel.policies[policies[0].slot]
    kernel.policies[policies[1].slot] = replace(policies[1], priority=policies[1].priority + 1)
    mended = reconcile_policies(kernel, policies)
    assert (mended.added, mended.updated, mended.deleted) == (1, 1, 0)
    assert set(kernel.policies.values()) == set(policies)
    assert reconcile_policies(kernel, ()).present == 0
    assert kernel.policies == {}


class RecordingKernel(FakeKernel):
    """Remembers the requests, in order."""

    requests: list[Request]

    def apply(self, requests: Sequence[Request]) -> list[XfrmError | None]:
        self.requests = [*getattr(self, "requests", []), *requests]
        return super().apply(requests)


def test_after_a_deletion_no_cached_route_is_good_any_more() -> None:
    kernel, policies = RecordingKernel(), wanted()
    reconcile_policies(kernel, policies)
    kernel.requests.clear()
    reconcile_policies(kernel, policies[1:])
    assert isinstance(kernel.requests[0], DeletePolicy)
    renewed = [request.policy for request in kernel.requests[1:] if isinstance(request, UpdatePolicy)]
    assert {policy.selector.source.version for policy in renewed} == {4, 6}
    assert set(renewed) <= set(policies[1:])
    kernel.requests.clear()
    reconcile_policies(kernel, policies[1:])
    assert kernel.requests == [], "nothing was deleted"


def test_a_foreign_policy_in_our_slot_is_reported_and_kept() -> None:
    kernel, policies = FakeKernel(), wanted()
    foreign = replace(policies[0], priority=2000)
    kernel.policies[foreign.slot] = foreign
    outcome = reconcile_policies(kernel, policies)
    assert len(outcome.problems) == 1
    assert "not Hauberk's" in outcome.problems[0]
    assert kernel.policies[foreign.slot] == foreign
    assert outcome.present == len(policies) - 1
    reconcile_policies(kernel, ())
    assert list(kernel.policies.values()) == [foreign]


def test_cleanup_removes_ours_and_nothing_else() -> None:
    kernel, policies = FakeKernel(), wanted()
    reconcile_policies(kernel, policies)
    foreign = replace(policies[0], priority=2000, selector=replace(policies[0].selector, protocol=6))
    kernel.policies[foreign.slot] = foreign
    kernel.add_state(state(0x100, 0x48000001))
    kernel.add_state(state(0x101, 1))
    kernel.allocate_spi(source=ip_address("10.250.0.2"), destination=ip_address("10.250.0.1"), reqid=ReqId(0x48000001))
    removed = remove_everything(kernel, FakeRouting())
    assert (removed.policies, removed.states, removed.problems) == (len(policies), 2, ())
    assert list(kernel.policies.values()) == [foreign]
    assert [s.spi for s in kernel.dump_states()] == [0x101]
    again = remove_everything(kernel, FakeRouting())
    assert (again.policies, again.states) == (0, 0)
