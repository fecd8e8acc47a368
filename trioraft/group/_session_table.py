"""What a group remembers of its clients' sessions, so that a command that comes twice is applied once (dissertation 6.3).

The table is state like the machine's own: changed by entries of the log only, alike on all replicas, and carried in snapshots. An entry
of a session is one of these, its numbers little-endian:

    open   1 byte 0, 8 bytes: how many sessions there may be
    call   1 byte 1, 8 bytes session, 8 bytes sequence, 8 bytes acknowledged, then the command
    close  1 byte 2, 8 bytes session

The id of a session is the index of the entry that opened it. Nobody's clock ends a session: when there are more than the newest opening
entry allows, the one that has been quiet for the longest stretch of the log goes.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import attrs

from .._errors import SessionExpiredError, SnapshotError, WireError
from .._types import Index
from ..wire import decode_value, encode_value
from ._declared import describe_error, rebuild_error

Result: TypeAlias = "tuple[Any, Exception | None]"
"""What a command returned, or the declared error that it raised."""

ANSWERS_MAX: Final = 256
"""Answers of one session that are kept: as many commands of it may be under way at once."""

ANSWER_BYTES_MAX: Final = 256 << 10
"""A larger answer is not kept: it reaches whoever asks first, or nobody."""

_RECORD_BYTES: Final = 1 << 20
"""Of answers in one record of a snapshot: those of one session may be more than a record can hold."""

_OPEN: Final = struct.Struct("<BQ")
_CALL: Final = struct.Struct("<BQQQ")
_CLOSE: Final = struct.Struct("<BQ")
_OPENS, _CALLS, _CLOSES = 0, 1, 2
_NOT_KEPT: Final = encode_value([])
"""Stands for an answer that cannot be kept."""


def encode_open(sessions_max: int) -> bytes:
    return _OPEN.pack(_OPENS, sessions_max)


def encode_call(session_id: int, sequence: int, acknowledged: int, command: bytes) -> bytes:
    """
    Args:
        sequence: of the command, from 1, never used for another one in this session.
        acknowledged: no command up to this will be asked for again: its answer may be forgotten.
    """
    return _CALL.pack(_CALLS, session_id, sequence, acknowledged) + command


def encode_close(session_id: int) -> bytes:
    return _CLOSE.pack(_CLOSES, session_id)


def check_entry(payload: bytes) -> None:
    """Refuse what is no entry of a session, before it is in the log.

    Raises:
        WireError: it is none.
    """
    size = len(payload)
    if not ((size >= _CALL.size and payload[0] == _CALLS) or (size == _OPEN.size and payload[0] in (_OPENS, _CLOSES))):
        raise WireError(f"{size} bytes that are no entry of a session")


def command_of(payload: bytes) -> bytes | None:
    """The command in an entry of a session; None: it begins or ends one."""
    return payload[_CALL.size :] if payload[0] == _CALLS else None


@attrs.define
class _Session:
    acknowledged: int = 0
    answers: dict[int, bytes] = attrs.Factory(dict)
    """By sequence: ``[None, result]`` or ``[[number of the error's class, arguments...]]``."""


class SessionTable:
    """The sessions of one replica of a group, those that have been quiet for longest first."""

    def __init__(self, declared: tuple[type[Exception], ...]) -> None:
        self._declared = declared
        self._sessions: dict[int, _Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def apply(self, index: Index, payload: bytes, run: Callable[[bytes], Result]) -> Result:
        """Carry out the entry at `index`; `run` applies a command to the machine."""
        kind = payload[0]
        if kind == _OPENS:
            return self._open(index, _OPEN.unpack(payload)[1]), None
        if kind == _CLOSES:
            self._sessions.pop(_CLOSE.unpack(payload)[1], None)
            return None, None
        _, session_id, sequence, acknowledged = _CALL.unpack_from(payload)
        session = self._sessions.pop(session_id, None)
        if session is None:
            return None, SessionExpiredError(session_id)
        self._sessions[session_id] = session
        return self._call(session_id, session, sequence, acknowledged, lambda: run(payload[_CALL.size :]))

    def _open(self, index: Index, sessions_max: int) -> int:
        self._sessions[index] = _Session()
        while len(self._sessions) > max(sessions_max, 1):
            del self._sessions[next(iter(self._sessions))]
        return index

    def _call(self, session_id: int, session: _Session, sequence: int, acknowledged: int, run: Callable[[], Result]) -> Result:
        _forget(session, acknowledged)
        known = session.answers.get(sequence)
        if known is not None:
            return self._decode(known)
        if sequence <= session.acknowledged:
            return None, SessionExpiredError(session_id, sequence)
        result = run()
        session.answers[sequence] = self._encode(result)
        if len(session.answers) > ANSWERS_MAX:
            _forget(session, min(session.answers))
        return result

    def _encode(self, result: Result) -> bytes:
        value, error = result
        description = None if error is None else describe_error(self._declared, error)
        if error is not None and description is None:
            return _NOT_KEPT
        try:
            answer = encode_value([None, value] if error is None else [description])
        except WireError:
            return _NOT_KEPT
        return answer if len(answer) <= ANSWER_BYTES_MAX else _NOT_KEPT

    def _decode(self, answer: bytes) -> Result:
        match decode_value(answer):
            case [None, value]:
                return value, None
            case [description]:
                # NB: a class that only the code of then declared, or an odd constructor: neither may stop the group.
                with contextlib.suppress(Exception):
                    return None, rebuild_error(self._declared, description)
        return None, WireError("the command was applied before, and its result, too large or nothing that can be told, could not be kept")

    # --- in snapshots -------------------------------------------------------------------------------------------------------------------

    def records(self) -> list[Any]:
        """The table as it is now, as records that come before the machine's: how many, then one each, or several if it has much to say."""
        records = [
            [session_id, session.acknowledged, answers]
            for session_id, session in self._sessions.items()
            for answers in _pieces(session.answers)
        ]
        return [len(records), *records]

    def restored(self, records: Iterator[Any]) -> SessionTable:
        """A table of what `records` yielded, which goes on with the machine's records.

        Raises:
            SnapshotError: it does not begin with a table.
        """
        table = SessionTable(self._declared)
        try:
            for _ in range(next(records)):
                session_id, acknowledged, answers = next(records)
                table._sessions.setdefault(session_id, _Session(acknowledged)).answers.update(answers)
        except (StopIteration, TypeError, ValueError) as error:
            raise SnapshotError(f"a snapshot that does not begin with a table of sessions: {error}") from error
        return table


def _forget(session: _Session, acknowledged: int) -> None:
    if acknowledged > session.acknowledged:
        session.acknowledged = acknowledged
        for sequence in [known for known in session.answers if known <= acknowledged]:
            del session.answers[sequence]


def _pieces(answers: dict[int, bytes]) -> Iterator[dict[int, bytes]]:
    """Copies of what there is, each not much larger than `_RECORD_BYTES`; one at least."""
    if sum(map(len, answers.values())) <= _RECORD_BYTES:
        yield answers.copy()
        return
    piece, size = dict[int, bytes](), 0
    for sequence, answer in answers.items():
        piece[sequence] = answer
        size += len(answer)
        if size >= _RECORD_BYTES:
            yield piece
            piece, size = {}, 0
    if piece:
        yield piece
