"""Replicated objects: calls, answers, and what is refused before anything is in the log."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import pytest
import trio

from trioraft import ApplyContext, ConfigError, Replicated, ResultError, StateMachine, VersionError, WireError, command, query
from trioraft.group import check_replicated

from .replicated_kit import OneLog


class Full(Exception):
    def __init__(self, size: int, limit: object = None) -> None:
        self.size, self.limit = size, limit
        super().__init__(f"full at {size}", limit)


class FullForEver(Full):
    """Not declared itself."""


class Bag(Replicated):
    """Things."""

    declared_errors: ClassVar[tuple[type[Exception], ...]] = (Full,)

    def __init__(self) -> None:
        self.things: list[str] = []
        self.indexes: list[int] = []

    @command
    def put(self, thing: str, *more: str, times: int = 1, **rest: int) -> list[str]:
        """Put things in."""
        if thing == "stone":
            raise Full(len(self.things))
        if thing == "rock":
            raise FullForEver(1, {3})
        if thing == "bomb":
            raise RuntimeError("a bug")
        self.things += [thing, *more] * times + sorted(rest)
        self.indexes.append(self.context.index)
        return self.things

    @command
    def pair(self, value: Any) -> Any:
        return (value, [value])

    @command
    def unfit(self) -> Any:
        self.things.append("unfit")
        return {1, 2}

    @command
    def nested(self) -> None:
        self.put("x")  # wrong, and that is what is tested

    @query
    def all(self) -> list[str]:
        return self.things

    @query
    def nth(self, n: int) -> str:
        if n >= len(self.things):
            raise Full(n)
        return self.things[n]

    @query
    def asks_itself(self) -> None:
        self.all()

    @query
    def looks_at_context(self) -> int:
        return self.context.index

    @query(level="stale")
    def old(self) -> list[str]:
        return self.things

    @query(level="follower")
    def near(self) -> int:
        return len(self.things)


async def test_commands_run_on_every_replica_and_answer_their_caller() -> None:
    one, two = Bag(), Bag()
    log = OneLog(one, two)
    assert await one.put("a", "b", times=2, zoo=1) == ["a", "b", "a", "b", "zoo"]
    assert await two.put(thing="c") == ["a", "b", "a", "b", "zoo", "c"]
    assert one.things == two.things
    assert one.indexes == two.indexes == [1, 2]
    assert len(log.log) == 2
    assert await two.all() == one.things


async def test_a_call_waits_for_a_leader() -> None:
    bag = Bag()
    log = OneLog(bag)
    log.leader = None
    assert await bag.put("a") == ["a"]
    log.leader = None
    assert await bag.near() == 1
    log.leader = None
    assert await bag.old() == ["a"]
    assert log.leader is None, "who asks for whatever is here waits for nobody"


async def test_each_query_has_its_level() -> None:
    bag = Bag()
    log = OneLog(bag)
    await bag.all(), await bag.near(), await bag.old()
    assert log.levels == ["linearizable", "follower", "stale"]


async def test_answers_are_no_part_of_the_state() -> None:
    bag = Bag()
    OneLog(bag)
    first = await bag.put("a")
    await bag.put("b")
    assert first == ["a"]
    (await bag.all()).append("c")
    (await bag.old()).append("d")
    assert bag.things == ["a", "b"]


@pytest.mark.parametrize("value", [(1, (2, [3])), {"a": (1,), 2: []}, None, b"x", 2**64 - 1, -(2**64), 1.0, True, [[], (), {}]])
async def test_plain_values_travel_as_they_are(value: Any) -> None:
    bag = Bag()
    OneLog(bag)
    found = await bag.pair(value)
    assert found == (value, [value])
    assert repr(found) == repr((value, [value]))


async def test_declared_errors_come_back_with_all_that_they_say() -> None:
    bag = Bag()
    OneLog(bag, Bag())
    with pytest.raises(Full) as caught:
        await bag.put("stone")
    assert (caught.value.args, caught.value.size, caught.value.limit) == (("full at 0", None), 0, None)
    with pytest.raises(Full) as caught:
        await bag.nth(4)
    assert caught.value.size == 4
    with pytest.raises(Full) as caught:
        await bag.put("rock")
    assert type(caught.value) is Full
    assert caught.value.args == ("full at 1", "{3}"), "what cannot travel is told as text"


async def test_an_undeclared_exception_leaves_apply() -> None:
    bag = Bag()
    OneLog(bag)
    with pytest.raises(RuntimeError, match="a bug"):
        await bag.put("bomb")
    assert await bag.put("a") == ["a"], "and the next body is not taken for one inside of it"


async def test_a_result_that_cannot_travel_is_told_and_stops_nobody() -> None:
    bag = Bag()
    OneLog(bag)
    with pytest.raises(ResultError, match="Bag.unfit.*not a set"):
        await bag.unfit()
    assert bag.things == ["unfit"]


class TestRefusedBeforeTheLog:
    @pytest.mark.parametrize("args, kwargs", [((), {}), (("a",), {"thing": "b"})])
    def test_arguments_that_do_not_fit_at_once(self, args: Any, kwargs: Any) -> None:
        bag = Bag()
        log = OneLog(bag)
        with pytest.raises(TypeError, match=r"Bag.put\(\): "):
            bag.put(*args, **kwargs)
        with pytest.raises(TypeError, match=r"Bag.nth\(\): "):
            bag.nth()  # type: ignore[call-arg]  # that is the point
        assert log.log == []

    @pytest.mark.parametrize("value", [{1}, object(), 2**64, {(1,): 2}, {"a": [{1.5j}]}, bytearray(), "\ud800", Full])
    async def test_arguments_that_cannot_travel(self, value: Any) -> None:
        bag = Bag()
        log = OneLog(bag)
        with pytest.raises(WireError, match="pair"):
            await bag.pair(value)
        assert log.log == []

    async def test_values_that_nest_too_deep_or_for_ever(self) -> None:
        bag = Bag()
        log = OneLog(bag)
        endless: list[Any] = []
        endless.append(endless)
        with pytest.raises(WireError, match="argument 'value' of Bag.pair.*nested"):
            await bag.pair(endless)
        assert log.log == []

    async def test_what_is_no_call(self) -> None:
        bag = Bag()
        log = OneLog(bag)
        with pytest.raises(TypeError, match="calls of its methods only, not int"):
            await log.propose(5)
        with pytest.raises(TypeError, match="read by the methods"):
            await log.read(5, level="stale")
        assert log.log == []

    def test_before_the_object_is_in_a_group(self) -> None:
        for call in (lambda: Bag().put("a"), Bag().all):
            with pytest.raises(RuntimeError, match="Bag.*pass it to add_group first"):
                call()

    async def test_calls_inside_of_a_body(self) -> None:
        bag = Bag()
        log = OneLog(bag)
        with pytest.raises(RuntimeError, match=r"Bag.nested\(\) calls Bag.put\(\)"):
            await bag.nested()
        with pytest.raises(RuntimeError, match=r"Bag.asks_itself\(\) calls Bag.all\(\)"):
            await bag.asks_itself()
        assert len(log.log) == 1, "nested itself"

    async def test_context_outside_of_a_command(self) -> None:
        bag = Bag()
        OneLog(bag)
        with pytest.raises(RuntimeError, match="bodies of commands"):
            _ = bag.context
        with pytest.raises(RuntimeError, match="bodies of commands"):
            await bag.looks_at_context()


async def test_a_query_that_the_other_node_does_not_know() -> None:
    class Older(Replicated):
        @query
        def all(self, start: int) -> list[str]:
            return []

    bag, older = Bag(), Older()
    OneLog(bag)
    OneLog(older)
    bag._trioraft.group = older._trioraft.group
    with pytest.raises(VersionError, match="version 1 of Older, and that has no query near"):
        await bag.near()
    with pytest.raises(VersionError, match=r"no query all\(\)"):
        await bag.all()


def test_an_error_that_the_asking_node_does_not_declare() -> None:
    class Calm(Bag):
        declared_errors: ClassVar[tuple[type[Exception], ...]] = ()

    calm, bag = Calm(), Bag()
    OneLog(bag)
    OneLog(calm)
    calm._trioraft.group = bag._trioraft.group

    async def main() -> None:
        with pytest.raises(ResultError, match="Bag.put.* raised Full.*not in `declared_errors`"):
            await calm.put("stone")

    trio.run(main)


async def test_a_blocking_object_may_be_called_while_a_body_runs_in_its_thread() -> None:
    inside, go_on = trio.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    class Slow(Replicated):
        blocking = True

        @command
        def wait(self) -> None:
            trio.from_thread.run_sync(inside.set, trio_token=token)
            trio.from_thread.run(go_on.wait, trio_token=token)

        @command
        def quick(self) -> int:
            return self.context.index

    class Threaded(OneLog):
        async def propose(self, command: Any) -> Any:
            payload = self.machines[0].codec.encode(command)
            call, context = self.machines[0].codec.decode(payload), ApplyContext(group_id=7, index=5, term=1, node_id=1)
            return await trio.to_thread.run_sync(self.machines[0].apply, call, context)

    slow = Slow()
    Threaded(slow)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.wait)
            await inside.wait()
            try:
                call = slow.quick()
                with pytest.raises(RuntimeError, match="bodies of commands"):
                    _ = slow.context
            finally:
                go_on.set()
    with trio.fail_after(10):
        assert await call == 5


class TestClasses:
    @pytest.mark.parametrize("name", ["apply", "query", "snapshot", "restore", "stored_index", "codec", "upgrade", "context", "_trioraft"])
    def test_names_that_are_taken(self, name: str) -> None:
        with pytest.raises(TypeError, match=f"Mine.{name} is a name"):
            type("Mine", (Replicated,), {name: None})

    @pytest.mark.parametrize("errors", [(Exception,), (VersionError,), (ValueError, Full, type("Full", (Exception,), {}))])
    def test_errors_that_must_not_be_declared(self, errors: Any) -> None:
        with pytest.raises(TypeError, match="declared_errors"):
            type("Mine", (Replicated,), {"declared_errors": errors})

    def test_bodies_that_wait(self) -> None:
        async def wait(self: Any) -> None: ...

        def generate(self: Any) -> Any:
            yield

        for decorator in (command, query):
            for function in (wait, generate):
                with pytest.raises(TypeError, match="plain function"):
                    decorator(function)
            with pytest.raises(TypeError, match="must be a method"):
                decorator(len)
            with pytest.raises(TypeError, match="`self`"):
                decorator(lambda: None)

    def test_a_second_name(self) -> None:
        with pytest.raises(TypeError, match="goes by the name of its function, put"):
            type("Mine", (Replicated,), {"put": Bag.put, "add": Bag.put})

    def test_levels(self) -> None:
        with pytest.raises(TypeError, match="level"):
            query(level="dirty")(lambda self: None)  # type: ignore[call-overload]  # that is the point

    async def test_a_derived_class_replaces_and_removes(self) -> None:
        class Base(Replicated):
            @command
            def one(self) -> str:
                return "base"

            @command
            def two(self) -> str:
                return "base"

        class Derived(Base):
            @command
            def one(self) -> str:
                return "derived"

            two = None  # type: ignore[assignment]  # no command any more

        derived = Derived()
        OneLog(derived)
        assert await derived.one() == "derived"
        assert set(Derived._trioraft_methods) == {"one"}

    def test_a_method_keeps_its_description(self) -> None:
        assert Bag.put.__doc__ == "Put things in."

    def test_an_object_is_for_one_group(self) -> None:
        bag = Bag()
        OneLog(bag)
        with pytest.raises(ConfigError, match="in group 7 already"):
            check_replicated(8, bag)

    def test_attributes_that_no_snapshot_could_hold(self) -> None:
        bag = Bag()
        bag.things = {"a"}  # type: ignore[assignment]  # that is the point
        with pytest.raises(ConfigError, match="group 8: attribute 'things' of Bag.*not a set.*use a dict"):
            check_replicated(8, bag)

    def test_other_machines_pass(self) -> None:
        check_replicated(8, StateMachine())

    async def test_attrs_classes(self) -> None:
        @attrs.define
        class Point(Replicated):
            x: int = 0

            @command
            def move(self, by: int) -> int:
                self.x += by
                return self.x

        point = Point(3)
        OneLog(point)
        assert await point.move(4) == 7
