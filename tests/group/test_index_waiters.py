"""Those who wait for an index: told in order, once, and gone when they leave."""

from __future__ import annotations

from trioraft.group._index_waiters import IndexWaiters

from .taking_kit import Caller


def test_told_in_the_order_of_their_indexes_and_of_their_coming() -> None:
    waiters, told = IndexWaiters(), list[str]()

    class Named(Caller):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def succeed(self, result: object) -> None:
            super().succeed(result)
            told.append(self.name)

    for index, name in ((5, "late"), (2, "a"), (2, "b"), (1, "first")):
        waiters.add(index, Named(name))
    waiters.reach(2)
    assert told == ["first", "a", "b"]
    assert len(waiters) == 1
    waiters.reach(9)
    assert told == ["first", "a", "b", "late"]


def test_whoever_leaves_hears_nothing_and_takes_no_room() -> None:
    waiters = IndexWaiters()
    stays = Caller()
    waiters.add(10**6, stays)
    for _ in range(1000):
        gone = Caller()
        waiters.add(10**9, gone)
        waiters.forget(gone)
        assert gone.result is None
    assert len(waiters) == 1
    assert len(waiters._heap) <= 2
    told = Caller()
    waiters.add(1, told)
    waiters.reach(1)
    waiters.forget(told)  # was told already
    assert len(waiters) == 1
    waiters.reach(10**6)
    assert (stays.result, len(waiters)) == (10**6, 0)


def test_what_will_not_come_is_said_and_the_rest_goes_on_waiting() -> None:
    waiters = IndexWaiters()
    callers = {index: Caller() for index in (7, 3, 5, 4, 6)}
    for index, caller in callers.items():
        waiters.add(index, caller)
    waiters.forget(callers[6])
    error = ValueError("removed")
    waiters.abandon_from(5, error)
    assert [callers[index].error for index in (5, 7)] == [error, error]
    assert (callers[6].error, len(waiters)) == (None, 2)
    waiters.reach(100)
    assert [callers[index].result for index in (3, 4)] == [100, 100]
