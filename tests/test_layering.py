"""The floors of the house: imports go down only. Read from the sources, so nothing has to be importable."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "trioraft"

GROUND = {"_types", "_errors", "_machine"}

# Which floors each floor may import, beside itself and the ground. `docs/design.md` draws the same picture.
FLOORS: dict[str, set[str]] = {
    "core": set(),
    "wire": {"core"},
    "observe": {"core", "wire"},
    "storage": {"core", "wire", "observe"},
    "transport": {"core", "wire", "observe"},
    "group": {"core", "wire", "observe", "storage", "transport"},
    "manager": {"core", "wire", "observe", "storage", "transport", "group"},
    "testing": {"core", "wire", "observe", "storage", "transport", "group", "manager"},
    "cli": {"core", "wire", "observe", "storage", "transport", "group", "manager", "testing"},
}

# A core that reads a clock, opens a file or draws from the global generator cannot be replayed.
IMPURE_MODULES = {
    "asyncio", "concurrent", "datetime", "logging", "multiprocessing", "os", "pathlib", "secrets", "select", "shutil", "signal", "socket",
    "ssl", "subprocess", "tempfile", "threading", "time", "trio", "trio_util", "uuid",
}  # fmt: skip

# What would run code that a peer sends, or share a memory layout across versions.
FORBIDDEN_EVERYWHERE = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "asyncio"}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def floor_of(parts: tuple[str, ...]) -> str:
    """The floor that a dotted path inside the package belongs to; the package itself is the roof."""
    return parts[0] if parts else "<roof>"


def imports(path: Path) -> Iterator[tuple[int, tuple[str, ...], bool]]:
    """Yield (line, dotted parts, is it ours) for each import of a file, wherever in the file it stands."""
    package = path.relative_to(PACKAGE).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = tuple(alias.name.split("."))
                yield node.lineno, parts[1:] if parts[0] == "trioraft" else parts, parts[0] == "trioraft"
        elif isinstance(node, ast.ImportFrom):
            base = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                assert node.level - 1 <= len(package), f"{name_of(path)}:{node.lineno} reaches out of the package"
                base = package[: len(package) - node.level + 1] + base
            elif base[:1] == ("trioraft",):
                base = base[1:]
            else:
                yield node.lineno, base, False
                continue
            if base:
                yield node.lineno, base, True
            else:  # `from .. import storage`: the names themselves are the floors
                yield from ((node.lineno, (alias.name,), True) for alias in node.names)


def test_every_module_stands_on_a_known_floor() -> None:
    found = {path.relative_to(PACKAGE).parts[0] for path in SOURCES} - {"__init__.py", "__main__.py"}
    assert found - {f"{name}.py" for name in GROUND} <= set(FLOORS), "a new module needs a floor"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_down_only(path: Path) -> None:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts[0] in {"__init__", "__main__"}:
        return  # the roof shows what all floors have
    here = parts[0]
    allowed = GROUND if here in GROUND else FLOORS[here] | GROUND | {here}
    wrong = [
        f"{name_of(path)}:{line} imports {'.'.join(target) or 'trioraft'}"
        for line, target, ours in imports(path)
        if ours and floor_of(target) not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_other_floors_are_entered_by_the_front_door(path: Path) -> None:
    here = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if here == "testing":
        return  # the simulator runs the real parts one by one, private ones included
    wrong = [
        f"{name_of(path)}:{line} imports {'.'.join(target)}"
        for line, target, ours in imports(path)
        if ours and len(target) > 1 and target[0] != here and target[1].startswith("_")
    ]
    assert wrong == [], "import from the package, not from its private modules"


@pytest.mark.parametrize("floor", ["core", "wire"])
def test_core_and_wire_touch_nothing_of_the_world(floor: str) -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {'.'.join(target)}"
        for path in SOURCES
        if path.relative_to(PACKAGE).parts[0] == floor
        for line, target, ours in imports(path)
        if not ours and target[0] in IMPURE_MODULES
    ]
    assert wrong == []


@pytest.mark.parametrize("floor", ["core", "wire"])
def test_core_and_wire_open_and_print_nothing(floor: str) -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno} calls {node.func.id}"
        for path in SOURCES
        if path.relative_to(PACKAGE).parts[0] == floor
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"open", "print", "input", "eval", "exec", "hash"}
    ]
    assert wrong == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_randomness_is_injected(path: Path) -> None:
    """Only the class `random.Random` is used: the module's functions share one hidden generator."""
    wrong = [
        f"{name_of(path)}:{node.lineno} uses random.{node.attr}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "random"
        and node.attr in {"random", "randrange", "randint", "choice", "choices", "shuffle", "sample", "uniform", "seed", "getrandbits"}
        and not _is_local(path, "random", node.lineno)
    ]
    assert wrong == []


def _is_local(path: Path, name: str, line: int) -> bool:
    """Whether `name` at `line` is an argument or a variable of the function around it, and not the module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.lineno <= line <= (node.end_lineno or line):
            arguments = {argument.arg for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]}
            variables = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)}
            if name in arguments | variables:
                return True
    return False


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_that_runs_received_code(path: Path) -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {target[0]}"
        for line, target, ours in imports(path)
        if not ours and target[0] in FORBIDDEN_EVERYWHERE
    ]
    assert wrong == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_safety_does_not_rest_on_assert(path: Path) -> None:
    """`python -O` removes asserts; what guards safety raises `InvariantError`."""
    if path.relative_to(PACKAGE).parts[0] == "testing":
        return  # checkers of the simulator report their own errors; narrowing there guards nothing that runs in production
    wrong = [f"{name_of(path)}:{node.lineno}" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]
    assert wrong == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_unbounded_memory_channel(path: Path) -> None:
    """Everything has a limit: `math.inf` as a buffer size is a memory leak with a schedule."""
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and "open_memory_channel" in ast.unparse(node.func)
        and "inf" in "".join(ast.unparse(argument) for argument in node.args)
    ]
    assert wrong == []
