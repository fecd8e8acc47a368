"""A group's snapshots: taken here, sent to whoever has fallen behind, received from the leader. The driver's one handle on all three.

What goes wrong with a snapshot stops nothing: it is announced and tried again. Only its success changes anything, as one completion in
the inbox.
"""

from __future__ import annotations

from typing import Final

import trio

from ..core import InstallSnapshot, SendSnapshot
from ._receiving import SnapshotReceiver
from ._sending import SnapshotSender
from ._taking import SnapshotTaker


class Snapshots:
    """The three movements of one group's snapshots."""

    def __init__(self, taker: SnapshotTaker, sender: SnapshotSender, receiver: SnapshotReceiver) -> None:
        self.taker: Final = taker
        self.sender: Final = sender
        self.receiver: Final = receiver
        self._stepped: list[InstallSnapshot] = []

    def work(self, nursery: trio.Nursery) -> None:
        """Once a turn, after the machine has applied: begin what is due."""
        for message in self._stepped:
            self.receiver.stepped(message, installed=False)
        self._stepped = []
        self.taker.work(nursery)
        self.receiver.work(nursery)

    def send(self, nursery: trio.Nursery, request: SendSnapshot) -> None:
        self.sender.send(nursery, request)

    def stepped(self, message: InstallSnapshot) -> None:
        """The core has seen a snapshot that was received; unless it turns out to be installed in this turn, it was refused."""
        self._stepped.append(message)

    def installed(self, message: InstallSnapshot) -> None:
        """The log begins behind this snapshot now."""
        for other in self._stepped:
            self.receiver.stepped(other, installed=other is message)
        self._stepped = []
        self.taker.saved(message.at)

    def close(self, error: Exception) -> None:
        """The group stops."""
        self.taker.close(error)
        self.receiver.close()
