"""What became of a forwarded request, on its way back: written by the leader's node, read by the one that asked.

What cannot travel becomes "unknown", never "dropped": it may have been applied.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from .._errors import (
    BusyError,
    ChangeRefusedError,
    ConfigError,
    EntryTooLargeError,
    GroupNotFoundError,
    GroupStoppedError,
    NotLeaderError,
    OutcomeUnknownError,
    ProposalDroppedError,
    SessionExpiredError,
    TransferRefusedError,
    WireError,
)
from ..group import RaftGroup, describe_error, rebuild_error
from ..wire import Forward, ForwardOutcome, ForwardReply, RequestKind, decode_value, encode_value

TEXT_MAX: Final = 4096
"""Characters of an error's text that travel: what goes beyond would only make the answer too large for its frame."""

_FOR_MACHINES: Final = frozenset({RequestKind.COMMAND, RequestKind.SESSION, RequestKind.QUERY})
"""What a machine answers, its declared errors included."""

_FOR_THE_LOG: Final = frozenset({RequestKind.COMMAND, RequestKind.SESSION})
"""What is proposed, and so can be dropped."""


def reply_with_result(request: Forward, result: Any) -> ForwardReply:
    """The answer to a request that was carried out."""
    return _reply(request, ForwardOutcome.RESULT, result)


def reply_with_error(request: Forward, error: Exception, declared: tuple[type[Exception], ...]) -> ForwardReply:
    """The answer to a request that was refused, lost, or answered with one of its machine's declared errors."""
    description = describe_error(declared, error) if request.kind in _FOR_MACHINES else None
    if description is not None:
        return _reply(request, ForwardOutcome.DECLARED_ERROR, description)
    match error:
        case NotLeaderError():
            return _reply(request, ForwardOutcome.NOT_LEADER, error.leader)
        case ProposalDroppedError():
            return _reply(request, ForwardOutcome.DROPPED, _text(error))
        case BusyError():
            return _reply(request, ForwardOutcome.BUSY, _text(error))
        case EntryTooLargeError():
            return _reply(request, ForwardOutcome.TOO_LARGE, _text(error))
        case GroupStoppedError() | GroupNotFoundError() if request.kind not in _FOR_THE_LOG:
            return _reply(request, ForwardOutcome.NOT_LEADER, None)
        case GroupStoppedError():
            return _reply(request, ForwardOutcome.STOPPED, _text(error))
        case GroupNotFoundError():
            return _reply(request, ForwardOutcome.NOT_FOUND, _text(error))
        case ChangeRefusedError():
            return _reply(request, ForwardOutcome.CHANGE_REFUSED, [error.kind, _text(error)])
        case TransferRefusedError():
            return _reply(request, ForwardOutcome.TRANSFER_REFUSED, [error.kind, _text(error)])
        case SessionExpiredError():
            return _reply(request, ForwardOutcome.SESSION_EXPIRED, [error.session_id, error.sequence])
        case ConfigError() | WireError():
            return _reply(request, ForwardOutcome.REFUSED, _text(error))
        case OutcomeUnknownError():
            return _reply(request, ForwardOutcome.UNKNOWN, [error.index, error.term])
    return unknown_reply(request)


def unknown_reply(request: Forward | ForwardReply) -> ForwardReply:
    """The answer when nothing can be said."""
    return ForwardReply(request.incarnation, request.number, ForwardOutcome.UNKNOWN, encode_value([None, None]))


def _reply(request: Forward, outcome: ForwardOutcome, body: Any) -> ForwardReply:
    try:
        return ForwardReply(request.incarnation, request.number, outcome, encode_value(body))
    except WireError:
        return unknown_reply(request)


@attrs.frozen
class Result:
    """The request was carried out, and this came of it."""

    value: Any


def decode_outcome(group: RaftGroup, reply: ForwardReply) -> Result | Exception:
    """The answer as a value, or as the error that the leader's node would have raised."""
    outcome = ForwardOutcome(reply.outcome)
    body = decode_value(reply.body)
    match outcome:
        case ForwardOutcome.RESULT:
            return Result(body)
        case ForwardOutcome.DECLARED_ERROR:
            return rebuild_error(group.machine.declared_errors, body)
        case ForwardOutcome.NOT_LEADER:
            return NotLeaderError(body)
        case ForwardOutcome.DROPPED:
            return ProposalDroppedError(str(body))
        case ForwardOutcome.BUSY:
            return BusyError(str(body))
        case ForwardOutcome.TOO_LARGE:
            return EntryTooLargeError(str(body))
        case ForwardOutcome.STOPPED | ForwardOutcome.NOT_FOUND:
            return ProposalDroppedError(str(body))
        case ForwardOutcome.CHANGE_REFUSED:
            kind, text = body
            return ChangeRefusedError(str(kind), str(text))
        case ForwardOutcome.TRANSFER_REFUSED:
            kind, text = body
            return TransferRefusedError(str(kind), str(text))
        case ForwardOutcome.SESSION_EXPIRED:
            session_id, sequence = body
            return SessionExpiredError(session_id, sequence)
        case ForwardOutcome.REFUSED:
            return ConfigError(str(body))
        case ForwardOutcome.UNKNOWN:
            index, term = body
            return group.unknown_outcome("the leader was replaced or stopped", index, term, request_id=(reply.incarnation, reply.number))


def _text(error: Exception) -> str:
    """What an error says, as something that can travel: an odd letter must not turn a refusal into an unknown outcome."""
    return str(error)[:TEXT_MAX].encode(errors="replace").decode()
