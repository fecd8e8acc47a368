"""The sending end of a snapshot, alone and joined to a receiving end."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
import trio.testing

from trioraft._errors import CorruptSnapshotError, StorageError, TransportError
from trioraft._types import EntryId, GroupKey, Member
from trioraft.core import Role, SnapshotSent
from trioraft.wire import SnapshotAnswer, SnapshotPiece, SnapshotReply

from .snapshot_kit import (
    AT,
    FOLLOWER,
    LEADER,
    PIECE,
    TERM,
    E,
    End,
    assert_nothing_left,
    make_file,
    pair,
    run_inline,
    running,
    sha256_of,
)

DATA = make_file()
NEWER = EntryId(3, 200)
REPLY_TIMEOUT = 3.0
COUNT = -(-len(DATA) // PIECE)
"""Of pieces."""


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", run_inline)


def leader_alone() -> End:
    """With a snapshot, and a wire on which everything gets lost."""
    end = End(LEADER, role=Role.LEADER)
    end.files.whole[AT] = DATA
    end.core.snapshot = AT
    return end


def answer(what: SnapshotAnswer, offset: int = 0, text: str = "") -> SnapshotReply:
    return SnapshotReply(FOLLOWER, LEADER, AT, sha256_of(DATA), what, offset, text)


def answering(end: End, *answers: SnapshotAnswer | None) -> Callable[[SnapshotPiece], Awaitable[None]]:
    """A follower that says these, one for each offer and for each last piece; then the last one for ever."""
    left = list(answers)

    async def deliver(piece: SnapshotPiece) -> None:
        await trio.lowlevel.checkpoint()
        if not piece.data or piece.offset + len(piece.data) == piece.size:
            what = left.pop(0) if len(left) > 1 else left[0]
            if what is not None:
                end.sender.replied(answer(what, 0, "no"))

    return deliver


def offers(end: End) -> list[SnapshotPiece]:
    return [piece for piece in end.traffic.sent if not piece.data]


def failing(deliver: Callable[[SnapshotPiece], Awaitable[None]], *numbers: int, lost: bool = False) -> Callable[..., Awaitable[None]]:
    """Break the connection at these sends, counted from 0, before or after the piece has arrived; or `lost`: nobody is told."""
    count = 0

    async def send(piece: SnapshotPiece) -> None:
        nonlocal count
        number, count = count, count + 1
        if number not in numbers:
            await deliver(piece)
        elif not lost:
            await trio.lowlevel.checkpoint()
            raise TransportError("broken", 2, "the connection broke")

    return send


class TestTogether:
    async def test_a_snapshot_arrives_and_each_byte_goes_once(self, autojump_clock: trio.testing.MockClock) -> None:
        leader, follower = pair()
        async with running(leader, follower):
            leader.send()
            assert await leader.wait_sent() == [SnapshotSent(FOLLOWER, AT, True)]
            assert follower.files.whole == {AT: DATA}
            assert (leader.traffic.data_sent, len(leader.traffic.sent)) == (len(DATA), COUNT + 1)
            assert (leader.counters.snapshots_sent, follower.counters.snapshots_received) == (1, 1)
            assert leader.log.events == []
            assert_nothing_left(leader)
            assert_nothing_left(follower)

    @pytest.mark.parametrize("number", range(COUNT + 1))
    async def test_a_connection_that_breaks_at_any_piece_costs_that_piece(
        self, autojump_clock: trio.testing.MockClock, number: int
    ) -> None:
        leader, follower = pair()
        leader.traffic.deliver = failing(leader.traffic.deliver, number)
        async with running(leader, follower):
            leader.send()
            assert await leader.wait_sent() == [SnapshotSent(FOLLOWER, AT, True)]
            assert follower.files.whole == {AT: DATA}
            lost = len(leader.traffic.sent[number].data)
            assert leader.traffic.data_sent == len(DATA) + lost
            assert follower.files.calls.count("create") == 1

    @pytest.mark.parametrize("number", range(COUNT + 1))
    async def test_a_piece_that_is_lost_without_a_word_is_sent_again(self, autojump_clock: trio.testing.MockClock, number: int) -> None:
        """Written to a connection that was dead already. What was sent behind it in the meantime comes again too."""
        leader, follower = pair()
        leader.traffic.deliver = failing(leader.traffic.deliver, number, lost=True)
        async with running(leader, follower):
            leader.send()
            start = trio.current_time()
            assert await leader.wait_sent() == [SnapshotSent(FOLLOWER, AT, True)]
            assert follower.files.whole == {AT: DATA}
            assert trio.current_time() - start < 2 * REPLY_TIMEOUT
            assert leader.traffic.data_sent <= len(DATA) + 2 * PIECE

    @pytest.mark.parametrize("number", [0, 1])
    async def test_an_answer_that_is_lost(self, autojump_clock: trio.testing.MockClock, number: int) -> None:
        leader, follower = pair()
        count = 0

        def reply(said: SnapshotReply) -> None:
            nonlocal count
            count += 1
            if count - 1 != number:
                leader.sender.replied(said)

        follower.on_reply = reply
        async with running(leader, follower):
            leader.send()
            assert await leader.wait_sent() == [SnapshotSent(FOLLOWER, AT, True)]
            assert len(offers(leader)) == 2
            assert leader.traffic.data_sent == len(DATA)

    @pytest.mark.parametrize("number", range(25))
    async def test_a_network_in_which_everything_happens(self, autojump_clock: trio.testing.MockClock, number: int) -> None:
        """Pieces and answers are lost, come late, come twice, overtake each other; connections break."""
        chance = random.Random(number)
        leader, follower = pair()

        async def late(action: Callable[[], Awaitable[None]]) -> None:
            await trio.sleep(chance.random())
            await action()

        async def receive(piece: SnapshotPiece) -> None:
            await follower.receiver.receive(piece)

        async def deliver(piece: SnapshotPiece) -> None:
            fate = chance.random()
            await trio.sleep(chance.random() / 100)
            if fate < 0.1:
                raise TransportError("broken", 2, "the connection broke")
            for _ in range(0 if fate < 0.2 else 2 if fate < 0.3 else 1):
                if fate < 0.5:
                    wire.start_soon(late, lambda: receive(piece))
                else:
                    await receive(piece)

        async def say(said: SnapshotReply) -> None:
            leader.sender.replied(said)

        def reply(said: SnapshotReply) -> None:
            if chance.random() < 0.8:
                wire.start_soon(late, lambda: say(said))

        leader.traffic.deliver, follower.on_reply = deliver, reply
        async with running(leader, follower), trio.open_nursery() as wire:
            leader.send()
            sent = await leader.wait_sent()
            while not sent[-1].arrived:  # it may run out of patience; the core asks again
                leader.send()
                sent = await leader.wait_sent(len(sent) + 1)
            assert follower.files.whole == {AT: DATA}

    async def test_a_receiver_that_restarts_in_the_middle(self, autojump_clock: trio.testing.MockClock) -> None:
        leader, follower = pair()
        second = End(FOLLOWER, files=follower.files)
        second.on_reply = leader.sender.replied

        async def deliver(piece: SnapshotPiece) -> None:
            if piece.offset == 3 * PIECE and not follower.has_stopped:
                await follower.stop()
                raise TransportError("broken", 2, "the connection broke")
            await (second if follower.has_stopped else follower).receiver.receive(piece)

        leader.traffic.deliver = deliver
        async with running(leader, follower, second):
            leader.send()
            assert await leader.wait_sent() == [SnapshotSent(FOLLOWER, AT, True)]
            assert second.files.whole == {AT: DATA}
            assert leader.traffic.data_sent == len(DATA) + 4 * PIECE

    async def test_two_leaders_of_different_terms(self, autojump_clock: trio.testing.MockClock) -> None:
        """The old one has not heard that it is deposed; the follower takes the new one's, and tells the old one nothing wrong."""
        old, follower = pair()
        new = End(Member(3), role=Role.LEADER)
        new.core.term = TERM + 1
        new.files.whole[NEWER] = make_file(NEWER)
        follower.files.seconds = 0.05

        async def deliver(piece: SnapshotPiece) -> None:
            await follower.receiver.receive(piece)

        def reply(said: SnapshotReply) -> None:
            (old if said.target == LEADER else new).sender.replied(said)

        new.traffic.deliver, follower.on_reply = deliver, reply
        async with running(old, new, follower):
            old.send()
            await trio.sleep(0.2)
            new.send(NEWER)
            assert await new.wait_sent() == [SnapshotSent(FOLLOWER, NEWER, True)]
            assert (await old.wait_sent())[0].arrived  # of no use any more: the core's answer tells it the higher term
            assert follower.files.whole == {NEWER: make_file(NEWER)}
            assert [message.term for message in follower.installs if message.at == NEWER] == [TERM + 1]

    async def test_a_refused_file_is_known_on_both_sides(self, autojump_clock: trio.testing.MockClock) -> None:
        rotten = bytearray(DATA)
        rotten[2500] ^= 1
        leader, follower = pair(bytes(rotten))
        async with running(leader, follower):
            leader.send()
            assert await leader.wait_sent() == [SnapshotSent(FOLLOWER, AT, False)]
            assert [failure.what for failure in leader.log.failures + follower.log.failures] == [
                "sending to node 2",
                "receiving from node 1",
            ]
            assert "damaged at offset" in str(leader.log.failures[0].error)
            assert follower.files.whole == {}

    async def test_a_full_disk_is_waited_for(self, autojump_clock: trio.testing.MockClock) -> None:
        leader, follower = pair()
        follower.files.errors["append"] = StorageError("full", "x", "no space")
        async with running(leader, follower):
            leader.send()
            await trio.sleep(20 * E)
            assert leader.sent == []
            follower.files.errors.clear()
            assert await leader.wait_sent() == [SnapshotSent(FOLLOWER, AT, True)]

    async def test_more_streams_than_places(self, autojump_clock: trio.testing.MockClock) -> None:
        leader, follower = pair()
        other = End(Member(3))
        other.traffic.streams_max = 0
        leader.traffic._places.total_tokens = 1

        async def deliver(piece: SnapshotPiece) -> None:
            assert leader.traffic.outgoing_now == 1
            await (follower if piece.target == FOLLOWER else other).receiver.receive(piece)

        leader.traffic.deliver = deliver
        other.on_reply = leader.sender.replied
        async with running(leader, follower, other):
            leader.send(target=Member(3))
            leader.send()
            assert await leader.wait_sent() == [SnapshotSent(FOLLOWER, AT, True)]  # whoever waits for a busy peer holds up nobody
            other.traffic.streams_max = 1
            assert (await leader.wait_sent(2))[1] == SnapshotSent(Member(3), AT, True)


