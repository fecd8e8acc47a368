"""The key-value store over HTTP, for curl and for the launcher's clients.

======================================  ======================================================================================
``PUT    /groups/{group}/keys/{key}``   the body is the value; 200 with ``{"version", "index"}`` once a majority has it on disk
``GET    /groups/{group}/keys/{key}``   200 with the value, or 404; linearizable (see `KeyValueApi.get_key`)
``DELETE /groups/{group}/keys/{key}``   204, or 404 if there was no such key
``GET    /groups/{group}/keys``         what *this replica* holds now, page by page, for checks: ``?offset=0&limit=1000``
``GET    /status``                      this node and its replicas
======================================  ======================================================================================

Any node serves any request, wherever the leader of the group is; the header ``Raft-Leader`` names it, to save a hop next time.
A slash inside a key is written ``%2F``.

An answer says whether a retry may do something twice. 503 (with ``Retry-After``): the request is in no log, so send it again.
504: it was handed over and its outcome is not known; a retry may do it a second time.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import attrs
import trio
from http_server import Request, Response, error_response, json_response
from kv import BadCommandError, KeyValueMachine, Row

from trioraft import (
    BusyError,
    Counters,
    EntryTooLargeError,
    GroupNotFoundError,
    GroupStoppedError,
    NotLeaderError,
    OutcomeUnknownError,
    ProposalDroppedError,
)

KEY_BYTES_MAX = 512
PAGE_KEYS_MAX = 5000
"""Keys in one page: what can be written out at one go without keeping the other groups waiting."""
PROPOSE_SECONDS = 10.0
"""How long a request waits for its outcome before the answer is 504."""

_RETRY_AFTER = ("retry-after", "1")


class GroupHandle(Protocol):
    """What the API needs of a group."""

    async def propose(self, command: Any) -> Any: ...

    def status(self) -> Any: ...


class Node(Protocol):
    """What the API needs of a node."""

    @property
    def groups(self) -> Mapping[int, GroupHandle]: ...

    @property
    def counters(self) -> Counters: ...

    def status(self) -> Any: ...


@attrs.frozen
class KeyValueApi:
    """Turns requests into commands, and results into answers."""

    node: Node
    machines: Mapping[int, KeyValueMachine]

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        match request.path:
            case ("status",):
                return self._only_get(request, self._status)
            case ("groups", group, "keys"):
                return self._only_get(request, lambda: self._local_keys(group, request.query))
            case ("groups", group, "keys", key):
                return await self._key(request, group, key)
        return error_response(404, "no-such-path", "there are /status, /groups/{group}/keys and /groups/{group}/keys/{key}")

    async def _key(self, request: Request, group_text: str, key: str) -> Response:
        verb = {"PUT": self.put_key, "GET": self.get_key, "DELETE": self.delete_key}.get(request.method)
        if verb is None:
            return error_response(405, "method", "a key takes GET, PUT and DELETE", ("allow", "GET, PUT, DELETE"))
        if not 0 < len(key.encode()) <= KEY_BYTES_MAX:
            return error_response(400, "bad-key", f"a key has from 1 to {KEY_BYTES_MAX} bytes; a slash inside it is written %2F")
        group = self._find(group_text)
        if group is None:
            return self._no_such_group(group_text)
        response = await _answer(verb, group, key, request.body)
        leader = group.status().leader
        return response if leader is None else attrs.evolve(response, headers=(*response.headers, ("raft-leader", str(leader))))

    async def put_key(self, group: GroupHandle, key: str, value: bytes) -> Response:
        """Set a key. 200 means: on the disks of a majority, and applied."""
        return json_response(200, await group.propose(["put", key, value]))

    async def get_key(self, group: GroupHandle, key: str, _body: bytes) -> Response:
        """Read a key, linearizably: the read is proposed like a write, so it stands in the log after all that was acknowledged before.

        That costs an entry and a sync; a cheaper linearizable read that leaves no entry comes with `group.read`.
        """
        found = await group.propose(["get", key])
        if found is None:
            return error_response(404, "no-such-key", "the group has no such key")
        row = Row(*found)
        return Response(200, row.value, headers=(("raft-version", str(row.version)), ("raft-index", str(row.log_index))))

    async def delete_key(self, group: GroupHandle, key: str, _body: bytes) -> Response:
        """Remove a key."""
        result = await group.propose(["delete", key])
        return Response(204) if result["deleted"] else error_response(404, "no-such-key", "the group has no such key")

    def _only_get(self, request: Request, answer: Callable[[], Response]) -> Response:
        if request.method != "GET":
            return error_response(405, "method", "this takes GET only", ("allow", "GET"))
        return answer()

    def _find(self, text: str) -> GroupHandle | None:
        known = text.isascii() and text.isdigit() and len(text) < 20 and int(text) in self.machines
        return self.node.groups.get(int(text)) if known else None

    def _no_such_group(self, text: str) -> Response:
        known = f"there are {len(self.machines)}, from {min(self.machines)} to {max(self.machines)}" if self.machines else "there is none"
        return error_response(404, "no-such-group", f"no group {text[:20]!r} here; {known}")

    def _local_keys(self, group_text: str, query: Mapping[str, str]) -> Response:
        """This replica's own copy: maybe behind the others, never asked of them. `applied` says how far it is."""
        group = self._find(group_text)
        if group is None:
            return self._no_such_group(group_text)
        store = self.machines[int(group_text)].store
        offset, limit = query.get("offset", "0"), query.get("limit", str(PAGE_KEYS_MAX))
        if not (offset.isdigit() and offset.isascii() and limit.isdigit() and limit.isascii()) or len(offset) > 12 or len(limit) > 12:
            return error_response(400, "bad-page", "offset and limit are whole numbers")
        page = store.page(int(offset), min(int(limit), PAGE_KEYS_MAX))
        return json_response(
            200,
            {
                "group": int(group_text),
                "local": True,
                "index": store.index,
                "digest": store.digest,
                "applied": group.status().applied_index,
                "total": len(store.rows),
                "keys": [_row_json(key, row) for key, row in page],
            },
        )

    def _status(self) -> Response:
        status = self.node.status()
        groups = {
            str(group_id): self._group_json(group_id, group)
            for group_id, group in sorted(self.node.groups.items())
            if group_id in self.machines
        }
        return json_response(
            200,
            {
                "node": {"id": status.node_id, "store": str(status.store_id), "incarnation": status.incarnation},
                "syncs": status.sync_count,
                "counters": attrs.asdict(self.node.counters),
                "groups": groups,
            },
        )

    def _group_json(self, group_id: int, group: GroupHandle) -> dict[str, Any]:
        status, store = group.status(), self.machines[group_id].store
        failure = getattr(group, "failure", None)
        return {
            "role": getattr(status.role, "name", str(status.role)).lower(),
            "term": status.term,
            "leader": status.leader,
            "commit": status.commit_index,
            "applied": status.applied_index,
            "first": status.first_index,
            "last": status.last_index,
            "snapshot": status.snapshot.index,
            "keys": len(store.rows),
            "index": store.index,
            "digest": store.digest,
            "failure": None if failure is None else str(failure),
        }


