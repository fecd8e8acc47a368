"""The judge of client histories, by hand-made ones and against a search that tries every order."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings, strategies as st

from trioraft.testing._linearizability import Read, Write, find_fault

GOOD: dict[str, tuple[list[Write], list[Read]]] = {
    "nothing": ([], []),
    "nobody has written": ([], [Read(None, 1, 2), Read(None, 3, 4)]),
    "one after the other": ([Write(1, 1, 2), Write(2, 5, 6)], [Read(1, 3, 4), Read(2, 7, 8)]),
    "a read beside a write sees the old": ([Write(1, 1, 4)], [Read(None, 2, 3)]),
    "a read beside a write sees the new": ([Write(1, 1, 4)], [Read(1, 2, 3), Read(1, 5, 6)]),
    "two writes at once in either order": ([Write(1, 1, 4), Write(2, 2, 3)], [Read(1, 5, 6)]),
    "an unknown write never happens": ([Write(1, 1, None), Write(2, 2, 3)], [Read(2, 9, 10)]),
    "an unknown write happens late": ([Write(1, 1, None), Write(2, 2, 3)], [Read(2, 4, 5), Read(1, 8, 9)]),
    "a refused write": ([Write(1, 1, None, is_refused=True)], [Read(None, 2, 3)]),
}
BAD: dict[str, tuple[list[Write], list[Read]]] = {
    "stale": ([Write(1, 1, 2), Write(2, 3, 4)], [Read(1, 5, 6)]),
    "nothing after an acknowledged write": ([Write(1, 1, 2)], [Read(None, 3, 4)]),
    "back again": ([Write(1, 1, None), Write(2, 2, None)], [Read(1, 3, 4), Read(2, 5, 6), Read(1, 7, 8)]),
    "gone again": ([Write(1, 1, None)], [Read(1, 2, 3), Read(None, 4, 5)]),
    "from the future": ([Write(1, 3, 4)], [Read(1, 1, 2)]),
    "of nobody": ([Write(1, 1, 2)], [Read(7, 3, 4)]),
    "refused, and read": ([Write(1, 1, None, is_refused=True)], [Read(1, 2, 3)]),
    "a write lost in the middle of another's time": ([Write(1, 1, 2), Write(2, 4, 5)], [Read(1, 3, 4), Read(1, 6, 7)]),
    "applied twice": ([Write(1, 1, 2), Write(2, 3, 4)], [Read(2, 5, 6), Read(1, 7, 8)]),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_history_that_one_register_could_have_made(name: str) -> None:
    assert find_fault(*GOOD[name]) is None


@pytest.mark.parametrize("name", BAD)
def test_a_history_that_no_register_could_have_made(name: str) -> None:
    assert find_fault(*BAD[name])


def _is_linearizable(writes: list[Write], reads: list[Read]) -> bool:
    """Try every subset of the unknown writes, in every order."""
    done = [write for write in writes if write.returned is not None]
    unknown = [write for write in writes if write.returned is None and not write.is_refused]
    return any(
        _has_order([*done, *chosen, *reads], None) for count in range(len(unknown) + 1) for chosen in itertools.combinations(unknown, count)
    )


def _has_order(left: list[Write | Read], held: int | None) -> bool:
    if not left:
        return True
    for one in left:
        if any(other.returned is not None and other.returned < one.called for other in left):
            continue
        if isinstance(one, Read) and one.value != held:
            continue
        if _has_order([other for other in left if other is not one], one.value):
            return True
    return False


@st.composite
def _histories(draw: st.DrawFn) -> tuple[list[Write], list[Read]]:
    count, reads = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    moments = draw(st.permutations(range(2 * (count + reads))))
    pairs = [sorted(moments[2 * place : 2 * place + 2]) for place in range(count + reads)]
    writes = []
    for value, (called, returned) in enumerate(pairs[:count], 1):
        outcome = draw(st.sampled_from(["ok", "ok", "unknown", "refused"]))
        writes.append(Write(value, called, returned if outcome == "ok" else None, is_refused=outcome == "refused"))
    values = st.sampled_from([None, *range(1, count + 1)])
    return writes, [Read(draw(values), called, returned) for called, returned in pairs[count:]]


@settings(max_examples=500, deadline=None)
@given(_histories())
def test_it_agrees_with_a_search_through_all_orders(history: tuple[list[Write], list[Read]]) -> None:
    assert (find_fault(*history) is None) == _is_linearizable(*history)


def test_thousands_of_operations_take_no_time() -> None:
    writes = [Write(value, 4 * value, 4 * value + 5) for value in range(1, 5001)]
    reads = [Read(value, 4 * value + 2, 4 * value + 7) for value in range(1, 5001)]
    begin = time.perf_counter()
    assert find_fault(writes, reads) is None
    assert find_fault(writes, [*reads, Read(1, 30_000, 30_001)])
    assert time.perf_counter() - begin < 2
