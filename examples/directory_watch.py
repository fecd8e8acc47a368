"""Watches the nodes' directories while the cluster runs: how large they are, how large they were, and that they stay under their bound."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio
from cluster_nodes import ClusterNodes
from directory import DirectoryUse, measure_directory
from ledger import ENTRY_BYTES_MAX, ROW_BYTES_MAX
from log_limits import DirectorySize, LogLimits
from observer import Observer

LOOK_SECONDS = 1.0


@attrs.define
class WatchedDirectory:
    """One node's directory over the run."""

    now: DirectoryUse = attrs.Factory(DirectoryUse)
    largest: int = 0
    """Bytes at the look when there were most."""
    log_files_most: int = 0

    def take(self, use: DirectoryUse) -> None:
        """Take in one look."""
        self.now = use
        self.largest = max(self.largest, use.total)
        self.log_files_most = max(self.log_files_most, use.log_files)


class DirectoryWatch:
    """All directories of a run."""

    def __init__(self, nodes: ClusterNodes, observer: Observer, limits: LogLimits, groups: int, tell: Callable[[str], None]) -> None:
        self._nodes, self._observer, self._limits, self._groups, self._tell = nodes, observer, limits, groups, tell
        self.directories = {node_id: WatchedDirectory() for node_id in nodes.nodes}
        self.problems: list[str] = []
        self._beyond: set[tuple[int, str]] = set()

    @property
    def bound(self) -> DirectorySize:
        """What each directory must stay under now: the state, and with it its snapshots, only ever grows in these runs."""
        state_bytes = self._observer.keys * ROW_BYTES_MAX
        return self._limits.bound(groups=self._groups, entry_bytes=ENTRY_BYTES_MAX, state_bytes=state_bytes)

    async def run(self) -> None:
        """Look every second, until cancelled."""
        while True:
            await self.look()
            await trio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Measure all directories now."""
        for node_id, directory in self.directories.items():
            use = await trio.to_thread.run_sync(measure_directory, self._nodes.nodes[node_id].directory)
            directory.take(use)
            for text in use.size.beyond(self.bound):
                self._report(node_id, text)

    def _report(self, node_id: int, text: str) -> None:
        """Once for each node and part: it will stay beyond the bound for a while."""
        part = text.partition(":")[0]
        if (node_id, part) not in self._beyond:
            self._beyond.add((node_id, part))
            self.problems.append(f"the directory of node {node_id} has grown too large: {text}")
            self._tell(self.problems[-1])
