"""Who is in a group, who leads it, and which replicas a node has: over HTTP, for curl and for the launcher's operator.

===================================  ===================================================================================================
``GET    /groups/{group}``           this node's replica
``PUT    /groups/{group}``           have a replica here: ``{"join": true}`` of a group that others began, or ``{"members": [1, 2, 3]}``
                                     to begin one, alike on all of them; ``"incarnation"`` for one that was removed before
``DELETE /groups/{group}``           remove the replica of this node; ``?force=1`` although it votes, as far as it knows
``PUT    /groups/{group}/members``   ``{"voters": [1, 2, 4], "learners": [], "expect": 17}``; 200 with ``{"configuration"}``
``PUT    /groups/{group}/leader``    ``{"target": 2}``, or null for anybody; 200 with ``{"leader"}``
``POST   /groups/{group}/snapshot``  take one now, on this node; 200 with ``{"index"}``
===================================  ===================================================================================================

Members and leader may be changed at any member. 409: refused, with the library's own name for the reason in ``kind``.
503 and 504 as for the keys (`http_api`).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
from http_answers import answer
from http_server import Request, Response, error_response, json_response
from http_status import replica_json

from trioraft import ConfigError, GroupNotFoundError, MultiRaftManager, RaftGroup

ADMIN_SECONDS = 30.0
"""How long a request waits for its outcome: a node that shall vote is brought up to date first, or waited for while it is silent."""


@attrs.frozen
class AdminApi:
    """Carries out what an operator asks for."""

    node: MultiRaftManager

    async def handle(self, request: Request, group_id: int, what: str) -> Response:
        """Answer one request; `what` is the part of the path behind the group, or empty."""
        operations: dict[str, dict[str, Callable[[Request, int], Awaitable[Response]]]] = {
            "": {"GET": self._look, "PUT": self._add, "DELETE": self._remove},
            "members": {"PUT": self._change},
            "leader": {"PUT": self._transfer},
            "snapshot": {"POST": self._snapshot},
        }
        operation = operations[what].get(request.method)
        if operation is None:
            methods = ", ".join(operations[what])
            return error_response(405, "method", f"this takes {methods}", ("allow", methods))
        return await answer(lambda: operation(request, group_id), ADMIN_SECONDS)

    async def _look(self, _request: Request, group_id: int) -> Response:
        return json_response(200, replica_json(self._group(group_id)))

    async def _add(self, request: Request, group_id: int) -> Response:
        given = _read(request, join=False, members=[], incarnation=1)
        if type(given["join"]) is not bool:
            raise ConfigError(f"join is true or false, not {given['join']!r}")
        members = _node_ids(given, "members")
        group = await self.node.add_group(group_id, members=members, join=given["join"], incarnation=given["incarnation"])
        return json_response(200, replica_json(group))

    async def _remove(self, request: Request, group_id: int) -> Response:
        await self.node.remove_group(group_id, force=request.query.get("force") == "1")
        return Response(204)

    async def _change(self, request: Request, group_id: int) -> Response:
        given = _read(request, voters=[], learners=[], expect=None)
        voters, learners = _node_ids(given, "voters"), _node_ids(given, "learners")
        index = await self._group(group_id).change_membership(voters=voters, learners=learners, expect=given["expect"])
        return json_response(200, {"configuration": index})

    async def _transfer(self, request: Request, group_id: int) -> Response:
        given = _read(request, target=None)
        return json_response(200, {"leader": await self._group(group_id).transfer_leadership(given["target"])})

    async def _snapshot(self, _request: Request, group_id: int) -> Response:
        return json_response(200, {"index": (await self._group(group_id).snapshot()).index})

    def _group(self, group_id: int) -> RaftGroup:
        group = self.node.groups.get(group_id)
        if group is None:
            raise GroupNotFoundError(f"group {group_id} is not on node {self.node.node_id}")
        return group


def _read(request: Request, **defaults: Any) -> dict[str, Any]:
    """The JSON object in the body, with these fields and no others."""
    try:
        given = json.loads(request.body or b"{}")
    except ValueError as error:
        raise ConfigError(f"the body is no JSON: {error}") from error
    if not isinstance(given, dict) or not given.keys() <= defaults.keys():
        raise ConfigError(f"the body is a JSON object with {', '.join(defaults)}")
    return defaults | given


def _node_ids(given: dict[str, Any], name: str) -> set[int]:
    value = given[name]
    if not isinstance(value, list) or any(type(node_id) is not int for node_id in value):
        raise ConfigError(f"{name} is a list of node ids, not {value!r}")
    return set(value)
