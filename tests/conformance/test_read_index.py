"""Linearizable reads at the leader; whoever is asked elsewhere asks the leader for the index."""

from __future__ import annotations

from tests.conformance.network import Network
from tests.conformance.replica import Replica
from tests.conformance.tables import Case, table
from trioraft._errors import NotLeaderError
from trioraft._types import Member
from trioraft.core import AppendEntriesReply, GroupConfig, Heartbeat, HeartbeatReply, Read


def read_index(network: Network, asked_at: int, token: str) -> int:
    """Ask a node, as a group would: itself if it leads, else the leader that it names."""
    asked = network[asked_at]
    asked.step(Read([token]))
    network.deliver()
    if not asked.answered:
        error = asked.refused.pop()
        assert isinstance(error, NotLeaderError)
        return read_index(network, error.leader or 0, token)
    ((answered, index),) = asked.answered
    assert answered == token
    asked.answered.clear()
    return int(index)


@table("read_index", "answers")
def test_answer(case: Case) -> None:
    """The rows are one run: so the ones before are run first. With a lease the answer needs no round, and is the same."""
    mode = case["mode"]
    network = Network(case["nodes"], config=GroupConfig(lease_reads=mode.startswith("lease")))
    network.advance(1000)
    network.campaign(case["leader"])
    assert network.leaders == [case["leader"]]
    leader = network[case["leader"]].raft
    rounds = (case["read_index"] - 1) // case["proposals_before"]
    for number in range(1, rounds + 1):
        network.propose(case["leader"], case["proposals_before"])
        asked_at = case["ask_at"] if number == rounds else case["leader"]
        assert read_index(network, asked_at, f"read {number}") == 1 + number * case["proposals_before"]
        assert (leader.lease_until > network[case["leader"]].now) == mode.startswith("lease")
        # This is what a lease is for: until then the commit index is the read index.
        assert leader.commit_index == 1 + number * case["proposals_before"]


@table(
    "read_index",
    "request_queue",
    leaves_out={1: "Does not apply: reads bring no index, a round takes the commit index of its log, which does not fall."},
)
def test_request_queue(case: Case) -> None:
    """The table counts two acknowledgements beside the leader: that is a quorum of five. Reads that wait together are one round, here
    named like in the table by the read that it was sent for."""
    leader = Replica(voters=range(1, 6), me=5)
    leader.become_leader()
    reads = [operands[0] for op, *operands in case["ops"] if op == "add"]
    confirmed = {operands[0] for op, *operands in case["ops"] if op == "ack"}
    while leader.raft.log.last_index < reads[-1]["index"]:
        leader.propose()
    rounds: dict[str, int] = {}
    for op, *operands in case["ops"]:
        match op, operands:
            case "add", [read]:
                # NB: past `settle`, so that the round leaves when all that it is for are there.
                for source in (1, 2, 3):
                    leader.raft.step(AppendEntriesReply(Member(source), leader.raft.me, 1, read["index"]), leader.now)
                assert leader.raft.commit_index == read["index"]
                leader.raft.step(Read([read["ctx"]]), leader.now)
                if read["ctx"] in confirmed:
                    leader.settle()
                    rounds[read["ctx"]] = max(message.round for message in leader.take(Heartbeat))
            case "ack", [name, source]:
                leader.hear(HeartbeatReply, source=source, commit=0, round=rounds[name])
            case "answers", [answers]:
                assert leader.answered == [(answer["ctx"], answer["index"]) for answer in answers]
            case "left", [names]:
                answered = {name for name, _ in leader.answered}
                assert [read["ctx"] for read in reads if read["ctx"] not in answered] == names
