"""What a storage suite asks of those who use it: how a storage is made, and what is left of it when the power goes.

The second half is optional. A test that needs what a storage does not have is skipped, and says why.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from ..storage import Disk, MultiRaftStorage, SimulatedDisk

Test = TypeVar("Test", bound=Callable[..., Awaitable[None]])


class StoragePlace(ABC):
    """Where a suite gets its storages from, over many processes of one node."""

    seeds: range = range(1, 4)
    """Of the random histories: more of them find more, and take longer."""

    @abstractmethod
    async def make_storage(self) -> MultiRaftStorage:
        """A storage for a node that never ran, in a new place at each call. Not opened yet."""

    @abstractmethod
    async def cut_power(self, storage: MultiRaftStorage) -> MultiRaftStorage:
        """End the process that has `storage`, at once, and return the storage that the next process is to open.

        The old one may be in the middle of its work. Where it cannot really be cut off (a real file system), make it as hard as
        possible: a copy of its files as they are, or nothing at all. Its `serve` is cancelled after this and its `aclose` called,
        both before the new one is opened; nothing that it does then may help the new one.
        """

    async def open_second(self, storage: MultiRaftStorage) -> MultiRaftStorage:
        """Another process's storage in the same place, which `storage` holds at this moment. Optional."""
        raise NotImplementedError

    def storage_on(self, disk: Disk) -> MultiRaftStorage:
        """A storage that does all of its file work on `disk`, always in the same directory, with limits so small that its files are
        replaced after a few kilobytes. It must be the same whenever it is called: random bytes are seeded. Optional.
        """
        raise NotImplementedError

    def is_spare(self, path: str) -> bool:
        """Whether rot in that file of `storage_on` may go unnoticed, because nothing is built on it."""
        return False

    def mounted(self, disk: SimulatedDisk) -> MultiRaftStorage:
        """The storage of the next process on a simulated disk."""
        return self.storage_on(disk.mount())

    @classmethod
    def names(cls) -> list[str]:
        """The names of the tests: asynchronous methods without arguments."""
        return sorted(name for name in dir(cls) if name.startswith("test_"))

    def __init_subclass__(cls) -> None:
        for name in cls.names():
            hook, reason = getattr(getattr(cls, name), "needs", ("", ""))
            if hook and cls.make_storage is not StoragePlace.make_storage and getattr(cls, hook) is getattr(StoragePlace, hook):
                setattr(cls, name, _skipped(name, reason))


def needs(hook: str, reason: str) -> Callable[[Test], Test]:
    """A test that is skipped for `reason` where a subclass does not say what that hook is."""

    def mark(test: Test) -> Test:
        test.needs = hook, reason  # type: ignore[attr-defined]  # looked up above, on a plain function
        return test

    return mark


def _skipped(name: str, reason: str) -> Callable[[object], Awaitable[None]]:
    import pytest  # only here, so that the module can be imported without it

    async def skipped(self: object) -> None:  # as the test that it stands for
        await trio.lowlevel.checkpoint()
        pytest.skip(reason)

    skipped.__name__ = name
    # NB: marked and not only raised. What is raised in Trio loses its reason on the way.
    return pytest.mark.skip(reason=reason)(skipped)
