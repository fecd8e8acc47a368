"""The simulator finds each planted bug within its stated number of seeds, and the seed shows it again."""

from __future__ import annotations

import pytest

from trioraft.core import Raft
from trioraft.testing import PLANTS, PropertyViolation, planted, run_seed


def _find(name: str) -> PropertyViolation:
    with planted(name):
        for seed in range(PLANTS[name].within):
            try:
                run_seed(seed, operations=PLANTS[name].operations, faults=25)
            except PropertyViolation as violation:
                return violation
    pytest.fail(f"{name} was not found within {PLANTS[name].within} seeds")


@pytest.mark.time_limit(120)
@pytest.mark.parametrize("name", [name for name, plant in PLANTS.items() if plant.within])
def test_a_planted_bug_is_found_and_replays(name: str) -> None:
    violation = _find(name)
    assert violation.seed is not None
    assert violation.trace
    print(f"{name}: {violation}")
    with planted(name), pytest.raises(PropertyViolation) as again:
        run_seed(violation.seed, operations=PLANTS[name].operations, faults=25)
    assert (again.value.name, again.value.detail, again.value.trace) == (violation.name, violation.detail, violation.trace)
    run_seed(violation.seed, operations=PLANTS[name].operations, faults=25)  # and without the bug it is clean


@pytest.mark.parametrize("name", PLANTS)
def test_a_plant_leaves_nothing_behind(name: str) -> None:
    before = dict(vars(Raft))
    owner = PLANTS[name].owner
    original = getattr(owner, PLANTS[name].attribute)
    with planted(name):
        assert getattr(owner, PLANTS[name].attribute) is not original
    assert getattr(owner, PLANTS[name].attribute) is original
    assert dict(vars(Raft)) == before


def test_an_unknown_plant_is_refused() -> None:
    with pytest.raises(KeyError), planted("no-such-bug"):
        pass