class TestPatience:
    async def test_a_silent_member_is_given_up(self, autojump_clock: trio.testing.MockClock) -> None:
        end = leader_alone()
        async with running(end):
            start = trio.current_time()
            end.send()
            assert await end.wait_sent() == [SnapshotSent(FOLLOWER, AT, False)]
            assert len(offers(end)) == len(end.traffic.sent) == 8
            assert 8 * REPLY_TIMEOUT <= trio.current_time() - start <= 16 * REPLY_TIMEOUT
            (failure,) = end.log.failures
            assert isinstance(failure.error, TransportError)
            assert (failure.what, failure.error.kind) == ("sending to node 2", "silent")
            assert_nothing_left(end)

    async def test_a_peer_that_is_away_is_given_up_with_the_reason(self, autojump_clock: trio.testing.MockClock) -> None:
        end = leader_alone()
        away = TransportError("away", 2, "nobody answers")

        async def deliver(piece: SnapshotPiece) -> None:
            await trio.lowlevel.checkpoint()
            raise away

        end.traffic.deliver = deliver
        async with running(end):
            end.send()
            assert await end.wait_sent() == [SnapshotSent(FOLLOWER, AT, False)]
            assert len(offers(end)) == 8
            assert [failure.error for failure in end.log.failures] == [away]

    @pytest.mark.parametrize("liveness", [{}, {2: 0}])
    async def test_a_node_that_is_not_live_is_given_up_at_once(
        self, autojump_clock: trio.testing.MockClock, liveness: dict[int, int]
    ) -> None:
        leader, follower = pair()
        leader.traffic.deliver = failing(leader.traffic.deliver, 3)
        leader.liveness.clear()
        leader.liveness.update(liveness)
        async with running(leader, follower):
            start = trio.current_time()
            leader.send()
            assert await leader.wait_sent() == [SnapshotSent(FOLLOWER, AT, False)]
            assert trio.current_time() - start < 1
            assert len(leader.traffic.sent) == 4
            # As long as nothing goes wrong, it does not matter: a node may be slow because of the stream. What has arrived stays.
            leader.send()
            assert (await leader.wait_sent(2))[1].arrived
            assert leader.traffic.data_sent == len(DATA) + PIECE

    async def test_a_busy_member_is_waited_for_longer_and_no_place_nor_file_is_held(self, autojump_clock: trio.testing.MockClock) -> None:
        end = leader_alone()
        end.traffic.deliver = answering(end, SnapshotAnswer.BUSY)
        async with running(end):
            end.send()
            await trio.sleep(30.05)
            assert_nothing_left(end)
            assert await end.wait_sent() == [SnapshotSent(FOLLOWER, AT, False)]
            assert len(offers(end)) == 64
            assert "no room" in str(end.log.failures[0].error)

    async def test_a_member_that_is_busy_and_then_is_not(self, autojump_clock: trio.testing.MockClock) -> None:
        end = leader_alone()
        end.traffic.deliver = answering(end, *[SnapshotAnswer.BUSY] * 40, SnapshotAnswer.CONTINUE, SnapshotAnswer.ARRIVED)
        async with running(end):
            end.send()
            assert await end.wait_sent() == [SnapshotSent(FOLLOWER, AT, True)]

    async def test_progress_gives_patience_anew(self, autojump_clock: trio.testing.MockClock) -> None:
        """Each connection brings one piece through: seven silences in a row between two of them, more than eight altogether."""
        leader, follower = pair()
        whole, count = leader.traffic.deliver, 0

        async def deliver(piece: SnapshotPiece) -> None:
            nonlocal count
            count += 1
            if count % 9 < 7:
                raise TransportError("broken", 2, "the connection broke")
            await whole(piece)

        leader.traffic.deliver = deliver
        async with running(leader, follower):
            leader.send()
            assert await leader.wait_sent() == [SnapshotSent(FOLLOWER, AT, True)]
            assert count > 40

    async def test_a_member_that_never_comes_forward_is_given_up(self, autojump_clock: trio.testing.MockClock) -> None:
        """It asks for the beginning, for ever."""
        end = leader_alone()
        end.traffic.deliver = answering(end, SnapshotAnswer.CONTINUE)
        async with running(end):
            end.send()
            assert await end.wait_sent() == [SnapshotSent(FOLLOWER, AT, False)]
            assert end.traffic.data_sent <= 64 * len(DATA)

    async def test_a_member_that_takes_its_time_to_sync(self, autojump_clock: trio.testing.MockClock) -> None:
        leader, follower = pair()
        follower.files.blocked["commit"] = trio.Event()
        async with running(leader, follower):
            leader.send()
            await trio.sleep(20 * REPLY_TIMEOUT)
            assert leader.sent == []
            follower.files.blocked["commit"].set()
            assert await leader.wait_sent() == [SnapshotSent(FOLLOWER, AT, True)]
            assert leader.traffic.data_sent == len(DATA)

    async def test_a_refusal_is_told_later_each_time(self, autojump_clock: trio.testing.MockClock) -> None:
        """Or the core would ask for the same at once."""
        end = leader_alone()
        end.traffic.deliver = answering(end, SnapshotAnswer.REFUSED)
        async with running(end):
            for count, seconds in enumerate((5.0, 10.0, 20.0), start=1):
                start = trio.current_time()
                end.send()
                assert (await end.wait_sent(count))[-1] == SnapshotSent(FOLLOWER, AT, False)
                assert trio.current_time() - start == pytest.approx(seconds, abs=0.1)
            assert len(offers(end)) == 3
            assert "does not take the snapshot 100@2 of g7: no" in str(end.log.failures[0].error)
            end.traffic.deliver = answering(end, SnapshotAnswer.ARRIVED)
            end.send()
            await end.wait_sent(4)
            end.traffic.deliver = answering(end, SnapshotAnswer.REFUSED)
            start = trio.current_time()
            end.send()
            await end.wait_sent(5)
            assert trio.current_time() - start == pytest.approx(5.0, abs=0.1)


