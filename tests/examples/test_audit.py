"""The audit must see each kind of damage, planted one at a time into a healthy cluster."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from audit import Findings, Held, ReplicaCopy, audit
from ledger import Ledger, Write


@attrs.define
class Cluster:
    """Three replicas of two groups that hold four acknowledged writes each."""

    ledger: Ledger
    copies: list[ReplicaCopy]

    def replica(self, node_id: int, group_id: int) -> ReplicaCopy:
        return next(copy for copy in self.copies if (copy.node_id, copy.group_id) == (node_id, group_id))

    def replace(self, node_id: int, group_id: int, **changes: Any) -> None:
        old = self.replica(node_id, group_id)
        self.copies[self.copies.index(old)] = attrs.evolve(old, **changes)

    def hold_everywhere(self, write: Write, index: int, version: int = 1) -> None:
        for copy in self.copies:
            if copy.group_id == write.group_id:
                copy.rows[write.key] = Held(version, index, write.value)

    def audit(self) -> Findings:
        return audit(self.ledger, self.copies)


@pytest.fixture
def cluster() -> Cluster:
    ledger = Ledger("run")
    copies = [ReplicaCopy(node_id, group_id, 10, f"digest-{group_id}", {}) for node_id in (1, 2, 3) for group_id in (1, 2)]
    cluster = Cluster(ledger, copies)
    for group_id in (1, 2):
        for index in range(2, 6):
            write = ledger.open(group_id, client=0)
            ledger.acknowledge(write, index)
            cluster.hold_everywhere(write, index)
    return cluster


def some_write(cluster: Cluster, group_id: int = 1) -> Write:
    return next(write for write in cluster.ledger if write.group_id == group_id)


def test_a_healthy_cluster_has_no_findings(cluster: Cluster) -> None:
    findings = cluster.audit()
    assert findings.problems() == []
    assert findings.digests_equal


def test_a_lost_write_is_found(cluster: Cluster) -> None:
    write = some_write(cluster)
    for node_id in (1, 2, 3):
        del cluster.replica(node_id, 1).rows[write.key]
    assert list(cluster.audit().lost) == [write.key]


def test_a_write_lost_on_one_replica_is_found_and_the_replica_named(cluster: Cluster) -> None:
    write = some_write(cluster)
    del cluster.replica(2, 1).rows[write.key]
    assert "node 2 does not have it" in cluster.audit().lost[write.key]


def test_a_write_with_another_value_is_lost(cluster: Cluster) -> None:
    write = some_write(cluster)
    cluster.replica(3, 1).rows[write.key] = Held(1, 2, "something else")
    assert "another value" in cluster.audit().lost[write.key]


def test_a_write_at_another_index_is_lost(cluster: Cluster) -> None:
    write = some_write(cluster)
    cluster.hold_everywhere(write, index=9)
    assert "at index 9" in cluster.audit().lost[write.key]


def test_a_write_whose_group_cannot_be_read_is_lost(cluster: Cluster) -> None:
    cluster.copies = [copy for copy in cluster.copies if copy.group_id != 2]
    assert len(cluster.audit().lost) == 4


def test_a_duplicated_write_is_found(cluster: Cluster) -> None:
    write = some_write(cluster)
    cluster.hold_everywhere(write, index=2, version=2)
    findings = cluster.audit()
    assert list(findings.duplicated) == [write.key]
    assert "applied 2 times" in findings.problems()[0]


def test_an_unknown_write_may_be_there_or_not_but_once(cluster: Cluster) -> None:
    there, nowhere = cluster.ledger.open(1, client=1), cluster.ledger.open(1, client=1)
    cluster.hold_everywhere(there, index=7)
    findings = cluster.audit()
    assert findings.problems() == []
    assert (cluster.ledger.unknown, findings.unknown_applied) == (2, 1)
    assert nowhere.key not in findings.lost
    cluster.hold_everywhere(there, index=7, version=2)
    assert list(cluster.audit().duplicated) == [there.key]


def test_a_refused_write_that_is_there_is_found(cluster: Cluster) -> None:
    write = cluster.ledger.open(1, client=1)
    cluster.ledger.refuse(write)
    assert cluster.audit().problems() == []
    cluster.hold_everywhere(write, index=7)
    assert list(cluster.audit().phantom) == [write.key]


def test_a_key_that_nobody_sent_is_found(cluster: Cluster) -> None:
    cluster.replica(1, 1).rows["run-c9-999"] = Held(1, 7, "?")
    assert list(cluster.audit().phantom) == ["run-c9-999"]


def test_a_key_in_the_wrong_group_is_found(cluster: Cluster) -> None:
    write = some_write(cluster, group_id=1)
    cluster.replica(1, 2).rows[write.key] = Held(1, 7, write.value)
    assert list(cluster.audit().phantom) == [write.key]


def test_keys_of_other_runs_are_nobody_s_business(cluster: Cluster) -> None:
    cluster.replica(1, 1).rows["earlier-c0-1"] = Held(3, 7, None)
    assert cluster.audit().problems() == []


def test_another_digest_at_the_same_index_is_found(cluster: Cluster) -> None:
    cluster.replace(3, 2, digest="other")
    findings = cluster.audit()
    assert not findings.digests_equal
    assert "group 2 on nodes 1 and 3" in findings.differing[0]


def test_another_index_is_found(cluster: Cluster) -> None:
    cluster.replace(2, 1, index=9, digest="of course another")
    assert "applied up to 10 and 9" in cluster.audit().differing[0]
