"""Every check that the project has, each as one session. `nox` alone runs what a change must pass before it is sent.

The two that a stranger needs: ``nox -s tests`` and ``nox -s cluster``. Arguments after ``--`` go to the program that a session runs.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["tests", "lint", "typing"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True

ROOT = Path(__file__).parent
CONSTRAINTS = str(ROOT / "requirements" / "constraints.txt")
GROUPS = nox.project.load_toml("pyproject.toml")

# Two workers: the whole-cluster tests start processes of their own, and a laptop or a small CI machine should not notice.
WORKERS = ("-n", "2")

# The floors that decode what strangers send and that decide what is committed: there each branch has a test.
FLOORS_WITHOUT_GAPS = ("trioraft/core/*", "trioraft/wire/*")

# All codes of flake8-async but these: ASYNC120 (an error that gives way to a cancellation is missed by nobody: who cancelled has stopped
# asking), ASYNC128 (`task_status` is often handed on), ASYNC910 and 912 (not each path of each private helper has a checkpoint).
ASYNC_OPTIONS = (
    "--enable=ASYNC",
    "--disable=ASYNC120,ASYNC128,ASYNC910,ASYNC912",
    "--startable-in-context-manager=serve_manager,serve,run",
)

# After Ctrl-C these read everything back and end their processes; nox would kill them after a third of a second.
PATIENCE: Final = {"interrupt_timeout": 60, "terminate_timeout": 20}


def install(session: nox.Session, *groups: str, project: bool = True) -> None:
    """Install the dependency groups, and the project itself as it stands, in the pinned versions."""
    wanted = nox.project.dependency_groups(GROUPS, *groups) if groups else ()
    session.install("-c", CONSTRAINTS, *(("-e", ".") if project else ()), *wanted)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the test suite."""
    install(session, "test")
    session.run("python", "-m", "pytest", *WORKERS, *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the test suite and hold each floor to its share of covered branches: all of core and wire, 95 % of the rest."""
    install(session, "test")
    session.run("python", "-m", "coverage", "erase")
    session.run("python", "-m", "pytest", *WORKERS, "--cov", "--cov-report=", *session.posargs)
    strict = ",".join(FLOORS_WITHOUT_GAPS)
    session.log("floors without gaps: %s", strict)
    session.run("python", "-m", "coverage", "report", f"--include={strict}", "--fail-under=100", success_codes=[0, 2])
    session.log("all other floors")
    session.run("python", "-m", "coverage", "report", f"--omit={strict}", "--fail-under=95")
    session.run("python", "-m", "coverage", "report", f"--include={strict}", "--fail-under=100", "--format=total")


@nox.session
def sim(session: nox.Session) -> None:
    """Simulate thousands of seeded schedules: ``nox -s sim -- --seeds 2000``. A failing seed is printed and replays exactly."""
    install(session)
    session.run("python", "-m", "trioraft.testing.sim", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, misuse of Trio, and spelling."""
    install(session, "lint", project=False)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("flake8-async", *ASYNC_OPTIONS, *map(str, sorted(Path("trioraft").rglob("*.py"))))
    session.run("codespell")


@nox.session
def typing(session: nox.Session) -> None:
    """Type-check the library, and a program that uses all of its public API."""
    install(session, "typing")
    session.run("mypy", "--strict", "trioraft", "tests/typing/public_api.py")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a broken reference is an error. Its examples run."""
    install(session, "docs")
    output = ROOT / "docs" / "_build"
    shutil.rmtree(output, ignore_errors=True)
    session.run("sphinx-build", "-n", "-W", "--keep-going", "-b", "html", "docs", str(output / "html"), *session.posargs)
    session.run("sphinx-build", "-n", "-W", "--keep-going", "-b", "doctest", "docs", str(output / "doctest"))


@nox.session
def bench(session: nox.Session) -> None:
    """Measure real processes: ``nox -s bench``, or ``-- --scenario years``, ``groups`` or ``snapshot``."""
    session.install("-c", CONSTRAINTS, "-e", ".[examples]")
    session.run("python", "examples/bench.py", *session.posargs, **PATIENCE)


@nox.session
def cluster(session: nox.Session) -> None:
    """Run three real nodes with many groups under load: ``nox -s cluster -- --seconds 60 --kill-every 8``; ``--help`` lists the rest."""
    session.install("-c", CONSTRAINTS, "-e", ".[examples]")
    session.run("python", "examples/cluster.py", *session.posargs, **PATIENCE)


@nox.session
def build(session: nox.Session) -> None:
    """Pack the project, install the wheel where the sources are out of reach, and use it there."""
    install(session, "build", project=False)
    output = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(output, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(output))
    (wheel,), (sdist,) = output.glob("*.whl"), output.glob("*.tar.gz")
    session.log("built %s and %s", wheel.name, sdist.name)

    elsewhere = Path(session.create_tmp()).resolve() / "elsewhere"
    shutil.rmtree(elsewhere, ignore_errors=True)
    session.run("python", "-m", "venv", str(elsewhere))
    python = str(elsewhere / "bin" / "python")
    session.run(python, "-m", "pip", "install", "--quiet", "-c", CONSTRAINTS, str(wheel), external=True)
    with session.chdir(elsewhere):
        session.run(python, "-I", str(ROOT / ".ci" / "check_wheel.py"), external=True)
