"""From the transport to the groups: every message of a frame is routed before any driver runs.

A message for a group, or an incarnation of one, that is not on this node's disk never creates anything: it is counted and dropped. One
for a group that is there and does not run yet starts it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio

from .._errors import GroupNotFoundError, WireError
from .._types import GroupId, GroupKey, Millis, NodeId
from ..core import Unreachable
from ..group import RaftGroup
from ..observe import Announcer, PeerRefused
from ..transport import Identity, MultiplexedTransport
from ..wire import Envelope, Forward, ForwardReply, NodeAddress, Pulse, PulseLine, SnapshotAnswer, SnapshotReply, decode_piece
from ._address_book import AddressBook
from ._forwarded import RemoteToken, SeenRequests
from ._forwards import Forwards
from ._outcome import unknown_reply
from ._peers import Peers, line_as_message
from ._stores import KnownStores
from ._waking import WakingLines


class Router:
    """The node's `Receiver`."""

    def __init__(
        self,
        node_id: NodeId,
        groups: dict[GroupId, RaftGroup],
        *,
        find: Callable[[GroupKey], RaftGroup | None],
        peers: Peers,
        forwards: Forwards,
        stores: KnownStores,
        book: AddressBook,
        transport: MultiplexedTransport,
        announcer: Announcer,
        now: Callable[[], Millis],
        hurry: Callable[[], None],
    ) -> None:
        """
        Args:
            find: the group that a message is for, started if need be.
            hurry: has `waking.wake_some` called soon.
        """
        self._node_id: Final = node_id
        self._groups = groups
        self._find = find
        self.waking: Final = WakingLines(self._put_line, hurry)
        self._peers, self._forwards, self._stores, self._book = peers, forwards, stores, book
        self._transport = transport
        self._announcer, self._counters = announcer, announcer.counters
        self._now = now
        self._seen: dict[NodeId, SeenRequests] = {}

    # --- who is there -----------------------------------------------------------------------------------------------------------------

    def check_peer(self, peer: Identity) -> str | None:
        reason = self._reason_against(peer)
        if reason is not None:
            self._announcer.announce(PeerRefused(peer.node_id, reason))
        return reason

    def _reason_against(self, peer: Identity) -> str | None:
        if peer.node_id not in self._peers:
            return f"unknown-node: node {peer.node_id} is in no address book here: name it in `addresses`, or call set_address"
        newest = self._peers.newest_incarnation(peer.node_id)
        if peer.incarnation < newest:
            return f"old-incarnation: start {peer.incarnation} of node {peer.node_id} speaks, but start {newest} has been heard"
        return self._stores.check(peer.node_id, peer.store_id)

    def connected(self, peer: NodeId) -> None:
        self._transport.retry_now(peer)
        self._book.greet(peer)

    def unreachable(self, peer: NodeId) -> None:
        self._forwards.lost(peer)
        for group_id in self._peers.watchers(peer):
            group = self._groups.get(group_id)
            if group is not None:
                group.inbox.put_peer(Unreachable(peer))

    async def forget_store(self, node_id: NodeId) -> None:
        """See `MultiRaftManager.forget_store`, which has made sure that it may be forgotten."""
        await self._stores.forget(node_id)
        self._seen.pop(node_id, None)
        self._forwards.lost(node_id)
        self._peers.forget(node_id, self._now())
        # New connections, on which whoever is there introduces itself anew. Its own with us end when another store makes one.
        self._transport.remove_peer(node_id)
        self._transport.set_address(node_id, self._book[node_id])

    # --- what they say ----------------------------------------------------------------------------------------------------------------

    def messages(self, peer: NodeId, envelopes: Sequence[Envelope]) -> None:
        if not self._stores.is_known(peer):
            self._hear_addresses(envelopes)
            return
        counters = self._counters
        counters.messages_in += len(envelopes)
        for key, message in envelopes:
            if isinstance(message, ForwardReply):
                self._forwards.answer(peer, message)
                continue
            if isinstance(message, NodeAddress):
                self._book.hear(message)
                continue
            group = self._find(key)
            if isinstance(message, Forward):
                self._hand_over(peer, key, group, message)
            elif group is None:
                counters.messages_unknown_group += 1
            elif isinstance(message, SnapshotReply):
                group.snapshot_replied(message)
            elif not group.inbox.put_message(message):
                counters.messages_no_room += 1

    def _hear_addresses(self, envelopes: Sequence[Envelope]) -> None:
        """Where nodes are is nothing that a disk vouches for, and is told at the first meeting."""
        for _, message in envelopes:
            if isinstance(message, NodeAddress):
                self._book.hear(message)

    def pulse(self, peer: NodeId, pulse: Pulse) -> None:
        if not self._stores.is_known(peer):
            return
        for line in self._peers.receive(peer, pulse, self._now()):
            group_id = line.group.group_id
            if group_id in self._groups and group_id not in self.waking:
                self._put_line(peer, line)
            else:
                self.waking.put(peer, line)

    def _put_line(self, peer: NodeId, line: PulseLine) -> None:
        group = self._find(line.group)
        if group is None:
            self._counters.messages_unknown_group += 1
            self._peers.answer_unknown(peer, line)
        else:
            group.inbox.put_line(line_as_message(line, peer, self._node_id))

    async def snapshot(self, peer: NodeId, data: bytes) -> None:
        try:
            piece = decode_piece(data, peer, self._node_id)
        except WireError:
            self._counters.messages_not_understood += 1
            return
        await trio.lowlevel.checkpoint()
        if not self._stores.is_known(peer):
            return
        group = self._find(piece.group)
        if group is not None:
            await group.receive_snapshot(piece)
            return
        self._counters.messages_unknown_group += 1
        # Answered, or it would be offered again and again, and take a place among the streams each time.
        text = f"node {self._node_id} does not run {piece.group}"
        reply = SnapshotReply(piece.target, piece.source, piece.at, piece.sha256, SnapshotAnswer.REFUSED, 0, text)
        self._transport.send_vote(peer, (Envelope(piece.group, reply),))

    def _hand_over(self, peer: NodeId, key: GroupKey, group: RaftGroup | None, request: Forward) -> None:
        """A peer passed a request on: answer it whatever happens, but take it once only."""
        seen = self._seen.get(peer)
        if seen is None or seen.incarnation < request.incarnation:
            seen = self._seen[peer] = SeenRequests(request.incarnation)
        if seen.incarnation != request.incarnation or not seen.is_news(request.number):
            self._counters.messages_duplicate += 1
            return

        def reply(answer: ForwardReply) -> None:
            # NB: once its store is forgotten, another one may be there, whose processes and requests are numbered from 1 again.
            if self._seen.get(peer) is not seen:
                return
            self._counters.messages_out += 1
            if len(answer.body) > self._transport.payload_bytes_max:
                answer = unknown_reply(answer)  # no frame could hold it
            self._transport.send_append_entries(peer, (Envelope(key, answer),))

        if group is None:
            RemoteToken(request, reply, ()).fail(GroupNotFoundError(f"node {self._node_id} runs no {key}"))
        else:
            token = RemoteToken(request, reply, group.machine.declared_errors)
            group.hand_over(request.kind, request.payload, token, forwarded=True)
