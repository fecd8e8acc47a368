"""The conformance suite can fail: transports that are broken on purpose, each in one way, and the test that finds it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.transport.test_conformance import ANYWHERE, CONFIG
from trioraft._errors import RaftError
from trioraft.testing import Endpoint, TransportSuite
from trioraft.transport import RpcServer, ServedNode, TcpTransport, _greeting, _sender, _server
from trioraft.transport._batcher import Batcher
from trioraft.transport._inbound import InboundReader
from trioraft.transport._incidents import Incidents
from trioraft.transport._outbox import Outbox, Overflow
from trioraft.transport._peer import Peer
from trioraft.transport._sender import Sender
from trioraft.transport._snapshots import SnapshotConnections

Patch = pytest.MonkeyPatch


class Broken(TransportSuite):
    """Not collected: its tests are run one by one."""

    __test__ = False
    seconds = 1.5

    async def make_endpoint(self, node: ServedNode) -> Endpoint:
        return Endpoint(TcpTransport(CONFIG, random.Random(1)), RpcServer(ANYWHERE, node))


DEFECTS: dict[str, tuple[Callable[[Patch], None], list[str]]] = {}


def found_by(*tests: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    def register(defect: Callable[[Patch], None]) -> Callable[[Patch], None]:
        DEFECTS[defect.__name__] = defect, list(tests)
        return defect

    return register


# -- messages --------------------------------------------------------------------------------------------------------------------


@found_by("test_appends_of_a_group_stay_in_order")
def reorders_what_waits(patch: Patch) -> None:
    take = Outbox.take
    patch.setattr(Outbox, "take", lambda self, bytes_max: take(self, bytes_max)[::-1])


@found_by("test_what_goes_in_one_call_is_not_scattered")
def sends_each_message_alone(patch: Patch) -> None:
    take = Outbox.take
    patch.setattr(Outbox, "take", lambda self, bytes_max: take(self, 1))


@found_by("test_appends_of_a_group_stay_in_order", "test_each_verb_reaches_the_receiver", "test_statistics_add_up")
def loses_a_message_now_and_then(patch: Patch) -> None:
    put, draw = Outbox._put_one, random.Random(5)

    def put_most(self: Outbox, envelope: Any, size: int) -> None:
        if draw.random() < 0.7:
            put(self, envelope, size)

    patch.setattr(Outbox, "_put_one", put_most)


@found_by("test_full_control_lane_drops_the_oldest")
def keeps_old_votes(patch: Patch) -> None:
    sender = Peer._sender
    patch.setattr(Peer, "_sender", lambda self, lane, overflow: sender(self, lane, Overflow.DROP_NEWEST))


@found_by("test_full_append_lane_drops_the_newest")
def keeps_new_appends(patch: Patch) -> None:
    sender = Peer._sender
    patch.setattr(Peer, "_sender", lambda self, lane, overflow: sender(self, lane, Overflow.DROP_OLDEST))


@found_by("test_full_append_lane_drops_the_newest", "test_full_control_lane_drops_the_oldest")
def has_no_limit(patch: Patch) -> None:
    patch.setattr(Outbox, "_fits", lambda self, size: True)


@found_by("test_full_lane_does_not_fill_the_other")
def has_one_queue_for_both_lanes(patch: Patch) -> None:
    init = Peer.__init__

    def init_sharing(self: Peer, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        append, control = self.append.outbox, self.control.outbox
        patch.setattr(control, "put", lambda envelopes: control.lose(len(envelopes)) if append.queued_bytes else None)

    patch.setattr(Peer, "__init__", init_sharing)


@found_by("test_newer_pulse_takes_the_place_of_one_that_waits")
def keeps_the_first_pulse(patch: Patch) -> None:
    put = Outbox.put_pulse
    patch.setattr(Outbox, "put_pulse", lambda self, pulse: put(self, self._pulse or pulse))


@found_by("test_retry_now_ends_a_wait", "test_verbs_before_it_serves_are_harmless")
def forgets_the_pulse_when_the_lane_opens(patch: Patch) -> None:
    opened = Outbox.open

    def open_empty(self: Outbox) -> None:
        self.take_pulse()
        opened(self)

    patch.setattr(Outbox, "open", open_empty)


@found_by("test_retry_now_ends_a_wait", "test_peer_that_breaks_off_and_comes_back_in_a_new_start")
def keeps_messages_for_a_lane_that_is_shut(patch: Patch) -> None:
    def put(self: Outbox, envelopes: Any) -> None:
        for envelope in envelopes:
            self._put_one(envelope, 100)
        self._wakeup.set()

    patch.setattr(Outbox, "put", put)


@found_by("test_message_that_cannot_go_costs_only_itself")
def loses_the_whole_frame_with_one_bad_message(patch: Patch) -> None:
    patch.setattr(Batcher, "_good_ones", lambda self, envelopes: self.outbox.lose(len(envelopes)) or [])


@found_by("test_message_that_cannot_go_costs_only_itself")
def does_not_count_what_it_cannot_send(patch: Patch) -> None:
    good = Batcher._good_ones

    def good_in_silence(self: Batcher, envelopes: Any) -> Any:
        before = self.outbox.dropped
        kept = good(self, envelopes)
        self.outbox.dropped = before
        return kept

    patch.setattr(Batcher, "_good_ones", good_in_silence)


@found_by("test_payload_bytes_max_is_true")
def promises_more_than_fits(patch: Patch) -> None:
    patch.setattr(TcpTransport, "payload_bytes_max", property(lambda self: CONFIG.frame_bytes_max))


# -- incidents and room ----------------------------------------------------------------------------------------------------------


@found_by("test_messages_for_who_is_away_are_one_incident", "test_peer_that_breaks_off_and_comes_back_in_a_new_start")
def never_tells(patch: Patch) -> None:
    patch.setattr(Incidents, "note", lambda self, peer: None)


@found_by("test_messages_for_who_is_away_are_one_incident")
def tells_again_and_again(patch: Patch) -> None:
    lose = Outbox.lose

    def lose_anew(self: Outbox, count: int) -> None:
        self._in_incident = False
        lose(self, count)

    patch.setattr(Outbox, "lose", lose_anew)


@found_by("test_messages_for_who_is_away_are_one_incident", "test_full_append_lane_drops_the_newest")
def tells_from_inside_a_verb(patch: Patch) -> None:
    serve = TcpTransport.serve

    async def serve_directly(self: TcpTransport, identity: Any, receiver: Any, **kwargs: Any) -> None:
        patch.setattr(self._incidents, "note", receiver.unreachable)
        await serve(self, identity, receiver, **kwargs)

    patch.setattr(TcpTransport, "serve", serve_directly)


@found_by("test_full_append_lane_drops_the_newest", "test_node_without_an_address", "test_verbs_after_the_end_are_harmless")
def has_always_room(patch: Patch) -> None:
    patch.setattr(TcpTransport, "has_room", lambda self, peer: True)


@found_by("test_full_append_lane_drops_the_newest")
def has_no_room_after_an_overflow(patch: Patch) -> None:
    patch.setattr(Outbox, "has_room", property(lambda self: self.is_open and not self.dropped))


@found_by("test_removed_peer_gets_nothing_and_may_come_back", "test_node_without_an_address")
def does_not_count_what_is_for_nobody(patch: Patch) -> None:
    statistics = TcpTransport.statistics

    def without(self: TcpTransport) -> Any:
        self._dropped_unknown = 0
        return statistics(self)

    patch.setattr(TcpTransport, "statistics", without)


# -- handshakes ------------------------------------------------------------------------------------------------------------------


@found_by("test_other_cluster_is_refused")
def lets_other_clusters_in(patch: Patch) -> None:
    judge = _greeting.judge
    patch.setattr(_server, "judge", lambda hello, me, receiver: None if hello.cluster_id != me.cluster_id else judge(hello, me, receiver))


@found_by("test_other_node_at_the_address_is_refused")
def takes_whoever_answers(patch: Patch) -> None:
    judge, introduce = _greeting.judge, _greeting.introduce
    patch.setattr(_server, "judge", lambda hello, me, receiver: None if hello.receiver != me.node_id else judge(hello, me, receiver))

    async def introduce_to_anybody(stream: Any, me: Any, peer: Any, lane: Any, receiver: Any) -> Any:
        return await introduce(stream, me, 2, lane, receiver)

    patch.setattr(_sender, "introduce", introduce_to_anybody)


@found_by("test_refusal_of_who_accepts_is_seen_by_who_dials", "test_both_sides_judge_each_other_and_hear_of_it")
def does_not_ask_where_it_accepts(patch: Patch) -> None:
    patch.setattr(_server, "judge", lambda hello, me, receiver: None)


@found_by("test_refusal_of_who_accepts_is_seen_by_who_dials")
def refuses_without_a_word(patch: Patch) -> None:
    patch.setattr(_greeting, "split_reason", lambda reason: ("refused", ""))


@found_by("test_refusal_of_who_dials_keeps_the_lane_shut", "test_both_sides_judge_each_other_and_hear_of_it")
def does_not_ask_where_it_dials(patch: Patch) -> None:
    introduce = _greeting.introduce

    class Nodder:
        def check_peer(self, peer: Any) -> None:
            return None

    async def introduce_blindly(stream: Any, me: Any, peer: Any, lane: Any, receiver: Any) -> Any:
        return await introduce(stream, me, peer, lane, Nodder())  # type: ignore[arg-type]  # it is asked nothing else

    patch.setattr(_sender, "introduce", introduce_blindly)


# -- addresses -------------------------------------------------------------------------------------------------------------------


@found_by("test_peer_moves", "test_peer_that_breaks_off_and_comes_back_in_a_new_start")
def does_not_move(patch: Patch) -> None:
    patch.setattr(Peer, "move", lambda self, address: None)


@found_by("test_peer_moves")
def moves_one_lane_only(patch: Patch) -> None:
    def move(self: Peer, address: Any) -> None:
        self.control.move(address)

    patch.setattr(Peer, "move", move)


@found_by("test_same_address_again_changes_nothing")
def dials_anew_for_the_same_address(patch: Patch) -> None:
    def move(self: Peer, address: Any) -> None:
        for sender in (self.control, self.append, self._dialler):
            sender.move(address)

    patch.setattr(Peer, "move", move)


@found_by("test_removed_peer_gets_nothing_and_may_come_back")
def keeps_removed_peers(patch: Patch) -> None:
    patch.setattr(TcpTransport, "remove_peer", lambda self, peer: None)


@found_by("test_removed_peer_gets_nothing_and_may_come_back")
def sends_what_a_removed_peer_had_waiting(patch: Patch) -> None:
    """Its connections stay, and its messages go."""
    patch.setattr(Peer, "close", lambda self: None)


@found_by("test_retry_now_ends_a_wait")
def does_not_retry(patch: Patch) -> None:
    patch.setattr(Peer, "retry_now", lambda self: None)


@found_by("test_retry_now_of_who_is_there_is_nothing")
def retries_who_is_there(patch: Patch) -> None:
    patch.setattr(Sender, "retry_now", lambda self: self._attempt.cancel())


# -- snapshots -------------------------------------------------------------------------------------------------------------------


@found_by("test_next_piece_waits_until_the_receiver_is_done")
def does_not_wait_for_the_receiver(patch: Patch) -> None:
    run = InboundReader.run

    async def run_ahead(self: InboundReader, *, is_snapshot: bool) -> str:
        async with trio.open_nursery() as nursery:
            receiver = self._receiver

            class Hasty:
                async def snapshot(self, peer: int, data: bytes) -> None:
                    nursery.start_soon(receiver.snapshot, peer, data)  # type: ignore[attr-defined]  # there is one where this is called

            if is_snapshot:
                self._receiver = Hasty()  # type: ignore[assignment]  # nothing else is called for a snapshot
            return await run(self, is_snapshot=is_snapshot)
        raise AssertionError

    patch.setattr(InboundReader, "run", run_ahead)


@found_by("test_pieces_arrive_whole_and_in_order")
def opens_a_connection_for_each_piece(patch: Patch) -> None:
    """So that one overtakes the other."""
    draw = random.Random(3)

    async def late(self: InboundReader) -> None:
        await trio.sleep(draw.random() / 50)
        await pieces(self)

    pieces = InboundReader._read_pieces
    patch.setattr(InboundReader, "_read_pieces", late)
    patch.setattr(SnapshotConnections, "_take_idle", lambda self: None)


@found_by("test_removal_ends_a_piece", "test_end_of_the_transport_ends_a_piece")
def forgets_who_is_sending(patch: Patch) -> None:
    patch.setattr(SnapshotConnections, "close_all", lambda self: None)


@found_by("test_piece_before_the_transport_serves", "test_end_of_the_transport_ends_a_piece")
def sends_pieces_whenever_asked(patch: Patch) -> None:
    async def send(self: SnapshotConnections, data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    patch.setattr(SnapshotConnections, "send", send)


# -- beginning and end -----------------------------------------------------------------------------------------------------------


@found_by("test_cancellation_leaves_nothing", "test_cancelled_while_it_dials")
def does_not_end(patch: Patch) -> None:
    serve = TcpTransport.serve

    async def serve_on(self: TcpTransport, *args: Any, **kwargs: Any) -> None:
        try:
            await serve(self, *args, **kwargs)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(4)  # noqa: ASYNC102  # that is what is wrong with it

    patch.setattr(TcpTransport, "serve", serve_on)


@found_by("test_cancellation_leaves_nothing", "test_ten_lives")
def calls_after_the_end(patch: Patch) -> None:
    serve = TcpTransport.serve

    async def serve_and_tell(self: TcpTransport, identity: Any, receiver: Any, **kwargs: Any) -> None:
        try:
            await serve(self, identity, receiver, **kwargs)
        finally:
            trio.lowlevel.spawn_system_task(tell, receiver)

    async def tell(receiver: Any) -> None:
        await trio.sleep(0.001)
        receiver.unreachable(2)

    patch.setattr(TcpTransport, "serve", serve_and_tell)


# --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("defect, test", [(name, test) for name, (_, tests) in DEFECTS.items() for test in tests])
async def test_the_suite_finds(defect: str, test: str, monkeypatch: pytest.MonkeyPatch) -> None:
    DEFECTS[defect][0](monkeypatch)
    with pytest.raises(Exception) as caught:
        await getattr(Broken(), test)()
    assert any(isinstance(error, AssertionError | RaftError) for error in leaves(caught.value)), "found by a claim, not by an accident"


@pytest.mark.parametrize("test", sorted({test for _, tests in DEFECTS.values() for test in tests}))
async def test_and_nothing_where_nothing_is_wrong(test: str) -> None:
    sound = Broken()
    sound.seconds = 10  # nothing has to run out here
    await getattr(sound, test)()


def leaves(error: BaseException) -> list[BaseException]:
    return [leaf for each in error.exceptions for leaf in leaves(each)] if isinstance(error, BaseExceptionGroup) else [error]
