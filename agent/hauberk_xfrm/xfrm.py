"""The kernel's XFRM database: the one object through which the agent reads and changes it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeVar, assert_never

from hauberk_xfrm.abilities import KernelAbilities, probe_abilities
from hauberk_xfrm.address import IpAddress, ReqId, Spi
from hauberk_xfrm.attribute import Malformed, build_attribute
from hauberk_xfrm.decoder import decode_policy, decode_state
from hauberk_xfrm.default_policy import DefaultPolicy
from hauberk_xfrm.encoder import (
    encode_migration,
    encode_policy,
    encode_policy_id,
    encode_spi_request,
    encode_state,
    encode_state_id,
)
from hauberk_xfrm.errors import NotFound, NotSupported, PolicyExists, StateExists, XfrmError, error_from_errno
from hauberk_xfrm.event import Event
from hauberk_xfrm.events import EventSocket
from hauberk_xfrm.layout import NETLINK_XFRM, UINT32, USERPOLICY_DEFAULT, Attribute, MessageType
from hauberk_xfrm.mark import NO_MARK, Mark
from hauberk_xfrm.migration import Migration
from hauberk_xfrm.netlink import Answer, Message, NetlinkSocket
from hauberk_xfrm.policy import Policy, Slot
from hauberk_xfrm.request import (
    AddPolicy,
    AddState,
    DeletePolicy,
    DeleteState,
    Request,
    UpdatePolicy,
    UpdateState,
)
from hauberk_xfrm.state import ESP, Mode, State, StateDirection, StateDump
from hauberk_xfrm.statistics import read_statistics
from hauberk_xfrm.tables import PolicyTable, StateTable

T = TypeVar("T")


class Xfrm:
    """Requests to the kernel, for the network namespace of the thread that makes the first of them.

    Synchronous, and meant to be called from code that runs in an asyncio loop: no request waits for anything, as the
    kernel handles it before the call returns (`netlink`). A change takes some ten microseconds; a dump grows with
    what there is. The socket is opened by the first request, and again after an error on it. Not for use by several
    threads at once.

    All methods raise `XfrmError` or one of its kinds: `NotSupported` where the kernel has no XFRM, and
    `PermissionDenied` without CAP_NET_ADMIN. What local misuse makes impossible to write down is a ValueError.
    """

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(NETLINK_XFRM)

    def close(self) -> None:
        """Closes the socket. States and policies stay as they are."""
        self._netlink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def allocate_spi(
        self,
        *,
        source: IpAddress,
        destination: IpAddress,
        reqid: ReqId,
        mode: Mode = Mode.TUNNEL,
        minimum: int = 0xC0000000,
        maximum: int = 0xCFFFFFFF,
        mark: Mark = NO_MARK,
        if_id: int = 0,
    ) -> Spi:
        """A new SPI for packets from `source` to `destination` (this node), held by a larval state.

        The kernel draws it at random from the range, both ends included, and gives none twice. The larval state
        vanishes by itself (net.core.xfrm_acq_expires, 30 s): fill it by `update_state` until then.
        """
        operation, subject = "allocate an SPI", f"{source} -> {destination} reqid {reqid}"
        body = encode_spi_request(source, destination, reqid, mode, minimum, maximum, mark=mark, if_id=if_id)
        try:
            answer = self._request(operation, subject, Message(type=MessageType.ALLOCSPI, body=body))
        except NotFound as error:
            # Nothing that was looked for is missing: the kernel's draws met taken SPIs only.
            raise XfrmError(operation, subject, error.errno, error.reason) from error
        states = [decode_state(message.body) for message in answer.messages]
        if len(states) != 1 or states[0] is None:
            raise XfrmError(operation, subject, errno.EPROTO, f"{len(states)} states in the answer")
        return states[0].spi

    def add_state(self, state: State) -> None:
        """Installs a state with its key. StateExists if its destination and SPI are taken, also by a larval state."""
        self._change(AddState(state=state))

    def update_state(self, state: State) -> None:
        """Fills in the larval state that `allocate_spi` made; NotFound if that has expired (then `add_state` it).

        As that state is inbound, a direction of None goes out as IN here. Of a state that has its key already the
        kernel changes the lifetime and, where there is encapsulation before and after, its ports.
        """
        self._change(UpdateState(state=state))

    def delete_state(self, *, destination: IpAddress, spi: Spi, mark: Mark = NO_MARK, missing_ok: bool = True) -> None:
        """Deletes a state, larval ones too. NotFound if there is none and `missing_ok` is false."""
        self._change(DeleteState(destination=destination, spi=spi, mark=mark), missing_ok=missing_ok)

    def get_state(self, destination: IpAddress, spi: Spi, mark: Mark = NO_MARK) -> StateDump | None:
        """The ESP state with that destination and SPI, with its counters."""
        operation, subject = "get a state", f"{destination} spi {spi:#010x}"
        body = encode_state_id(destination, spi, mark)
        try:
            answer = self._request(operation, subject, Message(type=MessageType.GETSA, body=body))
        except NotFound:
            return None
        with _as_xfrm_error(operation, subject):
            return decode_state(answer.messages[0].body) if answer.messages else None

    def dump_states(self) -> list[StateDump]:
        """All ESP states of this network namespace, anybody's, in no particular order."""
        # The kernel leaves out other protocols by itself.
        only_esp = build_attribute(Attribute.PROTO, bytes((ESP,)))
        return self._dump("dump states", MessageType.GETSA, only_esp, decode_state)

    def add_policy(self, policy: Policy) -> None:
        """Installs a policy. PolicyExists if there is one in its slot, which may be somebody else's."""
        self._change(AddPolicy(policy=policy))

    def update_policy(self, policy: Policy) -> None:
        """Installs a policy in place of whatever is in its slot: only where that is known to be ours."""
        self._change(UpdatePolicy(policy=policy))

    def delete_policy(self, policy: Policy | Slot, *, missing_ok: bool = True) -> None:
        """Deletes what is in the slot. NotFound if nothing is and `missing_ok` is false."""
        slot = policy.slot if isinstance(policy, Policy) else policy
        self._change(DeletePolicy(slot=slot), missing_ok=missing_ok)

    def dump_policies(self) -> list[Policy]:
        """All policies of this network namespace, anybody's, but those that belong to single sockets."""
        return self._dump("dump policies", MessageType.GETPOLICY, b"", decode_policy)

    def migrate(self, migration: Migration) -> None:
        """Moves a policy's templates and their states to other addresses, keys, counters and all.

        NotFound if no policy is in that slot. Nobody else's may be: look first.
        """
        operation, subject = "migrate", str(migration)
        self._request(operation, subject, Message(type=MessageType.MIGRATE, body=encode_migration(migration)))

    def default_policy(self) -> DefaultPolicy:
        """What becomes of packets that no policy is about. NotSupported before Linux 5.14."""
        return self._ask(
            "get the default policy", MessageType.GETDEFAULT, bytes(USERPOLICY_DEFAULT.size), DefaultPolicy.parse
        )

    def set_default_policy(self, default: DefaultPolicy) -> None:
        """For the whole network namespace, and so for tools that own one. No agent ever does this."""
        message = Message(type=MessageType.SETDEFAULT, body=default.build())
        self._request("set the default policy", str(default), message)

    def state_table(self) -> StateTable:
        """How many states there are, anybody's and of all protocols, without a dump."""
        return self._ask("count states", MessageType.GETSADINFO, UINT32.pack(0), StateTable.parse)

    def policy_table(self) -> PolicyTable:
        """How many policies there are, anybody's, without a dump."""
        return self._ask("count policies", MessageType.GETSPDINFO, UINT32.pack(0), PolicyTable.parse)

    def apply(self, requests: Sequence[Request]) -> list[XfrmError | None]:
        """Sends all requests in order, in batches, each on its own account: one that fails stops none.

        Returns what became of each: None, or its error (a missing state or policy is NotFound here). Raises
        XfrmError if the kernel could not be talked to at all; what was done until then is unknown, so dump and
        compare.
        """
        messages = [_message(request) for request in requests]
        with _as_xfrm_error("apply changes", f"{len(messages)} requests"):
            answers = self._netlink.request(messages)
        return [_refusal(request, answer) for request, answer in zip(requests, answers, strict=True)]

    def abilities(self) -> KernelAbilities:
        """What this kernel can do, found out by trying (`abilities.probe_abilities`).

        Makes and removes two states between addresses that are for documentation only. Raises PermissionDenied, as
        nothing can be found out then, and never for an ability that is missing.
        """
        return probe_abilities(self)

    def watch(self, *kinds: type[Event]) -> EventSocket:
        """A socket that hears events of these kinds from now on, to be closed by the caller.

        To listen for `Acquire` is to be answerable: packets without a state then wait for one, or are lost, until the
        larval state's time is over (net.core.xfrm_acq_expires).
        """
        with _as_xfrm_error("watch events", ", ".join(kind.__name__ for kind in kinds)):
            return EventSocket(kinds)

    def statistics(self) -> dict[str, int]:
        """The counters of dropped packets, by the kernel's names (`XfrmInNoStates`); see `statistics`."""
        return read_statistics()

    def _change(self, request: Request, *, missing_ok: bool = False) -> None:
        operation, subject = _describe(request)
        with _as_xfrm_error(operation, subject):
            (answer,) = self._netlink.request([_message(request)])
        error = _refusal(request, answer)
        if error is not None and not (missing_ok and isinstance(error, NotFound)):
            raise error

    def _request(self, operation: str, subject: str, message: Message) -> Answer:
        with _as_xfrm_error(operation, subject):
            (answer,) = self._netlink.request([message])
        if answer.errno:
            raise error_from_errno(operation, subject, answer.errno, answer.reason)
        return answer

    def _ask(self, operation: str, kind: int, body: bytes, parse: Callable[[bytes], T]) -> T:
        answer = self._request(operation, "", Message(type=kind, body=body))
        if not answer.messages:
            raise XfrmError(operation, "", errno.EPROTO, "an answer without a message")
        with _as_xfrm_error(operation, ""):
            return parse(answer.messages[0].body)

    def _dump(self, operation: str, kind: int, body: bytes, decode: Callable[[bytes], T | None]) -> list[T]:
        with _as_xfrm_error(operation, ""):
            answer = self._netlink.dump(Message(type=kind, body=body))
            if answer.errno:
                raise error_from_errno(operation, "", answer.errno, answer.reason)
            decoded = [decode(message.body) for message in answer.messages]
        return [item for item in decoded if item is not None]


