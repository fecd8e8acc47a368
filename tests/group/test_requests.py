"""Requests by kind and bytes: what becomes of them at the leader, elsewhere, and when they make no sense."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import ANY

import pytest

from trioraft import BusyError, ChangeRefusedError, ConfigError, GroupStoppedError, NotLeaderError, WireError
from trioraft._types import GroupKey
from trioraft.core import ChangeMembers, EntryKind, Propose, Read, Role, RoleChange, Target, TransferLeadership
from trioraft.group import Host
from trioraft.group._applier import Applier
from trioraft.group._inbox import Inbox
from trioraft.group._leadership import Leadership
from trioraft.group._queries import Question
from trioraft.group._requests import Requests, encode_change, encode_target
from trioraft.group._session_table import encode_open
from trioraft.observe import Counters
from trioraft.wire import RequestKind, encode_value

from .taking_kit import Caller

KEY = GroupKey(7)


class Bench:
    """A replica on node 1, with a host that remembers what it should pass on."""

    def __init__(self, leader: int | None = 1, *, has_room: bool = True) -> None:
        self.forwarded: list[tuple[int, RequestKind, bytes]] = []
        self.inbox = Inbox(16, 1000)
        self.leadership = Leadership(RoleChange(Role.FOLLOWER, 1, None), lambda: GroupStoppedError(7))
        self.leadership.changed(RoleChange(Role.FOLLOWER, 2, leader))
        host = SimpleNamespace(
            node_id=1,
            counters=Counters(),
            has_room=has_room,
            knows_address=lambda node_id: node_id < 9,
            forward=lambda peer, key, kind, payload, token: self.forwarded.append((peer, kind, payload)),
        )
        applier = cast(Applier, SimpleNamespace(ask=lambda index, question: question.token.succeed(index)))
        self.requests = Requests(KEY, self.inbox, applier, self.leadership, cast(Host, host))

    def hand_over(self, kind: RequestKind, payload: bytes, *, forwarded: bool = False) -> Caller:
        caller = Caller()
        self.requests.hand_over(kind, payload, caller, forwarded=forwarded)
        return caller


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        (RequestKind.COMMAND, b"any bytes", lambda token: Propose(token, b"any bytes")),
        (RequestKind.SESSION, encode_open(8), lambda token: Propose(token, encode_open(8), EntryKind.SESSION)),
        (RequestKind.READ_INDEX, b"", lambda token: Read([token])),
        (
            RequestKind.CHANGE_MEMBERS,
            encode_change([3, 1, 2, 1], {4}, 17),
            lambda token: ChangeMembers(ANY, Target(frozenset({1, 2, 3}), frozenset({4})), 17),
        ),
        (RequestKind.TRANSFER, encode_target(2), lambda token: TransferLeadership(token, 2)),
        (RequestKind.TRANSFER, encode_target(None), lambda token: TransferLeadership(token, None)),
    ],
)
@pytest.mark.parametrize("forwarded", [False, True])
def test_each_kind_is_an_event_at_the_leader_and_goes_as_it_is_to_another(
    kind: RequestKind, payload: bytes, expected: Any, forwarded: bool
) -> None:
    bench = Bench()
    caller = bench.hand_over(kind, payload, forwarded=forwarded)
    assert bench.inbox.take() == [expected(caller)]
    elsewhere = Bench(leader=2)
    caller = elsewhere.hand_over(kind, payload, forwarded=forwarded)
    if forwarded:
        assert isinstance(caller.error, NotLeaderError), "no further"
        assert caller.error.leader == 2
    else:
        assert elsewhere.forwarded == [(2, kind, payload)]


def test_a_query_asks_the_machine_when_its_index_is_known() -> None:
    bench = Bench()
    caller = bench.hand_over(RequestKind.QUERY, encode_value(["get", "x"]))
    (read,) = bench.inbox.take()
    assert isinstance(read, Read)
    (question,) = read.tokens
    assert isinstance(question, Question)
    assert question.query == ["get", "x"]
    question.succeed(12)
    assert caller.result == 12


@pytest.mark.parametrize("kind", list(RequestKind))
def test_nobody_to_ask_and_nobody_who_asks(kind: RequestKind) -> None:
    bench = Bench(leader=None)
    error = bench.hand_over(kind, b"").error
    assert isinstance(error, NotLeaderError)
    assert error.leader is None
    bench.leadership.stop()
    for forwarded in (False, True):
        assert isinstance(bench.hand_over(kind, b"", forwarded=forwarded).error, GroupStoppedError)
    assert (bench.inbox.take(), bench.forwarded) == ([], [])


@pytest.mark.parametrize(
    ("kind", "payload", "error"),
    [
        (RequestKind.SESSION, b"", WireError),
        (RequestKind.SESSION, b"\x01too short", WireError),
        (RequestKind.QUERY, b"\xff", WireError),
        (RequestKind.TRANSFER, b"", WireError),
        (RequestKind.TRANSFER, encode_value("2"), ConfigError),
        (RequestKind.TRANSFER, encode_value(0), ConfigError),
        (RequestKind.CHANGE_MEMBERS, b"\xff", WireError),
        (RequestKind.CHANGE_MEMBERS, encode_value(5), ConfigError),
        (RequestKind.CHANGE_MEMBERS, encode_value([[1], []]), ConfigError),
        (RequestKind.CHANGE_MEMBERS, encode_value([1, [], None]), ConfigError),
        (RequestKind.CHANGE_MEMBERS, encode_value([[1, "2"], [], None]), ConfigError),
        (RequestKind.CHANGE_MEMBERS, encode_value([[1], [1 << 32], None]), ConfigError),
        (RequestKind.CHANGE_MEMBERS, encode_value([[1], [], "now"]), ConfigError),
        (RequestKind.CHANGE_MEMBERS, encode_value([[1], [], -1]), ConfigError),
        (RequestKind.CHANGE_MEMBERS, encode_value([[1, 2], [2], None]), (ConfigError, ChangeRefusedError)),
        (RequestKind.CHANGE_MEMBERS, encode_value([[1], [9], None]), ChangeRefusedError),
    ],
)
def test_what_makes_no_sense_is_refused_whoever_sent_it(kind: RequestKind, payload: bytes, error: Any) -> None:
    bench = Bench()
    caller = bench.hand_over(kind, payload, forwarded=True)
    assert isinstance(caller.error, error)
    assert bench.inbox.take() == []


@pytest.mark.parametrize(
    "arguments", [([1, "2"], [], None), ([True], [], None), ([0], [], None), ([1], [2**32], None), ([1], [], -1), ([1], [], 1.0)]
)
def test_what_cannot_be_asked_for_is_not_sent(arguments: Any) -> None:
    with pytest.raises(ConfigError):
        encode_change(*arguments)


@pytest.mark.parametrize("target", ["2", 0, 2**32, True, 1.5])
def test_no_target_that_is_no_node(target: Any) -> None:
    with pytest.raises(ConfigError):
        encode_target(target)


def test_no_room_in_the_inbox_refuses_all_and_none_in_the_log_refuses_writes() -> None:
    bench = Bench()
    for _ in range(16):
        assert bench.hand_over(RequestKind.READ_INDEX, b"").error is None
    for kind, payload in ((RequestKind.READ_INDEX, b""), (RequestKind.COMMAND, b"x"), (RequestKind.TRANSFER, encode_target(2))):
        assert isinstance(bench.hand_over(kind, payload).error, BusyError)
    bench = Bench(has_room=False)
    assert isinstance(bench.hand_over(RequestKind.COMMAND, b"x").error, BusyError)
    assert isinstance(bench.hand_over(RequestKind.SESSION, encode_open(1)).error, BusyError)
    assert bench.hand_over(RequestKind.READ_INDEX, b"").error is None
