"""The key-value API: against a node of its own, and against one that fails in every way there is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import http_api
import pytest
import trio
from http_api import KEY_BYTES_MAX, KeyValueApi
from http_client import Answer, HttpConnection
from http_server import HttpServer, Request, Response
from kv import BadCommandError, KeyValueMachine

import trioraft
from trioraft import RpcServerConfig, StorageConfig, TcpTransport, TcpTransportConfig, WalStorage, open_manager

GROUP = 7


@pytest.fixture
async def connection(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[HttpConnection]:
    """A client of a node that is its own cluster."""
    async with open_manager(
        node_id=1,
        cluster_id="test",
        storage=WalStorage(StorageConfig(base_dir=str(tmp_path / "node-1"))),
        transport=TcpTransport(TcpTransportConfig()),
        server=RpcServerConfig(bind_addr="127.0.0.1:0"),
        addresses={},
        machine_factory=lambda _group_id: KeyValueMachine(),
    ) as manager:
        group = await manager.add_group(GROUP, members={1})
        await group.wait_leader()
        server = HttpServer(KeyValueApi(manager).handle)
        listeners = await nursery.start(server.serve, await trio.open_tcp_listeners(0, host="127.0.0.1"))
        async with HttpConnection("127.0.0.1", listeners[0].socket.getsockname()[1]) as client:
            yield client
        server.stop()


async def test_put_get_delete(connection: HttpConnection) -> None:
    put = await connection.request("PUT", "/groups/7/keys/gr%C3%BC%C3%9Fe%2F1", b"\x00\xff")
    assert (put.status, put.json()["version"], put.headers[b"raft-leader"]) == (200, 1, b"1")
    got = await connection.request("GET", "/groups/7/keys/gr%C3%BC%C3%9Fe%2F1")
    assert (got.status, got.body, got.headers[b"raft-version"]) == (200, b"\x00\xff", b"1")
    assert got.headers[b"raft-index"].decode() == str(put.json()["index"])
    assert (await connection.request("DELETE", "/groups/7/keys/gr%C3%BC%C3%9Fe%2F1")).status == 204
    assert (await connection.request("DELETE", "/groups/7/keys/gr%C3%BC%C3%9Fe%2F1")).status == 404
    assert (await connection.request("GET", "/groups/7/keys/gr%C3%BC%C3%9Fe%2F1")).status == 404


async def test_an_empty_value_is_a_value(connection: HttpConnection) -> None:
    assert (await connection.request("PUT", "/groups/7/keys/k", b"")).status == 200
    assert (await connection.request("GET", "/groups/7/keys/k")).status == 200


@pytest.mark.parametrize("level, status", [("linearizable", 200), ("follower", 200), ("stale", 200), ("lease", 400), ("any", 400)])
async def test_levels_of_reading(connection: HttpConnection, level: str, status: int) -> None:
    await connection.request("PUT", "/groups/7/keys/k", b"v")
    before = (await connection.request("GET", "/groups/7")).json()["last"]
    got = await connection.request("GET", f"/groups/7/keys/k?level={level}")
    assert got.status == status
    if status == 200:
        assert (got.body, got.headers[b"raft-version"]) == (b"v", b"1")
    assert (await connection.request("GET", "/groups/7")).json()["last"] == before  # a read is in no log


async def test_who_is_in_a_group_is_told(connection: HttpConnection) -> None:
    told = (await connection.request("GET", "/groups/7")).json()
    assert (told["voters"], told["learners"], told["outgoing"], told["configuration"]) == ([1], [], [], 0)
    assert (told["replica"], told["is_removed"], told["incarnation"]) == ("0@0", False, 1)


async def test_members_leader_and_snapshot(connection: HttpConnection) -> None:
    async def put(path: str, value: Any) -> tuple[int, Any]:
        answer = await connection.request("PUT", path, json.dumps(value).encode())
        said = answer.json()
        return answer.status, said.get("kind", said)

    await connection.request("PUT", "/groups/7/keys/k", b"v")  # until then the leader has committed nothing of its term
    assert await put("/groups/7/members", {"voters": [1], "expect": 0}) == (200, {"configuration": 0})
    assert await put("/groups/7/members", {"voters": [1], "expect": 3}) == (409, "stale_expect")
    assert await put("/groups/7/members", {"voters": []}) == (409, "removes_all_voters")
    assert await put("/groups/7/members", {"voters": [1, 2]}) == (409, "unknown_node")
    assert await put("/groups/7/leader", {"target": 1}) == (409, "leads")
    assert await put("/groups/7/leader", {"target": 2}) == (409, "no_voter")
    written = await connection.request("PUT", "/groups/7/keys/k", b"v")
    taken = await connection.request("POST", "/groups/7/snapshot")
    assert (taken.status, taken.json()) == (200, {"index": written.json()["index"]})


async def test_replicas_come_and_go(connection: HttpConnection) -> None:
    async def ask(method: str, path: str, value: Any = None) -> tuple[int, str | None]:
        answer = await connection.request(method, path, b"" if value is None else json.dumps(value).encode())
        return answer.status, answer.json().get("error") if answer.body else None

    assert await ask("PUT", "/groups/8", {"join": True}) == (200, None)
    assert (await connection.request("GET", "/groups/8")).json()["voters"] == []
    assert await ask("DELETE", "/groups/8") == (204, None)
    assert await ask("GET", "/groups/8") == (404, "no-such-group")
    assert await ask("DELETE", "/groups/8") == (404, "no-such-group")
    assert await ask("DELETE", "/groups/7") == (409, "group-exists")  # it votes
    assert await ask("DELETE", "/groups/7?force=1") == (204, None)
    assert await ask("PUT", "/groups/7", {"members": [1]}) == (409, "group-exists")
    assert await ask("PUT", "/groups/7", {"members": [1], "incarnation": 2}) == (200, None)
    assert (await connection.request("GET", "/groups/7/keys")).json()["total"] == 0


async def test_status_and_local_copy(connection: HttpConnection) -> None:
    for number in range(3):
        await connection.request("PUT", f"/groups/7/keys/k{number}", b"v" if number else b"\xff")
    status = (await connection.request("GET", "/status")).json()
    group = status["groups"]["7"]
    assert (group["role"], group["leader"], group["keys"], group["failure"]) == ("leader", 1, 3, None)
    assert group["applied"] == group["commit"] == group["last"]
    assert (status["node"]["id"], status["node"]["incarnation"]) == (1, 1)
    assert status["syncs"] > 0
    pages = [(await connection.request("GET", f"/groups/7/keys?offset={offset}&limit=2")).json() for offset in (0, 2)]
    rows = [row for page in pages for row in page["keys"]]
    assert [row["key"] for row in rows] == ["k0", "k1", "k2"]
    assert (rows[0]["value_base64"], rows[1]["value"]) == ("/w==", "v")
    assert {(page["index"], page["digest"], page["total"]) for page in pages} == {(group["index"], group["digest"], 3)}


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/", 404),
        ("GET", "/groups", 404),
        ("GET", "/groups/7/keys/a/b", 404),
        ("PUT", "/groups/8/keys/k", 404),
        ("PUT", "/groups/x/keys/k", 404),
        ("PUT", "/groups/-7/keys/k", 404),
        ("PUT", "/groups/%C2%B7/keys/k", 404),
        ("PUT", f"/groups/{'9' * 30}/keys/k", 404),
        ("GET", "/groups/8/keys", 404),
        ("PUT", "/groups/7/keys/", 400),
        ("PUT", f"/groups/7/keys/{'k' * (KEY_BYTES_MAX + 1)}", 400),
        ("PUT", f"/groups/7/keys/{'%C3%BC' * (KEY_BYTES_MAX // 2 + 1)}", 400),
        ("GET", "/groups/7/keys?offset=-1", 400),
        ("GET", "/groups/7/keys?limit=x", 400),
        ("POST", "/groups/7/keys/k", 405),
        ("PUT", "/status", 405),
        ("DELETE", "/groups/7/keys", 405),
        ("POST", "/groups/7", 405),
        ("GET", "/groups/7/members", 405),
        ("PUT", "/groups/7/snapshot", 405),
        ("PUT", "/groups/x/leader", 404),
        ("PUT", "/groups/8/leader", 404),
        ("PUT", "/groups/7/others", 404),
        ("PUT", "/groups/9", 400),
    ],
)
async def test_bad_input_is_named(connection: HttpConnection, method: str, path: str, status: int) -> None:
    answer = await connection.request(method, path)
    assert answer.status == status
    assert set(answer.json()) >= {"error", "text"}


@pytest.mark.parametrize(
    "path, body",
    [
        ("/groups/7/members", b"{"),
        ("/groups/7/members", b"[]"),
        ("/groups/7/members", b'{"voter": [1]}'),
        ("/groups/7/members", b'{"voters": 1}'),
        ("/groups/7/members", b'{"voters": [true]}'),
        ("/groups/7/members", b'{"voters": [[1]]}'),
        ("/groups/7/members", b'{"voters": [1], "learners": [1]}'),
        ("/groups/7/members", b'{"voters": [1], "expect": -1}'),
        ("/groups/7/leader", b'{"target": "x"}'),
        ("/groups/9", b'{"join": 1}'),
        ("/groups/9", b'{"members": [2]}'),
        ("/groups/9", b'{"join": true, "members": [1]}'),
        ("/groups/9", b'{"join": true, "incarnation": 0}'),
    ],
)
async def test_a_bad_body_is_named_and_nothing_changes(connection: HttpConnection, path: str, body: bytes) -> None:
    answer = await connection.request("PUT", path, body)
    assert (answer.status, answer.json()["error"]) == (400, "bad-request")
    assert (await connection.request("GET", "/groups/9")).status == 404


async def test_a_value_that_is_too_large_is_refused(connection: HttpConnection) -> None:
    assert (await connection.request("PUT", "/groups/7/keys/k", bytes(1024 * 1024 + 1))).status == 413
    assert (await connection.request("GET", "/groups/7/keys/k")).status == 404


@attrs.define
class FailingGroup:
    """Raises what it is told to, whatever is proposed."""

    error: BaseException | None = None
    leader: int | None = 2

    async def propose(self, command: Any) -> Any:
        if self.error is None:
            await trio.sleep_forever()
        raise self.error

    async def read(self, query: Any, *, level: str) -> Any:
        await self.propose(query)

    def status(self) -> Any:
        return SimpleNamespace(leader=self.leader)


async def ask(group: FailingGroup, method: str = "PUT") -> tuple[Response, dict[str, Any], dict[str, str]]:
    node = SimpleNamespace(groups={7: group})
    response = await KeyValueApi(node).handle(Request(method, ("groups", "7", "keys", "k"), {}, b"v"))
    return response, Answer(response.status, {}, response.body).json(), dict(response.headers)


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
@pytest.mark.parametrize(
    "error, status, name",
    [
        (trioraft.NotLeaderError(2), 503, "not-leader"),
        (trioraft.BusyError("full"), 503, "busy"),
        (trioraft.ProposalDroppedError("replaced"), 503, "dropped"),
        (trioraft.GroupStoppedError(7), 503, "group-stopped"),
        (trioraft.OutcomeUnknownError("lost", 5, 2), 504, "outcome-unknown"),
        (trioraft.GroupNotFoundError("gone"), 404, "no-such-group"),
        (trioraft.EntryTooLargeError("large"), 413, "too-large"),
        (trioraft.ConfigError("bad"), 400, "bad-request"),
        (BadCommandError("what?"), 400, "bad-command"),
    ],
)
async def test_every_failure_says_whether_to_try_again(error: Exception, status: int, name: str, method: str) -> None:
    response, body, headers = await ask(FailingGroup(error), method)
    assert (response.status, body["error"]) == (status, name)
    assert headers["raft-leader"] == "2"
    assert ("retry-after" in headers) == (status == 503)
    if status in (503, 504):
        assert body["may_be_applied"] is (status == 504)


async def test_an_unknown_outcome_names_the_entry() -> None:
    _, body, _ = await ask(FailingGroup(trioraft.OutcomeUnknownError("lost", 5, 2)))
    assert (body["index"], body["term"]) == (5, 2)


async def test_without_a_leader_none_is_named() -> None:
    _, _, headers = await ask(FailingGroup(trioraft.NotLeaderError(None), leader=None))
    assert "raft-leader" not in headers


async def test_an_outcome_that_does_not_come_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_api, "PROPOSE_SECONDS", 0.05)
    response, body, _ = await ask(FailingGroup())
    assert (response.status, body["may_be_applied"]) == (504, True)