async def _answer(verb: Callable[[GroupHandle, str, bytes], Awaitable[Response]], group: GroupHandle, key: str, body: bytes) -> Response:
    """Run one operation, and say of every failure whether it is safe to try again."""
    try:
        with trio.fail_after(PROPOSE_SECONDS):
            return await verb(group, key, body)
    except NotLeaderError as error:
        return _refused("not-leader", str(error))
    except BusyError as error:
        return _refused("busy", str(error))
    except ProposalDroppedError as error:
        return _refused("dropped", str(error))
    except GroupStoppedError as error:
        return _refused("group-stopped", f"{error}; ask another node")
    except GroupNotFoundError as error:
        return error_response(404, "no-such-group", str(error))
    except EntryTooLargeError as error:
        return error_response(413, "too-large", str(error))
    except BadCommandError as error:
        return error_response(400, "bad-command", str(error))
    except OutcomeUnknownError as error:
        return _unknown(str(error), error.index, error.term)
    except trio.TooSlowError:
        return _unknown(f"no outcome within {PROPOSE_SECONDS:g} s: the command may or may not be applied, now or later", None, None)


def _refused(error: str, text: str) -> Response:
    return error_response(503, error, f"{text}. Nothing was done: send it again", _RETRY_AFTER, may_be_applied=False)


def _unknown(text: str, index: int | None, term: int | None) -> Response:
    return error_response(
        504, "outcome-unknown", f"{text}. Read the key before you send it again", may_be_applied=True, index=index, term=term
    )


def _row_json(key: str, row: Row) -> dict[str, Any]:
    named = {"key": key, "version": row.version, "index": row.log_index}
    try:
        return {**named, "value": row.value.decode()}
    except UnicodeDecodeError:
        return {**named, "value_base64": base64.b64encode(row.value).decode()}
