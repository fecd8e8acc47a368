"""Scripts of small groups: elections, pre-votes, the loss of a quorum, writes that overtake each other.

The tables' peers may or may not have PreVote, CheckQuorum and leases; here all of them are always on. So where a script lets somebody
win against a leader that is heard, the leader is deposed first (`Network.depose`), and where a term is higher than a pre-vote would
allow, the script says how that came about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.logs import entries
from tests.conformance.network import E, Network
from tests.conformance.replica import Replica
from tests.conformance.tables import Case, table
from trioraft._errors import BusyError, NotLeaderError, TransferRefusedError
from trioraft._types import EntryId, Member
from trioraft.core import (
    AppendEntries,
    AppendEntriesReply,
    Campaign,
    Configuration,
    GroupConfig,
    Heartbeat,
    HeartbeatReply,
    Message,
    PeerDown,
    PreVoteReply,
    SnapshotTaken,
    TimeoutNow,
    TimePassed,
    TransferLeadership,
)
from trioraft.core._membership import append_configuration
from trioraft.core._roles import Leader

LEFT_OUT = {
    10: "Does not apply: PreVote is always on, and prevents just this; with it, the follower stays in its term.",
    13: "Does not apply: PreVote is always on, so there is no switch to it.",
    14: "Not built yet: membership changes of a running group.",
    25: "Does not apply: without PreVote; the lease of this script is in the next one, the answer to an old leader in `stuck candidate`.",
}

SCRIPTS: dict[str, Callable[[Case], None]] = {}


def script(name: str) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    def register(function: Callable[[Case], None]) -> Callable[[Case], None]:
        SCRIPTS[name] = function
        return function

    return register


@table("cluster_scenarios", "scripts", leaves_out=LEFT_OUT)
def test_script(case: Case) -> None:
    SCRIPTS[case["name"]](case)


def check(network: Network, expected: dict[str, dict[str, Any]]) -> None:
    for node_id, expect in expected.items():
        replica = network[int(node_id)]
        seen = {"state": replica.role, "term": replica.raft.term, "last_index": replica.raft.log.last_index}
        assert {name: seen[name] for name in expect} == expect, node_id


@script("each node can win in turn")
def _(case: Case) -> None:
    network = Network()
    for term, node_id in enumerate([1, 2, 3], 1):
        network.campaign(node_id)
        assert network.leaders == [node_id]
        assert {replica.raft.leader for replica in network} == {node_id}
        assert {replica.raft.term for replica in network} == {term}
        network.depose(node_id)


@script("dueling candidates with pre-vote")
def _(case: Case) -> None:
    """Two differences: a refusal tells the term at once, and a leader that hears of a member again sends it what it lacks."""
    network = Network()
    network.cut(1, 3)
    network.campaign(1)
    network.campaign(3)
    after = case["expect"]["after step 3"]
    check(network, {"1": after["1"], "3": after["3"] | {"term": 1}})
    assert network[3].raft.log.last_index == 0
    network.heal()
    network.campaign(3)
    check(network, case["expect"]["end"] | {"3": case["expect"]["end"]["3"] | {"last_index": 1}})


@script("old leader's append is ignored")
def _(case: Case) -> None:
    network = Network()
    network.campaign(1)
    for former, node_id in [(1, 2), (2, 1)]:
        network.depose(former)
        network.campaign(node_id)
    late = AppendEntries(Member(2), Member(1), 2, EntryId(2, 2), 0, tuple(entries(3, [2])))
    for node_id in (1, 3):
        late.target = Member(node_id)
        network[node_id].step(late)
    network.propose(1)
    assert [replica.terms for replica in network] == [[1, 2, 3, 3]] * 3


@script("proposal with peers up,up,down")
@script("proposal with peers up,down,down,up")
def _(case: Case) -> None:
    """Without a majority the table's candidate goes to term 1 and ours asks on in term 0."""
    network = Network(range(1, len(case["setup"]["peers"]) + 1))
    for node_id, state in enumerate(case["setup"]["peers"], 1):
        if state == "down":
            network.isolate(node_id)
    network.campaign(1)
    network.propose(1)
    committed = case["expect"]["committed"]
    assert network[1].raft.term == (case["expect"]["1_term"] if committed else 0)
    assert network[1].raft.commit_index == (2 if committed else 0)
    assert [type(error) for error in network[1].refused] == ([] if committed else [NotLeaderError])


