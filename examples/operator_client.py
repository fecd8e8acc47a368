"""What the launcher's operator asks the nodes, over their HTTP, and what it makes of the answers.

The truth about a group is what its leader says, looked up anew before each act; nothing is taken from memory. An answer is one of three:
done, refused (`RefusedError`: nothing has happened, and the library says why), or unknown (`NoOutcomeError`).
"""

from __future__ import annotations

import json
from typing import Any

import attrs
import trio
from cluster_nodes import ClusterNodes
from http_client import Answer, HttpConnection, NoAnswerError, NotSentError
from node_process import HOST

LOOK_SECONDS = 1.0
ANSWER_SECONDS = 35.0
"""NB: longer than a node itself waits (`http_admin.ADMIN_SECONDS`): what is given up here is not done later, behind our back."""


class RefusedError(Exception):
    """Nothing has happened. `kind` is the short name of the reason."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(f"{kind}: {text}")


class NoOutcomeError(Exception):
    """Done or not: the node did not answer, or does not know."""


@attrs.frozen(kw_only=True)
class GroupLook:
    """A group at one moment, as its leader tells, and the replicas that there are of it."""

    leader: int
    voters: frozenset[int]
    learners: frozenset[int]
    configuration: int
    incarnation: int
    up: frozenset[int]
    """The nodes that answered, with a replica or without."""
    having: frozenset[int]
    """Nodes that answered and have a replica, of a member or left over."""
    filled: frozenset[int]
    """Those of them that have applied anything: one that has just joined, or started, has not."""

    @property
    def members(self) -> frozenset[int]:
        return self.voters | self.learners

    @property
    def askable(self) -> frozenset[int]:
        """Members that are there: any of them takes a request for the leader."""
        return self.members & self.having

    @property
    def outside(self) -> frozenset[int]:
        """Nodes that could come in."""
        return self.up - self.members


class OperatorClient:
    """One request at a time to one node, on a connection of its own: there are few."""

    def __init__(self, nodes: ClusterNodes) -> None:
        self._nodes = nodes

    async def ask(self, node_id: int, method: str, path: str, value: Any = None, *, seconds: float = ANSWER_SECONDS) -> Answer:
        """Have a node do something; return its answer, which says that it is done.

        Raises:
            RefusedError: it is not.
            NoOutcomeError: nobody knows.
        """
        body = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
        try:
            with trio.fail_after(seconds):
                async with HttpConnection(HOST, self._nodes.nodes[node_id].http_port) as connection:
                    answer = await connection.request(method, path, body)
        except (NotSentError, NoAnswerError, trio.TooSlowError) as error:
            raise NoOutcomeError(str(error)) from error
        if answer.status < 300:
            return answer
        said = answer.json()
        if answer.status == 504:
            raise NoOutcomeError(said["text"])
        raise RefusedError(said.get("kind", said["error"]), said["text"])

    async def look(self, group_id: int) -> GroupLook | None:
        """Ask all nodes for the group; None: none of them leads it now, or its members are changing."""
        rows: dict[int, dict[str, Any] | None] = {}

        async def look_at(node_id: int) -> None:
            try:
                rows[node_id] = (await self.ask(node_id, "GET", f"/groups/{group_id}", seconds=LOOK_SECONDS)).json()
            except RefusedError:
                rows[node_id] = None
            except NoOutcomeError:
                pass

        async with trio.open_nursery() as nursery:
            for node in self._nodes.up():
                nursery.start_soon(look_at, node.node_id)
        leading = [(row["term"], node_id) for node_id, row in rows.items() if row is not None and row["role"] == "leader"]
        if not leading:
            return None
        leader = max(leading)[1]
        row = rows[leader]
        if row is None or row["outgoing"]:
            return None
        look = GroupLook(
            leader=leader,
            voters=frozenset(row["voters"]),
            learners=frozenset(row["learners"]),
            configuration=row["configuration"],
            incarnation=row["incarnation"],
            up=frozenset(rows),
            having=frozenset(node_id for node_id, row in rows.items() if row is not None),
            filled=frozenset(node_id for node_id, row in rows.items() if row is not None and row["applied"]),
        )
        return look if look.askable else None
