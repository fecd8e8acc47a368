"""Reads everything back from every replica, page by page, each replica from its own copy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import trio
from audit import Held, ReplicaCopy
from http_client import Answer, HttpConnection, NoAnswerError, NotSentError

_PAGE_SECONDS = 10.0
_TRIES = 5
_TRY_PAUSE_SECONDS = 0.2


class ReadBackError(Exception):
    """A replica could not be read. Nothing can be said about what it holds."""


async def read_all(addresses: Mapping[int, tuple[str, int]], members: Mapping[int, Collection[int]]) -> tuple[list[ReplicaCopy], list[str]]:
    """Read the replicas of all members of every group.

    Returns:
        The copies, and a sentence for each replica that could not be read.
    """
    copies: list[ReplicaCopy] = []
    problems: list[str] = []

    async def read_node(node_id: int, host: str, port: int) -> None:
        async with HttpConnection(host, port) as connection:
            for group_id in (group_id for group_id, nodes in members.items() if node_id in nodes):
                try:
                    copies.append(await read_replica(connection, node_id, group_id))
                except ReadBackError as error:
                    problems.append(str(error))

    async with trio.open_nursery() as nursery:
        for node_id, (host, port) in addresses.items():
            nursery.start_soon(read_node, node_id, host, port)
    return sorted(copies, key=lambda copy: (copy.group_id, copy.node_id)), sorted(problems)


async def read_replica(connection: HttpConnection, node_id: int, group_id: int) -> ReplicaCopy:
    """Read one replica as it is at one index; again from the start if it moves in the meantime.

    Raises:
        ReadBackError: it does not answer, or does not come to rest.
    """
    reason = "it keeps changing"
    for _ in range(_TRIES):
        try:
            copy = await _read_pages(connection, node_id, group_id)
        except (NotSentError, NoAnswerError, trio.TooSlowError) as error:
            reason = str(error) or "no answer"
            copy = None
        if copy is not None:
            return copy
        await trio.sleep(_TRY_PAUSE_SECONDS)
    raise ReadBackError(f"group {group_id} on node {node_id} could not be read back: {reason}")


async def _read_pages(connection: HttpConnection, node_id: int, group_id: int) -> ReplicaCopy | None:
    """All pages; None if the replica applied something between two of them."""
    rows: dict[str, Held] = {}
    first: dict[str, Any] | None = None
    offset = 0
    while first is None or offset < first["total"]:
        with trio.fail_after(_PAGE_SECONDS):
            answer = await connection.request("GET", f"/groups/{group_id}/keys?offset={offset}")
        page = _read_page(answer, node_id, group_id)
        first = page if first is None else first
        if page["index"] != first["index"]:
            return None
        for row in page["keys"]:
            rows[row["key"]] = Held(row["version"], row["index"], row.get("value"))
        if not page["keys"] and offset < first["total"]:
            return None
        offset += len(page["keys"])
    return ReplicaCopy(node_id, group_id, first["index"], first["digest"], rows)


def _read_page(answer: Answer, node_id: int, group_id: int) -> dict[str, Any]:
    if answer.status != 200:
        raise ReadBackError(f"group {group_id} on node {node_id} could not be read back: status {answer.status}, {answer.body[:200]!r}")
    page: dict[str, Any] = answer.json()
    return page
