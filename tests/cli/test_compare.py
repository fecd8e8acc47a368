"""Several directories: what contradicts itself is found, what is normal is not, and the safest survivor is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cli.kit import G1, Ran, live, made_of, make_node, run
from tests.storage.kit import entries
from trioraft._types import EntryId, Member
from trioraft.core import Configuration
from trioraft.storage import FileStorage, GroupRecord, MultiRaftStorage, StorageConfig, WalStorage
from trioraft.testing._storage_parts import configuration_entry

Make = Callable[..., None]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make_one(node_id: int, *runs: tuple[int, int], **options: Any) -> None:
        options.setdefault("log", made_of(*runs))
        # Unless told otherwise, node 1 was the last leader.
        options.setdefault("vote", 1)
        make_node(tmp_path / f"n{node_id}", node_id, **options)

    return make_one


def fsck(tmp_path: Path, *nodes: int) -> Ran:
    return run("fsck", *(tmp_path / f"n{node_id}" for node_id in nodes or (1, 2, 3)), "--json")


def contradictions(tmp_path: Path, *nodes: int) -> list[str]:
    """What is found between the nodes, up to the first colon; the exit code agrees."""
    ran = fsck(tmp_path, *nodes)
    found = [each["text"] for each in ran.document["cluster"]["findings"]]
    assert ran.code == (1 if found else 0)
    assert [each["findings"] for each in ran.document["directories"]] == [[] for _ in ran.document["directories"]]
    return [text.split(":")[0] for text in found]


def survivor(tmp_path: Path, *nodes: int) -> Any:
    (found,) = fsck(tmp_path, *nodes).document["cluster"]["survivors"]
    return found


# --- what is normal --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [WalStorage, FileStorage])
def test_equal_logs(make: Make, tmp_path: Path, kind: Any) -> None:
    for node_id in (1, 2, 3):
        make(node_id, (1, 3), (2, 4), term=2, vote=1, commit=6, kind=kind)
    assert contradictions(tmp_path) == []
    found = survivor(tmp_path)
    assert (found["node_id"], found["last"], found["equals"]) == (1, {"index": 7, "term": 2}, [1, 2, 3])
    text = run("fsck", *(tmp_path / f"n{node_id}" for node_id in (1, 2, 3))).out
    assert "1 group (g1): nodes 1, 2, 3 are equally safe; nothing that was committed would be lost" in text


def test_a_follower_that_lags_and_one_with_entries_of_an_old_leader_are_normal(make: Make, tmp_path: Path) -> None:
    make(1, (1, 3), (4, 4), term=4, vote=1, commit=6)
    make(2, (1, 3), (4, 4), term=4, vote=1, commit=3)
    # Cut off since term 2, in which it was leader: its tail was never committed, and lies where others have committed something else.
    make(3, (1, 3), (2, 9), term=2, vote=3, commit=3)
    assert contradictions(tmp_path) == []
    found = survivor(tmp_path)
    assert (found["node_id"], found["has_everything"], found["equals"]) == (1, True, [1, 2])


def test_the_disputed_entry_of_figure_8_is_normal(make: Make, tmp_path: Path) -> None:
    """An entry of term 2 that was committed by a leader of term 4, while another node still has one of term 3 at its place."""
    make(1, (1, 1), (2, 1), (4, 1), term=4, vote=1, commit=3)
    make(2, (1, 1), (2, 1), (4, 1), term=4, vote=1)
    make(3, (1, 1), (3, 1), term=3, vote=3)
    assert contradictions(tmp_path) == []


def test_different_votes_in_one_term_are_normal(make: Make, tmp_path: Path) -> None:
    make(1, (1, 3), term=5, vote=1)
    make(2, (1, 3), term=5, vote=2)
    make(3, (1, 3), term=5, vote=3)
    assert contradictions(tmp_path) == []


def test_logs_that_begin_at_different_places_are_normal(make: Make, tmp_path: Path) -> None:
    make(1, (1, 3), (2, 4), commit=5, snapshot=EntryId(2, 5), start=EntryId(2, 5))
    make(2, (1, 3), (2, 4), commit=2, snapshot=EntryId(1, 2), start=EntryId(1, 2))
    make(3, (1, 1))
    assert contradictions(tmp_path) == []


# --- what cannot be --------------------------------------------------------------------------------------------------------------------


def test_other_bytes_at_the_same_index_and_term(make: Make, tmp_path: Path) -> None:
    make(1, log=(*entries(G1, 1, 5), *entries(G1, 5, 6, payload=b"one"), *entries(G1, 6, 8)))
    make(2, log=(*entries(G1, 1, 5), *entries(G1, 5, 6, payload=b"two"), *entries(G1, 6, 8)))
    make(3, log=entries(G1, 1, 5))
    ran = fsck(tmp_path)
    assert ran.code == 1
    assert [each["text"] for each in ran.document["cluster"]["findings"]] == [
        "log matching: nodes 1 and 2 both have an entry 5@1, with different bytes"
    ]


def test_the_same_entry_behind_different_ones(make: Make, tmp_path: Path) -> None:
    make(1, (1, 3), (3, 2), vote=1)
    make(2, (1, 2), (2, 1), (3, 2))
    make(3, (1, 2))
    ran = fsck(tmp_path)
    assert [each["text"] for each in ran.document["cluster"]["findings"]] == [
        "log matching: nodes 1 and 2 both have entry 5@3, and before it, 3@1 and 3@2"
    ]


def test_two_nodes_that_have_committed_different_entries(make: Make, tmp_path: Path) -> None:
    make(1, (1, 3), (2, 2), term=5, commit=5)
    make(2, (1, 3), (4, 2), term=5, commit=4)
    make(3, (1, 3), (4, 2), term=5)
    ran = fsck(tmp_path)
    assert "commit agreement: node 1 has committed 4@2, and node 2 has committed 4@4" in [
        each["text"] for each in ran.document["cluster"]["findings"]
    ]


def test_a_later_leader_without_what_was_committed(make: Make, tmp_path: Path) -> None:
    make(1, (1, 3), (2, 2), term=2, vote=1, commit=5)
    make(2, (1, 3), (2, 2), term=2, vote=1)
    make(3, (1, 3), (4, 2), term=4, vote=3)
    found = contradictions(tmp_path)
    assert found[0] == "leader completeness"


def test_nodes_that_have_lost_what_they_acknowledged(make: Make, tmp_path: Path) -> None:
    """Two were put back from older copies: they could elect a leader without what the third knows to be committed."""
    make(1, (1, 3), (2, 6), term=2, vote=1, commit=9)
    make(2, (1, 3), (2, 1), term=2, vote=1)
    make(3, (1, 3), (2, 2), term=2, vote=1)
    assert contradictions(tmp_path) == ["lost commits"]
    # Two of them alone: the third may well have it.
    assert contradictions(tmp_path, 1, 2) == []
    assert contradictions(tmp_path, 2, 3) == []


def test_a_term_that_nobody_can_have_won(make: Make, tmp_path: Path) -> None:
    make(1, (1, 3), (5, 1), term=5, vote=1)
    make(2, (1, 3), term=5, vote=2)
    make(3, (1, 3), term=4, vote=None)
    assert contradictions(tmp_path) == ["one vote per term"]
    # Whoever is in a later term does not say any more how it voted in that one.
    shutil.rmtree(tmp_path / "n3")
    make(3, (1, 3), term=6, vote=None)
    assert contradictions(tmp_path) == []
    # Nor does one that is not here.
    assert contradictions(tmp_path, 1, 2) == []


def test_snapshots_of_one_entry_with_different_members(make: Make, tmp_path: Path) -> None:
    at, two = EntryId(1, 4), Configuration.bootstrap((1, 2))
    make(1, (1, 6), snapshot=at, start=at, commit=4)
    log = (*entries(G1, 1, 3), configuration_entry(G1, 3, 1, two), *entries(G1, 4, 7))
    make(2, log=log, snapshot=at, start=at, commit=4, configuration=two)
    ran = fsck(tmp_path, 1, 2)
    assert "the snapshots 4@1 of nodes 1 and 2 name different members" in ran.out
    assert ran.code == 1


def test_snapshots_of_one_entry_may_differ_in_their_bytes(make: Make, tmp_path: Path) -> None:
    at = EntryId(1, 4)
    make(1, (1, 6), snapshot=at, start=at, commit=4)
    make(2, (1, 6), snapshot=at, start=at, commit=4, records=("in another order",))
    assert contradictions(tmp_path, 1, 2) == []


# --- who is compared -------------------------------------------------------------------------------------------------------------------


def test_a_copy_another_cluster_and_a_second_directory_of_a_node(make: Make, tmp_path: Path) -> None:
    make(1, (1, 3))
    shutil.copytree(tmp_path / "n1", tmp_path / "copy")
    make_node(tmp_path / "second", 1, made_of((1, 3)))
    make_node(tmp_path / "foreign", 2, made_of((1, 3)), cluster_id="other")
    ran = run("fsck", *(tmp_path / name for name in ("n1", "copy", "second", "foreign")), "--json")
    assert ran.code == 1
    texts = [each["text"].removeprefix(f"{tmp_path}/") for each in ran.document["cluster"]["findings"]]
    assert "have the same store id" in texts[0]
    assert "are both of node 1" in texts[1]
    assert texts[2] == "foreign belongs to cluster 'other', the others to 'demo'; it is not compared"


async def test_beside_a_running_node_what_depends_on_the_moment_is_a_note(make: Make, tmp_path: Path) -> None:
    def make_all() -> None:
        make(1, (1, 3), (2, 6), term=2, vote=1, commit=9)
        make(2, (1, 3), (2, 1), term=2, vote=1)
        make(3, (1, 3), (2, 2), term=2, vote=1)

    await trio.to_thread.run_sync(make_all)
    storage = WalStorage(StorageConfig(base_dir=str(tmp_path / "n1")))
    await storage.open(1, "demo")
    ran = await trio.to_thread.run_sync(fsck, tmp_path)
    await storage.aclose()
    assert ran.code == 0
    notes = ran.document["cluster"]["notes"]
    assert "are not of one moment" in notes[0]
    assert "lost commits" in notes[1]


# --- the safest survivor ---------------------------------------------------------------------------------------------------------------


def test_the_last_term_comes_before_the_last_index(make: Make, tmp_path: Path) -> None:
    make(1, (1, 9), term=1, vote=1)
    make(2, (1, 2), (3, 1), term=3, vote=2)
    make(3, (1, 2), (3, 1), term=3, vote=2)
    assert survivor(tmp_path)["node_id"] == 2


def test_a_damaged_node_is_no_survivor_but_may_know_what_is_lost(make: Make, tmp_path: Path) -> None:
    at = EntryId(1, 9)
    make(1, (1, 9), snapshot=at, start=at, commit=9)
    make(2, (1, 7))
    make(3, (1, 4))
    snapshot = tmp_path / "n1/group-1/snapshots/9-1.snap"
    data = bytearray(snapshot.read_bytes())
    data[50] ^= 1
    snapshot.write_bytes(data)
    found = survivor(tmp_path, 1, 2)
    assert (found["node_id"], found["has_everything"]) == (2, False)
    assert found["text"] == (
        "entries 8 to 9 would be lost, which are committed, as node 1 knows, and perhaps more: only 1 of 3 voters are here and whole"
    )


def test_a_minority_does_not_know_what_the_others_have(make: Make, tmp_path: Path) -> None:
    make(1, (1, 5))
    make(2, (1, 4))
    log = tmp_path / "n2/wal/00000001.wal"
    data = bytearray(log.read_bytes())
    data[600] ^= 1
    log.write_bytes(data)
    ran = fsck(tmp_path, 1, 2)
    (found,) = ran.document["cluster"]["survivors"]
    assert (found["node_id"], found["has_everything"]) == (1, False)
    assert found["text"].startswith("what the others have committed behind 5@1 would be lost, if anything")


def test_who_came_back_with_nothing_is_not_the_voter_that_it_was(make: Make, tmp_path: Path) -> None:
    """Until a leader calls it by a new number, it has the one that is barred: that of its former life."""
    make(1, (1, 5))
    make(2, (1, 5))
    assert survivor(tmp_path, 1, 2)["has_everything"]

    async def come_back(storage: MultiRaftStorage) -> None:
        await storage.remove_group(G1)
        await storage.create_group(GroupRecord(G1, Member(2), Configuration(()), awaits_number=True))

    live(WalStorage(StorageConfig(base_dir=str(tmp_path / "n2"))), 2, come_back)
    found = survivor(tmp_path, 1, 2)
    assert (found["node_id"], found["has_everything"]) == (1, False)
