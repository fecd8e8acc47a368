"""Requests on their way to the group's leader: its core, if it leads here, or its node.

A request is a kind and bytes, whoever made it, so that the leader takes one from another node just as its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from .._errors import (
    BusyError,
    ChangeRefusedError,
    ConfigError,
    NotLeaderError,
    OutcomeUnknownError,
    ProposalDroppedError,
    WireError,
)
from .._types import GroupKey, NodeId
from ..core import ChangeMembers, EntryKind, Propose, Request, Target, TransferLeadership
from ..wire import RequestKind, decode_value, encode_value
from ._applier import Applier
from ._host import Host
from ._inbox import Inbox
from ._leadership import Leadership
from ._queries import Question
from ._session_table import check_entry
from ._waiter import Token, Waiter


class Requests:
    """What one replica does with a request."""

    def __init__(self, key: GroupKey, inbox: Inbox, applier: Applier, leadership: Leadership, host: Host) -> None:
        self._key: Final = key
        self._inbox, self._applier, self._leadership, self._host = inbox, applier, leadership, host

    async def ask(self, kind: RequestKind, payload: bytes) -> Any:
        """Bring a request of this node to where the leader is, and wait for the answer.

        *Cancellation:* what was asked for may be done all the same; only the answer is lost.
        """
        waiter = Waiter()
        self.hand_over(kind, payload, waiter)
        return await waiter.wait()

    def hand_over(self, kind: RequestKind, payload: bytes, token: Token, *, forwarded: bool = False) -> None:
        """Bring a request to where the leader is. The token hears all that follows, refusals included.

        Args:
            forwarded: it came from another node already, so it goes no further.
        """
        leader = self._leadership.leader
        if leader == self._host.node_id:
            try:
                self._put(kind, payload, token)
            except (WireError, ConfigError, ChangeRefusedError) as error:
                token.fail(error)
        elif self._leadership.has_stopped:
            token.fail(self._leadership.stopped_error())
        elif leader is None or forwarded:
            token.fail(NotLeaderError(leader))
        else:
            self._host.forward(leader, self._key, kind, payload, token)

    def _put(self, kind: RequestKind, payload: bytes, token: Token) -> None:
        """Hand a request to the core of this replica, which leads."""
        match kind:
            case RequestKind.COMMAND:
                self._put_request(Propose(token, payload))
            case RequestKind.READ_INDEX:
                self._put_read(token)
            case RequestKind.SESSION:
                check_entry(payload)
                self._put_request(Propose(token, payload, EntryKind.SESSION))
            case RequestKind.QUERY:
                self._put_read(Question(decode_value(payload), token, self._applier.ask))
            case RequestKind.CHANGE_MEMBERS:
                self._put_request(self._change(decode_value(payload), _ChangeToken(token)))
            case RequestKind.TRANSFER:
                self._put_request(TransferLeadership(token, _node_or_none(decode_value(payload))))

    def _put_read(self, token: Token) -> None:
        if not self._inbox.put_read(token):
            token.fail(self._no_room())

    def _put_request(self, request: Request) -> None:
        if type(request) is Propose:
            self._host.counters.proposals += 1
            if not self._host.has_room:
                request.token.fail(BusyError("the log's queue is full, or its disk is: propose again later"))
                return
        if not self._inbox.put_request(request):
            request.token.fail(self._no_room())

    def _no_room(self) -> BusyError:
        return BusyError(f"group {self._key.group_id} has no room for more requests: ask again later")

    def _change(self, value: Any, token: Token) -> ChangeMembers:
        if type(value) is not list or len(value) != 3:
            raise ConfigError("a change of membership is [voters, learners, expected index or null]")
        voters, learners, expect = _node_set(value[0]), _node_set(value[1]), value[2]
        if expect is not None:
            _check_index(expect)
        target = Target(voters, learners)
        strangers = sorted(node_id for node_id in voters | learners if not self._host.knows_address(node_id))
        if strangers:
            text = f"the leader, node {self._host.node_id}, knows no address of nodes {strangers}: tell it by set_address"
            raise ChangeRefusedError("unknown_node", text)
        return ChangeMembers(token, target, expect)


class _ChangeToken:
    """Whoever waits for a change of membership: the entry that it ends with may be in no log, and steps before it, or all, be made."""

    __slots__ = ("_token",)

    def __init__(self, token: Token) -> None:
        self._token = token

    def succeed(self, result: Any) -> None:
        self._token.succeed(result)

    def fail(self, error: Exception) -> None:
        if isinstance(error, ProposalDroppedError):
            error = OutcomeUnknownError("leadership was lost while members were changing: look at who is in the group")
        self._token.fail(error)


def encode_change(voters: Iterable[NodeId], learners: Iterable[NodeId], expect: int | None) -> bytes:
    """The payload of a change of membership, as `RequestKind.CHANGE_MEMBERS` says.

    Raises:
        ConfigError: what is no node id, or no index.
    """
    if expect is not None:
        _check_index(expect)
    return encode_value([sorted({_node(node_id) for node_id in ids}) for ids in (voters, learners)] + [expect])


def encode_target(target: NodeId | None) -> bytes:
    """The payload of a transfer of leadership, as `RequestKind.TRANSFER` says.

    Raises:
        ConfigError: what is no node id.
    """
    return encode_value(_node_or_none(target))


def _check_index(value: Any) -> None:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ConfigError(f"the expected index of a configuration is a whole number from 0, not {value!r}")


def _node_set(value: Any) -> frozenset[NodeId]:
    if type(value) is not list:
        raise ConfigError(f"members are a list of node ids, not {value!r}")
    return frozenset(_node(node_id) for node_id in value)


def _node_or_none(value: Any) -> NodeId | None:
    return None if value is None else _node(value)


def _node(value: Any) -> NodeId:
    if type(value) is not int or not 1 <= value < 1 << 32:
        raise ConfigError(f"a node id is a whole number from 1 to 2**32 - 1, not {value!r}")
    return value
