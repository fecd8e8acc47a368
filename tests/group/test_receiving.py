"""The receiving end of a snapshot: whatever comes, in whatever order, from whomever."""

from __future__ import annotations

import errno
import random
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from trioraft._errors import CorruptSnapshotError, StorageError
from trioraft._types import EntryId, GroupKey, Member
from trioraft.core import InstallSnapshot
from trioraft.observe import SnapshotSaved
from trioraft.wire import SnapshotPiece

from .snapshot_kit import (
    AT,
    CONFIGURATION,
    FOLLOWER,
    KEY,
    LEADER,
    PIECE,
    TERM,
    E,
    End,
    assert_nothing_left,
    cut,
    make_file,
    offer,
    run_inline,
    running,
    sha256_of,
)

DATA = make_file()
OFFER = offer(DATA)
PIECES = cut(DATA, OFFER)
NEWER = EntryId(2, 200)


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", run_inline)


async def feed(end: End, *pieces: SnapshotPiece) -> None:
    with trio.fail_after(600):
        for piece in pieces:
            await end.receiver.receive(piece)


async def settle() -> None:
    """Let everything happen that does not take time."""
    await trio.testing.wait_all_tasks_blocked()


class TestWhole:
    async def test_a_stream_becomes_a_file_and_one_message_for_the_core(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        async with running(end):
            await feed(end, OFFER)
            assert end.take_answers() == [("CONTINUE", 0)]
            await feed(end, *PIECES)
            await settle()
            assert end.files.whole == {AT: DATA}
            assert end.installs == [InstallSnapshot(LEADER, FOLLOWER, TERM, AT, CONFIGURATION)]
            assert end.take_answers() == [("ARRIVED", 0)]
            assert end.log.events == [SnapshotSaved(KEY.group_id, AT, len(DATA), received=True)]
            assert (end.counters.snapshots_received, end.counters.snapshot_bytes_in) == (1, len(DATA))
            assert_nothing_left(end)

    async def test_the_file_is_checked_before_it_has_its_name_and_installed_after(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        end.files.blocked["commit"] = trio.Event()
        async with running(end):
            await feed(end, *PIECES)
            await settle()
            assert (end.files.whole, end.installs, end.answers) == ({}, [], [])
            await feed(end, OFFER)
            assert end.take_answers() == [("CONTINUE", len(DATA))]  # it is there; nothing is promised yet
            end.files.blocked["commit"].set()
            await settle()
            assert end.take_answers() == [("ARRIVED", 0)]

    async def test_an_answer_that_was_lost_is_given_again(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        async with running(end):
            await feed(end, *PIECES)
            await settle()
            end.take_answers()
            await feed(end, PIECES[-1], OFFER)
            assert end.take_answers() == [("ARRIVED", 0), ("ARRIVED", 0)]
            assert end.files.calls.count("create") == 1

    async def test_with_real_threads(self, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        autojump_clock.autojump_threshold = float("inf")
        end = End(FOLLOWER)
        async with running(end):
            await feed(end, OFFER, *PIECES)
            while not end.log.events:
                await trio.lowlevel.checkpoint()
            assert end.files.whole == {AT: DATA}


class TestOrder:
    async def test_a_piece_that_overtook_another_waits_for_it(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        async with running(end), trio.open_nursery() as nursery:
            await feed(end, OFFER, PIECES[0])
            nursery.start_soon(feed, end, PIECES[2])
            nursery.start_soon(feed, end, PIECES[3])
            await settle()
            await feed(end, PIECES[1], *PIECES[4:])
            await settle()
            assert end.answers == [("CONTINUE", 0), ("ARRIVED", 0)]
            assert end.files.whole == {AT: DATA}

    async def test_a_piece_that_was_lost_is_asked_for_once_and_the_rest_holds_up_nothing(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        end = End(FOLLOWER)
        async with running(end):
            await feed(end, OFFER, PIECES[0])
            end.take_answers()
            start = trio.current_time()
            await feed(end, *PIECES[2:])
            assert trio.current_time() - start == pytest.approx(0.5 * E)
            assert end.take_answers() == [("CONTINUE", PIECE)]
            await feed(end, *PIECES[1:])
            await settle()
            assert end.take_answers() == [("ARRIVED", 0)]

    async def test_another_piece_that_is_lost_later_is_asked_for_too(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        async with running(end):
            await feed(end, OFFER, PIECES[0], PIECES[2], PIECES[1], PIECES[3])
            assert end.take_answers()[1:] == [("CONTINUE", PIECE), ("CONTINUE", 2 * PIECE)]

    async def test_what_comes_twice_or_overlaps_is_left_out(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        other = cut(DATA, OFFER, size=700)
        async with running(end):
            await feed(end, PIECES[0], PIECES[0], other[0], other[1], other[2], PIECES[1], *other, *PIECES)
            await settle()
            assert end.files.whole == {AT: DATA}
            assert end.answers[-1] == ("ARRIVED", 0)

    async def test_only_so_many_pieces_wait_in_memory(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        async with running(end), trio.open_nursery() as nursery:
            await feed(end, OFFER)
            start = trio.current_time()
            done: list[float] = []

            async def late() -> None:
                await feed(end, PIECES[3])
                done.append(trio.current_time() - start)

            for _ in range(20):
                nursery.start_soon(late)
            await settle()
            assert len(done) == 12

    @pytest.mark.parametrize("number", range(20))
    async def test_any_order_over_several_connections(self, autojump_clock: trio.testing.MockClock, number: int) -> None:
        """Each connection keeps its order; what gets lost is asked for."""
        chance = random.Random(number)
        end = End(FOLLOWER)
        async with running(end):
            await feed(end, OFFER)
            with trio.fail_after(600):
                while AT not in end.files.whole:
                    end.replies.clear()
                    await feed(end, OFFER)
                    offset = end.answers[-1][1]
                    rest = [piece for piece in cut(DATA, OFFER, size=chance.randint(300, 1500)) if chance.random() < 0.9]
                    lanes: list[list[SnapshotPiece]] = [[], [], []]
                    for piece in rest:
                        if piece.offset + len(piece.data) > offset:
                            chance.choice(lanes).append(piece)
                    async with trio.open_nursery() as nursery:
                        for lane in lanes:
                            nursery.start_soon(feed, end, *lane)
                    await settle()
            assert end.files.whole == {AT: DATA}

    async def test_a_slow_disk_holds_up_the_connection(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        end.files.seconds = 0.1
        async with running(end):
            start = trio.current_time()
            await feed(end, *PIECES)
            assert trio.current_time() - start >= 0.1 * (len(PIECES) - 1)


class TestRefused:
    """What is not even looked at."""

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"target": Member(3)}, "wrong target"),
            ({"target": Member(2, EntryId(1, 5))}, "wrong target"),
            ({"source": FOLLOWER}, "wrong target"),
            ({"size": 0}, "malformed"),
            ({"size": (1 << 50) + 1}, "malformed"),
            ({"offset": len(DATA)}, "malformed"),
            ({"data": DATA + b"x"}, "malformed"),
            ({"at": EntryId(TERM + 1, 100)}, "malformed"),
            ({"at": EntryId(0, 100)}, "malformed"),
        ],
    )
    async def test_a_piece_that_is_not_for_this_replica_or_makes_no_sense(
        self, autojump_clock: trio.testing.MockClock, changes: dict[str, Any], reason: str
    ) -> None:
        end = End(FOLLOWER)
        async with running(end):
            await feed(end, attrs.evolve(PIECES[0], **changes))
            await settle()
            assert end.core.dropped == {reason: 1}
            assert (end.replies, end.files.calls, end.events) == ([], [], [])

    async def test_a_former_life_of_a_member(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        end.core.members.add(Member(4, EntryId(1, 9)))
        async with running(end):
            await feed(end, attrs.evolve(OFFER, source=Member(4, EntryId(1, 8))))
            assert end.core.dropped == {"former replica": 1}

    async def test_a_leader_that_this_replica_does_not_know_yet_is_listened_to(self, autojump_clock: trio.testing.MockClock) -> None:
        """It was added by an entry that is in the snapshot, and not in this log."""
        end, stranger = End(FOLLOWER), Member(9, EntryId(2, 90))
        async with running(end):
            await feed(end, *cut(DATA, attrs.evolve(OFFER, source=stranger)))
            await settle()
            assert [message.source for message in end.installs] == [stranger]

    @pytest.mark.parametrize("changes", [{"term": TERM - 1}, {"at": EntryId(2, 50)}, {"at": EntryId(2, 49)}])
    async def test_what_comes_too_late_is_answered_by_the_core_and_nothing_is_stored(
        self, autojump_clock: trio.testing.MockClock, changes: dict[str, Any]
    ) -> None:
        end = End(FOLLOWER)
        end.core.commit_index = 50
        end.holds_back = True
        late = attrs.evolve(PIECES[0], **changes)
        async with running(end):
            await feed(end, late, attrs.evolve(late, data=b""), late)
            await settle()
            assert end.take_answers() == [("ARRIVED", 0)] * 3
            message = InstallSnapshot(LEADER, FOLLOWER, late.term, late.at, CONFIGURATION)
            assert end.installs == [message]  # one that the core has not seen is enough
            end.receiver.stepped(end.installs[0], installed=False)
            await feed(end, late)
            await settle()
            assert end.installs == [message, message]
            assert end.files.calls == []

    async def test_the_snapshot_of_the_replica_itself_is_not_taken_for_a_useless_file(self, autojump_clock: trio.testing.MockClock) -> None:
        """The leader offers what this replica has, and its log relies on."""
        end = End(FOLLOWER)
        end.files.whole[AT] = DATA
        end.core.snapshot, end.core.commit_index = AT, AT.index
        async with running(end):
            await feed(end, OFFER, *PIECES)
            await settle()
            assert end.files.whole == {AT: DATA}
            assert "remove" not in end.files.calls

    async def test_nothing_is_taken_by_a_group_that_has_stopped(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        async with running(end):
            await end.stop()
            await feed(end, OFFER, *PIECES)
            assert (end.replies, end.files.calls) == ([], [])


class TestOneAtATime:
    @pytest.mark.parametrize("better", [offer(make_file(NEWER), NEWER), offer(make_file(seed=1), term=TERM + 1, source=Member(3))])
    async def test_a_better_snapshot_takes_the_place_of_the_one_under_way(
        self, autojump_clock: trio.testing.MockClock, better: SnapshotPiece
    ) -> None:
        data = make_file(better.at, seed=1 if better.at == AT else 0)
        end = End(FOLLOWER)
        async with running(end):
            await feed(end, OFFER, *PIECES[:3])
            end.take_answers()
            await feed(end, better)
            assert end.take_answers() == [("CONTINUE", 0)]
            assert end.files.partial == set()
            assert end.traffic.incoming_now == 1
            await feed(end, OFFER)
            assert end.take_answers() == [("BUSY", 0)]
            await feed(end, *cut(data, better))
            await settle()
            assert end.files.whole == {better.at: data}

    async def test_a_later_leader_goes_on_with_the_same_snapshot(self, autojump_clock: trio.testing.MockClock) -> None:
        end, later = End(FOLLOWER), Member(3)
        same = attrs.evolve(OFFER, source=later, term=TERM + 1)
        async with running(end):
            await feed(end, OFFER, *PIECES[:3])
            end.take_answers()
            await feed(end, same)
            assert end.take_answers() == [("CONTINUE", 3 * PIECE)]
            await feed(end, PIECES[3])
            assert end.take_answers() == [("BUSY", 0)]  # the earlier leader
            await feed(end, *cut(DATA, same)[3:])
            await settle()
            assert [(message.source, message.term) for message in end.installs] == [(later, TERM + 1)]

    async def test_two_leaders_of_different_terms_at_once(self, autojump_clock: trio.testing.MockClock) -> None:
        end, later = End(FOLLOWER), make_file(NEWER)
        old, new = PIECES, cut(later, offer(later, NEWER, term=TERM + 1, source=Member(3)))
        async with running(end):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed, end, *old)
                nursery.start_soon(feed, end, *new)
            await settle()
            assert end.files.whole == {NEWER: later}
            assert [message.term for message in end.installs] == [TERM + 1]

    async def test_a_higher_term_ends_the_stream_of_a_lower_one(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        async with running(end):
            await feed(end, OFFER, *PIECES[:3])
            end.core.term = TERM + 1
            end.take_answers()
            await feed(end, *PIECES[3:])
            assert set(end.take_answers()) == {("ARRIVED", 0)}
            assert end.files.whole == {}

    async def test_a_term_that_ends_while_the_file_is_synced(self, autojump_clock: trio.testing.MockClock) -> None:
        """The core refuses it; the file stays, since a snapshot of this replica may be about to get that name."""
        end = End(FOLLOWER)
        end.files.blocked["commit"] = trio.Event()
        async with running(end):
            await feed(end, *PIECES)
            await settle()
            end.core.term = TERM + 1
            end.files.blocked["commit"].set()
            await settle()
            assert len(end.installs) == 1
            assert end.core.commit_index == 0
            assert "remove" not in end.files.calls
            assert end.log.events == []

    async def test_a_file_that_came_too_late_is_left_to_the_storage(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        end.files.blocked["commit"] = trio.Event()
        async with running(end):
            await feed(end, *PIECES)
            await settle()
            end.core.commit_index, end.core.snapshot = 300, NEWER
            end.files.blocked["commit"].set()
            await settle()
            assert end.files.whole == {AT: DATA}
            end.core.commit_index = 0
            await feed(end, OFFER)
            assert end.take_answers()[-1] == ("CONTINUE", 0)  # ready for another

    async def test_what_is_being_finished_is_not_replaced(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        end.files.blocked["commit"] = trio.Event()
        async with running(end):
            await feed(end, *PIECES)
            await feed(end, offer(make_file(NEWER), NEWER))
            assert end.take_answers() == [("BUSY", 0)]
            end.files.blocked["commit"].set()
            await settle()
            assert end.files.whole == {AT: DATA}

    async def test_a_flood_of_offers_takes_one_place_and_no_file(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        async with running(end):
            for index in range(100, 200):
                await feed(end, attrs.evolve(OFFER, at=EntryId(2, index)))
            assert end.traffic.incoming_now == 1
            assert end.files.calls == []

    async def test_a_flood_of_first_pieces_has_one_file_at_a_time(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        async with running(end):
            for index in range(100, 130):
                await feed(end, attrs.evolve(PIECES[0], at=EntryId(2, index)))
                assert len(end.files.partial) <= 1


class TestPlaces:
    async def test_without_a_place_the_sender_is_told_to_come_again(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        end.traffic.streams_max = 0
        async with running(end):
            await feed(end, OFFER, PIECES[0], PIECES[1])
            assert end.take_answers() == [("BUSY", 0)] * 3
            end.traffic.streams_max = 1
            await feed(end, OFFER)
            assert end.take_answers() == [("CONTINUE", 0)]

    async def test_a_stream_that_stands_still_gives_its_place_back_and_keeps_its_file_for_a_while(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        end = End(FOLLOWER)
        end.traffic.streams_max = 1
        async with running(end):
            await feed(end, OFFER, *PIECES[:3])
            await trio.sleep(4.9 * E)
            assert end.traffic.incoming_now == 1
            await trio.sleep(0.2 * E)
            assert end.traffic.incoming_now == 0
            assert len(end.files.partial) == 1
            end.take_answers()
            end.traffic.streams_max = 0
            await feed(end, OFFER, PIECES[3])
            assert end.take_answers() == [("BUSY", 0)] * 2
            end.traffic.streams_max = 1
            await feed(end, OFFER)
            assert end.take_answers() == [("CONTINUE", 3 * PIECE)]
            assert end.traffic.incoming_now == 1
            await trio.sleep(4.9 * E)
            assert end.traffic.incoming_now == 1  # from its return on
            await feed(end, *PIECES[3:])
            await settle()
            assert end.files.whole == {AT: DATA}

    async def test_a_stream_whose_sender_does_not_come_back_is_discarded(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        async with running(end):
            await feed(end, OFFER, *PIECES[:3])
            await trio.sleep(61 * E)
            assert_nothing_left(end)
            assert end.log.failures == []
            end.take_answers()
            await feed(end, PIECES[3])
            assert end.take_answers() == [("CONTINUE", 0)]

    async def test_one_that_stands_still_makes_room_for_any_other(self, autojump_clock: trio.testing.MockClock) -> None:
        end, older = End(FOLLOWER), EntryId(2, 90)
        async with running(end):
            await feed(end, OFFER, PIECES[0])
            await trio.sleep(6 * E)
            await feed(end, offer(make_file(older), older))
            assert end.answers[-1] == ("CONTINUE", 0)
            assert end.files.partial == set()

    async def test_a_receiver_that_was_restarted_begins_anew(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        async with running(end):
            start = trio.current_time()
            await feed(end, *PIECES[2:])
            assert end.take_answers() == [("CONTINUE", 0)]
            assert trio.current_time() == start  # nothing waits for what cannot be under way
            await feed(end, *PIECES)
            await settle()
            assert end.files.whole == {AT: DATA}


class TestBadFiles:
    @pytest.mark.parametrize("offset", [0, 20, 1500, len(DATA) - 60, len(DATA) - 1])
    async def test_damage_is_refused_with_its_place_and_nothing_stays(self, autojump_clock: trio.testing.MockClock, offset: int) -> None:
        end = End(FOLLOWER)
        damaged = bytearray(DATA)
        damaged[offset] ^= 1
        async with running(end):
            await feed(end, OFFER, *cut(bytes(damaged), OFFER))
            await settle()
            assert end.answers[-1][0] == "REFUSED"
            assert "damaged at offset" in end.replies[-1].text
            assert (end.files.whole, end.installs) == ({}, [])
            assert_nothing_left(end)
            (failure,) = end.log.failures
            assert failure.what == "receiving from node 1"
            assert isinstance(failure.error, CorruptSnapshotError)
            assert "from node 1" in failure.error.path

    @pytest.mark.parametrize(
        "data",
        [make_file(key=GroupKey(8)), make_file(key=GroupKey(7, 2)), make_file(EntryId(2, 99)), make_file(EntryId(1, 100))],
    )
    async def test_a_whole_snapshot_of_something_else(self, autojump_clock: trio.testing.MockClock, data: bytes) -> None:
        end = End(FOLLOWER)
        async with running(end):
            await feed(end, *cut(data, offer(data)))
            await settle()
            assert end.answers == [("REFUSED", 0)]
            assert "announced was that of g7 at 100@2" in end.replies[0].text
            assert (end.files.whole, end.installs) == ({}, [])
            assert_nothing_left(end)

    async def test_another_sum_than_announced(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        async with running(end):
            await feed(end, *cut(DATA, attrs.evolve(OFFER, sha256=bytes(32))))
            await settle()
            assert end.answers == [("REFUSED", 0)]
            assert end.files.whole == {}

    async def test_one_that_was_refused_is_turned_away_for_a_while_without_being_sent_again(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        end = End(FOLLOWER)
        bad = attrs.evolve(OFFER, sha256=bytes(32))
        async with running(end):
            await feed(end, *cut(DATA, bad))
            await settle()
            text = end.replies[0].text
            end.take_answers()
            await feed(end, bad, cut(DATA, bad)[0])
            assert [reply.text for reply in end.replies] == [text, text]
            assert end.take_answers() == [("REFUSED", 0)] * 2
            await feed(end, OFFER)
            assert end.take_answers() == [("CONTINUE", 0)]  # another one is welcome
            await feed(end, *PIECES[:1])
            await trio.sleep(10 * E)
            await feed(end, bad)
            assert end.take_answers() == [("CONTINUE", 0)]


class TestTrouble:
    """The disk, and code that is broken: it concerns this snapshot only."""

    @pytest.mark.parametrize("call", ["create", "append", "commit"])
    @pytest.mark.parametrize(
        ("error", "answer"),
        [
            (StorageError("full", "x.snap", "no space"), "BUSY"),
            (StorageError("io", "x.snap", "broken"), "REFUSED"),
            (OSError(errno.EIO, "oh"), "REFUSED"),
            (RuntimeError("bug"), "REFUSED"),
        ],
    )
    async def test_an_error_is_told_on_both_sides_and_nothing_half_stays(
        self, autojump_clock: trio.testing.MockClock, call: str, error: Exception, answer: str
    ) -> None:
        end = End(FOLLOWER)
        end.files.errors[call] = error
        async with running(end):
            await feed(end, OFFER, *PIECES)
            await settle()
            assert (answer, 0) in end.answers
            assert [failure.error for failure in end.log.failures] == [error]
            assert (end.files.whole, end.installs) == ({}, [])
            assert_nothing_left(end)
            end.take_answers()
            await feed(end, OFFER)
            assert end.take_answers() == [(answer, 0)]
            end.files.errors.clear()
            await trio.sleep(10 * E)
            await feed(end, OFFER, *PIECES)
            await settle()
            assert end.files.whole == {AT: DATA}

    async def test_a_file_that_cannot_be_removed_stops_nothing(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        end.files.errors |= {"remove": StorageError("removed", "x", "the group was removed")}
        end.files.blocked["commit"] = trio.Event()
        async with running(end):
            await feed(end, *PIECES)
            await settle()
            end.core.commit_index, end.core.snapshot = 300, NEWER
            end.files.blocked["commit"].set()
            await settle()
            assert end.traffic.incoming_now == 0


class TestCancellation:
    @pytest.mark.parametrize("call", ["create", "append", None])
    async def test_a_connection_that_ends_leaves_the_stream_where_it_is(
        self, autojump_clock: trio.testing.MockClock, call: str | None
    ) -> None:
        """In the hands of the disk, or waiting for another piece."""
        end = End(FOLLOWER)
        async with running(end):
            await feed(end, OFFER)
            if call is not None:
                end.files.blocked[call] = trio.Event()
            async with trio.open_nursery() as nursery:
                for piece in PIECES[:3] if call is not None else PIECES[1:3]:
                    nursery.start_soon(feed, end, piece)
                await settle()
                nursery.cancel_scope.cancel()
            if call is not None:
                end.files.blocked[call].set()
            end.take_answers()
            await settle()
            await feed(end, OFFER)
            ((answer, offset),) = end.take_answers()
            assert answer == "CONTINUE"
            assert offset == (PIECE if call is not None else 0)
            await feed(end, *PIECES[offset // PIECE :])
            await settle()
            assert end.files.whole == {AT: DATA}

    @pytest.mark.parametrize("call", ["create", "append", "commit", "discard", None])
    async def test_a_group_that_stops_leaves_no_file_no_place_and_no_task(
        self, autojump_clock: trio.testing.MockClock, call: str | None
    ) -> None:
        end = End(FOLLOWER)
        if call not in (None, "discard"):
            end.files.blocked[call or ""] = trio.Event()
        async with running(end), trio.open_nursery() as nursery:
            nursery.start_soon(feed, end, OFFER, *PIECES[: 3 if call in (None, "discard") else len(PIECES)])
            await settle()
            if call == "discard":
                end.files.seconds = 1.0
            await end.stop()
            assert_nothing_left(end)
            assert end.files.whole == {}

    async def test_a_group_that_stops_while_connections_wait(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        async with running(end), trio.open_nursery() as nursery:
            await feed(end, OFFER)
            for piece in PIECES[1:]:
                nursery.start_soon(feed, end, piece)
            await settle()
            await end.stop()
            await settle()
            assert not nursery.child_tasks

    async def test_a_group_that_stops_before_the_stream_has_its_task(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        async with running(end), trio.open_nursery() as nursery:
            await end.stop()
            end.receiver._closed = trio.Event()  # as long as the driver has not come to its end
            nursery.start_soon(feed, end, PIECES[0])
            await settle()
            assert end.traffic.incoming_now == 1
            end.receiver.close()
            await settle()
            assert not nursery.child_tasks
            assert_nothing_left(end)

    async def test_a_group_that_stops_before_the_core_has_seen_the_snapshot(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        end.holds_back = True
        async with running(end):
            await feed(end, *PIECES)
            await settle()
            assert AT in end.files.whole
            await end.stop()
            assert end.files.whole == {}

    async def test_a_group_that_fails_ends_its_stream_although_nothing_is_cancelled(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        end.holds_back = True
        async with running(end):
            await feed(end, *PIECES)
            await settle()
            end.receiver.close()
            await settle()
            assert_nothing_left(end)

    async def test_what_was_installed_stays(self, autojump_clock: trio.testing.MockClock) -> None:
        end = End(FOLLOWER)
        async with running(end):
            await feed(end, *PIECES)
            await settle()
        assert end.files.whole == {AT: DATA}


def test_the_sum_names_the_bytes() -> None:
    assert sha256_of(DATA) != sha256_of(make_file(seed=1))