@contextmanager
def _as_xfrm_error(operation: str, subject: str) -> Generator[None, None, None]:
    """What goes wrong on the socket, or in reading an answer, as an XfrmError."""
    try:
        yield
    except Malformed as error:
        raise XfrmError(operation, subject, errno.EPROTO, str(error)) from error
    except OSError as error:
        raise error_from_errno(operation, subject, error.errno or errno.EIO, None) from error


def _message(request: Request) -> Message:
    match request:
        case AddState():
            return Message(type=MessageType.NEWSA, body=encode_state(request.state))
        case UpdateState():
            # Larval states are inbound, and the kernel finds them by their direction, too.
            direction = request.state.direction or StateDirection.IN
            return Message(type=MessageType.UPDSA, body=encode_state(replace(request.state, direction=direction)))
        case DeleteState():
            return Message(type=MessageType.DELSA, body=encode_state_id(request.destination, request.spi, request.mark))
        case AddPolicy():
            return Message(type=MessageType.NEWPOLICY, body=encode_policy(request.policy))
        case UpdatePolicy():
            return Message(type=MessageType.UPDPOLICY, body=encode_policy(request.policy))
        case DeletePolicy():
            return Message(type=MessageType.DELPOLICY, body=encode_policy_id(request.slot))
        case _:
            assert_never(request)