class TestAnswers:
    async def test_a_member_that_misses_something_in_the_middle_is_sent_that(self, autojump_clock: trio.testing.MockClock) -> None:
        end = leader_alone()

        async def deliver(piece: SnapshotPiece) -> None:
            await trio.lowlevel.checkpoint()
            if not piece.data:
                end.sender.replied(answer(SnapshotAnswer.CONTINUE))
            elif piece.offset == 3 * PIECE and len(end.traffic.sent) == 5:
                end.sender.replied(answer(SnapshotAnswer.CONTINUE, 1234))
            elif piece.offset + len(piece.data) == piece.size:
                end.sender.replied(answer(SnapshotAnswer.ARRIVED))

        end.traffic.deliver = deliver
        async with running(end):
            end.send()
            assert (await end.wait_sent())[0].arrived
            assert [piece.offset for piece in end.traffic.sent[:7]] == [0, 0, 1000, 2000, 3000, 1234, 2234]

    @pytest.mark.parametrize(
        "changes",
        [
            {"source": Member(3)},
            {"source": Member(2, EntryId(1, 9))},
            {"target": Member(3)},
            {"at": NEWER},
            {"sha256": bytes(32)},
            {"offset": len(DATA) + 1},
        ],
    )
    async def test_an_answer_to_something_else_is_dropped(self, autojump_clock: trio.testing.MockClock, changes: dict[str, object]) -> None:
        end = leader_alone()
        async with running(end):
            end.send()
            await trio.testing.wait_all_tasks_blocked()
            end.sender.replied(attrs.evolve(answer(SnapshotAnswer.ARRIVED), **changes))
            await trio.testing.wait_all_tasks_blocked()
            assert end.sent == []
            end.sender.replied(answer(SnapshotAnswer.ARRIVED))
            await end.wait_sent()

    async def test_answers_when_nothing_is_under_way(self, autojump_clock: trio.testing.MockClock) -> None:
        end = leader_alone()
        async with running(end):
            end.sender.replied(answer(SnapshotAnswer.ARRIVED))
            await trio.testing.wait_all_tasks_blocked()
            assert end.sent == []

    async def test_of_no_use_in_the_middle_ends_the_stream(self, autojump_clock: trio.testing.MockClock) -> None:
        end = leader_alone()

        async def deliver(piece: SnapshotPiece) -> None:
            await trio.lowlevel.checkpoint()
            if not piece.data:
                end.sender.replied(answer(SnapshotAnswer.CONTINUE))
            elif piece.offset:
                end.sender.replied(answer(SnapshotAnswer.ARRIVED))

        end.traffic.deliver = deliver
        async with running(end):
            end.send()
            assert (await end.wait_sent())[0].arrived
            assert end.counters.snapshots_sent == 0  # the other side did not take it whole


