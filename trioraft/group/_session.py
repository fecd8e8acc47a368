"""A client's session: commands that are applied once, however often they must be asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self

import trio

from .._errors import BusyError, ConfigError, GroupStoppedError, NotLeaderError, OutcomeUnknownError, ProposalDroppedError, RaftError
from ._session_table import ANSWERS_MAX, encode_call, encode_close

WINDOW: Final = ANSWERS_MAX // 2
"""Commands behind the oldest one that is under way: with more, the group might forget the answer to that one."""

_PAUSE_MIN: Final = 0.01
_PAUSE_MAX: Final = 0.5


class Session:
    """Made by `RaftGroup.open_session` or `RaftGroup.resume_session`. Belongs to one client: any number of its tasks may use it at once.

    The group remembers a session while it is among the `sessions_max` that were used last; it forgets one that is closed, and one that
    has been quiet while too many others were opened. What happens then is `SessionExpiredError`.
    """

    def __init__(
        self,
        session_id: int,
        next_sequence: int,
        *,
        encode: Callable[[Any], bytes],
        ask: Callable[[bytes], Awaitable[Any]],
        wait_leader: Callable[[], Awaitable[Any]],
    ) -> None:
        _check_number("the id of a session", session_id)
        _check_number("the next sequence number", next_sequence)
        self.id: Final = session_id
        """Unique in the group, for ever."""
        self._encode, self._ask, self._wait_leader = encode, ask, wait_leader
        self._next = next_sequence
        self._under_way: set[int] = set()
        self._given_up: set[int] = set()
        self._room = trio.lowlevel.ParkingLot()

    @property
    def next_sequence(self) -> int:
        """What `resume_session` needs, beside the id, to go on with this session in another process."""
        return self._next

    async def propose(self, command: Any, *, sequence: int | None = None) -> Any:
        """Replicate a command, and return what `StateMachine.apply` returned for it, applied exactly once.

        It is asked for again, with the same sequence number, until there is an answer: bound the wait by a timeout of your own. With 128
        commands behind one that has no answer yet, the next one waits for that.

        Args:
            sequence: of a command that was asked for before, by a process that is gone, maybe: its answer, or else it is applied now.

        Raises:
            SessionExpiredError: the group has forgotten the session, or this answer. What was asked for before may have been applied.
            GroupStoppedError: this replica does not run. In no log: `resume_session` on another node goes on.
            OutcomeUnknownError: the same, but it may be in a log. `request_id` says by which `sequence` to propose it there.
            EntryTooLargeError, WireError, ConfigError: the command cannot be replicated, and is in no log; or it was applied, its answer
                was lost, and is nothing that the group could keep: the text says so.
            Exception: what the machine declared as a result, now or the first time.

        *Cancellation:* the command may be applied all the same, once. To learn what became of it, propose it again with its `sequence`,
        which was `next_sequence` before the call; its answer is kept for the next 128 commands.
        """
        payload = self._encode(command)
        if sequence is None:
            await self._wait_for_room()
            sequence = self._next
        else:
            _check_number("a sequence number", sequence)
        self._next = max(self._next, sequence + 1)
        self._under_way.add(sequence)
        self._given_up.discard(sequence)
        try:
            return await self._insist(sequence, payload)
        except trio.Cancelled:
            self._given_up.add(sequence)
            raise
        finally:
            self._under_way.discard(sequence)
            self._room.unpark_all()

    async def _wait_for_room(self) -> None:
        while self._under_way and self._next - min(self._under_way) >= WINDOW:
            await self._room.park()

    async def _insist(self, sequence: int, command: bytes) -> Any:
        pause, may_be_in_a_log = _PAUSE_MIN, False
        while True:
            try:
                return await self._ask(encode_call(self.id, sequence, self._acknowledged, command))
            except OutcomeUnknownError:
                may_be_in_a_log = True
            except (NotLeaderError, BusyError, ProposalDroppedError):
                pass
            except GroupStoppedError as error:
                raise self._stopped(sequence, error, may_be_in_a_log) from error
            await trio.sleep(pause)
            pause = min(2 * pause, _PAUSE_MAX)
            try:
                await self._wait_leader()
            except GroupStoppedError as error:
                raise self._stopped(sequence, error, may_be_in_a_log) from error

    def _stopped(self, sequence: int, error: GroupStoppedError, may_be_in_a_log: bool) -> RaftError:
        return OutcomeUnknownError(str(error), request_id=(self.id, sequence)) if may_be_in_a_log else error

    @property
    def _acknowledged(self) -> int:
        """No command up to this will be asked for again."""
        self._given_up = {sequence for sequence in self._given_up if sequence + WINDOW >= self._next - 1}
        return min([*self._under_way, *self._given_up, self._next]) - 1

    async def aclose(self) -> None:
        """Have the group forget the session. If that cannot be said now, the group forgets it when it has been quiet for long enough.

        *Cancellation:* as if it could not be said.
        """
        try:
            await self._ask(encode_close(self.id))
        except RaftError:
            return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()


def _check_number(name: str, value: Any) -> None:
    # NB: an impossible one would have the session count on from there, and no other command could be sent.
    if type(value) is not int or not 1 <= value < 1 << 63:
        raise ConfigError(f"{name} is a whole number from 1 to 2**63 - 1, not {value!r}")
