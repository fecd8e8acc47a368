"""Questions to a machine, asked between two commands.

A question comes with the index that its answer must show (`Applier.ask`). When that is applied, an inline machine is asked at once; a
blocking one in its thread, all that are due in one hop, before its next batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import outcome
import trio

from .._errors import RaftError
from .._machine import StateMachine
from .._types import Index
from ._waiter import Token

Answer: TypeAlias = "outcome.Value[Any] | Exception"


class QueryFailedError(RaftError):
    """The machine's `query` raised what is no `Exception`, such as `SystemExit`: that must not get loose on the event loop."""


class Question:
    """A query, and who wants the answer; a `Token` itself, for the index from which on the answer is good."""

    __slots__ = ("_ask", "applied_index", "query", "token")

    def __init__(self, query: Any, token: Token, ask: Callable[[Index, Question], None]) -> None:
        self.query, self.token, self._ask = query, token, ask
        self.applied_index: Index = 0
        """What the answer shows."""

    def succeed(self, index: Index) -> None:
        self._ask(index, self)

    def fail(self, error: Exception) -> None:
        self.token.fail(error)

    def tell(self, answer: Answer, applied_index: Index) -> None:
        """Hand the machine's answer on."""
        self.applied_index = applied_index
        if isinstance(answer, outcome.Value):
            self.token.succeed(answer.value)
        else:
            self.token.fail(answer)


def ask_machine(machine: StateMachine, query: Any) -> Any:
    """Ask the machine, where its commands are applied.

    Raises:
        Exception: what the machine raised.
        QueryFailedError: that was no `Exception`.
    """
    try:
        return machine.query(query)
    except (Exception, KeyboardInterrupt, trio.Cancelled):
        raise  # the business of whoever asked; or meant for the program
    except BaseException as error:
        raise QueryFailedError(f"the state machine raised {type(error).__name__}") from error


def capture_answer(machine: StateMachine, query: Any) -> Answer:
    """As `ask_machine`, with what it raises as a value."""
    try:
        return outcome.Value(ask_machine(machine, query))
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the business of whoever asked
        return error


class Questions:
    """Those that are due, because everything that their answers must show is applied."""

    def __init__(self, machine: StateMachine) -> None:
        self._machine = machine
        self._due: list[Question] = []
        self._begun: list[Question] = []

    def __bool__(self) -> bool:
        return bool(self._due)

    def add(self, question: Question) -> None:
        self._due.append(question)

    def forget(self, question: Question) -> None:
        """Whoever asked has left. A question that is in a thread is answered, to nobody."""
        self._due = [due for due in self._due if due is not question]

    def begin(self) -> None:
        """The next `ask` is for those that are due now."""
        self._begun, self._due = self._due, []

    def ask(self) -> list[Answer]:
        """Have the machine answer, where its commands are applied; in its thread, maybe."""
        return [capture_answer(self._machine, question.query) for question in self._begun]

    def tell(self, answers: Sequence[Answer], applied_index: Index) -> None:
        """Hand the answers on; they show everything up to `applied_index`."""
        begun, self._begun = self._begun, []
        for question, answered in zip(begun, answers, strict=True):
            question.tell(answered, applied_index)

    def fail(self, error: Exception) -> None:
        """Nobody will be asked any more."""
        questions, self._begun, self._due = [*self._begun, *self._due], [], []
        for question in questions:
            question.fail(error)