def _describe(request: Request) -> tuple[str, str]:
    """Operation and subject, for people; no keys."""
    match request:
        case AddState():
            return "add a state", str(request.state)
        case UpdateState():
            return "update a state", str(request.state)
        case DeleteState():
            return "delete a state", f"{request.destination} spi {request.spi:#010x}"
        case AddPolicy():
            return "add a policy", str(request.policy)
        case UpdatePolicy():
            return "update a policy", str(request.policy)
        case DeletePolicy():
            return "delete a policy", str(request.slot)
        case _:
            assert_never(request)


def _refusal(request: Request, answer: Answer) -> XfrmError | None:
    if not answer.errno:
        return None
    operation, subject = _describe(request)
    match request, answer.errno:
        case AddPolicy(), errno.EEXIST:
            return PolicyExists(operation, subject, answer.errno, answer.reason)
        case AddState(), errno.EEXIST:
            return StateExists(operation, subject, answer.errno, answer.reason)
        case ((AddState() | UpdateState()), errno.ENOENT):
            # Not a missing state: the crypto API's word for a missing cipher (esp_init_aead in net/ipv4/esp4.c).
            return NotSupported(operation, subject, answer.errno, answer.reason)
        case _:
            return error_from_errno(operation, subject, answer.errno, answer.reason)
