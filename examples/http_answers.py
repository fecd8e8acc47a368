"""What a request to the node's HTTP came to: each failure as a status, a short stable name, and whether a retry is safe."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from http_server import Response, error_response
from kv import BadCommandError

from trioraft import (
    BusyError,
    ChangeRefusedError,
    ConfigError,
    EntryTooLargeError,
    GroupExistsError,
    GroupNotFoundError,
    GroupStoppedError,
    NotLeaderError,
    OutcomeUnknownError,
    ProposalDroppedError,
    SnapshotError,
    TransferRefusedError,
)

_RETRY_AFTER = ("retry-after", "1")


async def answer(operation: Callable[[], Awaitable[Response]], seconds: float) -> Response:
    """Run one operation, and say of every failure whether it is safe to try again."""
    try:
        with trio.fail_after(seconds):
            return await operation()
    except NotLeaderError as error:
        return _refused("not-leader", str(error))
    except BusyError as error:
        return _refused("busy", str(error))
    except ProposalDroppedError as error:
        return _refused("dropped", str(error))
    except GroupStoppedError as error:
        return _refused("group-stopped", f"{error}; ask another node")
    except ChangeRefusedError as error:
        return error_response(409, "change-refused", str(error), kind=error.kind)
    except TransferRefusedError as error:
        return error_response(409, "transfer-refused", str(error), kind=error.kind)
    except GroupExistsError as error:
        return error_response(409, "group-exists", str(error))
    except SnapshotError as error:
        return error_response(409, "snapshot-failed", str(error))
    except GroupNotFoundError as error:
        return error_response(404, "no-such-group", str(error))
    except EntryTooLargeError as error:
        return error_response(413, "too-large", str(error))
    except BadCommandError as error:
        return error_response(400, "bad-command", str(error))
    except ConfigError as error:
        return error_response(400, "bad-request", str(error))
    except OutcomeUnknownError as error:
        return _unknown(str(error), error.index, error.term)
    except trio.TooSlowError:
        return _unknown(f"no outcome within {seconds:g} s: it may be done or not, now or later", None, None)


def _refused(error: str, text: str) -> Response:
    return error_response(503, error, f"{text}. Nothing was done: send it again", _RETRY_AFTER, may_be_applied=False)


def _unknown(text: str, index: int | None, term: int | None) -> Response:
    return error_response(504, "outcome-unknown", f"{text}. Look before you send it again", may_be_applied=True, index=index, term=term)
