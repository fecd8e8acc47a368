"""Entries that lost against another leader's: whoever waits for one hears of it, even if the log never grows to its index."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing

from trioraft import GroupStoppedError, NotLeaderError, OutcomeUnknownError, ProposalDroppedError
from trioraft._types import NOTHING, EntryId
from trioraft.core import Raft
from trioraft.group._fates import Fates
from trioraft.group._proposals import Proposals
from trioraft.group._waiter import Waiter

from ..manager.cluster import Cluster, eventually, running_cluster
from ..manager.test_reads import leader_and_other
from .taking_kit import Recorder
from .test_applier import Bench
from .test_parts import Caller


class TestProposals:
    def test_a_newer_term_tells_those_behind_it_whose_entries_are_older(self) -> None:
        proposals, old, older, same = Proposals(), Caller(), Caller(), Caller()
        proposals.add(EntryId(2, 7), old)
        proposals.add(EntryId(1, 9), older)
        proposals.add(EntryId(3, 9), same)
        proposals.answer(5, 2, None)
        assert isinstance(older.error, ProposalDroppedError)
        assert (old.error, same.error, len(proposals)) == (None, None, 2)
        proposals.answer(6, 3, None)
        assert isinstance(old.error, ProposalDroppedError)
        assert (same.error, len(proposals)) == (None, 1)
        proposals.answer(9, 3, "done")
        assert (same.result, len(proposals)) == ("done", 0)

    def test_a_snapshot_of_a_newer_term_tells_them_too(self) -> None:
        proposals, covered, behind = Proposals(), Caller(), Caller()
        proposals.add(EntryId(1, 5), covered)
        proposals.add(EntryId(1, 9), behind)
        proposals.abandon_to(6, "a snapshot")
        proposals.begin_term(2)
        assert isinstance(covered.error, OutcomeUnknownError)
        assert isinstance(behind.error, ProposalDroppedError)
        assert len(proposals) == 0


async def test_callers_of_a_deposed_leader_hear_of_it_in_a_group_that_is_idle(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(120):
            leader, _ = await leader_and_other(cluster)
            cluster.network.isolate(leader.node_id)
            group, answers = leader.group(), list[Exception]()

            async def propose(number: int) -> None:
                with pytest.raises(ProposalDroppedError) as caught:
                    await group.propose(number)
                answers.append(caught.value)

            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(propose, number)
                await deposed(cluster, leader.node_id)
                last = group.status().last_index
                cluster.network.heal_all()
            assert len(answers) == 5
            assert group.status().last_index < last, "the log has grown: this shows nothing"
            assert await cluster.settle() == []


async def deposed(cluster: Cluster, node_id: int) -> None:
    new = await cluster.leader(among=set(cluster.node_ids) - {node_id})
    await eventually(lambda: new.group().status().applied_index == new.group().status().last_index)


@attrs.define(eq=False)
class Replica:
    """A log of which terms are known, and an applier that is told how far it has come."""

    terms: dict[int, int]
    start: EntryId = NOTHING
    commit_index: int = 0
    is_removed: bool = False
    applier: Any = attrs.Factory(lambda: Bench(Recorder()).applier)

    @property
    def log(self) -> Any:
        return SimpleNamespace(start=self.start)

    def term_at(self, index: int) -> int:
        return self.terms.get(index, 0)

    async def fate(self, at: EntryId) -> str:
        with trio.fail_after(5):
            return await Fates(cast(Raft, self), self.applier).unknown("lost", at.index, at.term).fate()

    def apply_to(self, index: int) -> None:
        self.applier._advance(index)


class TestFates:
    async def test_an_entry_that_is_applied_here_or_another_in_its_place(self) -> None:
        replica = Replica({1: 1, 2: 2})
        replica.apply_to(2)
        assert await replica.fate(EntryId(1, 1)) == "applied"
        assert await replica.fate(EntryId(1, 2)) == "dropped"

    async def test_it_is_waited_for(self, autojump_clock: trio.testing.MockClock) -> None:
        replica, fates = Replica({1: 1, 2: 1, 3: 1}), list[str]()

        async def ask(index: int) -> None:
            fates.append(await replica.fate(EntryId(1, index)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 3)
            for index in (1, 2):
                replica.apply_to(index)
                await trio.testing.wait_all_tasks_blocked()
                assert fates == []
            replica.apply_to(3)
        assert fates == ["applied"]
        assert replica.applier.waiting == 0

    async def test_a_newer_term_before_its_place_decides(self, autojump_clock: trio.testing.MockClock) -> None:
        replica, fates = Replica({1: 1, 2: 3, 3: 3}), list[str]()

        async def ask() -> None:
            fates.append(await replica.fate(EntryId(2, 9)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            replica.apply_to(1)
            await trio.testing.wait_all_tasks_blocked()
            assert fates == []
            replica.apply_to(2)
        assert fates == ["dropped"]
        assert await replica.fate(EntryId(2, 9)) == "dropped", "known at once"

    async def test_what_is_behind_a_snapshot_is_not_known(self) -> None:
        replica = Replica({5: 1}, start=EntryId(1, 5))
        replica.apply_to(5)
        assert await replica.fate(EntryId(1, 5)) == "unknown"

    @pytest.mark.parametrize("error", [GroupStoppedError(7), NotLeaderError(None)], ids=["stopped", "removed"])
    async def test_a_replica_that_ends_meanwhile_knows_nothing(self, autojump_clock: trio.testing.MockClock, error: Exception) -> None:
        replica, fates = Replica({1: 1}), list[str]()
        replica.apply_to(1)

        async def ask() -> None:
            fates.append(await replica.fate(EntryId(1, 5)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            if isinstance(error, GroupStoppedError):
                replica.applier.close(error)
            else:
                replica.applier.abandon_from(2, error)
        assert fates == ["unknown"]

    async def test_a_replica_that_was_removed_before_knows_nothing(self) -> None:
        replica = Replica({1: 1, 2: 1}, commit_index=2, is_removed=True)
        replica.apply_to(2)
        assert await replica.fate(EntryId(1, 5)) == "unknown"
        assert await replica.fate(EntryId(1, 2)) == "applied"

    async def test_whoever_leaves_leaves_nothing(self, autojump_clock: trio.testing.MockClock) -> None:
        replica = Replica({1: 1})
        with trio.move_on_after(1) as scope:
            await replica.fate(EntryId(1, 5))
        assert scope.cancelled_caught
        assert replica.applier.waiting == 0


async def test_a_waiter_is_answered_once(autojump_clock: trio.testing.MockClock) -> None:
    proposals, waiter = Proposals(), Waiter()
    proposals.add(EntryId(1, 4), waiter)
    proposals.answer(2, 2, None)
    proposals.answer(4, 2, "of another")
    with trio.fail_after(5), pytest.raises(ProposalDroppedError, match="4@1"):
        await waiter.wait()
