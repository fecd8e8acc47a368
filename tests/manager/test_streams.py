"""What a replica tells of what it does, as streams: of applied entries, and of roles. Neither ever goes back, or skips in silence."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import trioraft
from trioraft import AppliedEntry, GroupConfig, Reset, Role
from trioraft.group._changes import KEPT_MAX

from .cluster import SimNode, eventually, propose_until_done, running_cluster
from .test_reads import leader_and_other

SMALL = GroupConfig(snapshot_entries=20, keep_entries=5)


@attrs.define
class TailReader:
    """Reads at one node, and after each restart of it goes on behind the last index that it has seen."""

    node: SimNode
    last: int = 0
    entries: dict[int, AppliedEntry] = attrs.Factory(dict)
    resets: int = 0
    starts: int = 0

    async def run(self) -> None:
        while True:
            if self.node.manager is not None and 1 in self.node.up.groups:
                self.starts += 1
                await self._read(self.node.group())
            await trio.sleep(0.02)

    async def _read(self, group: trioraft.RaftGroup) -> None:
        try:
            async for tailed in group.tail(self.last + 1):
                self._see(tailed, group.status().commit_index)
        except trioraft.RaftError:
            return  # the node goes down

    def _see(self, tailed: AppliedEntry | Reset, commit_index: int) -> None:
        if isinstance(tailed, Reset):
            assert tailed.snapshot.index > self.last, "a reset to what was seen"
            self.last = tailed.snapshot.index
            self.resets += 1
        else:
            assert tailed.index == self.last + 1
            assert tailed.index <= commit_index
            self.last = tailed.index
            self.entries[tailed.index] = tailed


async def test_CL_8_a_tail_never_goes_back_over_restart_snapshot_and_partition(thread_clock: trio.testing.MockClock, seed: int) -> None:
    async with running_cluster(seed=seed, group_config=SMALL) as cluster:
        with trio.fail_after(600):
            readers = {node_id: TailReader(node) for node_id, node in cluster.nodes.items()}
            async with trio.open_nursery() as nursery:
                for reader in readers.values():
                    nursery.start_soon(reader.run)

                async def write(name: str, *, among: set[int] | None = None) -> None:
                    for n in range(40):
                        leader = await cluster.leader(among=among)
                        await propose_until_done(partial(leader.group().propose, f"{name}{n}"))

                async def caught_up() -> None:
                    await cluster.settle()
                    await eventually(lambda: len({reader.last for reader in readers.values()}) == 1)

                await cluster.leader()
                await write("a")
                # A leader that is cut off has entries at its end that are none in the end.
                leader = await cluster.leader()
                cluster.network.isolate(leader.node_id)
                for n in range(5):
                    nursery.start_soon(_propose_in_vain, leader, n)
                await trio.sleep(0.1)
                rest = set(cluster.node_ids) - {leader.node_id}
                await eventually(lambda: any(node.group().is_leader for node in cluster.running() if node.node_id in rest))
                await write("b", among=rest)
                cluster.network.heal_all()
                await caught_up()
                assert readers[leader.node_id].resets >= 1, "what it missed is in a snapshot only"
                # One by one through a crash, with news meanwhile; then all at once.
                for node_id in cluster.node_ids:
                    await cluster.crash(node_id)
                    await write(f"c{node_id}-")
                    await cluster.start(node_id)
                    await cluster.settle()
                await cluster.crash(*cluster.node_ids)
                await cluster.start()
                await write("d")
                await caught_up()
                nursery.cancel_scope.cancel()
            assert all(reader.starts == 3 for reader in readers.values())
            told: dict[int, AppliedEntry] = {}
            for reader in readers.values():
                for index, entry in reader.entries.items():
                    assert told.setdefault(index, entry) == entry
            machine = cluster.nodes[1].machines[1]
            commands = {index: entry.command for index, entry in told.items() if entry.has_command}
            assert commands == {i: command for i, command in zip(machine.indexes, machine.commands, strict=True) if i in told}
            assert not [command for command in commands.values() if str(command).startswith("vain")]


async def _propose_in_vain(node: SimNode, number: int) -> None:
    with pytest.raises((trioraft.ProposalDroppedError, trioraft.OutcomeUnknownError)):
        await node.group().propose(f"vain{number}")


async def test_a_reader_that_comes_late_is_told_where_the_log_begins(thread_clock: trio.testing.MockClock) -> None:
    async with running_cluster(nodes=1, group_config=SMALL) as cluster:
        with trio.fail_after(120):
            node = await cluster.leader()
            slow = node.group().tail(1)
            first = await anext(slow)
            assert first == AppliedEntry(1, node.group().status().term, False)
            for n in range(300):
                await propose_until_done(partial(node.group().propose, n))
            await eventually(lambda: node.group().status().first_index > 290 and node.group().status().snapshot.index > 290)
            for reader in (slow, node.group().tail(1)):
                seen = [await anext(reader)]
                while not isinstance(seen[-1], Reset):
                    seen.append(await anext(reader))
                assert seen[-1].snapshot == node.group().status().snapshot
                behind = await anext(reader)
                assert isinstance(behind, AppliedEntry)
                assert behind.index == seen[-1].snapshot.index + 1
            with trio.move_on_after(1) as scope:
                await anext(node.group().tail(1000))
            assert scope.cancelled_caught
            for index in (0, -1, True, "1"):
                with pytest.raises(trioraft.ConfigError):
                    node.group().tail(index)  # type: ignore[arg-type]  # bad input, on purpose


async def test_changes_are_numbered_without_holes_and_end_with_the_group(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(120):
            leader, other = await leader_and_other(cluster)
            await leader.group().propose("x")
            seen: dict[int, list[Any]] = {node_id: [] for node_id in cluster.node_ids}

            async def read(node: SimNode) -> None:
                async for change in node.group().changes():
                    seen[node.node_id].append(change)

            group = leader.group()
            async with trio.open_nursery() as nursery:
                for node in cluster.running():
                    nursery.start_soon(read, node)
                await trio.sleep(0.1)
                await leader.group().transfer_leadership(other.node_id)
                await propose_until_done(lambda: other.group().propose("y"))
                cluster.network.isolate(other.node_id)
                await cluster.leader(among=set(cluster.node_ids) - {other.node_id})
                cluster.network.heal_all()
                await trio.sleep(5)
                for node_id in cluster.node_ids:
                    await cluster.stop(node_id)
            for changes in seen.values():
                numbers, terms = [change.number for change in changes], [change.term for change in changes]
                assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
                assert terms == sorted(terms)
                assert len({(change.role, change.term, change.leader) for change in changes}) == len(changes), "told twice"
            leaders = {(change.term, node_id) for node_id, changes in seen.items() for change in changes if change.role is Role.LEADER}
            assert len({term for term, _ in leaders}) == len(leaders) >= 3
            assert {(change.term, change.leader) for changes in seen.values() for change in changes if change.leader} == leaders
            rest = [change async for change in group.changes()]
            assert rest == seen[leader.node_id][-1:], "how it was last, and the end"


async def test_a_slow_reader_of_changes_misses_the_oldest_and_sees_it_by_the_numbers(autojump_clock: trio.testing.MockClock) -> None:
    async with running_cluster() as cluster:
        with trio.fail_after(600):
            leader, other = await leader_and_other(cluster)
            slow, quick = leader.group().changes(), leader.group().changes()
            first = await anext(slow)
            assert await anext(quick) == first
            number = first.number
            while number < first.number + KEPT_MAX + 20:
                now = await cluster.leader()
                target = other if now is leader else leader
                try:
                    await now.group().transfer_leadership(target.node_id)
                except (trioraft.TransferRefusedError, trioraft.NotLeaderError):
                    await trio.sleep(0.5)
                    continue
                while True:
                    change = await anext(quick)
                    number += 1
                    assert change.number == number
                    if change.leader == target.node_id:
                        break
            kept = [await anext(slow) for _ in range(KEPT_MAX)]
            assert [change.number for change in kept] == list(range(kept[0].number, kept[0].number + KEPT_MAX))
            assert kept[0].number > first.number + 1, "no hole"
            assert kept[-1].number == number