class TestEnd:
    """Why a stream ends that nobody wants any more."""

    @pytest.mark.parametrize("why", ["follower", "term", "member"])
    @pytest.mark.parametrize("number", [0, 3])
    async def test_in_mid_stream(self, autojump_clock: trio.testing.MockClock, why: str, number: int) -> None:
        leader, follower = pair()
        whole = leader.traffic.deliver

        async def deliver(piece: SnapshotPiece) -> None:
            await whole(piece)
            if len(leader.traffic.sent) == number + 1:
                if why == "follower":
                    leader.core.role = Role.FOLLOWER
                elif why == "term":
                    leader.core.term += 1
                else:
                    leader.core.members.discard(FOLLOWER)

        leader.traffic.deliver = deliver
        async with running(leader, follower):
            leader.send()
            assert await leader.wait_sent() == [SnapshotSent(FOLLOWER, AT, False)]
            assert len(leader.traffic.sent) == number + 1
            assert leader.log.events == []
            assert_nothing_left(leader)

    async def test_a_leader_that_is_deposed_after_a_refusal_waits_no_longer(self, autojump_clock: trio.testing.MockClock) -> None:
        """It may lead again soon, and the core asks for another stream only when this one has ended."""
        end = leader_alone()
        end.traffic.deliver = answering(end, SnapshotAnswer.REFUSED)
        async with running(end):
            for count in range(1, 5):
                end.send()
                await end.wait_sent(count)
            start = trio.current_time()
            end.send()
            await trio.sleep(1)
            end.core.role = Role.FOLLOWER
            assert len(await end.wait_sent(5)) == 5
            assert trio.current_time() - start < 2 * REPLY_TIMEOUT  # and not 80 s

    async def test_a_log_that_is_cut_behind_the_snapshot_ends_it(self, autojump_clock: trio.testing.MockClock) -> None:
        leader, follower = pair()
        whole = leader.traffic.deliver

        async def deliver(piece: SnapshotPiece) -> None:
            await whole(piece)
            if len(leader.traffic.sent) == 4:
                leader.core.snapshot, leader.core.start = NEWER, EntryId(2, AT.index + 1)

        leader.traffic.deliver = deliver
        async with running(leader, follower):
            start = trio.current_time()
            leader.send()
            assert await leader.wait_sent() == [SnapshotSent(FOLLOWER, AT, False)]
            assert trio.current_time() - start < 1  # the core asks for a newer one at once
            (failure,) = leader.log.failures
            assert isinstance(failure.error, TransportError)
            assert failure.error.kind == "overtaken"

    @pytest.mark.parametrize("phase", ["place", "open", "read", "reply", "send", "wait", "pause"])
    async def test_a_group_that_stops_in_any_phase_answers_and_leaves_nothing(
        self, autojump_clock: trio.testing.MockClock, phase: str
    ) -> None:
        end = leader_alone()
        if phase in ("open", "read"):
            end.files.blocked[phase] = trio.Event()
        elif phase == "send":
            end.traffic.deliver = _hang
        elif phase == "wait":
            end.traffic.deliver = answering(end, SnapshotAnswer.BUSY)
        elif phase == "pause":
            end.traffic.deliver = answering(end, SnapshotAnswer.REFUSED)
        async with running(end), trio.open_nursery() as nursery:
            if phase == "place":
                for _ in range(2):
                    nursery.start_soon(_hold, end)
                await trio.testing.wait_all_tasks_blocked()
            end.send()
            await trio.testing.wait_all_tasks_blocked()
            await end.stop()
            nursery.cancel_scope.cancel()
        assert end.inbox.take() == [SnapshotSent(FOLLOWER, AT, False)]


