"""Sequences of membership changes, as the algebra of configurations sees them.

The tables speak of single changes (``v2``: make 2 a voter), we of targets; the translation is here, in `target_after`. Compared are the
sets only: a leader begins to probe a new member at its last index plus one, not where the table's own tracker does.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.conformance.tables import Case, table
from trioraft._errors import ChangeRefusedError
from trioraft._types import EntryId
from trioraft.core import Configuration
from trioraft.core._confchange import Target, enter_joint, leave_joint, simple

SETS = ("voters", "outgoing", "learners", "learners_next")


def target_after(configuration: Configuration, changes: Iterable[str]) -> Target:
    """Translate change tokens, in order, into who votes and who learns in the end."""
    target = Target.of(configuration)
    voters, learners = set(target.voters), set(target.learners)
    for token in changes:
        kind, node_id = token[0], int(token[1:])
        if node_id == 0 or kind == "u":
            continue
        voters.discard(node_id)
        learners.discard(node_id)
        if kind != "r":
            {"v": voters, "l": learners}[kind].add(node_id)
    return Target(frozenset(voters), frozenset(learners))


def take_step(configuration: Configuration, step: Case, added_by: EntryId) -> Configuration:
    if step["op"] == "leave_joint":
        return leave_joint(configuration, added_by)
    target = target_after(configuration, step["changes"])
    return {"simple": simple, "enter_joint": enter_joint}[step["op"]](configuration, target, added_by)


@table("confchange_sequences", "peer_sequences")
def test_sequence(case: Case) -> None:
    configuration = Configuration(())
    for step in case["steps"]:
        expect, added_by = step["expect"], EntryId(1, step["last_index"] + 1)
        if not expect["ok"]:
            with pytest.raises(ChangeRefusedError) as refused:
                take_step(configuration, step, added_by)
            assert refused.value.kind == expect["why"], step
            continue
        before, configuration = configuration, take_step(configuration, step, added_by)
        assert {name: sorted(getattr(configuration, name)) for name in SETS} == {name: expect[name] for name in SETS}, step
        # The table's "a member that stays keeps its progress": its life goes on, so its replica number stays; only new lives get one.
        for node_id in configuration.members():
            assert configuration.replicas[node_id] == before.replicas.get(node_id, added_by), step