@script("proposal at a follower, peers up,up,up")
def _(case: Case) -> None:
    """The core names the leader; passing on is the business of the group around it."""
    network = Network()
    network.campaign(1)
    network.propose(2)
    (error,) = network[2].refused
    assert isinstance(error, NotLeaderError)
    assert error.leader == 1
    network.propose(error.leader)
    assert [replica.terms for replica in network] == [[1, 1]] * 3
    assert network[1].raft.term == case["expect"]["1_term"]


@script("stray candidate resets by heartbeat")
def _(case: Case) -> None:
    network = Network()
    network.campaign(1)
    network.isolate(3)
    for former, node_id in [(1, 2), (2, 1)]:
        network.depose(former)
        network.campaign(node_id)
    network.advance(5 * E, only=[3])
    assert network[3].role == "pre_candidate"
    network.heal()
    assert network.leaders == [1]
    assert (network[3].role, network[3].raft.term, network[3].raft.leader) == (case["expect"]["3"]["state"], network[1].raft.term, 1)


@script("leader keeps quorum")
def _(case: Case) -> None:
    leader = Replica()
    leader.become_leader()
    for other in leader.others:
        leader.liveness[other] = 0
        leader.step(PeerDown(other))
    tick = E // case["setup"]["election_ticks"]
    for _ in range(6):
        leader.hear(HeartbeatReply, source=2, commit=0)
        leader.now += tick
        leader.step(TimePassed())
    assert leader.role == case["expect"]["1"]
    leader.now += E
    leader.step(TimePassed())
    assert leader.role == "follower"


@script("check-quorum superseding")
def _(case: Case) -> None:
    network = Network()
    network.campaign(1)
    network.campaign(3)
    assert network.leaders == [1]
    network.isolate(1)
    network.advance(E)
    network.campaign(3)
    assert network[3].role == case["expect"]["3"]


@script("stuck candidate is freed")
def _(case: Case) -> None:
    """Pre-votes that were granted before anybody had heard the leader bring node 3 into terms of its own."""
    network = Network()
    network.campaign(1)
    network.isolate(1)
    for term in (2, 3):
        network[3].step(Campaign())
        network[3].hear(PreVoteReply, source=2, term=term, granted=True)
        assert (network[3].role, network[3].raft.term) == ("candidate", term)
        network.deliver()
    assert network[3].role == "candidate"
    assert network[2].raft.term == 1
    network.heal()
    network[3].hear(Heartbeat, source=1, term=1, commit=0)
    network.deliver()
    assert (network[1].role, network[1].raft.term) == ("follower", 3)
    network.campaign(3)
    assert network.leaders == [3]


@script("small term can still complete an election")
def _(case: Case) -> None:
    network = Network()
    for other in (1, 2):
        network.cut(3, other)
    network.campaign(1)
    network.campaign(3)
    assert (network[3].role, network[3].raft.term) == ("pre_candidate", 0)
    network.depose(1)
    network.campaign(2)
    assert network.leaders == [2]
    network.heal()
    network.isolate(2)
    network.advance(E)
    for node_id in (3, 1):
        network.campaign(node_id)
    assert set(network.leaders) & {1, 3}


@script("pre-vote + check-quorum after leader loss")
def _(case: Case) -> None:
    network = Network()
    network.campaign(1)
    network.isolate(1)
    network.campaign(3)
    assert network[3].role == "pre_candidate"
    network.campaign(2)
    assert network[2].role == "leader"
    assert network[3].raft.leader == 2


