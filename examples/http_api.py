"""The key-value store over HTTP, for curl and for the launcher's clients.

======================================  ======================================================================================
``PUT    /groups/{group}/keys/{key}``   the body is the value; 200 with ``{"version", "index"}`` once a majority has it on disk
``GET    /groups/{group}/keys/{key}``   200 with the value, or 404; linearizable, or ``?level=follower``, ``lease``, ``stale``
``DELETE /groups/{group}/keys/{key}``   204, or 404 if there was no such key
``GET    /groups/{group}/keys``         what *this replica* holds now, page by page, for checks: ``?offset=0&limit=1000``
``GET    /status``                      this node and its replicas
``/groups/{group}`` and others          members, leaders, replicas: see `http_admin`
======================================  ======================================================================================

Any node that has a replica serves any request, wherever the leader of the group is; the header ``Raft-Leader`` names it, to save a hop
next time. A slash inside a key is written ``%2F``.

An answer says whether a retry may do something twice. 503 (with ``Retry-After``): the request is in no log, so send it again.
504: it was handed over and its outcome is not known; a retry may do it a second time.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from http_admin import AdminApi
from http_answers import answer
from http_server import Request, Response, error_response, json_response
from http_status import node_json
from kv import Row

from trioraft import MultiRaftManager, RaftGroup, StaleRead

KEY_BYTES_MAX = 512
PAGE_KEYS_MAX = 5000
"""Keys in one page: what can be written out at one go without keeping the other groups waiting."""
PROPOSE_SECONDS = 10.0
"""How long a request waits for its outcome before the answer is 504."""


@attrs.frozen
class KeyValueApi:
    """Turns requests into commands, and results into answers."""

    node: MultiRaftManager

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        match request.path:
            case ("status",):
                return self._only_get(request, lambda: json_response(200, node_json(self.node)))
            case ("groups", group, "keys"):
                return self._only_get(request, lambda: self._local_keys(group, request.query))
            case ("groups", group, "keys", key):
                return await self._key(request, group, key)
            case ("groups", group):
                return await self._administer(request, group, "")
            case ("groups", group, "members" | "leader" | "snapshot" as what):
                return await self._administer(request, group, what)
        return error_response(404, "no-such-path", "there are /status, /groups/{group}/keys, /groups/{group}/keys/{key} and some more")

    async def _administer(self, request: Request, group_text: str, what: str) -> Response:
        group_id = _group_id(group_text)
        return self._no_such_group(group_text) if group_id is None else await AdminApi(self.node).handle(request, group_id, what)

    async def _key(self, request: Request, group_text: str, key: str) -> Response:
        verb = {"PUT": self.put_key, "GET": self.get_key, "DELETE": self.delete_key}.get(request.method)
        if verb is None:
            return error_response(405, "method", "a key takes GET, PUT and DELETE", ("allow", "GET, PUT, DELETE"))
        if not 0 < len(key.encode()) <= KEY_BYTES_MAX:
            return error_response(400, "bad-key", f"a key has from 1 to {KEY_BYTES_MAX} bytes; a slash inside it is written %2F")
        group = self._find(group_text)
        if group is None:
            return self._no_such_group(group_text)
        response = await answer(lambda: verb(group, key, request), PROPOSE_SECONDS)
        leader = group.status().leader
        return response if leader is None else attrs.evolve(response, headers=(*response.headers, ("raft-leader", str(leader))))

    async def put_key(self, group: RaftGroup, key: str, request: Request) -> Response:
        """Set a key. 200 means: on the disks of a majority, and applied."""
        return json_response(200, await group.propose(["put", key, request.body]))

    async def get_key(self, group: RaftGroup, key: str, request: Request) -> Response:
        """Read a key; unless another level is asked for, with everything that was acknowledged before, anywhere."""
        found = await group.read(["get", key], level=request.query.get("level", "linearizable"))
        if isinstance(found, StaleRead):
            found = found.value
        if found is None:
            return error_response(404, "no-such-key", "the group has no such key")
        row = Row(*found)
        return Response(200, row.value, headers=(("raft-version", str(row.version)), ("raft-index", str(row.log_index))))

    async def delete_key(self, group: RaftGroup, key: str, _request: Request) -> Response:
        """Remove a key."""
        result = await group.propose(["delete", key])
        return Response(204) if result["deleted"] else error_response(404, "no-such-key", "the group has no such key")

    def _only_get(self, request: Request, answer: Callable[[], Response]) -> Response:
        if request.method != "GET":
            return error_response(405, "method", "this takes GET only", ("allow", "GET"))
        return answer()

    def _find(self, text: str) -> RaftGroup | None:
        group_id = _group_id(text)
        return None if group_id is None else self.node.groups.get(group_id)

    def _no_such_group(self, text: str) -> Response:
        groups = self.node.groups
        known = f"there are {len(groups)}, from {min(groups)} to {max(groups)}" if groups else "there is none"
        return error_response(404, "no-such-group", f"no group {text[:20]!r} here; {known}")

    def _local_keys(self, group_text: str, query: Mapping[str, str]) -> Response:
        """This replica's own copy: maybe behind the others, never asked of them. `applied` says how far it is."""
        group = self._find(group_text)
        if group is None:
            return self._no_such_group(group_text)
        store = group.machine.store
        offset, limit = query.get("offset", "0"), query.get("limit", str(PAGE_KEYS_MAX))
        if not (offset.isdigit() and offset.isascii() and limit.isdigit() and limit.isascii()) or len(offset) > 12 or len(limit) > 12:
            return error_response(400, "bad-page", "offset and limit are whole numbers")
        page = store.page(int(offset), min(int(limit), PAGE_KEYS_MAX))
        return json_response(
            200,
            {
                "group": group.id,
                "local": True,
                "index": store.index,
                "digest": store.digest,
                "applied": group.status().applied_index,
                "total": len(store.rows),
                "keys": [_row_json(key, row) for key, row in page],
            },
        )


def _group_id(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _row_json(key: str, row: Row) -> dict[str, Any]:
    named = {"key": key, "version": row.version, "index": row.log_index}
    try:
        return {**named, "value": row.value.decode()}
    except UnicodeDecodeError:
        return {**named, "value_base64": base64.b64encode(row.value).decode()}
