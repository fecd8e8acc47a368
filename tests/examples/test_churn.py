"""The launcher's operator: what it may do to a group, and what it makes of the answers."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import churn
import churn_acts
import pytest
import scratch_groups
import trio
from churn import DOCUMENTED_KINDS, Churn
from churn_acts import VOTERS_MIN, ChurnActs
from cluster_nodes import ClusterNodes
from http_client import Answer
from log_limits import LogLimits
from node_process import NodeProcess, NodeState
from operator_client import GroupLook, NoOutcomeError, OperatorClient, RefusedError
from scratch_groups import ScratchGroups, StuckError
from trio.testing import MockClock

import trioraft

JSON = {"configuration": 9, "leader": 2, "index": 5, "is_removed": True}


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


def look(*, voters: set[int], learners: set[int] = frozenset(), having: set[int] | None = None, up: set[int] | None = None) -> GroupLook:  # type: ignore[assignment]  # an empty set
    return GroupLook(
        leader=min(voters),
        voters=frozenset(voters),
        learners=frozenset(learners),
        configuration=7,
        incarnation=1,
        up=frozenset(up or {1, 2, 3, 4, 5}),
        having=frozenset(voters | learners if having is None else having),
        filled=frozenset({min(voters)}),
    )


@attrs.define
class FakeClient:
    """Notes what it is asked, and answers everything with yes, or as it is told."""

    asked: list[tuple[int, str, str, Any]] = attrs.Factory(list)
    answers: Callable[[int, str, str], Answer | Exception] = lambda _node_id, _method, _path: yes()
    seen: GroupLook | None = None

    async def ask(self, node_id: int, method: str, path: str, value: Any = None, *, seconds: float = 1.0) -> Answer:
        await trio.lowlevel.checkpoint()
        self.asked.append((node_id, method, path, value))
        answer = self.answers(node_id, method, path)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def look(self, group_id: int) -> GroupLook | None:
        await trio.lowlevel.checkpoint()
        return self.seen

    @property
    def changes(self) -> list[dict[str, Any]]:
        return [value for _, _, path, value in self.asked if path.endswith("/members")]


def yes(body: bytes = b'{"leader": 2, "index": 5}') -> Answer:
    return Answer(200, {}, body)


# --- what is possible -------------------------------------------------------------------------------------------------------------------


def test_a_group_of_three_voters_loses_none() -> None:
    acts = ChurnActs(FakeClient(), random.Random(1))
    assert acts.possible(1, look(voters={1, 2, 3})) == ["add", "replace", "transfer", "snapshot"]
    assert acts.possible(1, look(voters={1, 2, 3}, having={1, 2, 3, 4, 5})) == [
        "add_again_over_leftovers",
        "replace",
        "transfer",
        "snapshot",
    ]
    more = acts.possible(1, look(voters={1, 2, 3, 4, 5}))
    assert more == ["demote", "remove_and_leave", "remove_for_good", "transfer", "snapshot"]


def test_nobody_who_is_down_is_brought_in() -> None:
    acts = ChurnActs(FakeClient(), random.Random(1))
    assert acts.possible(1, look(voters={1, 2, 3}, learners={4}, up={1, 2, 3})) == ["remove_and_leave", "transfer", "snapshot"]


async def test_no_act_leaves_fewer_voters_than_needed_and_each_says_what_it_goes_by() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        nodes = rng.sample(range(1, 6), 5)
        voters, learners = set(nodes[: rng.randint(3, 5)]), set(nodes[5 - rng.randint(0, 2) :])
        seen = look(voters=voters, learners=learners - voters, having=voters | learners | set(nodes[: rng.randint(0, 5)]))
        client = FakeClient()
        acts = ChurnActs(client, rng)
        for kind in acts.possible(1, seen):
            await acts.all[kind](1, seen)
        for change in client.changes:
            assert len(change["voters"]) >= VOTERS_MIN
            assert not {*change["voters"]} & {*change["learners"]}
            assert len({*seen.voters} - {*change["voters"]}) <= 1
            assert change["expect"] == 7
        assert all(node_id in seen.members & seen.having for node_id, _, path, _ in client.asked if path.endswith("/members"))


async def test_a_new_member_has_a_replica_before_anybody_counts_on_it() -> None:
    client = FakeClient()
    await ChurnActs(client, random.Random(1)).all["replace"](1, look(voters={1, 2, 3}, up={1, 2, 3, 4}))
    assert next((node_id, path, value) for node_id, _, path, value in client.asked) == (4, "/groups/1", {"join": True, "incarnation": 1})
    assert 4 in client.changes[0]["voters"]
    assert len(client.changes[0]["voters"]) == 3


async def test_only_who_has_applied_something_takes_a_snapshot() -> None:
    client = FakeClient()
    for seed in range(20):
        await ChurnActs(client, random.Random(seed)).all["snapshot"](1, look(voters={1, 2, 3}))
    assert {node_id for node_id, *_ in client.asked} == {1}


async def test_a_replica_goes_for_good_once_its_removal_is_committed_and_may_come_again() -> None:
    client = FakeClient()
    acts = ChurnActs(client, random.Random(1))
    await acts.all["remove_for_good"](1, look(voters={1, 2, 3}, learners={4}))
    assert [(method, path) for _, method, path, _ in client.asked] == [("PUT", "/groups/1/members"), ("DELETE", "/groups/1")]
    assert acts.possible(1, look(voters={1, 2, 3}, up={1, 2, 3, 4}))[0] == "add_again_after_removal"
    client.answers = lambda _node_id, _method, _path: RefusedError("change_pending", "no")
    client.asked.clear()
    with pytest.raises(RefusedError):
        await acts.all["remove_for_good"](1, look(voters={1, 2, 3, 5}))
    assert {method for _, method, _, _ in client.asked} == {"PUT"}


async def test_who_is_never_told_is_removed_all_the_same(autojump_clock: MockClock) -> None:
    client = FakeClient()
    client.answers = lambda _node_id, method, path: (
        RefusedError("group-exists", "it votes") if method == "DELETE" and "force" not in path else yes()
    )
    text = await ChurnActs(client, random.Random(1)).all["remove_for_good"](1, look(voters={1, 2, 3, 4}))
    assert client.asked[-1][2] == "/groups/1?force=1"
    assert "nobody had told" in text
    assert churn_acts.TOLD_SECONDS < trio.current_time() < churn_acts.TOLD_SECONDS + 1 + autojump_clock.current_time()


# --- the verdict ------------------------------------------------------------------------------------------------------------------------


def make_churn(tmp_path: Path, client: FakeClient) -> Churn:
    nodes = ClusterNodes(5, 1, tmp_path, LogLimits(), lambda _: None, replicas=3)
    made = Churn(nodes, 1, 1, lambda _: None)
    made._client = client
    made._acts = ChurnActs(client, random.Random(1))
    return made


def act(kind: str, seen: GroupLook, tmp_path: Path, answer: Exception | None) -> Churn:
    client = FakeClient(seen=seen)
    if answer is not None:
        client.answers = lambda _node_id, _method, _path: answer
    made = make_churn(tmp_path, client)
    trio.run(made._carry_out, kind, 1, seen)
    return made


def test_what_succeeds_and_what_does_not_is_counted(tmp_path: Path) -> None:
    seen = look(voters={1, 2, 3})
    assert act("snapshot", seen, tmp_path, None).done["snapshot"] == 1
    refused = act("snapshot", seen, tmp_path, RefusedError("not-leader", "no"))
    assert (refused.done["snapshot"], refused.refused, refused._problems) == (0, Counter({"not-leader": 1}), [])
    unknown = act("transfer", seen, tmp_path, NoOutcomeError("gone"))
    assert (unknown.unknown, unknown._problems) == (1, [])


def test_a_refusal_that_nobody_documented_fails_the_run(tmp_path: Path) -> None:
    made = act("transfer", look(voters={1, 2, 3}), tmp_path, RefusedError("needs_joint", "no"))
    assert "needs_joint" in made.problems()[0]


def test_an_act_that_never_succeeded_fails_the_run(tmp_path: Path) -> None:
    made = make_churn(tmp_path, FakeClient())
    made.done.update({kind: 1 for kind in made.done if kind != "demote"})
    assert made.problems() == ["these acts of churn never succeeded: demote"]
    made.done["demote"] = 1
    assert made.problems() == []


async def test_an_act_that_takes_for_ever_fails_the_run(tmp_path: Path, autojump_clock: MockClock) -> None:
    made = make_churn(tmp_path, FakeClient())

    async def slow(_group_id: int, _look: GroupLook) -> str:
        await trio.sleep(churn.ACT_SECONDS_MAX + 1)
        return "done"

    made._acts.all["snapshot"] = slow
    await made._carry_out("snapshot", 1, look(voters={1, 2, 3}))
    assert "took 26.0 s" in made.problems()[0]


def test_what_was_done_least_often_is_next(tmp_path: Path) -> None:
    made = make_churn(tmp_path, FakeClient())
    made.done.update(add=2, replace=2, transfer=1, snapshot=2)
    assert made._choose(1, look(voters={1, 2, 3})) == "transfer"


def test_the_kinds_are_those_of_the_documentation() -> None:
    documented = set()
    for error in (trioraft.ChangeRefusedError, trioraft.TransferRefusedError):
        documented |= set(re.findall(r"^ *``(\w+)``", error.__doc__ or "", re.MULTILINE))
    assert {kind for kind in DOCUMENTED_KINDS if "_" in kind} | {"leads", "pending", "silent", "timeout"} <= documented


# --- groups that come and go ------------------------------------------------------------------------------------------------------------


def make_scratch(tmp_path: Path, client: FakeClient) -> ScratchGroups:
    nodes = ClusterNodes(5, 1, tmp_path, LogLimits(), lambda _: None, replicas=3)
    nodes.nodes = {node_id: NodeProcess(node_id, 1, 1, tmp_path, (), state=NodeState.UP) for node_id in range(1, 6)}
    return ScratchGroups(nodes, client, 9, random.Random(1), Counter())


async def test_a_life_is_begun_on_three_nodes_checked_and_ended_there(tmp_path: Path, autojump_clock: MockClock) -> None:
    client = FakeClient()
    client.answers = lambda _node_id, method, _path: RefusedError("no-such-group", "") if method == "DELETE" else yes(b"old")
    scratch = make_scratch(tmp_path, client)
    await scratch.live()
    begun = [(node_id, value) for node_id, method, path, value in client.asked if (method, path) == ("PUT", "/groups/9")]
    members = begun[0][1]["members"]
    assert sorted(node_id for node_id, _ in begun) == members
    assert len(members) == 3
    assert len({value["incarnation"] for _, value in begun}) == 1
    assert [node_id for node_id, method, _, _ in client.asked if method == "DELETE"][5:] == [node_id for node_id, _ in begun]
    assert len(scratch.problems) == 2  # both readers saw what was never written in this life
    assert "b'old'" in scratch.problems[0]


async def test_a_node_that_never_does_it_ends_the_lives(tmp_path: Path, autojump_clock: MockClock) -> None:
    client = FakeClient()
    client.answers = lambda _node_id, _method, _path: NoOutcomeError("gone")
    with pytest.raises(StuckError, match="gone"):
        await make_scratch(tmp_path, client).live()
    assert len(client.asked) > scratch_groups.STUCK_SECONDS


async def test_the_operator_stops_when_told(tmp_path: Path, autojump_clock: MockClock) -> None:
    client = FakeClient(seen=look(voters={1, 2, 3}))
    made = make_churn(tmp_path, client)
    made._scratch.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        await trio.sleep(20)
        made.stop()
    assert sum(made.done.values()) > 20
    assert made._idle == {1}


async def test_answers_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = ClusterNodes(1, 1, tmp_path, LogLimits(), lambda _: None)
    nodes.nodes[1] = NodeProcess(1, 1, 1, tmp_path, (), state=NodeState.UP)
    answers: list[Answer] = []

    async def request(*_: Any) -> Answer:
        await trio.lowlevel.checkpoint()
        return answers.pop()

    monkeypatch.setattr("http_client.HttpConnection.request", request)
    client = OperatorClient(nodes)
    answers.append(Answer(409, {}, b'{"error": "change-refused", "kind": "learner_behind", "text": "wait"}'))
    with pytest.raises(RefusedError) as refused:
        await client.ask(1, "PUT", "/groups/1/members", {})
    assert refused.value.kind == "learner_behind"
    answers.append(Answer(503, {}, b'{"error": "not-leader", "text": "ask again"}'))
    with pytest.raises(RefusedError) as refused:
        await client.ask(1, "PUT", "/groups/1/members", {})
    assert refused.value.kind == "not-leader"
    answers.append(Answer(504, {}, b'{"error": "outcome-unknown", "text": "who knows"}'))
    with pytest.raises(NoOutcomeError, match="who knows"):
        await client.ask(1, "PUT", "/groups/1/members", {})