@script("campaign while leader is a no-op")
def _(case: Case) -> None:
    network = Network(case["setup"]["voters"])
    network.advance(0)
    assert network.leaders == [1]
    term = network[1].raft.term
    network.campaign(1)
    network.campaign(1)
    assert (network[1].role, network[1].raft.term) == ("leader", term)


@script("pre-vote + check-quorum script")
def _(case: Case) -> None:
    """A leader that is asked for a pre-vote tells the asker at once who leads, so node 3 cannot be heard at the end."""
    network = Network()
    network.campaign(1)
    network.campaign(2)
    assert network.leaders == [1]
    assert {replica.raft.term for replica in network} == {1}
    network.depose(1)
    network.campaign(3)
    assert network.leaders == [3]
    network.isolate(3)
    network.campaign(1)
    assert network[1].role == "pre_candidate"
    network.campaign(2)
    check(network, case["expect"])


def transfer(network: Network, target: int, *, asked_at: int = 1) -> None:
    network[asked_at].step(TransferLeadership("transfer", target))
    network.deliver()


def check_transfer_refused(network: Network, *kinds: str) -> None:
    """Node 1 leads on, and is free to lead or to hand over as before."""
    assert [error.kind for error in network[1].refused if isinstance(error, TransferRefusedError)] == list(kinds)
    assert network[1].answered == []
    assert network.leaders == [1]
    assert network[1].raft.status().transfer_target is None


@script("transfer asked at the follower")
def _(case: Case) -> None:
    """The core names the leader; passing on is the business of the group around it."""
    network = Network()
    network.campaign(1)
    transfer(network, 2, asked_at=2)
    (error,) = network[2].refused
    assert isinstance(error, NotLeaderError)
    transfer(network, 2, asked_at=error.leader or 0)
    assert (network[1].role, network[1].raft.leader, network.leaders) == ("follower", 2, [2])


