"""The names that users may rely on."""

from __future__ import annotations

import ast
import importlib
import inspect
import types
from pathlib import Path

import pytest

import trioraft

ROOT = Path(__file__).parent.parent

# What a user of the library types. A name joins this list on purpose, and leaves it only with a "What breaks" fragment.
PUBLIC = {
    "AppliedEntry",
    "ApplyContext",
    "BusyError",
    "ChangeRefusedError",
    "Codec",
    "ConfigError",
    "CorruptLogError",
    "CorruptSnapshotError",
    "Counters",
    "DiskSpaceChanged",
    "EntryId",
    "EntryTooLargeError",
    "Event",
    "FileStorage",
    "GroupConfig",
    "GroupExistsError",
    "GroupFailed",
    "GroupNotFoundError",
    "GroupStatus",
    "GroupStoppedError",
    "Instrument",
    "InvariantError",
    "LeaderChange",
    "MachineFactory",
    "MemoryNetwork",
    "MemoryStorage",
    "MemoryTransport",
    "MultiRaftConfig",
    "MultiRaftManager",
    "MultiRaftStorage",
    "MultiplexedTransport",
    "NodeStatus",
    "NotLeaderError",
    "OutcomeUnknownError",
    "PeerLiveness",
    "PeerRefused",
    "PeerStatus",
    "ProposalDroppedError",
    "RaftError",
    "RaftGroup",
    "ReadLevel",
    "Replicated",
    "Reset",
    "ResultError",
    "Role",
    "RoleChanged",
    "RpcServer",
    "RpcServerConfig",
    "Session",
    "SessionExpiredError",
    "SlowRoundTrip",
    "SnapshotError",
    "SnapshotFailed",
    "SnapshotSaved",
    "StaleRead",
    "StateMachine",
    "StateMachineError",
    "StorageConfig",
    "StorageError",
    "TcpTransport",
    "TcpTransportConfig",
    "TransferRefusedError",
    "TransportError",
    "VersionError",
    "WalStorage",
    "WireError",
    "command",
    "open_manager",
    "query",
    "serve_manager",
}

FLOORS = ["core", "wire", "observe", "storage", "transport", "group", "manager", "testing", "cli"]


def exported() -> set[str]:
    return {name for name, value in vars(trioraft).items() if not name.startswith("_") and not isinstance(value, types.ModuleType)}


def test_public_names_are_these() -> None:
    assert exported() == PUBLIC


def test_what_is_exported_is_ours() -> None:
    """Nothing that a module happened to import becomes public by accident."""
    strangers = {name for name in exported() if not getattr(getattr(trioraft, name), "__module__", "trioraft").startswith("trioraft")}
    assert strangers <= {"Event", "MachineFactory", "ReadLevel"}  # types of types: their class is the language's


def test_each_export_is_meant_for_type_checkers_too() -> None:
    """Without `as`, a name in a typed package is private to a strict type checker."""
    tree = ast.parse((ROOT / "trioraft" / "__init__.py").read_text())
    aliases = [alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert {alias.asname for alias in aliases} >= PUBLIC
    assert [alias.name for alias in aliases if alias.asname not in {None, alias.name}] == []


def undocumented(value: object) -> list[str]:
    """What lacks a docstring: "" for the object itself, else names of its own public methods. Properties may speak by their names."""
    missing = [] if (inspect.getdoc(value) or "").strip() else [""]
    if not inspect.isclass(value):
        return missing
    for name, member in vars(value).items():
        function = getattr(member, "__func__", member)
        # `getdoc` of the bound name inherits: an implementation need not repeat the contract.
        if not name.startswith("_") and inspect.isfunction(function) and not inspect.getdoc(getattr(value, name)):
            missing.append(name)
    return missing


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_each_public_name_says_what_it_is(name: str) -> None:
    value = getattr(trioraft, name)
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return  # constants and type aliases cannot carry one
    assert undocumented(value) == [], f"{name} lacks docstrings"


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_each_public_name_is_in_the_api_reference(name: str) -> None:
    if not inspect.isclass(getattr(trioraft, name)) and not inspect.isroutine(getattr(trioraft, name)):
        return
    text = (ROOT / "docs" / "api.rst").read_text()
    assert f":: trioraft.{name}\n" in text or f":: {name}\n" in text, f"docs/api.rst does not name {name}"


@pytest.mark.parametrize("floor", FLOORS)
def test_each_floor_says_what_it_is(floor: str) -> None:
    module = importlib.import_module(f"trioraft.{floor}")
    assert (module.__doc__ or "").strip()


def test_each_error_tells_whose_fault_it_is_by_its_base() -> None:
    errors = [value for name in sorted(PUBLIC) if inspect.isclass(value := getattr(trioraft, name)) and issubclass(value, BaseException)]
    assert errors
    assert [error for error in errors if not issubclass(error, trioraft.RaftError)] == []