async def _hang(piece: SnapshotPiece) -> None:
    await trio.sleep_forever()


async def _hold(end: End) -> None:
    async with end.traffic.outgoing(9):
        await trio.sleep_forever()


class TestFiles:
    async def test_a_newer_snapshot_is_sent_instead(self, autojump_clock: trio.testing.MockClock) -> None:
        leader, follower = pair()
        leader.files.whole = {NEWER: make_file(NEWER)}
        leader.core.snapshot = NEWER
        async with running(leader, follower):
            leader.send(AT)
            assert await leader.wait_sent() == [SnapshotSent(FOLLOWER, NEWER, True)]

    async def test_one_that_was_removed_while_it_was_looked_for(self, autojump_clock: trio.testing.MockClock) -> None:
        leader, follower = pair()
        leader.files.blocked["open"] = trio.Event()
        async with running(leader, follower):
            leader.send()
            await trio.testing.wait_all_tasks_blocked()
            leader.files.whole = {NEWER: make_file(NEWER)}
            leader.core.snapshot = NEWER
            leader.files.blocked["open"].set()
            assert await leader.wait_sent() == [SnapshotSent(FOLLOWER, NEWER, True)]

    async def test_one_that_is_pruned_on_its_way_is_finished_over_broken_connections(self, autojump_clock: trio.testing.MockClock) -> None:
        leader, follower = pair()
        whole = failing(leader.traffic.deliver, 3, 5)

        async def deliver(piece: SnapshotPiece) -> None:
            await whole(piece)
            leader.files.whole = {NEWER: make_file(NEWER)}
            leader.core.snapshot = NEWER

        leader.traffic.deliver = deliver
        async with running(leader, follower):
            leader.send()
            assert await leader.wait_sent() == [SnapshotSent(FOLLOWER, AT, True)]
            assert follower.files.whole == {AT: DATA}

    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            (None, "missing"),
            (DATA[:-1], "corrupt"),
            (DATA[:10], "corrupt"),
            (b"", "corrupt"),
            (make_file(key=GroupKey(8)), "corrupt"),
            (make_file(NEWER), "corrupt"),
        ],
    )
    async def test_one_that_cannot_be_sent_is_told_and_does_not_make_a_storm(
        self, autojump_clock: trio.testing.MockClock, data: bytes | None, kind: str
    ) -> None:
        end = leader_alone()
        end.files.whole = {} if data is None else {AT: data}
        async with running(end):
            start = trio.current_time()
            end.send()
            assert await end.wait_sent() == [SnapshotSent(FOLLOWER, AT, False)]
            assert trio.current_time() - start == pytest.approx(5.0, abs=0.1)
            (failure,) = end.log.failures
            assert isinstance(failure.error, StorageError)
            assert failure.error.kind == kind
            assert end.traffic.sent == []
            assert_nothing_left(end)

    @pytest.mark.parametrize("error", [StorageError("io", "x.snap", "broken"), RuntimeError("bug")])
    async def test_one_that_cannot_be_read(self, autojump_clock: trio.testing.MockClock, error: Exception) -> None:
        end = leader_alone()
        end.files.errors["read"] = error
        async with running(end):
            end.send()
            assert await end.wait_sent() == [SnapshotSent(FOLLOWER, AT, False)]
            assert [failure.error for failure in end.log.failures] == [error]

    async def test_one_that_became_shorter(self, autojump_clock: trio.testing.MockClock) -> None:
        leader, follower = pair()
        whole = leader.traffic.deliver

        async def deliver(piece: SnapshotPiece) -> None:
            await whole(piece)
            if piece.offset:
                leader.files.is_cut = True

        leader.traffic.deliver = deliver
        async with running(leader, follower):
            leader.send()
            assert await leader.wait_sent() == [SnapshotSent(FOLLOWER, AT, False)]
            assert isinstance(leader.log.failures[0].error, CorruptSnapshotError)
