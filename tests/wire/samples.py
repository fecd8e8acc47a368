"""What the tests of the wire send: strategies for random messages, and one fixed sample of everything."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from trioraft._types import NOTHING, EntryId, GroupKey, Member
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Attach,
    AttachRefused,
    Configuration,
    Detach,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    PreVote,
    PreVoteReply,
    Removed,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
    encode_configuration,
)
from trioraft.wire import (
    NO_GROUP,
    Envelope,
    Forward,
    ForwardOutcome,
    ForwardReply,
    Hello,
    NodeAddress,
    Pulse,
    PulseKind,
    PulseLine,
    RequestKind,
    SnapshotAnswer,
    SnapshotPiece,
    SnapshotReply,
    Welcome,
    seal,
)

SOURCE, TARGET = 1, 2
PAYLOAD_MAX = 1 << 16
NUMBER_MAX = 2**63 - 1

numbers = st.integers(0, 30) | st.integers(0, NUMBER_MAX)
positions = st.integers(1, 30) | st.integers(1, NUMBER_MAX)
entry_ids = st.builds(EntryId, numbers, numbers)
replicas = st.just(NOTHING) | entry_ids
groups = st.builds(GroupKey, numbers, st.just(1) | st.integers(0, 2**32 - 1))
sources = st.builds(Member, st.just(SOURCE), replicas)
targets = st.builds(Member, st.just(TARGET), replicas)
payloads = st.binary(max_size=200)
node_ids = st.integers(1, 2**32 - 1)
configurations = st.builds(
    lambda voters, replica: Configuration(voters, replicas={min(voters): replica}), st.sets(node_ids, min_size=1, max_size=4), replicas
)
kinds_and_payloads = st.tuples(st.sampled_from([kind for kind in EntryKind if kind is not EntryKind.CONFIGURATION]), payloads) | st.tuples(
    st.just(EntryKind.CONFIGURATION), configurations.map(encode_configuration)
)
entries = st.builds(lambda index, term, what: Entry(index, term, *what), positions, positions, kinds_and_payloads)
hashes = st.binary(min_size=32, max_size=32)
flags = st.booleans()
ends = (sources, targets, numbers)

core_messages = st.one_of(
    st.builds(PreVote, *ends, entry_ids, numbers),
    st.builds(PreVoteReply, *ends, flags),
    st.builds(RequestVote, *ends, entry_ids, flags, numbers),
    st.builds(RequestVoteReply, *ends, flags),
    st.builds(AppendEntries, *ends, entry_ids, numbers, st.lists(entries, max_size=4).map(tuple)),
    st.builds(AppendEntriesReply, *ends, numbers, numbers, entry_ids, numbers),
    st.builds(Heartbeat, *ends, numbers, numbers),
    st.builds(HeartbeatReply, *ends, numbers, numbers),
    st.builds(Attach, *ends),
    st.builds(Detach, *ends),
    st.builds(AttachRefused, *ends),
    st.builds(TimeoutNow, *ends),
    st.builds(Removed, *ends, numbers),
)
messages = st.one_of(
    core_messages,
    st.builds(Forward, numbers, numbers, payloads, st.sampled_from(RequestKind)),
    st.builds(ForwardReply, numbers, numbers, st.sampled_from(ForwardOutcome), payloads),
    st.builds(SnapshotReply, sources, targets, entry_ids, hashes, st.sampled_from(SnapshotAnswer), numbers, st.text(max_size=128)),
)
addresses = st.text(min_size=1, max_size=128).filter(str.isprintable)
node_addresses = st.builds(NodeAddress, node_ids, positions, addresses)
envelopes = st.builds(Envelope, groups, messages) | st.builds(Envelope, st.just(NO_GROUP), node_addresses)

lines = st.builds(PulseLine, st.sampled_from(PulseKind), groups, numbers, replicas, replicas)
pulses = st.builds(
    Pulse,
    numbers,
    positions,
    numbers,
    numbers,
    st.integers(-1, NUMBER_MAX),
    numbers,
    st.lists(lines, max_size=6).map(tuple),
)

pieces = st.builds(
    lambda behind, **fields: SnapshotPiece(size=fields["offset"] + len(fields["data"]) + behind, **fields),
    st.integers(0, 2**40),
    group=groups,
    source=sources,
    target=targets,
    term=numbers,
    at=entry_ids,
    sha256=hashes,
    offset=st.integers(0, 2**40),
    data=payloads,
)

store_ids = st.text("0123456789abcdef", min_size=32, max_size=32)
printable = st.text(max_size=32).filter(str.isprintable)
hellos = st.builds(
    Hello, printable.filter(bool), node_ids, node_ids, store_ids, numbers, st.sampled_from(["control", "append", "snapshot"])
)
welcomes = st.builds(Welcome, node_ids, store_ids, numbers, st.none() | st.sampled_from(["busy", "wrong-store"]), printable)

scalars = st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars, inner, max_size=4), max_leaves=12
)

# --- one of everything, fixed -------------------------------------------------------------------------------------------------------

GROUP = GroupKey(7)
ME, YOU = Member(SOURCE), Member(TARGET)
REPLACED = Member(TARGET, EntryId(2, 40))
STORE = "00112233445566778899aabbccddeeff"
HASH = bytes(range(32))
CONFIGURATION = Configuration({1, 2, 5}, {1, 2, 3}, {4}, replicas={5: EntryId(2, 40)})


def noop(index: int = 5, term: int = 3) -> Entry:
    return Entry(index, term, EntryKind.NOOP, b"")


def command(index: int = 6, term: int = 3, payload: bytes = b"\x61x") -> Entry:
    return Entry(index, term, EntryKind.COMMAND, payload)


def record(index: int = 6, term: int = 3, payload: bytes = b"\x61x", group: GroupKey = GROUP) -> bytes:
    return seal(group, command(index, term, payload))


def append(*entries_: Entry) -> AppendEntries:
    return AppendEntries(ME, YOU, 3, EntryId(2, 4), 4, entries_)


MESSAGES = {
    "PreVote": PreVote(ME, YOU, 4, EntryId(3, 9), 23),
    "PreVoteReply": PreVoteReply(ME, YOU, 4, True),
    "RequestVote": RequestVote(ME, YOU, 4, EntryId(3, 9), True, 2**32 - 1),
    "RequestVoteReply": RequestVoteReply(ME, YOU, 4, False),
    "AppendEntries": append(noop(), command()),
    "AppendEntries, a probe": append(),
    "AppendEntriesReply": AppendEntriesReply(ME, YOU, 3, 6, commit=5),
    "AppendEntriesReply, refused": AppendEntriesReply(ME, YOU, 3, 0, 9, EntryId(2, 4), 3),
    "Heartbeat": Heartbeat(ME, YOU, 3, 6, 11),
    "HeartbeatReply": HeartbeatReply(ME, YOU, 3, 6, 11),
    "Attach": Attach(ME, YOU, 3),
    "Detach, to a replaced replica": Detach(ME, REPLACED, 3),
    "AttachRefused": AttachRefused(ME, YOU, 5),
    "TimeoutNow": TimeoutNow(ME, YOU, 3),
    "Removed, to a replaced replica": Removed(ME, REPLACED, 3, 50),
    "Forward": Forward(2, 77, b"\x61x"),
    "Forward of a query": Forward(2, 78, b"\xf6", RequestKind.QUERY),
    "ForwardReply": ForwardReply(2, 77, ForwardOutcome.RESULT, b"\x01"),
    "SnapshotReply": SnapshotReply(ME, YOU, EntryId(3, 9), HASH, SnapshotAnswer.CONTINUE, 4096),
    "SnapshotReply, to a replaced replica": SnapshotReply(ME, REPLACED, EntryId(3, 9), HASH, SnapshotAnswer.REFUSED, text="rotten"),
    "NodeAddress": NodeAddress(3, 2, "n3:1"),
}

PIECE = SnapshotPiece(group=GROUP, source=ME, target=REPLACED, term=3, at=EntryId(3, 9), sha256=HASH, size=4099, offset=4096, data=b"end")

PULSE = Pulse(
    3,
    1000,
    2,
    998,
    12,
    997,
    (
        PulseLine(PulseKind.ATTACH, GROUP, 3),
        PulseLine(PulseKind.DETACH, GroupKey(8), 2),
        PulseLine(PulseKind.REFUSED, GroupKey(9, 2), 5, NOTHING, EntryId(2, 40)),
    ),
)
HELLO = Hello("demo", SOURCE, TARGET, STORE, 3, "append")
WELCOME = Welcome(TARGET, STORE[::-1], 2)
REFUSAL = Welcome(TARGET, STORE[::-1], 2, "wrong-cluster", "this is cluster 'demo'")
