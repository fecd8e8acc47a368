"""No failure scenario is forgotten in silence: each id is in the name of a test, or listed here with the reason why not (yet).

Test functions are found by name: ``test_EL_1_...`` is a test of EL-1, and ``test_EL_1_and_EL_10_...`` of both. The promises P1 to P8
are wider than one test; for them the tests that would refute them are listed.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

SCENARIOS = {
    "EL-1": "A vote survives a crash.",
    "EL-4": "A stale log cannot win.",
    "EL-5": "Split votes end.",
    "EL-9": "A vote from a stranger does not count.",
    "EL-10": "A candidate restarts, and does not vote for another in its term.",
    "LR-1": "Figure 7 of the paper: all logs become equal.",
    "LR-3": "A conflict below the commit index is fatal.",
    "LR-4": "The commit index is clipped to what the message proves.",
    "LR-6": "Back-off over divergent entries is bounded by their terms.",
    "LR-9": "The pipeline loses one batch.",
    "LR-10": "A follower is hung, not dead.",
    "LR-12": "A malformed append is refused whole.",
    "CM-1": "Figure 8 of the paper: an old entry on a majority is not committed.",
    "CM-2": "Only entries of the own term commit by counting.",
    "CM-3": "A new leader without clients commits what it found.",
    "CM-5": "No acknowledgement before the sync.",
    "CM-8": "Learners do not count.",
    "PV-1": "An isolated node returns without a trace.",
    "PV-3": "A deaf leader steps down.",
    "PV-4": "PreVote leaves no trace.",
    "PV-7": "Nodes with and without PreVote in one group.",
    "PV-10": "Timing floor: round trip and sync against the election timeout.",
    "LT-1": "The target of a transfer lags.",
    "LT-3": "The target of a transfer is removed or demoted meanwhile.",
    "LT-4": "The target of a transfer is a learner, unknown, or the leader itself.",
    "LT-6": "A transfer beats the lease.",
    "LT-8": "A transfer under full load.",
    "MB-1": "The single-server bug of 2015.",
    "MB-2": "Joint quorums.",
    "MB-3": "A second change while one is pending.",
    "MB-4": "A leader removes itself.",
    "MB-8": "A removed server keeps calling.",
    "MB-11": "A dead node is to vote.",
    "MB-12": "The last voter is to go.",
    "MB-15": "Two bootstraps of one group.",
    "MB-17": "A node moves to another address.",
    "RD-1": "A read at an old leader.",
    "RD-2": "A read at a new leader before its first commit.",
    "RD-5": "A read before the machine has applied its index.",
    "RD-8": "A lease without what it rests on.",
    "RD-10": "A leader steps down while reads wait.",
    "RD-11": "The short cut of a single voter ends with the configuration.",
    "CL-1": "A retry after a lost reply.",
    "CL-4": "A cancelled call.",
    "CL-6": "Proposals that are forwarded and retried.",
    "CL-8": "Notifications never go back.",
    "CL-10": "No promise of a lock without a fence.",
    "TP-1": "Messages are repeated and change places.",
    "TP-3": "A peer reads slowly.",
    "TP-6": "A bit flips inside a frame.",
    "TP-8": "Wrong cluster behind an address.",
    "TP-10": "A recorded stream is sent again.",
    "TP-13": "Both nodes dial at once.",
    "TP-14": "A peer is down for an hour.",
    "TP-15": "Unknown version, message kind or field.",
    "SN-1": "An install over a divergent tail.",
    "SN-2": "An old snapshot.",
    "SN-5": "A leader whose log is gone.",
    "SN-10": "Leftover temporary files.",
    "SN-12": "Snapshot code of a user that fails or hangs.",
    "SN-13": "A snapshot larger than a frame and than the memory allowance.",
    "SN-15": "Replicas agree, restored ones included.",
    "ST-1": "Torn tail of the log.",
    "ST-2": "Zeroed sectors at the tail, and preallocated zeros.",
    "ST-4": "Rot in a length field.",
    "ST-5": "A sync fails once, then succeeds.",
    "ST-6": "No space at any append.",
    "ST-8": "The directory entry of a new file is lost.",
    "ST-11": "Files of different generations are mixed.",
    "ST-14": "The shared log's files go only when nothing needs them.",
    "ST-16": "Two processes on one directory.",
    "ST-20": "Power loss on all nodes right after an acknowledgement.",
    "ST-22": "A log of a later format version.",
    "MG-2": "One stale group in a batch of many.",
    "MG-3": "A quiet group wakes for work.",
    "MG-5": "When a group must not sleep, and when it must.",
    "MG-7": "The leader restarts while its followers sleep.",
    "MG-11": "A flood for unknown groups.",
    "MG-12": "A slow or poisoned group.",
    "MG-14": "A node dies and all its groups wake at once.",
    "MG-17": "One group floods; the others are served.",
}

NOT_BUILT = {
    "PV-7": "Does not apply: PreVote is always on, so no group has nodes with and without it.",
}
"""Scenarios without a test."""

PARTLY = {
    "TP-10": "Not built yet: TLS. Without it, old incarnations are refused and old terms are harmless.",
    "MG-3": "Not built yet: reads, membership changes and transfers. Proposals wake a group.",
    "MG-5": "Not built yet: membership changes, transfers and reads. Lagging and dead followers are under test.",
}
"""Scenarios whose tests leave something out."""

PROMISES: dict[str, tuple[str, tuple[str, ...]]] = {
    "P1": (
        "What is acknowledged is durable on a majority, and never lost.",
        (
            "core/test_replication.py::test_CM_5_nothing_acknowledged_is_lost_by_a_crash",
            "storage/test_crash.py::test_a_power_cut_at_every_step",
            "manager/test_power_cut.py::test_ST_20_acknowledged_writes_survive_power_cuts",
        ),
    ),
    "P2": (
        "Reads are linearizable.",
        (
            "core/test_reads.py::test_RD_1_old_leader",
            "core/test_lease.py::test_while_a_lease_counts_nobody_else_leads",
            "manager/test_leases.py::test_no_lease_answers_with_what_is_past",
        ),
    ),
    "P3": (
        "One leader a term, and no vote without memory of votes.",
        (
            "core/test_election.py::test_EL_1_vote_and_crash_in_a_group",
            "core/test_election.py::test_EL_10_candidate_restarts",
            "storage/test_recovery.py::test_damage_stops_the_groups_that_it_may_concern_and_no_other",
        ),
    ),
    "P4": (
        "Damage is never served and never silently cut.",
        (
            "storage/test_recovery.py::test_every_byte_of_every_batch_flipped",
            "storage/test_recovery.py::test_damage_that_names_no_group_stops_all_and_makes_none",
            "storage/test_recovery.py::test_a_damaged_group_is_healed_by_removing_it_and_adding_it_anew",
        ),
    ),
    "P5": (
        "Ten election timeouts after the last fault every group has a leader.",
        ("manager/test_many_groups.py::test_P5_after_faults_every_group_has_a_leader_within_ten_timeouts",),
    ),
    "P6": (
        "A fault of one group does not delay another.",
        (
            "manager/test_cluster.py::test_MG_12_a_failing_machine_stops_its_group_and_no_other",
            "manager/test_disk_trouble.py::test_MG_12_a_slow_machine_in_a_thread_does_not_delay_other_groups",
            "storage/test_fairness.py::test_MG_17_a_small_write_behind_ten_huge_ones_is_in_the_very_next_batch",
        ),
    ),
    "P7": (
        "Memory, descriptors and queues are bounded, under hostile input too.",
        (
            "core/test_replication.py::test_proposals_over_a_limit_are_refused_before_the_log",
            "core/test_replication.py::test_proposals_without_payload_are_bounded_by_number",
            "group/test_parts.py::TestInbox.test_messages_beyond_the_bound_are_lost_and_proposals_refused",
            "transport/test_server.py::test_MG_11_flood_of_messages_leaves_memory_flat",
            "transport/test_server.py::test_max_connections_per_addr_of_one_peer",
            "transport/test_tcp.py::test_TP_3_slow_peer_is_bounded_and_others_do_not_notice",
        ),
    ),
    "P8": (
        "A stranger gets a handshake and nothing else.",
        (
            "transport/test_server.py::test_garbage_is_hung_up_on_without_an_answer",
            "transport/test_server.py::test_hello_never_finished_is_hung_up_on_after_handshake_timeout",
            "transport/test_server.py::test_flood_of_silent_connections_is_bounded_and_peers_still_get_in",
        ),
    ),
}

PROMISES_NOT_BUILT: dict[str, str] = {}

FAMILIES = "EL|LR|CM|PV|LT|MB|RD|CL|TP|SN|ST|MG"


@cache
def function_names() -> dict[str, frozenset[str]]:
    """All test functions: file -> names, those of classes with the class before them. Read, not imported: that needs no extras."""
    found = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        names = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for prefix, body in [("", tree.body), *((f"{node.name}.", node.body) for node in tree.body if isinstance(node, ast.ClassDef))]:
            functions = (node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
            names |= {prefix + node.name for node in functions if node.name.startswith("test_")}
        found[path.relative_to(TESTS).as_posix()] = frozenset(names)
    return found


def named() -> dict[str, list[str]]:
    """Scenario id -> the tests that name it."""
    tests: dict[str, list[str]] = {}
    for path, names in function_names().items():
        for name in names:
            for family, number in re.findall(rf"(?<![A-Za-z])({FAMILIES})_(\d+)(?!\d)", name):
                tests.setdefault(f"{family}-{number}", []).append(f"{path}::{name}")
    return tests


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_scenario_has_a_test_or_a_reason(scenario: str) -> None:
    assert (scenario in named()) != (scenario in NOT_BUILT), f"{scenario} ({SCENARIOS[scenario]}): a test named by its id, or a reason"


def test_no_function_names_a_scenario_that_does_not_exist() -> None:
    assert named().keys() <= SCENARIOS.keys()


@pytest.mark.parametrize("promise", PROMISES)
def test_each_promise_can_be_refuted(promise: str) -> None:
    _, tests = PROMISES[promise]
    assert bool(tests) != (promise in PROMISES_NOT_BUILT)
    for test in tests:
        path, _, name = test.partition("::")
        assert name in function_names().get(path, ()), f"{promise} rests on {test}, which is gone"


def test_reasons_are_sentences_about_scenarios() -> None:
    assert NOT_BUILT.keys() | PARTLY.keys() <= SCENARIOS.keys()
    assert not NOT_BUILT.keys() & PARTLY.keys()
    texts = [*SCENARIOS.values(), *NOT_BUILT.values(), *PARTLY.values(), *PROMISES_NOT_BUILT.values()]
    assert all(text.endswith(".") for text in texts)
