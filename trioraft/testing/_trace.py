"""What happened in a simulation, kept cheaply and rendered only when somebody looks.

A message reads ``n1@2 -> n2 AppendEntries 5@1 [6@2]``: sender and its term, receiver, the message and what it says.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from .._types import NOTHING, Millis
from ..core import (
    AppendEntries,
    AppendEntriesReply,
    Entry,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteReply,
    RequestVote,
    RequestVoteReply,
)


def _entries(entries: tuple[Entry, ...]) -> str:
    if len(entries) > 4:
        return f"[{entries[0]} .. {entries[-1]}]"
    return "[" + " ".join(map(str, entries)) + "]"


def _append(message: AppendEntries) -> str:
    return f"{message.previous} {_entries(message.entries)} commit {message.commit}"


def _append_reply(message: AppendEntriesReply) -> str:
    return f"rejected {message.rejected} hint {message.hint}" if message.rejected else f"match {message.match}"


def _vote(message: PreVote | RequestVote) -> str:
    return f"last {message.last}"


def _vote_reply(message: PreVoteReply | RequestVoteReply) -> str:
    return "granted" if message.granted else "refused"


def _heartbeat(message: Heartbeat | HeartbeatReply) -> str:
    return f"commit {message.commit}" + (f" round {message.round}" if message.round else "")


def _install(message: InstallSnapshot) -> str:
    return f"{message.at} {message.configuration}"


_DETAILS: dict[type[Any], Callable[[Any], str]] = {
    AppendEntries: _append,
    AppendEntriesReply: _append_reply,
    PreVote: _vote,
    RequestVote: _vote,
    PreVoteReply: _vote_reply,
    RequestVoteReply: _vote_reply,
    Heartbeat: _heartbeat,
    HeartbeatReply: _heartbeat,
    InstallSnapshot: _install,
}


def render_message(message: Message) -> str:
    """Write a message as a line of a golden script."""
    details = _DETAILS.get(type(message))
    text = f"{message.source}@{message.term} -> {message.target} {type(message).__name__}"
    return text if details is None else f"{text} {details(message)}"


def _render_part(part: object) -> str:
    if hasattr(part, "source") and hasattr(part, "target") and hasattr(part, "term"):
        return render_message(part)  # type: ignore[arg-type]  # every class with these three is a message
    if isinstance(part, tuple) and part and isinstance(part[0], Entry):
        return _entries(part)
    return "none" if part == NOTHING else str(part)


class Trace:
    """The last events of a simulation, or all of them."""

    def __init__(self, keep: int | None = 120) -> None:
        """
        Args:
            keep: how many events are kept; None: all.
        """
        self._events: deque[tuple[Millis, str, tuple[object, ...]]] = deque(maxlen=keep)

    def add(self, now: Millis, what: str, *parts: object) -> None:
        """Note an event; its parts must not change any more."""
        self._events.append((now, what, parts))

    def __iter__(self) -> Iterator[str]:
        for now, what, parts in self._events:
            yield f"{now:>7} {what:<9} " + " ".join(map(_render_part, parts))

    def digest(self) -> str:
        """Fingerprint the kept events: equal digests mean equal schedules."""
        state = hashlib.blake2b(digest_size=16)
        for line in self:
            state.update(line.encode())
            state.update(b"\n")
        return state.hexdigest()
