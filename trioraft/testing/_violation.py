"""What a checker raises: which property is broken, how it shows, and the seed that shows it again."""

from __future__ import annotations

import attrs


@attrs.define(eq=False)
class PropertyViolation(Exception):
    """A property of the protocol does not hold.

    Not a `RaftError`: nothing in the library may catch it as expected trouble.
    """

    name: str
    """The property, as `Checker.name` or a name of the simulator itself (``liveness``, ``quietness``, ``invariant``, ``crash``)."""

    detail: str
    """What was seen, with nodes, terms and indexes."""

    seed: int | None = None
    """The schedule's seed; None while the checker is used outside of a simulation."""

    trace: tuple[str, ...] = ()
    """The last events before the violation, rendered."""

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}" + ("" if self.seed is None else f" (seed {self.seed})")

    # NB: exceptions pickle by `args`, which attrs does not fill; the program's worker processes send violations home.
    def __reduce__(self) -> tuple[type[PropertyViolation], tuple[str, str, int | None, tuple[str, ...]]]:
        return PropertyViolation, (self.name, self.detail, self.seed, self.trace)
