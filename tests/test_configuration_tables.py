"""Each configuration field has a row in the docs, with its default; each row of the docs is a field."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import pytest

import trioraft
import trioraft.core

PAGE = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text()

CONFIGS: dict[str, type[Any]] = {
    name: value
    for module in (trioraft, trioraft.core, trioraft.storage, trioraft.transport, trioraft.group, trioraft.manager)
    for name, value in vars(module).items()
    if isinstance(value, type) and attrs.has(value) and name.endswith("Config") and not name.startswith("_")
}

REQUIRED = "required"


def tables() -> dict[str, dict[str, str]]:
    """Read the page: class name -> field -> default, as written."""
    found: dict[str, dict[str, str]] = {}
    rows: dict[str, str] = {}
    for line in PAGE.splitlines():
        if heading := re.match(r"#+ `(\w+)`", line):
            rows = found.setdefault(heading[1], {})
        elif line.startswith("#"):
            rows = {}
        elif row := re.match(r"\| `(\w+)` \| (.+?) \|", line):
            assert row[1] not in rows, f"{row[1]} has two rows"
            rows[row[1]] = row[2].strip()
    return found


def written(text: str) -> object:
    """The value that a cell of the default column stands for, such as `64 * 1024 * 1024`."""
    return REQUIRED if text == REQUIRED else eval(text.strip("`"), {"__builtins__": {}})


def default_of(field: attrs.Attribute[Any]) -> object:
    if field.default is attrs.NOTHING:
        return REQUIRED
    factory = getattr(field.default, "factory", None)
    return factory() if factory is not None else field.default


def test_there_is_something_to_compare() -> None:
    assert {"GroupConfig", "MultiRaftConfig", "RpcServerConfig", "StorageConfig", "TcpTransportConfig"} <= set(CONFIGS)


def test_each_table_is_a_class_and_each_class_has_a_table() -> None:
    assert set(tables()) == set(CONFIGS)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_rows_are_the_fields_with_their_defaults(name: str) -> None:
    fields = {field.alias or field.name: default_of(field) for field in attrs.fields(CONFIGS[name])}
    rows = {field: written(text) for field, text in tables()[name].items()}
    assert rows == fields


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_configs_are_values(name: str) -> None:
    """Frozen, keyword-only beyond the first field, and equal by value."""
    cls = CONFIGS[name]
    required = {"base_dir": "x", "bind_addr": "127.0.0.1:0"}
    arguments = {field.alias: required[field.name] for field in attrs.fields(cls) if field.default is attrs.NOTHING}
    value = cls(**arguments)
    assert value == cls(**arguments)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, attrs.fields(cls)[0].name, 1)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_each_field_has_a_docstring(name: str) -> None:
    """An attrs field's own docstring: a string literal on the line after it."""
    import ast
    import inspect
    import textwrap

    body = ast.parse(textwrap.dedent(inspect.getsource(CONFIGS[name]))).body[0]
    assert isinstance(body, ast.ClassDef)
    documented = {
        statement.target.id
        for statement, following in zip(body.body, body.body[1:], strict=False)
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
    }
    assert [field.name for field in attrs.fields(CONFIGS[name]) if field.name not in documented] == []
