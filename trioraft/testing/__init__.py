"""Simulated clusters: whole groups of cores in virtual time, under faults, watched by one checker per property.

A program that embeds trioraft can run its own schedules with `Simulator`, and the command line runs thousands of seeds::

    python -m trioraft.testing.sim --seeds 2000

And the conformance suites of two contracts, for whoever brings a storage or a transport of their own: `StorageSuite`, `TransportSuite`.
"""

from ._all_checkers import Checkers as Checkers
from ._checker import Checker as Checker, Who as Who, World as World
from ._network import Weather as Weather
from ._planted import PLANTS as PLANTS, planted as planted
from ._schedule import FAULT_WEIGHTS as FAULT_WEIGHTS, Fault as Fault, Load as Load, Schedule as Schedule
from ._sim_cli import run_seed as run_seed
from ._simulator import Simulator as Simulator
from ._statistics import Statistics as Statistics
from ._storage_suite import StorageSuite as StorageSuite
from ._trace import Trace as Trace
from ._transport_place import Endpoint as Endpoint
from ._transport_suite import TransportSuite as TransportSuite
from ._violation import PropertyViolation as PropertyViolation