@script("transfer to a lagging node")
def _(case: Case) -> None:
    network = Network()
    network.campaign(1)
    network.isolate(3)
    network.propose(1)
    network.heal()
    transfer(network, 3)
    network.advance(E // 2)
    assert network.leaders == [3]
    assert network[1].answered == [("transfer", None)]


@script("transfer to self")
def _(case: Case) -> None:
    network = Network()
    network.campaign(1)
    transfer(network, 1)
    check_transfer_refused(network, "leads")


@script("transfer to a learner")
def _(case: Case) -> None:
    leader = Replica(voters=case["setup"]["voters"], learners=case["setup"]["learners"])
    leader.step(TimePassed())
    leader.step(TransferLeadership("transfer", 2))
    (error,) = leader.refused
    assert isinstance(error, TransferRefusedError)
    assert error.kind == "no_voter"
    assert (leader.role, leader.raft.status().transfer_target, leader.take(TimeoutNow)) == ("leader", None, [])


@script("proposals during a transfer")
def _(case: Case) -> None:
    network = Network()
    network.campaign(1)
    network.isolate(3)
    transfer(network, 3)
    network.propose(1)
    assert [type(error) for error in network[1].refused] == [BusyError]
    assert network[1].raft.status().match[1] == 1


@script("target removed")
def _(case: Case) -> None:
    """The change is in force when it is appended; it is the second step of one that began before the transfer."""
    network = Network()
    network.campaign(1)
    network.loses = lambda message: isinstance(message, TimeoutNow)
    transfer(network, 3)
    leader = network[1].raft
    assert isinstance(leader.state, Leader)
    removal = Configuration({1, 2}, index=leader.log.last_index + 1)
    append_configuration(leader, leader.state, removal, network[1].now)
    network[1].settle()
    network.deliver()
    check_transfer_refused(network, "no_voter")


@script("transfer back to self")
def _(case: Case) -> None:
    """Asking for the leader itself takes nothing back: whoever was told to campaign may do so at any time."""
    network = Network()
    network.campaign(1)
    network.isolate(3)
    transfer(network, 3)
    transfer(network, 1)
    assert network.leaders == [1]
    network.advance(E)
    check_transfer_refused(network, "pending", "timeout")


@script("same target again does not extend the deadline")
def _(case: Case) -> None:
    network = Network()
    network.campaign(1)
    network.isolate(3)
    transfer(network, 3)
    tick = E // case["setup"]["election_ticks"]
    network.advance(case["setup"]["heartbeat_ticks"] * tick)
    transfer(network, 3)
    network.advance(E - case["setup"]["heartbeat_ticks"] * tick)
    check_transfer_refused(network, "pending", "timeout")


@script("lagging commit")
def _(case: Case) -> None:
    """A group has no periodic heartbeat: an answer that did not come is asked for again after E / 2, and the commit told after H."""
    network = Network()
    network.campaign(1)
    network.advance(E)

    def concerns_3(message: Message) -> bool:
        answer = isinstance(message, AppendEntriesReply) and message.source.node_id == 3
        return answer or (isinstance(message, Heartbeat) and message.target.node_id == 3)

    network.loses = concerns_3
    network.propose(1, count=2)
    network.advance(150)
    assert network[1].raft.commit_index == network[2].raft.commit_index == 3
    assert network[3].raft.commit_index < 3
    network.loses = lambda message: False
    network.advance(E // 2 + 100)
    assert network[3].raft.commit_index == 3


@script("async append ABA")
def _(case: Case) -> None:
    """Completions are told by write, so none can vouch for another; and each answer carries the term that it was given in."""
    replica = Replica([1] * 11, voters=case["setup"]["voters"])
    replica.holds_writes = True
    writes = []
    for term, leader in enumerate([2, 3, 4], 1):
        replica.hear(Heartbeat, source=leader, term=term, commit=0)
        replica.hear_append(EntryId(1, 11), [term], source=leader, term=term)
        writes.append(replica.sequence)
    assert replica.written == [1, 2, 3]
    answers = []
    for sequence, durable in zip(writes, [11, 11, 12], strict=True):
        replica.sent.clear()
        replica.sync(sequence)
        assert replica.raft.log.persisted_index == durable
        answers += [(reply.term, reply.target.node_id, reply.match) for reply in replica.take(AppendEntriesReply)]
    assert answers == [(1, 2, 12), (2, 3, 12), (3, 4, 12)]
    assert replica.terms[-1] == 3

    heir = Replica([1] * 11, me=4, term=2, voters=case["setup"]["voters"])
    heir.become_leader()
    for term in (1, 2):
        heir.hear(AppendEntriesReply, source=1, term=term, match=12)
    assert heir.raft.status().match[1] == 0
    heir.hear(AppendEntriesReply, source=1, term=3, match=12)
    assert heir.raft.status().match[1] == 12


@script("slow node restored by snapshot")
def _(case: Case) -> None:
    network = Network(config=GroupConfig(keep_entries=0))
    network.campaign(1)
    network.isolate(3)
    network.propose(1, 101)
    leader = network[1].raft
    network[1].step(SnapshotTaken(leader.log.last))
    assert leader.status().start == leader.log.last
    network.heal()
    network.advance(E)
    network.propose(1)
    network.propose(1)
    network.advance(E)
    assert network[3].raft.status().start == EntryId(1, 102)
    assert network[3].raft.commit_index == leader.commit_index == 104


@pytest.mark.parametrize("node_id", [1, 2, 3])
def test_the_network_is_fair(node_id: int) -> None:
    """The scripts' own tool: any node can win an election in it, and a deposed leader is back as a follower."""
    network = Network()
    network.campaign(node_id)
    assert network.leaders == [node_id]
    network.depose(node_id)
    assert network.leaders == []
