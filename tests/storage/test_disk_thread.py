"""The thread of the writer: one job after the other, given up only on purpose, and gone when nobody needs it."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from trioraft.storage import _disk_thread
from trioraft.storage._disk_thread import DiskThread


def disk_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "trioraft disk"}


async def test_jobs_run_in_one_thread_and_answer_with_results_and_errors() -> None:
    disk = DiskThread()
    with trio.fail_after(10):
        threads = {await disk.run(threading.get_ident) for _ in range(20)}
        assert len(threads) == 1
        assert threading.get_ident() not in threads
        with pytest.raises(ZeroDivisionError):
            await disk.run(lambda: 1 // 0)
        assert await disk.run(divmod, 7, 2) == (3, 1)


async def test_a_job_that_is_given_up_runs_on_and_the_next_one_does_not_wait_for_it() -> None:
    disk, gate, ended = DiskThread(), threading.Event(), threading.Event()

    def hang() -> None:
        gate.wait(10)
        ended.set()

    with trio.fail_after(10):
        with trio.move_on_after(0.05) as scope:
            await disk.run(hang)
        assert scope.cancelled_caught
        assert await disk.run(lambda: 5) == 5
        assert not ended.is_set()
        gate.set()
        assert await trio.to_thread.run_sync(ended.wait, 5)


async def test_an_idle_thread_ends_and_a_new_one_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_disk_thread, "IDLE_SECONDS", 0.01)
    before = disk_threads()
    disk = DiskThread()
    with trio.fail_after(10):
        for _ in range(3):
            await disk.run(int)
            for thread in disk_threads() - before:
                await trio.to_thread.run_sync(thread.join, 5)
            assert disk_threads() <= before


async def test_many_jobs_against_a_thread_that_is_always_about_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_disk_thread, "IDLE_SECONDS", 0.0005)
    disk = DiskThread()
    with trio.fail_after(30):
        for number in range(300):
            await trio.sleep(number % 7 * 0.0002)
            assert await disk.run(lambda number=number: number) == number  # type: ignore[misc]  # the default binds it now


def test_a_job_that_outlives_trio_bothers_nobody() -> None:
    gate, disk = threading.Event(), DiskThread()

    async def main() -> None:
        with trio.move_on_after(0.01):
            await disk.run(gate.wait, 10)

    trio.run(main)
    before = disk_threads()
    gate.set()
    assert before
