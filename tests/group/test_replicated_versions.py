"""Programs of two versions on one log: the rolling upgrade of a replicated object."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.manager.cluster import Cluster, SimNode, eventually, propose_until_done
from trioraft import GroupStoppedError, Replicated, VersionError, WireError, command, query
from trioraft.wire import decode_value, encode_value

from .replicated_kit import OneLog, replay, through_bytes


class Ledger(Replicated):
    """The program of last year."""

    def __init__(self) -> None:
        self.total = 0

    @command
    def add(self, amount: int) -> int:
        self.total += amount
        return self.total

    @query
    def get(self) -> int:
        return self.total


class Ledger2(Replicated):
    """The same ledger, one version on: amounts have notes, and there is a new command."""

    def __init__(self) -> None:
        self.total = 0
        self.notes: list[str] = []

    @command(version=2)
    def add(self, amount: int, note: str = "-") -> int:
        self._add_1(amount)
        self.notes.append(note)
        return self.total

    @add.version(1)
    def _add_1(self, amount: int) -> int:
        self.total += amount
        return self.total

    @command(version=2)
    def reset(self) -> None:
        self.total = 0

    @query
    def get(self) -> int:
        return self.total


async def test_before_the_upgrade_new_code_does_what_the_old_code_does() -> None:
    old, new = Ledger(), Ledger2()
    log = OneLog(new, old)
    assert await new.add(5) == 5
    assert (old.total, new.total, new.notes) == (5, 5, [])
    assert new.version_in_use == 1
    assert [decode_value(entry) for entry in log.log] == [["add", 1, {"amount": 5}]]


async def test_what_the_version_in_use_cannot_do_is_refused_before_the_log() -> None:
    new = Ledger2()
    log = OneLog(new)
    for call in (lambda: new.add(5, note="x"), lambda: new.add(5, "x"), new.reset):
        with pytest.raises(VersionError, match=r"version 1 is in use in group 7, and Ledger2.\w+\(\).* needs version 2: call upgrade\(\)"):
            await call()
    assert log.log == []


async def test_after_the_upgrade_the_newest_bodies_run() -> None:
    one, two = Ledger2(), Ledger2()
    log = OneLog(one, two)
    await one.add(5)
    assert await one.upgrade() == 2
    assert await one.add(1) == 6
    assert await two.add(1, note="x") == 7
    assert two.notes == ["-", "x"]
    await two.reset()
    assert (one.total, two.total) == (0, 0)
    assert await two.upgrade() == two.version_in_use == 2
    assert len(log.log) == 5, "a second upgrade writes nothing"


async def test_a_replica_that_has_not_heard_yet_asks_before_it_refuses() -> None:
    behind = Ledger2()

    class Delayed(OneLog):
        async def read_barrier(self) -> int:
            replay(behind, encode_value(["", 2, {}]), 1)
            return await super().read_barrier()

    Delayed(behind)
    await behind.reset()
    assert behind.version_in_use == 2


async def test_an_older_body_may_come_behind_the_upgrade() -> None:
    new = Ledger2()
    OneLog(new)
    await new.upgrade()
    replay(new, encode_value(["add", 1, {"amount": 3}]), 9)
    assert (new.total, new.notes) == (3, [])


async def test_defaults_are_those_of_the_caller() -> None:
    class Other(Ledger2):
        @command(version=2)
        def add(self, amount: int, note: str = "another default") -> int:
            self.notes.append(note)
            return 0

    one, two = Ledger2(), Other()
    log = OneLog(one)
    await one.upgrade()
    await one.add(1)
    OneLog(two)
    for index, entry in enumerate(log.log, 1):
        replay(two, entry, index)
    assert two.notes == one.notes == ["-"]


@pytest.mark.parametrize(
    "entry, text",
    [
        (["", 2, {}], "upgraded to version 2 of Ledger, and the code of this node is at version 1"),
        (
            ["add", 2, {"amount": 1}],
            "version 2 of Ledger.add(amount), and the code of this node, which is at version 1, has version 1 of it",
        ),
        (["reset", 2, {}], "version 2 of Ledger.reset(), and the code of this node, which is at version 1, has no such command"),
        (["get", 1, {}], "has no such command"),
        (["add", 1, {"amount": 1, "note": ""}], "has version 1 with other parameters: (amount)"),
        (["add", 1, {}], "with other parameters"),
    ],
    ids=["upgrade", "version", "command", "query", "more", "fewer"],
)
def test_what_the_code_does_not_know_changes_nothing_and_names_both_versions(entry: list[Any], text: str) -> None:
    old = Ledger()
    OneLog(old)
    with pytest.raises(VersionError) as caught:
        replay(old, encode_value(entry), 1)
    assert text in str(caught.value)
    assert (old.total, old.version_in_use) == (0, 1)


@pytest.mark.parametrize("entry", [5, [], ["add"], ["add", 1, [5]], [1, 1, {}], ["add", "1", {}]], ids=repr)
def test_entries_that_are_no_calls(entry: Any) -> None:
    with pytest.raises(WireError, match="no call"):
        replay(Ledger(), encode_value(entry), 1)


async def test_the_version_in_use_is_in_snapshots() -> None:
    new, other, old = Ledger2(), Ledger2(), Ledger()
    OneLog(new)
    OneLog(other)
    await new.upgrade()
    await new.add(5, note="x")
    other.restore(through_bytes(new.snapshot()))
    assert (other.version_in_use, other.total, other.notes) == (2, 5, ["x"])
    with pytest.raises(VersionError, match="snapshot is of version 2 of Ledger.*code of this node is at 1"):
        old.restore(through_bytes(new.snapshot()))
    assert old.total == 0


async def test_snapshots_go_both_ways_before_the_upgrade() -> None:
    old, new = Ledger(), Ledger2()
    OneLog(old)
    OneLog(new)
    await old.add(5)
    new.restore(through_bytes(old.snapshot()))
    assert (new.total, new.notes) == (5, [])
    back = Ledger()
    OneLog(back)
    back.restore(through_bytes(new.snapshot()))
    await back.add(1)
    assert back.total == 6
    again = Ledger2()
    OneLog(again)
    again.restore(through_bytes(back.snapshot()))
    assert (again.total, again.notes) == (6, [])


class TestDeclarations:
    @pytest.mark.parametrize("version", [2, 3, 1])
    def test_older_bodies_are_older_and_there_once(self, version: int) -> None:
        @command(version=2)
        def add(self: Any) -> None: ...

        add.version(1)(lambda self: None)
        with pytest.raises(TypeError, match="older body cannot have version"):
            add.version(version)

    @pytest.mark.parametrize("version", [0, -1, True, 1.0, "2"])
    def test_versions_are_numbers_from_one(self, version: Any) -> None:
        with pytest.raises(TypeError, match="whole numbers from 1"):
            command(version=version)(lambda self: None)

    async def test_an_upgrade_inside_of_a_body_or_without_a_group(self) -> None:
        with pytest.raises(RuntimeError, match="in no group"):
            await Ledger2().upgrade()

    async def test_a_class_of_one_version_has_nothing_to_upgrade(self) -> None:
        old = Ledger()
        log = OneLog(old)
        assert await old.upgrade() == 1
        assert log.log == []


# --- a cluster ------------------------------------------------------------------------------------------------------------------------


def ledger(node: SimNode) -> Any:
    return node.machines[1]


async def restart(cluster: Cluster, node_id: int, program: type[Replicated]) -> None:
    """Start a node anew, and wait until all know who leads: what is passed on to a node that is gone has no certain outcome."""
    await cluster.stop(node_id)
    cluster.machine = program  # type: ignore[assignment]  # any machine will do
    await cluster.start(node_id)
    await eventually(lambda: any(_all_follow(node, cluster) for node in cluster.running()))


def _all_follow(leader: SimNode, cluster: Cluster) -> bool:
    return leader.group().is_leader and all(node.group().leader in (leader.node_id, None) for node in cluster.running())


async def test_a_rolling_upgrade_node_by_node(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            cluster = Cluster(nursery, machine=Ledger)  # type: ignore[arg-type]  # any machine will do
            await cluster.start()
            total = 0
            for node_id in cluster.node_ids:
                await restart(cluster, node_id, Ledger2)
                for node in cluster.running():
                    total += 1
                    assert await propose_until_done(lambda node=node: ledger(node).add(1)) == total
                await eventually(lambda node_id=node_id, total=total: ledger(cluster.nodes[node_id]).total == total)
                await cluster.nodes[node_id].group().snapshot()
            one, two, three = (ledger(node) for node in cluster.running())
            assert await propose_until_done(two.upgrade) == 2
            assert await propose_until_done(lambda: one.add(1, note="new")) == total + 1
            await propose_until_done(three.reset)
            await eventually(lambda: {machine.total for machine in (one, two, three)} == {0})
            assert one.notes == two.notes == three.notes == ["new"]
            # And all of it again, from snapshots and logs of both versions.
            for node_id in cluster.node_ids:
                await restart(cluster, node_id, Ledger2)
            assert await propose_until_done(lambda: ledger(cluster.nodes[1]).add(7, note="x")) == 7
            await eventually(lambda: all(ledger(node).notes == ["new", "x"] for node in cluster.running()))
            nursery.cancel_scope.cancel()


async def test_a_node_that_was_forgotten_stops_that_group_and_goes_on_with_newer_code(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            cluster = Cluster(nursery, machine=Ledger2)  # type: ignore[arg-type]  # any machine will do
            await cluster.start()
            await restart(cluster, 3, Ledger)
            one = ledger(cluster.nodes[1])
            assert await propose_until_done(lambda: one.add(5)) == 5
            group = cluster.nodes[3].group()
            await propose_until_done(one.upgrade)
            await eventually(lambda: group.failure is not None)
            assert "upgraded to version 2 of Ledger, and the code of this node is at version 1" in str(group.failure.__cause__)
            with pytest.raises(GroupStoppedError):
                await ledger(cluster.nodes[3]).add(1)
            assert await propose_until_done(lambda: one.add(1, note="x")) == 6
            # A snapshot of the new version is no more to it than the log.
            await restart(cluster, 3, Ledger)
            await eventually(lambda: cluster.nodes[3].group().failure is not None)
            await restart(cluster, 3, Ledger2)
            await eventually(lambda: ledger(cluster.nodes[3]).total == 6)
            assert ledger(cluster.nodes[3]).notes == ["x"]
            nursery.cancel_scope.cancel()
