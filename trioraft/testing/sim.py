"""Run the simulator from the command line: ``python -m trioraft.testing.sim --seeds 2000``."""

from __future__ import annotations

from ._sim_cli import main

if __name__ == "__main__":
    raise SystemExit(main())
