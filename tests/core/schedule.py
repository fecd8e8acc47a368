"""Random schedules of a network of five nodes: faults and proposals; then calm, in which all must recover."""

from __future__ import annotations

import random

import attrs

from tests.core.harness import E, Network
from trioraft._types import NodeId

ACTIONS = "cut heal crash restart stall sync wait snapshot hold_loads hold_streams end_stream replace change propose"


@attrs.define
class Schedule:
    """What happens on nodes 1 to 5. After each step there is one leader a term and one entry an index, whoever applies it."""

    network: Network
    generator: random.Random
    _leaders: dict[int, int] = attrs.Factory(dict)
    _history: dict[int, bytes] = attrs.Factory(dict)

    def run(self, steps: int, actions: str, *, deliveries_max: int) -> None:
        """Take so many steps, each one of the `actions` (words of `ACTIONS`) and then up to so many deliveries."""
        words = actions.split()
        assert set(words) <= set(ACTIONS.split())
        for number in range(steps):
            node_id = self.generator.randrange(1, 6)
            self._act(self.generator.choice(words), node_id, b"%d" % number)
            for _ in range(self.generator.randrange(deliveries_max + 1)):
                self.network.deliver_one()
            self._check_safety()

    def settle(self) -> NodeId:
        """Mend everything, let time pass and propose ``end``; return the leader."""
        network = self.network
        network.heal()
        network.holds_loads = network.holds_streams = False
        for node_id in range(1, 6):
            if node_id not in network.nodes:
                network.restart(node_id)
            network.sync(node_id)
        network.wait(20 * E)
        leader = network.leader
        assert leader is not None
        network.propose(leader, b"end")
        network.wait(2 * E)
        self._check_safety()
        return leader

    def _act(self, action: str, node_id: NodeId, payload: bytes) -> None:
        """What cannot be done to this node now is a proposal instead."""
        network, generator, is_up = self.network, self.generator, node_id in self.network.nodes
        match action:
            case "cut":
                network.cut(node_id, generator.randrange(1, 6), both_ways=generator.random() < 0.5)
            case "heal":
                network.heal()
            case "crash" if is_up and len(network.nodes) > 3:
                network.crash(node_id)
            case "restart" if not is_up:
                network.restart(node_id)
            case "stall" if is_up:
                network.stall(node_id)
            case "sync" if is_up:
                network.sync(node_id)
            case "wait":
                network.wait(generator.randrange(E))
            case "snapshot" if is_up and not network.disks[node_id].is_stalled:
                network.snapshot(node_id)
            case "hold_loads":
                network.holds_loads = generator.random() < 0.5
            case "hold_streams":
                network.holds_streams = generator.random() < 0.5
            case "end_stream" if network.streams:
                network.end_stream(arrives=generator.random() < 0.7)
            case "replace" if len(network.nodes) == 5 and not self._is_in_a_log(node_id):
                network.replace(node_id)
            case "change":
                voters = generator.sample(range(1, 6), generator.randrange(2, 6))
                for leader in network.leaders:
                    network.change(leader, *voters)
            case _:
                for leader in network.leaders:
                    network.propose(leader, payload)

    def _is_in_a_log(self, node_id: NodeId) -> bool:
        return any(node_id in raft.configuration.members() for raft in self.network.nodes.values())

    def _check_safety(self) -> None:
        for leader in self.network.leaders:
            assert self._leaders.setdefault(self.network.nodes[leader].term, leader) == leader
        for entries in self.network.applied.values():
            for entry in entries:
                assert self._history.setdefault(entry.index, entry.payload) == entry.payload
